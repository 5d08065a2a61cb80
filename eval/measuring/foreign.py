"""Foreign pictures: styles that a brand's style is told from. The shipped sets, and those of foreign=DIR.

The shipped pictures (data/foreign/) are transparent. Every other one is laid on a ground that a reference has, so that
a brand is not known by its ground alone. Half of the pictures of every set are shown redrawn, as references are too
(eval/measuring/redrawn.py).
"""

import hashlib
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from eval.measuring.encoder import LoadedEncoder
from eval.measuring.features import (
    Row,
    Rows,
    one_torch_thread_each,
    pixel_features_key,
    replace_pixels_by_embeddings,
)
from eval.measuring.measured import ForeignSet
from eval.measuring.picturefeatures import PictureFeatures
from eval.measuring.redrawn import (
    copy_degraded_like_model_drawing,
    encode_at_size_of_foreign_pictures,
    encode_copies_degraded_like_drawings,
)
from eval.measuring.remembered import RememberedResults
from stylegate import files, similarity
from stylegate.cache import ArrayCache
from stylegate.words import counted

TOGETHER = 64  # pictures that are encoded at once
SMALL, ALIKE = 16, 4.0  # side of what is compared; levels of 255
COPIES = 2  # pictures of a set that are references; of the half that is not redrawn
NAMED = 5  # pictures that a note names

_SETS: RememberedResults[list[ForeignSet]] = RememberedResults(2)  # of `shipped_foreign_sets`, of about 25 MB each
_PICTURES: RememberedResults[dict[bytes, str]] = RememberedResults(2)  # of `shipped_set_by_signature`, 10 MB


class ForeignPictureOnBackground(NamedTuple):
    """A shipped foreign picture, and the ground that it is shown on."""

    of: str  # name of its set
    png: bytes
    ground: tuple[int, int, int]  # sRGB, 0 to 255
    redrawn: bool  # shown as an image model draws it

    def decoded_image_on_background(self) -> Image.Image:
        """The picture, decoded and laid on its ground, as RGB; with `redrawn` its redrawn copy, 64 pixels a side."""
        picture = Image.open(io.BytesIO(self.png)).convert("RGBA")
        whole = Image.alpha_composite(Image.new("RGBA", picture.size, self.ground), picture).convert("RGB")
        return (
            Image.fromarray(copy_degraded_like_model_drawing(similarity.signature_of_picture(whole)))
            if self.redrawn
            else whole
        )


