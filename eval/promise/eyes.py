"""Measured eyes: a promise that does not assume that the reviewer sees every reject.

Known rejects are hidden among the pictures. How many of them were missed bounds the chance mu with which this reviewer
misses a reject (Clopper and Pearson, 1934). The audit speaks of what the reviewer would answer: of D rejects in the lot
the reviewer would reject a number Z, at least as large as a binomial one of D trials with chance 1 - mu. Wrong alarms
only make Z larger. So if Z is certified to be below z, D is below the smallest number whose binomial falls below z with
a chance that is small. Three statements share delta (`DeltaSplit`); the promise is wrong if one of them is.

It rests on this: a reject of the lot is missed with no larger chance than a known one, and independently of the others.
Known rejects must be as hard to see as those that the gate lets through.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval.promise import audit
from eval.promise.audit import Bettor
from eval.promise.label import Label


@dataclass(frozen=True, slots=True)
class DeltaSplit:
    """The share of delta, 0 to 1, that each of the three statements may spend; they add up to 1."""

    audit: float = 0.75  # how many pictures of the lot the reviewer would reject
    miss_rate: float = 0.2  # with what chance the reviewer misses a reject
    chance: float = 0.05  # how many rejects the reviewer then misses in this lot


SHARES = DeltaSplit()


@dataclass(frozen=True, slots=True)
class KnownRejectResultOfReviewer:
    """What known rejects say of a reviewer: how many were shown, and how many of them were accepted."""

    shown: int
    missed: int

    def __post_init__(self) -> None:
        if not 0 <= self.missed <= self.shown:
            raise ValueError(f"{self.missed} of {self.shown} known rejects cannot have been missed")

    def miss_rate_upper_bound(self, delta: float) -> float:
        """Upper bound, 0 to 1, on the chance that the reviewer misses a reject; it holds with confidence 1 - delta.

        It is 1 where no known reject was shown, or every one was missed.
        """
        from scipy.stats import beta  # scipy takes half a second; an audit without measured eyes has no use for it

        return (
            1.0 if self.missed == self.shown else float(beta.ppf(1 - delta, self.missed + 1, self.shown - self.missed))
        )


def least_number_of_rejects_noticed(rejects: int, miss_rate: float, delta: float) -> int:
    """How many of `rejects` true rejects a reviewer notices at least, with probability 1 - `delta`.

    `miss_rate` is the chance, 0 to 1, that the reviewer misses one.
    """
    from scipy.stats import binom  # as above

    return int(binom.ppf(delta, rejects, 1 - miss_rate)) if miss_rate < 1 else 0


def known_reject_results_by_reviewer(
    known: Collection[str], given: Sequence[Label], answers: Sequence[Label]
) -> dict[str, KnownRejectResultOfReviewer]:
    """What known rejects say of each reviewer, in the order of their first labels of the lot, `given`.

    `known` are all known rejects (sha256), `answers` what was said of them. One that a reviewer has not answered yet
    counts as missed, so that the bound holds whenever one looks, and whoever leaves before the end has no better eyes.
    """
    seen: dict[str, set[str]] = {label.who: set() for label in given}
    for answer in answers:
        if answer.is_reject and answer.who in seen and answer.sha256 in known:
            seen[answer.who].add(answer.sha256)
    return {who: KnownRejectResultOfReviewer(len(known), len(known) - len(found)) for who, found in seen.items()}


def bound_on_miss_rate(tests: Collection[KnownRejectResultOfReviewer], delta: float) -> float:
    """Upper bound, 0 to 1, on the chance that any of these reviewers misses a reject, with confidence 1 - delta.

    The first one may spend a half of delta, the second a fourth, and so on. It is 1 without a reviewer.
    """
    spends = audit.delta_per_attempt(delta, len(tests))
    return max((test.miss_rate_upper_bound(spend) for test, spend in zip(tests, spends, strict=True)), default=1.0)


def labels_until_proven_with_misses(
    labels: Sequence[int] | NDArray, size: int, alpha: float, delta: float, miss_rate: float, bettor: Bettor
) -> int | None:
    """The number of these labels after which the promise was proven, for reviewers who miss rejects; None if it was
    not.

    Proven is that at most alpha of what is left of the lot of `size`, when the pictures that the reviewers rejected are
    taken out, are true rejects, with confidence 1 - delta. `miss_rate` is the bound that holds with confidence
    1 - SHARES.miss_rate * delta.
    """
    if miss_rate == 1:
        return None
    return audit.labels_until_proven(
        labels,
        size,
        alpha,
        SHARES.audit * delta,
        bettor,
        lambda rejects: least_number_of_rejects_noticed(rejects, miss_rate, SHARES.chance * delta),
    )


def upper_bound_on_reject_share(
    labels: Sequence[int] | NDArray, size: int, delta: float, miss_rate: float, bettor: Bettor
) -> float:
    """Upper bound, 0 to 1, on the share of true rejects in what may be exported after all these labels; as above."""
    found = int(np.sum(labels))
    most = audit.most_rejects_not_ruled_out(labels, size, SHARES.audit * delta, bettor)
    if miss_rate == 1 or most is None or size == found:
        return 0.0 if size == found else 1.0
    low, high = most, size  # the largest number of rejects that may be answered by so few lies here
    while low < high:
        middle = (low + high + 1) // 2
        if least_number_of_rejects_noticed(middle, miss_rate, SHARES.chance * delta) <= most:
            low = middle
        else:
            high = middle - 1
    return min(1.0, (low - found) / (size - found))
