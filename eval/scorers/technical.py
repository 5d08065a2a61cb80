"""Technical faults, measured on the decoded pixels: blank, blurred, noisy, clipped, framed, half drawn, wrong size.

They know nothing of what is shown. A style may be soft, flat or grainy by intent: compare with its references.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import fft, ndimage

from eval.measuring.measured import MeasuredLot

MEASURES = (
    "contrast",
    "sharpness",
    "cleanness",
    "uncompressed",
    "completeness",
    "openness",
    "unclipped",
    "unframed",
)
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
WHOLE_SIDE, MIDDLE_SIDE = 256, 512  # pixels; bound the time of large pictures, and leave small ones as they are
TOGETHER = 1 << 17  # pixels that are measured at once, so that they stay in a core's cache
INVISIBLE = 8.0  # median response to noise of deviation 2 levels (4.05 times as much): less, nobody sees
BLOCK = 8  # pixels; JPEG's
# JPEG's table of steps for luma (ITU-T T.81, table K.1) at the qualities that libjpeg's users call strong compression.
STEPS = """16 11 10 16 24 40 51 61  12 12 14 19 26 58 60 55  14 13 16 24 40 57 69 56  14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77  24 35 55 64 81 104 113 92  49 64 78 87 103 121 120 101  72 92 95 98 112 100 103 99"""
QUALITIES = (*range(4, 21), *range(22, 42, 2))
DRAWN, BLOCKS, FEWEST = 4.0, 32, 4  # deviation of a block that shows something; blocks looked at, at most and at least
UNKNOWN = 6.0  # nothing is drawn that a step could be read from
COMMON_COLOURS = 4  # an area of one exact colour is looked for among this many
FRAME, ENDS = 4, 8  # a frame is looked for in the outer fourth; an eighth of a line at both ends may be its other sides
EVEN, JUMP = (
    10.0,
    12.0,
)  # levels of luma: at most, from pixel to pixel within a frame; more, from a frame to the picture
CLIPPED = 2  # levels
WHOLLY = 0.02  # share of a line that may be no frame's by chance
# [3, 3, 3]: a pixel touches its four neighbours, and nothing of another picture
TOUCHING = np.pad(ndimage.generate_binary_structure(2, 1)[None], ((1, 1), (0, 0), (0, 0)))


class ReducedAndMiddlePixels(NamedTuple):
    """The pixels that one picture is measured on: all of it, made smaller, and a part of it. Their
    number is limited.
    """

    whole: NDArray[np.uint8]  # [h, w, 3]: all of it, at about WHOLE_SIDE pixels
    middle: NDArray[np.uint8]  # [h, w, 3]: MIDDLE_SIDE pixels at full resolution


def reduced_and_middle_pixels(image: Image.Image) -> ReducedAndMiddlePixels:
    """The pixels of an RGB picture that the technical scores are measured on."""
    whole, middle = shrink_picture_for_measuring(image), middle_part(image)
    pixels = np.asarray(whole)
    return ReducedAndMiddlePixels(pixels, pixels if middle is whole else np.asarray(middle))


def technical_scores(views: Sequence[ReducedAndMiddlePixels]) -> NDArray[np.float32]:
    """[n, len(MEASURES)] technical measures of n pictures, in the order of MEASURES.

    Sharpness, noise and compression are measured in the middle of the picture, the others on the whole picture.
    """
    alike = defaultdict(list)
    for i, one in enumerate(views):
        alike[one.whole.shape, one.middle.shape].append(i)
    out = np.empty((len(views), len(MEASURES)), np.float32)
    for indices in alike.values():
        step = max(1, TOGETHER // views[indices[0]].middle[..., 0].size)
        for start in range(0, len(indices), step):
            block = indices[start : start + step]
            whole, middle = np.stack([views[i].whole for i in block]), np.stack([views[i].middle for i in block])
            luma, fine = whole @ LUMA, middle @ LUMA
            out[block] = np.stack(
                [
                    contrast(luma),
                    sharpness(middle),
                    cleanness(fine),
                    uncompressed(fine),
                    completeness(luma),
                    openness(whole),
                    unclipped(whole),
                    unframed(luma),
                ],
                axis=1,
            )
    return out


def shrink_picture_for_measuring(image: Image.Image) -> Image.Image:
    """The whole picture, made smaller by averaging blocks of pixels until no side has 1.5 times WHOLE_SIDE."""
    factor = max(1, round(max(image.size) / WHOLE_SIDE))
    return image.reduce(factor) if factor > 1 else image


def middle_part(image: Image.Image) -> Image.Image:
    """The middle, MIDDLE_SIDE pixels a side at most; it begins where a block of JPEG's begins."""
    if max(image.size) <= MIDDLE_SIDE:
        return image
    width, height = (min(side, MIDDLE_SIDE) for side in image.size)
    left, top = ((whole - part) // 2 // BLOCK * BLOCK for whole, part in zip(image.size, (width, height), strict=True))
    return image.crop((left, top, left + width, top + height))


# Each of n pictures of one size: luma [n, h, w], pixels [n, h, w, 3].


def contrast(luma: NDArray[np.float32]) -> NDArray[np.float32]:
    """[n] standard deviation of luma, 0 (one flat colour) to 127.5. Noise raises it."""
    return luma.std((1, 2))


def sharpness(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """[n] log of the mean absolute difference to the right and lower neighbour. Blur lowers it, noise raises it."""

    def mean_level_difference_of_each_pair(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.float64]:
        """[n] mean absolute difference of the levels of two pictures [n, h, w, 3]."""
        return (np.maximum(a, b) - np.minimum(a, b)).mean((1, 2, 3))

    down, right = (
        mean_level_difference_of_each_pair(pixels[:, 1:], pixels[:, :-1]),
        mean_level_difference_of_each_pair(pixels[:, :, 1:], pixels[:, :, :-1]),
    )
    return np.log(down + right + 0.1)


def cleanness(luma: NDArray[np.float32]) -> NDArray[np.float32]:
    """[n] -log of the median response to a mask that edges and slopes pass unseen (Immerkaer, CVIU 64, 1996).

    The mask is the product of two second differences (his eq. 2); beyond its edge the picture is mirrored.
    """
    padded = np.pad(luma, ((0, 0), (1, 1), (1, 1)), mode="symmetric")
    down = padded[:, :-2] - 2 * padded[:, 1:-1] + padded[:, 2:]
    response = np.abs(down[:, :, :-2] - 2 * down[:, :, 1:-1] + down[:, :, 2:]).reshape(len(luma), -1)
    half = response.shape[1] // 2
    parted = np.partition(response, half, axis=1)  # np.median asks for both middles at once: ten times as slow
    below = parted[:, half] if response.shape[1] % 2 else parted[:, :half].max(1)
    return -np.log((below + parted[:, half]) / 2 + INVISIBLE)


def uncompressed(luma: NDArray[np.float32]) -> NDArray[np.float64]:
    """[n] log of 1 + the mean squared distance of 8 x 8 cosine coefficients from multiples of the steps of a JPEG
    table.

    The table is the nearest one of those of QUALITIES. 0 (strongly compressed) to 7.5 (halfway between all steps).

    Strong compression (quality 40 or less) leaves them at multiples of its steps, and storing the picture otherwise
    does not take them away (after Farid, "Exposing digital forgeries from JPEG ghosts", 2009). Moving or scaling by
    other than whole blocks does: then it sees nothing.
    """
    n, height, width = len(luma), *(side // BLOCK * BLOCK for side in luma.shape[1:])
    cut = luma[:, :height, :width].reshape(n, height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    blocks = cut.transpose(0, 1, 3, 2, 4).reshape(n, -1, BLOCK, BLOCK)
    drawn = blocks.std((2, 3)) > DRAWN
    every = np.maximum(-(-drawn.sum(1, keepdims=True) // BLOCKS), 1)
    owner, place = np.nonzero(drawn & (drawn.cumsum(1) % every == 0))  # of many an even spread
    counts = np.bincount(owner, minlength=n)
    found = fft.dctn(blocks[owner, place] - 128, axes=(1, 2), norm="ortho")
    coefficients = np.asarray(found, np.float32).reshape(-1, BLOCK * BLOCK)[:, 1:]
    nearest = np.full(n, np.inf)
    steps, rest = np.empty_like(coefficients), np.empty_like(coefficients)
    for table in jpeg_quantisation_tables_by_quality():
        np.multiply(coefficients, 1 / table, out=steps)
        np.subtract(steps, np.rint(steps, out=rest), out=steps)
        apart = np.einsum("bk,k->b", np.square(steps, out=rest), np.square(table))  # BLAS: bits depend on neighbours
        nearest = np.minimum(nearest, np.bincount(owner, apart, minlength=n))
    mean = nearest / np.maximum(counts, 1) / (BLOCK * BLOCK - 1)
    return np.where(counts < FEWEST, UNKNOWN, np.log1p(mean))


@cache
def jpeg_quantisation_tables_by_quality() -> NDArray[np.float32]:
    """[qualities, 63] quantisation steps of all coefficients but the first, at each of QUALITIES, as libjpeg scales
    them.
    """
    scale = np.array([5000 / quality for quality in QUALITIES])[:, None]
    return np.floor((np.array(STEPS.split(), float) * scale + 50) / 100).clip(1, 255)[:, 1:].astype(np.float32)


def completeness(luma: NDArray[np.float32]) -> NDArray[np.float32]:
    """[n] the smallest contrast among upper, lower, left and right half. A subject in one corner lowers it too."""
    y, x = luma.shape[1] // 2, luma.shape[2] // 2
    halves = (luma[:, :y], luma[:, y:], luma[:, :, :x], luma[:, :, x:])
    return np.min([contrast(half) for half in halves if half.size], axis=0)  # a line of pixels has no halves across


def openness(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """[n] 1 - the share of the largest connected area of one exact colour: a pasted block, a lost part.

    Drawn pictures with flat grounds have large areas by intent; then it says little.
    """
    red, green, blue = (pixels[..., channel].astype(np.int32) for channel in range(3))
    codes = red << 16 | green << 8 | blue  # [n, h, w]
    n, size = len(codes), codes[0].size
    ordered = np.sort(codes.reshape(n, size), axis=1)
    begins = np.ones((n, size), bool)
    np.not_equal(ordered[:, 1:], ordered[:, :-1], out=begins[:, 1:])
    first = np.flatnonzero(begins)  # where a colour begins, over all pictures
    counts = np.diff(first, append=n * size)
    order = counts * len(first) + np.arange(len(first))  # by count; the rest tells which one
    picture = np.searchsorted(first, np.arange(n) * size)
    largest = np.ones(n, np.int64)
    for _ in range(COMMON_COLOURS):
        commonest = np.maximum.reduceat(order, picture)
        which = commonest % len(first)
        more = np.flatnonzero(commonest // len(first) > largest)
        if not len(more):
            break
        colours = ordered.flat[first[which[more]]]
        areas, _ = ndimage.label(codes[more] == colours[:, None, None], TOUCHING, output=np.intp)  # type: ignore[misc]
        last = areas.max((1, 2))  # labels grow from picture to picture
        largest[more] = np.maximum(largest[more], np.maximum.reduceat(np.bincount(areas.ravel())[1:], [0, *last[:-1]]))
        order[which] = 0
    return 1 - largest / size


def unclipped(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """[n] 1 - the share of channel values within CLIPPED of 0 or 255: 0 to 1. Exposure cuts off what lies beyond.

    Blind to darkening that cuts nothing off, and to clipping that was compressed or dimmed afterwards. Pure colours are
    clipped by intent; on a white or black ground it says little, and its line may lie below 0.
    """
    values = pixels.reshape(len(pixels), -1) + np.uint8(CLIPPED + 1)  # 255 becomes CLIPPED
    return 1 - np.count_nonzero(values <= 2 * CLIPPED + 1, axis=1) / values.shape[1]


def unframed(luma: NDArray[np.float32]) -> NDArray[np.float64]:
    """[n] log of the share of an edge line that does not look like part of a frame; -3.9 (framed) to 0.

    A frame must be on two opposite sides (bars above and below are enough). One on four sides that is deeper than an
    eighth of the side weighs less, -1 at a fourth. Not found: a bar on one side only, and a frame or bars that are
    deeper than a fourth, of the ground's colour, grainy, soft, rounded or tilted.
    """
    pairs = [
        np.minimum(frame_likeness_of_upper_edge(across), frame_likeness_of_upper_edge(across[:, ::-1]))
        for across in (luma, luma.swapaxes(1, 2))
    ]  # above and below, left and right
    return np.log(np.minimum(1 - np.maximum(*pairs) + WHOLLY, 1))


def frame_likeness_of_upper_edge(luma: NDArray[np.float32]) -> NDArray[np.float64]:
    """[n] for each picture the largest share of a line near the top edge that is even and differs from the line
    below it.
    """
    _, height, width = luma.shape
    upper = luma[:, : height // FRAME + 1, width // ENDS : width - width // ENDS]
    if upper.shape[1] < 2 or upper.shape[2] < 2:
        return np.zeros(len(luma))
    even = np.abs(np.diff(upper[:, :-1], axis=2)) <= EVEN
    jumps = np.abs(np.diff(upper[:, :, :-1], axis=1)) > JUMP
    return (even & jumps).mean(2).max(1)


def same_size_score(sizes: NDArray[np.int64], expected: tuple[int, int] | None) -> NDArray[np.float32]:
    """[n] 1 where a picture's (width, height) is `expected`, else 0; without `expected` it is the most common size."""
    if not len(sizes):
        return np.zeros(0, np.float32)
    common = expected or Counter(map(tuple, sizes.tolist())).most_common(1)[0][0]
    return (sizes == np.array(common)).all(1).astype(np.float32)


def alpha_rule_score(
    transparent: NDArray[np.bool_], references: NDArray[np.bool_], declared: str = "keep"
) -> NDArray[np.float32]:
    """[n] 1 where a picture is transparent or opaque as it should be, else 0.

    `declared` "flatten": pictures should be opaque. "keep": they should be as most references are, or, without
    references, as most pictures of the lot.
    """
    usual = references if len(references) else transparent
    wanted = declared == "keep" and len(usual) > 0 and usual.mean() > 0.5
    return (transparent == wanted).astype(np.float32)


# The columns of scores.parquet (eval/scorers/__init__.py).


def column(measured: MeasuredLot, name: str) -> NDArray[np.float32]:
    """[n] the technical measure `name` (one of MEASURES) of the lot's pictures, measured when they were decoded."""
    return measured.pictures.technical[:, MEASURES.index(name)]


def references_column(measured: MeasuredLot, name: str) -> NDArray[np.float32]:
    """[r] the technical measure `name` (one of MEASURES) of the references."""
    return measured.references.technical[:, MEASURES.index(name)]


def size_column(measured: MeasuredLot) -> NDArray[np.float32]:
    """[n] 1 where a picture of a planned batch has the size that `generate` drew, else 0; in any other folder 1 where
    it has the most common size.
    """
    drawn = measured.lot.record.size if measured.lot.record else None
    return same_size_score(measured.pictures.sizes, (drawn, drawn) if drawn else None)


def alpha_column(measured: MeasuredLot) -> NDArray[np.float32]:
    """[n] 1 where a picture is transparent, or opaque, as its brand wants it, else 0."""
    return alpha_rule_score(measured.pictures.transparent, measured.references.transparent, measured.compared.alpha)


def ones_for_references(measured: MeasuredLot) -> NDArray[np.float32]:
    """[r] ones: by definition the references have the right size and transparency."""
    return np.ones(len(measured.references.names), np.float32)
