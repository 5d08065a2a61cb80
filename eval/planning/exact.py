"""Plans that have little room: a linear programme over combinations, which solves them or proves that there is none.

Each combination is taken between 0 and 1 times, each value as often as its count says. Where HiGHS finds no such
fractions there are no whole numbers either: that is the proof. Where it does, nearly all of them are 0 or 1 (there are
at most as many others as there are values), and the few slots that are left are dealt (eval/planning/deal.py).
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, linprog, milp
from scipy.sparse.csgraph import maximum_bipartite_matching

from eval.planning.deal import find_plan_by_random_swaps
from eval.planning.problem import OPEN, PlanConstraints

MOST_LISTED = 400_000  # combinations that are all listed; of more, those that the programme asks for
MOST_PRICED = 50_000_000  # combinations that are all looked at for those that help
COST_OF_LIMIT = 100.0  # of a slot beyond a limit, where a count that changes by one slot costs 1
POOL = 6  # combinations for each slot that a listing in parts begins with
PRICINGS = 15  # times that such a listing grows
FREED = (0, 0, 0, 20, 100)  # slots that are given up again around those that the programme leaves, try after try
ROUNDS_OF_REST = 60  # of the dealing of what is left
SEARCHED = 15_000  # combinations of one search in whole numbers; more make it slow, and other ones come in the next
NODES = 300  # of one such search: a limit in seconds would make the plan depend on the machine
NEAR_ONE = 1 - 1e-6
TOLERANCE = 1e-6


@dataclass(kw_only=True, slots=True)
class RelaxedSolution:
    """The solution of the linear programme: how often each combination is taken, as fractions."""

    combinations: np.ndarray
    """(n, traits): what was looked at."""
    complete: bool
    """Whether these are all there are, or others cannot help."""
    taken: np.ndarray | None
    """(n,): from 0 to 1; None if there is no answer."""
    changes: list[np.ndarray]
    """For each trait and value the change of its count, the least in all; 0 if it has an answer."""


class DualPrices(NamedTuple):
    """Dual prices (marginals) of a linear programme without an answer.

    A combination whose prices sum to more than 0 would help it.
    """

    of_values: list[np.ndarray]  # for each trait, by value
    of_limits: np.ndarray  # for each line of `limits_as_inequalities`, at most 0


def solve_by_linear_programme(
    problem: PlanConstraints, random: np.random.Generator
) -> tuple[np.ndarray | None, RelaxedSolution]:
    """(a plan [slots, traits] that keeps every count and rule, or None; what the linear programme says of it)."""
    found = solve_relaxation(problem, random)
    if found.taken is None:
        return None, found
    rows = found.combinations[random.permutation(np.flatnonzero(found.taken > NEAR_ONE))]
    for freed in FREED:
        placed = assign_combinations_to_slots(problem, rows[freed:], random)
        full = (placed != OPEN).all(axis=1)
        if full.all():
            return placed, found
        part = plan_constraints_of_open_slots(problem, placed, full)
        if part is None:
            continue
        dealt = find_plan_by_random_swaps(part, random, ROUNDS_OF_REST)
        if dealt is None:
            dealt = solve_rest_by_branch_and_bound(
                part, keep_only_allowed_combinations(part, found.combinations), random
            )
        if dealt is not None:
            placed[~full] = dealt
            return placed, found
    return None, found


def assign_combinations_to_slots(problem: PlanConstraints, rows: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A plan [slots, traits] with these combinations in slots that they fit: first in slots with given cells, then in
    free ones.
    """
    placed = problem.given.copy()
    bound = np.flatnonzero((problem.given != OPEN).any(axis=1))
    fits = ((problem.given[bound, None] == OPEN) | (problem.given[bound, None] == rows[None])).all(axis=2)
    match = maximum_bipartite_matching(sparse.csr_matrix(fits), perm_type="column") if len(bound) else np.zeros(0, int)
    placed[bound[match >= 0]] = rows[match[match >= 0]]
    rest = np.delete(rows, match[match >= 0], axis=0)
    free = random.permutation(np.setdiff1d(np.arange(problem.size), bound))
    rest = rest[: len(free)]
    placed[free[: len(rest)]] = rest
    return placed


