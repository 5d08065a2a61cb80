"""Reading a policy file by its model (eval/policy/model.py). Nothing is interpolated; unknown keys are refused.

version: 1
guideline: "what a reject is, version 3"       part of what a calibration is bound to
max_failed_share: 0.0
checks: {style: {warn_below: x, review_below: x, reject_below: x, fail_batch_below: x, optional: true}}
        {margin: calibrated}                   one check's lines may come from labels (stylegate calibrate)
batch: {acceptance: {warn_below: x, fail_below: x, optional: true}}           of the lot as a whole
waivers: [{sha256: ..., check: style, owner: ..., reason: ..., expires: 2027-01-31}]
promise: {alpha: 0.05, delta: 0.05, discard: 0.05, ladder: [1.0, 0.8, 0.6], required: false}
learnt: {file: decided-1a2b3c4d.safetensors, sha256: ...}                what stylegate learn wrote
"""

import datetime
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from eval.policy.model import (
    CALIBRATED,
    LINES,
    MARGIN,
    MEASURES,
    Policy,
    PolicyCheck,
    PolicyFile,
    Threshold,
    can_score_fall_below,
)
from eval.scorers import SCORES
from stylegate import files, records
from stylegate.errors import DataError
from stylegate.words import percentage_rounded_up


def read_policy(name: str) -> Policy:
    """The policy of a name in data/policies/ or of a path. Raises DataError listing every problem of the file, and
    ConfigError if there is no such file.
    """
    path = policy_path(name)
    data = with_keys_as_text(files.read_yaml(path, "policy"))
    problems = [f"{records.field_path_as_message_prefix(place)}is empty" for place in key_paths_of_empty_values(data)]
    content = None
    try:
        content = PolicyFile.model_validate(data)
    except ValidationError as error:
        problems += records.validation_problems(error)
    problems += problems_between_checks(checks_valid_on_their_own(data.get("checks")), all_given=content is not None)
    if problems or content is None:
        raise DataError(
            f"policy {files.display_path(path)}:", problems, "stylegate gate explain=true prints a policy in force."
        )
    rules = {name: part for name, part in data.items() if name != "waivers"}
    return Policy(name=path.stem, sha256=files.canonical_sha256(with_dates_as_text(rules)), **dict(content))


def policy_path(name: str) -> Path:
    """The path of a policy file that is named in data/policies/ or given as a path. Raises ConfigError if there is
    none.
    """
    return files.resolve_name_or_path(name, files.POLICIES, "policy", ".yaml")


def with_keys_as_text(data: Any) -> Any:
    """YAML data in which every key is text, as in JSON."""
    if isinstance(data, list):
        return [with_keys_as_text(value) for value in data]
    return {str(k): with_keys_as_text(v) for k, v in data.items()} if isinstance(data, dict) else data


def with_dates_as_text(data: Any) -> Any:
    """YAML data in which every date is the text YYYY-MM-DD, as in JSON."""
    if isinstance(data, list):
        return [with_dates_as_text(value) for value in data]
    if isinstance(data, dict):
        return {key: with_dates_as_text(value) for key, value in data.items()}
    return data.isoformat() if isinstance(data, datetime.date) else data


def key_paths_of_empty_values(data: Any, place: tuple[int | str, ...] = ()) -> Iterator[tuple[int | str, ...]]:
    """Yield the path (keys and list indices) of every key or list entry without a value; a policy must not have any."""
    entries = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in entries:
        if value is None:
            yield (*place, key)
        yield from key_paths_of_empty_values(value, (*place, key))


def checks_valid_on_their_own(listed: Any) -> dict[str, PolicyCheck]:
    """The checks that are valid on their own, by score, of `listed`, the `checks` of a policy file; the others are left
    out.
    """
    sound = {}
    for name, spec in listed.items() if isinstance(listed, dict) else ():
        try:
            sound[name] = PolicyCheck.model_validate(spec)
        except ValidationError:
            continue
    return {name: check for name, check in sound.items() if name in {*SCORES, MARGIN}}


