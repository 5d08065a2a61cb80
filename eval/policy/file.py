"""Reading a policy: what a picture and a lot must hold, as a file. By a schema, no interpolation, unknown keys refused.

version: 1
guideline: "what a reject is, version 3"       part of what a calibration is bound to
max_failed_share: 0.0
checks: {style: {warn_below: x, review_below: x, reject_below: x, fail_batch_below: x, optional: true}}
        {margin: calibrated}                   one check's lines may come from labels (stylegate calibrate)
batch: {acceptance: {warn_below: x, fail_below: x, optional: true}}           of the lot as a whole
waivers: [{sha256: ..., check: style, owner: ..., reason: ..., expires: 2027-01-31}]
promise: {alpha: 0.05, delta: 0.05, discard: 0.05, ladder: [1.0, 0.8, 0.6], required: false}
"""

import datetime
import re
from dataclasses import fields
from typing import Any

from eval.policy.model import (
    CALIBRATED,
    LINES,
    MARGIN,
    MAX_NUMBER,
    MEASURES,
    OUTSIDE,
    RELATIVE,
    TOO_FEW,
    Check,
    Policy,
    Promise,
    Rule,
    Threshold,
    Waiver,
)
from eval.scorers import SCORES
from stylegate import files
from stylegate.errors import DataError


def read(name: str) -> Policy:
    """A shipped policy or a path. Raises DataError listing every problem."""
    path = files.named(name, files.POLICIES, "policy", ".yaml")
    data = files.read_yaml(path, "policy")
    problems = [f"{key}: unknown key" for key in data if key not in KEYS]
    if data.get("version") != 1 or data["version"] is True:
        problems.append(f"version: {data.get('version')!r}; this stylegate reads version 1")
    share = data.get("max_failed_share", 0.0)
    if not is_number(share) or not 0 <= share <= 1:
        problems.append(f"max_failed_share: {share!r} is not a share between 0 and 1")
    listed = data.get("checks")
    if not isinstance(listed, dict) or not listed:
        problems.append("checks: at least one is needed")
    checks = [check_of(str(k), v, problems) for k, v in listed.items()] if isinstance(listed, dict) else []
    if sum(check.calibrated for check in checks) > 1:
        problems.append("checks: one check at most can be calibrated")
    guideline = data.get("guideline", "")
    if not isinstance(guideline, str):
        problems.append("guideline: must be text")
    rules = section(data, "batch", dict, problems)
    batch = [rule_of(str(name), spec, problems) for name, spec in rules.items()]
    waived = section(data, "waivers", list, problems)
    waivers = [waiver_of(f"waivers[{i}]", spec, problems) for i, spec in enumerate(waived)]
    promise = promise_of(section(data, "promise", dict, problems), problems)
    if problems:
        raise DataError(
            f"policy {files.shown(path)}:", problems, "stylegate gate explain=true prints a policy in force."
        )
    sure = [waiver for waiver in waivers if waiver]
    return Policy(path.stem, files.digest(normal(data)), float(share), checks, guideline, batch, sure, promise)


KEYS = ("version", "guideline", "max_failed_share", "checks", "batch", "waivers", "promise")


def section(data: dict[str, Any], name: str, kind: type, problems: list[str]) -> Any:
    """A part of the policy that may be missing; empty, with a problem, if it is of another form."""
    found = data.get(name, kind())
    if isinstance(found, kind):
        return found
    problems.append(f"{name}: must be a {'mapping' if kind is dict else 'list'}")
    return kind()


def rule_of(measure: str, spec: Any, problems: list[str]) -> Rule:
    where = f"batch.{measure}"
    if measure not in MEASURES:
        problems.append(f"{where}: no such measure; there are {', '.join(MEASURES)}")
    spec = spec if isinstance(spec, dict) else {}
    problems += [f"{where}.{key}: unknown key" for key in spec if key not in ("warn_below", "fail_below", "optional")]
    if not {"warn_below", "fail_below"} & set(spec):
        problems.append(f"{where}: needs warn_below or fail_below")
    for key in ("warn_below", "fail_below"):
        if not is_number(spec.get(key, 0)) or not 0 <= spec.get(key, 0) <= 2:
            problems.append(f"{where}.{key}: must be a number between 0 and 2")
    if not isinstance(spec.get("optional", False), bool):
        problems.append(f"{where}.optional: must be true or false")
    return Rule(measure, spec.get("warn_below"), spec.get("fail_below"), spec.get("optional") is True)


def waiver_of(where: str, spec: Any, problems: list[str]) -> Waiver | None:
    """A waiver, or None with its problems. Every part is needed: who waives answers for it, and not for ever."""
    names = [entry.name for entry in fields(Waiver)]
    if not isinstance(spec, dict) or set(spec) != set(names):
        problems.append(f"{where}: needs {', '.join(names)} and nothing else")
        return None
    before = len(problems)
    if not isinstance(spec["sha256"], str) or not re.fullmatch("[0-9a-f]{64}", spec["sha256"]):
        problems.append(f"{where}.sha256: must be the 64 hex digits of a picture's content")
    for name in ("owner", "reason"):
        if not isinstance(spec[name], str) or not spec[name].strip():
            problems.append(f"{where}.{name}: must be text")
    if spec["check"] not in {*SCORES, MARGIN, OUTSIDE, TOO_FEW}:
        problems.append(f"{where}.check: {spec['check']!r} is no check that can be waived")
    if type(spec["expires"]) is not datetime.date:
        problems.append(f"{where}.expires: must be a day, as 2027-01-31")
    return Waiver(**spec) if len(problems) == before else None


