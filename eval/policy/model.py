"""What a policy means: lines for scores, checks, rules for the lot, waivers, the promise.

eval/policy/file.py reads it from a file.
"""

import datetime
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue, SkipJsonSchema
from pydantic_core import CoreSchema

from eval.scorers import SCORES
from stylegate.records import Record
from stylegate.words import confidence_percent_rounded_down, percentage_rounded_up

VERDICTS = ("accept", "review", "reject", "error")
MAX_NUMBER = 1e9  # no score comes near it
RELATIVE = ("spreads", "quantile", "copies")
LINES = {  # key of a check -> what falls below it is; a warning and a failed batch are no verdicts of a picture
    "fail_batch_below": "reject",
    "reject_below": "reject",
    "review_below": "review",
    "warn_below": "warn",
}
UNREADABLE = "style-unreadable"
TOO_FEW = "too-few-references"
UNKNOWN_VALUE = "unknown-trait-value"  # a planned value that no picture of the brand shows
MARGIN = "margin"  # how many spreads a picture keeps from the nearest line of the other checks
CALIBRATED = "calibrated"
DECIDED = ("person", "unsure", "rejected-by-another-rule")  # reasons that people gave (eval/judging/verdicts.py)
LONGEST_LADDER = 10  # each attempt spends half as much of delta as the one before
MEASURES = {
    "acceptance": "share of the judged pictures that are accepted",
    "uniqueness": "share of the judged pictures that `distinct` does not speak of",
    "variety": "how much the pictures differ from one another, as a share of how much the references do",
    "quotas": "1 less the largest difference between planned and accepted shares of a trait's values",
}


def is_int_or_float_within_limit(value: Any) -> bool:
    """Whether the value is an int or a float, no bool, between -1e9 and 1e9."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MAX_NUMBER


def require_version_1(version: Any) -> Any:
    """The version if it is 1. Raises ValueError for another."""
    if version is True or version != 1:
        raise ValueError(f"{version!r}; this stylegate reads version 1")
    return version


def require_text_not_blank(text: str) -> str:
    """The text unless it is blank; then ValueError is raised."""
    if not text.strip():
        raise ValueError("must be text")
    return text


def require_sha256(sha256: str) -> str:
    """The text if it is 64 hex digits. Raises ValueError for another."""
    if len(sha256) != 64 or set(sha256) - set("0123456789abcdef"):
        raise ValueError("must be the 64 hex digits of a picture's content")
    return sha256


def require_known_check(name: str) -> str:
    """The name if it is a score or `margin`. Raises ValueError for another."""
    if name not in {*SCORES, MARGIN}:
        raise ValueError(f"no such score; there are {', '.join(SCORES)}, and `{MARGIN}: {CALIBRATED}`")
    return name


def require_known_measure(name: str) -> str:
    """The name if it is one of MEASURES. Raises ValueError for another."""
    if name not in MEASURES:
        raise ValueError(f"no such measure; there are {', '.join(MEASURES)}")
    return name


def require_waivable(check: str) -> str:
    """The name if it is a check that a waiver can lift. Raises ValueError for another."""
    if check == MARGIN:
        raise ValueError(f"{MARGIN!r} cannot be waived: its line comes from labels; decide the picture in review")
    if check not in {*SCORES, UNREADABLE, TOO_FEW, UNKNOWN_VALUE}:
        if check in DECIDED:
            how = "stylegate review or decisions=FILE.csv: a new decision takes the place of the one before"
            raise ValueError(f"{check!r} cannot be waived, since a person said it; decide the picture again ({how})")
        known = ", ".join([*SCORES, UNREADABLE, TOO_FEW, UNKNOWN_VALUE])
        raise ValueError(f"{check!r} is no check that can be waived; these are: {known}")
    return check


def require_strictly_falling(ladder: tuple[float, ...]) -> tuple[float, ...]:
    """The ladder if each share is smaller than the one before. Raises ValueError if not, or if it is
    empty or too long.
    """
    if not 0 < len(ladder) <= LONGEST_LADDER or list(ladder) != sorted(set(ladder), reverse=True):
        raise ValueError(f"must be from 1 to {LONGEST_LADDER} shares of the lot, each smaller than the one before")
    return ladder


def require_not_empty(mapping: Any) -> Any:
    """The mapping if it has an entry. Raises ValueError for anything else."""
    if not isinstance(mapping, dict) or not mapping:
        raise ValueError("at least one is needed, as a mapping of scores to lines")
    return mapping


Number = Annotated[float, Field(gt=-MAX_NUMBER, lt=MAX_NUMBER)]
Share = Annotated[float, Field(ge=0, le=1)]
Text = Annotated[str, AfterValidator(require_text_not_blank)]
LINE_FORMS = "must be a number, {spreads: x}, {quantile: q} or {copies: q}, beside it `foreign: q`, `alone: x`"


class ImmutablePolicyPart(Record):
    """Base class of the parts of a policy, which cannot be changed after reading: verdicts hold the policy's digest."""

    model_config = ConfigDict(frozen=True)


