"""Certify a lot: people look at accepted pictures in random order until the promise is proven.

    stylegate certify batch=NAME                       picture by picture in a terminal
    stylegate certify images=DIR references=DIR        writes audit.csv; without a terminal that is all
    stylegate certify batch=NAME decisions=audit.csv   reads its labels; exit 0 once proven, else 13

The lot is what the gate accepts now. The order is random and follows from the lot's content and the policy: whoever
does not know the rejects already cannot choose a kind one. Labels count under the policy and the guideline under which
they were given, and for nothing else.
A ladder of ever smaller lots (the best pictures first, policy's `promise.ladder`) is tried with the same labels; each
attempt spends its share of delta, a later lot of the same batch, or another policy, what is left. certificate.json
holds everything that a stranger needs to compute the proof again: `stylegate verify` does. Rejects that were found, and
what lies outside the certified part of the lot, are not exported.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from eval.judging.certified import standing_lot
from eval.judging.judge import judge, write
from eval.lot.batch import existing
from eval.lot.subject import Subject, locked
from eval.policy.model import Policy
from eval.promise import labels
from eval.promise.certificate import (
    CERTIFICATE,
    Attempt,
    Plan,
    certificate,
    goes_out,
    headers,
    labels_of,
    plan_of,
    read_certificate,
)
from eval.promise.labels import Label, labels_before_gap, stored_label
from eval.promise.terminal import ask
from eval.promise.worksheet import labels_and_answers, questions, write_worksheet
from eval.report.page import write_reports
from stylegate import files
from stylegate.config import Config
from stylegate.errors import Exit

WORKSHEET = "audit.csv"


def certify(config: Config) -> int:
    """Read labels, prove the promise or print what is missing. Returns 0 once the promise is proven, else 13."""
    with locked(config) as subject:
        before = judge(config, subject, audited=False)
        policy = before.policy
        plan = plan_of(subject.out, standing_lot(before.verdicts, bool(subject.slots)), policy)
        given = labels_of(subject.out, plan, policy)
        for note in labels.notes_on_others(subject.out, "audit", policy):
            print(f"note: {note}")
        if config.decisions:
            given = labels_from_table(existing(config.decisions, "decisions"), subject, plan, policy)
        elif sys.stdin.isatty():
            given = labels_from_terminal(subject, plan, given, policy)
        write_terms(subject.out, plan)  # a worksheet shows pictures too
        attempts = plan.attempts(given)
        proven = first_proven(attempts)
        if proven is not None:
            certificate(plan, given, attempts, proven, policy).write(subject.out / CERTIFICATE)
            (subject.out / WORKSHEET).unlink(missing_ok=True)
        else:
            next_ones = plan.order[len(given) : len(given) + config.promise.num_labels]
            answered = Path(config.decisions) if config.decisions else None
            sheet = subject.out / WORKSHEET
            write_worksheet(sheet, "audit", questions(subject, next_ones), policy, answered)
        after = judge(config, subject)  # the rejects that were found leave the lot
        write(after)
        write_reports(after, config)
        code = print_result(subject, plan, given, attempts, proven)
    if code == Exit.PASS and (left := after.outcome.exit_code) != Exit.PASS:
        print(f"note: the gate on this lot still ends with exit code {left}; stylegate gate says why")
    return code


def first_proven(attempts: Sequence[Attempt]) -> int | None:
    """Index of the first attempt that is proven; None if none is."""
    return next((i for i, attempt in enumerate(attempts) if attempt.proven_after is not None), None)


def write_terms(out: Path, plan: Plan) -> None:
    """Write down the lot, its terms and what they may spend of delta, once, before the first picture is shown."""
    if plan.header not in headers(out):
        files.append_jsonl(out / labels.STREAMS["audit"], plan.header)


def labels_from_table(path: Path, subject: Subject, plan: Plan, policy: Policy) -> list[Label]:
    """Store the labels of a table as far as the order goes without a gap: whoever leaves out a picture stops there."""
    lot = set(plan.lot)
    pictures = {name: sha256 for name, sha256 in subject.sha256.items() if sha256 in lot}
    before, answers = labels_and_answers(path, "audit", subject.out, pictures, policy)
    found = labels_before_gap(plan.order, {**before, **answers})
    write_terms(subject.out, plan)
    labels.append(subject.out, "audit", [stored_label(label, policy) for label in found if label.sha256 not in before])
    unused = sum(label not in found for label in answers.values())
    if unused:
        print(f"note: {unused} labels lie beyond the first picture without one: not used")
    return found


def labels_from_terminal(subject: Subject, plan: Plan, given: list[Label], policy: Policy) -> list[Label]:
    """Show picture after picture and ask; each answer is stored at once. Ends with the proof, or when asked to stop."""
    print(f"{plan.promise.says()}: {len(plan.lot)} pictures, labelled in random order until that is proven.")
    write_terms(subject.out, plan)
    for number, sha256 in enumerate(plan.order[len(given) :], start=len(given) + 1):
        attempts = plan.attempts(given)
        if first_proven(attempts) is not None:
            break
        bound = min(attempt.bound for attempt in attempts)
        asked = ask(subject, "audit", sha256, f"{number} (bound so far {bound:.1%})", policy)
        if asked.label is not None:
            given = [*given, asked.label]
        if asked.stop:
            break
    return given


def print_result(
    subject: Subject, plan: Plan, given: Sequence[Label], attempts: Sequence[Attempt], proven: int | None
) -> int:
    """Print how the audit stands; returns the exit code."""
    bad, spent = sum(label.bad for label in given), 1 - 0.5**plan.earlier
    print(f"promise: {plan.promise.says()}")
    if plan.earlier:
        print(f"note: {plan.earlier} attempts at other lots of this batch have spent {spent:.0%} of delta")
    for attempt in attempts:
        after, size = attempt.proven_after, attempt.size
        state = f"proven after {after}" if after else f"bound {attempt.bound:.1%}"
        print(f"  best {size} of {len(plan.lot)}: {attempt.labels} labels, {attempt.rejects} rejects, {state}")
    if proven is None:
        print(f"certify: not proven yet with {len(given)} labels, {bad} of them rejects")
        print(
            f"next: fill in verdict and who, then the same words with decisions={files.shown(subject.out / WORKSHEET)}"
        )
        return Exit.EVIDENCE
    found = read_certificate(subject.out / CERTIFICATE)
    out = len(goes_out(found))
    print(f"certify: proven: {found.sentence()}")
    print(f"{out} pictures may leave, {bad} rejects found and {len(plan.lot) - out - bad} others stay")
    print(files.shown(subject.out / CERTIFICATE))
    return Exit.PASS