def solve_rest_by_branch_and_bound(
    problem: PlanConstraints, rows: np.ndarray, random: np.random.Generator
) -> np.ndarray | None:
    """A plan for the few slots that are left, made of these combinations by HiGHS' branch and bound.

    None if none is found: at most SEARCHED combinations and NODES nodes are tried.
    """
    rows = rows[np.all([count[rows[:, t]] > 0 for t, count in enumerate(problem.counts)], axis=0)]
    if not len(rows):
        return None
    rows = rows[np.sort(random.permutation(len(rows))[:SEARCHED])]
    counts = np.concatenate(problem.counts).astype(float)
    lines, most = limits_as_inequalities(problem, rows)
    held = [LinearConstraint(value_incidence_matrix(problem, rows), counts, counts)]  # pyright: ignore[reportArgumentType]
    held += [] if lines is None else [LinearConstraint(lines, -np.inf, most)]  # pyright: ignore[reportArgumentType]
    answer = milp(
        np.zeros(len(rows)),
        constraints=held,
        bounds=Bounds(0, 1),
        integrality=np.ones(len(rows)),
        options={"node_limit": NODES},
    )
    if answer.x is None:
        return None
    placed = assign_combinations_to_slots(problem, rows[answer.x > 0.5], random)
    return placed if (placed != OPEN).all() else None


def value_incidence_matrix(problem: PlanConstraints, rows: np.ndarray) -> Any:
    """Sparse matrix [values of all traits, n]: 1 where a combination has a value, else 0."""
    bounds = np.cumsum([0, *(len(count) for count in problem.counts)])
    entries = (rows + bounds[:-1]).ravel()
    which = np.repeat(np.arange(len(rows)), rows.shape[1])
    return sparse.csr_matrix((np.ones(entries.size), (entries, which)), shape=(bounds[-1], len(rows)))


def plan_constraints_of_open_slots(
    problem: PlanConstraints, rows: np.ndarray, settled: np.ndarray
) -> PlanConstraints | None:
    """What the slots that are not `settled` [slots] must be; None if the settled rows use more than counts and limits
    allow.
    """
    done = rows[settled]
    counts = [c - np.bincount(done[:, t], minlength=len(c)) for t, c in enumerate(problem.counts)]
    given = rows[~settled]
    for trait, count in enumerate(counts):
        cells = given[:, trait][given[:, trait] != OPEN]
        if (count < np.bincount(cells, minlength=len(count))).any():
            return None
    limits = [
        replace(
            limit,
            low=max(0, limit.low - int(limit.mask_of_rows_with_combination(done).sum())),
            high=limit.high - int(limit.mask_of_rows_with_combination(done).sum()),
        )
        for limit in problem.limits
    ]
    if any(limit.high < 0 for limit in limits):
        return None
    return replace(
        problem,
        size=int((~settled).sum()),
        counts=counts,
        limits=limits,
        given=given,
        excluded=np.concatenate([problem.excluded, done.astype(np.int32)]),
    )


def solve_relaxation(problem: PlanConstraints, random: np.random.Generator) -> RelaxedSolution:
    """How often each combination is taken, as fractions of a slot (the linear relaxation). Looks at all combinations
    if they are few, else at those that help.
    """
    shape = [len(count) for count in problem.counts]
    if np.prod(np.array(shape, float)) <= MOST_LISTED:
        listed = np.array(np.unravel_index(np.arange(np.prod(shape)), shape), np.int32).T
        return solve_programme_over_combinations(
            problem, keep_only_allowed_combinations(problem, listed), True, random
        )[0]
    listed = keep_only_allowed_combinations(problem, random_candidate_combinations(problem, random))
    for _ in range(PRICINGS):
        found, prices = solve_programme_over_combinations(problem, listed, False, random)
        if found.taken is not None or prices is None:
            return found
        if np.prod(np.array(shape, float)) <= MOST_PRICED:
            more = improving_combinations(problem, listed, prices, 2 * problem.size)
            if not len(more):
                return replace(found, complete=True)
            listed = np.concatenate([listed, more])
            continue
        best, worth = most_valuable_combinations(problem, prices.of_values, 2 * problem.size)
        more = np.unique(
            np.concatenate([listed, keep_only_allowed_combinations(problem, best[worth > TOLERANCE])]), axis=0
        )
        if len(more) == len(listed):
            priced = not (problem.forbidden or problem.tally_rules or problem.limits)  # only values have prices
            return replace(found, complete=priced and bool((problem.given == OPEN).all()))
        listed = more
    return found


def keep_only_allowed_combinations(problem: PlanConstraints, rows: np.ndarray) -> np.ndarray:
    """Those of `rows` [n, traits] that break no rule of a single row and are not excluded, each once."""
    rows = np.unique(rows, axis=0)
    bad = np.zeros(len(rows), bool)
    for rule in problem.forbidden:
        bad |= rule.mask_of_rows_with_combination(rows)
    for rule in problem.tally_rules:
        bad |= rule.rows_distance_from_rule(rows) > 0
    if len(problem.excluded):
        both, inverse = np.unique(np.concatenate([problem.excluded, rows]), axis=0, return_inverse=True)
        taken = np.zeros(len(both), bool)
        taken[inverse.ravel()[: len(problem.excluded)]] = True
        bad |= taken[inverse.ravel()[len(problem.excluded) :]]
    return rows[~bad]


