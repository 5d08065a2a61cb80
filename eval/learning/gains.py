"""Whether the readers are better by what they learned: areas of the same decisions before and after."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eval.judging.judge import VerdictsBeforePeople
from eval.judging.verdicts import margin_or_minus_infinity
from eval.measuring.decided import DecidedPictures
from eval.scorers.aesthetic import MIN_LABELS
from stylegate.words import counted

BOOTSTRAPS, INTERVAL = 1000, (0.025, 0.975)
LOWEST = -1e9  # spreads: a margin that cannot be said comes last


class DifferenceInterval(NamedTuple):
    """A difference, after less before, and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


class RankingGainByLearning(NamedTuple):
    """What one reader gains. Areas are under the ROC curve of accepted above rejected pictures; 0.5 is chance."""

    reader: str  # what is compared, in words
    good: int  # pictures that people accepted
    bad: int  # pictures that they rejected, for this reader's reason
    before: float = 0.0
    after: float = 0.0
    change: DifferenceInterval = DifferenceInterval(0.0, 0.0, 0.0)
    yields: tuple[float, float] | None = None  # share that may be accepted unseen at the promise, before and after
    yield_change: DifferenceInterval | None = None

    @property
    def has_enough_pictures_to_compare(self) -> bool:
        """Whether there are enough pictures of both kinds to compare."""
        return min(self.good, self.bad) >= MIN_LABELS

    @property
    def is_measurably_better(self) -> bool:
        """Whether the reader is measurably better: the interval of the change of area lies above 0."""
        return self.has_enough_pictures_to_compare and self.change.low > 0

    def ranking_gain_in_words(self) -> str:
        """The gain in words: the areas before and after with the 95 % interval of their difference, or that there are
        too few labels.
        """
        of = f"{self.reader}, {counted(self.good, 'accepted picture')} and {self.bad} rejected"
        if not self.has_enough_pictures_to_compare:
            return f"{of}: at least {MIN_LABELS} of each are needed to say whether it is better"
        low, high = f"{self.change.low:+.3f}", f"{self.change.high:+.3f}"
        text = (
            f"{of}: area {self.before:.3f} before, {self.after:.3f} after ({self.change.value:+.3f}, {low} to {high})"
        )
        if self.yields and (found := self.yield_change):
            text += f"; accepted unseen at the same promise {self.yields[0]:.0%} before, {self.yields[1]:.0%} after"
            text += f" ({found.value:+.0%}, {found.low:+.0%} to {found.high:+.0%})"
        return text


def ranking_gains_by_learning(
    decided: DecidedPictures, before: VerdictsBeforePeople, after: VerdictsBeforePeople, alpha: float
) -> list[RankingGainByLearning]:
    """How much three rankings of the lot's decided pictures improve by learning, in area under the ROC curve: the
    learnt aesthetic head against the margin of the gate; the reader of the brand, and the readers of traits, against
    themselves before.

    `alpha` is the promised share of rejects.
    """
    pictures = {picture.sha256: picture for picture in decided.record.pictures}
    rows = [
        (pictures[old["sha256"]], verdict, old, new)
        for verdict, old, new in zip(before.verdicts, before.scores.rows, after.scores.rows, strict=True)
        if old["sha256"] in pictures
    ]
    told = [picture for picture, *_ in rows]
    good = np.array([picture.accepted for picture in told], bool)
    off = np.array([picture.off_style for picture in told], bool)
    wrong = np.array([not picture.accepted and bool(picture.traits) for picture in told], bool)
    margins = np.array([max(margin_or_minus_infinity(verdict), LOWEST) for _, verdict, _, _ in rows])
    old, new = [row for _, _, row, _ in rows], [row for *_, row in rows]
    return [
        ranking_gain_of_new_scores("the gate's ranking", good, margins, values_of_score(new, "aesthetic"), alpha),
        ranking_gain_of_one_classifier(
            "the reader of the brand", good, off, values_of_score(old, "brand"), values_of_score(new, "brand")
        ),
        ranking_gain_of_one_classifier(
            "the readers of traits", good, wrong, values_of_score(old, "traits"), values_of_score(new, "traits")
        ),
    ]


