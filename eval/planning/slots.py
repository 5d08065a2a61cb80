"""The slots of a plan from a traits file: combinations, prompts, seeds."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from eval.lot.batch import PlanSlot
from eval.planning.problem import OPEN, PlanConstraints, make_plan_constraints, value_with_tier_weight
from eval.planning.repair import plan_rows_with_other_combinations_in_slots
from eval.planning.solve import solve_plan
from eval.planning.traits import OneOfOne, TraitsFile
from stylegate.brandset import Brand
from stylegate.configgroups import PlanConfig
from stylegate.errors import DataError
from stylegate.words import counted

NAMED = 5  # values that a note names


def seed_of_slot(plan: PlanConfig, slot: int) -> int:
    """The seed of the slot with this number, which follows from the plan's seed."""
    return int(np.random.SeedSequence([plan.seed, slot]).generate_state(1)[0])


def slots_from_traits(
    file: TraitsFile,
    brand: Brand,
    plan: PlanConfig,
    excluded: Iterable[tuple[tuple[str, str], ...]] = (),
    kept: Mapping[int, dict[str, str]] | None = None,
) -> list[PlanSlot]:
    """Plan `plan.num_images` slots from a traits file: PlanSlots with number, traits, prompt and seed. Every count is
    exact and every rule kept. `excluded` are combinations that no slot gets, each as sorted (trait, value) pairs.

    `kept`: traits that slots of an earlier plan must keep. Raises DataError if there is no such plan.
    """
    problem = make_plan_constraints(
        file, plan.num_images, sorted(map(dict, excluded), key=lambda traits: sorted(traits.items()))
    )
    ones = place_one_of_ones(problem, file.one_of_ones, plan.seed, kept or {})
    for number, traits in (kept or {}).items():
        problem.given[number] = problem.value_numbers_of_traits(traits)
    rows = solve_plan(problem, plan.seed)
    return [
        make_slot_from_traits(file, brand, plan, n, problem.traits_of_row(row), ones.get(n))
        for n, row in enumerate(rows)
    ]


def make_slot_from_traits(
    file: TraitsFile, brand: Brand, plan: PlanConfig, number: int, traits: dict[str, str], one: OneOfOne | None
) -> PlanSlot:
    """The slot `number` with these traits. Its prompt is made from the traits, or is that of the one-of-one `one`."""
    text = one.prompt if one and one.prompt is not None else file.prompt
    phrases = {trait: file.phrase_of_value_in_prompt(trait, value) for trait, value in traits.items()}
    return PlanSlot(
        slot=number,
        prompt=brand.prompt_with_trigger(prompt_without_empty_phrases(text.format(trigger=brand.trigger, **phrases))),
        negative_prompt=file.negative_prompt,
        seed=one.seed if one and one.seed is not None else seed_of_slot(plan, number),
        traits=traits,
        name=(one.name or "") if one else "",
    )


def notes_on_values_without_slot(file: TraitsFile | None, slots: Sequence[PlanSlot]) -> list[str]:
    """A sentence for each value whose weight comes to no slot though the file does not leave it out; of more than NAMED
    only their number. Without a file none.
    """
    if file is None:
        return []
    found = []
    for trait, written in file.traits.items():
        values = {name: value_with_tier_weight(value, file) for name, value in written.items() if value.count is None}
        weights = {name: 1.0 if value.weight is None else value.weight for name, value in values.items()}
        given = Counter(slot.traits[trait] for slot in slots if slot.traits[trait] in weights)
        total = f"{sum(weights.values()):g} in {counted(given.total(), 'slot')}"
        found += [
            f"no slot has {trait}: {name} (weight {weights[name]:g} of {total}); at_least: 1 keeps it"
            for name, value in values.items()
            if name not in given and value.at_most != 0
        ]
    more = len(found) - NAMED
    return found[:NAMED] + ([f"no slot has {more} more values"] if more > 0 else [])


def plan_slots_with_some_traits_replaced(
    file: TraitsFile,
    brand: Brand,
    plan: PlanConfig,
    excluded: Iterable[tuple[tuple[str, str], ...]],
    earlier: Sequence[PlanSlot],
    broken: Sequence[int],
    filled: Collection[int],
    seen_wrong: Mapping[int, Mapping[str, int]],
) -> list[PlanSlot]:
    """The slots of a plan in which the slots `broken` have other traits, with as few other changes as possible.

    `filled` are the slots whose pictures would be lost if they changed; `seen_wrong` says by slot and trait in how many
    pictures another value was seen than the planned one. Raises DataError if the plan is not one of this traits file,
    or if no such plan exists.
    """
    problem = make_plan_constraints(file, len(earlier), map(dict, excluded))
    kept = {slot.slot: slot.traits for slot in earlier}
    ones = place_one_of_ones(problem, file.one_of_ones, plan.seed, kept)
    rows = np.array([problem.value_numbers_of_traits(slot.traits) for slot in earlier], np.int32)
    counts = [np.bincount(rows[:, t][rows[:, t] != OPEN], minlength=len(c)) for t, c in enumerate(problem.counts)]
    if any((found != wanted).any() for found, wanted in zip(counts, problem.counts, strict=True)):
        raise DataError(
            "the plan's counts are not those of the traits file, which was changed since",
            next_step="stylegate plan with the same arguments without repair=; then repair what is left.",
        )
    wrong = np.array([[seen_wrong.get(slot.slot, {}).get(trait, 0) for trait in problem.traits] for slot in earlier])
    found = plan_rows_with_other_combinations_in_slots(problem, rows, broken, filled, wrong, plan.seed)
    changed = (found != rows).any(axis=1)
    return [
        make_slot_from_traits(file, brand, plan, slot.slot, problem.traits_of_row(row), ones.get(slot.slot))
        if new
        else slot
        for slot, row, new in zip(earlier, found, changed, strict=True)
    ]