class Threshold(ImmutablePolicyPart):
    """A line that a score is compared with: a number, or one that depends on the references.

    It then depends on their scores (their median plus some spreads, or a quantile), on the scores of altered copies of
    them, or on those of foreign pictures. A file writes an absolute line as a bare number.
    """

    number: SkipJsonSchema[Number | None] = None
    """An absolute line, in the unit of the score."""
    spreads: Number | None = None
    """Relative line: the median of the references plus this many of their spreads."""
    quantile: Share | None = None
    """Relative line: this quantile of the references, from 0 to 1."""
    copies: Share | None = None
    """Relative line: this quantile, from 0 to 1, of the scores of altered copies of the references."""
    foreign: Share | None = None
    """A relative line is at least this quantile, from 0 to 1, of the scores of pictures of other styles.

    Without it, a brand whose references vary widely would have a line that nothing falls below.
    """
    keep: Share | None = None
    """A relative line is at most so high that this share of the references, from 0 to 1, is not below it.

    What some references show is of the brand: icons with a frame, say. `foreign` goes before it.
    """
    alone: Number | None = None
    """The line where there are no references, in the unit of the score."""

    @model_validator(mode="before")
    @classmethod
    def require_one_threshold_form(cls, found: Any) -> Any:
        """The line as a mapping: a bare number is an absolute line, and a mapping must have exactly one relative form.

        Raises ValueError naming the forms for anything else.
        """
        if isinstance(found, Threshold):
            return found
        if is_int_or_float_within_limit(found):
            return {"number": found}
        if not isinstance(found, dict) or len(found.keys() & set(RELATIVE)) != 1 or "number" in found:
            raise ValueError(LINE_FORMS)
        return found

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [{"type": "number"}, handler(core)]}

    @property
    def is_relative_to_references(self) -> bool:
        """Whether the line depends on the references."""
        return self.number is None

    def is_always_below_other_line(self, other: "Threshold") -> bool:
        """Whether this line is below the other one, and never above it, whatever the references are. Lines of different
        forms are not compared, and equal ones are one line.
        """
        if not self.is_relative_to_references or not other.is_relative_to_references:
            return self.number is not None and other.number is not None and self.number < other.number
        form = next(name for name in RELATIVE if getattr(self, name) is not None)
        there = getattr(other, form)
        alone = self.alone is None or (other.alone is not None and self.alone <= other.alone)
        floors = (self.foreign or 0) <= (other.foreign or 0) and self.keep == other.keep
        return there is not None and getattr(self, form) < there and alone and floors

    def numeric_threshold_given_references(
        self,
        score: str,
        references: np.ndarray | None,
        foreign: Sequence[float] = (),
        copies: Sequence[float] = (),
    ) -> float | None:
        """The number that a score is compared with; None if the line is relative to references that are missing.

        `foreign` and `copies` are the percentiles 0, 1, ..., 100 of the scores of foreign pictures and of altered
        copies of the references; empty where none are known.
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
            line = float(np.median(references) + self.spreads * score_spread(score, references))
        if self.keep is not None:
            line = min(line, float(np.quantile(references, 1 - self.keep)))
        if self.foreign is not None and len(foreign):
            line = max(line, float(np.interp(100 * self.foreign, range(len(foreign)), foreign)))
        return line


def score_spread(score: str, references: np.ndarray) -> float:
    """The spread of a score over the references: half the distance from the 16th to the 84th percentile.

    It is at least the score's resolution.
    """
    low, high = np.quantile(references, [0.16, 0.84])
    return max(float(high - low) / 2, SCORES[score].resolution)


def can_score_fall_below(score: str, line: float) -> bool:
    """Whether a picture's score can lie below the line at all: not if the line is at or below the score's range."""
    return line > SCORES[score].lowest


class PolicyCheck(ImmutablePolicyPart):
    """What one score must reach. A score below several lines counts for the worst one."""

    fail_batch_below: Threshold | None = None
    """Below it the picture is rejected and the whole lot fails."""
    reject_below: Threshold | None = None
    """Below it the picture is rejected."""
    review_below: Threshold | None = None
    """Below it a person decides."""
    warn_below: Threshold | None = None
    """Below it the picture is named with a warning. Its verdict stays as it is."""
    optional: bool = False
    """The check is left out, with a note, where nothing was given that the score could be computed from."""
    calibrated: SkipJsonSchema[bool] = False
    """The lines come from people's labels (stylegate calibrate). A file writes `calibrated` in place of the mapping."""

    @model_validator(mode="before")
    @classmethod
    def calibrated_word_as_mapping(cls, found: Any) -> Any:
        """The check as a mapping: the word `calibrated` stands for lines that come from labels. Any other word becomes
        an empty mapping, which the next validator refuses. Raises ValueError for a mapping with the key `calibrated`.
        """
        if found == CALIBRATED:
            return {"calibrated": True}
        if isinstance(found, dict) and CALIBRATED in found:
            raise ValueError(f"write `{CALIBRATED}` in place of the mapping")
        return found if isinstance(found, dict | PolicyCheck) else {}

    @model_validator(mode="after")
    def require_thresholds_or_calibrated(self) -> Self:
        """The check, if it has lines of its own or is calibrated, and not both. Raises ValueError otherwise."""
        if self.calibrated and (self.threshold_by_key() or self.optional):
            raise ValueError(f"`{CALIBRATED}` stands alone: its lines come from labels")
        if not self.calibrated and not self.threshold_by_key():
            raise ValueError("needs reject_below or review_below (or warn_below, fail_batch_below)")
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [{"const": CALIBRATED}, handler(core)]}

    def threshold_by_key(self) -> dict[str, Threshold]:
        """The lines that are given, by key, the worst consequence first."""
        return {name: line for name in LINES if (line := getattr(self, name)) is not None}


