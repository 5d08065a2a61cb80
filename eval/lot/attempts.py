"""The attempts at the slots of a batch: which slots are to be drawn again, and which have used all their attempts."""

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eval.lot.batch import PlanSlot, attempt_and_slot, attempt_file_name
from eval.lot.early import names_of_stopped_attempts
from stylegate import files
from stylegate.words import counted

FAILED = ("reject", "error")
NAMED = 10  # slots that a message names
DIFFERENCES = 3  # traits seen otherwise than planned that it names of a slot


class FailedAttemptsAndFilledSlots(NamedTuple):
    """What the verdicts so far say about the slots of a batch, by number of the slot."""

    failed: dict[int, int]  # how many attempts have failed: the number of the next attempt
    accepted_or_in_review: set[int]  # slots with a picture that is accepted or stands in review

    def next_attempt_number(self, slot: int) -> int:
        """The number of the attempt that comes next, from 0."""
        return self.failed.get(slot, 0)

    def exhausted_slots(self, max_attempts: int | None) -> list[int]:
        """The slots without an accepted picture and without one in review whose attempts are all used, in order.

        `max_attempts` None means that no limit is known: the list is empty then.
        """
        if max_attempts is None:
            return []
        return sorted(
            slot for slot, n in self.failed.items() if n >= max_attempts and slot not in self.accepted_or_in_review
        )


def failed_attempts_and_filled_slots(
    verdicts: Iterable[tuple[str, str]], stopped: Iterable[str] = ()
) -> FailedAttemptsAndFilledSlots:
    """Which slots are filled, and how many attempts at each have failed: from (file name, verdict) of each picture and
    the file names of `stopped` attempts.

    An attempt that was stopped early has failed, as one whose picture was rejected.
    """
    failed: dict[int, int] = {}
    accepted_or_in_review: set[int] = set()
    for file, verdict in (*verdicts, *((file, "reject") for file in stopped)):
        attempt, slot = attempt_and_slot(file)
        if verdict in FAILED:
            failed[slot] = max(failed.get(slot, 0), attempt + 1)
        else:
            accepted_or_in_review.add(slot)
    return FailedAttemptsAndFilledSlots(failed, accepted_or_in_review)


def read_failed_attempts_and_filled_slots(folder: Path) -> FailedAttemptsAndFilledSlots:
    """`failed_attempts_and_filled_slots` of the batch in a folder, by its verdicts.jsonl and its stopped attempts."""
    rows = files.read_jsonl(folder / "verdicts.jsonl", "file", "verdict")
    return failed_attempts_and_filled_slots(
        ((row["file"], row["verdict"]) for row in rows), names_of_stopped_attempts(folder)
    )


def due_attempts(
    slots: Iterable[PlanSlot], states: FailedAttemptsAndFilledSlots, max_attempts: int
) -> list[tuple[PlanSlot, int]]:
    """(slot, attempt) to draw now, first attempts first: attempt 0, or the one after a failed picture.

    Slots with a picture that is accepted or in review are left out, and so are those that have used `max_attempts`.
    """
    due = [
        (slot, states.next_attempt_number(slot.slot)) for slot in slots if slot.slot not in states.accepted_or_in_review
    ]
    return [(slot, attempt) for slot, attempt in sorted(due, key=lambda d: (d[1], d[0].slot)) if attempt < max_attempts]


def failed_check_counts_by_slot(rows: Iterable[Mapping[str, Any]], stopped: Iterable[str]) -> dict[int, Counter[str]]:
    """For each slot how many of its failed attempts each check failed, by rows of verdicts.jsonl; "stopped early"
    counts the `stopped` attempts.
    """
    found: dict[int, Counter[str]] = {}
    for row in rows:
        if row["verdict"] in FAILED:
            causes = {reason["check"] for reason in row.get("reasons", []) if reason["verdict"] == row["verdict"]}
            found.setdefault(attempt_and_slot(row["file"])[1], Counter()).update(causes)
    for file in stopped:
        found.setdefault(attempt_and_slot(file)[1], Counter())["stopped early"] += 1
    return found


def trait_differences_by_slot(rows: Iterable[Mapping[str, Any]]) -> dict[int, Counter[str]]:
    """For each slot in how many of its failed attempts the gate saw which value otherwise than planned, such as "body:
    yellow planned, orange seen", by rows of verdicts.jsonl.
    """
    found: dict[int, Counter[str]] = {}
    for row in rows:
        if row["verdict"] in FAILED:
            details = (reason.get("detail", "") for reason in row.get("reasons", []) if reason["check"] == "traits")
            seen = {part for detail in details for part in detail.split("; ") if part}
            found.setdefault(attempt_and_slot(row["file"])[1], Counter()).update(seen)
    return found


