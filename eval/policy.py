"""Policies: what a picture must hold, as a file. Read with a schema, no interpolation; unknown keys are refused."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval.scorers import NEED_REFERENCES, SCORES
from stylegate import files
from stylegate.errors import DataError

VERDICTS = ("accept", "review", "reject", "error")
MIN_REFERENCES = 8  # relative thresholds need at least this many
MAX_NUMBER = 1e9  # no score comes near it
RELATIVE = ("spreads", "quantile", "copies")


@dataclass(frozen=True, slots=True)
class Threshold:
    """A number, or relative to the references; `alone` stands in where there are none.

    `foreign` lifts a relative threshold to that quantile of what pictures of other styles score, where some are known:
    a brand whose references vary widely would else have a line that nothing falls below. `copies` is a quantile of what
    altered copies of the references score.
    """

    number: float | None = None
    spreads: float | None = None
    quantile: float | None = None
    copies: float | None = None
    foreign: float | None = None
    alone: float | None = None

    @property
    def relative(self) -> bool:
        return self.number is None

    def value(
        self,
        score: str,
        references: np.ndarray | None,
        foreign: Sequence[float] = (),
        copies: Sequence[float] = (),
    ) -> float | None:
        """The number that a score is held against; None if it cannot be said (no references and no `alone`).

        `foreign` and `copies` are the percentiles 0, 1, ..., 100 of what foreign pictures, and altered copies of the
        references, score; empty where none are known.
        """
        if self.number is not None:
            return self.number
        if references is None or (self.copies is not None and not len(copies)):
            return self.alone
        if self.copies is not None:
            line = float(np.interp(100 * self.copies, range(len(copies)), copies))
        elif self.quantile is not None:
            line = float(np.quantile(references, self.quantile))
        else:
            assert self.spreads is not None
            line = float(np.median(references) + self.spreads * spread(score, references))
        if self.foreign is not None and len(foreign):
            line = max(line, float(np.interp(100 * self.foreign, range(len(foreign)), foreign)))
        return line


def spread(score: str, references: np.ndarray) -> float:
    """Half the distance from the 16th to the 84th percentile; never below the score's resolution."""
    low, high = np.quantile(references, [0.16, 0.84])
    return max(float(high - low) / 2, SCORES[score].resolution)


@dataclass(frozen=True, slots=True)
class Check:
    score: str
    reject_below: Threshold | None
    review_below: Threshold | None
    optional: bool  # left out, and said, where nothing was given that it could be computed from


@dataclass(frozen=True, slots=True)
class Policy:
    name: str
    sha256: str  # of the content in canonical form
    max_failed_share: float
    checks: list[Check]


@dataclass(frozen=True, slots=True)
class Bounds:
    """A check's thresholds as numbers for one comparison."""

    score: str
    reject_below: float | None
    review_below: float | None
    relative: bool  # rests on references


def read(name: str) -> Policy:
    """A shipped policy or a path. Raises DataError listing every problem."""
    path = files.named(name, files.POLICIES, "policy", ".yaml")
    data = files.read_yaml(path, "policy")
    problems = [f"{key}: unknown key" for key in data if key not in ("version", "max_failed_share", "checks")]
    if data.get("version") != 1 or data["version"] is True:
        problems.append(f"version: {data.get('version')!r}; this stylegate reads version 1")
    share = data.get("max_failed_share", 0.0)
    if not is_number(share) or not 0 <= share <= 1:
        problems.append(f"max_failed_share: {share!r} is not a share between 0 and 1")
    listed = data.get("checks")
    if not isinstance(listed, dict) or not listed:
        problems.append("checks: at least one is needed")
    checks = [check_of(str(k), v, problems) for k, v in listed.items()] if isinstance(listed, dict) else []
    if problems:
        raise DataError(
            f"policy {files.shown(path)}:", problems, "stylegate gate explain=true prints a policy in force."
        )
    return Policy(path.stem, files.digest(normal(data)), float(share), checks)


def check_of(score: str, spec: Any, problems: list[str]) -> Check:
    if score not in SCORES:
        problems.append(f"checks.{score}: no such score; there are {', '.join(SCORES)}")
    if not isinstance(spec, dict) or not spec:
        problems.append(f"checks.{score}: needs reject_below or review_below")
        return Check(score, None, None, False)
    if not {"reject_below", "review_below"} & set(spec):
        problems.append(f"checks.{score}: needs reject_below or review_below")
    keys = ("reject_below", "review_below", "optional")
    problems += [f"checks.{score}.{k}: unknown key" for k in spec if k not in keys]
    if not isinstance(spec.get("optional", False), bool):
        problems.append(f"checks.{score}.optional: must be true or false")
    bounds = {
        k: threshold_of(f"checks.{score}.{k}", spec[k], problems) for k in ("reject_below", "review_below") if k in spec
    }
    return Check(score, bounds.get("reject_below"), bounds.get("review_below"), spec.get("optional") is True)


def threshold_of(where: str, spec: Any, problems: list[str]) -> Threshold | None:
    if is_number(spec):
        return Threshold(number=float(spec))
    kinds = [k for k in RELATIVE if isinstance(spec, dict) and k in spec]
    if len(kinds) != 1 or set(spec) - {*RELATIVE, "foreign", "alone"} or not all(map(is_number, spec.values())):
        problems.append(
            f"{where}: must be a number, {{spreads: x}}, {{quantile: q}} or {{copies: q}}, beside it `foreign: q`, "
            "`alone: x`"
        )
        return None
    for share in ("quantile", "copies", "foreign"):
        if not 0 <= spec.get(share, 0) <= 1:
            problems.append(f"{where}.{share}: must lie in [0, 1]")
            return None
    return Threshold(**{k: float(v) for k, v in spec.items()})


def is_number(value: Any) -> bool:
    """A finite number that a score can be held against."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MAX_NUMBER


def normal(data: Any) -> Any:
    """Keys as text, as JSON has them."""
    return {str(k): normal(v) for k, v in data.items()} if isinstance(data, dict) else data


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
        own = references.get(check.score)
        enough = own if own is not None and len(own) >= MIN_REFERENCES else None
        thresholds = [t for t in (check.reject_below, check.review_below) if t]
        known = foreign.get(check.score, ()), copies.get(check.score, ())
        values = [t.value(check.score, enough, *known) if t else None for t in (check.reject_below, check.review_below)]
        relative = any(t.relative for t in thresholds)
        computed = check.score in columns and any(value is not None for value in values)
        if computed:
            bounds.append(Bounds(check.score, values[0], values[1], enough is not None and relative))
        if relative and given and enough is None and (check.score in columns or check.score in NEED_REFERENCES):
            lacking.append(check.score)
        elif not computed and not check.optional:
            impossible.append(f"{check.score}: {SCORES[check.score].does}")
        elif not computed:
            left_out.append(f"{check.score}: not computed for these pictures")
    if impossible:
        raise DataError(
            f"policy {policy.name} asks for what cannot be computed here:",
            impossible,
            "give brand= or references= (at least 8), an aesthetic head, or mark the check `optional: true`.",
        )
    if not bounds and not lacking:
        raise DataError(f"policy {policy.name} has no check that can be computed here", left_out)
    return bounds, left_out, lacking
