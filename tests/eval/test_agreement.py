"""Agreement: against scikit-learn, krippendorff, published tables; where those packages give nan, raise or say 1."""

import warnings

import krippendorff
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import cohen_kappa_score

from eval.promise import agreement
from eval.promise.agreement import MISSING, agreement_coefficients_by_name, measure_agreement

# Gwet, "Handbook of Inter-Rater Reliability", 4th ed. 2014: 12 subjects, 4 raters (chapter 2); 0 is missing here.
# Its AC1 .77544 and alpha .74342 are also what irrCAC 0.4.4 computes (run once; it needs numpy < 2).
GWET = (
    np.array(
        [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 0],
            [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 3],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
        ]
    ).T
    - 1
)


def of_two(table: list[list[int]]) -> NDArray[np.int64]:
    """[pictures, 2] the ratings of a table of counts."""
    return np.array([(a, b) for a, row in enumerate(table) for b, count in enumerate(row) for _ in range(count)])


def random_ratings(seed: int, reviewers: int, missing: float) -> NDArray[np.int64]:
    """Ratings in three categories of 40 pictures, some of them agreed on."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, 40)
    found = np.where(rng.random((40, reviewers)) < 0.7, truth[:, None], rng.integers(0, 3, (40, reviewers)))
    found[rng.random(found.shape) < missing] = MISSING
    return found


@pytest.mark.parametrize("seed", range(4))
def test_kappa_is_scikit_learns_and_alpha_krippendorffs(seed: int) -> None:
    ratings = random_ratings(seed, 2, 0.0)
    found = agreement_coefficients_by_name(ratings, 3)
    assert found["kappa"] == pytest.approx(cohen_kappa_score(*ratings.T))
    some = random_ratings(seed, 4, 0.4)
    theirs = krippendorff.alpha(np.where(some == MISSING, np.nan, some).T, level_of_measurement="nominal")
    assert agreement_coefficients_by_name(some, 3)["alpha"] == pytest.approx(float(theirs))


def test_published_tables() -> None:
    found = agreement_coefficients_by_name(GWET, 5)
    assert found["ac1"] == pytest.approx(0.77544, abs=1e-5) and found["alpha"] == pytest.approx(0.74342, abs=1e-5)
    assert found["raw"] == pytest.approx(0.81818, abs=1e-5)
    # Gwet, "Kappa statistic is not satisfactory for assessing the extent of agreement between raters", 2002: 125
    # subjects; kappa is below chance where 94 % agree.
    found = agreement_coefficients_by_name(of_two([[118, 5], [2, 0]]), 2)
    assert found["raw"] == pytest.approx(0.944) and found["ac1"] == pytest.approx(0.9408, abs=1e-4)
    assert found["kappa"] == pytest.approx(-0.0234, abs=1e-4) and found["alpha"] == pytest.approx(-0.02469, abs=1e-5)


def test_missing_labels_are_irrcacs() -> None:
    """Values of irrCAC 0.4.4, run once; a picture with one label counts for the chance of AC1 alone."""
    ratings = np.array([[0, 0, -1], [0, 1, 0], [1, 1, 1], [-1, 0, 1], [0, -1, -1], [1, 1, -1]])
    found = agreement_coefficients_by_name(ratings, 2)
    assert found["ac1"] == pytest.approx(0.33538, abs=1e-5) and found["alpha"] == pytest.approx(0.37143, abs=1e-5)
    assert found["raw"] == pytest.approx(0.66667, abs=1e-5)


def test_one_sided_labels_say_nothing_beyond_chance() -> None:
    """krippendorff raises or gives nan, scikit-learn gives nan, irrCAC says 1; AC1 alone is defined."""
    same = np.zeros((10, 2), int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.isnan(cohen_kappa_score(*same.T))
        with pytest.raises(ValueError, match="more than one value"):
            krippendorff.alpha(same.T, level_of_measurement="nominal")
    assert agreement_coefficients_by_name(same, 2) == {"raw": 1.0, "kappa": None, "alpha": None, "ac1": 1.0}
    everything = {who: {f"{i}": "accept" for i in range(10)} for who in ("anna", "ben")}
    found = measure_agreement(everything)
    assert found.kappa == found.alpha == agreement.EstimateWithInterval(None, -1.0, 1.0)
    lowest = 0.025**0.1  # the exact binomial limit: ten agreements are no certainty
    assert found.raw.low == pytest.approx(lowest) and found.ac1.low == pytest.approx(lowest) and found.ac1.high == 1


def test_perfect_agreement_on_both_kinds_is_no_certainty() -> None:
    given = {f"{i}": "accept" if i % 2 else "reject" for i in range(20)}
    found = measure_agreement({"anna": given, "ben": given})
    expected = 2 * 0.025**0.05 - 1
    for coefficient in (found.kappa, found.alpha, found.ac1):
        assert coefficient.value == 1 and coefficient.low == pytest.approx(expected) and coefficient.high == 1


def test_too_little_to_compare() -> None:
    for labels in ({}, {"anna": {"a": "accept"}}, {"anna": {"a": "accept"}, "ben": {"b": "accept"}}):
        found = measure_agreement(labels)
        assert (
            found.pictures == 0
            and found.raw == agreement.EstimateWithInterval(None, 0.0, 1.0)
            and found.ac1.value is None
        )
    with pytest.raises(ValueError, match="perhaps: the labels are accept, reject"):
        measure_agreement({"anna": {"a": "perhaps"}})
    with pytest.raises(ValueError, match="two categories"):
        measure_agreement({}, ("accept",))


def test_intervals_cover_and_know_what_they_do_not_know() -> None:
    """95 % intervals of 60 simulated pairs who each mistake a tenth; one reject in 40 is nearly nothing."""
    rng, covered = np.random.default_rng(3), 0
    truth_long = rng.random(200_000) < 0.3
    seen = truth_long[:, None] ^ (rng.random((200_000, 2)) < 0.1)
    true_kappa = agreement_coefficients_by_name(seen.astype(int), 2)["kappa"]
    assert true_kappa is not None
    for i in range(60):
        rows = seen[i * 150 : (i + 1) * 150]
        labels = {
            who: {f"{j}": "reject" if bad else "accept" for j, bad in enumerate(rows[:, k])}
            for k, who in enumerate(("anna", "ben"))
        }
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(agreement, "REPLICATES", 200)
            found = measure_agreement(labels, seed=i).kappa
        covered += found.low <= true_kappa <= found.high
    assert covered >= 52, covered
    ones = {who: {f"{j}": "reject" if j == 0 else "accept" for j in range(40)} for who in ("anna", "ben")}
    ones["ben"]["1"] = "reject"
    found = measure_agreement(ones)
    assert found.kappa.value is not None and found.kappa.low == -1 and found.kappa.high == 1
