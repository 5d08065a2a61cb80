"""The features of a picture that a brand classifier reads, in blocks of one kind each (eval/scorers/brand.py)."""

from concurrent.futures import ThreadPoolExecutor
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from eval.measuring.measured import EncodedPictures, ForeignSet
from stylegate import similarity
from stylegate.pictures import CORES

BLOCKS_OF_PATCHES, SIDE = 2, similarity.SIDE
TOGETHER = 32  # pictures at once, so that they stay in the processor's cache
LEVELS = np.arange(256)
COLOURS, TENTHS = 6, 10  # values of a channel; of brightness and of saturation
FINE = 16  # values of a channel that are counted first
STEPS = np.minimum(np.ceil(np.log2(LEVELS + 1)), 8).astype(np.uint8)  # of a difference of levels: 0, 1, 2-3, 4-7, ...
WIDTHS = (2, 3, 4, 5, 7, 9)  # pixels of 64: the sides of the squares that strokes are measured with
CHANGED = 80  # levels by which a pixel is changed strongly


def linear_bin_weights(values: int, kinds: int) -> NDArray[np.float32]:
    """[values, kinds] the share of each of `values` even steps of a range that each of `kinds` evenly spaced bins gets.

    A value is shared between its two nearest bins, by linear interpolation.
    """
    places = (np.arange(values) + 0.5) / values * (kinds - 1)
    return np.maximum(0, 1 - np.abs(places[:, None] - np.arange(kinds))).astype(np.float32)


ONE_CHANNEL = linear_bin_weights(FINE, COLOURS)
OF_TENTHS = linear_bin_weights(256, TENTHS)


def normalised_histograms_of_rows(cells: NDArray, kinds: int) -> NDArray[np.float32]:
    """[n, kinds] the share of each kind (0 to kinds - 1) among the whole numbers of each row of `cells` [n, ...]."""
    rows = cells.reshape(len(cells), -1)
    places = rows + kinds * np.arange(len(rows), dtype=np.int32)[:, None]
    found = np.bincount(places.ravel(), minlength=kinds * len(rows)).reshape(len(rows), kinds)
    return (found / rows.shape[1]).astype(np.float32)


def colour_histograms(signatures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[n, 236] square roots of how often each of 216 colours, 10 brightnesses and 10 saturations occurs in signatures
    [n, 64, 64, 3].
    """
    cells = (signatures // (256 // FINE)).astype(np.int32)
    colours = normalised_histograms_of_rows(cells[..., 0] * FINE**2 + cells[..., 1] * FINE + cells[..., 2], FINE**3)
    for _ in range(3):  # red is divided among its COLOURS values, then green, then blue
        colours = colours.reshape(len(cells), FINE, -1).transpose(0, 2, 1) @ ONE_CHANNEL
    brightness, saturation = luma_bt601(signatures), saturation_of(signatures)
    shares = [
        colours.reshape(len(cells), -1),
        normalised_histograms_of_rows(brightness, 256) @ OF_TENTHS,
        normalised_histograms_of_rows(saturation, 256) @ OF_TENTHS,
    ]
    return np.sqrt(np.concatenate(shares, axis=1))


def saturation_of(signatures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[n, 64, 64] the largest less the smallest channel, 0 to 255, of signatures [n, 64, 64, 3]."""
    red, green, blue = (signatures[..., i] for i in range(3))
    return np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)


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
        found += [normalised_histograms_of_rows(once, 9), normalised_histograms_of_rows(twice, 9)]
    return np.sqrt(np.concatenate(found, axis=1))


def stroke_width_measures(signatures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[n, 24] square roots of how much of signatures [n, 64, 64, 3] is bright, and dark, strokes of each of WIDTHS.

    An opening by a square removes what is bright and narrower than the square, a closing what is dark (granulometry:
    Serra 1982). From each width to the next: the mean change, and the share of pixels that change by CHANGED.
    """
    brightness = luma_bt601(signatures)
    found = []
    for first, second in ((np.minimum, np.maximum), (np.maximum, np.minimum)):
        before = brightness
        for width in WIDTHS:
            half = width // 2
            narrow = sliding_square_minimum_or_maximum(first, brightness, width, half)
            after = sliding_square_minimum_or_maximum(second, narrow, width, width - 1 - half)
            change = (np.maximum(before, after) - np.minimum(before, after)).reshape(len(signatures), -1)
            before = after
            found += [change.mean(1, dtype=np.float32) / 255, (change > CHANGED).mean(1, dtype=np.float32)]
    return np.sqrt(np.stack(found, axis=1))


def sliding_square_minimum_or_maximum(
    extreme: np.ufunc, levels: NDArray[np.uint8], side: int, before: int
) -> NDArray[np.uint8]:
    """[n, h, w] the smallest or largest level (np.minimum, np.maximum) of the square of `side` pixels that begins
    `before` pixels above and left of each pixel. Beyond the border pictures [n, h, w] are mirrored.
    """
    around = (before, side - 1 - before)
    found = np.pad(levels, ((0, 0), around, around), mode="symmetric")
    for axis in (1, 2):
        done = 1
        while done < side:
            step = min(done, side - done)
            size = found.shape[axis] - step
            at = [(slice(None),) * axis + (slice(start, start + size),) for start in (0, step)]
            found = extreme(found[at[0]], found[at[1]])
            done += step
    return found


def channel_means_and_deviations_over_patches(patches: NDArray[np.float16], width: int) -> list[NDArray[np.float32]]:
    """Mean and standard deviation over places, [n, 2 * width] each, of patches [n, 2 * width * places] (unit rows)."""
    places = patches.reshape(len(patches), BLOCKS_OF_PATCHES * width, -1).astype(np.float32)
    return [places.mean(2), places.std(2)]


PIXEL_BLOCKS = {  # and the weight of each: a LoRA draws strokes less exactly than colours
    colour_histograms: 1.0,
    brightness_step_histograms: 1.0,
    stroke_width_measures: 0.25,
}


def brand_feature_blocks(shown: ForeignSet | EncodedPictures, pixels: bool = True) -> list[NDArray[np.float32]]:
    """What a reader of the brand sees of n pictures: several blocks [n, k] of numbers, each block of one kind.

    First those of PIXEL_BLOCKS, then those of the encoders. Without `pixels` only these remain.
    """
    from eval.measuring.encoder import CHANNELS

    starts = range(0, len(shown.signatures), TOGETHER)
    parts = [shown.signatures[start : start + TOGETHER] for start in starts]
    measures = tuple(PIXEL_BLOCKS) if pixels else ()
    with ThreadPoolExecutor(CORES) as workers:
        measured = list(workers.map(lambda part: [measure(part) for measure in measures], parts))
    blocks = [np.concatenate(of_parts) for of_parts in zip(*measured, strict=True)]
    for embeddings, patches in ((shown.embeddings, shown.patches), *shown.others):
        blocks += [embeddings] if embeddings.shape[1] else []
        blocks += channel_means_and_deviations_over_patches(patches, CHANNELS) if patches.shape[1] else []
    return blocks