def place_one_of_ones(
    problem: PlanConstraints, ones: Sequence[OneOfOne], seed: int, kept: Mapping[int, dict[str, str]]
) -> dict[int, OneOfOne]:
    """Give each one-of-one its slot: its own, that of an earlier plan, or one at random. Fills `problem.given`."""
    placed = {one.slot: one for one in ones if one.slot is not None}
    free = [n for n in range(problem.size) if n not in placed]
    order = [int(n) for n in np.random.default_rng([seed, problem.size]).permutation(free)]
    for one in (one for one in ones if one.slot is None):
        held = [n for n, traits in kept.items() if n not in placed and one.traits.items() <= traits.items()]
        slot = held[0] if held else next((n for n in order if n not in placed and n not in kept), None)
        if slot is None:
            raise DataError(
                f"no slot is left for the one-of-one {one.name or one.traits}: all keep the traits that they had",
                next_step="stylegate plan with the same arguments without repair=.",
            )
        placed[slot] = one
    for slot, one in placed.items():
        problem.given[slot] = problem.value_numbers_of_traits(one.traits)
    return placed


def prompt_without_empty_phrases(text: str) -> str:
    """A prompt without its empty phrases, which traits without a phrase leave behind: of commas with nothing but spaces
    between them the last one stays, and a comma at the end is dropped.
    """
    return re.sub(r"(,\s*)+(?=,)|,\s*$", "", text)


def traits_of_slots_to_keep(
    file: TraitsFile,
    earlier: list[PlanSlot],
    plan: PlanConfig,
    excluded: Iterable[tuple[tuple[str, str], ...]],
    drawn: set[int],
) -> dict[int, dict[str, str]]:
    """The traits of the slots of an earlier plan that this one can keep: rules, counts and one-of-ones allow them.

    Slots with pictures (`drawn`) come first, also in the order of the answer.
    """
    problem = make_plan_constraints(file, plan.num_images, map(dict, excluded))
    fixed = {one.slot: problem.value_numbers_of_traits(one.traits) for one in file.one_of_ones if one.slot is not None}
    whole = {tuple(row): slot for slot, row in fixed.items() if OPEN not in row}
    waiting = [problem.value_numbers_of_traits(one.traits) for one in file.one_of_ones if one.slot is None]
    left = [count.copy() for count in problem.counts]  # what neither one-of-ones nor kept slots take
    for t, v in ((t, v) for row in (*fixed.values(), *waiting) for t, v in enumerate(row) if v != OPEN):
        left[t][v] -= 1
    highs = [limit.high for limit in problem.limits]
    own = values_only_in_one_of_ones(file)
    kept: dict[int, dict[str, str]] = {}
    seen = {tuple(row) for row in problem.excluded.tolist()}
    for slot in sorted(earlier, key=lambda slot: (slot.slot not in drawn, slot.slot)):
        row = np.array(problem.value_numbers_of_traits(slot.traits), np.int32)
        if slot.slot >= problem.size or set(slot.traits) != set(problem.traits) or (row == OPEN).any():
            continue
        home = next((one for one in waiting if all(v in (OPEN, row[t]) for t, v in enumerate(one))), [OPEN] * len(row))
        given = np.array(fixed.get(slot.slot, home))
        wrong = ((given != OPEN) & (given != row)).any() or tuple(row.tolist()) in seen
        wrong |= whole.get(tuple(row.tolist()), slot.slot) != slot.slot
        wrong |= (
            slot.slot not in fixed
            and any(pair in own for pair in slot.traits.items())
            and not is_one_of_one_without_fixed_slot(file, slot)
        )
        wrong |= any(rule.mask_of_rows_with_combination(row[None])[0] for rule in problem.forbidden)
        wrong |= any(rule.rows_distance_from_rule(row[None])[0] for rule in problem.tally_rules)
        inside = [i for i, limit in enumerate(problem.limits) if limit.mask_of_rows_with_combination(row[None])[0]]
        taken = [(t, v) for t, v in enumerate(row) if given[t] == OPEN]
        if wrong or any(left[t][v] == 0 for t, v in taken) or any(highs[i] == 0 for i in inside):
            continue
        for t, v in taken:
            left[t][v] -= 1
        if slot.slot not in fixed and home in waiting:
            waiting.remove(home)
        for i in inside:
            highs[i] -= 1
        seen.add(tuple(row.tolist()))
        kept[slot.slot] = slot.traits
    return kept


def values_only_in_one_of_ones(file: TraitsFile) -> set[tuple[str, str]]:
    """(trait, value) of the values that exist for one-of-ones alone."""
    return {pair for one in file.one_of_ones for pair in one.traits.items() if pair[1] not in file.traits[pair[0]]}


def is_one_of_one_without_fixed_slot(file: TraitsFile, slot: PlanSlot) -> bool:
    """Whether the slot has the traits of a one-of-one for which the file names no slot."""
    return any(one.slot is None and one.traits.items() <= slot.traits.items() for one in file.one_of_ones)
