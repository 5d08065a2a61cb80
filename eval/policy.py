"""What a policy means: thresholds against references, checks, rules for the lot, waivers, the promise.

eval/policyfile.py reads it from a file.
"""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from eval.scorers import NEED_REFERENCES, SCORES
from stylegate.errors import DataError

VERDICTS = ("accept", "review", "reject", "error")
MIN_REFERENCES = 8  # relative thresholds need at least this many
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


@dataclass(frozen=True, slots=True)
class Bounds:
    """A check's thresholds as numbers for one comparison."""

    score: str
    reject_below: float | None
    review_below: float | None
    relative: bool  # rests on references
    warn_below: float | None = None
    fail_batch_below: float | None = None
    spread: float = 1.0  # of the references; the score's resolution where there are none

    def lines(self) -> dict[str, float]:
        return {name: line for name in LINES if (line := getattr(self, name)) is not None}

    def distance(self, score: float) -> float | None:
        """Spreads above the highest line that would keep a picture from being accepted; None if there is none.

        A score that is not graded, and is held, keeps no distance either.
        """
        lines = [line for name, line in self.lines().items() if LINES[name] != "warn"]
        if not lines or (score >= max(lines) and not SCORES[self.score].graded):
            return None
        return (score - max(lines)) / self.spread


def resolve(
    policy: Policy,
    columns: set[str],
    references: Mapping[str, np.ndarray],
    given: int,
    foreign: Mapping[str, Sequence[float]],
    copies: Mapping[str, Sequence[float]],
) -> tuple[list[Bounds], list[str], list[str]]:
    """Thresholds as numbers; the optional checks that are left out; checks that lack references although some were.

    `given` is the number of references that were asked for; `foreign` and `copies` hold percentiles by score, as
    in Threshold.value. Raises DataError for a check that cannot be computed and is not optional, and if no check is
    left: a policy that judges nothing would accept everything.
    """
    bounds, left_out, lacking, impossible = [], [], [], []
    for check in policy.checks:
        if check.calibrated:
            if check.score != MARGIN and check.score not in columns:
                impossible.append(f"{check.score}: {SCORES[check.score].does}")
            continue
        own = references.get(check.score)
        enough = own if own is not None and len(own) >= MIN_REFERENCES else None
        known = foreign.get(check.score, ()), copies.get(check.score, ())
        values = {name: line.value(check.score, enough, *known) for name, line in check.lines().items()}
        relative = any(line.relative for line in check.lines().values())
        computed = check.score in columns and any(value is not None for value in values.values())
        if computed:
            width = spread(check.score, enough) if enough is not None else SCORES[check.score].resolution
            settled = {"reject_below": None, "review_below": None} | values
            bounds.append(Bounds(check.score, relative=enough is not None and relative, spread=width, **settled))
        if relative and given and enough is None and (check.score in columns or check.score in NEED_REFERENCES):
            lacking.append(check.score)
        elif not computed and not check.optional:
            impossible.append(f"{check.score}: {SCORES[check.score].does}")
        elif not computed:
            alone = relative and not given and check.score in columns
            why = (
                "its line is relative to references, and none are given" if alone else "not computed for these pictures"
            )
            left_out.append(f"{check.score}: {why}")
    if impossible:
        raise DataError(
            f"policy {policy.name} asks for what cannot be computed here:",
            impossible,
            "give brand= or references= (at least 8), an aesthetic head, or mark the check `optional: true`.",
        )
    if not bounds and not lacking and policy.calibrated is None:
        raise DataError(f"policy {policy.name} has no check that can be computed here", left_out)
    return bounds, left_out, lacking


def explained(policy: Policy) -> list[str]:
    """The effective policy, for people."""
    lines = [f"policy {policy.name}", f"sha256 {policy.sha256}", f"max_failed_share {policy.max_failed_share:g}"]
    lines += [f"guideline {policy.guideline}"] if policy.guideline else []
    for check in policy.checks:
        does = SCORES[check.score].does if check.score in SCORES else "spreads above the nearest line of the others"
        lines.append(f"{check.score}: {does}")
        lines += ["    accept, review and reject by labels (stylegate calibrate)"] if check.calibrated else []
        lines += ["    left out where it cannot be computed"] if check.optional else []
        for name, threshold in check.lines().items():
            lines.append(f"    {name.removesuffix('_below').replace('_', ' ')} below {in_words(threshold)}")
    for rule in policy.batch:
        lines.append(f"batch, {rule.measure}: {MEASURES[rule.measure]}")
        for name, line in (("fail", rule.fail_below), ("warn", rule.warn_below)):
            lines += [f"    {name} below {line:g}"] if line is not None else []
    for waiver in policy.waivers:
        lines.append(f"waived until {waiver.expires}: {waiver.check} of {waiver.sha256[:12]}... by {waiver.owner}")
    needed = policy.promise.required or policy.calibrated
    ladder = ", ".join(f"{share:.0%}" for share in policy.promise.ladder)
    lines.append(f"promise{', without which nothing leaves' if needed else ', if certified'}: {policy.promise.says()}")
    lines.append(
        f"    tried for the best {ladder} of the lot; a calibration may discard {policy.promise.discard:.1%} good ones"
    )
    return lines


def in_words(threshold: Threshold) -> str:
    alone = f" ({threshold.alone:g} without references)" if threshold.alone is not None else ""
    if threshold.number is not None:
        return f"{threshold.number:g}"
    floor = f", at least the {threshold.foreign:.0%} quantile of foreign pictures" if threshold.foreign else ""
    if threshold.copies is not None:
        return f"the {threshold.copies:.0%} quantile of altered copies of the references{alone}"
    if threshold.quantile is not None:
        return f"the references' {threshold.quantile:.0%} quantile{floor}{alone}"
    return f"the references' median {threshold.spreads:+g} spreads{floor}{alone}"