LONGEST_LADDER = 10  # each attempt spends half as much of delta as the one before


def promise_of(spec: dict[str, Any], problems: list[str]) -> Promise:
    known = {entry.name for entry in fields(Promise)}
    problems += [f"promise.{key}: unknown key" for key in spec if key not in known]
    before = len(problems)
    for name in ("alpha", "delta", "discard"):
        if name in spec and not (is_number(spec[name]) and 0.0005 <= spec[name] <= 0.5):
            problems.append(f"promise.{name}: must be a share between 0.0005 and 0.5")
    if "required" in spec and not isinstance(spec["required"], bool):
        problems.append("promise.required: must be true or false")
    ladder = spec.get("ladder", [1.0])
    falling = isinstance(ladder, list) and all(map(is_number, ladder)) and ladder == sorted(set(ladder), reverse=True)
    if not ladder or not falling or not all(0 < share <= 1 for share in ladder) or len(ladder) > LONGEST_LADDER:
        problems.append(f"promise.ladder: must be shares of the lot in (0, 1], falling, {LONGEST_LADDER} at most")
    if len(problems) > before:
        return Promise()
    given: dict[str, Any] = {name: value for name, value in spec.items() if name in known}
    if "ladder" in given:
        given["ladder"] = tuple(map(float, given["ladder"]))
    return Promise(**given)


def check_of(score: str, spec: Any, problems: list[str]) -> Check:
    if score not in SCORES and (score, spec) != (MARGIN, CALIBRATED):
        problems.append(f"checks.{score}: no such score; there are {', '.join(SCORES)}, and `{MARGIN}: {CALIBRATED}`")
    if spec == CALIBRATED:
        return Check(score, calibrated=True)
    spec = spec if isinstance(spec, dict) else {}
    if not set(LINES) & set(spec):
        problems.append(f"checks.{score}: needs reject_below or review_below (or warn_below, fail_batch_below)")
    problems += [f"checks.{score}.{k}: unknown key" for k in spec if k not in (*LINES, "optional")]
    if not isinstance(spec.get("optional", False), bool):
        problems.append(f"checks.{score}.optional: must be true or false")
    lines: dict[str, Any] = {k: threshold_of(f"checks.{score}.{k}", spec[k], problems) for k in LINES if k in spec}
    return Check(score, optional=spec.get("optional") is True, **lines)


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
    """Keys and days as text, as JSON has them."""
    if isinstance(data, list):
        return [normal(value) for value in data]
    if isinstance(data, datetime.date):
        return data.isoformat()
    return {str(k): normal(v) for k, v in data.items()} if isinstance(data, dict) else data


def explained(policy: Policy) -> list[str]:
    """The effective policy, for people."""
    lines = [f"policy {policy.name}", f"sha256 {policy.sha256}", f"max_failed_share {policy.max_failed_share:g}"]
    lines += [f"guideline {policy.guideline}"] if policy.guideline else []
    for check in policy.checks:
        does = SCORES[check.score].does if check.score in SCORES else "spreads above the nearest line of the others"
        lines.append(f"{check.score}: {does}")
        lines += ["    accept, review and reject by labels (stylegate calibrate)"] if check.calibrated else []
        lines += ["    left out where it cannot be computed"] if check.optional else []
        for name, threshold in check.lines().items():
            lines.append(f"    {name.removesuffix('_below').replace('_', ' ')} below {in_words(threshold)}")
    for rule in policy.batch:
        lines.append(f"batch, {rule.measure}: {MEASURES[rule.measure]}")
        for name, line in (("fail", rule.fail_below), ("warn", rule.warn_below)):
            lines += [f"    {name} below {line:g}"] if line is not None else []
    for waiver in policy.waivers:
        lines.append(f"waived until {waiver.expires}: {waiver.check} of {waiver.sha256[:12]}... by {waiver.owner}")
    needed = policy.promise.required or policy.calibrated
    ladder = ", ".join(f"{share:.0%}" for share in policy.promise.ladder)
    lines.append(f"promise{', without which nothing leaves' if needed else ', if certified'}: {policy.promise.says()}")
    lines.append(
        f"    tried for the best {ladder} of the lot; a calibration may discard {policy.promise.discard:.1%} good ones"
    )
    return lines


def in_words(threshold: Threshold) -> str:
    alone = f" ({threshold.alone:g} without references)" if threshold.alone is not None else ""
    if threshold.number is not None:
        return f"{threshold.number:g}"
    floor = f", at least the {threshold.foreign:.0%} quantile of foreign pictures" if threshold.foreign else ""
    if threshold.copies is not None:
        return f"the {threshold.copies:.0%} quantile of altered copies of the references{alone}"
    if threshold.quantile is not None:
        return f"the references' {threshold.quantile:.0%} quantile{floor}{alone}"
    return f"the references' median {threshold.spreads:+g} spreads{floor}{alone}"
