"""Does the promise hold? Simulated lots whose truth is known, at the promise's edge; and how many labels it takes.

    python -m tests.bench.promise [lots=2000]        about 6 minutes on one core; exit 1 if a line is missed

alpha = delta = 5 %. In each of 2,000 lots of 7,000 (certificate, ladder) or batches of 3,000 (envelope) the share of
rejects among what would be exported must exceed alpha in at most 6.0 % (delta and two standard errors). The naive way
beside it: the lowest threshold at which 200 labels show no more than 5 % rejects. An audit stops at 800 labels.
tests.bench.promise_end_to_end does the same with pictures, on the miniature.
"""

import sys

import numpy as np
from numpy.typing import NDArray

from eval.promise import audit, envelope

ALPHA = DELTA = 0.05
LOT, BUDGET = 7000, 800
BATCH, LABELS = 3000, 200
LADDER = (1.0, 0.8, 0.6)
AT_MOST = 0.060


def lots(count: int, rejects: int, rng: np.random.Generator, size: int = LOT) -> list[NDArray[np.int64]]:
    """The labels of `count` lots in audit order: a random arrangement of rejects, cut at the budget."""
    found = []
    for _ in range(count):
        places = rng.choice(size, rejects, replace=False)
        labels = np.zeros(size, int)
        labels[places] = 1
        found.append(labels[:BUDGET])
    return found


def broken_certificates(count: int, rejects: int, rng: np.random.Generator, size: int = LOT) -> float:
    """Share of lots that are certified although more than alpha of what is left of them are rejects."""
    broken = 0
    for labels in lots(count, rejects, rng, size):
        needed = audit.labels_until_proven(labels, size, ALPHA, DELTA)
        if needed is not None:
            found = int(labels[:needed].sum())
            broken += (rejects - found) / (size - found) > ALPHA
    return broken / count


def broken_ladders(count: int, rng: np.random.Generator, size: int = LOT) -> float:
    """The same for the ladder, where every part of it holds just more than alpha."""
    broken = 0
    for _ in range(count):
        truth = np.zeros(size, int)  # best margin first
        start = 0
        for share in sorted(LADDER):
            end = round(share * size)
            enough = (
                audit.num_rejects_allowed_in_lot(ALPHA, end) + 1 + int(0.02 * end * ALPHA)
            )  # a little more, so that finds do not mend it
            truth[rng.choice(np.arange(start, end), enough - truth.sum(), replace=False)] = 1
            start = end
        order = rng.permutation(size)[: 2 * BUDGET]
        for share, delta in zip(LADDER, audit.delta_per_attempt(DELTA, len(LADDER)), strict=True):
            end = round(share * size)
            labels = truth[order[order < end]]
            needed = audit.labels_until_proven(labels, end, ALPHA, delta)
            if needed is not None:
                found = int(labels[:needed].sum())
                broken += (truth[:end].sum() - found) / (end - found) > ALPHA
                break
    return broken / count


def batch(rng: np.random.Generator, informative: bool) -> tuple[NDArray, NDArray]:
    """Scores and truth: 15 % rejects, whose scores lie two deviations below; or 5.2 %, and scores that say nothing."""
    truth = rng.random(BATCH) < (0.15 if informative else 0.052)
    return rng.normal(0, 1, BATCH) - (2.0 * truth if informative else 0.0), truth


def broken_lines(count: int, informative: bool, rng: np.random.Generator) -> dict[str, tuple[float, float]]:
    """By way of choosing a threshold: share of batches whose export holds more than alpha rejects, and mean yield."""
    found: dict[str, list[tuple[bool, float]]] = {"envelope": [], "naive": []}
    for _ in range(count):
        scores, truth = batch(rng, informative)
        labelled = np.zeros(BATCH, bool)
        labelled[rng.choice(BATCH, LABELS, replace=False)] = True
        everyone = np.ones(BATCH, bool)
        lines = {
            "envelope": envelope.accepting_threshold(scores, labelled, truth, everyone, ALPHA, DELTA),
            "naive": naive(scores[labelled], truth[labelled]),
        }
        for name, line in lines.items():
            going = scores >= (np.inf if line is None else line)
            if name == "envelope":
                going &= ~(labelled & truth)
            found[name].append((bool(going.any()) and truth[going].mean() > ALPHA, going.mean()))
    return {
        name: (float(np.mean([b for b, _ in rows])), float(np.mean([y for _, y in rows])))
        for name, rows in found.items()
    }


def naive(scores: NDArray, truth: NDArray) -> float | None:
    """What one does by eye: the lowest threshold at which the labels show alpha or less."""
    order = np.argsort(-scores)
    share = truth[order].cumsum() / np.arange(1, len(order) + 1)
    held = np.flatnonzero(share <= ALPHA)
    return float(scores[order[held[-1]]]) if len(held) else None


def main() -> int:
    count = int(next((a.removeprefix("lots=") for a in sys.argv[1:] if a.startswith("lots=")), 2000))
    rng = np.random.default_rng(7)
    missed = []

    def line(name: str, share: float, text: str = "") -> None:
        print(f"  {name:<58}{share:7.2%}  {text}")
        if share > AT_MOST:
            missed.append(f"{name}: {share:.2%}")

    print(f"broken promises of {count} lots (at most {AT_MOST:.1%}):")
    for rate in (0.0502, 0.052, 0.055, 0.06):
        line(f"certificate, true rate {rate:.2%}", broken_certificates(count, round(rate * LOT), rng))
    line("certificate, a lot of 60, 4 rejects", broken_certificates(count, 4, rng, 60))
    line("ladder of three, every part above alpha", broken_ladders(count, rng))
    for informative in (True, False):
        kind = "15 % rejects, informative" if informative else "5.2 % rejects, uninformative"
        found = broken_lines(count, informative, rng)
        line(f"envelope, {LABELS} labels, {kind}", found["envelope"][0], f"yield {found['envelope'][1]:.2f}")
        print(f"  {'naive, the same labels':<58}{found['naive'][0]:7.2%}  yield {found['naive'][1]:.2f}")
    print(f"\nlabels until certified, lots of {LOT} (median of 400; share within 200 and {BUDGET}):")
    for delta, name in ((DELTA, "one attempt"), (DELTA / 2, "first of a ladder")):
        for rate in (0.0, 0.005, 0.01, 0.02, 0.025):
            labels = lots(400, round(rate * LOT), rng)
            needed = np.array([audit.labels_until_proven(x, LOT, ALPHA, delta) or 10**6 for x in labels])
            median = f"{np.median(needed):.0f}" if np.median(needed) < 10**6 else f"over {BUDGET}"
            within = ", ".join(f"{(needed <= most).mean():.2f}" for most in (200, BUDGET))
            print(f"  {name:<20} true rate {rate:5.1%}: {median:>8}   {within}")
    if missed:
        print("missed:", *missed, sep="\n  ")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
