"""Exact plans: how long they take, how near to the limit they come, and two real collections.

    python -m tests.bench.plan                                        # about 5 minutes
    python -m tests.bench.plan shared/data/collections/*.csv          # with tables of real collections

10,000 slots, 7 traits of 12 values, 40 forbidden pairs, 25 one-of-ones; 100,000 of them; plans with 0 to 2 bits of
room. Each plan is checked value by value. Seconds are CPU seconds of one core.
"""

import contextlib
import io
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from eval.planning import collection, exact, interchange
from eval.planning.feasible import entropy_of_traits_beyond_distinct_slots
from eval.planning.problem import OPEN, PlanConstraints, make_plan_constraints
from eval.planning.slots import slots_from_traits
from eval.planning.solve import require_feasible_and_return_spare_bits, solve_plan
from eval.planning.traits import TraitsFile
from eval.planning.traitsfile import read_traits_file
from stylegate.brandset import NO_BRAND
from stylegate.config import Config
from stylegate.configgroups import PlanConfig
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


def check(problem: PlanConstraints, rows: np.ndarray) -> None:
    """Every count, rule and given cell; no combination twice."""
    assert len(np.unique(rows, axis=0)) == problem.size == len(rows)
    for trait, counts in enumerate(problem.counts):
        assert (np.bincount(rows[:, trait], minlength=len(counts)) == counts).all()
    assert not any(rule.mask_of_rows_with_combination(rows).any() for rule in problem.forbidden)
    assert not any(rule.rows_distance_from_rule(rows).any() for rule in problem.tally_rules)
    assert ((problem.given == OPEN) | (problem.given == rows)).all()


def seconds_of_random(size: int, seeds: int) -> list[float]:
    """CPU seconds of each plan, from the file's content to checked slots with prompts."""
    found = []
    for seed in range(seeds):
        file = random_file(seed, size)
        began = time.process_time()
        slots = slots_from_traits(file, NO_BRAND, PlanConfig(num_images=size, seed=seed))
        found.append(time.process_time() - began)
        problem = make_plan_constraints(file, size)
        check(problem, np.array([problem.value_numbers_of_traits(slot.traits) for slot in slots]))
        assert sum("only" in " ".join(slot.traits.values()) for slot in slots) == ONES
    return found


def near_the_limit() -> None:
    """7 traits of 5 values, 10,000 slots: from room enough to none."""
    print("\n| bits of room | found | CPU s |\n|---|---|---|")
    for power in (0.5, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0, 1.1, 1.2):
        problem = make_plan_constraints(dense_file(power, traits=7, values=5), 10_000)
        began = time.process_time()
        try:
            check(problem, solve_plan(problem, 0))
            words = "a plan"
        except DataError as error:
            words = error.summary
        print(
            f"| {entropy_of_traits_beyond_distinct_slots(problem):.2f} | {words} | {time.process_time() - began:.1f} |",
            flush=True,
        )


def file_with_limits(seed: int) -> tuple[TraitsFile, int]:
    """Few combinations with limits and forbidden pairs at random, and how many slots are asked of them."""
    random = np.random.default_rng(seed)
    shares = [np.maximum(random.dirichlet(np.ones(n)), 0.03) for n in (6, 6, 5, 4)]
    traits = {f"t{t}": {f"v{v}": {"weight": float(w)} for v, w in enumerate(row)} for t, row in enumerate(shares)}

    def pair() -> dict[str, list[str]]:
        return {f"t{t}": [f"v{random.integers(4)}"] for t in random.choice(4, 2, replace=False)}

    limits = [
        {"of": pair(), "at_least": int(random.integers(0, 5)), "at_most": int(random.integers(15, 60))}
        for _ in range(3)
    ]
    rules = {"limit": limits, "forbid": [pair() for _ in range(random.integers(6))]}
    file = TraitsFile.model_validate({"prompt": "x", "traits": traits, "rules": rules})
    return file, int(random.integers(60, 330))


def listed_in_parts(seeds: int) -> None:
    """What the programme says of problems with limits when it lists combinations as they are needed, beside all."""
    found: Counter[tuple[str, str]] = Counter()
    most = exact.MOST_LISTED
    for seed in range(seeds):
        try:
            problem = make_plan_constraints(*file_with_limits(seed))
            require_feasible_and_return_spare_bits(problem)
        except DataError:
            continue
        whole = exact.solve_relaxation(problem, np.random.default_rng(0))
        exact.MOST_LISTED = 0
        parts = exact.solve_relaxation(problem, np.random.default_rng(0))
        exact.MOST_LISTED = most
        said = "an answer" if parts.taken is not None else "proof of none" if parts.complete else "neither"
        found["possible" if whole.taken is not None else "impossible", said] += 1
    print(f"listed in parts, of {seeds} random problems with limits those that the relaxation passes: {dict(found)}")


def real_collection(path: Path) -> None:
    """Import, plan anew, compare the counts of every value."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "t.yaml"
        with contextlib.redirect_stdout(io.StringIO()):
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
    listed_in_parts(400)
    for name in sys.argv[1:]:
        real_collection(Path(name))
