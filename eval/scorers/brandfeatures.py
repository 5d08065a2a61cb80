"""The features of a picture that a brand classifier reads: blocks of float32 by name."""

from functools import reduce

import numpy as np
from numpy.typing import NDArray

from eval.measuring.measured import EncodedViews, ForeignSet
from stylegate import similarity

BLOCKS_OF_PATCHES, SIDE = 2, similarity.SIDE
TOGETHER = 256  # pictures at once: bounds the memory
LEVELS = np.arange(256)
COLOURS, TENTHS = 6, 10  # values of a channel; of brightness and of saturation
FINE = 16  # values of a channel that are counted first
STEPS = np.minimum(np.ceil(np.log2(LEVELS + 1)), 8).astype(np.uint8)  # of a difference of levels: 0, 1, 2-3, 4-7, ...


def linear_bin_weights(values: int, kinds: int) -> NDArray[np.float32]:
    """[values, kinds] the share of each of `values` even steps of a range that each of `kinds` evenly spaced bins gets.

    A value is shared between its two nearest bins, by linear interpolation.
    """
    places = (np.arange(values) + 0.5) / values * (kinds - 1)
    return np.maximum(0, 1 - np.abs(places[:, None] - np.arange(kinds))).astype(np.float32)


ONE_CHANNEL = linear_bin_weights(FINE, COLOURS)
OF_COLOURS = np.kron(np.kron(ONE_CHANNEL, ONE_CHANNEL), ONE_CHANNEL)  # [FINE ** 3, COLOURS ** 3]
OF_TENTHS = linear_bin_weights(256, TENTHS)


def square_root_histograms(
    cells: NDArray, kinds: int, shares: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """[n, kinds] square root of the share of each kind (0 to kinds - 1) among the whole numbers of each row of `cells`.

    `cells` is [n, ...]. The root makes rare kinds count.

    With `shares` [kinds, k] each kind counts for k others by these shares, and [n, k] is returned.
    """
    rows = cells.reshape(len(cells), -1)
    places = rows + kinds * np.arange(len(rows), dtype=np.int32)[:, None]
    found = np.bincount(places.ravel(), minlength=kinds * len(rows)).reshape(len(rows), kinds).astype(np.float32)
    return np.sqrt((found if shares is None else found @ shares) / rows.shape[1], dtype=np.float32)


def colour_histograms(signatures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[n, 236] square roots of how often each of 216 colours, 10 brightnesses and 10 saturations occurs in signatures
    [n, 64, 64, 3].
    """
    cells = (signatures // (256 // FINE)).astype(np.int32)
    colours = cells[..., 0] * FINE**2 + cells[..., 1] * FINE + cells[..., 2]
    red, green, blue = (signatures[..., i] for i in range(3))
    saturation = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    return np.concatenate(
        [
            square_root_histograms(colours, FINE**3, OF_COLOURS),
            square_root_histograms(luma_bt601(signatures), 256, OF_TENTHS),
            square_root_histograms(saturation, 256, OF_TENTHS),
        ],
        axis=1,
    )


def luma_bt601(signatures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[n, 64, 64] brightness (ITU-R BT.601), 0 to 255, of signatures [n, 64, 64, 3]."""
    red, green, blue = (signatures[..., i] * np.uint16(share) for i, share in enumerate((77, 150, 29)))
    return ((red + green + blue) >> 8).astype(np.uint8)


def brightness_step_histograms(signatures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[n, 54] square roots of how often brightness changes by how much between neighbours, at three scales.

    First and second differences, in 9 classes each, of signatures [n, 64, 64, 3].
    """
    levels, found = luma_bt601(signatures), []
    for scale in (1, 2, 4):
        inside = [levels[:, y::scale, x::scale].astype(np.int16) for y in range(scale) for x in range(scale)]
        small = reduce(np.add, inside) // scale**2
        across, down = np.diff(small, axis=2), np.diff(small, axis=1)
        once = np.concatenate([STEPS[np.abs(part)].reshape(len(small), -1) for part in (across, down)], axis=1)
        twice = STEPS[np.minimum(np.abs(np.diff(across, axis=2)), 255)]
        found += [square_root_histograms(once, 9), square_root_histograms(twice, 9)]
    return np.concatenate(found, axis=1)


def patch_means_and_deviations(patches: NDArray[np.float16], width: int) -> list[NDArray[np.float32]]:
    """Mean and standard deviation over places, [n, 2 * width] each, of patches [n, 2 * width * places] (unit rows)."""
    places = patches.reshape(len(patches), BLOCKS_OF_PATCHES * width, -1).astype(np.float32)
    return [places.mean(2), places.std(2)]


def brand_feature_blocks(shown: ForeignSet | EncodedViews, pixels: bool = True) -> list[NDArray[np.float32]]:
    """What a reader of the brand sees of n pictures: several blocks [n, k] of numbers, each block of one kind.

    Without `pixels` the blocks of colours and brightness are left out, and only those of the encoders remain.
    """
    from eval.measuring.encoder import CHANNELS

    starts = range(0, len(shown.signatures), TOGETHER)
    parts = [shown.signatures[start : start + TOGETHER] for start in starts]
    measures = (colour_histograms, brightness_step_histograms) if pixels else ()
    blocks = [np.concatenate([measure(part) for part in parts]) for measure in measures]
    for embeddings, patches in ((shown.embeddings, shown.patches), *shown.others):
        blocks += [embeddings] if embeddings.shape[1] else []
        blocks += patch_means_and_deviations(patches, CHANNELS) if patches.shape[1] else []
    return blocks