class LotRule(ImmutablePolicyPart):
    """A rule for the lot as a whole, on one of MEASURES: each lies between 0 and about 1, higher is better."""

    warn_below: Annotated[float, Field(gt=0, le=2)] | None = None
    """Below it the lot passes with a warning."""
    fail_below: Annotated[float, Field(gt=0, le=2)] | None = None
    """Below it the lot fails."""
    optional: bool = False
    """Without it, a measure that cannot be computed counts as below the line."""

    @model_validator(mode="after")
    def require_lot_rule_threshold(self) -> Self:
        """The rule, if it has a line. Raises ValueError otherwise."""
        if self.warn_below is None and self.fail_below is None:
            raise ValueError("needs warn_below or fail_below")
        return self


class Waiver(ImmutablePolicyPart):
    """A person answers for one picture and one check until a day. After that day the waiver counts for nothing."""

    sha256: Annotated[str, AfterValidator(require_sha256)]
    """sha256 of the picture's bytes, 64 hex digits."""
    check: Annotated[str, AfterValidator(require_waivable)]
    """The check that does not count for this picture."""
    owner: Text
    """The person who answers for it."""
    reason: Text
    """Why the picture is good all the same."""
    expires: datetime.date
    """The last day on which the waiver counts, in UTC: YYYY-MM-DD."""


