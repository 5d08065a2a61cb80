"""Whether best-of-n for hard slots, or batches that stay full, would pay: simulated on the yields of real batches.

    python -m tests.bench.spending BATCH ...        names of judged batches of traits; a few seconds

A slot's chance comes from its traits: the share of accepted first attempts of the pictures with each of its values
(drawn towards the share of all by PRIOR pictures), as odds multiplied over its traits. Then batches of SIZES slots are
filled SIMULATED times with ATTEMPTS for each slot at most. As today: each round draws every open slot once. Best of n:
the fifth of the slots with the lowest chance is drawn n times a round. Full batches: idle places of the last part of a
round get one more attempt at the slots that are least likely to be filled. Pictures and places are counted for each
filled slot: places cost where a part takes as long as a full one (a GPU), pictures where it does not (a CPU).
"""

import sys
from collections import defaultdict

import numpy as np

from eval.lot.batch import attempt_and_slot, read_plan
from stylegate import files

PRIOR, SIZES, SIMULATED, TOGETHER, HARD = 8, (96, 1000), 200, 16, 0.2
ATTEMPTS = 4  # of a slot, as plan.max_attempts


def chances(batch: str) -> np.ndarray:
    """[slots] the chance of each slot that an attempt is accepted, by its traits."""
    folder = files.BATCHES / batch
    rows = files.read_jsonl(folder / "verdicts.jsonl", "file", "verdict")
    first = {slot: row["verdict"] == "accept" for row in rows for n, slot in [attempt_and_slot(row["file"])] if n == 0}
    traits = {slot.slot: slot.traits for slot in read_plan(folder)}
    share = float(np.mean(list(first.values())))
    seen: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for slot, good in first.items():
        for pair in traits[slot].items():
            seen[pair].append(good)

    def odds(p: float) -> float:
        return p / (1 - p)

    factor = {
        pair: odds((sum(goods) + PRIOR * share) / (len(goods) + PRIOR)) / odds(share) for pair, goods in seen.items()
    }
    found = np.array([odds(share) * np.prod([factor[pair] for pair in traits[slot].items()]) for slot in first])
    return np.clip(found / (1 + found), 0.02, 0.98)


def filled(chance: np.ndarray, random: np.random.Generator, best_of: int, full: bool) -> tuple[int, int, int, int]:
    """(pictures, places of batches, rounds, filled slots) until each slot is filled or has used its attempts."""
    hard = chance <= np.quantile(chance, HARD)
    left = np.full(len(chance), ATTEMPTS)  # attempts of each slot; 0 once it is filled
    drawn = places = rounds = done = 0
    while (still_open := np.flatnonzero(left)).size:
        due = np.repeat(still_open, np.minimum(left[still_open], np.where(hard[still_open], best_of, 1)))
        idle = -len(due) % TOGETHER
        if full:
            left[still_open] -= np.bincount(due, minlength=len(chance))[still_open]
            spare = np.repeat(still_open, left[still_open])
            more = spare[np.argsort(chance[spare], kind="stable")][:idle]
            left[still_open] -= np.bincount(more, minlength=len(chance))[still_open]
            due, idle = np.concatenate([due, more]), idle - len(more)
        else:
            left[still_open] -= np.bincount(due, minlength=len(chance))[still_open]
        good = np.unique(due[random.random(len(due)) < chance[due]])
        left[good] = 0
        drawn, places, rounds, done = drawn + len(due), places + len(due) + idle, rounds + 1, done + len(good)
    return drawn, places, rounds, done


def main() -> None:
    print(f"| batch, yield | slots | way | pictures | places of batches of {TOGETHER} | rounds | filled |")
    print("|---|---|---|---|---|---|---|")
    for batch in sys.argv[1:]:
        chance = chances(batch)
        for size in SIZES:
            for name, best_of, full in (
                ("as today", 1, False),
                ("best of 2 for the hard fifth", 2, False),
                ("best of 4", 4, False),
                ("full batches", 1, True),
            ):
                random = np.random.default_rng(0)
                several = [filled(random.choice(chance, size), random, best_of, full) for _ in range(SIMULATED)]
                drawn, places, rounds, done = np.mean(several, axis=0)
                told = f"{drawn / done:.2f} | {places / done:.2f} | {rounds:.1f} | {done / size:.3f}"
                print(f"| {batch}, {chance.mean():.2f} | {size} | {name} | {told} |", flush=True)


if __name__ == "__main__":
    main()
