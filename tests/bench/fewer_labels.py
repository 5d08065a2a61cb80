"""How many labels does the gate's own ranking save, and what does a worthless one cost? And is the promise kept?

    python -m tests.bench.fewer_labels [margins=FILE] [lots=2000] [labels | ladder | broken]
        about 4 minutes each; the margins 6 more, once; exit 1 if a line is missed

Lots of 7,000, alpha = delta = 5 %; an audit stops at 800 labels. The ranked audit (eval/promise/ranked.py) beside the
even one, with the same random numbers. Where the rejects lie in the ranking: as the margins of the miniature's accepted
pictures have it (good and planted ones of tests/bench/meaning.py that the default policy accepts; kept in FILE), by
chance (worthless), or best of all (adversarial).

`fewest on average` is a bound for every valid audit, whatever it draws and bets, that knows the true risk r of each
picture and ends for certain. A lot with too many rejects may have them so that the risk is r0, of mean m just above
alpha; let r0 be such that no picture tells more than G about it: KL(r, r0) <= G for all. A label is then worth at most
G, and a valid audit has to gather log(1 / delta) on average: at least log(1 / delta) / G labels. The largest r0 that KL
allows have a mean that grows with G, so G is where it is m. (Draws are taken as independent: the lot is large.)
"""

import json
import math
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.promise import audit
from eval.promise.ranked import (
    BY_MARGIN,
    BettingStrategyParameters,
    RankedAuditDesign,
    audit_sampling_weights_by_rank,
    make_weighted_betting_wealth_function,
)
from train.miniature.styles import BRANDS

ALPHA = DELTA = 0.05
LOT, BUDGET, RUNS = 7000, 800, 400
RATES = (0.0, 0.005, 0.01, 0.02, 0.025)
TARGETS = {0.0: 60, 0.01: 80, 0.02: 120}  # labels (median) that were hoped for at a true rate, with a good ranking
AT_MOST, DEARER = 0.060, 1.1
ALL_IN = RankedAuditDesign(  # what would meet a low median at a rate of 0, without any ranking
    steepness=0,
    floor=1,
    draw=0,
    gamblers=(
        BettingStrategyParameters(share=0.8, least_doubt=0, doubt=0),
        BettingStrategyParameters(share=0.2, least_doubt=0.3, doubt=0),
    ),
)
BREADTH = 0.05  # spreads by which a margin that is drawn again is moved
Designs = tuple[RankedAuditDesign | None, ...]
Placing = Callable[[int, np.random.Generator], NDArray]  # rejects -> their places in the ranking, 0 is the best


def by_risk(size: int) -> Placing:
    """Half of the rejects in the worst tenth, three tenths in the next one, the others anywhere above."""
    risk = np.repeat([0.2 / 8] * 8 + [0.3, 0.5], math.ceil(size / 10))[-size:]
    return lambda rejects, rng: rng.choice(size, rejects, replace=False, p=risk / risk.sum())


RISKS: dict[str, Callable[[int], Placing]] = {
    "good": by_risk,
    "worthless": lambda size: lambda rejects, rng: rng.choice(size, rejects, replace=False),
    "adversarial": lambda size: lambda rejects, rng: np.arange(rejects),
}


def by_margins(good: list[float], bad: list[float], size: int) -> Placing:
    """Margins drawn again from those of good and of bad pictures."""

    def places(rejects: int, rng: np.random.Generator) -> NDArray:
        margins = np.concatenate([rng.choice(bad, rejects), rng.choice(good, size - rejects)])
        order = np.argsort(-(margins + rng.normal(0, BREADTH, size)))
        return np.flatnonzero(order < rejects)

    return places


def accepted_margins(brand: str) -> dict[str, list[float]]:
    """The margins, in spreads, of the good and of the planted pictures of a brand that the default policy accepts."""
    from stylegate.config import Config
    from tests.bench import meaning  # encodes 1,000 pictures

    good, planted = meaning.planted(brand)
    bad = [case for cases in planted.values() for case in cases]
    with tempfile.TemporaryDirectory() as place:
        least, _ = meaning.judged(good + bad, Config(brand=brand), Path(place))
    parts = {"good": least[: len(good)], "bad": least[len(good) :]}
    return {name: values[values >= 0].tolist() for name, values in parts.items()}


