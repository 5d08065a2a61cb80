"""Repair a plan: slots that no drawing fills get other traits, and as few other slots as possible change with them.

All counts stay exact and all rules kept. A slot can only get another value where another slot takes the old one, so
one slot alone is repaired by exchanging one value with one other slot: of the trait that was most often seen wrong in
its pictures, where an exchange of it keeps counts and rules, else of any trait. Partners are, in this order: other
slots that are to be repaired, slots without an accepted picture, slots that have one and lose it.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from eval.planning.deal import find_plan_by_random_swaps, is_in_sorted, random_hash_of_each_value, row_hash_sums
from eval.planning.exact import plan_constraints_of_open_slots
from eval.planning.problem import OPEN, PlanConstraints
from eval.planning.solve import solve_plan
from stylegate.errors import DataError

FREED = 8  # filled slots that are freed first, where exchanges of one value do not suffice; then twice as many


def plan_rows_with_other_combinations_in_slots(
    problem: PlanConstraints,
    rows: NDArray[np.int32],
    broken: Sequence[int],
    filled: Collection[int],
    seen_wrong: NDArray[np.int64],
    seed: int,
) -> NDArray[np.int32]:
    """The rows of a plan in which the slots `broken` have other combinations than before, which no other slot gets.

    `rows` [slots, traits] keep every count and rule; `problem.given` holds the cells that one-of-ones fix. `filled`
    are the slots with a picture that would be lost. `seen_wrong` [slots, traits] is in how many pictures of a slot
    another value was seen than the row's. Raises DataError if a slot is fixed whole, or if no such plan exists.
    """
    fixed = [number for number in broken if (problem.given[number] != OPEN).all()]
    if fixed:
        listing = ", ".join(map(str, fixed))
        raise DataError(f"slots that one-of-ones fix whole: {listing}", next_step="change them in the traits file.")
    problem = replace(problem, excluded=np.concatenate([problem.excluded, rows[list(broken)]]).astype(np.int32))
    seen_wrong = np.where(problem.given == OPEN, seen_wrong, 0)
    dealt = plan_rows_with_slots_replanned(problem, rows, broken, seed) if len(broken) > 1 else None
    if dealt is not None and all(is_other_where_seen_wrong(rows[n], dealt[n], seen_wrong[n]) for n in broken):
        return dealt
    found, left = rows.copy(), list(broken)
    while left:
        change = cheapest_repairing_exchange(problem, rows, found, left, filled, seen_wrong)
        if change is None:
            return repair_by_freeing_more_slots(problem, rows, broken, filled, seed)
        first, second, trait = change
        found[[first, second], trait] = found[[second, first], trait]
        left.remove(first)
        if second in left and is_other_where_seen_wrong(rows[second], found[second], seen_wrong[second]):
            left.remove(second)
    return found


def is_other_where_seen_wrong(before: NDArray[np.int32], after: NDArray[np.int32], wrong: NDArray[np.int64]) -> bool:
    """Whether the row `after` has another value than `before` in a trait that was most often seen wrong, by the counts
    `wrong`; all are [traits]. True where none was.
    """
    most = wrong.max(initial=0)
    return most == 0 or bool((before != after)[wrong == most].any())


def plan_rows_with_slots_replanned(
    problem: PlanConstraints, rows: NDArray[np.int32], free: Sequence[int], seed: int
) -> NDArray[np.int32] | None:
    """The rows with other combinations in the slots `free`; None if the dealing does not come to any."""
    settled = np.ones(len(rows), bool)
    settled[list(free)] = False
    part = plan_constraints_of_open_slots(problem, np.where(settled[:, None], rows, problem.given), settled)
    dealt = find_plan_by_random_swaps(part, np.random.default_rng([seed, len(free)])) if part else None
    if dealt is None:
        return None
    found = rows.copy()
    found[~settled] = dealt
    return found


def cheapest_repairing_exchange(
    problem: PlanConstraints,
    before: NDArray[np.int32],
    rows: NDArray[np.int32],
    broken: list[int],
    filled: Collection[int],
    seen_wrong: NDArray[np.int64],
) -> tuple[int, int, int] | None:
    """(slot, other slot, trait) whose exchange in `rows` repairs the first of `broken`: of the trait that was most
    often seen wrong, and of that at the least cost. None if no exchange does.

    `before` are the rows in whose pictures values were `seen_wrong`: no slot gets such a value back.
    """
    first = broken[0]
    cost = np.full(len(rows), 1)
    cost[list(filled)] = 2
    cost[broken] = 0
    best: tuple[int, int, int, int] | None = None
    for trait in np.flatnonzero(problem.given[first] == OPEN):
        gets_back = (seen_wrong[:, trait] > 0) & (before[:, trait] == rows[first, trait])
        free = (problem.given[:, trait] == OPEN) & ~gets_back
        others = np.flatnonzero(free & (rows[:, trait] != rows[first, trait]))
        for second in others[mask_of_allowed_exchanges(problem, rows, first, others, int(trait))]:
            option = (-int(seen_wrong[first, trait]), int(cost[second]), int(second), int(trait))
            best = option if best is None else min(best, option)
    return None if best is None else (first, best[2], best[3])


def mask_of_allowed_exchanges(
    problem: PlanConstraints, rows: NDArray[np.int32], first: int, others: NDArray[np.int64], trait: int
) -> NDArray[np.bool_]:
    """[n] whether the slot `first` and each of `others` may exchange their values of one trait."""
    mine, theirs = np.repeat(rows[first][None], len(others), axis=0), rows[others].copy()
    mine[:, trait], theirs[:, trait] = rows[others, trait], rows[first, trait]
    good = np.ones(len(others), bool)
    marks = random_hash_of_each_value(problem, np.random.default_rng(0))
    taken = np.sort(row_hash_sums(np.concatenate([problem.excluded, rows]), marks))
    for new in (mine, theirs):
        good &= ~is_in_sorted(taken, row_hash_sums(new, marks))
        for rule in problem.forbidden:
            good &= ~rule.mask_of_rows_with_combination(new)
        for rule in problem.tally_rules:
            good &= rule.rows_distance_from_rule(new) == 0
    good &= (mine != theirs).any(axis=1)
    for limit in problem.limits:
        before = limit.mask_of_rows_with_combination(rows)
        count = (
            before.sum()
            - int(before[first])
            - before[others]
            + limit.mask_of_rows_with_combination(mine)
            + limit.mask_of_rows_with_combination(theirs)
        )
        good &= (limit.low <= count) & (count <= limit.high)
    return good


def repair_by_freeing_more_slots(
    problem: PlanConstraints, rows: NDArray[np.int32], broken: Sequence[int], filled: Collection[int], seed: int
) -> NDArray[np.int32]:
    """The plan's rows with other combinations in the slots `broken`, which no drawing fills: more and more other slots
    are dealt anew with them, first those without a picture. For where single exchanges do not suffice.

    Raises DataError with a proof if no plan exists without the combinations of the slots that are to be repaired.
    """
    unfilled = [n for n in range(len(rows)) if n not in filled and n not in broken]
    rest = [int(n) for n in np.random.default_rng(seed).permutation(sorted(set(filled) - set(broken)))]
    freed = 0
    while freed < 2 * len(rest) + 1:
        free = sorted({*broken, *unfilled, *rest[:freed]})
        if (found := plan_rows_with_slots_replanned(problem, rows, free, seed)) is not None:
            return found
        freed = max(FREED, 2 * freed)
    return solve_plan(problem, seed).astype(np.int32)
