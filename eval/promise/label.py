"""What one person says about one picture, and what it was asked for."""

from typing import Annotated, Literal

from pydantic import Field

from stylegate.records import Record

Purpose = Literal["review", "calibrate", "audit", "traits", "rejected"]
LabelName = Literal["accept", "reject", "unsure"]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Uuid = Annotated[str, Field(pattern="^([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})?$")]
KNOWN, REPEAT, PASSING = "known", "repeat", "passing"
"""Why a picture is shown to measure a reviewer: a known reject, a picture once more, a known reject in a stream."""
MEASURES_REVIEWER = (KNOWN, REPEAT, PASSING)
"""What a picture was asked for where its label measures the reviewer: it decides nothing about the picture."""


class Label(Record):
    """What one person says about one picture."""

    sha256: Sha256
    """sha256 of the picture's bytes, 64 hex digits; in an audit of traits the digest of picture, trait and value."""
    verdict: LabelName
    """Whether the person would export the picture. `unsure` is a reject, but in review it asks for another look."""
    who: str = Field(min_length=1)
    """Who answers for it."""
    why: str
    """A reason in the person's own words; may be empty."""

    @property
    def is_reject(self) -> bool:
        """Whether the picture counts as a reject: the label is "reject" or "unsure", since nobody exports what is in
        doubt.
        """
        return self.verdict != "accept"

    def reviewer_and_reason_in_words(self) -> str:
        """Who gave the label and why, as text."""
        return f"{self.who}: {self.why}" if self.why else self.who


class StoredLabel(Label):
    """A label as labels.sqlite keeps it: with the policy under which it was given, and what it was asked for."""

    policy_sha256: str = ""
    """sha256 of the policy under which it was given. Empty in files of older versions: it counts for nothing."""
    guideline: str = ""
    """The guideline of that policy: what a reject is."""
    checks: list[str] = Field(default_factory=list)
    """Of a decision: the checks for which the picture stood in review, sorted. It settles these and no others."""
    under: str = ""
    """Of a calibration: digest of the pool of pictures and of the policy."""
    asked_for: str = ""
    """Why this picture was shown to this person: borderline, audit, known, repeat and so on; empty where nothing says
    it. A label of a picture that was shown to measure the person (known, repeat, passing) decides nothing about it.
    """
    reason: str = ""
    """Of a reject: the name of the reason that the person chose from the list; empty for none."""
    shown_traits: dict[str, str] = Field(default_factory=dict)
    """Traits that the picture does not show as planned: name of the trait -> the value that it shows instead."""
    seconds: float | None = Field(default=None, ge=0)
    """Time from the picture's being shown to the answer, in seconds; null where it was not measured."""
    id: Uuid = ""
    """The label's own name, a UUID that whoever asks chooses; the same id given again is the same label. Empty before
    the label is stored, for one that the store chooses.
    """
    time: str = ""
    """When it was stored, in UTC, as 2027-01-31T12:00:00.000Z; empty before that."""
    withdrawn: bool = False
    """The person took the label back later; it counts for nothing."""

    @property
    def is_neither_withdrawn_nor_reviewer_test(self) -> bool:
        """Whether the label says something about the picture: it was not taken back, and was not asked for to measure
        the person.
        """
        return not self.withdrawn and self.asked_for not in MEASURES_REVIEWER

    def content_without_id_and_time(self) -> dict[str, object]:
        """What was said, as JSON data: without the label's id, time and whether it was taken back."""
        return {
            name: value
            for name, value in self.json_data_without_defaults().items()
            if name not in ("id", "time", "withdrawn")
        }


class Undo(Record):
    """A row of labels.sqlite that takes an earlier row back: a label, or another undo."""

    takes_back: Uuid
    """id of the row that counts no more."""
    who: str = Field(min_length=1)
    """Who took it back."""