def random_candidate_combinations(problem: PlanConstraints, random: np.random.Generator) -> np.ndarray:
    """[n, traits] random combinations to begin with, drawn by the shares of the values, and by shares nearer to equal
    ones so that rare values occur; and some with the values of each slot that is given in part or whole.
    """
    parts = []
    for power in (1.0, 0.5):
        shares = [np.where(count > 0, count.astype(float), 0) ** power for count in problem.counts]
        shares = [share / share.sum() for share in shares]
        draws = [random.choice(len(share), POOL * problem.size // 2, p=share) for share in shares]
        parts.append(np.stack(draws, axis=1))
    given = problem.given[(problem.given != OPEN).any(axis=1)]
    for row in given:
        part = parts[0][:64].copy()
        part[:, row != OPEN] = row[row != OPEN]
        parts.append(part)
    return np.concatenate(parts).astype(np.int32)


def solve_programme_over_combinations(
    problem: PlanConstraints, rows: np.ndarray, complete: bool, random: np.random.Generator
) -> tuple[RelaxedSolution, DualPrices | None]:
    """Solve the programme over `rows`: how often each of them is taken, and the prices that say which other combination
    would help; None for prices that are not known or not needed.

    Two programmes: one with the counts as they are; without an answer, one that changes counts as little as it can,
    and breaks limits only where no counts keep them.
    """
    bounds = np.cumsum([0, *(len(count) for count in problem.counts)])
    exact = value_incidence_matrix(problem, rows)
    counts = np.concatenate(problem.counts).astype(float)
    lines, most = limits_as_inequalities(problem, rows)
    told: dict[str, Any] = {"A_ub": lines, "b_ub": most} if lines is not None else {}
    if complete:
        answer = linprog(random.random(len(rows)), A_eq=exact, b_eq=counts, bounds=(0, 1), method="highs-ds", **told)
        nothing = [np.zeros(len(count)) for count in problem.counts]
        if answer.status == 0:
            return RelaxedSolution(combinations=rows, complete=True, taken=answer.x, changes=nothing), None
    eye, number = sparse.identity(len(counts), format="csr"), len(most)
    elastic: Any = sparse.hstack([exact, eye, -eye, sparse.csr_matrix((len(counts), number))], format="csr")
    cost = np.concatenate([np.zeros(len(rows)), np.ones(2 * len(counts)), np.full(number, COST_OF_LIMIT)])
    if lines is not None:
        beyond = -sparse.identity(number, format="csr")
        told["A_ub"] = sparse.hstack([lines, sparse.csr_matrix((number, 2 * len(counts))), beyond], format="csr")
    limits = [(0, 1)] * len(rows) + [(0, None)] * (2 * len(counts) + number)
    answer = linprog(cost, A_eq=elastic, b_eq=counts, bounds=limits, method="highs-ds", **told)
    if answer.status != 0:  # HiGHS gave up
        none = [np.zeros(len(count)) for count in problem.counts]
        return RelaxedSolution(combinations=rows, complete=False, taken=None, changes=none), None
    less, more = np.split(answer.x[len(rows) : len(rows) + 2 * len(counts)], 2)
    changes = [(more - less)[a:b] for a, b in pairwise(bounds)]
    solved = answer.fun < TOLERANCE
    found = RelaxedSolution(
        combinations=rows, complete=complete or solved, taken=answer.x[: len(rows)] if solved else None, changes=changes
    )
    of_values = [answer.eqlin.marginals[a:b] for a, b in pairwise(bounds)]
    return found, DualPrices(of_values, answer.ineqlin.marginals if lines is not None else np.zeros(0))


def improving_combinations(problem: PlanConstraints, listed: np.ndarray, prices: DualPrices, number: int) -> np.ndarray:
    """The `number` combinations [n, traits] of highest worth above 0 that rules allow and that are not listed yet.

    None of them is passed over: where there is none, the programme over the listed ones has the answer of all.
    """
    shape = tuple(len(count) for count in problem.counts)
    known = np.sort(np.ravel_multi_index(np.concatenate([listed, problem.excluded]).T, shape))
    inner = int(np.prod(shape[1:]))
    found, worths = [np.zeros(0, np.int64)], [np.zeros(0)]
    for first in range(shape[0]):  # a slice of the grid of all combinations, so that memory suffices
        worth = worth_of_all_combinations(problem, prices, first).ravel()
        here = known[np.searchsorted(known, first * inner) : np.searchsorted(known, (first + 1) * inner)]
        worth[here - first * inner] = -np.inf
        good = np.flatnonzero(worth > TOLERANCE)
        if len(good) > number:
            good = good[np.argpartition(-worth[good], number)[:number]]
        found.append(good + first * inner)
        worths.append(worth[good])
    best = np.argsort(-np.concatenate(worths), kind="stable")[:number]
    return np.array(np.unravel_index(np.concatenate(found)[best], shape), np.int32).T


def worth_of_all_combinations(problem: PlanConstraints, prices: DualPrices, first_value: int) -> np.ndarray:
    """The worth of all combinations of which the first trait has the value `first_value`: [1, values of trait 1, ...].

    It is the sum of the prices of a combination's values and of the limits that it falls under; -inf where a rule for
    single slots forbids it.
    """
    shape = [1, *(len(count) for count in problem.counts[1:])]

    def grid_index_from_trait_masks(masks: dict[int, np.ndarray]) -> Any:
        """An index of the cells whose values all masks hold."""
        held = {t: mask[first_value : first_value + 1] if t == 0 else mask for t, mask in masks.items()}
        return np.ix_(*(np.flatnonzero(held.get(t, np.ones(size, bool))) for t, size in enumerate(shape)))

    def values_reshaped_along_trait_axis(values: np.ndarray, trait: int) -> np.ndarray:
        """Values of one trait, as a grid that has only that axis."""
        part = values[first_value : first_value + 1] if trait == 0 else values
        return part.reshape([-1 if t == trait else 1 for t in range(len(shape))])

    grid = np.zeros(shape)
    for trait, of_values in enumerate(prices.of_values):
        grid += values_reshaped_along_trait_axis(of_values, trait)
    lines = iter(prices.of_limits)
    for limit in problem.limits:
        grid[grid_index_from_trait_masks(limit.masks)] += next(lines) - next(lines)
    given = problem.given[(problem.given != OPEN).any(axis=1)]
    for row in np.unique(given, axis=0):
        masks = {t: np.arange(len(problem.counts[t])) == value for t, value in enumerate(row) if value != OPEN}
        grid[grid_index_from_trait_masks(masks)] -= next(lines)
    for rule in problem.forbidden:
        grid[grid_index_from_trait_masks(rule.masks)] = -np.inf
    for rule in problem.tally_rules:
        there = sum(values_reshaped_along_trait_axis(mask.astype(np.int64), t) for t, mask in rule.counted.items())
        grid[np.broadcast_to(there != values_reshaped_along_trait_axis(rule.numbers, rule.trait), shape)] = -np.inf
    return grid


def limits_as_inequalities(problem: PlanConstraints, rows: np.ndarray) -> tuple[Any, np.ndarray]:
    """(a, b) of the inequalities `a x <= b` that say the limits, where x [n] is how often each of `rows` is taken.

    a [m, n] is sparse, or None if there are no limits. A slot that is partly given is a limit too: some row must fit
    it.
    """
    lines, most = [], []
    for limit in problem.limits:
        holds = sparse.csr_matrix(limit.mask_of_rows_with_combination(rows).astype(float))
        lines += [holds, -holds]
        most += [limit.high, -limit.low]
    given = problem.given[(problem.given != OPEN).any(axis=1)]
    for row, times in zip(*np.unique(given, axis=0, return_counts=True), strict=True):
        lines.append(-sparse.csr_matrix(((row == OPEN) | (row == rows)).all(axis=1).astype(float)))
        most.append(-times)
    if not lines:
        return None, np.zeros(0)
    return sparse.vstack(lines, format="csr"), np.array(most, float)


def most_valuable_combinations(
    problem: PlanConstraints, worth: list[np.ndarray], number: int
) -> tuple[np.ndarray, np.ndarray]:
    """At most `number` combinations that keep the rules for single rows, those with the highest sums of worths that a
    beam search finds, best first; and these sums. `worth[t]` has the worth of each value of trait t.

    The beam is 4 x `number` wide, one trait at a time. Without rules for single rows these are the best of all.
    """
    rows, sums = np.zeros((1, 0), np.int32), np.zeros(1)
    for trait, prices in enumerate(worth):
        total = (sums[:, None] + prices[None]).ravel()
        kept = min(len(total), 4 * number)
        chosen = np.argpartition(-total, kept - 1)[:kept]
        chosen = chosen[np.argsort(-total[chosen], kind="stable")]
        rows = np.concatenate([rows[chosen // len(prices)], (chosen % len(prices))[:, None].astype(np.int32)], axis=1)
        sums = total[chosen]
        bad = np.zeros(len(rows), bool)
        for rule in problem.forbidden:
            if max(rule.masks) == trait:
                bad |= rule.mask_of_rows_with_combination(rows)
        rows, sums = rows[~bad], sums[~bad]
    for rule in problem.tally_rules:
        fine = rule.rows_distance_from_rule(rows) == 0
        rows, sums = rows[fine], sums[fine]
    return rows[:number], sums[:number]
