"""The slots of a plan from a traits file: combinations, prompts, seeds."""

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from eval.lot.batch import Slot
from eval.planning.problem import OPEN, Problem, make_problem
from eval.planning.solve import solve
from eval.planning.traits import OneOfOne, TraitsFile
from stylegate.brandset import Brand
from stylegate.config import PlanConfig


def slot_seed(plan: PlanConfig, slot: int) -> int:
    return int(np.random.SeedSequence([plan.seed, slot]).generate_state(1)[0])


def slots_from_traits(
    file: TraitsFile,
    brand: Brand,
    plan: PlanConfig,
    excluded: Iterable[tuple[tuple[str, str], ...]] = (),
    kept: Mapping[int, dict[str, str]] | None = None,
) -> list[Slot]:
    """The slots, with exact counts and every rule kept. `excluded`: combinations, as sorted pairs, that no slot has.

    `kept`: traits that slots of an earlier plan must keep. Raises DataError if there is no such plan.
    """
    problem = make_problem(
        file, plan.num_images, sorted(map(dict, excluded), key=lambda traits: sorted(traits.items()))
    )
    ones = place_one_of_ones(problem, file.one_of_ones, plan.seed, kept or {})
    for number, traits in (kept or {}).items():
        problem.given[number] = problem.row_of(traits)
    rows = solve(problem, plan.seed)
    slots = []
    for number, row in enumerate(rows):
        traits = problem.traits_of(row)
        one = ones.get(number)
        text = one.prompt if one and one.prompt is not None else file.prompt
        phrases = {trait: file.phrase(trait, value) for trait, value in traits.items()}
        slots.append(
            Slot(
                slot=number,
                prompt=brand.prompt_with_trigger(tidy(text.format(trigger=brand.trigger, **phrases))),
                negative_prompt=file.negative_prompt,
                seed=one.seed if one and one.seed is not None else slot_seed(plan, number),
                traits=traits,
            )
        )
    return slots


def place_one_of_ones(
    problem: Problem, ones: Sequence[OneOfOne], seed: int, kept: Mapping[int, dict[str, str]]
) -> dict[int, OneOfOne]:
    """Give each one-of-one its slot: its own, that of an earlier plan, or one at random. Fills `problem.given`."""
    placed = {one.slot: one for one in ones if one.slot is not None}
    free = [n for n in range(problem.size) if n not in placed]
    order = [int(n) for n in np.random.default_rng([seed, problem.size]).permutation(free)]
    for one in (one for one in ones if one.slot is None):
        held = [n for n, traits in kept.items() if n not in placed and one.traits.items() <= traits.items()]
        slot = held[0] if held else next(n for n in order if n not in placed and n not in kept)
        placed[slot] = one
    for slot, one in placed.items():
        problem.given[slot] = problem.row_of(one.traits)
    return placed


def tidy(text: str) -> str:
    """A prompt without the commas and spaces that phrases without words leave."""
    return re.sub(r"(,\s*)+(?=,)|,\s*$", "", text)


def kept_slots(
    file: TraitsFile,
    earlier: list[Slot],
    plan: PlanConfig,
    excluded: Iterable[tuple[tuple[str, str], ...]],
    drawn: set[int],
) -> dict[int, dict[str, str]]:
    """The traits of the slots of an earlier plan that this one can keep: rules, counts and one-of-ones allow them.

    Slots with pictures (`drawn`) come first, also in the order of the answer.
    """
    problem = make_problem(file, plan.num_images, map(dict, excluded))
    fixed = {one.slot: problem.row_of(one.traits) for one in file.one_of_ones if one.slot is not None}
    left = [count.copy() for count in problem.counts]
    highs = [limit.high for limit in problem.limits]
    own = one_of_one_values(file)
    kept: dict[int, dict[str, str]] = {}
    seen = {tuple(row) for row in problem.excluded.tolist()}
    for slot in sorted(earlier, key=lambda slot: (slot.slot not in drawn, slot.slot)):
        row = np.array(problem.row_of(slot.traits), np.int32)
        if slot.slot >= problem.size or set(slot.traits) != set(problem.traits) or (row == OPEN).any():
            continue
        given = np.array(fixed.get(slot.slot, [OPEN] * len(row)))
        wrong = ((given != OPEN) & (given != row)).any() or tuple(row.tolist()) in seen
        wrong |= (
            slot.slot not in fixed
            and any(pair in own for pair in slot.traits.items())
            and not is_one_of_one(file, slot)
        )
        wrong |= any(rule.holds(row[None])[0] for rule in problem.forbidden)
        wrong |= any(tally.distance(row[None])[0] for tally in problem.tallies)
        inside = [i for i, limit in enumerate(problem.limits) if limit.holds(row[None])[0]]
        if wrong or any(left[t][v] == 0 for t, v in enumerate(row)) or any(highs[i] == 0 for i in inside):
            continue
        for t, v in enumerate(row):
            left[t][v] -= 1
        for i in inside:
            highs[i] -= 1
        seen.add(tuple(row.tolist()))
        kept[slot.slot] = slot.traits
    return kept


def one_of_one_values(file: TraitsFile) -> set[tuple[str, str]]:
    """(trait, value) of the values that exist for one-of-ones alone."""
    return {pair for one in file.one_of_ones for pair in one.traits.items() if pair[1] not in file.traits[pair[0]]}


def is_one_of_one(file: TraitsFile, slot: Slot) -> bool:
    return any(one.slot is None and one.traits.items() <= slot.traits.items() for one in file.one_of_ones)
