"""Batches and noise: pure functions of (seed, step, rank), nothing left out."""

from collections import Counter

import torch

from train import batches


def test_every_epoch_holds_every_item_once() -> None:
    """A batch size that does not divide the set drops nothing: 7 items, batch 3, 14 steps are 6 epochs."""
    seen = [i for step in range(14) for i in batches.indices(7, 3, step, 0, 1, seed=5)]
    assert Counter(seen) == dict.fromkeys(range(7), 6)
    assert seen[:7] != seen[7:14] and sorted(seen[:7]) == list(range(7))


def test_ranks_share_what_one_process_would_see() -> None:
    alone = [i for step in range(6) for i in batches.indices(10, 4, step, 0, 1, seed=1)]
    two = [i for step in range(6) for rank in range(2) for i in batches.indices(10, 2, step, rank, 2, seed=1)]
    assert alone == two


def test_draws_depend_on_step_rank_and_seed_alone() -> None:
    def noise(step: int, rank: int, seed: int) -> torch.Tensor:
        return batches.draws((4, 2, 3, 3), 1000, 0.5, step, rank, seed).noise

    torch.manual_seed(1)
    first = noise(3, 0, 7)
    torch.manual_seed(2)
    assert torch.equal(first, noise(3, 0, 7))
    others = [noise(4, 0, 7), noise(3, 1, 7), noise(3, 0, 8)]
    assert not any(torch.equal(first, other) for other in others)


def test_draws_have_the_right_law() -> None:
    drawn = batches.draws((4096, 1, 2, 2), 1000, 0.25, 0, 0, 0)
    assert abs(drawn.noise.mean()) < 0.03 and abs(drawn.noise.std() - 1) < 0.03
    assert drawn.timesteps.min() >= 0 and drawn.timesteps.max() <= 999
    assert abs(drawn.timesteps.float().mean() - 499.5) < 15
    assert abs(drawn.dropped.float().mean() - 0.25) < 0.03
    assert not torch.equal(drawn.noise, drawn.resample)
