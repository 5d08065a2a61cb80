"""What people answered in a review: checked, stored, and counted. Several pages may be open on it at once."""

import threading
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from eval.promise import labels
from eval.promise.label import Label, LabelName, Sha256, StoredLabel
from eval.promise.labels import stored_label
from eval.reviewing.queues import Queue
from stylegate.records import Record

# What a reject may be, by the number of its key. They are kept as the reason in words.
REASONS = (
    "off the style",
    "wrong shape or anatomy",
    "blurred or noisy",
    "artefacts",
    "wrong colours",
    "badly cropped",
    "text or watermark",
    "copy of another picture",
    "other",
)
HISTORY = 500  # answers that a page that is opened anew can still undo
KNOWN = "known"  # what a known reject is asked for
ASKED_FOR = {"review": "borderline", "audit": "audit", "calibrate": "calibration"}  # by purpose
Identifier = Annotated[str, Field(pattern="^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
Name = Annotated[
    str, Field(min_length=1, max_length=80, pattern=r"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*$")
]
Words = Annotated[str, Field(max_length=500)]


class Answer(Record):
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


class Answers(Record):
    """The body of a request that saves."""

    review: Sha256
    """The queue that the page was opened for."""
    since: int = Field(ge=0)
    """The number of changes that the page knows of."""
    answers: list[Answer] = Field(max_length=200)
    """In the order in which they were given."""


class Session:
    """The answers to one queue. Every method may be called from several threads at once."""

    def __init__(self, queue: Queue) -> None:
        """Read the answers that are stored. Raises DataError where they cannot be read."""
        self.queue, self.lock = queue, threading.Lock()
        self.changes: list[str] = []  # sha256 of pictures whose state changed, in order
        self.read_again()
        self.decided_before = self.count_decided()

    def read_again(self) -> None:
        """Read the stored answers again: another command may have added some."""
        found = labels.read_stored_labels(self.queue.out, self.queue.purpose)
        terms = self.queue.policy.sha256, self.queue.under
        self.given = {row.id: row for row in found if (row.policy_sha256, row.under) == terms}
        self.standing: dict[str, list[StoredLabel]] = {sha256: [] for sha256 in self.queue.pictures}  # not taken back
        self.measured: dict[str, set[str]] = {}  # reviewer -> the known rejects that were shown to them
        for row in self.given.values():
            if row.decides and row.sha256 in self.standing:
                self.standing[row.sha256].append(row)
            elif row.asked_for == KNOWN and not row.withdrawn:
                self.measured.setdefault(row.who, set()).add(row.sha256)

    def is_decided(self, sha256: str) -> bool:
        """Whether somebody accepted or rejected the picture, for all the checks that it is in review for."""
        rows = self.standing[sha256]
        if self.queue.settled_order and rows:
            return True  # unsure is a reject there
        if not rows or rows[-1].verdict == "unsure":
            return False
        return rows[-1].verdict == "reject" or set(self.queue.checks.get(sha256, [])) <= set(rows[-1].checks)

    def is_open_for(self, who: str, sha256: str) -> bool:
        """Whether the reviewer is still to be asked: nobody decided, and this reviewer did not put it aside."""
        rows = self.standing[sha256]
        return not self.is_decided(sha256) and not (rows and rows[-1].verdict == "unsure" and rows[-1].who == who)

    def labels_in_order(self) -> list[Label]:
        """Of an audit or a calibration: the labels that count, up to the first picture without one."""
        latest = {sha256: rows[-1] for sha256, rows in self.standing.items() if rows}
        return labels.labels_before_gap(self.queue.settled_order, latest)

    def has_ended(self) -> bool:
        """Whether an audit or a calibration has all the labels that it needs; False for pictures in review."""
        return bool(self.queue.settled_order) and self.queue.has_ended(self.labels_in_order())

    def count_decided(self) -> int:
        """The number of pictures that are decided."""
        return sum(map(self.is_decided, self.standing))

    def save(self, given: Answers) -> dict[str, Any]:
        """Store answers in their order. Returns which are stored (also those that were before), which are refused and
        why, and what changed meanwhile. Whatever is returned as saved survives a kill at any moment.

        Raises DataError and SurroundingsError where the store cannot be used; the answers may be sent again.
        """
        with self.lock:
            saved, refused = [], []
            together: list[Answer] = []  # labels in a row are stored in one step
            for answer in given.answers:
                if problem := self._problem(answer, together):
                    refused.append({"id": answer.id, "why": problem})
                elif answer.kind == "label":
                    together.append(answer)
                else:
                    saved += self._store_labels(together)
                    together = []
                    saved.append(self._store_undo(answer))
            saved += self._store_labels(together)
            return {"saved": saved, "refused": refused, **self.progress(given.since)}

    def _problem(self, answer: Answer, before: Sequence[Answer]) -> str:
        """Why an answer cannot be kept; "" if it can. `before` are labels of the same request."""
        label = self.given.get(answer.id)
        if label and (answer.kind, answer.sha256, answer.verdict) != ("label", label.sha256, label.verdict):
            return "its id is of another answer"
        if label:
            return ""
        if answer.sha256 not in self.queue.pictures and not self.queue.is_known_reject(answer.sha256):
            return "this picture is not asked about"
        if answer.asked != self.queue.asked(answer.sha256):
            return "the picture is in review for other reasons by now: load this page again, and look afresh"
        if self.queue.settled_order:
            return self._problem_of_settled_order(answer, len(before))
        if answer.kind == "label":
            return ""
        target = self.given.get(answer.undoes or "") or next((a for a in before if a.id == answer.undoes), None)
        if target is None or target.sha256 != answer.sha256:
            return "there is no such label to take back"
        return "" if target.who == answer.who else "another reviewer gave this label"

    def _problem_of_settled_order(self, answer: Answer, num_before: int) -> str:
        """Why an answer of an audit or a calibration cannot be kept; "" if it can. `num_before` answers stand before it
        in the same request.
        """
        if answer.kind == "undo":
            return "labels stay: whoever could change them after having seen more could choose when to stop"
        if self.standing[answer.sha256]:
            return "the picture has a label by now"
        if self.has_ended():
            return "the labels were enough before: no further one is asked for"
        place = len(self.labels_in_order()) + num_before
        return "" if self.queue.settled_order[place] == answer.sha256 else "another picture comes first"

    def _store_labels(self, answers: Sequence[Answer]) -> list[str]:
        """Store labels, all or none; returns their ids."""
        new = [self._label(answer) for answer in answers if answer.id not in self.given]
        for row in labels.append_labels(self.queue.out, self.queue.purpose, new):
            self.given[row.id] = row
            self.changes.append(row.sha256)
            if row.asked_for == KNOWN:
                self.measured.setdefault(row.who, set()).add(row.sha256)
            else:
                self.standing[row.sha256].append(row)
        return [answer.id for answer in answers]

    def _store_undo(self, answer: Answer) -> str:
        """Take a label back; returns the id of the undo. Taken back twice, it is taken back."""
        target = self.given[answer.undoes or ""]
        labels.append_undo(self.queue.out, "review", target.id, answer.who, answer.id)
        self.given[target.id] = target.model_copy(update={"withdrawn": True})
        if target.asked_for == KNOWN:
            self.measured.get(target.who, set()).discard(target.sha256)
        else:
            rows = self.standing[target.sha256]
            self.standing[target.sha256] = [row for row in rows if row.id != target.id]
        self.changes.append(target.sha256)
        return answer.id

    def _label(self, answer: Answer) -> StoredLabel:
        queue, is_known = self.queue, self.queue.is_known_reject(answer.sha256)
        return stored_label(
            Label(sha256=answer.sha256, verdict=answer.verdict, who=answer.who, why=answer.why),
            queue.policy,
            id=answer.id,
            checks=[] if is_known else queue.checks.get(answer.sha256, []),
            under=queue.under,
            asked_for=KNOWN if is_known else ASKED_FOR[queue.purpose],
            reason=answer.reason,
            shown_traits=answer.shown_traits,
            seconds=answer.seconds,
        )

    def progress(self, since: int) -> dict[str, Any]:
        """The number of changes, of those after the first `since` which pictures are decided now, and whether the
        answers are enough.
        """
        changed = [sha256 for sha256 in dict.fromkeys(self.changes[since:]) if sha256 in self.standing]
        return {
            "changes": len(self.changes),
            "changed": {sha256: self.is_decided(sha256) for sha256 in changed},
            "ended": self.has_ended(),
        }

    def opening(self, who: str) -> dict[str, Any]:
        """All that a page needs for this reviewer. Scores and what others said are not in it: a review is blind."""
        queue = self.queue
        with self.lock:
            self.read_again()
            seen = self.measured.get(who, set())
            decided = self.count_decided()
            order = [
                s for s in queue.order(who) if (s not in seen if s not in self.standing else self.is_open_for(who, s))
            ]
            if queue.settled_order:
                order = [] if self.has_ended() else list(queue.settled_order[len(self.labels_in_order()) :])
            elif all(queue.is_known_reject(sha256) for sha256 in order):
                order = []  # nothing is left to decide: no known reject is shown for itself
            mine = [row for row in self.given.values() if row.who == who and not row.withdrawn]
            asked = [row for row in mine if row.sha256 in self.standing or row.asked_for == KNOWN]
            shown = {picture.sha256: picture for picture in (*queue.pictures.values(), *queue.hidden(who))}
            return {
                "review": queue.sha256,
                "title": queue.title,
                "guideline": queue.policy.guideline,
                "next": queue.next_words,
                "reasons": REASONS,
                "purpose": queue.purpose,
                "order": order,
                "pictures": {
                    sha256: {"file": p.file, "prompt": p.prompt, "traits": p.traits, "asked": queue.asked(sha256)}
                    for sha256, p in shown.items()
                },
                "board": [picture.sha256 for picture in queue.board],
                "traits": queue.trait_values,
                "total": len(order) + decided,
                "history": [
                    {"id": row.id, "sha256": row.sha256, "verdict": row.verdict, "why": row.why}
                    for row in asked[-HISTORY:]
                    if row.sha256 in shown
                ],
                **self.progress(len(self.changes)),
            }

    def verdict_counts(self) -> dict[str, int]:
        """How many pictures are accepted, rejected, and still open."""
        counts = {"accept": 0, "reject": 0, "open": 0}
        for sha256, rows in self.standing.items():
            counts[("reject" if rows[-1].is_reject else "accept") if self.is_decided(sha256) else "open"] += 1
        return counts
