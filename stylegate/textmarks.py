"""Lines of text near the upper or lower edge of a picture: signatures, watermarks, addresses, dates.

A LoRA learns them with the style. Classical and simple: small marks that stand out from their surroundings stand on one
line, are of one height and stroke, and differ in shape from each other (dots of a halftone do not). It finds separate
letters; handwriting in one stroke, fewer than FEWEST letters, and letters that touch the drawing are passed over.
tests/bench/textmarks.py measures both errors.
"""

from bisect import bisect_left, bisect_right
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LONGEST = 512  # pixels of the longer side that is looked at; larger pictures are made smaller
LEAST_SIDE = 128  # pixels of the shorter side; in smaller pictures letters are a blur
BAND = 0.25  # share of the height, above and below, in which a line's middle stands
STANDS_OUT = (18, 45)  # levels of 255 above or below the mean of the surroundings
SURROUNDINGS = 1 / 12  # of the shorter side
LOWEST, HIGHEST = 4, 0.09  # height of a letter: pixels, and share of the shorter side
WIDEST = 2.2  # width of a letter, in heights
FEWEST, MOST = 5, 600  # letters in a line; marks in a picture, of more it is a texture
LONG = 3.0  # length of a line, in heights
STROKE, STROKE_VARIES = 0.3, 0.5  # half the stroke's width in heights of a letter at most; its deviation in means
FILLED = (0.3, 0.9)  # share of its box that a letter fills
DIFFERENT = 0.3  # median difference of two letters' shapes, from 0 (equal) to 1
SHAPE = 6  # cells a side in which shapes are compared


class LetterCandidate(NamedTuple):
    """A connected group of pixels that may be a letter: its box in pixels of the picture as it is looked at, and its
    mask.
    """

    left: int
    top: int
    width: int
    height: int
    mask: NDArray[np.bool_]  # [height, width]

    @property
    def right(self) -> int:
        return self.left + self.width

    @property
    def bottom(self) -> int:
        return self.top + self.height


def has_text_near_edge(image: Image.Image) -> bool:
    """Whether a line of separate letters stands in the upper or lower quarter of a picture; False if the picture's
    shorter side is below LEAST_SIDE.
    """
    from scipy import ndimage

    if min(image.size) < LEAST_SIDE:
        return False
    grey = image.convert("L")
    grey.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    levels = np.asarray(grey, np.float32)
    height, side = len(levels), min(levels.shape)
    apart = levels - ndimage.uniform_filter(levels, max(9, int(side * SURROUNDINGS)))
    for standing_out in (sign * apart > least for sign in (1, -1) for least in STANDS_OUT):
        for line in lines_of_marks(letter_sized_marks(standing_out, side)):
            middle = (min(m.top for m in line) + max(m.bottom for m in line)) / 2 / height
            if min(middle, 1 - middle) < BAND and is_line_of_letters(line):
                return True
    return False


def letter_sized_marks(standing_out: NDArray[np.bool_], side: int) -> list[LetterCandidate]:
    """The connected groups of true pixels in `standing_out` [h, w] that are as large as letters, from left to right; an
    empty list if they are more than MOST.

    `side` is the shorter side of the picture in pixels.
    """
    from scipy import ndimage

    labels: Any = ndimage.label(standing_out, np.ones((3, 3)))[0]  # type: ignore[index]
    found = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
        height, width = rows.stop - rows.start, columns.stop - columns.start
        if LOWEST <= height <= HIGHEST * side and width <= WIDEST * height:
            mask = labels[rows, columns] == number
            found.append(LetterCandidate(columns.start, rows.start, width, height, mask))
    return sorted(found, key=lambda m: (m.left, m.top)) if len(found) <= MOST else []


def lines_of_marks(marks: list[LetterCandidate]) -> list[list[LetterCandidate]]:
    """Lines of FEWEST marks or more that stand beside each other; each mark is in one line at most.

    `marks` are sorted from left to right, as `letter_sized_marks` gives them: only those near a line's end are looked
    at.
    """
    lefts, taken, lines = [mark.left for mark in marks], set[int](), []
    for number, first in enumerate(marks):
        if number in taken:
            continue
        line, tallest = [number], first.height
        while True:
            last = marks[line[-1]]
            near = range(bisect_left(lefts, last.right - tallest), bisect_right(lefts, last.right + tallest))
            free = (n for n in near if n not in taken and n not in line)
            following = next((n for n in free if is_next_letter(marks[n], last, tallest)), None)
            if following is None:
                break
            line.append(following)
            tallest = max(tallest, marks[following].height)
        if len(line) >= FEWEST:
            taken.update(line)
            lines.append([marks[n] for n in line])
    return lines


def is_next_letter(mark: LetterCandidate, last: LetterCandidate, tallest: int) -> bool:
    """Whether a mark is the next letter after `last` in a line whose tallest letter is `tallest` pixels high."""
    near = -0.2 * tallest <= mark.left - last.right <= tallest
    alike = 0.45 <= mark.height / tallest <= 1.8
    same_line = abs(mark.bottom - last.bottom) <= 0.3 * tallest
    same_middle = abs(mark.top + mark.height / 2 - last.top - last.height / 2) <= 0.2 * tallest
    return near and alike and (same_line or same_middle)


def is_line_of_letters(line: list[LetterCandidate]) -> bool:
    """Whether the marks of a line look like letters: of strokes of one width, no dots, and unlike each other."""
    from scipy import ndimage

    heights = np.array([m.height for m in line])
    length = line[-1].right - line[0].left
    tall = max(m.bottom for m in line) - min(m.top for m in line)
    inside: Any = ndimage.distance_transform_edt  # how far each pixel lies from the edge of its mark
    strokes = np.array([inside(np.pad(m.mask, 1)).max() for m in line])
    filled = float(np.mean([m.mask.mean() for m in line]))
    shapes = np.stack([mask_coverage_of_each_cell(m.mask) for m in line])
    differences = np.abs(shapes[:, None] - shapes[None]).mean(-1)[np.triu_indices(len(line), 1)]
    return bool(
        length >= LONG * tall
        and np.median(strokes) < STROKE * np.median(heights)
        and strokes.std() < STROKE_VARIES * strokes.mean()
        and FILLED[0] < filled < FILLED[1]
        and np.median(differences) > DIFFERENT
    )


def mask_coverage_of_each_cell(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The share that the mask fills of each of SHAPE x SHAPE cells laid over it, [SHAPE * SHAPE] in [0, 1]."""
    small = Image.fromarray(mask.astype(np.uint8) * 255).resize((SHAPE, SHAPE), Image.Resampling.BOX)
    return np.asarray(small, np.float64).ravel() / 255
