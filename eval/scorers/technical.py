"""Technical faults, measured on the decoded pixels: blank, blurred, noisy, half drawn, covered, wrong size.

They know nothing of what is shown. A style may be soft, flat or grainy by intent: compare with its references.
"""

from collections import Counter
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import fft, ndimage

MEASURES = ("contrast", "sharpness", "cleanness", "uncompressed", "completeness", "openness")
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
LAPLACIAN_DIFFERENCE = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]])  # Immerkaer 1996, eq. 2
WHOLE_SIDE, MIDDLE_SIDE = (
    256,
    512,
)  # pixels; bound the time that a large picture takes, and leave small ones as they are
INVISIBLE = 8.0  # median response to noise of deviation 2 levels (4.05 times as much): less, nobody sees
BLOCK = 8  # pixels; JPEG's
# JPEG's table of steps for luma (ITU-T T.81, table K.1) at the qualities that libjpeg's users call strong compression.
STEPS = """16 11 10 16 24 40 51 61  12 12 14 19 26 58 60 55  14 13 16 24 40 57 69 56  14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77  24 35 55 64 81 104 113 92  49 64 78 87 103 121 120 101  72 92 95 98 112 100 103 99"""
QUALITIES = (*range(4, 21), *range(22, 42, 2))
DRAWN, BLOCKS, FEWEST = 4.0, 128, 4  # deviation of a block that shows something; blocks looked at, at most and at least
UNKNOWN = 6.0  # nothing is drawn that a step could be read from
COMMON_COLOURS = 4  # an area of one exact colour is looked for among this many


def measure(image: Image.Image) -> NDArray[np.float32]:
    """The values of MEASURES, in order, of an RGB picture.

    Sharpness and noise are looked for at full resolution in the middle of the picture, MIDDLE_SIDE pixels a side; the
    rest over the whole of it, at about WHOLE_SIDE pixels.
    """
    whole, middle = reduced(image), np.asarray(central(image), dtype=np.float64)
    luma = whole @ LUMA
    fine = middle @ LUMA
    values = (
        contrast(luma),
        sharpness(middle),
        cleanness(fine),
        uncompressed(fine),
        completeness(luma),
        openness(whole),
    )
    return np.array(values, np.float32)


def reduced(image: Image.Image) -> NDArray[np.float64]:
    """The whole picture, blocks of pixels averaged until no side is longer than about WHOLE_SIDE."""
    factor = max(1, round(max(image.size) / WHOLE_SIDE))
    return np.asarray(image.reduce(factor) if factor > 1 else image, dtype=np.float64)


def central(image: Image.Image) -> Image.Image:
    """The middle, MIDDLE_SIDE pixels a side at most; it begins where a block of JPEG's begins."""
    width, height = (min(side, MIDDLE_SIDE) for side in image.size)
    left, top = ((whole - part) // 2 // BLOCK * BLOCK for whole, part in zip(image.size, (width, height), strict=True))
    return image.crop((left, top, left + width, top + height))


def contrast(luma: NDArray) -> float:
    """Standard deviation, 0 (one flat colour) to 127.5. Fooled by noise."""
    return float(luma.std())


def sharpness(pixels: NDArray) -> float:
    """log of the mean absolute difference to the right and lower neighbour. Blur lowers it, noise raises it."""
    down, right = np.abs(np.diff(pixels, axis=0)).mean(), np.abs(np.diff(pixels, axis=1)).mean()
    return float(np.log(down + right + 0.1))


def cleanness(luma: NDArray) -> float:
    """-log of the median response to a mask that edges and slopes pass unseen (Immerkaer, CVIU 64, 1996)."""
    response = ndimage.convolve(luma, LAPLACIAN_DIFFERENCE, mode="reflect")
    return -float(np.log(np.median(np.abs(response)) + INVISIBLE))


def uncompressed(luma: NDArray) -> float:
    """log of 1 + the mean squared distance of 8 x 8 cosine coefficients from JPEG's nearest table; 0 to about 6.

    Strong compression (quality 40 or less) leaves them at multiples of its steps, and storing the picture otherwise
    does not take them away (after Farid, "Exposing digital forgeries from JPEG ghosts", 2009). Moving or scaling by
    other than whole blocks does: then it sees nothing.
    """
    height, width = (side // BLOCK * BLOCK for side in luma.shape)
    cut = luma[:height, :width].reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    blocks = cut.transpose(0, 2, 1, 3).reshape(-1, BLOCK, BLOCK)
    blocks = blocks[blocks.std((1, 2)) > DRAWN]
    if len(blocks) < FEWEST:
        return UNKNOWN
    some = blocks[np.linspace(0, len(blocks) - 1, min(len(blocks), BLOCKS)).astype(int)]
    found = np.asarray(fft.dctn(some - 128, axes=(1, 2), norm="ortho")).reshape(len(some), 1, -1)[..., 1:]
    tables = quantisation()
    return float(np.log1p(np.square(found - tables * np.round(found / tables)).mean((0, 2)).min()))


@cache
def quantisation() -> NDArray[np.float64]:
    """[qualities, 63] steps of the coefficients but the first, as libjpeg scales its table."""
    scale = np.array([5000 / quality for quality in QUALITIES])[:, None]
    return np.floor((np.array(STEPS.split(), float) * scale + 50) / 100).clip(1, 255)[:, 1:]


def completeness(luma: NDArray) -> float:
    """The smallest contrast among upper, lower, left and right half. A subject in one corner lowers it too."""
    y, x = luma.shape[0] // 2, luma.shape[1] // 2
    halves = (luma[:y], luma[y:], luma[:, :x], luma[:, x:])
    return float(min(half.std() for half in halves if half.size))  # a line of pixels has no halves across


def openness(pixels: NDArray) -> float:
    """1 - the share of the largest connected area of one exact colour: a pasted block, a lost part.

    Drawn pictures with flat grounds have large areas by intent; then it says little.
    """
    codes = (pixels.astype(np.int64) * [65536, 256, 1]).sum(-1)
    colours, counts = np.unique(codes, return_counts=True)
    largest = 0
    for k in np.argsort(-counts)[:COMMON_COLOURS]:
        if counts[k] <= largest:
            break
        areas, count = ndimage.label(codes == colours[k])  # type: ignore[misc]
        largest = max(largest, int(np.bincount(areas.ravel(), minlength=count + 1)[1:].max()))
    return 1 - largest / codes.size


def size(sizes: NDArray, expected: tuple[int, int] | None) -> NDArray[np.float32]:
    """[n] 1 where the size is `expected`, or the most common one of the folder."""
    if not len(sizes):
        return np.zeros(0, np.float32)
    common = expected or Counter(map(tuple, sizes.tolist())).most_common(1)[0][0]
    return (sizes == np.array(common)).all(1).astype(np.float32)
