"""Batches, buckets, wordings and noise: pure functions of (seed, step, rank), nothing left out."""

import math
from collections import Counter

import numpy as np
import pytest
import torch

from stylegate import buckets
from stylegate.buckets import PictureAtTrainingSize
from train import batches


def test_every_pass_holds_every_view_once() -> None:
    """A batch size that does not divide the set drops nothing: 7 views, batch 3, 14 steps are 6 passes."""
    seen = [i for step in range(14) for i in batches.view_indices_of_batch([list(range(7))], 3, step, 0, 1, seed=5)]
    assert Counter(seen) == dict.fromkeys(range(7), 6)
    assert seen[:7] != seen[7:14] and sorted(seen[:7]) == list(range(7))


def test_ranks_share_what_one_process_would_see() -> None:
    one = [list(range(10))]
    alone = [i for step in range(6) for i in batches.view_indices_of_batch(one, 4, step, 0, 1, seed=1)]
    two = [
        i
        for step in range(6)
        for rank in range(2)
        for i in batches.view_indices_of_batch(one, 2, step, rank, 2, seed=1)
    ]
    assert alone == two


def test_passes_of_a_step_take_up_where_the_last_one_ended() -> None:
    one = [list(range(10))]
    large = [i for step in range(6) for i in batches.view_indices_of_batch(one, 4, step, 0, 1, seed=1)]
    assert large == [i for part in range(12) for i in batches.view_indices_of_batch(one, 2, part, 0, 1, seed=1)]


@pytest.mark.parametrize(("batch", "world"), [(1, 1), (3, 2), (8, 1)])
def test_buckets_leave_nothing_out_and_never_mix(batch: int, world: int) -> None:
    """Over a round every view is seen as often as the others, however badly batches divide the buckets."""
    buckets = [[0, 1, 2, 3, 4], [5], [6, 7, 8]]
    seen: Counter[int] = Counter()
    for step in range(9 * 2):
        drawn = [batches.view_indices_of_batch(buckets, batch, step, rank, world, seed=3) for rank in range(world)]
        together = [i for part in drawn for i in part]
        assert sum(set(together) <= set(bucket) for bucket in buckets) == 1
        seen.update(together)
    assert seen == dict.fromkeys(range(9), 2 * batch * world)


def slow_sides(aspect: float, resolution: int, multiple: int) -> tuple[int, int]:
    """Every pair of sides that leaves no room for a larger height, looked at one by one."""
    best = None
    for width in range(multiple, 4 * resolution, multiple):
        for height in range(multiple, 4 * resolution, multiple):
            fits = width * height <= resolution**2 < width * (height + multiple)
            if fits and 0.5 <= width / height <= 2:
                away = abs(math.log(aspect) - math.log(width / height))
                if best is None or (round(away, 9), -width * height) < best[0]:
                    best = (round(away, 9), -width * height), (width, height)
    assert best
    return best[1]


@pytest.mark.parametrize(("resolution", "multiple"), [(64, 16), (512, 64), (1024, 64)])
def test_sides_are_the_nearest_shape_that_fits(resolution: int, multiple: int) -> None:
    for aspect in (0.1, 0.4, 0.66, 0.75, 1.0, 1.1, 4 / 3, 16 / 9, 2.5):
        width, height = buckets.bucket_width_and_height(aspect, resolution, multiple)
        slow = slow_sides(aspect, resolution, multiple)
        assert abs(math.log(aspect * height / width)) == pytest.approx(abs(math.log(aspect * slow[1] / slow[0])))
        assert width * height == slow[0] * slow[1] and width % multiple == height % multiple == 0


def test_larger_resolutions_take_only_what_need_not_be_enlarged() -> None:
    sizes = [(2000, 1000), (1024, 1024), (300, 300)]
    found = buckets.training_sizes_of_pictures(sizes, [1024, 512], 64, buckets=True)
    assert found == [
        PictureAtTrainingSize(0, *buckets.bucket_width_and_height(2.0, 512, 64)),
        PictureAtTrainingSize(0, *buckets.bucket_width_and_height(2.0, 1024, 64)),
        PictureAtTrainingSize(1, 512, 512),
        PictureAtTrainingSize(1, 1024, 1024),
        PictureAtTrainingSize(2, 512, 512),
    ]
    assert buckets.training_sizes_of_pictures(sizes, [512], 64, buckets=False) == [
        PictureAtTrainingSize(i, 512, 512) for i in range(3)
    ]
    assert buckets.view_indices_by_bucket(found) == [[2, 4], [0], [3], [1]]


def test_wordings_keep_the_first_part_and_every_word() -> None:
    text = "a cat, red hat, blue sky, round eyes, smile"
    assert (
        batches.shuffled_caption(text, 0, 1) == text
        and batches.shuffled_caption("a cat, red hat", 3, 1) == "a cat, red hat"
    )
    found = {batches.shuffled_caption(text, n, 1) for n in range(8)}
    assert len(found) > 4
    for wording in found:
        assert wording.startswith("a cat, ") and sorted(wording.split(", ")) == sorted(text.split(", "))


def test_draws_depend_on_step_rank_and_seed_alone() -> None:
    def noise(step: int, rank: int, seed: int) -> torch.Tensor:
        return batches.noise_and_level_draws((4, 2, 3, 3), 0.5, step, rank, seed).noise

    torch.manual_seed(1)
    first = noise(3, 0, 7)
    torch.manual_seed(2)
    assert torch.equal(first, noise(3, 0, 7))
    others = [noise(4, 0, 7), noise(3, 1, 7), noise(3, 0, 8)]
    assert not any(torch.equal(first, other) for other in others)


def test_draws_have_the_right_law() -> None:
    drawn = batches.noise_and_level_draws((4096, 1, 2, 2), 0.25, 0, 0, 0)
    assert abs(drawn.noise.mean()) < 0.03 and abs(drawn.noise.std() - 1) < 0.03
    assert drawn.constant.shape == (4096, 1, 1, 1) and abs(drawn.normal.std() - 1) < 0.04
    assert np.histogram(drawn.uniform.numpy(), 4, (0, 1))[0] == pytest.approx(1024, abs=110)
    assert abs(drawn.dropped.float().mean() - 0.25) < 0.03
    assert not torch.equal(drawn.noise, drawn.resample)
