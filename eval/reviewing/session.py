"""What people answered in a review: checked, stored, and counted. Several pages may be open on it at once."""

import threading
import uuid
from collections.abc import Sequence
from typing import Any

from eval.promise import labels, store
from eval.promise.disagreements import ADJUDICATION, disagreement_in_labels
from eval.promise.known_rejects import pictures_with_known_rejects
from eval.promise.label import KNOWN, MEASURES_REVIEWER, PASSING, REPEAT, Label, StoredLabel
from eval.promise.labels import label_with_policy
from eval.reviewing.answers import LabelOrUndo, SaveRequest
from eval.reviewing.queues import ReviewPicture, ReviewQueue, random_order_key
from stylegate import files
from stylegate.errors import DataError

# What a reject may be, by the number of its key. They are kept as the reason in words.
OFF_STYLE = "off the style"
REASONS = (
    OFF_STYLE,
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
REPEAT_SHARE = 0.03  # pictures that a reviewer decided before and is shown again, for each open one
ASKED_FOR = {"review": "borderline", "audit": "audit", "calibrate": "calibration", "rejected": "rejected"}  # by purpose


class ReviewSession:
    """The answers to one queue. Every method may be called from several threads at once."""

    def __init__(self, queue: ReviewQueue) -> None:
        """Read the answers that are stored. Raises DataError where they cannot be read."""
        self.queue, self.lock = queue, threading.Lock()
        self.changes: list[str] = []  # sha256 of pictures whose state changed, in order
        self.reload_stored_answers()
        self.decided_before = self.count_decided()

    def reload_stored_answers(self) -> None:
        """Read the stored answers again: another command may have added some."""
        self.num_rows = store.num_label_store_rows(self.queue.out)
        found = labels.read_stored_labels(self.queue.out, self.queue.purpose)
        terms = self.queue.policy.sha256, self.queue.under
        self.given = {row.id: row for row in found if (row.policy_sha256, row.under) == terms}
        self.standing: dict[str, list[StoredLabel]] = {sha256: [] for sha256 in self.queue.pictures}  # not taken back
        self.measured: dict[str, set[str]] = {}  # reviewer -> what was shown to measure them: known rejects, repeats
        for row in self.given.values():
            if row.is_neither_withdrawn_nor_reviewer_test and row.sha256 in self.standing:
                self.standing[row.sha256].append(row)
            elif row.asked_for in MEASURES_REVIEWER and row.asked_for != PASSING and not row.withdrawn:
                self.measured.setdefault(row.who, set()).add(row.sha256)

    def read_what_others_added(self) -> None:
        """Read the stored answers again if another process has added rows, and tell the pages what changed."""
        if store.num_label_store_rows(self.queue.out) == self.num_rows:
            return
        before = self.standing
        self.reload_stored_answers()
        self.changes += [sha256 for sha256, rows in self.standing.items() if rows != before[sha256]]

    def is_decided(self, sha256: str) -> bool:
        """Whether somebody accepted or rejected the picture, for all the checks that it is in review for."""
        rows = self.standing[sha256]
        if self.queue.fixed_order and rows:
            return True  # unsure is a reject there
        if not rows or rows[-1].verdict == "unsure":
            return False
        return rows[-1].verdict == "reject" or set(self.queue.checks.get(sha256, [])) <= set(rows[-1].checks)

    def is_open_for(self, who: str, sha256: str) -> bool:
        """Whether the reviewer is still to be asked.

        Open is what nobody decided, unless this reviewer put it aside; what gets a second look and had one; and what
        two reviewers disagree about, for a third one; in the queue of disagreements for anybody.
        """
        if self.queue.opinions:
            return self.has_unsettled_disagreement(sha256)
        rows = self.standing[sha256]
        if not self.is_decided(sha256):
            own = [row.verdict for row in rows if row.who == who]
            return own[-1:] != ["unsure"]
        reviewers = {row.who for row in rows}
        if self.queue.fixed_order or who in reviewers:
            return False
        second = len(reviewers) == 1 and self.queue.gets_second_reviewer(sha256)
        return second or self.has_unsettled_disagreement(sha256)

    def has_unsettled_disagreement(self, sha256: str) -> bool:
        """Whether reviewers disagree about the picture, and nobody settled that since, as the gate notes it."""
        found = disagreement_in_labels(self.standing[sha256])
        return found is not None and found.settled is None

    def num_disagreements(self) -> int:
        """The number of pictures about which reviewers disagree and which nobody settled."""
        return sum(map(self.has_unsettled_disagreement, self.standing))

    def labels_before_first_gap(self) -> list[Label]:
        """Of an audit or a calibration: the labels that count, up to the first picture without one."""
        latest = {sha256: rows[-1] for sha256, rows in self.standing.items() if rows}
        return labels.labels_before_first_gap(self.queue.fixed_order, latest)

    def has_enough_labels(self) -> bool:
        """Whether an audit or a calibration has all the labels that it needs; False for pictures in review."""
        return bool(self.queue.fixed_order) and self.queue.has_ended(
            self.labels_before_first_gap(), self.first_answers_to_known_rejects()
        )

    def first_answers_to_known_rejects(self) -> list[Label]:
        """What reviewers said of known rejects, in the order given; the first answer of each to each one counts."""
        found: dict[tuple[str, str], Label] = {}
        for row in self.given.values():
            if row.asked_for == KNOWN and not row.withdrawn:
                found.setdefault((row.who, row.sha256), row)
        return list(found.values())

    def count_decided(self) -> int:
        """The number of pictures that are decided."""
        return sum(map(self.is_decided, self.standing))

    def save_answers(self, given: SaveRequest) -> dict[str, Any]:
        """Store answers in their order. Returns which are stored (also those that were before), which are refused and
        why, and what changed meanwhile. Whatever is returned as saved survives a kill at any moment.

        Raises DataError and SurroundingsError where the store cannot be used; the answers may be sent again.
        """
        with self.lock:
            self.read_what_others_added()
            try:
                saved, refused = self._store_or_refuse_answers(given.answers)
            except DataError:  # another process was faster with a label that an audit or a calibration keeps
                self.read_what_others_added()
                saved, refused = self._store_or_refuse_answers(given.answers)
            who = given.answers[0].who if given.answers else ""
            return {"saved": saved, "refused": refused, **self.changes_since_and_whether_ended(given.since, who)}

    def _store_or_refuse_answers(self, answers: Sequence[LabelOrUndo]) -> tuple[list[str], list[dict[str, str]]]:
        """Check answers one after the other and store those that can be kept; returns the ids that are stored, and the
        id of each that is refused with the reason.
        """
        saved, refused = [], []
        together: list[LabelOrUndo] = []  # labels in a row are stored in one step
        for answer in answers:
            if problem := self._reason_to_refuse_answer(answer, together):
                refused.append({"id": answer.id, "why": problem})
            elif answer.kind == "label":
                together.append(answer)
            else:
                saved += self._store_labels_and_return_ids(together)
                together = []
                saved.append(self._store_undo(answer))
        return saved + self._store_labels_and_return_ids(together), refused

    def _reason_to_refuse_answer(self, answer: LabelOrUndo, before: Sequence[LabelOrUndo]) -> str:
        """Why an answer cannot be kept; "" if it can. `before` are labels of the same request."""
        label = self.given.get(answer.id)
        if label and (answer.kind, answer.sha256, answer.verdict) != ("label", label.sha256, label.verdict):
            return "its id is of another answer"
        if label:
            return ""
        if answer.sha256 not in self.queue.pictures and not self.queue.is_known_reject(answer.sha256):
            return "this picture is not asked about"
        if answer.asked not in (
            self.queue.question_digest(answer.sha256),
            self.queue.question_digest(answer.sha256, REPEAT),
        ):
            return "the picture is in review for other reasons by now: load this page again, and look afresh"
        if self.queue.fixed_order:
            return self._reason_to_refuse_in_fixed_order(answer, before)
        if answer.kind == "label":
            return ""
        target = self.given.get(answer.undoes or "") or next((a for a in before if a.id == answer.undoes), None)
        if target is None or target.sha256 != answer.sha256:
            return "there is no such label to take back"
        return "" if target.who == answer.who else "another reviewer gave this label"

    def _reason_to_refuse_in_fixed_order(self, answer: LabelOrUndo, before: Sequence[LabelOrUndo]) -> str:
        """Why an answer of an audit or a calibration cannot be kept; "" if it can. `before` as above."""
        if answer.kind == "undo":
            return "labels stay: whoever could change them after having seen more could choose when to stop"
        if self.queue.is_known_reject(answer.sha256):
            is_known = answer.sha256 in self.measured.get(answer.who, set())
            return "the picture has a label by now" if is_known or answer.sha256 in {a.sha256 for a in before} else ""
        if self.standing[answer.sha256]:
            return "the picture has a label by now"
        if self.has_enough_labels():
            return "the labels were enough before: no further one is asked for"
        place = len(self.labels_before_first_gap()) + sum(not self.queue.is_known_reject(a.sha256) for a in before)
        following = self.queue.fixed_order[place : place + 1]
        return "" if following == (answer.sha256,) else "another picture comes first"

    def _store_labels_and_return_ids(self, answers: Sequence[LabelOrUndo]) -> list[str]:
        """Store labels, all or none; returns their ids."""
        new = [self._label_from_answer(answer) for answer in answers if answer.id not in self.given]
        stored = labels.append_labels(self.queue.out, self.queue.purpose, new)
        self.num_rows += len(stored)
        for row in stored:
            self.given[row.id] = row
            self.changes.append(row.sha256)
            if row.asked_for in MEASURES_REVIEWER:
                self.measured.setdefault(row.who, set()).add(row.sha256)
            else:
                self.standing[row.sha256].append(row)
        return [answer.id for answer in answers]

    def _store_undo(self, answer: LabelOrUndo) -> str:
        """Take a label back; returns the id of the undo. Taken back twice, it is taken back."""
        target = self.given[answer.undoes or ""]
        stored = labels.append_undo(self.queue.out, "review", target.id, answer.who, answer.id)
        self.num_rows += stored.number > self.num_rows  # not for an undo that was sent twice
        self.given[target.id] = target.model_copy(update={"withdrawn": True})
        if target.asked_for in MEASURES_REVIEWER:
            self.measured.get(target.who, set()).discard(target.sha256)
        else:
            rows = self.standing[target.sha256]
            self.standing[target.sha256] = [row for row in rows if row.id != target.id]
        self.changes.append(target.sha256)
        return answer.id

    def _label_from_answer(self, answer: LabelOrUndo) -> StoredLabel:
        """The label that is stored for an answer of the page."""
        queue = self.queue
        return label_with_policy(
            Label(sha256=answer.sha256, verdict=answer.verdict, who=answer.who, why=answer.why),
            queue.policy,
            id=answer.id,
            checks=queue.checks.get(answer.sha256, []),
            under=queue.under,
            asked_for=self._showing_reason_stored_with_label(answer),
            reason=answer.reason,
            shown_traits=answer.shown_traits,
            seconds=answer.seconds,
        )

    def _showing_reason_stored_with_label(self, answer: LabelOrUndo) -> str:
        """Why the picture was shown to the reviewer, in the word that is stored."""
        if self.queue.is_known_reject(answer.sha256):
            return KNOWN
        is_decided_by_who = any(row.who == answer.who for row in self.standing[answer.sha256])
        if is_decided_by_who and answer.asked == self.queue.question_digest(answer.sha256, REPEAT):
            return REPEAT  # not where the reviewer took the earlier label back on the same page
        if self.queue.opinions:
            return ADJUDICATION
        is_third = self.has_unsettled_disagreement(answer.sha256) and answer.who not in {
            r.who for r in self.standing[answer.sha256]
        }
        return ADJUDICATION if is_third else ASKED_FOR[self.queue.purpose]

    def store_noticed_known_rejects(self, who: str, block: str, seen: dict[str, bool]) -> None:
        """Store for each known reject of a block in stream mode whether the reviewer `who` noticed it: a row in
        labels.sqlite, "reject" if noticed, else "accept", that decides nothing. `seen`: sha256 -> whether noticed.

        `block` is a digest of the block and its passes: the same block is stored once.
        """
        new = [
            label_with_policy(
                Label(sha256=sha256, verdict="reject" if is_seen else "accept", who=who, why=""),
                self.queue.policy,
                id=str(uuid.UUID(files.canonical_sha256([block, who, sha256])[:32])),
                asked_for=PASSING,
            )
            for sha256, is_seen in seen.items()
        ]
        with self.lock:
            labels.append_labels(self.queue.out, self.queue.purpose, new)

    def changes_since_and_whether_ended(self, since: int, who: str) -> dict[str, Any]:
        """As JSON data: `changes`, how many changes there were so far; `changed`, by sha256, whether the reviewer is
        not to be asked any more about a picture that changed after the first `since` of them; and `ended`, whether an
        audit or a calibration has all the labels that it needs.
        """
        changed = [sha256 for sha256 in dict.fromkeys(self.changes[since:]) if sha256 in self.standing]
        return {
            "changes": len(self.changes),
            "changed": {sha256: not self.is_open_for(who, sha256) for sha256 in changed},
            "ended": self.has_enough_labels(),
        }

    def initial_page_data(self, who: str) -> dict[str, Any]:
        """All that a page needs for this reviewer, as JSON data; the stored answers are read again first. Scores and
        what others said are not in it: a review is blind.
        """
        queue = self.queue
        with self.lock:
            self.read_what_others_added()
            seen = self.measured.get(who, set())
            order = [
                s
                for s in queue.order_for_reviewer(who)
                if (s not in seen if s not in self.standing else self.is_open_for(who, s))
            ]
            closed = sum(not self.is_open_for(who, sha256) for sha256 in self.standing)
            repeats = self._repeats_for_self_agreement(who, len(order))
            if queue.fixed_order:
                order = [] if self.has_enough_labels() else self._remaining_fixed_order(who)
            elif all(queue.is_known_reject(sha256) for sha256 in order):
                order, repeats = [], set()  # nothing is left to decide: no picture is shown to measure somebody alone
            else:
                seed = queue.policy.sha256
                order = sorted(
                    [*order, *repeats], key=lambda s: random_order_key(seed, f"{who}{REPEAT * (s in repeats)}", s)
                )
            mine = [row for row in self.given.values() if row.who == who and not row.withdrawn]
            asked = [row for row in mine if row.sha256 in self.standing or row.asked_for == KNOWN]
            shown = {picture.sha256: picture for picture in (*queue.pictures.values(), *queue.known_rejects_for(who))}
            return {
                "review": queue.digest_of_folder_policy_and_purpose,
                "title": queue.title,
                "guideline": queue.policy.guideline,
                "next": queue.next_words,
                "reasons": REASONS,
                "purpose": queue.purpose,
                "order": order,
                "pictures": {
                    sha256: file_name_prompt_and_traits(picture)
                    | {"asked": queue.question_digest(sha256, REPEAT * (sha256 in repeats))}
                    | {"opinions": queue.opinions.get(sha256, [])}
                    for sha256, picture in shown.items()
                },
                "board": [picture.sha256 for picture in queue.board],
                "traits": queue.trait_values,
                "total": len(order) + closed - len(repeats),
                "history": [
                    {"id": row.id, "sha256": row.sha256, "verdict": row.verdict, "why": row.why}
                    for row in asked[-HISTORY:]
                    if row.sha256 in shown
                ],
                **self.changes_since_and_whether_ended(len(self.changes), who),
            }

    def _remaining_fixed_order(self, who: str) -> list[str]:
        """The pictures of an audit or a calibration that are still to come, the reviewer's known rejects among them."""
        given, seen = self.labels_before_first_gap(), self.measured.get(who, set())
        known = [picture.sha256 for picture in self.queue.known_rejects if picture.sha256 not in seen]
        left = list(self.queue.fixed_order[len(given) :])
        return pictures_with_known_rejects(left, len(given), known, self.queue.known_reject_window, who)

    def _repeats_for_self_agreement(self, who: str, num_open: int) -> set[str]:
        """sha256 of pictures that the reviewer decided before, to be shown again: they measure
        agreement with oneself.
        """
        seen = self.measured.get(who, set())
        mine = [s for s, rows in self.standing.items() if s not in seen and rows and rows[-1].who == who]
        closed = [s for s in mine if self.is_decided(s) and not self.is_open_for(who, s)]
        closed.sort(key=lambda sha256: random_order_key(REPEAT, who, sha256))
        is_mixed = not self.queue.fixed_order and not self.queue.opinions
        return set(closed[: round(REPEAT_SHARE * num_open)]) if is_mixed else set()

    def verdict_counts(self) -> dict[str, int]:
        """The number of pictures by "accept", "reject" and "open"."""
        counts = {"accept": 0, "reject": 0, "open": 0}
        for sha256, rows in self.standing.items():
            counts[("reject" if rows[-1].is_reject else "accept") if self.is_decided(sha256) else "open"] += 1
        return counts


def file_name_prompt_and_traits(picture: ReviewPicture) -> dict[str, Any]:
    """File name, prompt and planned traits of a picture, as JSON data for the page."""
    return {"file": picture.file, "prompt": picture.prompt, "traits": picture.traits}
