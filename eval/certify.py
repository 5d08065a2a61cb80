"""Certify a lot: people look at accepted pictures in random order until the promise is proven.

    stylegate certify batch=NAME                       picture by picture in a terminal
    stylegate certify images=DIR references=DIR        writes audit.csv; without a terminal that is all
    stylegate certify batch=NAME decisions=audit.csv   reads its labels; exit 0 once proven, else 13

The lot is what the gate accepts now. The order is random and follows from the lot's content and the policy: whoever
does not know the rejects already cannot choose a kind one. Pictures near a line tend to come earlier, unless the
ranking tells nothing; what that saves depends on the ranking, the promise does not. Labels count under the policy and
the guideline under which they were given, and for nothing else.
A ladder of ever smaller lots (the best pictures first, policy's `promise.ladder`) is tried with the same labels; each
attempt spends its share of delta, a later lot of the same batch, or another policy, what is left. certificate.json
holds everything that a stranger needs to compute the proof again: `stylegate verify` does. Rejects that were found, and
what lies outside the certified part of the lot, are not exported.
Among the pictures lie known rejects, spoilt copies that measure how many rejects the reviewers miss; the promise is
computed with that (eval/promise/eyes.py). Small lots, or promise.known_rejects=0, take the reviewers to be right.
"""

import os
import shutil
import sys
from collections.abc import Sequence
from getpass import getuser
from pathlib import Path

from eval.judging.certified import audit_plan_and_why_this_order
from eval.judging.judge import judge, require_gate_used_same_policy, write_verdicts_and_gate_record
from eval.lot.batch import require_file
from eval.lot.lot import Lot, locked_lot
from eval.policy.model import Policy
from eval.promise import labels
from eval.promise.auditplan import (
    AuditPlan,
    AuditResultOnBestPictures,
    answers_to_known_rejects,
    audit_labels_before_first_gap,
    index_of_first_proven_attempt,
    write_audit_terms,
)
from eval.promise.certificate import CERTIFICATE, certified_digests, make_certificate, read_certificate
from eval.promise.eyes import known_reject_results_by_reviewer
from eval.promise.known_rejects import (
    FOLDER,
    audit_picture_path_by_sha256,
    pictures_with_known_rejects,
    plan_with_known_rejects_and_why,
)
from eval.promise.label import KNOWN
from eval.promise.labels import Label, label_with_policy, labels_before_first_gap
from eval.promise.terminal import ask_label_and_store, print_and_open_picture
from eval.promise.worksheet import (
    WorksheetQuestion,
    remove_worksheet,
    stored_labels_and_worksheet_labels,
    worksheet_questions,
    write_worksheet,
)
from eval.report.page import write_reports
from stylegate import files
from stylegate.config import Config
from stylegate.errors import ExitCode
from stylegate.words import counted, percentage_rounded_up

WORKSHEET = "audit.csv"


def certify(config: Config) -> int:
    """Read labels, or ask for them in a terminal. Write certificate.json once they prove the promise, else a worksheet;
    then judge the lot again. Returns 0 once the promise is proven, else 13.
    """
    with locked_lot(config) as lot:
        before = judge(config, lot, without="audit")
        policy = before.policy
        require_gate_used_same_policy(lot, policy)
        plan, why = audit_plan_and_why_this_order(
            lot.out, before.verdicts, policy, bool(lot.slots), not config.promise.known_rejects
        )
        plan, measured = plan_with_known_rejects_and_why(lot, plan, config.promise.known_rejects)
        print(f"order: {why}\nreviewers: {measured}")
        given = audit_labels_before_first_gap(lot.out, plan, policy)
        for note in labels.notes_on_labels_of_other_policies(lot.out, "audit", policy):
            print(f"note: {note}")
        write_audit_terms(lot.out, plan)  # before the first picture is shown, be it by a worksheet
        if config.decisions:
            given = store_audit_labels_from_table(require_file(config.decisions, "decisions"), lot, plan, policy)
        elif sys.stdin.isatty():
            given = ask_and_store_audit_labels(lot, plan, given, policy)
        answers = answers_to_known_rejects(lot.out, plan, policy)
        attempts = plan.audit_results_for_lot_shares(given, answers)
        proven = index_of_first_proven_attempt(attempts)
        if proven is not None:
            found = make_certificate(plan, given, attempts, proven, policy, answers=answers)
            found.write_json_file(lot.out / CERTIFICATE)
            remove_worksheet(lot.out / WORKSHEET, "audit", audited_picture_digests_by_name(lot, plan))
            shutil.rmtree(lot.out / FOLDER, ignore_errors=True)
        else:
            known = known_rejects_not_answered_by_all(plan, given, answers)
            rows = next_audit_questions(lot, plan, given, known, config.promise.num_labels)
            for row in rows:
                picture_file_to_show(lot, plan, row)
            write_worksheet(lot.out / WORKSHEET, "audit", rows, policy, audited_picture_digests_by_name(lot, plan))
        after = judge(config, lot)  # the rejects that were found leave the lot
        write_verdicts_and_gate_record(after)
        write_reports(after, config)
        code = print_audit_state(lot, plan, given, answers, attempts, proven)
    if code == ExitCode.PASS and (left := after.outcome.exit_code) != ExitCode.PASS:
        print(f"note: the gate on this lot still ends with exit code {left}; stylegate gate says why")
    return code


