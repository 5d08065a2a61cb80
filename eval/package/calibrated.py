"""The proof of a package whose promise rests on a calibration: labels, scores and pictures, computed again."""

from pathlib import Path

from eval.policy.model import CALIBRATED, Policy, PolicyCheck, Promise, is_int_or_float_within_limit
from eval.promise import calibration
from eval.promise.calibration import CALIBRATION, CalibrationResult
from stylegate import files
from stylegate.errors import DataError

POOL = "pool.json"  # the calibrated score, by sha256, of the pictures that every other check accepted
WHAT = "the calibration"


def recompute_calibration(package: Path) -> tuple[CalibrationResult, Policy, set[str]]:
    """The line that the package's labels and scores lead to, the terms of its policy that they rest on, and the sha256
    of the pictures that reach the line.

    Raises DataError if calibration.json or pool.json is missing or damaged.
    """
    made, terms = calibration.read_calibration(package / CALIBRATION), files.read_json(package / CALIBRATION, WHAT)
    pool = files.read_json(package / POOL, "the calibrated scores of the lot")
    if not pool or not all(is_int_or_float_within_limit(score) for score in pool.values()):
        raise DataError(f"{POOL}: it must give a number for each picture")
    promise = Promise(**{name: terms["promise"][name] for name in ("alpha", "delta", "discard")})
    named, checks = terms["policy"], {terms["score"]: PolicyCheck.model_validate(CALIBRATED)}
    policy = Policy(version=1, name=named["name"], sha256=named["sha256"], checks=checks, promise=promise)
    line = calibration.calibration_result_for_pool(made, pool, {}, policy)
    lowest = line.bound.review_below if line.bound else None
    return line, policy, {sha256 for sha256, score in pool.items() if lowest is not None and score >= lowest}


def calibration_problems_and_proven_claim(
    package: Path, policy_sha256: str, pictures: set[str]
) -> tuple[list[str], str]:
    """(problems, claim): sentences on why the calibration does not prove the promise for `pictures` (sha256), and what
    it proves, in words; "" where it cannot be computed.
    """
    try:
        line, policy, above = recompute_calibration(package)
    except (DataError, KeyError, TypeError, ValueError) as error:
        return [str(error) if isinstance(error, DataError) else f"{CALIBRATION}: {error}"], ""
    problems = []
    if line.state != "valid":
        problems.append(f"the labels of {CALIBRATION} and the scores of {POOL} prove nothing: {line.says}")
    if policy.sha256 != policy_sha256:
        problems.append(f"{CALIBRATION} is of another policy than the one that judged")
    if line.rejects & pictures:
        problems.append(f"{len(line.rejects & pictures)} of the pictures were labelled rejects")
    if line.hidden > policy.promise.alpha * len(pictures) + 1e-9:
        problems.append(f"the bound of {CALIBRATION} does not hold for so few pictures")
    others = len(pictures - above)
    more = f"; of {others} of the pictures it says nothing: people accepted those" if others else ""
    return problems, f"valid: {line.says} (labels and scores are those that the package states{more})"
