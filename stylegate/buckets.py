"""The shapes that pictures are trained in: a picture goes to the shape that is nearest to its own.

A view is one picture at one resolution; views of one shape form a bucket, and a training batch comes from one bucket.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from stylegate.captionfaults import picture_count_and_names
from stylegate.words import counted

MOST_SLANTED = 2.0  # sides of a bucket differ at most by this factor; longer pictures are cropped to it
MUCH_CUT = 0.15  # share of a picture's area that its bucket cuts off, from which on it is named
MUCH_ENLARGED = 1.5  # times, from which on a picture that is smaller than its bucket is named


class PictureAtTrainingSize(NamedTuple):
    """One picture of train/ at one size in which it is trained."""

    item: int  # index in train/
    width: int  # pixels
    height: int

    def scale_factor_of_picture(self, size: tuple[int, int]) -> float:
        """The factor by which a picture of `size` (width, height) is scaled to cover the view; below 1 it shrinks."""
        return max(self.width / size[0], self.height / size[1])

    def cut_share(self, size: tuple[int, int]) -> float:
        """The share of the area of a picture of `size` (width, height) that lies outside the view, 0 to 1."""
        return 1 - self.width * self.height / (size[0] * size[1] * self.scale_factor_of_picture(size) ** 2)


def bucket_width_and_height(aspect: float, resolution: int, multiple: int) -> tuple[int, int]:
    """Width and height, multiples of `multiple` of at most resolution^2 pixels, of the shape nearest to `aspect`.

    For each width the height is as large as possible, so that no bucket is much smaller than the others.
    """
    candidates = []
    for width in range(multiple, math.ceil(resolution * math.sqrt(MOST_SLANTED)) + multiple, multiple):
        height = resolution**2 // width // multiple * multiple
        if height and 1 / MOST_SLANTED <= width / height <= MOST_SLANTED:
            candidates.append((abs(math.log(aspect * height / width)), -width * height, width, height))
    return min(candidates)[2:] if candidates else (multiple, multiple)


def training_sizes_of_pictures(
    sizes: Sequence[tuple[int, int]], resolutions: Sequence[int], multiple: int, buckets: bool
) -> list[PictureAtTrainingSize]:
    """The views of all pictures: (picture, width, height), one for each size at which the picture is trained.

    Every picture has one at the smallest resolution, and one at each larger resolution that does not enlarge it.
    `sizes` are (width, height) in pixels, `resolutions` sides in pixels. With `buckets` a view has nearly the shape of
    its picture, else it is square.
    """
    found = []
    for item, (width, height) in enumerate(sizes):
        for number, resolution in enumerate(sorted(set(resolutions))):
            w, h = (
                bucket_width_and_height(width / height, resolution, multiple) if buckets else (resolution, resolution)
            )
            if number == 0 or (width >= w and height >= h):
                found.append(PictureAtTrainingSize(item, w, h))
    return found


def view_indices_by_bucket(all_views: Sequence[PictureAtTrainingSize]) -> list[list[int]]:
    """For each bucket the indices of its views in `all_views`; the buckets are ordered by width, then by height."""
    shapes = sorted({(v.width, v.height) for v in all_views})
    return [[i for i, v in enumerate(all_views) if (v.width, v.height) == shape] for shape in shapes]


def buckets_in_words(
    names: Sequence[str], sizes: Sequence[tuple[int, int]], views: Sequence[PictureAtTrainingSize]
) -> list[str]:
    """A line for each bucket, and one for pictures of which much is cut off, or that are much enlarged.

    `names` and `sizes` (width, height) are those of the pictures in train/.
    """
    buckets = [[views[i] for i in found] for found in view_indices_by_bucket(views)]
    lines = [f"bucket {one[0].width} x {one[0].height}: {counted(len(one), 'picture')}" for one in buckets]
    cut = dict.fromkeys(names[v.item] for v in views if v.cut_share(sizes[v.item]) > MUCH_CUT)
    small = dict.fromkeys(names[v.item] for v in views if v.scale_factor_of_picture(sizes[v.item]) > MUCH_ENLARGED)
    if cut:
        lines.append(f"note: more than {MUCH_CUT:.0%} is cut off for training: {picture_count_and_names([*cut])}")
    if small:
        lines.append(
            f"note: enlarged more than {MUCH_ENLARGED:g} times for training: {picture_count_and_names([*small])}"
        )
    return lines


def picture_scaling_and_cropping_in_words(
    names: Sequence[str], sizes: Sequence[tuple[int, int]], views: Sequence[PictureAtTrainingSize]
) -> list[str]:
    """A line for each view: the picture, its size, its bucket, and how much of the picture is cut off."""
    return [
        f"  {names[view.item]}: {size[0]} x {size[1]} at {view.scale_factor_of_picture(size):.2f} "
        f"times its size in {view.width} x {view.height}, {abs(view.cut_share(size)):.0%} cut off"
        for view, size in ((view, sizes[view.item]) for view in views)
    ]