def shipped_pictures_on_backgrounds(
    references: PictureFeatures, background: str
) -> Iterator[ForeignPictureOnBackground]:
    """Every shipped picture, by turns on the declared background and on the ground of a reference.

    Of every eight the last four are redrawn.
    """
    grounds = [tuple(int(level) for level in ground) for ground in border_colours(references.signatures)]
    declared = Image.new("RGB", (1, 1), background).getpixel((0, 0))
    for i, row in enumerate(pq.read_table(files.FOREIGN).to_pylist()):
        ground = grounds[i // 2 % len(grounds)] if i % 2 else declared
        yield ForeignPictureOnBackground(row["set"], row["png"], ground, redrawn=i // 4 % 2 == 1)  # type: ignore[arg-type]


def border_colours(signatures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[n, 3] the median colour of the outermost pixels of signatures [n, 64, 64, 3]."""
    edges = [signatures[:, 0], signatures[:, -1], signatures[:, :, 0], signatures[:, :, -1]]
    return np.median(np.concatenate(edges, axis=1), axis=1).astype(np.uint8)


def shipped_foreign_sets(references: PictureFeatures, encoder: LoadedEncoder, background: str) -> list[ForeignSet]:
    """The shipped foreign sets with their features. Each picture is encoded once for each ground, and kept in the
    cache.
    """
    pixels = pixel_features_key(encoder.preprocessing, background)
    grounds = border_colours(references.signatures)
    return _SETS.result_for(
        [files.sha256_of_file(files.FOREIGN), pixels, encoder.sha256, background, grounds],
        lambda: shipped_foreign_sets_from_cache(references, encoder, background),
    )


def shipped_foreign_sets_from_cache(
    references: PictureFeatures, encoder: LoadedEncoder, background: str
) -> list[ForeignSet]:
    """What `shipped_foreign_sets` remembers, from the cache, or computed."""
    shown = list(shipped_pictures_on_backgrounds(references, background))
    rows = features_of_foreign_pictures(shown, encoder, background)
    names = dict.fromkeys(one.of for one in shown)

    def stack_feature_of_set_pictures(name: str, part: str) -> NDArray:
        return np.stack([row[part] for one, row in zip(shown, rows, strict=True) if one.of == name])

    return [
        ForeignSet(
            name,
            False,
            stack_feature_of_set_pictures(name, "embedding"),
            stack_feature_of_set_pictures(name, "patches"),
            stack_feature_of_set_pictures(name, "signature"),
        )
        for name in names
    ]


def features_of_foreign_pictures(
    shown: list[ForeignPictureOnBackground], encoder: LoadedEncoder, background: str
) -> list[Row]:
    """A row of embedding, patches and signature for each picture, from the cache where it is there."""
    cache = ArrayCache()
    known = files.canonical_sha256(["foreign-2", pixel_features_key(encoder.preprocessing, background), encoder.sha256])
    keys = [f"{known}:{hashlib.sha256(one.png).hexdigest()}:{one.ground}:{one.redrawn}" for one in shown]
    rows: Rows = {i: row for i, row in enumerate(cache.read_arrays_of_keys(keys)) if row}
    missing = [i for i in range(len(shown)) if i not in rows]

    def encode_foreign_pictures(some: list[int]) -> Rows:
        images = {i: shown[i].decoded_image_on_background() for i in some}
        return replace_pixels_by_embeddings(
            {
                i: {
                    "signature": similarity.signature_of_picture(image),
                    "pixels": encoder.preprocessing.resized_and_cropped_pixels(image),
                }
                for i, image in images.items()
            },
            encoder,
        )

    alone = encoder.device.type == "cpu"
    with one_torch_thread_each(alone) as cores, ThreadPoolExecutor(cores if alone else 1) as pool:
        for found in pool.map(
            encode_foreign_pictures, [missing[start : start + TOGETHER] for start in range(0, len(missing), TOGETHER)]
        ):
            cache.store_arrays_by_key({keys[i]: row for i, row in found.items()})
            rows |= found
    return [rows[i] for i in range(len(shown))]


def given_foreign_sets(features: PictureFeatures, encoder: LoadedEncoder) -> list[ForeignSet]:
    """The sets of foreign=DIR with what the encoder computes of them. What stands before the first / of a picture's
    name is its set. Half of each set is redrawn.
    """
    sets, found = np.array([name.split("/")[0] for name in features.names]), []
    seen = encode_at_size_of_foreign_pictures(features, encoder)
    for name in dict.fromkeys(sets.tolist()):
        of = np.flatnonzero(sets == name)
        plain, redrawn = of[::2], encode_copies_degraded_like_drawings(features.signatures[of[1::2]], encoder)
        found.append(
            ForeignSet(
                name,
                True,
                np.concatenate([seen.embeddings[plain], redrawn.embeddings]),
                np.concatenate([seen.patches[plain], redrawn.patches]),
                np.concatenate([features.signatures[plain], redrawn.signatures]),
            )
        )
    return found


def without_sets_of_this_brand(
    sets: list[ForeignSet], references: PictureFeatures
) -> tuple[list[ForeignSet], list[str]]:
    """`sets` without those shipped sets that are the brand itself, and a sentence on each that is left aside.

    A shipped set is the brand itself where COPIES or more of its pictures are among the references.
    """
    own = scaled_down_copies(references.signatures)
    kept, notes = [], []
    for one in sets:
        theirs = scaled_down_copies(one.signatures)
        apart = np.square(own).sum(1) + np.square(theirs).sum(1)[:, None] - 2 * theirs @ own.T
        copies = int((apart.min(1) < ALIKE**2 * own.shape[1]).sum())
        if one.given or copies < COPIES:
            kept.append(one)
        else:
            notes.append(f"the shipped foreign set {one.name} is left aside: {copies} of its pictures are references")
    return kept, notes


def notes_on_pictures_of_shipped_sets(pictures: PictureFeatures, names: list[str], background: str) -> list[str]:
    """A sentence for each shipped set of `names` that pictures are of, pixel for pixel at 64 pixels a side on the
    `background`: how many they are, and the first of them.
    """
    known = _PICTURES.result_for(
        [files.sha256_of_file(files.FOREIGN), background], lambda: shipped_set_by_signature(background)
    )
    found: dict[str, list[str]] = {}
    for name, signature in zip(pictures.names, pictures.signatures, strict=True):
        if of := known.get(signature.tobytes()):
            found.setdefault(of, []).append(name)
    return [
        f"{counted(len(found[of]), 'picture is', 'pictures are')} of {of}, another style that comes with stylegate: "
        + ", ".join(found[of][:NAMED])
        + f" and {len(found[of]) - NAMED} more" * (len(found[of]) > NAMED)
        for of in names
        if of in found
    ]


def shipped_set_by_signature(background: str) -> dict[bytes, str]:
    """By the bytes of its signature on the background, the set of each shipped picture."""
    ground = Image.new("RGB", (1, 1), background).getpixel((0, 0))
    found = {}
    for row in pq.read_table(files.FOREIGN).to_pylist():
        shown = ForeignPictureOnBackground(row["set"], row["png"], ground, redrawn=False)  # type: ignore[arg-type]
        found[similarity.signature_of_picture(shown.decoded_image_on_background()).tobytes()] = row["set"]
    return found


def scaled_down_copies(signatures: NDArray[np.uint8]) -> NDArray[np.float64]:
    """[n, SMALL * SMALL * 3] the colour levels of copies of the signatures that are scaled down to SMALL x SMALL."""
    step = signatures.shape[1] // SMALL
    parts = [signatures[:, y::step, x::step].astype(np.float64) for y in range(step) for x in range(step)]
    return (sum(parts) / step**2).reshape(len(signatures), -1)
