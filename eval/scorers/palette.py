"""Palette: how usual the colours of a picture's flat areas are among the references. No encoder is asked.

Of a picture's signature (64 x 64 pixels) those count whose 3 x 3 neighbourhood is nearly of one colour: edges have
colours between two others, and a model's pictures more of them than a brand's own. The references' flat colours are
counted in 16 x 16 x 16 cells of sRGB and smoothed; the score is the mean of the logarithm of that density, in nats,
over the less usual half of the flat pixels: a patch of a strange colour is not made good by a usual ground.
Range [-11.5, 0], higher is nearer. It sees tints, foreign inks and patches. It knows nothing of where a colour
stands; a picture without flat areas scores 0, which says nothing. Fails where the references show few of the colours
that a brand allows: then a rare trait looks strange; and on a tint of what is nearly black.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from stylegate.pictures import CORES

CELLS = 16  # a channel
SMOOTHING = 1.2  # cells; references are few, and a colour beside a usual one is nearly as usual
FLAT = 24  # levels of 255 between the brightest and the darkest of a neighbourhood, in any channel
FEWEST = 64  # flat pixels; with fewer the score goes to 0
HALF = 0.5  # of them, the less usual ones, count
TOGETHER = 32  # signatures at once, so that they stay in the processor's cache
UNSEEN = 1e-5  # density of a colour that no reference shows


def count_flat_pixels_by_colour(signatures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[n, CELLS^3] how many flat pixels of each picture have each colour; signatures are [n, 64, 64, 3]."""
    found = np.zeros((len(signatures), CELLS**3), np.float32)
    for start in range(0, len(signatures), TOGETHER):
        block = signatures[start : start + TOGETHER]
        contrast = largest_or_smallest_of_3x3(np.maximum, block) - largest_or_smallest_of_3x3(np.minimum, block)
        flat = np.all(contrast <= FLAT, axis=3)
        cells = (block // (256 // CELLS)).astype(np.int64) @ [CELLS**2, CELLS, 1]
        for i in range(len(block)):
            found[start + i] = np.bincount(cells[i][flat[i]], minlength=CELLS**3)
    return found


def largest_or_smallest_of_3x3(extreme: np.ufunc, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[n, h, w, c] the largest or smallest level (np.maximum, np.minimum) of the 3 x 3 pixels around each pixel."""
    padded = np.pad(pixels, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    lines = extreme(extreme(padded[:, :-2], padded[:, 1:-1]), padded[:, 2:])
    return extreme(extreme(lines[:, :, :-2], lines[:, :, 1:-1]), lines[:, :, 2:])


def log_density_by_colour(counts: NDArray) -> NDArray:
    """[CELLS^3] logarithm of the smoothed density of colours, from the counts [CELLS^3] of flat pixels."""
    cube = (counts / max(counts.sum(), 1)).reshape(CELLS, CELLS, CELLS)
    return np.log(ndimage.gaussian_filter(cube, SMOOTHING, mode="nearest").ravel() + UNSEEN)


def mean_log_density_of_unusual_half(counts: NDArray, usual: NDArray) -> NDArray:
    """[n] mean log density over the less usual half of the flat pixels of each picture.

    `counts` [n, cells] has their number by colour, `usual` [cells] the log density of each colour. Without n, a number.
    """
    order = np.argsort(usual, kind="stable")
    sorted_counts = counts[..., order]
    before = sorted_counts.cumsum(-1) - sorted_counts
    half = HALF * counts.sum(-1, keepdims=True)
    counted = np.clip(half - before, 0, sorted_counts)
    return counted @ usual[order] / np.maximum(half[..., 0], HALF * FEWEST)


def score(signatures: NDArray[np.uint8], references: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[n] palette score of pictures with signatures [n, 64, 64, 3], from the references' signatures [r, 64, 64, 3]."""
    usual = log_density_by_colour(count_flat_pixels_by_colour(references).sum(0))
    parts = [signatures[i : i + TOGETHER] for i in range(0, len(signatures), TOGETHER)]
    with ThreadPoolExecutor(CORES) as pool:
        found = pool.map(lambda part: mean_log_density_of_unusual_half(count_flat_pixels_by_colour(part), usual), parts)
        return np.concatenate([np.zeros(0), *found]).astype(np.float32)


def leave_one_out(references: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[r] palette score of each reference from the other references.

    A signature is a picture of 64 x 64 pixels: `references` are [r, 64, 64, 3].
    """
    counts = count_flat_pixels_by_colour(references)
    total, out = counts.sum(0), np.empty(len(counts), np.float32)
    for i, own in enumerate(counts):
        shown = np.flatnonzero(own)  # the cells that the picture has; the rest weigh nothing
        out[i] = mean_log_density_of_unusual_half(own[shown], log_density_by_colour(total - own)[shown])
    return out
