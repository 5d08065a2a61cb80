"""The promise's mathematics: against enumeration, scipy, MAPIE and simulated lots."""

import itertools
import math

import numpy as np
import pytest
from mapie.risk_control.methods import compute_hoeffding_bentkus_p_value
from scipy.stats import binom, hypergeom

from eval.promise import audit, envelope
from tests.bench import promise as bench

ALPHA, DELTA = 0.05, 0.05


def slow_wealth(labels: list[int], size: int, rejects: int, alpha: float) -> list[float]:
    """The definition, label by label."""
    kept = [1.0] * len(audit.bet_sizes(alpha))
    seen, path = 0, []
    for i, x in enumerate(labels):
        chance = (rejects - seen) / (size - i)
        kept = [w * (1 + bet * (chance - x)) for w, bet in zip(kept, audit.bet_sizes(alpha), strict=True)]
        seen += x
        path.append(sum(kept) / len(kept))
    return path


def test_wealth_is_its_definition() -> None:
    rng = np.random.default_rng(0)
    for rejects in (3, 7, 20):
        labels = np.zeros(60, int)
        labels[rng.choice(60, 5, replace=False)] = 1
        some = labels[:30].tolist()
        found = audit.betting_wealth(some, 60, rejects, ALPHA)
        seen = np.cumsum(some)
        possible = (seen <= rejects) & (rejects - seen <= 60 - np.arange(1, 31))
        np.testing.assert_allclose(found[possible], np.array(slow_wealth(some, 60, rejects, ALPHA))[possible])
        assert np.isinf(found[~possible]).all()


@pytest.mark.parametrize("rejects", [0, 1, 2, 4])
def test_wealth_is_a_martingale_over_all_orders(rejects: int) -> None:
    """The mean over every order of a lot of 6 is 1 after each label: what Ville's inequality needs."""
    orders = set(itertools.permutations([1] * rejects + [0] * (6 - rejects)))
    paths = np.array([audit.betting_wealth(order, 6, rejects, 0.3)[:5] for order in orders])
    np.testing.assert_allclose(paths.mean(0), 1.0)


def test_wealth_grows_with_the_rejects_that_are_doubted() -> None:
    """The bound rests on it: what is ruled out is an upper part."""
    labels = [0, 0, 1, 0, 0, 0, 0, 1, 0, 0]
    paths = np.array([audit.betting_wealth(labels, 100, rejects, ALPHA) for rejects in range(2, 92)])
    assert (np.diff(paths, axis=0) > 0).all()


def test_the_bound_is_the_largest_number_that_is_not_ruled_out() -> None:
    rng = np.random.default_rng(1)
    for size, count, rejects in ((40, 25, 3), (300, 120, 9), (1000, 400, 11)):
        labels = np.zeros(size, int)
        labels[rng.choice(size, rejects, replace=False)] = 1
        labels = labels[:count]
        found = int(labels.sum())
        standing = [
            d
            for d in range(found, size - count + found + 1)
            if max(audit.betting_wealth(labels, size, d, ALPHA)) < 1 / DELTA
        ]
        assert audit.upper_bound_on_reject_share_after_removal(labels, size, ALPHA, DELTA) == (
            max(standing) - found
        ) / (size - found)


def test_the_bound_and_the_proof_agree() -> None:
    rng = np.random.default_rng(2)
    for rejects in (0, 5, 20):
        labels = bench.lots(1, rejects, rng, 1000)[0]
        needed = audit.labels_until_proven(labels, 1000, ALPHA, DELTA)
        assert needed is not None
        assert audit.upper_bound_on_reject_share_after_removal(labels[:needed], 1000, ALPHA, DELTA) <= ALPHA
        assert audit.upper_bound_on_reject_share_after_removal(labels[: needed - 1], 1000, ALPHA, DELTA) > ALPHA


def test_who_labels_a_whole_lot_always_has_a_certificate() -> None:
    """Rejects that are found leave: of six in ten, four good ones are exported."""
    labels = [1, 0, 1, 1, 0, 1, 1, 0, 1, 0]
    assert audit.labels_until_proven(labels, 10, ALPHA, DELTA) is not None
    assert audit.upper_bound_on_reject_share_after_removal(labels, 10, ALPHA, DELTA) == 0
    assert audit.labels_until_proven([1] * 10, 10, ALPHA, DELTA) == 10, "nothing is left to be wrong about"
    assert (
        audit.labels_until_proven([], 10, ALPHA, DELTA) is None
        and audit.upper_bound_on_reject_share_after_removal([], 10, ALPHA, DELTA) == 1
    )


def test_ten_labels_prove_nothing_of_a_large_lot() -> None:
    assert audit.labels_until_proven([0] * 10, 1000, ALPHA, DELTA) is None
    assert audit.upper_bound_on_reject_share_after_removal([0] * 10, 1000, ALPHA, DELTA) > 0.2


def test_shares_of_delta_never_exceed_it() -> None:
    assert (
        audit.delta_per_attempt(0.05, 3) == [0.025, 0.0125, 0.00625] and sum(audit.delta_per_attempt(0.05, 40)) <= 0.05
    )
    assert audit.num_rejects_allowed_in_lot(0.29, 100) == 29 and audit.num_rejects_allowed_in_lot(0.05, 19) == 0


