"""What `generate` draws now: everything that is due, or round after round where hopeless pictures are stopped early."""

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from eval.lot import early
from eval.lot.attempts import FailedAttemptsAndFilledSlots, due_attempts, failed_attempts_and_filled_slots
from eval.lot.batch import (
    RECORD,
    PlanSlot,
    attempt_and_slot,
    names_of_attempts_with_picture,
    read_existing_batch_record,
    read_plan,
)
from eval.lot.early import EarlyStopRound
from stylegate import files

VERDICTS = "verdicts.jsonl"
Attempt = tuple[PlanSlot, int]


class BatchProgress(NamedTuple):
    """The progress of a batch by its verdicts so far: which slots are filled, and what is still to be drawn."""

    states: FailedAttemptsAndFilledSlots
    due: list[Attempt]  # to draw now
    exhausted: list[int]  # slots whose attempts are all used
    judged: set[str]  # file names of the pictures that have a verdict
    accepted: int  # pictures that are accepted
    filled: int  # slots that have an accepted picture
    wanted: int  # slots that must have one
    stopped: int  # attempts that were stopped early, without a picture

    def progress_in_words(self, drawn: int, seconds_each: float, price_per_hour: float | None) -> str:
        """The state in a few words, after `drawn` attempts of this round at `seconds_each`; a price is of an hour.

        Slots that failed before are the hard ones: while any is open, no time is named for all of them.
        """
        if not self.judged:
            return "not judged yet"
        filled = f"{self.filled} of {self.wanted} slots filled"
        early_ends = f", {self.stopped} stopped early" if self.stopped else ""
        if not self.accepted:
            return f"{filled}, none of {len(self.judged)} judged pictures accepted{early_ends}"
        share = self.accepted / len(self.judged)
        each_attempt = self.accepted / (len(self.judged) + self.stopped)
        each = seconds_each / each_attempt
        money = "" if price_per_hour is None else f" and {price_per_hour * each / 3600:.2g} in money"
        cost = f"{each:.3g} s{money} for each accepted picture"
        if self.exhausted or any(attempt for _, attempt in self.due):
            return f"{filled}, {share:.0%} accepted{early_ends}, {cost}"
        left = max((self.wanted - self.filled) / each_attempt - drawn, 0.0) * seconds_each
        return f"{filled}, {share:.0%} accepted{early_ends}, {cost}, all slots in {left:.0f} s"


def read_batch_progress(folder: Path, max_attempts: int, before_round: int | None = None) -> BatchProgress:
    """The progress of the batch in a folder. Of the attempts that were stopped early those of rounds below
    `before_round` count; without it all of them.

    Raises DataError if it has no plan, or its verdicts cannot be read.
    """
    rows = files.read_jsonl(folder / VERDICTS, "file", "verdict")
    stopped = early.names_of_stopped_attempts(folder, before_round)
    states = failed_attempts_and_filled_slots(((row["file"], row["verdict"]) for row in rows), stopped)
    good = [row["file"] for row in rows if row["verdict"] == "accept"]
    slots = read_plan(folder)
    return BatchProgress(
        states,
        due_attempts(slots, states, max_attempts),
        states.exhausted_slots(max_attempts),
        {row["file"] for row in rows},
        len(good),
        len({attempt_and_slot(file)[1] for file in good}),
        read_existing_batch_record(folder).wanted if (folder / RECORD).exists() else len(slots),
        len(stopped),
    )


def attempts_in_unfinished_parts(
    due: list[Attempt], size: int, folder: Path, stopped: Collection[str] = ()
) -> list[list[Attempt]]:
    """The attempts in parts of `size`, without the parts that are done: every one has a picture, or is `stopped`.

    A part is drawn whole, however many of its pictures are there: the number drawn together can change last bits.
    """
    done = {attempt_and_slot(name) for name in (*names_of_attempts_with_picture(folder / "images"), *stopped)}
    parts = [due[i : i + size] for i in range(0, len(due), size)]
    return [part for part in parts if not all((attempt, slot.slot) in done for slot, attempt in part)]


class NextRound(NamedTuple):
    """What a round draws, before its line is known."""

    number: int
    attempts: int  # at most
    parts: list[list[Attempt]]  # that are not done


def unfinished_or_next_drawing_round(folder: Path, size: int, max_attempts: int) -> NextRound | None:
    """The round that was stopped half-way, or else the next one; None where there is nothing to draw before a gate.

    Under the same verdicts the same rounds come, whenever the command was killed. The pictures that wait for the gate
    are at most as many as it has judged, so that the line is learnt anew while most of a batch is still to be drawn.
    """
    rounds, verdicts = early.read_early_stop_rounds(folder), verdicts_digest(folder)
    there, stopped = set(names_of_attempts_with_picture(folder / "images")), early.names_of_stopped_attempts(folder)

    def round_if_not_all_drawn(number: int, attempts: int) -> NextRound | None:
        """The round with this number, of at most `attempts`; None where all of it is drawn."""
        due = read_batch_progress(folder, max_attempts, number).due[:attempts]
        parts = attempts_in_unfinished_parts(due, size, folder, stopped)
        return NextRound(number, attempts, parts) if parts else None

    if (
        rounds
        and rounds[-1].verdicts_sha256 == verdicts
        and (found := round_if_not_all_drawn(rounds[-1].round, rounds[-1].attempts))
    ):
        return found
    judged = {row["file"] for row in files.read_jsonl(folder / VERDICTS, "file", "verdict")}
    room = max(early.FIRST, size, len(judged)) - len(there - judged)
    return round_if_not_all_drawn(len(rounds), room // size * size) if room >= size else None


def recorded_round_or_one_with_learnt_line(folder: Path, found: NextRound, scored: str) -> EarlyStopRound:
    """The round as rounds.jsonl has it; one that is not there yet, with a line that is learnt from what is known now.
    Nothing is written.
    """
    rounds = early.read_early_stop_rounds(folder)
    if found.number < len(rounds):
        return rounds[found.number]
    rows = files.read_jsonl(folder / VERDICTS, "file", "verdict")
    accepted = {row["file"]: row["verdict"] == "accept" for row in rows if row["verdict"] in ("accept", "reject")}
    empty = EarlyStopRound(
        round=found.number, verdicts_sha256=verdicts_digest(folder), attempts=found.attempts, scored=scored
    )
    return early.round_with_learnt_stop_line(
        empty, early.read_early_stop_preview_rows(folder).values(), accepted, rounds
    )


def verdicts_digest(folder: Path) -> str:
    """sha256 (hex) of the batch's verdicts.jsonl; "" where there is none."""
    return files.sha256_of_file(folder / VERDICTS) if (folder / VERDICTS).exists() else ""
