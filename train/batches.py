"""The pictures and the noise of a training step, as a pure function of (seed, step, rank).

So a resumed run needs no data loader and no state of a random generator.

A view is one picture at one resolution; views of one shape form a bucket, and a batch comes from one bucket. Over a
round, as many steps as there are views, each bucket is visited as often as it has views. So all views are seen equally
often, and none is left out.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

BATCH, NOISE, DROPOUT, INIT, BUCKET, WORDING, EVALUATION, WORDING_DRAW = range(
    8
)  # independent random streams of one seed
MOST_SLANTED = 2.0  # sides of a bucket differ at most by this factor; longer pictures are cropped to it


class TrainingView(NamedTuple):
    """One picture at one size."""

    item: int  # index in train/
    width: int  # pixels
    height: int


class NoiseAndLevelDraws(NamedTuple):
    """All random numbers of one pass."""

    noise: Tensor  # [batch, c, h, w], standard normal
    resample: Tensor  # [batch, c, h, w], standard normal: the encoder's own spread
    constant: Tensor  # [batch, c, 1, 1], standard normal: for the noise offset
    uniform: Tensor  # [batch] in [0, 1): for the noise level
    normal: Tensor  # [batch] standard normal: for the noise level
    dropped: Tensor  # [batch], bool: the caption is replaced by the empty one


def bucket_sides(aspect: float, resolution: int, multiple: int) -> tuple[int, int]:
    """Width and height, multiples of `multiple` of at most resolution^2 pixels, of the shape nearest to `aspect`.

    For each width the height is as large as possible, so that no bucket is much smaller than the others.
    """
    candidates = []
    for width in range(multiple, math.ceil(resolution * math.sqrt(MOST_SLANTED)) + multiple, multiple):
        height = resolution**2 // width // multiple * multiple
        if height and 1 / MOST_SLANTED <= width / height <= MOST_SLANTED:
            candidates.append((abs(math.log(aspect * height / width)), -width * height, width, height))
    return min(candidates)[2:] if candidates else (multiple, multiple)


def training_views(
    sizes: Sequence[tuple[int, int]], resolutions: Sequence[int], multiple: int, buckets: bool
) -> list[TrainingView]:
    """A view (picture, width, height) for each size at which a picture is trained.

    Every picture has one at the smallest resolution, and one at each larger resolution that does not enlarge it.
    `sizes` are (width, height) in pixels, `resolutions` sides in pixels. With `buckets` a view has nearly the shape of
    its picture, else it is square.
    """
    found = []
    for item, (width, height) in enumerate(sizes):
        for number, resolution in enumerate(sorted(set(resolutions))):
            w, h = bucket_sides(width / height, resolution, multiple) if buckets else (resolution, resolution)
            if number == 0 or (width >= w and height >= h):
                found.append(TrainingView(item, w, h))
    return found


def views_by_bucket(all_views: Sequence[TrainingView]) -> list[list[int]]:
    """The indices of the views of each bucket; the buckets are ordered by their sides."""
    shapes = sorted({(v.width, v.height) for v in all_views})
    return [[i for i, v in enumerate(all_views) if (v.width, v.height) == shape] for shape in shapes]


def seeded_generator(seed: int, *key: int) -> torch.Generator:
    """A torch generator for one purpose; SeedSequence mixes seed and key so that streams do not overlap."""
    state = np.random.SeedSequence([seed, *key]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


@lru_cache(maxsize=64)
def random_permutation(seed: int, *key: int, of: int) -> np.ndarray:
    """A random order of the numbers 0 to `of` - 1 for one purpose."""
    return np.random.default_rng([seed, *key]).permutation(of)


def view_indices_of_batch(
    buckets: Sequence[Sequence[int]], batch_size: int, step: int, rank: int, world: int, seed: int
) -> list[int]:
    """The indices of the views that process `rank` of `world` sees at `step`.

    The steps go through a bucket in one permutation after another, and the ranks get neighbouring parts of it. A batch
    may continue from one permutation into the next.
    """
    counts = [len(bucket) for bucket in buckets]
    round_, place = divmod(step, sum(counts))
    order = np.repeat(np.arange(len(buckets)), counts)[random_permutation(seed, BUCKET, round_, of=sum(counts))]
    bucket = int(order[place])
    visits = round_ * counts[bucket] + int((order[:place] == bucket).sum())
    first = (visits * world + rank) * batch_size
    return [
        buckets[bucket][random_permutation(seed, BATCH, bucket, epoch, of=counts[bucket])[at]]
        for epoch, at in (divmod(position, counts[bucket]) for position in range(first, first + batch_size))
    ]


def random_draws(shape: tuple[int, ...], dropout: float, step: int, rank: int, seed: int) -> NoiseAndLevelDraws:
    """All random numbers of one pass; `shape` is the batch's latent shape [n, c, h, w], `dropout` a share."""
    noise = seeded_generator(seed, NOISE, step, rank)
    chance = seeded_generator(seed, DROPOUT, step, rank)
    return NoiseAndLevelDraws(
        noise=torch.randn(shape, generator=noise),
        resample=torch.randn(shape, generator=noise),
        constant=torch.randn((*shape[:2], 1, 1), generator=noise),
        uniform=torch.rand(shape[0], generator=noise),
        normal=torch.randn(shape[0], generator=noise),
        dropped=torch.rand(shape[0], generator=chance) < dropout,
    )


def shuffled_caption(text: str, variant: int, seed: int) -> str:
    """The caption with its comma-separated parts in another order; the first part, which says what is shown, stays
    first.

    Variant 0, and captions with fewer than three parts, are unchanged. The same seed and variant give the same order.
    """
    parts = [part.strip() for part in text.split(",")]
    if variant == 0 or len(parts) < 3:  # the first part stays: what is shown
        return text
    order = np.random.default_rng([seed, WORDING, variant]).permutation(len(parts) - 1)
    return ", ".join([parts[0], *(parts[1 + int(i)] for i in order)])
