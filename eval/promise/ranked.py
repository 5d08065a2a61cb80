"""An audit that uses the gate's own ranking of a lot, and is valid whatever the ranking is worth.

Weighted sampling without replacement with bets (Shekhar, Xu, Lipton, Liang and Ramdas, "Risk-limiting financial audits
via weighted sampling without replacement", arXiv 2305.06884; active inference: Zrnic and Candes, arXiv 2403.03208).
Of the n pictures left, picture i is the next one with the chance q_i = w_i / sum of w; w is larger near the gate's
lines. A gambler who bets against D rejects has a doubt t_i about each picture, larger there too. With R = D - rejects
found, a label x (1: reject) of picture i multiplies the wealth by

    (t_i + 1 - x) / (q_i (n - R + sum of t))          sums over the pictures left

Its mean over the draw is (sum of t_i + 1 - x_i) / (n - R + sum of t) = 1, whichever R of the pictures are the rejects:
a martingale for every lot with D rejects, so Ville's inequality holds as for audit.betting_wealth, which is the case
of equal w and t. Where the ranking is good, a reject lies where one was in doubt and costs little; a worthless or an
adversarial ranking costs labels, never the promise. Wealth grows with D, so what is ruled out is an upper part.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, model_validator

from eval.promise.audit import Bettor
from stylegate.records import Record

FEWEST_REJECTS, WORTH = 5, 0.6  # earlier labels with so many rejects, and a smaller area, call the ranking worthless
SAME = 0.5  # share of a lot with one and the same margin from which on the ranking tells nothing
Amount = Annotated[float, Field(ge=0, le=100)]


class BettingStrategyParameters(Record):
    """One of the bettors whose wealths are added up: its share of the wealth at the start, and what makes its doubt
    about each picture.
    """

    model_config = ConfigDict(frozen=True)
    share: Annotated[float, Field(gt=0, le=1)]
    """Share of the wealth at the start, between 0 and 1."""
    least_doubt: Amount
    """Doubt about a picture without risk."""
    doubt: Amount
    """What is added to it, times the relative risk of the picture."""


class RankedAuditDesign(Record):
    """How the ranking of a lot by margin settles the order of an audit and the bets on its labels.

    The risk of a picture, relative to the mean, is taken to be its rank (1: best, 0: worst) to the power of
    -`steepness`. The defaults were found on the margins of the miniature's accepted pictures
    (tests/bench/fewer_labels.py), such that a worthless ranking costs at most a tenth more labels. The promise holds
    with any numbers that are fixed before the first label.
    """

    model_config = ConfigDict(frozen=True)
    steepness: Annotated[float, Field(ge=0, le=2)]
    """How fast the risk falls with the rank; 0: it does not."""
    floor: Annotated[float, Field(gt=0, le=1)]
    """Share of the lot, worst pictures first, in which the risk does not rise any more."""
    draw: Amount
    """Chances to be drawn next are as 1 + `draw` times the relative risk."""
    gamblers: Annotated[tuple[BettingStrategyParameters, ...], Field(min_length=1, max_length=10, strict=False)]
    """Their shares add up to 1."""

    @model_validator(mode="after")
    def require_shares_that_sum_to_1(self) -> Self:
        if abs(sum(gambler.share for gambler in self.gamblers) - 1) > 1e-9:
            raise ValueError("the shares of the gamblers must add up to 1")
        return self


BY_MARGIN = RankedAuditDesign(
    steepness=0.5,
    floor=0.01,
    draw=0.1,
    gamblers=(
        BettingStrategyParameters(share=0.7, least_doubt=0.04, doubt=0.15),
        BettingStrategyParameters(share=0.3, least_doubt=0.3, doubt=0.05),
    ),
)


@lru_cache(maxsize=64)
def relative_reject_risk_by_rank(size: int, steepness: float, floor: float) -> NDArray[np.float64]:
    """[size] how much more likely than the mean each picture of a lot is taken to be a reject, best margin first."""
    ranks = (np.arange(size)[::-1] + 0.5) / size
    risks = np.maximum(ranks, floor) ** -steepness
    return risks / risks.mean()


def audit_sampling_weights_by_rank(size: int, design: RankedAuditDesign) -> NDArray[np.float64]:
    """[size] the weight with which each picture of a lot is drawn for labelling, best margin first; above 0."""
    return 1 + design.draw * relative_reject_risk_by_rank(size, design.steepness, design.floor)


def weighted_order(pictures: Sequence[str], seed: str, design: RankedAuditDesign) -> list[str]:
    """The pictures (sha256, best margin first) in a random order in which those of large weight tend to come early.

    Picture i comes at the time -log(u_i) / w_i, with u_i in (0, 1) from the SHA-256 of the seed and its digest. Of the
    pictures left, i is then the next one with the chance w_i / sum of w. Anyone computes the same order.
    """
    times = {}
    for sha256, weight in zip(pictures, audit_sampling_weights_by_rank(len(pictures), design).tolist(), strict=True):
        draw = int(hashlib.sha256(f"{seed}:{sha256}".encode()).hexdigest()[:13], 16)  # 52 bits: exact in a float
        times[sha256] = -math.log((draw + 0.5) / 16**13) / weight
    return sorted(pictures, key=lambda sha256: (times[sha256], sha256))


def make_weighted_betting_wealth_function(
    places: Sequence[int], weights: NDArray[np.float64], design: RankedAuditDesign
) -> Bettor:
    """Who bets on labels in a weighted order, as the formula above says; the sum over the gamblers of the design.

    `places` are the ranks of the labelled pictures, 0 for the best margin; `weights` [size] are those of the draw. The
    wealth is infinite once the number of rejects has become impossible.
    """
    where = np.asarray(places, int)
    drawn = weights[where] / remaining_sums_before_each_label(weights, where)

    def ranked_betting_wealth(labels: NDArray, size: int, rejects: int) -> NDArray[np.float64]:
        """[n] the wealth after each label (1: reject, 0: not), betting against `rejects` rejects in `size` pictures."""
        left, remaining = size - np.arange(len(labels)), rejects - (np.cumsum(labels) - labels)
        found = np.zeros(len(labels))
        for gambler in design.gamblers:
            doubts = gambler.least_doubt + gambler.doubt * relative_reject_risk_by_rank(
                size, design.steepness, design.floor
            )
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                whole = left - remaining + remaining_sums_before_each_label(doubts, where)
                found += gambler.share * np.exp(np.log((doubts[where] + 1 - labels) / (drawn * whole)).cumsum())
        impossible = (remaining - labels > left - 1) | (remaining < labels)
        return np.where(np.maximum.accumulate(impossible), np.inf, found)

    return ranked_betting_wealth


def remaining_sums_before_each_label(values: NDArray[np.float64], places: NDArray[np.int64]) -> NDArray[np.float64]:
    """[n] the sum of `values` over the pictures that are left before each label."""
    taken = values[places]
    return values.sum() - (np.cumsum(taken) - taken)


def choose_audit_design(
    margins: Sequence[float | None], known: Sequence[tuple[float, bool]]
) -> tuple[RankedAuditDesign | None, str]:
    """(design of an audit, or None for an order in which all pictures are equally likely; why, in words).

    `margins` are those of the lot's pictures; `known` are the margin and whether it is a reject of each picture with an
    earlier label of a random sample. The ranking is used unless it tells nothing: most margins are the same, or earlier
    labels with five rejects or more have an area under the ROC curve below .6.
    """
    if Counter(margins).most_common(1)[0][1] >= SAME * len(margins):
        return None, "every picture is as likely to come next: the margins do not tell the pictures apart"
    bad, good = (np.array([m for m, is_reject in known if is_reject is which]) for which in (True, False))
    if len(bad) >= FEWEST_REJECTS and len(good) >= FEWEST_REJECTS:
        area = float((good[:, None] > bad).mean() + 0.5 * (good[:, None] == bad).mean())
        evidence = (
            f"{len(bad)} rejects in {len(known)} earlier labels: area {area:.2f} under the ROC curve of the margin"
        )
        if area < WORTH:
            return None, f"every picture is as likely to come next: the ranking is worth too little ({evidence})"
        return BY_MARGIN, f"pictures near a line come a little earlier, and a reject costs less there ({evidence})"
    says = "pictures near a line come a little earlier, and a reject costs less there"
    return BY_MARGIN, f"{says}; that the ranking is good is not assumed"
