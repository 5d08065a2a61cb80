"""What a training step sees: a pure function of (seed, step, rank). So resume needs no loader and no RNG state."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

BATCH, NOISE, DROPOUT, INIT = range(4)  # streams of one seed


class Draws(NamedTuple):
    noise: Tensor  # [batch, c, h, w], standard normal
    resample: Tensor  # [batch, c, h, w], standard normal: the encoder's own spread
    timesteps: Tensor  # [batch], int64, uniform over the schedule
    dropped: Tensor  # [batch], bool: the caption is replaced by the empty one


def generator(seed: int, *key: int) -> torch.Generator:
    """A torch generator for one purpose; SeedSequence mixes seed and key so that streams do not overlap."""
    state = np.random.SeedSequence([seed, *key]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def indices(num_items: int, batch_size: int, step: int, rank: int, world: int, seed: int) -> list[int]:
    """Which items rank `rank` sees at `step`: an endless run of fresh permutations, so none is ever left out.

    The ranks take neighbouring stretches of `batch_size`; a batch may reach from one epoch into the next.
    """
    first = (step * world + rank) * batch_size
    chosen = []
    for position in range(first, first + batch_size):
        epoch, place = divmod(position, num_items)
        chosen.append(int(np.random.default_rng([seed, BATCH, epoch]).permutation(num_items)[place]))
    return chosen


def draws(shape: tuple[int, ...], num_timesteps: int, dropout: float, step: int, rank: int, seed: int) -> Draws:
    """Noise, timesteps and caption dropout of one step; `shape` is the batch's latent shape."""
    noise = generator(seed, NOISE, step, rank)
    chance = generator(seed, DROPOUT, step, rank)
    return Draws(
        noise=torch.randn(shape, generator=noise),
        resample=torch.randn(shape, generator=noise),
        timesteps=torch.randint(0, num_timesteps, shape[:1], generator=noise),
        dropped=torch.rand(shape[0], generator=chance) < dropout,
    )
