"""Do the scores mean something? The planted defects of shared/data/defects.yaml against held-out good pictures.

    python -m tests.bench.meaning [brand ...]      about 2 minutes a brand on two cores; exit 1 if a target is missed

What the area under the ROC curve is taken of: the smallest (value - line) / spread of the references over the default
policy's checks; the line is the one that a picture must not fall below to be accepted. Good pictures are renders of
combinations that the brand never showed, so that nothing but the defect differs. Classes and strengths are fixed there;
clipped and framed pictures are added to them here (OURS), printed and not counted.

Real art: references and good pictures are halves of noto-animals (ART=FOLDER in the environment names another), judged
by pixels alone, since the miniature's encoder does not know such pictures; printed, not counted. So are the two
readings of style where the references are of two brands.
"""

import io
import itertools
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from eval.judging.byscores import smallest_margin_in_spreads
from eval.lot.batch import PlanSlot
from eval.lot.compared import comparison_pictures_with_decided_ones
from eval.lot.lot import Lot, sha256_by_name
from eval.measuring import encoder as encoding
from eval.measuring.columns import compute_and_write_scores
from eval.measuring.scores import read_scores
from eval.policy import file as policyfile
from eval.policy.lines import resolve_check_lines
from eval.scorers import SCORES, style
from stylegate import brandset, files, pictures
from stylegate.config import Config
from tests.bench import defects
from tests.bench.style import unseen
from train.miniature.drawing import render_collectible
from train.miniature.styles import BRANDS, NAMED

FLAT, ART = NAMED[0], files.ROOT.parent / "shared" / "data" / "noto-animals"
SEED, GOOD, EACH = 7200, 256, 32
ALL, ONE, CAUGHT = 0.98, 0.90, 0.95  # areas over all classes and of each; caught where 95 % of good are kept
NOT_COUNTED = ("wrong eyes", "wrong mouth", "style mix .25")
KINDS = ("background", "body", "species", "eyes", "mouth", "headwear", "item")

Random = np.random.Generator
Case = tuple[PlanSlot, Image.Image]  # what was planned, and the picture that is there


def true(slot: PlanSlot, brand: str) -> Image.Image:
    return as_image(render_collectible(slot.traits, BRANDS[brand], slot.seed_of_attempt(0)))


def as_image(drawn: Image.Image | np.ndarray) -> Image.Image:
    return drawn if isinstance(drawn, Image.Image) else Image.fromarray(drawn)


def mixed(share: float) -> Callable[[PlanSlot, str, Random], Image.Image]:
    def of(slot: PlanSlot, brand: str, random: Random) -> Image.Image:
        return Image.blend(
            true(slot, brand), as_image(render_collectible(slot.traits, FLAT, slot.seed_of_attempt(0))), share
        )

    return of


def wrong(kind: str, values: dict[str, list[str]]) -> Callable[[PlanSlot, str, Random], Image.Image]:
    """Another value is drawn than planned, in one kind of trait."""

    def of(slot: PlanSlot, brand: str, random: Random) -> Image.Image:
        other = str(random.choice([v for v in values[kind] if v != slot.traits[kind]]))
        return true(slot.model_copy(update={"traits": slot.traits | {kind: other}}), brand)

    return of


def spoilt(by: Callable[[Image.Image, Random], Image.Image]) -> Callable[[PlanSlot, str, Random], Image.Image]:
    return lambda slot, brand, random: by(true(slot, brand), random)


def jpeg(image: Image.Image, random: Random) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=8)
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")


def colour_cast(image: Image.Image, random: Random) -> Image.Image:
    values = np.asarray(image, dtype=np.float64).copy()
    values[..., int(random.integers(3))] *= 0.6
    return Image.fromarray(values.round().astype(np.uint8))


def crop(image: Image.Image, random: Random) -> Image.Image:
    side = round(0.7 * image.width)
    x, y = (int(random.integers(0, image.width - side + 1)) for _ in range(2))
    return image.crop((x, y, x + side, y + side)).resize(image.size, Image.Resampling.BICUBIC)


def black(image: Image.Image, random: Random) -> Image.Image:
    return Image.new("RGB", image.size)


def levels(gain: float, offset: float) -> Callable[[Image.Image, Random], Image.Image]:
    """What exceeds 0 to 255 is cut off."""

    def of(image: Image.Image, random: Random) -> Image.Image:
        return Image.fromarray((np.asarray(image, dtype=np.float64) * gain + offset).clip(0, 255).astype(np.uint8))

    return of


def framed(across: float, down: float) -> Callable[[Image.Image, Random], Image.Image]:
    """In a black frame, its widths as shares of the picture's sides."""

    def of(image: Image.Image, random: Random) -> Image.Image:
        x, y = round(across * image.width), round(down * image.height)
        out = Image.new("RGB", image.size)
        inside = (image.width - 2 * x, image.height - 2 * y)
        out.paste(image.resize(inside, Image.Resampling.BICUBIC), (x, y))
        return out

    return of