def audited_picture_digests_by_name(lot: Lot, plan: AuditPlan) -> dict[str, str]:
    """The sha256 of each picture of an audit, by every name that a row of a worksheet may call the picture."""
    of_audit = set(plan.lot)
    asked = {sha256: name for name, sha256 in lot.sha256.items() if sha256 in of_audit}
    if not plan.known_rejects:
        return {name: sha256 for sha256, name in asked.items()}
    paths = dict(lot.files)
    sources = {sha256: sha256 for sha256 in asked} | plan.known_rejects
    neutral = {
        name_hiding_known_rejects(lot, sha256, paths[asked[source]]): sha256 for sha256, source in sources.items()
    }
    return neutral | {name: sha256 for sha256, name in asked.items()}


def name_hiding_known_rejects(lot: Lot, sha256: str, path: Path) -> str:
    """A name for a picture, relative to the lot's results, that does not tell whether it is a known reject."""
    return audit_picture_path_by_sha256(lot.out, sha256, path).relative_to(lot.out).as_posix()


def next_audit_questions(
    lot: Lot, plan: AuditPlan, given: Sequence[Label], known: Sequence[str], count: int, who: str = ""
) -> list[WorksheetQuestion]:
    """What is asked next: about the next `count` pictures of the lot after those `given`, and about those of the
    `known` rejects (sha256, not answered yet) whose place is among them. The others come with later questions.

    `who` is the reviewer, "" where anybody may answer. Where there are known rejects, every picture has a name that
    tells nothing (see `picture_file_to_show`).
    """
    left = plan.labelling_order[len(given) :]
    if not plan.known_rejects:
        return worksheet_questions(lot, left[:count])
    paths = {lot.sha256[name]: path for name, path in lot.files}
    window = plan.fewest_labels() or len(plan.lot)
    shown = pictures_with_known_rejects(left, len(given), known, window, who, count)
    sources = worksheet_questions(lot, [plan.known_rejects.get(sha256, sha256) for sha256 in shown])
    return [
        WorksheetQuestion(name_hiding_known_rejects(lot, sha256, paths[source.sha256]), sha256, source.prompt)
        for sha256, source in zip(shown, sources, strict=True)
    ]


def picture_file_to_show(lot: Lot, plan: AuditPlan, question: WorksheetQuestion) -> Path:
    """The path of the picture to look at. Where there are known rejects, a picture of the lot is linked or copied to
    the name that tells nothing.
    """
    if not plan.known_rejects:
        return dict(lot.files)[question.file]
    place = lot.out / question.file
    if not place.exists() and question.sha256 not in plan.known_rejects:
        source = next(path for name, path in lot.files if lot.sha256[name] == question.sha256)
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, place)
        except OSError:  # another disk, or no links there
            shutil.copyfile(source, place)
    return place


def known_rejects_not_answered_by_all(plan: AuditPlan, given: Sequence[Label], answers: Sequence[Label]) -> list[str]:
    """The sha256 of the known rejects that not every reviewer so far has answered; all of them before the first
    answer. Reviewers are those who gave a label of the lot, `given`.
    """
    reviewers = {label.who for label in given} or {answer.who for answer in answers}
    lacking = [set(known_rejects_without_answer_of(plan, answers, who)) for who in reviewers or {""}]
    return [known for known in plan.known_rejects if any(known in some for some in lacking)]


def known_rejects_without_answer_of(plan: AuditPlan, answers: Sequence[Label], who: str) -> list[str]:
    """The sha256 of the known rejects that this reviewer has not answered."""
    answered = {answer.sha256 for answer in answers if answer.who == who}
    return [known for known in plan.known_rejects if known not in answered]


def store_audit_labels_from_table(path: Path, lot: Lot, plan: AuditPlan, policy: Policy) -> list[Label]:
    """Store the labels of a table up to the first picture of the order that has none, and its answers to known rejects.
    Returns all labels of the lot's pictures up to there, those that were stored before too.
    """
    before, filled_in = stored_labels_and_worksheet_labels(
        path, "audit", lot.out, audited_picture_digests_by_name(lot, plan), policy
    )
    known = {sha256: label for sha256, label in filled_in.items() if sha256 in plan.known_rejects}
    answers = {sha256: label for sha256, label in filled_in.items() if sha256 not in known}
    found = labels_before_first_gap(plan.labelling_order, {**before, **answers})
    answered = {(label.who, label.sha256) for label in answers_to_known_rejects(lot.out, plan, policy)}
    measuring = [label for label in known.values() if (label.who, label.sha256) not in answered]
    new = [label_with_policy(label, policy) for label in found if label.sha256 not in before]
    labels.append_labels(
        lot.out, "audit", [*new, *(label_with_policy(label, policy, asked_for=KNOWN) for label in measuring)]
    )
    unused = sum(label not in found for label in answers.values())
    if unused:
        lie = counted(unused, "label lies", "labels lie")
        print(f"note: {lie} beyond the first picture without one: not used yet")
    return found


