"""Deal the values to the slots: exact counts from the start, then swaps within a trait until every rule is kept.

Each trait is a deck with every value as often as it must come; swapping two cards of a deck keeps all counts. Swaps
that leave as many faults as before are taken too: without them the dealing gets stuck.
"""

import numpy as np

from eval.planning.problem import OPEN, CombinationLimit, PlanConstraints

ROUNDS = 1500  # rounds of swaps; a plan that has room needs 10 to 300
PATIENCE = 250  # rounds without fewer faults after which the dealing is given up
PROPOSALS = 4096  # swaps that a round looks at, at least
MANY = 2048  # swaps that a round looks at for one row, at most
PLATEAU = 0.5  # probability with which a swap that changes nothing is taken


class PlanUnderRepair:
    """A plan while swaps repair it in place: its rows [slots, traits], and how many of them have each limited
    combination.
    """

    def __init__(self, problem: PlanConstraints, random: np.random.Generator):
        self.problem, self.random = problem, random
        self.free = problem.given == OPEN
        self.marks = random_hash_of_each_value(problem, random)
        self.excluded = np.sort(row_hash_sums(problem.excluded, self.marks))
        self.rows = self.random_plan_with_exact_counts()
        self.limits = np.array(
            [limit.mask_of_rows_with_combination(self.rows).sum() for limit in problem.limits], np.int64
        )

    def random_plan_with_exact_counts(self) -> np.ndarray:
        """[slots, traits] the given cells, and the other values dealt at random so that every count is kept."""
        rows = self.problem.given.astype(np.int32)
        for trait, counts in enumerate(self.problem.counts):
            given = rows[:, trait][rows[:, trait] != OPEN]
            left = counts - np.bincount(given, minlength=len(counts))
            assert (left >= 0).all(), "more given cells than the count of a value"
            rows[self.free[:, trait], trait] = self.random.permutation(np.repeat(np.arange(len(counts)), left))
        return rows

    def broken_rules_per_row(self, rows: np.ndarray, sums: np.ndarray) -> np.ndarray:
        """[n] how far each of `rows` [n, traits] is from keeping the rules of single rows; `sums` [n] are their
        `row_hash_sums`.

        A forbidden or excluded combination adds 1; a wrong count of traits adds its distance. 0: it keeps all.
        """
        found = np.zeros(len(rows), np.int64)
        for rule in self.problem.forbidden:
            found += rule.mask_of_rows_with_combination(rows)
        for rule in self.problem.tally_rules:
            found += rule.rows_distance_from_rule(rows)
        return found + is_in_sorted(self.excluded, sums)


def random_hash_of_each_value(problem: PlanConstraints, random: np.random.Generator) -> list[np.ndarray]:
    """For each trait a random 64-bit number for each of its values, from which `row_hash_sums` are made."""
    return [random.integers(0, 2**64, len(names), np.uint64) for names in problem.values]


def row_hash_sums(rows: np.ndarray, marks: list[np.ndarray]) -> np.ndarray:
    """[n] a 64-bit sum for each of `rows` [n, traits] by the marks of its values, by which rows are told apart.

    Equal rows never have different sums. Two rows with one sum by chance are taken for the same, which costs a swap.
    """
    total = np.zeros(len(rows), np.uint64)
    for trait, of_values in enumerate(marks):
        total += of_values[rows[:, trait]]
    return total


def find_plan_by_random_swaps(
    problem: PlanConstraints, random: np.random.Generator, rounds: int = ROUNDS
) -> np.ndarray | None:
    """A plan, found by random swaps: each trait's values are dealt to the slots at random with exact counts, then pairs
    of slots exchange values until every rule is kept. Returns value numbers [slots, traits]; None after `rounds`
    rounds, or after PATIENCE rounds in a row without fewer broken rules.
    """
    table = PlanUnderRepair(problem, random)
    best, since = None, 0
    for _ in range(rounds):
        sums = row_hash_sums(table.rows, table.marks)
        order = np.argsort(sums, kind="stable")
        held = sums[order]
        twice = np.zeros(len(sums), bool)
        twice[order[1:]] = held[1:] == held[:-1]
        faults = table.broken_rules_per_row(table.rows, sums) + twice
        over = distance_from_limits(problem.limits, table.limits)
        total = int(faults.sum() + over.sum())
        if total == 0:
            return table.rows
        since = 0 if best is None or total < best else since + 1
        best = total if best is None else min(best, total)
        if since > PATIENCE:
            return None
        do_one_round_of_swaps(table, sums, held, faults)
    return None


def distance_from_limits(limits: list[CombinationLimit], counts: np.ndarray) -> np.ndarray:
    """For counts [..., limits] of limited combinations, by how much each lies below its lowest or above its highest
    count.
    """
    low, high = (np.array([getattr(limit, name) for limit in limits], np.int64) for name in ("low", "high"))
    return np.maximum(low - counts, 0) + np.maximum(counts - high, 0)


