"""Two batches of the same slots, side by side: do more pictures of the second one pass the gate?

    stylegate compare data/batches/before data/batches/after

Such batches have the same plan (prompts and seeds) and the same gate, and differ in what drew them: a LoRA before and
after it learned from preferences, say. The first attempts are compared slot by slot, so that luck with words and seeds
is the same for both; later attempts are drawn only where earlier ones failed, and would not be fair. The difference has
a 95 % interval. Where the second LoRA learned from a preference set that holds pictures of these very seeds, that is
said: what was learned from proves nothing.
"""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from eval.export import read_gate_record_and_verdicts
from eval.judging.record import GateRecord
from eval.judging.verdicts import Verdict
from eval.lot.batch import PlanSlot, read_plan
from eval.lot.lot import Lot, lot_of_batch
from eval.lot.paired import paired_difference_interval
from stylegate import files
from stylegate.errors import DataError
from stylegate.preferenceset import RECORD, read_preference_set
from stylegate.words import counted

CONFIDENCE = 0.95


class JudgedBatch(NamedTuple):
    """A batch with its slots, its gate's record, and the verdicts on the first attempt at each slot."""

    lot: Lot
    outcome: GateRecord
    first: dict[int, Verdict]  # by number of the slot
    slots: dict[int, PlanSlot]


def compare_batches(before: Path, after: Path) -> int:
    """Print how many first attempts of each batch pass, the difference with its interval, and by which checks they
    fail. Returns 0.

    Raises DataError if the batches share no slot that both have drawn, or were not judged by the same gate.
    """
    one, other = read_judged_batch(before), read_judged_batch(after)
    numbers = [
        n
        for n in sorted(one.first.keys() & other.first.keys())
        if slots_have_same_prompt_and_seed(one.slots[n], other.slots[n])
    ]
    if not numbers:
        raise DataError(
            "these batches share no slot: no prompt with the same seed was drawn and judged in both",
            next_step="plan both with the same arguments; only batch=, lora_file= and objective= may differ.",
        )
    judges = [(b.outcome.policy.sha256, b.outcome.encoder_sha256, b.outcome.references) for b in (one, other)]
    if judges[0] != judges[1]:
        raise DataError(
            "these batches were judged by different gates (policy, encoder or references)",
            next_step="gate both with the same arguments, then compare.",
        )
    passed = [np.array([batch.first[n].verdict == "accept" for n in numbers]) for batch in (one, other)]
    table = Table("batch", "first attempts accepted", "rejected by")
    for place, batch, good in zip((before, after), (one, other), passed, strict=True):
        counts = Counter(r.check for n in numbers for r in batch.first[n].reasons if r.verdict == "reject")
        why = ", ".join(f"{check} {count}" for check, count in counts.most_common())
        table.add_row(place.resolve().name, f"{good.sum()} of {len(numbers)} ({good.mean():.0%})", why or "-")
    Console(width=max(Console().width, 120)).print(table)
    for remark in remarks_on_compared_batches(one, other, numbers):
        print(f"note: {remark}")
    print(pass_rate_difference_in_words(passed[1], passed[0]))
    return 0


def read_judged_batch(place: Path) -> JudgedBatch:
    """A batch as its gate judged it last. Raises DataError if it was not judged, or changed since."""
    lot = lot_of_batch(place.resolve())
    outcome, verdicts = read_gate_record_and_verdicts(lot)
    slots = {slot.slot: slot for slot in read_plan(lot.out)}
    by_name = {verdict.file: verdict for verdict in verdicts}
    first = {n: by_name[slot.picture_file_name(0)] for n, slot in slots.items() if slot.picture_file_name(0) in by_name}
    return JudgedBatch(lot, outcome, first, slots)


def slots_have_same_prompt_and_seed(one: PlanSlot, other: PlanSlot) -> bool:
    """Whether two slots ask for the same picture: prompts and seed are equal."""
    return (one.prompt, one.negative_prompt, one.seed) == (other.prompt, other.negative_prompt, other.seed)


def pass_rate_difference_in_words(after: np.ndarray, before: np.ndarray) -> str:
    """The difference in pass rate of two batches with its interval, and what it means, on one line. `after` and
    `before` are [slots] whether the first attempt passed.
    """
    low, high = paired_difference_interval(list(after), list(before), CONFIDENCE)
    gained, lost = int((after & ~before).sum()), int((~after & before).sum())
    meaning = "the second passes more often" if low > 0 else "the second passes less often"
    if low <= 0 <= high:
        meaning = f"{counted(len(after), 'slot')} cannot tell which passes more often"
    change = float(after.mean() - before.mean())
    return (
        f"difference: {change:+.1%} [{low:+.1%}, {high:+.1%}] (95 %, paired; {gained} slots gained, {lost} lost): "
        f"{meaning}"
    )


def remarks_on_compared_batches(one: JudgedBatch, other: JudgedBatch, numbers: list[int]) -> list[str]:
    """Sentences on what differs between the two batches, what is not compared, and seeds that the second one's LoRA has
    learned from. `numbers` are the slots that are compared.
    """
    found = []
    facts = [batch.lot.record.facts.json_data_without_defaults() if batch.lot.record else {} for batch in (one, other)]
    keys = dict.fromkeys([*facts[0], *facts[1]])  # what has its default is left out of one
    if differing := [key for key in keys if facts[0].get(key) != facts[1].get(key)]:
        found.append(f"the batches differ in {', '.join(differing)}")
    if left := len(one.slots.keys() | other.slots.keys()) - len(numbers):
        found.append(f"{counted(left, 'slot is', 'slots are')} not compared: not planned alike, or not judged in both")
    seeds = {batch_slot.seed_of_attempt(0) for batch_slot in (other.slots[n] for n in numbers)}
    learned_from = seeds_of_learned_preference_pictures(other.lot)
    if learned_from is None:
        found.append("the preference set that the second batch's LoRA learned from is gone: it may hold these seeds")
    elif learned := len(seeds & learned_from):
        found.append(
            f"the second batch's LoRA has learned from pictures of {learned} of these seeds: this is no proof; plan "
            "both with another plan.seed"
        )
    return found


def seeds_of_learned_preference_pictures(lot: Lot) -> set[int | None] | None:
    """The seeds of the pictures of the preference set that a batch's LoRA learned from; None if that set is gone.

    Empty if the LoRA learned from none, or if its training run is not here.
    """
    run = files.RUNS / ((lot.record.words.run if lot.record else None) or "-") / "run.json"
    config = files.read_json(run, "the run's record", "config")["config"] if run.is_file() else {}
    folder = config.get("preferences")
    if not folder:
        return set()
    if not (Path(folder).expanduser() / RECORD).is_file():
        return None
    return {seed for pair in read_preference_set(folder).pairs for seed in (pair.chosen_seed, pair.rejected_seed)}
