"""Everything wrong with a brand set at once: files, pictures, captions, splits.

    stylegate check brand=acme
    stylegate check brand=acme base=DIR show=true       the shape that each picture is trained in

stylegate/brandcheck.py finds what is wrong with files, pictures and rows; a set with such problems is refused by every
verb. The rest is remarks. Whether captions fit their pictures is asked of the brand's encoder: for each word a reader
is fitted on all pictures but one. A caption is named that fits its picture worse than a tenth of all captions do, and
much worse than it fits any picture. Of several captions of a picture the first is asked about.
"""

from collections import Counter
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from eval.measuring.encoder import load_encoder
from eval.measuring.encodername import encoder_name
from eval.measuring.features import cached_features_of_files
from stylegate import brandcheck, brandset, buckets, files, hardware, pictures
from stylegate.brandset import SPLITS, BrandSet, CheckReport
from stylegate.captionfaults import problems_of_captions, words_of
from stylegate.config import Config
from stylegate.errors import ModelError
from stylegate.families import FAMILIES
from stylegate.splits import remarks_on_splits, remarks_on_words_missing_in_training
from stylegate.words import counted

FEWEST_COMPARED = 48  # pictures; of fewer, readers of words are too unsure
FEWEST_OF_WORD, LEAST_OF_WORD = 5, 0.04  # pictures whose captions have a word, and lack it: number, and share
RIDGE = 0.1  # penalty of readers, as a share of the mean squared length of rows
UNSURE = 0.01  # no reader is surer than this of a word or of its absence
READABLE = 0.75  # mean area under the ROC curve of the words' readers from which on captions are compared
BETTER = 0.1  # share of all captions that fit a picture better than its own, from which on its own is named
# Log-likelihood by which a named caption fits its own picture worse than any picture (docs/log.md): of sets with MANY
# pictures, and of smaller ones, whose readers of words are less sure.
MANY, WORSE, WORSE_OF_FEW = 100, 5, 12


class MisplacedCaption(NamedTuple):
    """A caption that many other captions of the set fit its picture better than, so that it may belong to another
    picture.
    """

    file: str
    text: str
    better: int  # captions of the set that fit the picture better


def check(config: Config) -> int:
    """Check a brand set and print remarks. Returns 0.

    Raises DataError that lists every problem.
    """
    folder = brandset.brand_folder(config.brand)
    findings = brandcheck.check_brand_set_files(folder)
    brand_set = None if findings.problems else brandset.read_brand_set(folder)
    if brand_set:
        add_caption_and_split_remarks(config, brand_set, findings)
    for remark in findings.all_remarks():
        print(f"note: {remark}")
    brandset.raise_if_problems(folder, findings)
    assert brand_set
    for line in training_buckets_in_words(config, brand_set):
        print(line)
    counts = ", ".join(f"{len(held)} {part}" for part, held in brand_set.splits.items())
    remarks = len(findings.all_remarks())
    left = f"nothing stops training; {counted(remarks, 'note')} above" if remarks else "no problems"
    print(f"{files.display_path(folder)}: {counts}; {left}")
    return 0


def training_buckets_in_words(config: Config, brand_set: BrandSet) -> list[str]:
    """A line for each shape that pictures of train/ are trained in with this base; with show=true one for each picture.

    Raises ModelError if the base is not there.
    """
    family = FAMILIES[config.family.name]
    sketch = family.weightless_model(family.base_folder(config.base, weights=False))
    items = brand_set.splits["train"]
    names, sizes = (
        [item.file for item in items],
        [pictures.upright_size_of(item.unchanged_file_bytes()) for item in items],
    )
    resolutions = config.train.resolutions or [config.family.resolution or sketch.resolution]
    views = buckets.training_sizes_of_pictures(sizes, resolutions, sketch.multiple, config.train.buckets)
    shown = buckets.picture_scaling_and_cropping_in_words(names, sizes, views) if config.show else []
    return [*shown, *buckets.buckets_in_words(names, sizes, views)]


