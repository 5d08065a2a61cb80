"""Is the promise kept by reviewers who miss rejects? With the miss rate ignored, and with the measured one.

    python -m tests.bench.measured_eyes [lots=2000]        about 5 minutes; exit 1 if a line is missed

Lots of 7,000 at and above the promise's edge, alpha = delta = 5 %. A reviewer misses each reject with the same chance,
and is shown known rejects first; an audit in the even order stops at 800 labels. Broken: certified, and more than alpha
of what is left are true rejects. Below: labels until certified (median of 400 lots) at true rates of 0 and 1 %, by how
many known rejects were shown.
"""

import sys

import numpy as np

from eval.promise import audit, eyes
from eval.promise.eyes import KnownRejectTest

ALPHA = DELTA = 0.05
LOT, BUDGET, AT_MOST = 7000, 800, 0.060
KNOWN, MISSES, RATES = 100, (0.0, 0.1, 0.3), (0.0502, 0.055, 0.06, 0.07)


def answers(rejects: int, miss: float, rng: np.random.Generator, size: int = LOT) -> tuple[np.ndarray, np.ndarray]:
    """[BUDGET] the truth of the first pictures of a random order, and what the reviewer says (1: reject)."""
    truth = np.zeros(size, int)
    truth[rng.choice(size, rejects, replace=False)] = 1
    truth = truth[:BUDGET]
    return truth, truth * (rng.random(len(truth)) >= miss)


def broken_promises(
    rejects: int, miss: float, known: int, count: int, rng: np.random.Generator, size: int = LOT
) -> tuple[float, float]:
    """Share of lots with a broken promise: with the miss rate ignored, and with the one measured on `known` rejects."""
    broken = np.zeros(2)
    for _ in range(count):
        _, said = answers(rejects, miss, rng, size)
        seen = KnownRejectTest(known, int(rng.binomial(known, miss)))
        ways = (
            audit.labels_until_proven(said, size, ALPHA, DELTA),
            eyes.labels_until_proven_with_misses(said, size, ALPHA, DELTA, seen),
        )
        for way, needed in enumerate(ways):
            found = int(said[:needed].sum())
            broken[way] += needed is not None and (rejects - found) / (size - found) > ALPHA
    return float(broken[0] / count), float(broken[1] / count)


def labels_needed(rate: float, miss: float, known: int, count: int, rng: np.random.Generator) -> float:
    """Median number of labels until certified with the measured miss rate; infinite if most lots are not."""
    needed = []
    for _ in range(count):
        _, said = answers(round(rate * LOT), miss, rng)
        seen = KnownRejectTest(known, int(rng.binomial(known, miss)))
        needed.append(eyes.labels_until_proven_with_misses(said, LOT, ALPHA, DELTA, seen) or np.inf)
    return float(np.median(needed))


def main(words: list[str]) -> int:
    count = int(next((word.removeprefix("lots=") for word in words if word.startswith("lots=")), 2000))
    rng, missed = np.random.default_rng(240), []
    print(f"broken promises of {count} lots (measured: at most {AT_MOST:.1%}), {KNOWN} known rejects shown:")
    for miss in MISSES:
        for rate in RATES:
            ignored, measured = broken_promises(round(rate * LOT), miss, KNOWN, count, rng)
            print(
                f"  misses {miss:4.0%}, true rate {rate:6.2%}: ignored {ignored:7.2%}   measured {measured:7.2%}",
                flush=True,
            )
            missed += [f"misses {miss:.0%}, {rate:.2%}: {measured:.2%}"] if measured > AT_MOST else []
    print(
        "\nknown rejects shown: bound on the miss rate (of the expected misses); labels at a true rate of 0 and of 1 %"
    )
    for known in (30, 60, 100, 200, 400):
        for miss in MISSES:
            bound = KnownRejectTest(known, round(miss * known)).miss_rate(eyes.SHARES.miss_rate * DELTA)
            medians = [labels_needed(rate, miss, known, 400, rng) for rate in (0.0, 0.01)]
            says = ", ".join(f"{m:.0f}" if np.isfinite(m) else f"over {BUDGET}" for m in medians)
            print(f"  {known:4d}, misses {miss:4.0%}: at most {bound:6.1%}; {says}", flush=True)
    print("\n".join(["missed:", *missed]) if missed else "every line holds")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
