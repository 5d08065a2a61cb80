"""Whether a plan can exist, before it is made: a relaxation, the rules that conflict, and the nearest counts that do.

The relaxation looks at the traits of each rule, and at those of rules that share a trait while their table stays small.
It asks how many slots each combination of values gets, so that counts, rules and the number of combinations that exist
agree. What it refuses is impossible; what it lets pass may still be, which eval/planning/exact.py finds out.
"""

from itertools import pairwise, product
from math import prod
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from eval.planning.problem import CombinationLimit, PlanConstraints

MAX_CELLS = 64  # of a joint table
NODES = 1000  # of the search for the nearest counts
SOLVED, IMPOSSIBLE = 0, 2  # scipy's status of a programme; 1 is a limit that was reached, 3 and 4 are failures


def entropy_of_traits_beyond_distinct_slots(problem: PlanConstraints) -> float:
    """The entropies of the traits, less log2 of the slots. Below 0 no plan of different combinations exists.

    A slot of the plan, taken at random, has traits of these entropies; as a whole it has at most their sum, and log2
    of the number of slots if all are different.
    """
    shares = [count[count > 0] / problem.size for count in problem.counts]
    return float(sum(-(share * np.log2(share)).sum() for share in shares) - np.log2(problem.size))


def groups_of_linked_traits(
    problem: PlanConstraints, rules: list[CombinationLimit]
) -> list[tuple[tuple[int, ...], list[CombinationLimit]]]:
    """Groups of traits that rules link, each with its rules. Groups that share a trait become one while their table
    is small.
    """
    found: list[tuple[tuple[int, ...], list[CombinationLimit]]] = []
    for rule in rules:
        traits, inside = tuple(sorted(rule.masks)), [rule]
        for other in list(found):
            union = tuple(sorted({*traits, *other[0]}))
            joined = inside + other[1]
            small = prod(len(interchangeable_values(problem, trait, joined)[1]) for trait in union) <= MAX_CELLS
            if set(other[0]) & set(traits) and (small or set(traits) <= set(other[0])):
                traits, inside = union, joined
                found.remove(other)
        found.append((traits, inside))
    return found


def interchangeable_values(
    problem: PlanConstraints, trait: int, rules: list[CombinationLimit]
) -> tuple[np.ndarray, np.ndarray]:
    """Values of a trait that the rules do not tell apart: the class of each value, and one value of each class."""
    masks = [rule.masks[trait] for rule in rules if trait in rule.masks]
    signs = np.array([np.ones(len(problem.counts[trait]), bool), *masks]).T
    _, examples, classes = np.unique(signs, axis=0, return_index=True, return_inverse=True)
    return classes.ravel(), examples


class CountChanges(NamedTuple):
    """What the search for the nearest counts found."""

    changes: list[np.ndarray] | None  # for each trait and value the change of its count; None if none was found
    conflicts: bool  # it is proven that the counts as they are cannot keep the rules
    complete: bool  # the changes are the fewest, or without any: no counts do. False: the search ended before that


