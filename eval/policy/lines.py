"""A policy's thresholds as numbers, for one lot and its references."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from eval.policy.model import LINES, MARGIN, Policy, spread
from eval.scorers import SCORES
from eval.scorers.entry import REFERENCES
from stylegate.errors import DataError

MIN_REFERENCES = 8  # relative thresholds need at least this many


@dataclass(frozen=True, slots=True)
class Bounds:
    """A check's thresholds as numbers for one comparison."""

    score: str
    reject_below: float | None
    review_below: float | None
    relative: bool  # rests on references
    warn_below: float | None = None
    fail_batch_below: float | None = None
    spread: float = 1.0  # of the references; the score's resolution where there are none

    def lines(self) -> dict[str, float]:
        return {name: line for name in LINES if (line := getattr(self, name)) is not None}

    def distance(self, score: float) -> float | None:
        """Spreads above the highest line that would keep a picture from being accepted; None if there is none.

        A score that is not graded, and is held, keeps no distance either.
        """
        lines = [line for name, line in self.lines().items() if LINES[name] != "warn"]
        if not lines or (score >= max(lines) and not SCORES[self.score].graded):
            return None
        return (score - max(lines)) / self.spread


def resolve(
    policy: Policy,
    columns: set[str],
    references: Mapping[str, np.ndarray],
    given: int,
    foreign: Mapping[str, Sequence[float]],
    copies: Mapping[str, Sequence[float]],
) -> tuple[list[Bounds], list[str], list[str]]:
    """Thresholds as numbers; the optional checks that are left out; checks that lack references although some were.

    `given` is the number of references that were asked for; `foreign` and `copies` hold percentiles by score, as
    in Threshold.value. Raises DataError for a check that cannot be computed and is not optional, and if no check is
    left: a policy that judges nothing would accept everything.
    """
    bounds, left_out, lacking, impossible = [], [], [], []
    for check in policy.checks:
        if check.calibrated:
            if check.score != MARGIN and check.score not in columns:
                impossible.append(f"{check.score}: {SCORES[check.score].does}")
            continue
        own = references.get(check.score)
        enough = own if own is not None and len(own) >= MIN_REFERENCES else None
        known = foreign.get(check.score, ()), copies.get(check.score, ())
        values = {name: line.value(check.score, enough, *known) for name, line in check.lines().items()}
        relative = any(line.relative for line in check.lines().values())
        computed = check.score in columns and any(value is not None for value in values.values())
        if computed:
            width = spread(check.score, enough) if enough is not None else SCORES[check.score].resolution
            settled = {"reject_below": None, "review_below": None} | values
            bounds.append(Bounds(check.score, relative=enough is not None and relative, spread=width, **settled))
        if (
            relative
            and given
            and enough is None
            and (check.score in columns or REFERENCES in SCORES[check.score].needs)
        ):
            lacking.append(check.score)
        elif not computed and not check.optional:
            impossible.append(f"{check.score}: {SCORES[check.score].does}")
        elif not computed:
            alone = relative and not given and check.score in columns
            why = (
                "its line is relative to references, and none are given" if alone else "not computed for these pictures"
            )
            left_out.append(f"{check.score}: {why}")
    if impossible:
        raise DataError(
            f"policy {policy.name} asks for what cannot be computed here:",
            impossible,
            "give brand= or references= (at least 8), an aesthetic head, or mark the check `optional: true`.",
        )
    if not bounds and not lacking and policy.calibrated is None:
        raise DataError(f"policy {policy.name} has no check that can be computed here", left_out)
    return bounds, left_out, lacking