def test_certificates_keep_their_promise_on_simulated_lots() -> None:
    """500 lots each where most would go wrong; the naive way beside it breaks its word about half the time."""
    rng = np.random.default_rng(3)
    allowed = DELTA + 2 * math.sqrt(DELTA * (1 - DELTA) / 500)
    assert bench.broken_certificates(500, round(0.055 * 1000), rng, 1000) <= allowed
    assert bench.broken_certificates(500, 4, rng, 60) <= allowed
    assert bench.broken_ladders(200, rng, 1000) <= DELTA + 2 * math.sqrt(DELTA * (1 - DELTA) / 200)


def test_lines_keep_their_promise_on_simulated_batches() -> None:
    found = bench.broken_lines(150, True, np.random.default_rng(4))
    assert found["envelope"][0] <= DELTA + 2 * math.sqrt(DELTA * (1 - DELTA) / 150)
    assert found["naive"][0] > 0.3 and found["envelope"][1] > 0.1, found


# The envelope.


def test_tails_are_hypergeometric() -> None:
    found = envelope.hypergeometric_tails(50, 12, 12, np.arange(51))
    expected = hypergeom.cdf(np.arange(12)[None, :], 50, np.arange(51)[:, None], 12)
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_p_values_are_mapies_where_they_overlap() -> None:
    """Of a very large lot, x rejects among n labels: the binomial p-value that MAPIE computes for one threshold."""
    size, count = 10_000_000, 200
    ours = envelope.hypergeometric_tails(size, count, 8, np.array([ALPHA * size]))[0]
    np.testing.assert_allclose(ours, binom.cdf(np.arange(8), count, ALPHA), rtol=2e-3)
    rates = np.maximum(np.arange(8) / count - 1e-12, 0)  # MAPIE takes ceil(n rate): 200 x .035 would count as 8
    theirs = compute_hoeffding_bentkus_p_value(rates, count, ALPHA, binary=True).ravel()
    np.testing.assert_allclose(ours, theirs, rtol=2e-3)


def test_the_band_is_the_papers() -> None:
    """shared figures of a band with 5 % at 200 and 400 of 10,000; ours errs on the side of the promise, by little."""
    for count, theirs in ((200, (228, 326, 411, 490, 564)), (400, (117, 167, 209, 249, 286))):
        ours = envelope.unlabelled_reject_bounds(10_000, count, 0.05, 20 if count == 200 else 35)[:5]
        assert all(abs(a / b - 1) < 0.06 for a, b in zip(ours, theirs, strict=True)), ours


def test_the_band_holds_everywhere_at_once() -> None:
    reach = np.array(envelope.unlabelled_reject_bounds(400, 60, 0.1, 10))
    rng, outside = np.random.default_rng(5), 0
    for _ in range(2000):
        places = np.sort(rng.choice(400, 60, replace=False))[:10] + 1
        outside += bool((places - np.arange(1, 11) > reach).any())
    assert 0.05 < outside / 2000 <= 0.1 + 2 * math.sqrt(0.1 * 0.9 / 2000)


def test_bounds_are_a_slow_count() -> None:
    rng = np.random.default_rng(6)
    scores = np.round(rng.normal(size=300), 1)  # with ties
    labelled, rejects, ours = rng.random(300) < 0.3, rng.random(300) < 0.1, rng.random(300) < 0.8
    thresholds = np.linspace(-3, 3, 25)
    found = envelope.reject_share_bounds_at_thresholds(scores, labelled, rejects, ours, thresholds, 0.1, 0.05)
    reach = envelope.unlabelled_reject_bounds(
        300, int(labelled.sum()), 0.05, envelope.max_labelled_rejects_covered_by_bounds(0.1, int(labelled.sum()))
    )
    for t, value in zip(thresholds, found, strict=True):
        above = [i for i in range(300) if scores[i] >= t]
        bad = sum(labelled[i] and rejects[i] for i in above)
        going = sum(ours[i] and not (labelled[i] and rejects[i]) for i in above)
        hidden = sum(not labelled[i] for i in above)
        expected = 0.0 if not going else 1.0 if bad >= len(reach) else min(1.0, min(reach[bad], hidden) / going)
        assert value == pytest.approx(expected), t


def test_no_labels_no_bound() -> None:
    everyone, nobody = np.ones(5, bool), np.zeros(5, bool)
    assert (
        envelope.reject_share_bounds_at_thresholds(
            np.arange(5.0), nobody, nobody, everyone, np.array([0.0]), 0.05, 0.05
        )
        == 1
    ).all()
    assert envelope.accepting_threshold(np.arange(5.0), nobody, nobody, everyone, 0.05, 0.05) is None
    assert envelope.accepting_threshold(np.arange(5.0), everyone, nobody, everyone, 0.05, 0.05) == 0.0, (
        "all are known to be good"
    )
    assert envelope.accepting_threshold(np.arange(5.0), everyone, everyone, everyone, 0.05, 0.05) is None, (
        "nothing is left"
    )


def test_few_good_ones_are_thrown_away() -> None:
    """Split conformal: on average no more than the share, over many draws."""
    rng = np.random.default_rng(7)
    assert envelope.rejecting_threshold(rng.normal(size=18), 0.05) is None, "too few to say"
    lost = []
    for _ in range(3000):
        good = rng.normal(size=60)
        line = envelope.rejecting_threshold(good, 0.05)
        assert line is not None
        lost.append((rng.normal(size=50) < line).mean())
    assert 0.04 < np.mean(lost) <= 0.052
