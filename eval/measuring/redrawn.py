"""Copies of pictures as an image model draws them: a little soft, flat areas not quite flat, each colour a little off.

A brand's reader is shown its references both as they are and redrawn, and every other foreign picture redrawn. So it
knows a brand by what a model's drawing of it keeps, and softness tells nothing.
"""

import hashlib
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from eval.measuring.encoder import LoadedEncoder, encode_pictures
from eval.measuring.measured import EncodedPictures, ForeignSet
from eval.measuring.picturefeatures import PictureFeatures
from stylegate.cache import ArrayCache
from stylegate.similarity import SIDE

SOFTENED = 0.6  # pixels of 64, standard deviation: about what the autoencoder of a diffusion model does
UNEVEN, WIDE = 4.0, 2.0  # levels of 255 that flat areas vary by, and how wide in pixels; standard deviations
TINT = 5.0  # levels, standard deviation: what is added to a channel
DRIFT = 12.0  # levels, at most: what a colour moves by, whatever other colours do
TOGETHER = 128  # pictures that are encoded at once
Shown = TypeVar("Shown", EncodedPictures, ForeignSet)


def copy_degraded_like_model_drawing(signature: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A redrawn copy of one signature, uint8 [64, 64, 3]; always the same one of the same signature."""
    random = np.random.default_rng(list(hashlib.sha256(signature.tobytes()).digest()))
    soft = ndimage.gaussian_filter(signature.astype(np.float32), (SOFTENED, SOFTENED, 0), mode="nearest")
    waves, phases = 2 * np.pi * random.standard_normal((3, 3), np.float32), random.uniform(0, 2 * np.pi, 3)
    moved = np.sin(soft / 255 @ waves + phases.astype(np.float32))
    rough = ndimage.gaussian_filter(random.standard_normal((*soft.shape[:2], 1), np.float32), (WIDE, WIDE, 0))
    drawn = soft + DRIFT * moved + TINT * random.standard_normal(3, np.float32) + UNEVEN * rough / rough.std()
    return np.rint(drawn).clip(0, 255).astype(np.uint8)


def encode_copies_degraded_like_drawings(signatures: NDArray[np.uint8], encoder: LoadedEncoder) -> EncodedPictures:
    """Redrawn copies of signatures [n, 64, 64, 3], with what the encoder computes of them."""
    return encode_signatures_as_pictures(
        np.stack([copy_degraded_like_model_drawing(one) for one in signatures]), encoder
    )


def encode_signatures_as_pictures(signatures: NDArray[np.uint8], encoder: LoadedEncoder) -> EncodedPictures:
    """Signatures [n, 64, 64, 3] with what the encoder computes of them. Each is encoded once, and kept in the cache."""
    keys = [f"signature-1:{encoder.sha256}:{hashlib.sha256(one.tobytes()).hexdigest()}" for one in signatures]

    def encode_images(some: list[int]) -> list[dict[str, NDArray]]:
        shown = [encoder.preprocessing.resized_and_cropped_pixels(Image.fromarray(signatures[i])) for i in some]
        made = zip(*encode_pictures(encoder, shown), strict=True)
        return [{"embedding": embedding, "patches": patches} for embedding, patches in made]

    rows = [row for row in ArrayCache().get_or_compute(keys, TOGETHER, encode_images) if row is not None]
    return EncodedPictures(
        np.stack([row["embedding"] for row in rows]), np.stack([row["patches"] for row in rows]), signatures
    )


def encode_at_size_of_foreign_pictures(shown: PictureFeatures, encoder: LoadedEncoder) -> EncodedPictures:
    """Pictures as the reader of the brand sees them: no sharper than the shipped foreign pictures are.

    Those have SIDE pixels a side. An encoder whose input is larger would know them by their blur, so it is shown the
    other pictures at SIDE too.
    """
    side = max(encoder.preprocessing.resized_and_cropped_pixels(Image.new("RGB", (SIDE, SIDE))).shape)
    if side <= SIDE or (shown.sizes == SIDE).all():
        return EncodedPictures(shown.embeddings, shown.patches, shown.signatures)
    return encode_signatures_as_pictures(shown.signatures, encoder)


def with_embeddings_of_other_encoders(shown: Shown, encoder: LoadedEncoder) -> Shown:
    """The same pictures, where `others` holds what the further encoders of `encoder` compute of their signatures."""
    made = (encode_signatures_as_pictures(shown.signatures, one) for one in encoder.others)
    return shown._replace(others=tuple((views.embeddings, views.patches) for views in made))
