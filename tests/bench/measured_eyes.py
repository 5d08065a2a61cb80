"""Is the promise kept by reviewers who miss rejects? With the miss rate ignored, and with the measured one.

    python -m tests.bench.measured_eyes [lots=2000] [misses=0.1]     4 CPU minutes; exit 1 if a line is missed

Lots of 7,000 at and above the promise's edge, alpha = delta = 5 %, audited by what `certify` runs (AuditPlan.attempts)
with its known rejects, its even order and its ladder, up to 800 labels. A reviewer misses each reject with the same
chance. Broken: an attempt of the ladder is proven, and more than alpha of what is left of its part are true rejects.
`misses=` is one of the chances alone; each line has random numbers of its own, and is the same in any run.
Below: labels until the whole lot is certified (median of 200 lots) at true rates of 0 and 1 %, by how many known
rejects were hidden.
"""

import sys
from dataclasses import replace
from functools import cache

import numpy as np

from eval.policy.model import Promise
from eval.promise.auditplan import AuditPlan
from eval.promise.label import Label
from stylegate.config import Config

ALPHA = DELTA = 0.05
LOT, BUDGET, AT_MOST = 7000, 800, 0.060
KNOWN = Config().promise.known_rejects
MISSES, RATES = (0.0, 0.1, 0.3), (0.0502, 0.06, 0.07)


class Lot:
    """A lot of pictures that stand for themselves, in the order of its audit. Which of them are rejects comes later."""

    def __init__(self, size: int, known: int) -> None:
        names = [f"{number:064x}" for number in range(size + known)]
        promise = Promise(alpha=ALPHA, delta=DELTA)
        self.plan = AuditPlan(names[:size], promise, 0, known_rejects=dict.fromkeys(names[size:], names[0]))
        place = {name: number for number, name in enumerate(self.plan.lot)}
        self.order = self.plan.labelling_order[:BUDGET]
        self.places = np.array([place[name] for name in self.order])
        self.said = [(label(name, False), label(name, True)) for name in self.order]
        self.said_of_known = [(label(name, False), label(name, True)) for name in self.plan.known_rejects]

    def labels(self, said: np.ndarray) -> list[Label]:
        """The reviewer's labels of the first pictures of the order; `said` is 1 for a reject."""
        return [both[bad] for both, bad in zip(self.said, said.tolist(), strict=True)]

    def answers(self, miss: float, rng: np.random.Generator) -> list[Label]:
        """What a reviewer says of the known rejects."""
        return [both[rng.random() >= miss] for both in self.said_of_known]

    def sizes(self) -> list[int]:
        return [round(share * len(self.plan.lot)) for share in self.plan.promise.ladder]


def label(sha256: str, is_reject: bool) -> Label:
    return Label.model_construct(sha256=sha256, verdict="reject" if is_reject else "accept", who="simulated", why="")


@cache
def lot_of(size: int, known: int) -> Lot:
    return Lot(size, known)


def broken_promises(
    rejects: int, miss: float, known: int, count: int, rng: np.random.Generator, size: int = LOT, alarms: float = 0
) -> tuple[float, float]:
    """Share of lots with a broken promise: with the miss rate ignored, and with the one measured on `known` rejects.

    `alarms` is the chance that the reviewer rejects a good picture.
    """
    lot, broken = lot_of(size, known), np.zeros(2)
    trusting = replace(lot.plan, known_rejects={})
    for _ in range(count):
        truth = np.zeros(size, bool)
        truth[rng.choice(size, rejects, replace=False)] = True
        shown = truth[lot.places]
        said = shown & (rng.random(len(shown)) >= miss) | ~shown & (rng.random(len(shown)) < alarms)
        given = lot.labels(said)
        ways = (
            trusting.audit_results_for_lot_shares(given),
            lot.plan.audit_results_for_lot_shares(given, lot.answers(miss, rng)),
        )
        for way, attempts in enumerate(ways):
            broken[way] += any(
                is_broken(truth, said, lot.places, attempt.size, attempt.proven_after) for attempt in attempts
            )
    return float(broken[0] / count), float(broken[1] / count)


def is_broken(truth: np.ndarray, said: np.ndarray, places: np.ndarray, size: int, proven_after: int | None) -> bool:
    """Whether the best `size` pictures, without those that were rejected by then, hold more than alpha true rejects."""
    if proven_after is None:
        return False
    inside = np.flatnonzero(places < size)[:proven_after]
    gone = places[inside][said[inside]]
    return bool((truth[:size].sum() - truth[gone].sum()) / (size - len(gone)) > ALPHA)


def labels_needed(rate: float, miss: float, known: int, count: int, rng: np.random.Generator) -> float:
    """Median number of labels until the whole lot is certified; infinite if most lots are not."""
    lot, needed = lot_of(LOT, known), []
    for _ in range(count):
        said = (rng.random(BUDGET) < rate) & (rng.random(BUDGET) >= miss)
        needed.append(
            lot.plan.audit_results_for_lot_shares(lot.labels(said), lot.answers(miss, rng))[0].proven_after or np.inf
        )
    return float(np.median(needed))


def main(words: list[str]) -> int:
    count = int(next((word.removeprefix("lots=") for word in words if word.startswith("lots=")), 2000))
    only = [float(word.removeprefix("misses=")) for word in words if word.startswith("misses=")]
    missed = []
    print(f"broken promises of {count} lots (measured: at most {AT_MOST:.1%}), {KNOWN} known rejects hidden:")
    for miss in only or MISSES:
        for rate in RATES:
            rng = np.random.default_rng((240, round(1000 * miss), round(10_000 * rate)))
            ignored, measured = broken_promises(round(rate * LOT), miss, KNOWN, count, rng)
            print(
                f"  misses {miss:4.0%}, true rate {rate:6.2%}: ignored {ignored:7.2%}   measured {measured:7.2%}",
                flush=True,
            )
            missed += [f"misses {miss:.0%}, {rate:.2%}: {measured:.2%}"] if measured > AT_MOST else []
    if only:
        return print_missed(missed)
    print("\nlabels until certified at a true rate of 0 and of 1 %, by the number of known rejects hidden")
    for known in (30, 40, 60, 100):
        for miss in (0.0, 0.05):
            rng = np.random.default_rng((241, known, round(1000 * miss)))
            medians = [labels_needed(rate, miss, known, 200, rng) for rate in (0.0, 0.01)]
            says = ", ".join(f"{m:.0f}" if np.isfinite(m) else f"over {BUDGET}" for m in medians)
            print(f"  {known:4d}, misses {miss:4.0%}: {says}", flush=True)
    return print_missed(missed)


def print_missed(missed: list[str]) -> int:
    print("\n".join(["missed:", *missed]) if missed else "every line holds")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
