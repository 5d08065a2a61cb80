"""The pictures and the noise of a training step, as a pure function of (seed, step, rank).

So a resumed run needs no data loader and no state of a random generator.

A view is one picture at one resolution; views of one shape form a bucket, and a batch comes from one bucket. Over a
round, as many steps as there are views, each bucket is visited as often as it has views. So all views are seen equally
often, and none is left out.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

BATCH, NOISE, DROPOUT, INIT, BUCKET, WORDING, EVALUATION, WORDING_DRAW = range(
    8
)  # independent random streams of one seed


class NoiseAndLevelDraws(NamedTuple):
    """The random numbers of one training pass: for noise, the encoder's spread, noise levels and dropped captions.
    Which pictures and which wordings are chosen is drawn elsewhere.
    """

    noise: Tensor  # [batch, c, h, w], standard normal
    resample: Tensor  # [batch, c, h, w], standard normal: the encoder's own spread
    constant: Tensor  # [batch, c, 1, 1], standard normal: for the noise offset
    uniform: Tensor  # [batch] in [0, 1): for the noise level
    normal: Tensor  # [batch] standard normal: for the noise level
    dropped: Tensor  # [batch], bool: the caption is replaced by the empty one


def seeded_generator(seed: int, *key: int) -> torch.Generator:
    """A torch generator for one purpose, which `key` names; SeedSequence mixes seed and key so that streams do not
    overlap.
    """
    state = np.random.SeedSequence([seed, *key]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


@lru_cache(maxsize=64)
def random_permutation(seed: int, *key: int, of: int) -> np.ndarray:
    """A random order of the numbers 0 to `of` - 1, int64 [of]; always the same for the same `seed` and `key`."""
    return np.random.default_rng([seed, *key]).permutation(of)


def view_indices_of_batch(
    buckets: Sequence[Sequence[int]], batch_size: int, step: int, rank: int, world: int, seed: int
) -> list[int]:
    """The indices of the views, [batch_size], that the process `rank` of `world` processes sees at `step`.

    The steps go through a bucket in one permutation after another, and the ranks get neighbouring parts of it. A batch
    may continue from one permutation into the next. `step` is that of a training pass.
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


def noise_and_level_draws(
    shape: tuple[int, ...], dropout: float, step: int, rank: int, seed: int
) -> NoiseAndLevelDraws:
    """The random numbers of one training pass but for the choice of pictures and wordings; `shape` is the batch's
    latent shape [n, c, h, w], `dropout` the share of captions that are dropped, and `step` the index of the pass.
    """
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
