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
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from eval.judging.certified import plan_audit
from eval.judging.judge import judge, write_verdicts_and_gate_record
from eval.lot.batch import require_file
from eval.lot.lot import Lot, locked_lot
from eval.policy.model import Policy, largest_percentage
from eval.promise import labels
from eval.promise.certificate import (
    CERTIFICATE,
    AuditAttempt,
    AuditPlan,
    audit_labels_before_first_gap,
    certified_digests,
    index_of_first_proven,
    make_certificate,
    read_certificate,
    write_audit_terms,
)
from eval.promise.labels import Label, label_with_policy, labels_before_first_gap
from eval.promise.terminal import show_picture_and_ask_label
from eval.promise.worksheet import stored_and_new_labels, worksheet_questions, write_worksheet
from eval.report.page import write_reports
from stylegate import files
from stylegate.config import Config
from stylegate.errors import Exit
from stylegate.words import counted

WORKSHEET = "audit.csv"


def certify(config: Config) -> int:
    """Read labels, prove the promise or print what is missing. Returns 0 once the promise is proven, else 13."""
    with locked_lot(config) as lot:
        before = judge(config, lot, without="audit")
        policy = before.policy
        plan, why = plan_audit(lot.out, before.verdicts, policy, bool(lot.slots))
        print(f"order: {why}")
        given = audit_labels_before_first_gap(lot.out, plan, policy)
        for note in labels.notes_on_labels_of_other_policies(lot.out, "audit", policy):
            print(f"note: {note}")
        if config.decisions:
            given = store_labels_from_table(require_file(config.decisions, "decisions"), lot, plan, policy)
        elif sys.stdin.isatty():
            given = ask_and_store_labels(lot, plan, given, policy)
        write_audit_terms(lot.out, plan)  # a worksheet shows pictures too
        attempts = plan.proof_attempts(given)
        proven = index_of_first_proven(attempts)
        if proven is not None:
            make_certificate(plan, given, attempts, proven, policy).write(lot.out / CERTIFICATE)
            (lot.out / WORKSHEET).unlink(missing_ok=True)
        else:
            next_ones = plan.labelling_order[len(given) : len(given) + config.promise.num_labels]
            write_worksheet(lot.out / WORKSHEET, "audit", worksheet_questions(lot, next_ones), policy, lot.sha256)
        after = judge(config, lot)  # the rejects that were found leave the lot
        write_verdicts_and_gate_record(after)
        write_reports(after, config)
        code = print_result(lot, plan, given, attempts, proven)
    if code == Exit.PASS and (left := after.outcome.exit_code) != Exit.PASS:
        print(f"note: the gate on this lot still ends with exit code {left}; stylegate gate says why")
    return code


def store_labels_from_table(path: Path, lot: Lot, plan: AuditPlan, policy: Policy) -> list[Label]:
    """Store the labels of a table up to the first picture of the order that has none; returns all labels that count."""
    asked = set(plan.lot)
    pictures = {name: sha256 for name, sha256 in lot.sha256.items() if sha256 in asked}
    before, answers = stored_and_new_labels(path, "audit", lot.out, pictures, policy)
    found = labels_before_first_gap(plan.labelling_order, {**before, **answers})
    write_audit_terms(lot.out, plan)
    labels.append_labels(
        lot.out, "audit", [label_with_policy(label, policy) for label in found if label.sha256 not in before]
    )
    unused = sum(label not in found for label in answers.values())
    if unused:
        lie = counted(unused, "label lies", "labels lie")
        print(f"note: {lie} beyond the first picture without one: not used yet")
    return found


def ask_and_store_labels(lot: Lot, plan: AuditPlan, given: list[Label], policy: Policy) -> list[Label]:
    """Show picture after picture and ask; each answer is stored at once. Ends with the proof, or when asked to stop."""
    print(f"{plan.promise.says()}: {counted(len(plan.lot), 'picture')}, labelled in random order until that is proven.")
    write_audit_terms(lot.out, plan)
    for number, sha256 in enumerate(plan.labelling_order[len(given) :], start=len(given) + 1):
        attempts = plan.proof_attempts(given)
        if index_of_first_proven(attempts) is not None:
            break
        bound = min(attempt.bound for attempt in attempts)
        asked = show_picture_and_ask_label(
            lot, "audit", sha256, f"{number} (bound so far {largest_percentage(bound)})", policy
        )
        if asked.label is not None:
            given = [*given, asked.label]
        if asked.stop:
            break
    return given


def print_result(
    lot: Lot, plan: AuditPlan, given: Sequence[Label], attempts: Sequence[AuditAttempt], proven: int | None
) -> int:
    """Print the state of the audit. Returns the exit code: 0 if the promise is proven, else 13."""
    bad, spent = sum(label.is_reject for label in given), 1 - 0.5**plan.earlier
    print(f"promise: {plan.promise.says()}")
    if plan.earlier:
        one, many = "attempt at another lot of this batch has", "attempts at other lots of this batch have"
        print(f"note: {counted(plan.earlier, one, many)} spent {spent:.0%} of delta")
    for attempt in attempts:
        after, size = attempt.proven_after, attempt.size
        state = f"proven after {after}" if after else f"bound {largest_percentage(attempt.bound)}"
        found = f"{counted(attempt.labels, 'label')}, {counted(attempt.rejects, 'reject')}"
        print(f"  best {size} of {len(plan.lot)}: {found}, {state}")
    if proven is None:
        print(f"certify: not proven yet with {counted(len(given), 'label')}, {counted(bad, 'reject')} among them")
        worksheet = files.display_path(lot.out / WORKSHEET)
        print(
            "Next: stylegate review queue=audit with the same words, and then this command again; or fill in verdict "
            f"and who, then the same words with decisions={worksheet}"
        )
        return Exit.EVIDENCE
    found = read_certificate(lot.out / CERTIFICATE)
    out = len(certified_digests(found))
    print(f"certify: proven: {found.proven_claim_in_words()}")
    stay = counted(len(plan.lot) - out - bad, "other")
    print(f"{counted(out, 'picture')} may leave, {counted(bad, 'reject')} found and {stay} stay")
    print(files.display_path(lot.out / CERTIFICATE))
    return Exit.PASS
