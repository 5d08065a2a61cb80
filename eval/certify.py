"""Certify a lot: people look at accepted pictures in random order until the promise is proven.

    stylegate certify batch=NAME                       picture by picture in a terminal
    stylegate certify images=DIR references=DIR        writes audit.csv; without a terminal that is all
    stylegate certify batch=NAME decisions=audit.csv   takes its labels; exit 0 once proven, else 13

The lot is what the gate accepts now. The order is random and settled by the lot's content alone: who does not know the
rejects already cannot choose a kind one, and each lot that is tried spends its share of delta.
A ladder of ever smaller lots (the best pictures first, policy's `promise.ladder`) is tried with the same labels; each
attempt spends its share of delta, a later lot of the same batch what is left. certificate.json holds everything that
a stranger needs to compute the proof again: `stylegate verify` does. Rejects that were found, and what lies outside
the certified part of the lot, are not exported.
"""

import sys
from pathlib import Path

from eval.judging.certified import standing_lot
from eval.judging.judge import judge, write
from eval.lot.batch import existing
from eval.lot.subject import Subject, locked
from eval.promise import labels
from eval.promise.certificate import (
    CERTIFICATE,
    Plan,
    certificate,
    goes_out,
    headers,
    labels_of,
    plan_of,
    read_certificate,
)
from eval.promise.labels import Label, up_to_a_gap
from eval.report.page import write_reports
from stylegate import files
from stylegate.config import Config
from stylegate.errors import Exit

WORKSHEET = "audit.csv"


def certify(config: Config) -> int:
    """Take labels, prove or say what is missing. Returns 0 once the promise is proven, else 13."""
    with locked(config) as subject:
        before = judge(config, subject, audited=False)
        plan = plan_of(subject.out, standing_lot(before.verdicts), before.policy.promise)
        given = labels_of(subject.out, plan)
        if config.decisions:
            given = taken(existing(config.decisions, "decisions"), subject.out, plan)
        elif sys.stdin.isatty():
            given = asked(subject, plan, given)
        keep(subject.out, plan, [])  # a worksheet shows it too
        attempts = plan.attempts(given)
        proven = next((i for i, attempt in enumerate(attempts) if attempt["proven_after"] is not None), None)
        if proven is not None:
            files.write_json(subject.out / CERTIFICATE, certificate(plan, given, attempts, proven, before.policy))
            (subject.out / WORKSHEET).unlink(missing_ok=True)
        else:
            names = {sha256: name for name, sha256 in subject.sha256.items()}
            due = plan.order[len(given) : len(given) + config.promise.num_labels]
            offered = Path(config.decisions) if config.decisions else None
            labels.worksheet(subject.out / WORKSHEET, "audit", [(names[s], s) for s in due], offered)
        after = judge(config, subject)  # the rejects that were found leave the lot
        write(after)
        write_reports(after, config)
        code = said(subject, plan, given, attempts, proven)
    if code == Exit.PASS and (left := after.outcome.exit_code) != Exit.PASS:
        print(f"note: the gate on this lot still ends with exit code {left}; stylegate gate says why")
    return code


def keep(out: Path, plan: Plan, given: list[Label]) -> None:
    """Append labels; the lot, its terms and what they may spend are written down before the first."""
    if plan.header not in headers(out):
        files.append_jsonl(out / labels.STREAMS["audit"], plan.header)
    labels.keep(out, "audit", given)


def taken(path: Path, out: Path, plan: Plan) -> list[Label]:
    """Keep a file's labels as far as the order goes without a gap. Who skips a picture stops there."""
    before, offered = labels.offered(path, "audit", out, plan.lot)
    found = up_to_a_gap(plan.order, before | offered)
    keep(out, plan, [label for label in found if label.sha256 not in before])
    unused = sum(label not in found for label in offered.values())
    if unused:
        print(f"note: {unused} labels lie beyond the first picture without one: not taken")
    return found


def asked(subject: Subject, plan: Plan, given: list[Label]) -> list[Label]:
    """Show picture after picture and ask; each answer is kept at once. Ends with the proof, or when told to."""
    print(f"{plan.promise.says()}: {len(plan.lot)} pictures, labelled in random order until that is proven.")
    keep(subject.out, plan, [])  # before the first picture is shown: what is shown of a lot spends its share
    for number, sha256 in enumerate(plan.order[len(given) :], start=len(given) + 1):
        attempts = plan.attempts(given)
        if any(attempt["proven_after"] is not None for attempt in attempts):
            break
        bound = min(attempt["bound"] for attempt in attempts)
        label = labels.ask(subject, sha256, f"{number} (bound so far {bound:.1%})")
        if label is None:
            break
        keep(subject.out, plan, [label])
        given = [*given, label]
    return given


def said(subject: Subject, plan: Plan, given: list[Label], attempts: list[dict], proven: int | None) -> int:
    """Say how the audit stands; the exit code."""
    bad, spent = sum(label.bad for label in given), 1 - 0.5**plan.earlier
    print(f"promise: {plan.promise.says()}")
    if plan.earlier:
        print(f"note: {plan.earlier} attempts at other lots of this batch have spent {spent:.0%} of delta")
    for attempt in attempts:
        after, size = attempt["proven_after"], attempt["size"]
        state = f"proven after {after}" if after else f"bound {attempt['bound']:.1%}"
        print(f"  best {size} of {len(plan.lot)}: {attempt['labels']} labels, {attempt['rejects']} rejects, {state}")
    if proven is None:
        print(f"certify: not proven yet with {len(given)} labels, {bad} of them rejects")
        print(
            f"next: fill in verdict and who, then the same words with decisions={files.shown(subject.out / WORKSHEET)}"
        )
        return Exit.EVIDENCE
    out = len(goes_out(read_certificate(subject.out / CERTIFICATE)))
    print(f"certify: proven; {out} pictures may leave, {bad} rejects found and {len(plan.lot) - out - bad} others stay")
    print(files.shown(subject.out / CERTIFICATE))
    return Exit.PASS
