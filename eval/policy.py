"""Policies: what a picture must hold, as a file. Read with a schema, no interpolation; unknown keys are refused."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

from eval.scorers import SCORES
from stylegate import files
from stylegate.errors import DataError

MIN_REFERENCES = 8  # relative thresholds need at least this many
RELATIVE = ("spreads", "quantile")


@dataclass(frozen=True, slots=True)
class Threshold:
    """A number, or relative to the references; `alone` stands in where there are none."""

    number: float | None = None
    spreads: float | None = None
    quantile: float | None = None
    alone: float | None = None

    @property
    def relative(self) -> bool:
        return self.number is None

    def value(self, score: str, references: np.ndarray | None) -> float | None:
        """The number that a score is held against; None if it cannot be said (no references and no `alone`)."""
        if self.number is not None:
            return self.number
        if references is None:
            return self.alone
        if self.quantile is not None:
            return float(np.quantile(references, self.quantile))
        assert self.spreads is not None
        return float(np.median(references) + self.spreads * spread(score, references))


def spread(score: str, references: np.ndarray) -> float:
    """Half the distance from the 16th to the 84th percentile; never below the score's resolution."""
    low, high = np.quantile(references, [0.16, 0.84])
    return max(float(high - low) / 2, SCORES[score].resolution)


@dataclass(frozen=True, slots=True)
class Check:
    score: str
    reject_below: Threshold | None
    review_below: Threshold | None


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
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, IsADirectoryError) as error:
        raise DataError(f"policy {files.shown(path)} is not YAML: {error}") from None
    if not isinstance(data, dict):
        raise DataError(f"policy {files.shown(path)} must be a mapping of version, max_failed_share, checks")
    problems = [f"{key}: unknown key" for key in data if key not in ("version", "max_failed_share", "checks")]
    if data.get("version") != 1:
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
    return Policy(path.stem, files.digest(data), float(share), checks)


def check_of(score: str, spec: Any, problems: list[str]) -> Check:
    if score not in SCORES:
        problems.append(f"checks.{score}: no such score; there are {', '.join(SCORES)}")
    if not isinstance(spec, dict) or not spec:
        problems.append(f"checks.{score}: needs reject_below or review_below")
        return Check(score, None, None)
    problems += [f"checks.{score}.{k}: unknown key" for k in spec if k not in ("reject_below", "review_below")]
    bounds = {
        k: threshold_of(f"checks.{score}.{k}", spec[k], problems) for k in ("reject_below", "review_below") if k in spec
    }
    return Check(score, bounds.get("reject_below"), bounds.get("review_below"))


def threshold_of(where: str, spec: Any, problems: list[str]) -> Threshold | None:
    if is_number(spec):
        return Threshold(number=float(spec))
    kinds = [k for k in RELATIVE if isinstance(spec, dict) and k in spec]
    if len(kinds) != 1 or set(spec) - {*RELATIVE, "alone"} or not all(map(is_number, spec.values())):
        problems.append(f"{where}: must be a number, {{spreads: x}} or {{quantile: q}}, with `alone: x` if wanted")
        return None
    if not 0 <= spec.get("quantile", 0) <= 1:
        problems.append(f"{where}.quantile: must lie in [0, 1]")
        return None
    return Threshold(**{k: float(v) for k, v in spec.items()})


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def resolve(policy: Policy, columns: set[str], references: Mapping[str, np.ndarray]) -> tuple[list[Bounds], list[str]]:
    """The thresholds as numbers, and the checks that are left out, with the reason."""
    bounds, left_out = [], []
    for check in policy.checks:
        own = references.get(check.score)
        enough = own if own is not None and len(own) >= MIN_REFERENCES else None
        given = [t for t in (check.reject_below, check.review_below) if t]
        values = [t.value(check.score, enough) if t else None for t in (check.reject_below, check.review_below)]
        if check.score not in columns:
            left_out.append(f"{check.score}: not computed for these pictures")
        elif all(value is None for value in values):
            left_out.append(f"{check.score}: needs at least {MIN_REFERENCES} references")
        else:
            relative = enough is not None and any(t.relative for t in given)
            bounds.append(Bounds(check.score, values[0], values[1], relative))
    return bounds, left_out