def labels_of_both(placing: Placing, rejects: int, count: int, rng: np.random.Generator, size: int = LOT):
    """[count] labels until certified by the ranked audit, and by the even one; BUDGET + 1 where it is not."""
    return labels_of(placing, rejects, count, rng, size, (BY_MARGIN, None), DELTA)


def labels_of(
    placing: Placing, rejects: int, count: int, rng: np.random.Generator, size: int, designs: Designs, delta: float
):
    """The same by design: [designs, count]."""
    found = [audited(placing, rejects, rng, size, designs, delta) for _ in range(count)]
    return np.array([[BUDGET + 1 if needed is None else needed for needed, _ in row] for row in found]).T


def audited(placing: Placing, rejects: int, rng: np.random.Generator, size: int, designs: Designs, delta: float):
    """(labels needed or None, rejects found by then) of one lot by each design; None is the even audit."""
    truth, times, found = np.zeros(size, int), rng.exponential(size=size), []
    truth[placing(rejects, rng)] = 1
    for design in designs:
        weights = audit_sampling_weights_by_rank(size, design) if design else np.ones(size)
        order = np.argsort(times / weights)[:BUDGET]
        bettor = make_weighted_betting_wealth_function(order.tolist(), weights, design) if design else None
        needed = audit.labels_until_proven(truth[order], size, ALPHA, delta, bettor)
        found.append((needed, int(truth[order[:needed]].sum())))
    return found


def broken_promises(placing: Placing, rejects: int, count: int, rng: np.random.Generator, size: int = LOT) -> float:
    """Share of lots that the ranked audit certifies although more than alpha of what is left of them are rejects."""
    broken = 0
    for _ in range(count):
        [(needed, found)] = audited(placing, rejects, rng, size, (BY_MARGIN,), DELTA)
        broken += needed is not None and (rejects - found) / (size - found) > ALPHA
    return broken / count