def do_one_round_of_swaps(table: PlanUnderRepair, sums: np.ndarray, held: np.ndarray, faults: np.ndarray) -> None:
    """Do one round of swaps, in place: propose some for rows that break rules, and do those that make nothing worse.
    Swaps of one round share no row.
    """
    rows, random = table.rows, table.random
    first, second, trait = propose_swaps(table, faults)
    keep = table.free[first, trait] & table.free[second, trait] & (rows[first, trait] != rows[second, trait])
    first, second, trait = first[keep], second[keep], trait[keep]
    if not len(first):
        return
    new = [rows[first], rows[second]]
    index = np.arange(len(first))
    new[0][index, trait], new[1][index, trait] = rows[second, trait], rows[first, trait]
    new_sums = [row_hash_sums(part, table.marks) for part in new]
    after = sum(
        table.broken_rules_per_row(part, part_sums) + is_in_sorted(held, part_sums)
        for part, part_sums in zip(new, new_sums, strict=True)
    )
    after += new_sums[0] == new_sums[1]
    change = after - faults[first] - faults[second]
    moved = np.zeros((len(first), len(table.problem.limits)), np.int64)
    for i, limit in enumerate(table.problem.limits):
        moved[:, i] = sum(part.astype(np.int64) for part in map(limit.mask_of_rows_with_combination, new))
        moved[:, i] -= limit.mask_of_rows_with_combination(rows[first]).astype(
            np.int64
        ) + limit.mask_of_rows_with_combination(rows[second])
    limits = table.problem.limits
    total = (
        change
        + distance_from_limits(limits, table.limits + moved).sum(axis=1)
        - distance_from_limits(limits, table.limits).sum()
    )
    order = np.lexsort((random.random(len(first)), total))
    wanted = order[(total[order] < 0) | ((total[order] == 0) & (random.random(len(order)) < PLATEAU))]
    wanted = wanted[mask_of_disjoint_swaps(wanted, first, second, new_sums)]
    refused = set()
    for i in wanted[(moved[wanted] != 0).any(axis=1)]:  # these change limits, one after the other
        before, then = (
            distance_from_limits(limits, counts).sum() for counts in (table.limits, table.limits + moved[i])
        )
        if change[i] + then - before > 0:
            refused.add(i)
        else:
            table.limits += moved[i]
    wanted = np.array([i for i in wanted if i not in refused], np.int64) if refused else wanted
    rows[first[wanted]], rows[second[wanted]] = new[0][wanted], new[1][wanted]


def mask_of_disjoint_swaps(
    wanted: np.ndarray, first: np.ndarray, second: np.ndarray, sums: list[np.ndarray]
) -> np.ndarray:
    """[n] whether each of the n wanted swaps touches no row, and makes no combination, that a swap before it does."""
    good = np.ones(len(wanted), bool)
    for one, other in ((first, second), sums):
        both = np.stack([one[wanted], other[wanted]], axis=1).ravel()
        _, begins = np.unique(both, return_index=True)
        fresh = np.zeros(len(both), bool)
        fresh[begins] = True
        good &= fresh.reshape(-1, 2).all(axis=1)
    return good


def propose_swaps(table: PlanUnderRepair, faults: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Proposed swaps as three arrays: a row that breaks a rule, another row, and the trait whose values they
    exchange.
    """
    random, problem = table.random, table.problem
    bad = np.flatnonzero(faults)
    times = int(np.clip(PROPOSALS // max(len(bad), 1), 1, MANY))
    first = np.repeat(bad, times)
    second = random.integers(0, problem.size, len(first))
    trait = random.integers(0, len(problem.traits), len(first))
    parts = [(first, second, trait)]
    for number, limit in enumerate(problem.limits):
        if table.limits[number] > limit.high:
            parts.append(swaps_away_from_combination(table, limit, table.limits[number] - limit.high))
        elif table.limits[number] < limit.low:
            parts.append(swaps_towards_combination(table, limit, limit.low - table.limits[number]))
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))  # type: ignore[return-value]


def swaps_away_from_combination(
    table: PlanUnderRepair, limit: CombinationLimit, beyond: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random swaps (first row, second row, trait; [k] each) that take a value from a row with a combination that stands
    `beyond` times too often. Not every one helps: the caller keeps those that do.
    """
    random, traits = table.random, list(limit.masks)
    inside = np.flatnonzero(limit.mask_of_rows_with_combination(table.rows))
    first = random.choice(inside, min(len(inside), 4 * beyond + 16)).repeat(8)
    return first, random.integers(0, len(table.rows), len(first)), random.choice(traits, len(first))


def swaps_towards_combination(
    table: PlanUnderRepair, limit: CombinationLimit, short: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random swaps (first row, second row, trait; [k] each) that give a row a value that it lacks of a combination,
    which stands `short` times too seldom. Not every one helps: the caller keeps those that do.
    """
    random, rows = table.random, table.rows
    has = np.stack([mask[rows[:, trait]] for trait, mask in limit.masks.items()], axis=1)
    nearest = np.flatnonzero(has.sum(axis=1) == has.sum(axis=1)[~has.all(axis=1)].max())
    first = random.choice(nearest, 4 * short + 16).repeat(8)
    lacking = (~has[first] * random.random(has[first].shape)).argmax(axis=1)
    second, traits = np.zeros_like(first), np.array(list(limit.masks))
    for i in range(len(traits)):
        owners = np.flatnonzero(has[:, i] & ~has.all(axis=1))
        these = lacking == i
        second[these] = random.choice(owners, these.sum()) if len(owners) else first[these]
    return first, second, traits[lacking]


def is_in_sorted(held: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """[n] whether each of `sums` [n] occurs in `held`, which is sorted."""
    if not len(held):
        return np.zeros(len(sums), bool)
    place = np.minimum(np.searchsorted(held, sums), len(held) - 1)
    return held[place] == sums
