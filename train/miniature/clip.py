"""The miniature's CLIP in open_clip's own form: a contrast of pictures and captions, where the world knows the truth.

Because every attribute is known, a caption that also fits another picture of the batch is no negative of it, so short
captions can be learned; and batches hold pictures that are hard to tell apart: twins of one different trait, and
groups that share two attributes.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional

from stylegate import files
from train.miniature.captions import QUALITY, CaptionWithMentions, random_caption
from train.miniature.corpus import FAMILY, HARDEST, Corpus, corpus_fingerprint
from train.miniature.degrade import DEGRADE
from train.miniature.fit import bf16_autocast, compiled_module, train_modules_resumably, training_device
from train.miniature.svg import SIDE
from train.miniature.text import CONTEXT, VOCABULARY
from train.miniature.world import TRAITS

MODEL: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": SIDE, "layers": 4, "width": 160, "head_width": 32, "patch_size": 8},
    "text_cfg": {
        "context_length": CONTEXT,
        "vocab_size": VOCABULARY,
        "hf_tokenizer_name": "./",
        "width": 128,
        "heads": 4,
        "layers": 4,
    },
    "quick_gelu": False,
}
PREPROCESS = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
STEPS, BATCH, LEARNING_RATE = 3600, 192, 1.2e-3
HARD_STEPS, HARD_RATE = 2600, 8e-4  # then more of what is hardest
LONG_EVERY = 8  # steps: captions with an afterthought, so that every place of the context is learned
RANDOM_UNTIL = 300  # steps before the hard batches begin
GROUP = 32  # pictures that share two attributes
SHARE_DEGRADED, SHARE_QUALITY_SAID = 0.12, 0.15
SHARE_RECOLOURED = 0.2  # in the hard batches: shapes must be read whatever their colours, as a brand's will be new
COLOURED = ["background", "body", "style"]  # what a recoloured picture no longer shows
UNKNOWN = -1
SHARED = [("style", "body"), ("style", "background"), ("background", "body"), ("style", "species")]
RECIPE = [STEPS, HARD_STEPS, HARDEST, SHARE_RECOLOURED]  # what the second half rests on besides the data
SHORT = 36  # tokens that every other caption fits in
ATTRIBUTES = [*TRAITS, "style", "quality"]
MAX_LOGIT_SCALE = float(np.log(100))


class ContrastiveBatch(NamedTuple):
    """Pictures and captions of one training step, and which attributes each has and mentions."""

    pixels: Tensor  # [n, 3, 64, 64] in [-1, 1]
    texts: list[str]
    truth: NDArray[np.int64]  # [n, attributes], UNKNOWN where nobody can say
    says: NDArray[np.bool_]  # [n, attributes]: what caption j speaks of


def build_clip() -> Any:
    """A new CLIP model of open_clip with random weights, always the same ones."""
    torch.manual_seed(1)
    return open_clip.CLIP(
        MODEL["embed_dim"],
        open_clip.CLIPVisionCfg(**MODEL["vision_cfg"]),
        open_clip.CLIPTextCfg(**MODEL["text_cfg"]),
    )


def attribute_numbers_of_corpus(corpus: Corpus) -> NDArray[np.int64]:
    """The attributes of each picture as numbers [n, attributes]; the quality is that of a clean picture."""
    names = {name: i for i, name in enumerate(sorted(set(corpus.styles)))}
    columns = [[TRAITS[trait].index(row[trait]) for row in corpus.traits] for trait in TRAITS]
    columns += [[names[style] for style in corpus.styles], [0] * len(corpus.styles)]
    return np.array(columns).T


class ContrastiveSampler:
    """Draws the batches of pictures and captions that the encoder learns from."""

    def __init__(self, base: Corpus, families: Corpus, first: Sequence[str] = (), recolour: float = 0.0) -> None:
        """A caption of a picture of `families` names at least one of the traits `first`, if there are any; `recolour`
        is the share of the pictures that are recoloured.
        """
        self.corpora, self.first, self.recolour = [base, families], first, recolour
        self.truth = [attribute_numbers_of_corpus(base), attribute_numbers_of_corpus(families)]
        self.groups = []
        for pair in SHARED:
            one, two = (self.truth[0][:, ATTRIBUTES.index(name)] for name in pair)
            keys = one * 10_000 + two
            order = np.argsort(keys, kind="stable")
            starts = np.flatnonzero(np.r_[True, np.diff(keys[order]) > 0])
            self.groups.append([part for part in np.split(order, starts[1:]) if len(part) >= GROUP])

    def choose_pictures_of_batch(self, easy: bool, r: np.random.Generator) -> list[tuple[int, int]]:
        """The (corpus, index) of each of BATCH pictures: half are whole families, half are groups that share two
        attributes. If `easy`, all are random pictures of the base corpus.
        """
        if easy:
            return [(0, int(i)) for i in r.integers(len(self.truth[0]), size=BATCH)]
        families = r.integers(len(self.truth[1]) // FAMILY, size=BATCH // 2 // FAMILY)
        chosen = [(1, int(f) * FAMILY + i) for f in families for i in range(FAMILY)]
        while len(chosen) < BATCH:
            groups = self.groups[int(r.integers(len(self.groups)))]
            group = groups[int(r.integers(len(groups)))]
            chosen += [(0, int(i)) for i in r.choice(group, GROUP, replace=False)]
        return chosen

    def draw_contrastive_batch(self, easy: bool, long: bool, r: np.random.Generator) -> ContrastiveBatch:
        """Draw a batch; if `long`, captions have a second part, which says more of the same picture."""
        words = Random(int(r.integers(2**31)))
        pictures, captions, truth = [], [], []
        for which, index in self.choose_pictures_of_batch(easy, r):
            picture, row = self.corpora[which].pixels[index], self.truth[which][index].copy()
            if r.random() < SHARE_DEGRADED:
                row[-1] = int(r.integers(1, len(QUALITY)))
                picture = DEGRADE[QUALITY[row[-1]]](picture, r)
            traits, style = self.corpora[which].traits[index], self.corpora[which].styles[index]
            if r.random() < self.recolour:
                picture = recoloured_picture(picture, r)
                row[[ATTRIBUTES.index(name) for name in COLOURED]] = UNKNOWN
                traits = {trait: value for trait, value in traits.items() if trait not in COLOURED}
                text = random_caption(traits, style, words, 0.0, 0.0, self.first if which else list(traits))
            else:
                text = random_caption(traits, style, words, 0.5, 0.6, self.first if which else ())
            if long:
                more = random_caption(traits, style, words, 0.0, 0.0, list(traits))
                text = CaptionWithMentions(f"{text.text}, {more.text}", text.says | more.says)
            if row[-1] or words.random() < SHARE_QUALITY_SAID:
                text = CaptionWithMentions(f"{text.text}, {QUALITY[row[-1]]}", text.says | {"quality"})
            pictures.append(shifted_picture(picture, r))
            captions.append(text)
            truth.append(row)
        pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
        says = np.array([[name in c.says for name in ATTRIBUTES] for c in captions])
        return ContrastiveBatch(pixels, [c.text for c in captions], np.array(truth), says)


def shifted_picture(picture: NDArray[np.uint8], r: np.random.Generator) -> NDArray[np.uint8]:
    """The picture [64, 64, 3], moved by up to 2 pixels each way, so that positions on the grid of patches are not
    memorised.
    """
    x, y = (int(v) for v in r.integers(0, 5, 2))
    return np.pad(picture, ((2, 2), (2, 2), (0, 0)), mode="edge")[y : y + SIDE, x : x + SIDE]


def recoloured_picture(picture: NDArray[np.uint8], r: np.random.Generator) -> NDArray[np.uint8]:
    """The picture [64, 64, 3] with its channels reordered, inverted or made equal at random; edges and shapes stay."""
    mixed = picture[..., r.permutation(3)] if r.random() < 0.75 else picture.mean(-1, keepdims=True).astype(np.uint8)
    return np.broadcast_to(mixed ^ (255 * r.integers(0, 2, 3)).astype(np.uint8), picture.shape)


def caption_fits_picture_matrix(truth: NDArray, says: NDArray) -> NDArray[np.bool_]:
    """Whether picture i can show all that caption j speaks of, bool [n, n].

    Caption j was written for picture j: `truth` [n, attributes] is what the pictures show, `says` [n, attributes] what
    the captions speak of.
    """
    equal = (truth[:, None, :] == truth[None, :, :]) | (truth[:, None, :] == UNKNOWN)
    return (equal | ~says[None, :, :]).all(-1)


def contrastive_loss(images: Tensor, texts: Tensor, scale: Tensor, fits: Tensor) -> Tensor:
    """CLIP's symmetric loss (arXiv 2103.00020, figure 3), a scalar. Pairs that are True in `fits` [n, n] are no
    negatives of one another.
    """
    logits = scale * images @ texts.T
    others = fits & ~torch.eye(len(fits), dtype=torch.bool, device=fits.device)
    logits = logits.masked_fill(others, -1e4)
    target = torch.arange(len(logits), device=logits.device)
    return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2


def train_clip(base: Corpus, twins: Corpus, kin: Corpus, tokenizer: Any) -> Any:
    """Train a new CLIP model on drawn pictures and return it: first on all traits equally, then mostly on those that
    are learned last.
    """
    where = training_device()
    clip = build_clip().to(where)
    see = compiled_module(clip.visual)
    samplers = {
        "clip": ContrastiveSampler(base, twins),
        "clip-hard": ContrastiveSampler(base, kin, HARDEST, SHARE_RECOLOURED),
    }

    def contrastive_loss_at_step(phase: str, step: int, r: np.random.Generator) -> Tensor:
        long = step % LONG_EVERY == 0
        batch = samplers[phase].draw_contrastive_batch(phase == "clip" and step < RANDOM_UNTIL, long, r)
        ids = token_ids_of(tokenizer, batch.texts, CONTEXT if long else SHORT).to(where)
        with torch.no_grad():
            clip.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
        with bf16_autocast(where):
            images = functional.normalize(see(batch.pixels.to(where)).float(), dim=-1)
            texts = functional.normalize(encode_short_texts(clip, ids).float(), dim=-1)
        fits = torch.from_numpy(caption_fits_picture_matrix(batch.truth, batch.says)).to(where)
        return contrastive_loss(images, texts, clip.logit_scale.exp(), fits)

    depends_on = [*map(corpus_fingerprint, ("base", "twins", "kin")), MODEL, BATCH, GROUP]
    train_modules_resumably(
        "clip", {"clip": clip}, partial(contrastive_loss_at_step, "clip"), STEPS, {"clip": LEARNING_RATE}, depends_on
    )
    depends_on += RECIPE
    train_modules_resumably(
        "clip-hard",
        {"clip": clip},
        partial(contrastive_loss_at_step, "clip-hard"),
        HARD_STEPS,
        {"clip": HARD_RATE},
        depends_on,
    )
    return clip


def encode_short_texts(clip: Any, ids: Tensor) -> Tensor:
    """clip.encode_text for token ids [n, length] of short texts: [n, width]. Attention is causal, so the tokens after
    the end have no effect.
    """
    length = ids.shape[1]
    x = clip.token_embedding(ids) + clip.positional_embedding[:length]
    x = clip.ln_final(clip.transformer(x, attn_mask=clip.attn_mask[:length, :length]))
    return x[torch.arange(len(ids)), ids.argmax(-1)] @ clip.text_projection


def token_ids_of(tokenizer: Any, texts: Sequence[str], length: int = CONTEXT) -> Tensor:
    """Token ids of the texts, int64 [n, length], cut to `length` or padded with the end token."""
    encoded = tokenizer(list(texts), padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    return encoded.input_ids


def write_clip(folder: Path, clip: Any, tokenizer: Any) -> None:
    """Write the model in half precision for `open_clip.create_model_and_transforms("local-dir:...")`."""
    tensors = {name: value.detach().half().cpu().contiguous() for name, value in clip.state_dict().items()}
    files.write_atomically(folder / "open_clip_model.safetensors", save(tensors))
    files.write_json(folder / "open_clip_config.json", {"model_cfg": MODEL, "preprocess_cfg": PREPROCESS})
    tokenizer.save_pretrained(folder)
