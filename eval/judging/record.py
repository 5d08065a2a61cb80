"""gate.json: what a gate found of a lot, as a file with a schema."""

from typing import Annotated, Literal

from pydantic import AliasChoices, Field

from eval.measuring.record import ReferencesUsed, StyleReadability
from stylegate.records import Record

RuleLevel = Literal["pass", "warn", "fail"]
Count = Annotated[int, Field(ge=0)]
State = Literal["none", "valid", "stale", "insufficient", "certified"]


class PolicySummary(Record):
    """The policy by which a lot was judged, as gate.json states it: its name, the digest of its content, and the share
    of pictures that may fail.
    """

    name: str
    sha256: str
    """Digest of the policy's content in canonical form (RFC 8785)."""
    max_failed_share: float
    """Share of the pictures, 0 to 1, that may be rejected or in error before the lot fails."""


class VerdictCounts(Record):
    """Pictures by verdict: `in` is the sum of the others."""

    judged: Count = Field(validation_alias=AliasChoices("in", "judged"), serialization_alias="in")
    accept: Count
    review: Count
    reject: Count
    error: Count


class CheckThresholds(Record):
    """Thresholds of a check in the score's own unit; None where there is none."""

    reject_below: float | None
    review_below: float | None
    fail_batch_below: float | None = None
    """Left out where there is none."""


class LotRuleResult(Record):
    """The result of one rule for the lot as a whole: `state` is pass, warn or fail, `says` a sentence for people."""

    measure: str
    value: float | None
    """What was measured, 0 to about 1; None where it cannot be measured."""
    state: RuleLevel
    says: str


NOT_ASKED_FOR = "none was asked for"


class PromiseState(Record):
    """How the promise stands: at most a share of what is exported are rejects, with a confidence."""

    state: State
    says: str
    labels: int = 0
    """Labels that the certificate rests on."""
    size: int = 0
    """Pictures of the certified part of the lot. Where it equals `labels`, all of them were looked at."""
    bound: float | None = None
    """Upper bound on the share of rejects among what is exported, 0 to 1."""
    certificate_sha256: str = ""

    def was_asked_for(self) -> bool:
        """Whether anybody asked for a proof, or the policy does."""
        return self.state != "none" or self.says != NOT_ASKED_FOR

    def promise_state_in_words(self) -> str:
        """The state and what it means, for people."""
        return self.says if self.state == "none" else f"{self.state}: {self.says}"


class SlotCounts(Record):
    """The slots of a planned batch: how many are wanted, how many are filled, which have no attempt left."""

    wanted: int
    accepted: int
    """Slots that have an accepted picture."""
    exhausted: list[int] = Field(default_factory=list)
    """Numbers of the slots whose attempts have all failed: a person decides what becomes of them."""
    stopped_early: Count = 0
    """Attempts that ended early (generate.stop_early_at). They have no picture, so they are not among `in`; left out
    where there are none.
    """


class GateRecord(Record):
    """The content of gate.json: the result of a gate for pipelines."""

    policy: PolicySummary
    observe: bool
    """The verdicts were only observed: the exit code was 0, and export refuses them."""
    counts: VerdictCounts
    thresholds: dict[str, CheckThresholds]
    """By score, of the checks that were asked."""
    calibrated: str | None
    """The score whose thresholds come from labels; None for none."""
    left_out: list[str]
    """Checks that could not be computed here and are optional, with the reason."""
    summary: list[str]
    notes: list[str]
    batch: list[LotRuleResult]
    promise: PromiseState
    scores: str
    """Digest of all that the scores depend on."""
    encoder: str
    encoder_sha256: str
    """Digest of the encoder's weights and preprocessing."""
    references: ReferencesUsed
    readability: StyleReadability | None = None
    """How surely the style can be told from foreign pictures; left out where too few references are given, or none."""
    images: str
    """The folder that was judged, on the machine that judged it."""
    why: dict[str, dict[str, int]]
    """By consequence (reject, review, error, warn): how many pictures each check brought to it."""
    slots: SlotCounts | None = None
    """None for a folder that was not planned."""
    exit_code: int
    fails_batch: bool
    """A picture lies below a line that fails the whole lot."""
    verdicts_sha256: str
    """sha256 of verdicts.jsonl."""
    evidence: dict[str, str | None]
    """sha256 of each file of plan, labels or proofs when the lot was judged; None for a file that was not there."""
    brand: str
    """Name of the brand that the lot was compared with; empty for none."""
    calibration: str | None = None
    """Path of the calibration that was asked for, on the machine that judged; None where no check is calibrated."""
    pool: dict[str, float] = Field(default_factory=dict)
    """The calibrated score, by sha256, of pictures that every other check accepts, where the promise rests on it."""
    learnt: str | None = None
    """sha256 of the file of decided pictures that the policy names; left out where it names none."""