class Promise(ImmutablePolicyPart):
    """What is proven of the exported pictures: at most `alpha` of them are rejects, with confidence 1 - `delta`."""

    alpha: Annotated[float, Field(ge=0.0005, le=0.5)] = 0.05
    """Largest share of rejects among the exported pictures."""
    delta: Annotated[float, Field(ge=0.0005, le=0.5)] = 0.05
    """Largest probability that the promise is wrong."""
    discard: Annotated[float, Field(ge=0.0005, le=0.5)] = 0.05
    """Largest share of good pictures that a calibrated line may reject unseen."""
    ladder: Annotated[
        tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(strict=False), AfterValidator(require_strictly_falling)
    ] = (
        1.0,
        0.8,
        0.6,
    )
    """Shares of the lot, best pictures first, that a certificate is tried for. Each is smaller than the one before."""
    required: bool = False
    """Nothing is exported without proof. Where a check is calibrated it is always so."""

    def promise_sentence_part(self) -> str:
        """The promise as half a sentence."""
        share, confidence = percentage_rounded_up(self.alpha), confidence_percent_rounded_down(self.delta)
        return f"at most {share} of what is exported are rejects, with {confidence:.1f}% confidence"


class LearntFromDecisions(ImmutablePolicyPart):
    """The pictures that people decided about, which the readers learn from beside the references (stylegate learn)."""

    file: Text
    """The file that `stylegate learn` wrote; a relative path is looked for beside the policy."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """sha256 of the file's bytes. It is part of the policy: evidence for a policy that learnt less does not count."""
    accept_from: Number | None = None
    """From this aesthetic score on, what the scores that the head reads send to review is accepted, with a warning."""
    reject_below: Number | None = None
    """Below this aesthetic score, what those scores send to review is rejected."""


class PolicyFile(ImmutablePolicyPart):
    """A policy file: what a picture and a lot must reach. Every score is higher for better pictures."""

    version: Annotated[Literal[1], BeforeValidator(require_version_1)]
    """The version of this format."""
    guideline: str = ""
    """What a reject is, for the people who label. A calibration is bound to this text."""
    max_failed_share: Share = 0.0
    """Largest share of rejects and errors, from 0 to 1, with which a folder passes."""
    checks: Annotated[
        dict[Annotated[str, AfterValidator(require_known_check)], PolicyCheck], BeforeValidator(require_not_empty)
    ]
    """What each picture must reach, by score. `margin: calibrated` is a check, too."""
    batch: dict[Annotated[str, AfterValidator(require_known_measure)], LotRule] = Field(default_factory=dict)
    """What the lot as a whole must reach, by measure."""
    waivers: list[Waiver] = Field(default_factory=list)
    """Pictures that a person answers for."""
    promise: Promise = Promise()
    """What is proven of the exported pictures."""
    learnt: LearntFromDecisions | None = None
    """Decided pictures that the readers learn from; left out for none."""


class Policy(PolicyFile):
    """A policy in force: the content of its file, with its name and digest."""

    name: str
    """The name of the file without its ending."""
    sha256: str
    """sha256 of the file's content in canonical JSON, without the waivers: comments, order and 0.50 for 0.5 change
    nothing. A waiver speaks of one picture, and stands in its verdict: labels and decisions about others stay valid."""

    @property
    def calibrated_score_name(self) -> str | None:
        """The score whose lines come from labels; None if there is none."""
        return next((score for score, check in self.checks.items() if check.calibrated), None)
