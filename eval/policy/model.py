"""What a policy means: thresholds against references, checks, rules for the lot, waivers, the promise.

eval/policy/file.py reads it from a file.
"""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from eval.scorers import SCORES

VERDICTS = ("accept", "review", "reject", "error")
MAX_NUMBER = 1e9  # no score comes near it
RELATIVE = ("spreads", "quantile", "copies")
LINES = {  # key of a check -> what falls below it is; a warning and a failed batch are no verdicts of a picture
    "fail_batch_below": "reject",
    "reject_below": "reject",
    "review_below": "review",
    "warn_below": "warn",
}
OUTSIDE = "encoder-out-of-domain"
TOO_FEW = "too-few-references"
MARGIN = "margin"  # how many spreads a picture keeps from the nearest line of the other checks
CALIBRATED = "calibrated"
MEASURES = {
    "acceptance": "share of the judged pictures that are accepted",
    "uniqueness": "share of the judged pictures that `distinct` does not speak of",
    "variety": "effective number of different pictures, as a share of the references'",
    "quotas": "1 less the largest difference between planned and accepted shares of a trait's values",
}


@dataclass(frozen=True, slots=True)
class Threshold:
    """A number, or relative to the references; `alone` stands in where there are none.

    `foreign` lifts a relative threshold to that quantile of what pictures of other styles score, where some are known:
    a brand whose references vary widely would else have a line that nothing falls below. `copies` is a quantile of what
    altered copies of the references score.
    """

    number: float | None = None
    spreads: float | None = None
    quantile: float | None = None
    copies: float | None = None
    foreign: float | None = None
    alone: float | None = None

    @property
    def relative(self) -> bool:
        return self.number is None

    def value(
        self,
        score: str,
        references: np.ndarray | None,
        foreign: Sequence[float] = (),
        copies: Sequence[float] = (),
    ) -> float | None:
        """The number that a score is held against; None if it cannot be said (no references and no `alone`).

        `foreign` and `copies` are the percentiles 0, 1, ..., 100 of what foreign pictures, and altered copies of the
        references, score; empty where none are known.
        """
        if self.number is not None:
            return self.number
        if references is None or (self.copies is not None and not len(copies)):
            return self.alone
        if self.copies is not None:
            line = float(np.interp(100 * self.copies, range(len(copies)), copies))
        elif self.quantile is not None:
            line = float(np.quantile(references, self.quantile))
        else:
            assert self.spreads is not None
            line = float(np.median(references) + self.spreads * spread(score, references))
        if self.foreign is not None and len(foreign):
            line = max(line, float(np.interp(100 * self.foreign, range(len(foreign)), foreign)))
        return line


def spread(score: str, references: np.ndarray) -> float:
    """Half the distance from the 16th to the 84th percentile; never below the score's resolution."""
    low, high = np.quantile(references, [0.16, 0.84])
    return max(float(high - low) / 2, SCORES[score].resolution)


@dataclass(frozen=True, slots=True)
class Check:
    score: str
    reject_below: Threshold | None = None
    review_below: Threshold | None = None
    warn_below: Threshold | None = None
    fail_batch_below: Threshold | None = None
    optional: bool = False  # left out, and said, where nothing was given that it could be computed from
    calibrated: bool = False  # its lines come from labels

    def lines(self) -> dict[str, Threshold]:
        return {name: line for name in LINES if (line := getattr(self, name)) is not None}


@dataclass(frozen=True, slots=True)
class Rule:
    """Of the lot as a whole: one of MEASURES, each between 0 and about 1, higher is better."""

    measure: str
    warn_below: float | None
    fail_below: float | None
    optional: bool  # else what cannot be measured fails


@dataclass(frozen=True, slots=True)
class Waiver:
    """Somebody answers for one picture and one check, until a day; then it counts for nothing again."""

    sha256: str
    check: str
    owner: str
    reason: str
    expires: datetime.date  # the last day on which it counts, UTC


@dataclass(frozen=True, slots=True)
class Promise:
    """At most `alpha` of what is exported are rejects, with confidence 1 - `delta`."""

    alpha: float = 0.05
    delta: float = 0.05
    discard: float = 0.05  # a calibrated line below which pictures are rejected unseen throws away no more good ones
    ladder: tuple[float, ...] = (1.0, 0.8, 0.6)  # shares of the lot, best first, that a certificate is tried for
    required: bool = False  # nothing leaves without proof; always so where a check is calibrated

    def says(self) -> str:
        return f"at most {self.alpha:.1%} of what is exported are rejects, with {1 - self.delta:.1%} confidence"


@dataclass(frozen=True, slots=True)
class Policy:
    name: str
    sha256: str  # of the content in canonical form
    max_failed_share: float
    checks: list[Check]
    guideline: str = ""
    batch: list[Rule] = field(default_factory=list)
    waivers: list[Waiver] = field(default_factory=list)
    promise: Promise = Promise()

    @property
    def calibrated(self) -> str | None:
        """The score whose lines come from labels."""
        return next((check.score for check in self.checks if check.calibrated), None)
