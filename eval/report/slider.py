"""The report's slider: what another line would accept, and what the labels say of it. Pure: verdicts in, numbers out.

Without a calibrated check it moves all lines of the policy at once, by spreads; 0 are the lines in force. With one it
moves that check's line alone. What a person, an audit or a check beyond its reach decided stays as it is. Everything is
computed here for each position; the page only picks from it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.policy.model import MARGIN, Policy, Promise
from eval.promise import envelope
from eval.scorers import SCORES

POSITIONS = 200  # about
NARROWEST = 0.01  # of the range, in units of the line
LOW_SHARE = 0.05  # of the pictures that a line can move: where none is accepted, what lies below is out of sight
NEVER, ALWAYS = -math.inf, math.inf
NO_LABELS = "no labels: nothing is certified; stylegate calibrate or certify"
ELSEWHERE = "the certificate speaks of the lines in force: here nothing is certified"
STALE = "the calibration is stale: nothing is certified; stylegate calibrate or certify"


@dataclass(frozen=True, slots=True)
class Slider:
    """[t] are positions of the line, rising."""

    moves: str  # a score, or "margin": all lines at once
    calibrated: bool  # the line comes from labels
    positions: NDArray[np.float64]  # [t]
    start: int  # the position in force; the last one, which accepts none, where there is no line yet
    in_force: bool
    until: list[int]  # by verdict: the last position that accepts the picture; -1 for none
    accepted: NDArray[np.int64]  # [t]
    total: int


def slider_of(
    verdicts: list[dict], values: Sequence[float | None], policy: Policy, line: float | None
) -> Slider | None:
    """`values` are the moved score of each verdict, `line` where it lies now; None if no picture can be moved."""
    lines = [reach(v, value, policy.calibrated, line) for v, value in zip(verdicts, values, strict=True)]
    moved = np.array([x for x in lines if math.isfinite(x)])
    if not len(moved):
        return None
    positions, start = places(moved, line)
    until = (np.searchsorted(positions, lines, side="right") - 1).tolist()
    accepted = (np.array(until)[:, None] >= np.arange(len(positions))).sum(0)
    return Slider(
        policy.calibrated or MARGIN,
        policy.calibrated is not None,
        positions,
        start,
        line is not None,
        until,
        accepted,
        len(verdicts),
    )


def reach(verdict: dict, value: float | None, calibrated: str | None, line: float | None) -> float:
    """The highest line that accepts the picture. Its verdict stays where the line decides nothing."""
    held = [found for found in verdict["reasons"] if found["verdict"] != "warn"]
    if verdict["verdict"] == "accept":
        answered = "settled" in verdict or ("waived" in verdict and not calibrated)
        return ALWAYS if answered or value is None else value
    if verdict["verdict"] == "error" or value is None or not all(moves(found, calibrated) for found in held):
        return NEVER
    return value if line is None else min(value, math.nextafter(line, NEVER))  # a margin is rounded, maybe up to it


def moves(found: dict, calibrated: str | None) -> bool:
    """Whether the slider moves the line that gave this reason."""
    if calibrated:
        return found["check"] == calibrated and found["score"] is not None
    return found["check"] in SCORES and found["score"] is not None and found["threshold"] is not None


def places(moved: NDArray[np.float64], line: float | None) -> tuple[NDArray[np.float64], int]:
    """Positions of a round step with the line among them, from where little is left to gain to where none is accepted.

    As far below the line as above it at most: a blank picture lies dozens of spreads below.
    """
    high = max(float(moved.max()), NEVER if line is None else line)
    origin = high if line is None else line
    if high > origin:
        low = max(min(float(moved.min()), origin), origin - (high - origin))
    else:
        low = min(float(np.quantile(moved, LOW_SHARE)), origin)
    step = round_step(max(high - low, NARROWEST) / POSITIONS)
    below, above = math.ceil((origin - low) / step), math.floor((high - origin) / step) + 1
    positions = np.array([origin + round(step * k, 10) for k in range(-below, above + 1)])
    return positions, below if line is not None else len(positions) - 1


def round_step(least: float) -> float:
    """The next of 1, 2, 2.5, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= least * (1 - 1e-9))


def bounds_of(
    slider: Slider, made: Mapping[str, Any], pool: Mapping[str, float], ours: set[str], promise: Promise
) -> NDArray[np.float64]:
    """[t] bound on the share of rejects in what each position accepts, valid at all of them at once.

    `made` is a calibration: of this pool, or of another one of the same making (eval/promise/calibrate.py: line_of).
    `pool` holds the scores of what every other check accepts, by sha256; `ours` are those that the line lets out.
    """
    scored = {row["sha256"]: float(row["score"]) for row in made["labels"]}
    bad = {row["sha256"]: row["verdict"] != "accept" for row in made["labels"]}
    everyone = pool if sorted(pool) == made["pool"] else scored | dict(pool)
    names = sorted(everyone)
    scores, labelled, rejects, leaving = (
        np.array([everyone[name] for name in names]),
        np.array([name in bad for name in names]),
        np.array([bad.get(name, False) for name in names]),
        np.array([name in ours for name in names]),
    )
    return envelope.bounds(scores, labelled, rejects, leaving, slider.positions, promise.alpha, promise.delta)


def words_of(
    slider: Slider, bounds: NDArray[np.float64] | None, num_labels: int, delta: float, unproven: Sequence[str]
) -> list[list[str]]:
    """[t] where the line lies, what it accepts, what the labels say. `unproven` says the last without a bound:
    at the line in force, and elsewhere."""
    found = []
    for i, (t, count) in enumerate(zip(slider.positions, slider.accepted, strict=True)):
        accepts = f"{count} of {slider.total} accepted: a yield of {count / slider.total:.1%}"
        if bounds is None:
            says = unproven[0] if i == slider.start else unproven[1]
        elif count == slider.accepted[-1]:
            says = "the line accepts nothing"
        elif bounds[i] >= 1:
            says = f"too many rejects among {num_labels} labels: nothing is promised here"
        else:
            share, sure = f"{bounds[i]:.1%}", f"{100 * (1 - delta):.4g}%"
            says = f"at most {share} of what it accepts are rejects, with {sure} confidence: {num_labels} labels"
        found.append([where(slider, i, float(t)), accepts, says])
    return found


def where(slider: Slider, i: int, t: float) -> str:
    if slider.calibrated:
        named = f"the line of {slider.moves} at {t:.4g}"
        if i == slider.start:
            return f"{named}, the one in force" if slider.in_force else "no line yet"
        return named
    if i == slider.start:
        return "the policy's own lines"
    return f"every line {abs(t):.3g} spreads {'higher' if t > 0 else 'lower'}"