def add_caption_and_split_remarks(config: Config, brand_set: BrandSet, findings: CheckReport) -> None:
    """Add remarks on the captions and splits of the set to `findings.remarks`, in place."""
    brand, splits = brand_set.brand, brand_set.splits
    learned = {item.file: item.all_captions_of_picture() for item in splits["train"]}
    findings.remarks += problems_of_captions(learned, brand.trigger, brand.style)
    findings.remarks += brandcheck.remarks_on_long_captions(brand_set, config)
    findings.remarks += remarks_on_splits(len(splits["validation"]), len(splits["test"]))
    held_out = [", ".join(item.all_captions_of_picture()) for part in ("validation", "test") for item in splits[part]]
    findings.remarks += remarks_on_words_missing_in_training(chain.from_iterable(learned.values()), held_out)
    try:
        misplaced = misplaced_captions(config, brand_set)
    except ModelError as error:
        findings.remarks.append(f"whether captions fit their pictures was not asked: {error.summary}")
        return
    findings.remarks += [
        f'{one.file}: "{one.text}" may be the caption of another picture; {one.better} others fit it better'
        for one in misplaced
    ]


def misplaced_captions(config: Config, brand_set: BrandSet) -> list[MisplacedCaption]:
    """Captions that may belong to other pictures of the set, by the brand's encoder.

    An empty list where there are fewer than FEWEST_COMPARED pictures, or where words cannot be read in such pictures.
    Raises ModelError if the encoder cannot be loaded.
    """
    items = {item.file: item for part in SPLITS for item in brand_set.splits[part]}
    if len(items) < FEWEST_COMPARED:
        return []
    encoder = load_encoder(encoder_name(config), hardware.set_threads_and_choose_device(config.hardware))
    found, _ = cached_features_of_files(
        [(name, item.path) for name, item in items.items()],
        {name: item.sha256 for name, item in items.items()},
        encoder,
        brand_set.brand.background,
        config.score.batch_size,
        "encode",
    )
    captions = [items[name].text for name in found.names]
    words = word_presence_matrix(captions)
    if not words.shape[1]:
        return []
    rows = np.concatenate([found.embeddings, found.patches], axis=1, dtype=np.float64)
    likely = leave_one_out_word_probabilities(rows, words)
    areas = [roc_auc_score(column, seen) for column, seen in zip(words.T, likely.T, strict=True)]
    if np.mean(areas) < READABLE:
        return []
    fits = np.log(likely) @ words.T + np.log(1 - likely) @ (1 - words.T)  # [pictures, captions]
    own, shares = np.diag(fits), words.mean(0)
    unseen = words @ np.log(shares) + (1 - words) @ np.log(1 - shares)  # how likely the caption is of any picture
    better, worse = (fits > own[:, None]).sum(1), WORSE if len(captions) >= MANY else WORSE_OF_FEW
    return [
        MisplacedCaption(found.names[i], captions[i], int(better[i]))
        for i in np.flatnonzero((better > BETTER * len(captions)) & (own < unseen - worse)).tolist()
    ]


def word_presence_matrix(captions: list[str]) -> NDArray[np.float64]:
    """[captions, words] 1 where a caption holds a word, or two words side by side, else 0.

    Words are left out that stand in few captions, or are lacking in few (FEWEST_OF_WORD, LEAST_OF_WORD).
    """
    held = [{*(words := words_of(text)), *pairwise(words)} for text in captions]
    fewest = max(FEWEST_OF_WORD, LEAST_OF_WORD * len(captions))
    counts = Counter(word for one in held for word in one)
    kept = sorted((word for word, count in counts.items() if fewest <= count <= len(captions) - fewest), key=str)
    return np.array([[word in one for word in kept] for one in held], float).reshape(len(captions), -1)


def leave_one_out_word_probabilities(rows: NDArray[np.float64], words: NDArray[np.float64]) -> NDArray[np.float64]:
    """[pictures, words] how likely each word is true of each picture, UNSURE to 1 - UNSURE, by ridge regression.

    `rows` [pictures, d] are what the encoder gives, `words` [pictures, words] is 1 where the caption has the word. Each
    picture is read by a regression on all others, in closed form (the residual divided by 1 - its leverage).
    """
    centred = rows - rows.mean(0)
    inner = centred @ centred.T
    penalty = RIDGE * float(np.trace(inner)) / len(inner)
    hat = inner @ np.linalg.inv(inner + penalty * np.eye(len(inner))) + 1 / len(inner)
    leverage = np.diag(hat)[:, None]
    return np.clip((hat @ words - leverage * words) / (1 - leverage), UNSURE, 1 - UNSURE)
