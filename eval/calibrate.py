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

from eval.judging.judge import compute_calibration_pool_scores_by_sha256, judge
from eval.lot.batch import require_file
from eval.lot.compared import comparison_pictures_with_decided_ones
from eval.lot.comparison import ComparisonPictures
from eval.lot.lot import Lot, locked_lot
from eval.measuring.decided import read_decided_pictures
from eval.policy import file as policyfile
from eval.policy.model import Policy
from eval.promise import labels
from eval.promise.calibration import (
    CALIBRATION,
    CalibrationPlan,
    begin_or_resume_calibration,
    calibration_digests_by_input,
    calibration_result_for_pool,
    make_calibration,
    require_policy_has_calibrated_check,
)
from eval.promise.labels import Label, label_with_policy, labels_before_first_gap
from eval.promise.rejected import estimate_false_rejects
from eval.promise.terminal import show_picture_and_ask_label
from eval.promise.worksheet import (
    remove_worksheet,
    stored_labels_and_worksheet_labels,
    worksheet_questions,
    write_worksheet,
)
from eval.scorers import aesthetic
from stylegate import files
from stylegate.config import Config
from stylegate.errors import DataError, ExitCode
from stylegate.words import counted

WORKSHEET = "calibrate.csv"
NOT_LOOKED_AT = "how many of them are good is not known: stylegate review queue=rejected with the same arguments"


def calibrate(config: Config) -> int:
    """Read labels, or ask for them in a terminal; write calibration.json once all are there, else a worksheet. Returns
    0 if a threshold keeps the promise, else 13.
    """
    policy = policyfile.read_policy(config.policy)
    require_policy_has_calibrated_check(policy)
    with locked_lot(config) as lot:
        compared = comparison_pictures_with_decided_ones(config, lot)
        pool = calibration_pool_scores_by_sha256(config, lot, compared, policy)
        plan = begin_or_resume_calibration(lot.out, pool, policy, config.promise.num_labels)
        given = labels_before_first_gap(
            plan.pictures_to_label,
            labels.valid_labels_by_sha256(lot.out, "calibrate", policy, plan.digest_of_pool_and_policy),
        )
        for note in labels.notes_on_labels_of_other_policies(lot.out, "calibrate", policy):
            print(f"note: {note}")
        if config.decisions:
            given = store_sample_labels_from_table(require_file(config.decisions, "decisions"), lot, plan, policy)
        elif sys.stdin.isatty():
            given = ask_and_store_sample_labels(lot, plan, given, policy)
        if len(given) < len(plan.pictures_to_label):
            sheet = lot.out / WORKSHEET
            write_worksheet(
                sheet, "calibrate", worksheet_questions(lot, plan.pictures_to_label[len(given) :]), policy, lot.sha256
            )
            print(f"calibrate: {len(given)} of {counted(len(plan.pictures_to_label), 'label')}")
            print(
                "Next: run stylegate review queue=calibration with the same arguments, then this command again. Or "
                f"fill in the columns verdict and who, and add decisions={files.display_path(sheet)} to this command."
            )
            return ExitCode.EVIDENCE
        remove_worksheet(lot.out / WORKSHEET, "calibrate", lot.sha256)
        made = make_calibration(plan, given, policy, calibration_digests_by_input(config, lot, compared, policy))
        made.write_json_file(lot.out / CALIBRATION)
        line = calibration_result_for_pool(made, pool, made.fingerprint, policy)
        found = estimate_false_rejects(lot.out, judge(config, lot, compared).verdicts, policy)
        thrown_away = found.false_rejects_in_words() if found else NOT_LOOKED_AT
    print(f"calibrate: {line.says}")
    print(f"rejected pictures: {thrown_away}")
    if line.state != "valid":
        print("Next: stylegate certify with the same arguments proves this lot by itself. The labels chose no line.")
    print(files.display_path(lot.out / CALIBRATION))
    return ExitCode.PASS if line.state == "valid" else ExitCode.EVIDENCE


def calibration_pool_scores_by_sha256(
    config: Config, lot: Lot, compared: ComparisonPictures, policy: Policy
) -> dict[str, float]:
    """The calibrated score, by sha256, of each picture that every other check accepts: a calibration samples from them.

    Raises DataError if there is none, or if a reader or the aesthetic head learned from one of them.
    """
    pool = compute_calibration_pool_scores_by_sha256(config, lot, compared, policy)
    if not pool:
        raise DataError(
            f"no picture that every other check accepts has a {policy.calibrated_score_name}: nothing to calibrate on",
            next_step="stylegate gate with the same arguments says why. A margin needs other thresholds.",
        )
    require_calibration_pool_not_learned_from(config, pool, compared)
    return pool


def require_calibration_pool_not_learned_from(
    config: Config, pool: Mapping[str, float], compared: ComparisonPictures
) -> None:
    """Raises DataError if a reader or the aesthetic head learned from pictures of the pool, which it would score too
    well.

    `pool` has the calibrated score by sha256.
    """
    if compared.decided:
        learned_from = {picture.sha256 for picture in read_decided_pictures(compared.decided).record.pictures}
        if both := sorted(learned_from & pool.keys()):
            raise DataError(
                f"{counted(len(both), 'picture')} of this lot that the policy learned from cannot calibrate it",
                next_step="calibrate it on another batch, which nobody has decided about.",
            )
    if config.score.labels:
        learned = aesthetic.read_aesthetic_labels(require_file(config.score.labels, "score.labels"))
        both = [name for name, path, _ in learned if files.sha256_of_file(path) in pool]
        if both:
            raise DataError(
                "pictures that the aesthetic head learned from cannot calibrate:", both[:20], "train it on others."
            )


def store_sample_labels_from_table(path: Path, lot: Lot, plan: CalibrationPlan, policy: Policy) -> list[Label]:
    """Store the labels of a table up to the first picture of the sample that has none. Returns all labels up to there,
    those that were stored before too.

    A table may be given again when more of it is filled in.
    """
    sample = set(plan.pictures_to_label)
    pictures = {name: sha256 for name, sha256 in lot.sha256.items() if sha256 in sample}
    before, answers = stored_labels_and_worksheet_labels(
        path, "calibrate", lot.out, pictures, policy, plan.digest_of_pool_and_policy
    )
    found = labels_before_first_gap(plan.pictures_to_label, {**before, **answers})
    new = [
        label_with_policy(label, policy, under=plan.digest_of_pool_and_policy)
        for label in found
        if label.sha256 not in before
    ]
    labels.append_labels(lot.out, "calibrate", new)
    return found


def ask_and_store_sample_labels(lot: Lot, plan: CalibrationPlan, given: list[Label], policy: Policy) -> list[Label]:
    """Show picture after picture and ask; each answer is stored at once. Ends when asked to stop. Returns `given` and
    the new labels.
    """
    for number, sha256 in enumerate(plan.pictures_to_label[len(given) :], start=len(given) + 1):
        asked = show_picture_and_ask_label(
            lot,
            "calibrate",
            sha256,
            f"{number} of {len(plan.pictures_to_label)}",
            policy,
            plan.digest_of_pool_and_policy,
        )
        if asked.label is not None:
            given = [*given, asked.label]
        if asked.stop:
            break
    return given
