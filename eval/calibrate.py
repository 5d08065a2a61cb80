"""Calibrate a policy's line from labels: a random sample of pictures, seen by people, says where accepting is safe.

    stylegate calibrate batch=NAME policy=FILE                       picture by picture in a terminal, or calibrate.csv
    stylegate calibrate batch=NAME policy=FILE decisions=calibrate.csv
    stylegate gate batch=OTHER policy=FILE calibration=data/batches/NAME/calibration.json

For a policy one of whose checks is `calibrated`. The pictures that every other check accepts are the pool; how many of
them are labelled is settled before the first label (`promise.num_labels`). Three ways from there: above the lowest line
whose bound keeps the promise, accepted; below the line that throws away no more than `promise.discard` of good ones,
rejected unseen; between them a person decides. The bound holds at all lines at once (eval/promise/envelope.py).

calibration.json carries over to other batches of the same making, and only to those: it is bound to a fingerprint of
all that could change its meaning. Anything else is STALE (exit 12), and the way out is `stylegate certify`, which
assumes nothing of the past.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

from eval.judging.judge import pool_of
from eval.lot.batch import existing
from eval.lot.comparison import comparison_of
from eval.lot.subject import Subject, locked
from eval.policy import file as policyfile
from eval.promise import labels
from eval.promise.calibration import CALIBRATION, Plan, begun, fingerprint, line_of, want_calibrated, written
from eval.promise.labels import Label, up_to_a_gap
from eval.scorers import aesthetic
from stylegate import files
from stylegate.config import Config
from stylegate.errors import DataError, Exit

WORKSHEET = "calibrate.csv"


def calibrate(config: Config) -> int:
    """Take labels; write calibration.json once all are there. Returns 0 if a line keeps the promise, else 13."""
    policy = policyfile.read(config.policy)
    want_calibrated(policy)
    with locked(config) as subject:
        compared = comparison_of(config, subject)
        pool = pool_of(config, subject, compared, policy)
        if not pool:
            raise DataError(
                f"no picture that every other check accepts has a {policy.calibrated}: nothing to calibrate on",
                next_step="stylegate gate with the same words says why; a margin needs lines that hold pictures back.",
            )
        refuse_trained(config, pool)
        plan = begun(subject.out, pool, policy, config.promise.num_labels)
        before = labels.read(subject.out, "calibrate", under=plan.under)
        given = up_to_a_gap(plan.sample, {label.sha256: label for label in before})
        if config.decisions:
            given = taken(existing(config.decisions, "decisions"), subject.out, plan)
        elif sys.stdin.isatty():
            given = asked(subject, plan, given)
        if len(given) < len(plan.sample):
            names = {sha256: name for name, sha256 in subject.sha256.items()}
            due = plan.sample[len(given) :]
            sheet, offered = subject.out / WORKSHEET, Path(config.decisions) if config.decisions else None
            labels.worksheet(sheet, "calibrate", [(names[s], s) for s in due], offered)
            print(f"calibrate: {len(given)} of {len(plan.sample)} labels")
            print(f"next: fill in verdict and who, then the same words with decisions={files.shown(sheet)}")
            return Exit.EVIDENCE
        (subject.out / WORKSHEET).unlink(missing_ok=True)
        made = written(plan, given, policy, fingerprint(config, subject, compared, policy))
        files.write_json(subject.out / CALIBRATION, made)
        line = line_of(made, pool, made["fingerprint"], policy)
    print(f"calibrate: {line.says}")
    print(files.shown(subject.out / CALIBRATION))
    return Exit.PASS if line.state == "valid" else Exit.EVIDENCE


def refuse_trained(config: Config, pool: Mapping[str, float]) -> None:
    """A head scores the pictures that it learned from too well. Raises DataError for any of them in the pool."""
    if config.score.labels:
        learned = aesthetic.read_labels(existing(config.score.labels, "score.labels"))
        both = [name for name, path, _ in learned if files.sha256(path) in pool]
        if both:
            raise DataError(
                "pictures that the aesthetic head learned from cannot calibrate:", both[:20], "train it on others."
            )


def taken(path: Path, out: Path, plan: Plan) -> list[Label]:
    """Keep a file's labels as far as the sample goes without a gap; a file may be given again, filled further."""
    before, offered = labels.offered(path, "calibrate", out, plan.sample, under=plan.under)
    found = up_to_a_gap(plan.sample, before | offered)
    labels.keep(out, "calibrate", [label for label in found if label.sha256 not in before], under=plan.under)
    return found


def asked(subject: Subject, plan: Plan, given: list[Label]) -> list[Label]:
    """Show picture after picture and ask; each answer is kept at once."""
    for number, sha256 in enumerate(plan.sample[len(given) :], start=len(given) + 1):
        label = labels.ask(subject, sha256, f"{number} of {len(plan.sample)}")
        if label is None:
            break
        labels.keep(subject.out, "calibrate", [label], under=plan.under)
        given = [*given, label]
    return given
