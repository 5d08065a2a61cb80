"""A bound at every threshold at once, so that a line may be chosen after looking at the labels.

Of N candidates in the order of their score, n are labelled, a simple random sample. Walk from the best down: between
the labelled ones lie unlabelled ones. With P_(k) the place of the k-th labelled one among 1..N, the number of
unlabelled candidates before the (x+1)-th labelled is T_x = P_(x+1) - (x + 1), negative hypergeometric whatever the
scores are. Among rejects alone the same holds with fewer of both, which is never worse. So with c a band that all T_x
stay within together with probability 1 - delta:

    for all thresholds t at once: unlabelled rejects with a score >= t are at most c[labelled rejects >= t]

(Song, Jin and Candes, arXiv 2605.20726; Gazin, Blanchard and Roquain.) The band has the same tail probability at each
x, found by simulation, with 99 % confidence on the side of the promise.
"""

import math
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

DRAWS = 20_000  # simulated samples
SURE = 0.01  # chance that simulation finds the band too narrow


def hypergeometric_tails(size: int, count: int, most: int, places: NDArray) -> NDArray[np.float64]:
    """[places, most]: entry (p, x) is the chance that at most x of the first p candidates are among the labelled ones.

    `count` of `size` candidates are labelled at random (hypergeometric). With p rejects in a lot, it is the p-value of
    finding x rejects among `count` labels.
    """
    return np.stack(list(yield_hypergeometric_tail_matrix_columns(size, count, most, places)), axis=1)


def yield_hypergeometric_tail_matrix_columns(
    size: int, count: int, most: int, places: NDArray
) -> Iterator[NDArray[np.float64]]:
    """Yield the columns of `hypergeometric_tails`, one for each x: all of them can be gigabytes."""
    from scipy.special import gammaln  # scipy takes half a second; a gate without a calibration has no use for it

    def log_binomial_coefficient(n, k):
        """log of n over k, element by element."""
        with np.errstate(invalid="ignore"):
            value = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
        return np.where((k >= 0) & (k <= n), value, -np.inf)

    p = np.asarray(places)
    below = np.zeros(len(p))
    for x in range(most):
        mass = (
            log_binomial_coefficient(p, x)
            + log_binomial_coefficient(size - p, count - x)
            - log_binomial_coefficient(np.array(size), np.array(count))
        )
        below += np.exp(mass)
        yield np.minimum(below, 1.0)


def max_labelled_rejects_covered_by_bounds(alpha: float, count: int) -> int:
    """The largest number of labelled rejects for which a bound is computed: 1.5 alpha `count` + 5, at most `count`.

    It is fixed in advance, because a band that covers more rejects is wider everywhere. Beyond it the bound is 1.
    """
    return min(count, math.ceil(1.5 * alpha * count) + 5)


@lru_cache(maxsize=8)
def unlabelled_reject_bounds(size: int, count: int, delta: float, most: int) -> tuple[int, ...]:
    """For x = 0 ... most - 1 the largest number of unlabelled rejects above a threshold that has x labelled rejects
    above it.

    `count` of `size` candidates are labelled; all bounds hold together with probability 1 - delta. The numbers come
    from a seeded simulation, so they are the same every time.
    """
    from scipy.stats import binom  # as in `yield_hypergeometric_tail_matrix_columns`

    rng, every = np.random.default_rng(0), np.arange(size + 1)
    before = np.empty((most, DRAWS), np.int32)  # candidates before each of the first `most` labelled ones
    for i in range(DRAWS):
        before[:, i] = np.sort(rng.choice(size, count, replace=False))[:most]
    smallest = np.ones(DRAWS)
    for beyond, places in zip(yield_hypergeometric_tail_matrix_columns(size, count, most, every), before, strict=True):
        np.minimum(smallest, beyond[places], out=smallest)  # P(P >= p) = P(P > p - 1)
    outside = int(binom.ppf(SURE, DRAWS, delta))  # samples that may lie outside the band
    level = np.sort(smallest)[outside]  # tails below it are those of the samples outside
    # The smallest c whose excess, P_(x+1) >= c + x + 2, has a tail below the level.
    reach = [
        int(np.argmax(np.append(beyond[x + 1 :], 0.0) < level))
        for x, beyond in enumerate(yield_hypergeometric_tail_matrix_columns(size, count, most, every))
    ]
    return tuple(min(c, size - count) for c in reach)


def reject_share_bounds_at_thresholds(
    scores: NDArray,
    labelled: NDArray[np.bool_],
    rejects: NDArray[np.bool_],
    in_this_lot: NDArray[np.bool_],
    thresholds: NDArray,
    alpha: float,
    delta: float,
) -> NDArray[np.float64]:
    """[t] upper bound on the share of rejects among the pictures exported at each threshold; 1 where no bound is
    known.

    scores, labelled, rejects, in_this_lot are [N] arrays over the candidates; `rejects` is read only where `labelled`.
    A threshold at which nothing is exported has the bound 0.
    Exported are the pictures of this lot (`in_this_lot`) that score at or above the threshold, without the rejects that
    were found.
    """
    if not labelled.any():
        return np.ones(len(thresholds))
    reach = np.array(
        unlabelled_reject_bounds(
            len(scores), int(labelled.sum()), delta, max_labelled_rejects_covered_by_bounds(alpha, int(labelled.sum()))
        )
    )

    def count_at_or_above_thresholds(those: NDArray[np.bool_]) -> NDArray[np.int64]:
        """[t] how many of `those` [N] candidates score at or above each threshold."""
        return those.sum() - np.searchsorted(np.sort(scores[those]), thresholds)

    bad, hidden = count_at_or_above_thresholds(labelled & rejects), count_at_or_above_thresholds(~labelled)
    going = count_at_or_above_thresholds(in_this_lot & ~(labelled & rejects))
    silent = bad >= len(reach)  # nothing is promised there
    slipped = np.minimum(reach[np.where(silent, 0, bad)], hidden)  # no more can hide than are there
    return np.where(going == 0, 0.0, np.where(silent, 1.0, np.minimum(slipped / np.maximum(going, 1), 1.0)))


def accepting_threshold(
    scores: NDArray, labelled: NDArray, rejects: NDArray, in_this_lot: NDArray, alpha: float, delta: float
) -> float | None:
    """The lowest threshold at which the share of rejects among the accepted pictures is, by its upper bound, at most
    alpha; None if there is none.

    A threshold that accepts only labelled pictures does not count, unless all pictures of this lot (`in_this_lot`) are
    labelled.
    """
    unseen = in_this_lot & ~labelled
    going = np.unique(scores[unseen if unseen.any() else in_this_lot & ~rejects])
    if not len(going):
        return None
    holds = reject_share_bounds_at_thresholds(scores, labelled, rejects, in_this_lot, going, alpha, delta) <= alpha
    return float(going[np.argmax(holds)]) if holds.any() else None


def rejecting_threshold(good_scores: NDArray, discard: float) -> float | None:
    """The score below which pictures may be rejected unseen; on average at most `discard` of the good ones are
    lost.

    `good_scores` [n] are the scores of good labelled pictures. None if there are too few. It is split conformal
    prediction: the floor(discard (n + 1))-th smallest score.
    """
    rank = int(np.floor(discard * (len(good_scores) + 1) + 1e-9))
    return float(np.sort(good_scores)[rank - 1]) if rank else None