def risk_by_place(placing: Placing, rejects: int, size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """[twentieths of the ranking] the share of rejects, over 200 lots."""
    places = np.concatenate([placing(rejects, rng) for _ in range(200)])
    return np.histogram(places, 20, (0, size))[0] / 200 / (size / 20)


def fewest_on_average(risk: NDArray[np.float64], delta: float) -> float:
    """The bound of the header, for the risk in parts of the ranking that are equally large."""
    mean = (audit.num_rejects_allowed_in_lot(ALPHA, LOT) + 1) / LOT

    def divergence(r: NDArray, r0: NDArray) -> NDArray:
        with np.errstate(divide="ignore", invalid="ignore"):
            reject, good = (
                np.where(r > 0, r * np.log(r / r0), 0),
                np.where(r < 1, (1 - r) * np.log((1 - r) / (1 - r0)), 0),
            )
        return reject + good

    def bisect(low: NDArray, high: NDArray, is_low: Callable[[NDArray], NDArray]) -> NDArray:
        for _ in range(60):
            middle = (low + high) / 2
            low, high = np.where(is_low(middle), middle, low), np.where(is_low(middle), high, middle)
        return low

    def largest_null(told: float) -> NDArray:
        return bisect(risk, np.ones_like(risk), lambda r0: divergence(risk, r0) <= told)

    told = bisect(np.zeros(1), np.ones(1), lambda g: np.array([largest_null(float(g[0])).mean() <= mean]))
    return math.log(1 / delta) / float(told[0])


def fewest_without_rejects(delta: float) -> int:
    """The labels that every valid audit needs if it sees no reject: a lot may have its rejects anywhere by chance."""
    rejects, chance, count = audit.num_rejects_allowed_in_lot(ALPHA, LOT) + 1, 1.0, 0
    while chance > delta:
        chance *= 1 - rejects / (LOT - count)
        count += 1
    return count


def print_labels(kinds: dict[str, Placing], delta: float) -> list[str]:
    """Print the table of labels for the promise with `delta`; returns what was missed.

    A worthless or an adversarial ranking may cost a tenth more labels at the rates that have a target (TARGETS).
    """
    rng, missed = np.random.default_rng(24), []
    print(
        f"labels until certified, delta {delta}, {RUNS} lots of {LOT}: median, mean (at most {BUDGET}), within {BUDGET}"
    )
    print(f"  no reject seen: every valid audit needs {fewest_without_rejects(delta)}")
    for rate in RATES:
        for name, placing in kinds.items():
            rejects = round(rate * LOT)
            ranked, even = labels_of(placing, rejects, RUNS, rng, LOT, (BY_MARGIN, None), delta)
            fewest = (
                f"{fewest_on_average(risk_by_place(placing, rejects, LOT, rng), delta):5.0f}" if name in BRANDS else ""
            )
            told = [
                f"{np.median(found):5.0f} {np.minimum(found, BUDGET).mean():6.1f} {(found <= BUDGET).mean():5.2f}"
                for found in (even, ranked)
            ]
            print(f"  true rate {rate:5.1%}  {name:<12} even {told[0]}   ranked {told[1]}   fewest on average {fewest}")
            if name not in BRANDS and rate in TARGETS and np.median(ranked) > DEARER * np.median(even):
                missed.append(f"{name}, {rate:.1%}: {np.median(ranked):.0f} labels for {np.median(even):.0f}")
        [found] = labels_of(RISKS["worthless"](LOT), round(rate * LOT), RUNS, rng, LOT, (ALL_IN,), delta)
        mean = np.minimum(found, BUDGET).mean()
        print(
            f"  true rate {rate:5.1%}  all in on no reject, no ranking: {np.median(found):5.0f} {mean:6.1f}", flush=True
        )
    return missed


def print_broken(kinds: dict[str, Placing], count: int) -> list[str]:
    """Print how often the ranked audit breaks its promise; returns what was missed."""
    rng, missed = np.random.default_rng(25), []
    print(f"broken promises of {count} lots (at most {AT_MOST:.1%}):")
    for rate in (0.0502, 0.052, 0.055):
        for name, placing in kinds.items():
            share = broken_promises(placing, round(rate * LOT), count, rng)
            print(f"  true rate {rate:6.2%}  {name:<12}{share:7.2%}", flush=True)
            missed += [f"{name}, {rate:.2%}: {share:.2%}"] if share > AT_MOST else []
    share = broken_promises(by_risk(60), 4, count, rng, 60)
    print(f"  a lot of 60, 4 rejects  good{share:9.2%}")
    return missed + ([f"60: {share:.2%}"] if share > AT_MOST else [])


def main(words: list[str]) -> int:
    told = dict(word.split("=", 1) for word in words if "=" in word)
    kept = Path(told.get("margins", ""))
    margins = json.loads(kept.read_text()) if kept.is_file() else {brand: accepted_margins(brand) for brand in BRANDS}
    if "margins" in told:
        kept.write_text(json.dumps(margins))
    kinds: dict[str, Placing] = {}
    for brand, found in margins.items():
        good, bad = np.array(found["good"]), np.array(found["bad"])
        area = (good[:, None] > bad).mean()
        print(
            f"{brand}: {len(good)} good and {len(bad)} planted pictures accepted, area {area:.2f} under the ROC curve"
        )
        kinds[brand] = by_margins(found["good"], found["bad"], LOT)
    kinds |= {name: RISKS[name](LOT) for name in ("worthless", "adversarial")}
    parts, missed = {"labels", "ladder", "broken"} & set(words) or {"labels", "ladder", "broken"}, []
    for name, delta in (("labels", DELTA), ("ladder", DELTA / 2)):
        missed += print_labels(kinds, delta) if name in parts else []
    if "broken" in parts:
        of = {"good": kinds[next(iter(margins))], **{name: kinds[name] for name in ("worthless", "adversarial")}}
        missed += print_broken(of, int(told.get("lots", 2000)))
    print("\n".join(["missed:", *missed]) if missed else "every line holds")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
