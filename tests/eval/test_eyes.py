"""Measured eyes: the bound on the miss rate, the share that a reviewer misses, and promises by those who miss some."""

import math

import numpy as np
import pytest
from scipy.stats import binom

from eval.promise import audit, eyes
from eval.promise.eyes import KnownRejectTest
from tests.bench import measured_eyes as bench


def test_the_bound_is_the_exact_binomial_one() -> None:
    """At the bound, so few misses or fewer have the chance delta."""
    for shown, missed in ((30, 0), (100, 7), (200, 60)):
        assert binom.cdf(missed, shown, KnownRejectTest(shown, missed).miss_rate(0.01)) == pytest.approx(0.01)
    assert KnownRejectTest(0, 0).miss_rate(0.01) == KnownRejectTest(5, 5).miss_rate(0.01) == 1.0
    assert KnownRejectTest(459, 0).miss_rate(0.01) < 0.01 < KnownRejectTest(450, 0).miss_rate(0.01), (
        "log(.01) / log(.99)"
    )
    with pytest.raises(ValueError, match="6 of 5 known rejects"):
        KnownRejectTest(5, 6)


def test_a_reviewer_rejects_fewer_than_that_with_a_small_chance_only() -> None:
    for rejects, miss in ((0, 0.3), (4, 0.5), (351, 0.1), (351, 0.0)):
        fewest = eyes.fewest_rejects_noticed(rejects, miss, 0.0025)
        assert binom.cdf(fewest - 1, rejects, 1 - miss) <= 0.0025
        assert fewest == rejects or binom.cdf(fewest, rejects, 1 - miss) > 0.0025
    assert eyes.fewest_rejects_noticed(351, 1.0, 0.0025) == 0


def test_shares_of_delta_add_up_to_it() -> None:
    assert eyes.SHARES.audit + eyes.SHARES.miss_rate + eyes.SHARES.chance == pytest.approx(1)


def test_eyes_cost_labels_and_unknown_ones_prove_nothing() -> None:
    clean = np.zeros(800, int)
    trusted = audit.labels_until_proven(clean, 7000, 0.05, 0.05)
    needed = [
        eyes.labels_until_proven_with_misses(clean, 7000, 0.05, 0.05, KnownRejectTest(100, missed))
        for missed in (0, 10, 30)
    ]
    counts = [count for count in (trusted, *needed) if count is not None]
    assert len(counts) == 4 and counts == sorted(set(counts)), "each costs more than the one before"
    assert eyes.labels_until_proven_with_misses(clean, 7000, 0.05, 0.05, KnownRejectTest(0, 0)) is None
    few = np.zeros(60, int)
    assert eyes.labels_until_proven_with_misses(few, 60, 0.05, 0.05, KnownRejectTest(30, 15)) is None, (
        "all were looked at, by eyes that miss half"
    )


@pytest.mark.parametrize(("miss", "broken"), [(0.1, 0.02), (0.3, 0.1)])
def test_promises_are_kept_by_reviewers_who_miss_rejects(miss: float, broken: float) -> None:
    """150 lots of 1,000 at 5.5 %; who takes the reviewer's word breaks more."""
    ignored, measured = bench.broken_promises(55, miss, 100, 150, np.random.default_rng(8), 1000)
    assert measured <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 150) and ignored > broken, ignored


def test_wrong_alarms_break_no_promise() -> None:
    """A reviewer who rejects a hundredth of the good pictures too: those leave, and the rejects left count."""
    rng, broken = np.random.default_rng(9), 0
    for _ in range(150):
        truth, said = bench.answers(55, 0.1, rng, 1000)
        said = said | (rng.random(len(said)) < 0.01)
        needed = eyes.labels_until_proven_with_misses(
            said, 1000, 0.05, 0.05, KnownRejectTest(100, int(rng.binomial(100, 0.1)))
        )
        if needed is not None:
            left = 55 - int((truth * said)[:needed].sum())
            broken += left / (1000 - int(said[:needed].sum())) > 0.05
    assert broken / 150 <= 0.05