def fewest_count_changes(problem: PlanConstraints, rules: list[CombinationLimit]) -> CountChanges:
    """For each trait and value the change of its count that makes the rules feasible: the fewest slots in all, as far
    as NODES nodes tell. All are 0 where the counts are feasible as they are.
    """
    widths = [len(count) for count in problem.counts]
    starts = np.cumsum([0, *widths])
    columns = 2 * starts[-1]  # first how much each count grows, then how much it shrinks
    lines: list[tuple[dict[int, float], float, float]] = []
    for trait, width in enumerate(widths):
        here = range(starts[trait], starts[trait] + width)
        lines.append((dict.fromkeys(here, 1.0) | {starts[-1] + i: -1.0 for i in here}, 0.0, 0.0))
    upper = [np.full(starts[-1], float(problem.size)), np.concatenate(problem.counts).astype(float)]
    for traits, inside in groups_of_linked_traits(problem, rules):
        classes = [interchangeable_values(problem, trait, inside) for trait in traits]
        cells = list(product(*(range(len(examples)) for _, examples in classes)))
        others = prod(float((count > 0).sum()) for t, count in enumerate(problem.counts) if t not in traits)
        sizes = [np.bincount(labels) for labels, _ in classes]
        most = np.array([others * prod(float(size[k]) for size, k in zip(sizes, cell, strict=True)) for cell in cells])
        examples = np.zeros((len(cells), len(widths)), np.int32)
        for i, trait in enumerate(traits):
            examples[:, trait] = [classes[i][1][cell[i]] for cell in cells]
        for rule in inside:
            holds = rule.mask_of_rows_with_combination(examples)
            if rule.high == 0:
                most[holds] = 0
            else:
                lines.append(({columns + i: 1.0 for i in np.flatnonzero(holds)}, float(rule.low), float(rule.high)))
        for i, trait in enumerate(traits):
            labels, _ = classes[i]
            for label in range(labels.max() + 1):
                line = {columns + c: 1.0 for c, cell in enumerate(cells) if cell[i] == label}
                members = np.flatnonzero(labels == label)
                line |= {starts[trait] + v: -1.0 for v in members} | {
                    starts[-1] + starts[trait] + v: 1.0 for v in members
                }
                there = float(problem.counts[trait][members].sum())
                lines.append((line, there, there))
        upper.append(np.minimum(most, problem.size))
        columns += len(cells)
    answer, conflicts, complete = minimize_changes_by_integer_programme(lines, np.concatenate(upper), 2 * starts[-1])
    if answer is None:
        return CountChanges(None, conflicts, complete)
    change = np.rint(answer[: starts[-1]] - answer[starts[-1] : 2 * starts[-1]]).astype(np.int64)
    return CountChanges([change[a:b] for a, b in pairwise(starts)], conflicts, complete)


def minimize_changes_by_integer_programme(
    lines: list[tuple[dict[int, float], float, float]], upper: np.ndarray, changes: int
) -> tuple[np.ndarray | None, bool, bool]:
    """Solve linear inequalities (factor by unknown, lowest sum, highest sum) so that the sum of the first `changes`
    unknowns, which are whole numbers, is smallest. Each unknown lies between 0 and its `upper`.

    Returns all unknowns, or None if no solution is found; whether the sum is proven to be above 0; and whether the
    search came to its end: with a smallest sum, or a proof that there is no solution.
    """
    table: Any = sparse.lil_matrix((len(lines), len(upper)))
    for i, (line, _, _) in enumerate(lines):
        for column, factor in line.items():
            table[i, column] = factor
    whole = (np.arange(len(upper)) < changes).astype(int)
    low, high = (np.array([line[i] for line in lines]) for i in (1, 2))
    held = LinearConstraint(table.tocsr(), low, high)  # pyright: ignore[reportArgumentType]
    cost, bounds = whole.astype(float), Bounds(0, upper)  # pyright: ignore[reportArgumentType]
    found = milp(cost, constraints=held, bounds=bounds)  # without whole numbers first: mostly nothing has to change
    if found.status not in (SOLVED, IMPOSSIBLE):
        return None, False, False
    if found.status == IMPOSSIBLE or found.fun < 1e-6:
        return found.x, found.status == IMPOSSIBLE, True
    found = milp(cost, constraints=held, bounds=bounds, integrality=whole, options={"node_limit": NODES})
    return found.x, True, found.status in (SOLVED, IMPOSSIBLE)


def irreducible_conflicting_rules(problem: PlanConstraints, rules: list[CombinationLimit]) -> list[CombinationLimit]:
    """A set of rules that conflicts with the counts and is irreducible: without any one of them the rest do not, as far
    as is known. There may be smaller ones.

    Rules are taken away one after the other; what can be spared stays away.
    """
    places = list(dict.fromkeys(rule.place for rule in rules))
    for place in list(places):
        fewer = [rule for rule in rules if rule.place in places and rule.place != place]
        if fewest_count_changes(problem, fewer).conflicts:
            places.remove(place)
    return [rule for rule in rules if rule.place in places]
