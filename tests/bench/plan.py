"""Exact plans: how long they take, how near to the limit they come, and two real collections.

    python -m tests.bench.plan                                        # about 5 minutes
    python -m tests.bench.plan shared/data/collections/*.csv          # with tables of real collections

10,000 slots, 7 traits of 12 values, 40 forbidden pairs, 25 one-of-ones; 100,000 of them; plans with 0 to 2 bits of
room. Each plan is checked value by value. Seconds are CPU seconds of one core.
"""

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from eval.planning import collection, interchange
from eval.planning.feasible import entropy_margin_in_bits
from eval.planning.problem import OPEN, PlanProblem, make_plan_problem
from eval.planning.slots import slots_from_traits
from eval.planning.solve import solve_plan
from eval.planning.traits import TraitsFile
from eval.planning.traitsfile import read_traits_file
from stylegate.brandset import NO_BRAND
from stylegate.config import Config, PlanConfig
from stylegate.errors import DataError

TRAITS, VALUES, FORBIDDEN, ONES = 7, 12, 40, 25


def random_file(seed: int, size: int) -> TraitsFile:
    """Weights that fall as a power, forbidden pairs and one-of-ones at random, none of which break a pair."""
    random = np.random.default_rng([seed, size])
    traits = {
        f"t{t}": {f"v{v}": {"weight": float(random.uniform(0.5, 1.5) / (v + 1) ** 0.7)} for v in range(VALUES)}
        for t in range(TRAITS)
    }
    ones = [
        {"traits": {f"t{t}": f"only {o}" if t == o % TRAITS else f"v{random.integers(VALUES)}" for t in range(TRAITS)}}
        for o in range(ONES)
    ]
    forbid: list[dict[str, list[str]]] = []
    while len(forbid) < FORBIDDEN:
        first, second = random.choice(TRAITS, 2, replace=False)
        pair = {f"t{first}": [f"v{random.integers(VALUES)}"], f"t{second}": [f"v{random.integers(VALUES)}"]}
        if not any(all(one["traits"][t] in names for t, names in pair.items()) for one in ones):
            forbid.append(pair)
    content = {"prompt": "x", "traits": traits, "rules": {"forbid": forbid}, "one_of_ones": ones}
    return TraitsFile.model_validate(content)


def dense_file(power: float, traits: int = 4, values: int = 6) -> TraitsFile:
    """Few combinations: the steeper the weights fall, the less room there is."""
    shares = {f"v{v}": {"weight": float(1 / (v + 1) ** power)} for v in range(values)}
    return TraitsFile.model_validate({"prompt": "x", "traits": {f"t{t}": shares for t in range(traits)}})


def check(problem: PlanProblem, rows: np.ndarray) -> None:
    """Every count, rule and given cell; no combination twice."""
    assert len(np.unique(rows, axis=0)) == problem.size == len(rows)
    for trait, counts in enumerate(problem.counts):
        assert (np.bincount(rows[:, trait], minlength=len(counts)) == counts).all()
    assert not any(rule.rows_with_combination(rows).any() for rule in problem.forbidden)
    assert not any(rule.rows_distance_from_rule(rows).any() for rule in problem.trait_count_rules)
    assert ((problem.given == OPEN) | (problem.given == rows)).all()


def seconds_of_random(size: int, seeds: int) -> list[float]:
    """CPU seconds of each plan, from the file's content to checked slots with prompts."""
    found = []
    for seed in range(seeds):
        file = random_file(seed, size)
        began = time.process_time()
        slots = slots_from_traits(file, NO_BRAND, PlanConfig(num_images=size, seed=seed))
        found.append(time.process_time() - began)
        problem = make_plan_problem(file, size)
        check(problem, np.array([problem.value_numbers_of(slot.traits) for slot in slots]))
        assert sum("only" in " ".join(slot.traits.values()) for slot in slots) == ONES
    return found


def near_the_limit() -> None:
    """7 traits of 5 values, 10,000 slots: from room enough to none."""
    print("\n| bits of room | found | CPU s |\n|---|---|---|")
    for power in (0.5, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0, 1.1, 1.2):
        problem = make_plan_problem(dense_file(power, traits=7, values=5), 10_000)
        began = time.process_time()
        try:
            check(problem, solve_plan(problem, 0))
            words = "a plan"
        except DataError as error:
            words = error.summary
        print(f"| {entropy_margin_in_bits(problem):.2f} | {words} | {time.process_time() - began:.1f} |", flush=True)


def real_collection(path: Path) -> None:
    """Import, plan anew, compare the counts of every value."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "t.yaml"
        interchange.import_collection(Config(import_file=str(path), out=str(target)))
        file = read_traits_file(target)
        cells = collection.read_collection(path).items
        began = time.process_time()
        slots = slots_from_traits(file, NO_BRAND, PlanConfig(num_images=len(cells)))
        seconds = time.process_time() - began
    there = Counter(value for item in cells for values in item.values() for value in values)
    planned = Counter(value for slot in slots for value in slot.traits.values() if value != "none")
    assert there == planned and len({tuple(slot.traits.items()) for slot in slots}) == len(cells)
    print(f"| {path.stem} | {len(cells)} | {len(there)} values, all counts as they were | {seconds:.1f} |")


if __name__ == "__main__":
    for size, seeds in ((10_000, 50), (100_000, 5)):
        took = seconds_of_random(size, seeds)
        print(f"{size} slots, {seeds} seeds: CPU s at most {max(took):.2f}, middle {np.median(took):.2f}", flush=True)
    near_the_limit()
    for name in sys.argv[1:]:
        real_collection(Path(name))