def values_of_score(rows: Sequence[Mapping[str, Any]], name: str) -> NDArray[np.float64]:
    """[n] the values of one score in rows of scores.parquet; NaN where it was not computed."""
    return np.array([row.get(name) for row in rows], np.float64)


def ranking_gain_of_one_classifier(
    name: str, good: NDArray[np.bool_], bad: NDArray[np.bool_], before: NDArray[np.float64], after: NDArray[np.float64]
) -> RankingGainByLearning:
    """What one reader gains on accepted pictures (`good`) and on those that were rejected for what it reads (`bad`).
    All arrays are [n]; the scores `before` and `after` learning may be NaN.
    """
    which = (good | bad) & np.isfinite(before) & np.isfinite(after)
    return ranking_gain_of_new_scores(name, good[which], before[which], after[which])


def ranking_gain_of_new_scores(
    name: str,
    good: NDArray[np.bool_],
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    alpha: float | None = None,
) -> RankingGainByLearning:
    """What the scores `after` gain on the scores `before`: areas, and with `alpha` yields; intervals by a bootstrap of
    the pictures. All arrays are [n]; `good` are accepted pictures.

    With fewer than MIN_LABELS pictures of a kind only their numbers are returned.
    """
    counts = int(good.sum()), int((~good).sum())
    if min(counts) < MIN_LABELS:
        return RankingGainByLearning(name, *counts)
    random = np.random.default_rng(0)
    kinds = np.flatnonzero(good), np.flatnonzero(~good)
    drawn = [np.concatenate([random.choice(kind, len(kind)) for kind in kinds]) for _ in range(BOOTSTRAPS)]

    def difference_with_bootstrap_interval(
        measure: Callable[[NDArray[np.float64], NDArray[np.bool_]], float],
    ) -> DifferenceInterval:
        found = [measure(after[some], good[some]) - measure(before[some], good[some]) for some in drawn]
        low, high = np.quantile(found, INTERVAL)
        return DifferenceInterval(measure(after, good) - measure(before, good), float(low), float(high))

    gain = RankingGainByLearning(
        name,
        *counts,
        area_under_roc_curve(before, good),
        area_under_roc_curve(after, good),
        difference_with_bootstrap_interval(area_under_roc_curve),
    )
    if alpha is None:
        return gain

    def accepted_share_at_alpha(scores: NDArray[np.float64], good: NDArray[np.bool_]) -> float:
        return largest_share_that_can_be_accepted(scores, good, alpha)

    return gain._replace(
        yields=(accepted_share_at_alpha(before, good), accepted_share_at_alpha(after, good)),
        yield_change=difference_with_bootstrap_interval(accepted_share_at_alpha),
    )


def area_under_roc_curve(scores: NDArray[np.float64], good: NDArray[np.bool_]) -> float:
    """The area under the ROC curve of `scores` [n], where those of `good` pictures should be higher; an equal pair
    counts half.
    """
    own, others = scores[good], np.sort(scores[~good])
    twice = np.searchsorted(others, own, "left") + np.searchsorted(others, own, "right")
    return float(twice.mean() / (2 * len(others)))


def largest_share_that_can_be_accepted(scores: NDArray[np.float64], good: NDArray[np.bool_], alpha: float) -> float:
    """The largest share of the pictures that can be accepted, best scores first, while at most the share `alpha` of
    these is not good; 0 if there is none. Pictures with equal scores are accepted together.
    """
    order = np.argsort(-scores, kind="stable")
    bad = np.cumsum(~good[order])
    count = np.arange(1, len(order) + 1)
    last_of_equal = np.append(np.diff(scores[order]) != 0, True)
    fits = np.flatnonzero((bad <= alpha * count) & last_of_equal)
    return float((fits[-1] + 1) / len(order)) if len(fits) else 0.0


def lowest_acceptable_score(scores: Sequence[float], good: Sequence[bool], alpha: float) -> float | None:
    """The lowest score such that of the pictures with this score or more at most the share `alpha` is not good; None if
    there is none.
    """
    values, truth = np.asarray(scores, float), np.asarray(good, bool)
    accepted = round(largest_share_that_can_be_accepted(values, truth, alpha) * len(values))
    return float(np.sort(values)[-accepted]) if accepted else None