PIXELS = [
    defects.blur,
    defects.noise,
    jpeg,
    colour_cast,
    crop,
    defects.occlusion,
    defects.blank,
    black,
    defects.half_drawn,
]
OURS = {
    "overexposed": levels(1.8, 0),
    "underexposed": levels(1.8, -120),
    "framed": framed(0.06, 0.06),
    "letterbox": framed(0, 0.15),
}


def planted(brand: str) -> tuple[list[Case], dict[str, list[Case]]]:
    """Good pictures, and those of each class; every slot is another combination, but a duplicate has its original's."""
    random, slots = np.random.default_rng(SEED), unseen(brand, GOOD + EACH * 19, SEED)
    good: list[Case] = [(slot, true(slot, brand)) for slot in slots[:GOOD]]
    values = {kind: sorted({slot.traits[kind] for slot in slots}) for kind in KINDS}
    making: dict[str, Callable[[PlanSlot, str, Random], Image.Image]] = {
        "style mix .25": mixed(0.25),
        "style mix .5": mixed(0.5),
        "style mix 1": mixed(1.0),
    }
    making |= {f"wrong {kind}": wrong(kind, values) for kind in KINDS} | {by.__name__: spoilt(by) for by in PIXELS}
    rest, bad = iter(slots[GOOD:]), {}
    for name, make in making.items():
        some = [next(rest) for _ in range(EACH)]
        bad[name] = [(slot, make(slot, brand, random)) for slot in some]
    twins = good[:EACH]
    bad["exact duplicate"] = list(twins)
    bad["near duplicate"] = [(slot, defects.near_duplicate(image, random)) for slot, image in twins]
    training = brandset.read_brand_set(brandset.brand_folder(brand)).splits["train"]
    copied = [(item, defects.copied_training(Image.open(item.path).convert("RGB"), random)) for item in training[:EACH]]
    bad["copied training"] = [(slots[0].model_copy(update={"traits": item.traits}), image) for item, image in copied]
    more = iter(unseen(brand, EACH * len(OURS), SEED + 1))
    for name, by in OURS.items():
        bad[name] = [(slot, by(true(slot, brand), random)) for slot in itertools.islice(more, EACH)]
    return good, bad


def judged(cases: list[Case], config: Config, place: Path) -> tuple[np.ndarray, list[dict[str, float | None]]]:
    """The smallest distance to a line, in spreads, of each; and the rows of the table. Of twins the later one falls."""
    images = place / "images"
    images.mkdir(parents=True)
    named, slots = [], {}
    for number, (slot, image) in enumerate(cases):
        path = images / f"{number:05d}-{number}.png"
        path.write_bytes(pictures.png_bytes(image))
        named.append((path.name, path))
        slots[path.name] = slot.model_copy(update={"slot": number})
    has_traits = any(slot.traits for slot, _ in cases)
    lot = Lot(images, place, named, sha256_by_name(named), slots if has_traits else None, None)
    compute_and_write_scores(config, lot, comparison_pictures_with_decided_ones(config, lot), quiet=True)
    rows, references, said = read_scores(place)
    columns = {name for name in rows[0] if name in SCORES}
    policy = policyfile.read_policy("default")
    bounds, _, _ = resolve_check_lines(policy, columns, references, said.references.given, said.foreign, said.copies)
    if not config.brand:  # the miniature's encoder does not know such pictures
        bounds = [bound for bound in bounds if SCORES[bound.score].kind != "encoder"]
    kept = [
        smallest_margin_in_spreads(row | {"in_domain": None}, bounds) for row in rows
    ]  # all lines count, known picture or not
    least = np.array([-np.inf if distance is None else distance for distance in kept])
    return least, rows


def table(good: np.ndarray, bad: dict[str, np.ndarray], counted: Callable[[str], bool]) -> list[str]:
    """Print each class's area and share caught; returns what was missed."""
    line = np.quantile(good, 0.05)  # 95 % of good kept
    missed, pooled = [], []
    for name, values in bad.items():
        labels = np.r_[np.ones(len(good)), np.zeros(len(values))]
        area, caught = float(roc_auc_score(labels, np.r_[good, values])), float((values < line).mean())
        print(f"  {name:<18}{area:>7.3f}{caught:>8.2f}{'' if counted(name) else '   not counted'}")
        if counted(name):
            pooled.append(values)
            missed += [f"{name}: area {area:.3f}"] if area < ONE else []
    every = np.concatenate(pooled)
    labels = np.r_[np.ones(len(good)), np.zeros(len(every))]
    area, caught = float(roc_auc_score(labels, np.r_[good, every])), float((every < line).mean())
    print(
        f"  {'all that count':<18}{area:>7.3f}{caught:>8.3f}   {(good >= 0).mean():.3f} of good accepted by the policy"
    )
    missed += [f"all: area {area:.3f}"] if area < ALL else []
    return missed + ([f"caught {caught:.3f} at 95 % of good kept"] if caught < CAUGHT else [])


