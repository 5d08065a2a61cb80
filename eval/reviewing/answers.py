"""What a page of a review sends: the answers of one reviewer, as they are read and checked."""

from typing import Annotated, Literal

from pydantic import Field

from eval.promise.label import LabelName, Sha256
from stylegate.records import Record

Identifier = Annotated[str, Field(pattern="^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
Name = Annotated[
    str, Field(min_length=1, max_length=80, pattern=r"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*$")
]
Words = Annotated[str, Field(max_length=500)]


class LabelOrUndo(Record):
    """What a page sends: a label of a picture, or the undoing of one. Sent again with the same id, it counts once."""

    id: Identifier
    """A UUID, made by the page."""
    kind: Literal["label", "undo"]
    who: Name
    """The reviewer's name."""
    sha256: Sha256
    """The picture."""
    asked: Sha256
    """What was asked about it, as the page was told."""
    verdict: LabelName = "accept"
    """Of a label: what the reviewer says."""
    why: Words = ""
    """Of a label: the reason in words; may be empty."""
    reason: Words = ""
    """Of a reject: the reason of the list that was chosen; may be empty."""
    shown_traits: dict[Words, Words] = Field(default_factory=dict, max_length=20)
    """Of a reject: name of a planned trait -> what the picture shows instead."""
    seconds: float | None = Field(default=None, ge=0, le=86400)
    """Of a label: time from the picture's being shown to the answer, in seconds."""
    undoes: Identifier | None = None
    """Of an undo: the id of the label that is taken back."""


class SaveRequest(Record):
    """The body of a request that saves."""

    review: Sha256
    """The queue that the page was opened for."""
    since: int = Field(ge=0)
    """The number of changes that the page knows of."""
    answers: list[LabelOrUndo] = Field(max_length=200)
    """In the order in which they were given."""