def problems_between_checks(checks: Mapping[str, PolicyCheck], all_given: bool) -> list[str]:
    """Sentences on what is wrong with checks that are each valid; `all_given` says that these are all the checks of the
    file.
    """
    problems = []
    for score, check in checks.items():
        if score == MARGIN and not check.calibrated:
            problems.append(f"checks.{MARGIN}: has no lines of its own; write `{MARGIN}: {CALIBRATED}`")
            continue
        for name, line in check.threshold_by_key().items():
            for number in (line.number, line.alone):
                if number is not None and not can_score_fall_below(score, number):
                    lowest = SCORES[score].lowest
                    problems.append(
                        f"checks.{score}.{name}: nothing falls below {number:g}, since {score} begins at {lowest:g}"
                    )
        problems += problems_of_ineffective_thresholds(score, check)
    if sum(check.calibrated for check in checks.values()) > 1:
        problems.append("checks: one check at most can be calibrated")
    if all_given and not any(can_keep_from_acceptance(check) for check in checks.values()):
        problems.append("checks: hold no picture back; one needs reject_below, review_below or fail_batch_below")
    return problems


def problems_of_ineffective_thresholds(score: str, check: PolicyCheck) -> list[str]:
    """A sentence for each line of a check below which a picture is always below a worse line too."""
    lines = list(check.threshold_by_key().items())  # the worst consequence first
    return [
        f"checks.{score}.{name}: never acts, since what is below it is below {worse} already; write a higher number"
        for (worse, above), (name, line) in pairwise(lines)
        if LINES[name] != "warn" and line.is_always_below_other_line(above)
    ]


def can_keep_from_acceptance(check: PolicyCheck) -> bool:
    """Whether the check can keep a picture from being accepted. A warning cannot."""
    return check.calibrated or any(LINES[name] != "warn" for name in check.threshold_by_key())


def policy_in_words(policy: Policy, path: Path) -> list[str]:
    """What the policy in the file `path` asks for, in words, one line each: name, digest, checks, rules, waivers,
    promise.
    """
    lines = [f"policy {policy.name}", f"file {files.display_path(path)}", f"sha256 {policy.sha256}"]
    lines.append(f"max_failed_share {policy.max_failed_share:g}")
    lines += [f"guideline {policy.guideline}"] if policy.guideline else []
    for score, check in policy.checks.items():
        does = SCORES[score].description if score in SCORES else "spreads above the nearest line of the others"
        lines.append(f"{score}: {does}")
        lines += ["    accept, review and reject by labels (stylegate calibrate)"] if check.calibrated else []
        lines += ["    left out where it cannot be computed"] if check.optional else []
        for name, threshold in check.threshold_by_key().items():
            lines.append(f"    {name.removesuffix('_below').replace('_', ' ')} below {threshold_in_words(threshold)}")
    for measure, rule in policy.batch.items():
        lines.append(f"batch, {measure}: {MEASURES[measure]}")
        for name, line in (("fail", rule.fail_below), ("warn", rule.warn_below)):
            lines += [f"    {name} below {line:g}"] if line is not None else []
    if policy.learnt:
        lines.append(
            f"readers learn from the decided pictures in {policy.learnt.file} ({policy.learnt.sha256[:12]}...)"
        )
    for waiver in policy.waivers:
        lines.append(f"waived until {waiver.expires}: {waiver.check} of {waiver.sha256[:12]}... by {waiver.owner}")
    needed = policy.promise.required or policy.calibrated_score_name
    discard = percentage_rounded_up(policy.promise.discard)
    ladder = ", ".join(map(exact_percentage, policy.promise.ladder))
    when = ", without which nothing leaves" if needed else ", if certified"
    lines.append(f"promise{when}: {policy.promise.promise_sentence_part()}")
    lines.append(f"    tried for the best {ladder} of the lot; a calibration may discard {discard} good ones")
    return lines


def threshold_in_words(threshold: Threshold) -> str:
    """A threshold in words, such as "0.5" or "the references' 1% quantile", to be read after "reject below"."""
    alone = f" ({threshold.alone:g} without references)" if threshold.alone is not None else ""
    if threshold.number is not None:
        return f"{threshold.number:g}"
    keep, foreign = threshold.keep, threshold.foreign
    floor = f", and at most what {exact_percentage(keep)} of them reach" if keep is not None else ""
    floor += f", at least the {exact_percentage(foreign)} quantile of foreign pictures" if foreign is not None else ""
    if threshold.copies is not None:
        return f"the {exact_percentage(threshold.copies)} quantile of altered copies of the references{floor}{alone}"
    if threshold.quantile is not None:
        return f"the references' {exact_percentage(threshold.quantile)} quantile{floor}{alone}"
    return f"the references' median {threshold.spreads:+g} spreads{floor}{alone}"


def exact_percentage(share: float) -> str:
    """A share, 0 to 1, as it is written in the policy: 99.5%, never rounded to 100%."""
    return f"{100 * share:.10g}%"