def traits_seen_wrong_by_slot(
    rows: Iterable[Mapping[str, Any]], slots: Iterable[PlanSlot]
) -> dict[int, dict[str, int]]:
    """For each slot, by trait, in how many of its failed attempts the gate saw another value than the planned one, by
    rows of verdicts.jsonl. Traits of which that is not known are left out.
    """
    differences = trait_differences_by_slot(rows)
    found: dict[int, dict[str, int]] = {}
    for slot in slots:
        for trait, value in slot.traits.items():
            begins = f"{trait}: {value} planned, "
            if count := sum(n for text, n in differences.get(slot.slot, {}).items() if text.startswith(begins)):
                found.setdefault(slot.slot, {})[trait] = count
    return found


def repaired_slot_in_words(before: PlanSlot, after: PlanSlot, wrong: Mapping[str, int]) -> str:
    """Which traits a repair changed in a slot, and why these. `wrong` says by trait in how many of its failed attempts
    the gate saw another value than the planned one.
    """
    changed = {trait: value for trait, value in before.traits.items() if after.traits[trait] != value}
    words = ", ".join(f"{trait}: {value} -> {after.traits[trait]}" for trait, value in changed.items())
    most = max(wrong.values(), default=0)
    worst = [trait for trait, count in wrong.items() if count == most]
    if not worst:
        return f"slot {before.slot}: {words}; the gate saw no trait wrong in its attempts"
    seen = f"{' and '.join(worst)}, seen wrong in {counted(most, 'attempt')}"
    if changed.keys() & set(worst):
        return f"slot {before.slot}: {words}; the gate named {seen}"
    return f"slot {before.slot}: {words}; no exchange of {seen}, keeps the counts and rules"


def failed_checks_in_words(checks: Counter[str], differences: Counter[str]) -> str:
    """The checks that failed the attempts at a slot, with how many each failed, the most first, and which traits were
    seen otherwise than planned: "palette 3, traits 1 (body: yellow planned, orange seen)".
    """
    words = []
    for check, count in checks.most_common():
        seen = [
            text if n == count else f"{text}, {counted(n, 'time')}" for text, n in differences.most_common(DIFFERENCES)
        ]
        words.append(f"{check} {count}" + (f" ({'; '.join(seen)})" if check == "traits" and seen else ""))
    return ", ".join(words)


def advice_on_exhausted_slots(
    exhausted: list[int],
    states: FailedAttemptsAndFilledSlots,
    rows: Sequence[Mapping[str, Any]],
    stopped: Iterable[str],
    name: str,
    traits: str,
) -> list[str]:
    """Lines that say why slots have no picture though all their attempts are used, and what a person can do about them;
    none where there are none. `rows` are those of verdicts.jsonl and `stopped` the attempts that were stopped early;
    `name` is that of the batch and `traits` the argument that it was planned with, "" where that is not known.
    """
    if not exhausted:
        return []
    failed_by, differences = failed_check_counts_by_slot(rows, stopped), trait_differences_by_slot(rows)
    plural = "s have used all their" if len(exhausted) > 1 else " has used all its"
    numbers = ", ".join(map(str, exhausted[:NAMED]))
    more = f" and {len(exhausted) - NAMED} more" if len(exhausted) > NAMED else ""
    why = [
        f"  slot {slot}: failed by {failed_checks_in_words(failed_by[slot], differences.get(slot, Counter()))}"
        for slot in exhausted[:NAMED]
        if failed_by.get(slot)
    ]
    first = attempt_file_name(exhausted[0], states.next_attempt_number(exhausted[0]))
    some = "" if more else f" (repair={','.join(map(str, exhausted))} is the same, or some of them)"
    file = shlex.quote(traits) if traits else "FILE"
    used = max(states.next_attempt_number(slot) for slot in exhausted)
    return [
        f"a person decides: {len(exhausted)} slot{plural} attempts: {numbers}{more}",
        *why,
        "  accept a picture      a waiver in the policy names its sha256, of verdicts.jsonl (docs/policies.md); gate",
        f"  retouch a picture     save it in images/ as the next attempt ({first}); then gate",
        f"  swap values           stylegate plan batch={name} traits={file} repair=all{some}; the fewest others change",
        f"  try more seeds        stylegate generate batch={name} plan.max_attempts={2 * used}: {used} are used",
    ]
