"""From a problem to a plan: refuse what cannot be, deal what has room, solve what has little."""

import numpy as np

from eval.planning import exact
from eval.planning.deal import find_plan_by_random_swaps
from eval.planning.feasible import (
    CountChanges,
    entropy_of_traits_beyond_distinct_slots,
    fewest_count_changes,
    irreducible_conflicting_rules,
)
from eval.planning.problem import PlanConstraints
from stylegate.errors import DataError

DEALS = 3  # dealings, each from a new start, before the linear programme is asked
NAMED = 12  # changes of counts that a message names


def solve_plan(problem: PlanConstraints, seed: int) -> np.ndarray:
    """[slots, traits] the number of each slot's value, with exact counts, no combination twice, every rule kept; the
    same for the same seed.

    Raises DataError where no such plan exists, with the rules that conflict and the nearest counts that do not.
    """
    room = require_feasible_and_return_spare_bits(problem)
    for start in range(DEALS):
        if (rows := find_plan_by_random_swaps(problem, np.random.default_rng([seed, start]))) is not None:
            return rows
    rows, found = exact.solve_by_linear_programme(problem, np.random.default_rng([seed, DEALS]))
    if rows is not None:
        return rows
    if found.taken is None and found.complete:
        whole = [np.rint(change).astype(np.int64) for change in found.changes]
        raise DataError(
            f"no plan of {problem.size} slots exists: a linear programme over all combinations that are allowed "
            "has no answer, not even in fractions of slots",
            needed_count_changes_in_words(problem, whole),
            advice_to_make_plan_feasible(problem, CountChanges(whole, conflicts=True, complete=True)),
        )
    raise DataError(
        f"neither a plan of {problem.size} slots nor a proof that there is none was found ({room:.2f} bits of room): "
        f"{DEALS} dealings with swaps left rules broken, and a linear programme over {len(found.combinations)} "
        f"combinations {'left slots over' if found.taken is not None else 'ended without an answer for all others'}",
        next_step="another plan.seed may find one; else take away a rule, add values or traits, or lower "
        "plan.num_images: each bit of room makes it far easier.",
    )


def require_feasible_and_return_spare_bits(problem: PlanConstraints) -> float:
    """The bits of room of a plan (`entropy_of_traits_beyond_distinct_slots`), if counts and rules do not exclude each
    other.

    Raises DataError where they do, with the rules that conflict and the nearest counts that do not.
    """
    rules = problem.forbidden + problem.limits
    found = fewest_count_changes(problem, rules)
    if found.conflicts:
        conflict = [f"{rule.place}: {rule.text}" for rule in irreducible_conflicting_rules(problem, rules)]
        conflict += needed_count_changes_in_words(problem, found.changes)
        raise DataError(
            f"no plan of {problem.size} slots keeps these together; without any one of the rules it is possible:",
            conflict,
            advice_to_make_plan_feasible(problem, found),
        )
    room = entropy_of_traits_beyond_distinct_slots(problem)
    if room < 0:
        raise DataError(
            f"{problem.size} slots cannot all be different: their traits hold {np.log2(problem.size) + room:.2f} bits, "
            f"and {problem.size} different combinations need {np.log2(problem.size):.2f}",
            next_step="add values or traits, make shares more even, or lower plan.num_images.",
        )
    return room


def needed_count_changes_in_words(problem: PlanConstraints, changes: list[np.ndarray] | None) -> list[str]:
    """A line for each trait of which counts would have to change so that a plan exists: these values and their counts
    now.
    """
    lines = []
    for t, change in enumerate(changes or []):
        told = [f"{problem.values[t][v]} {problem.counts[t][v]}" for v in np.flatnonzero(change)[:NAMED]]
        lines += [f"traits.{problem.traits[t]}: {', '.join(told)}"] if told else []
    return lines


def advice_to_make_plan_feasible(problem: PlanConstraints, found: CountChanges) -> str:
    """The sentence of an error that says how a plan becomes possible: by these counts, or else by other rules."""
    if found.changes is None and found.complete:
        return "take away one of the rules: no counts of this many slots keep them all."
    if found.changes is None:
        return "take away one of the rules: whether other counts keep them all is not known, the search was cut short."
    told = [
        f"{problem.traits[t]}: {problem.values[t][v]} {problem.counts[t][v]} -> {problem.counts[t][v] + change[v]}"
        for t, change in enumerate(found.changes)
        for v in np.flatnonzero(change)
    ]
    more = f" and {len(told) - NAMED} more" if len(told) > NAMED else ""
    which = "the nearest counts" if found.complete else "counts that keep them (whether nearer ones do is not known)"
    return f"{which}: {'; '.join(told[:NAMED])}{more}. Or take away a rule, or lower plan.num_images."