def ask_and_store_audit_labels(lot: Lot, plan: AuditPlan, given: list[Label], policy: Policy) -> list[Label]:
    """Show picture after picture and ask; each answer is stored at once. Ends with the proof, or when asked to stop.
    Returns `given` and the new labels, without answers to known rejects.
    """
    promised = plan.promise.promise_sentence_part()
    print(f"{promised}: {counted(len(plan.lot), 'picture')}, labelled in random order until that is proven.")
    answers = answers_to_known_rejects(lot.out, plan, policy)
    known = known_rejects_without_answer_of(plan, answers, getuser())
    rows = next_audit_questions(lot, plan, given, known, len(plan.lot), getuser())
    for number, question in enumerate(rows, start=len(given) + 1):
        attempts = plan.audit_results_for_lot_shares(given, answers)
        if index_of_first_proven_attempt(attempts) is not None:
            break
        bound = min(attempt.bound for attempt in attempts)
        progress = f"{number} (bound so far {percentage_rounded_up(bound)})"
        print_and_open_picture(picture_file_to_show(lot, plan, question), question.prompt, progress)
        is_known = question.sha256 in plan.known_rejects
        asked = ask_label_and_store(lot.out, "audit", question.sha256, policy, asked_for=KNOWN if is_known else "")
        if asked.label is not None and is_known:
            answers = [*answers, asked.label]
        elif asked.label is not None:
            given = [*given, asked.label]
        if asked.stop:
            break
    return given


def print_audit_state(
    lot: Lot,
    plan: AuditPlan,
    given: Sequence[Label],
    answers: Sequence[Label],
    attempts: Sequence[AuditResultOnBestPictures],
    proven: int | None,
) -> int:
    """Print the state of the audit. Returns the exit code: 0 if the promise is proven, else 13."""
    bad, spent = sum(label.is_reject for label in given), 1 - 0.5**plan.earlier
    print(f"promise: {plan.promise.promise_sentence_part()}")
    if plan.earlier:
        one, many = "attempt at another lot of this batch has", "attempts at other lots of this batch have"
        print(f"note: {counted(plan.earlier, one, many)} spent {spent:.0%} of delta")
    for attempt in attempts:
        after, size = attempt.proven_after, attempt.size
        state = f"proven after {after}" if after else f"bound {percentage_rounded_up(attempt.bound)}"
        found = f"{counted(attempt.labels, 'label')}, {counted(attempt.rejects, 'reject')}"
        print(f"  best {size} of {len(plan.lot)}: {found}, {state}")
    for who, test in (
        known_reject_results_by_reviewer(plan.known_rejects, given, answers).items() if plan.known_rejects else ()
    ):
        left = test.shown - sum(answer.who == who for answer in answers)
        shown = f"; {counted(left, 'other')} not answered yet, which count as missed" if left else ""
        print(f"  {who}: {test.missed - left} of {test.shown - left} known rejects not seen{shown}")
    if proven is None:
        print(f"certify: not proven yet with {counted(len(given), 'label')}, {counted(bad, 'reject')} among them")
        if len(given) == len(plan.lot) and not known_rejects_not_answered_by_all(plan, given, answers):
            print(
                "Every picture was looked at, and reviewers with these eyes may still have missed too many rejects. "
                "Next: raise the policy's lines; or promise.known_rejects=0 with the same arguments, which takes the "
                "reviewers to be right, and says so in the certificate"
            )
            return ExitCode.EVIDENCE
        worksheet = files.display_path(lot.out / WORKSHEET)
        print(
            "Next: run stylegate review queue=audit with the same arguments, then this command again. Or fill in the "
            f"columns verdict and who, and add decisions={worksheet} to this command."
        )
        return ExitCode.EVIDENCE
    found = read_certificate(lot.out / CERTIFICATE)
    out = len(certified_digests(found))
    print(f"certify: proven: {found.proven_claim_in_words()}")
    print(f"reviewers: {found.missed_known_rejects_in_words()}")
    stay = counted(len(plan.lot) - out - bad, "other")
    print(f"{counted(out, 'picture')} may leave, {counted(bad, 'reject')} found and {stay} stay")
    print(files.display_path(lot.out / CERTIFICATE))
    return ExitCode.PASS
