"""What a picture of a brand set may be better without: a frame or bars around it, or pixels that enlarging made up.

Nothing is refused for it: `stylegate brand` and `stylegate check` name such pictures, and `brand crop=true` cuts
frames off.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stylegate import pictures

EVEN = 10  # levels of 255 between the brightest and the darkest pixel of a line that belongs to a frame (JPEG included)
JUMP = 24  # levels between a frame and the picture in it
RINGING = 16  # lines at the inner edge of a frame that JPEG disturbs: a block of colours at half the size
DISTURBED = 0.25  # share of such a line that is more than EVEN from the frame in brightness, at most; none is by JUMP
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # brightness of red, green and blue in JPEG (ITU-R BT.601)
ALONG = 0.9  # share of the line inside a frame that differs from it; a subject on a flat ground touches less
DEEPEST = 0.35  # share of a side that a frame may take
FEWEST_PIXELS = 96  # shorter side from which on enlarging can be told
FLAT = 1.0  # levels of 255: a picture that loses less when it is made small is one colour
ENLARGED = 0.4  # share of loss: drawn shapes have .48 to .65, the same enlarged twice .17 to .30 (tests say it)


class BoxInsideFrame(NamedTuple):
    """The part of a picture inside its frame, in pixels; right and bottom are the first ones outside."""

    left: int
    top: int
    right: int
    bottom: int


def find_box_inside_frame(image: Image.Image) -> BoxInsideFrame | None:
    """The box inside a frame, or between two bars (letterbox); None if the picture has neither.

    A frame is even, and the picture begins at its edge along nearly the whole line. So a subject on a flat ground has
    none. Bars stand on two opposite sides, of the same depth within a tenth of the side.
    """
    pixels = np.asarray(image.convert("RGB")).astype(np.int16)
    height, width = pixels.shape[:2]
    top, bottom = top_bar_depth(pixels), top_bar_depth(pixels[::-1])
    across = pixels.swapaxes(0, 1)
    left, right = top_bar_depth(across), top_bar_depth(across[::-1])
    framed = BoxInsideFrame(left, top, width - right, height - bottom)
    for box in (framed, framed._replace(left=0, right=width), framed._replace(top=0, bottom=height)):
        bars = [(box.top, height - box.bottom, height), (box.left, width - box.right, width)]
        paired = all((near > 0) == (far > 0) and abs(near - far) <= side / 10 for near, far, side in bars)
        if box != (0, 0, width, height) and paired and has_edge_all_along_frame(pixels, box):
            return box
    return None


def without_frame(content: bytes, background: str) -> bytes:
    """The picture file `content` without its frame or bars, as PNG; the same bytes if it has none.

    Transparent pictures are laid on `background`. Raises PictureError if it cannot be decoded.
    """
    image = pictures.decode_picture(content, background).image
    box = find_box_inside_frame(image)
    return pictures.png_bytes(image.crop(box)) if box else content


def top_bar_depth(pixels: NDArray[np.int16]) -> int:
    """The number of rows at the top of `pixels` [h, w, 3] that are of one even colour; 0 if there are none, or more
    than DEEPEST of the height. Rows at the inner edge count too where they differ as JPEG makes them: their brightness
    by little, and their colours, which it keeps at half the size, by what the picture beside them has.
    """
    most = int(len(pixels) * DEEPEST) + 1
    upper = pixels[: most + 1]
    away = np.abs(upper - upper[:1]).max(2)
    even = (upper.max(1) - upper.min(1) <= EVEN).all(1) & (away.max(1) <= EVEN)
    depth = leading_true_count(even)
    if depth:
        grey = np.abs((upper[depth : depth + RINGING] - upper[:1]) @ LUMA)
        depth += leading_true_count((grey.max(1) <= JUMP) & ((grey > EVEN).mean(1) <= DISTURBED))
    return depth if depth < most else 0


def leading_true_count(alike: NDArray[np.bool_]) -> int:
    """How many are true at the start of `alike`, one a row."""
    return len(alike) if alike.all() else int(np.argmin(alike))


def has_edge_all_along_frame(pixels: NDArray[np.int16], box: BoxInsideFrame) -> bool:
    """Whether the lines just inside a frame differ from it along nearly their whole length, on each side with a bar.

    One line may be half frame, half picture, where the picture was scaled; so the next one is looked at.
    """
    inner = pixels[box.top : box.bottom, box.left : box.right]
    if min(inner.shape[:2]) < 4:
        return False
    height, width = pixels.shape[:2]
    middle_row, middle_column = (box.top + box.bottom) // 2, (box.left + box.right) // 2
    sides = [
        (box.top > 0, inner[1], pixels[0, middle_column]),
        (box.bottom < height, inner[-2], pixels[-1, middle_column]),
        (box.left > 0, inner[:, 1], pixels[middle_row, 0]),
        (box.right < width, inner[:, -2], pixels[middle_row, -1]),
    ]
    return all((np.abs(line - colour).max(-1) > JUMP).mean() >= ALONG for has_bar, line, colour in sides if has_bar)


def is_blurred_or_smoothly_enlarged(image: Image.Image) -> bool:
    """Whether the picture holds no detail as fine as its pixels: it was enlarged to at least twice its size, or is
    out of focus.

    Of such a picture a half loses little of what a quarter loses (or a quarter of what an eighth loses) when it is
    scaled back. Enlarging by whole blocks (pixel art) keeps hard edges and is not found (`whole_block_side` finds it).
    Nor is a small picture.
    """
    if min(image.size) < FEWEST_PIXELS:
        return False
    grey = image.convert("L")
    half, quarter, eighth = (rms_loss_of_shrinking_and_enlarging(grey, factor) for factor in (2, 4, 8))
    return (quarter > FLAT and half < ENLARGED * quarter) or (eighth > FLAT and quarter < ENLARGED * eighth)


def whole_block_side(image: Image.Image) -> int:
    """The side in pixels of the squares of one colour that the picture consists of: how many times a small picture was
    enlarged with hard edges, as pixel art is. 1 for any other picture, and for one of a single colour.
    """
    pixels = np.asarray(image.convert("RGB"))
    changes = [
        np.flatnonzero((lines[1:] != lines[:-1]).any((1, 2))) + 1  # where a line differs from the one before
        for lines in (pixels, pixels.swapaxes(0, 1))
    ]
    return int(np.gcd.reduce(np.concatenate([*changes, image.size]))) if any(map(len, changes)) else 1


def rms_loss_of_shrinking_and_enlarging(grey: Image.Image, factor: int) -> float:
    """Root mean square difference, in levels of 255, to the picture made smaller by `factor` and enlarged again."""
    small = grey.resize((grey.width // factor, grey.height // factor), Image.Resampling.LANCZOS)
    back = small.resize(grey.size, Image.Resampling.BICUBIC)
    return float(np.sqrt(np.square(np.asarray(grey, np.float32) - np.asarray(back, np.float32)).mean()))