def measure(brand: str) -> list[str]:
    good, bad = planted(brand)
    with tempfile.TemporaryDirectory() as place:
        least, _ = judged(good + [case for cases in bad.values() for case in cases], Config(brand=brand), Path(place))
    ends = np.cumsum([len(good), *(len(cases) for cases in bad.values())])
    parts = dict(zip(bad, np.split(least, ends)[1:-1], strict=True))
    print(f"\n{brand:<20}{'area':>7}{'caught':>8}")
    return [
        f"{brand}: {line}" for line in table(least[: len(good)], parts, lambda name: name not in (*NOT_COUNTED, *OURS))
    ]


def art(folder: Path) -> None:
    """Halves of a folder of real pictures: one is the references, the other one is good, and spoilt."""
    random = np.random.default_rng(SEED)
    every = [pictures.decode_picture(path.read_bytes()).image for path in pictures.find_pictures(folder)]
    references, kept = every[::2], every[1::2]
    blank = PlanSlot(slot=0, prompt="", seed=0, traits={})
    making: dict[str, list[Image.Image]] = {by.__name__: [by(image, random) for image in kept] for by in PIXELS}
    making["near duplicate"] = [defects.near_duplicate(image, random) for image in kept]
    making["renders of neon"] = [
        true(slot, "neon").resize(kept[0].size, Image.Resampling.BICUBIC) for slot in unseen("neon", len(kept), SEED)
    ]
    with tempfile.TemporaryDirectory() as place:
        shown = Path(place) / "references"
        shown.mkdir()
        for i, image in enumerate(references):
            image.save(shown / f"{i:03d}.png")
        cases: list[Case] = [(blank, image) for image in kept + [i for images in making.values() for i in images]]
        least, _ = judged(cases, Config(references=str(shown)), Path(place) / "out")
    ends = np.cumsum([len(kept), *(len(images) for images in making.values())])
    parts = dict(zip(making, np.split(least, ends)[1:-1], strict=True))
    print(f"\n{folder.name:<20}{'area':>7}{'caught':>8}   {len(references)} references, {len(kept)} good pictures")
    table(least[: len(kept)], parts, lambda name: True)


def two_looks(a: str, b: str) -> None:
    """References of two brands: renders of both are good, those of the third and half-mixed ones are not."""
    encoder = encoding.load_encoder("miniature", torch.device("cpu"))
    known = encoder.domain.known if encoder.domain else None

    def seen(images: list[Image.Image]) -> np.ndarray:
        return encoding.encode_pictures(
            encoder, [encoder.preprocessing.resized_and_cropped_pixels(image) for image in images]
        ).embeddings

    def renders(brand: str, make: Callable[[PlanSlot, str, Random], Image.Image], seed: int) -> list[Image.Image]:
        return [make(slot, brand, np.random.default_rng(seed)) for slot in unseen(brand, EACH, seed)]

    paths = [path for name in (a, b) for path in pictures.find_pictures(brandset.brand_folder(name) / "test")[:EACH]]
    references = seen([pictures.decode_picture(path.read_bytes()).image for path in paths])
    plain = spoilt(lambda image, random: image)
    good = seen([image for name in (a, b) for image in renders(name, plain, SEED)])
    third = next(name for name in BRANDS if name not in (a, b))
    bad = renders(third, plain, SEED) + [image for name in (a, b) for image in renders(name, mixed(0.5), SEED + 2)]
    every, labels = np.concatenate([good, seen(bad)]), np.r_[np.ones(len(good)), np.zeros(len(bad))]
    areas = [
        roc_auc_score(labels, values)
        for values in (style.score(every, references), style.closeness_to_nearest(every, references, known))
    ]
    print(f"  {a + ' and ' + b:<18}{areas[0]:>7.3f}{areas[1]:>8.3f}")


def main() -> int:
    missed = [line for name in sys.argv[1:] or BRANDS for line in measure(name)]
    folder = Path(os.environ.get("ART") or ART)
    if folder.is_dir() and not sys.argv[1:]:
        art(folder)
    if not sys.argv[1:]:
        print(f"\n{'references of two':<20}{'style':>7}{'nearest':>8}")
        for a, b in itertools.combinations(BRANDS, 2):
            two_looks(a, b)
    print("\n".join(["missed:", *missed]) if missed else "every target holds")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
