"""Audit what the metadata states of traits: people look at stated traits in random order until it is proven how few are
wrong.

    stylegate plan batch=NAME audit=true                                 trait by trait in a terminal
    stylegate plan batch=NAME audit=true decisions=trait-audit.csv       reads its labels; exit 0 once proven, else 13

The promise: at most 1 % of the stated traits are wrong, with 95 % confidence, by the audit of `stylegate certify`
(eval/promise/audit.py). A statement is one trait of one picture that may be exported; `accept` means that the picture
shows it. What was found wrong is stated as the person saw it (column `shows`), or not at all. trait-certificate.json
holds everything that a stranger needs to compute the proof again: `stylegate verify` does.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from eval.judging.decisions import all_planned_values_by_trait
from eval.judging.judge import judge, require_gate_used_same_policy, write_verdicts_and_gate_record
from eval.judging.judged import JudgedLot
from eval.judging.verdicts import exportable_verdicts, planned_traits_with_corrections
from eval.lot.batch import require_file
from eval.lot.lot import Lot, locked_lot
from eval.policy.model import Policy, Promise
from eval.promise import labels, terminal
from eval.promise.auditplan import (
    AuditPlan,
    AuditResultOnBestPictures,
    audit_labels_before_first_gap,
    begun_audit_plan_or_new_one,
    index_of_first_proven_attempt,
    write_audit_terms,
)
from eval.promise.certificate import TRAIT_CERTIFICATE, make_certificate, read_certificate
from eval.promise.labels import Label, label_with_policy, labels_before_first_gap
from eval.promise.statements import MetadataTraitStatement, metadata_trait_statements_of_picture
from eval.promise.worksheet import (
    WorksheetQuestion,
    parse_trait_and_value_shown,
    read_worksheet_answers,
    remove_worksheet,
    stored_labels_and_worksheet_labels,
    write_worksheet,
)
from eval.report.page import write_reports
from stylegate import files
from stylegate.config import Config
from stylegate.errors import DataError, ExitCode
from stylegate.words import counted, percentage_rounded_up

WORKSHEET = "trait-audit.csv"
PROMISE = Promise(alpha=0.01, delta=0.05, ladder=(1.0,))


def audit_traits(config: Config) -> int:
    """Store what people say of planned traits in exportable pictures, from the table decisions= or asked in a terminal.
    Write a certificate if the promise is proven by it (0 is returned), else a worksheet with what to label next (13);
    then judge the lot again, and write verdicts, gate.json and reports.
    """
    with locked_lot(config) as lot:
        before = judge(config, lot, without="traits")
        policy = before.policy
        require_gate_used_same_policy(lot, policy)
        stated = trait_statements_of_exportable(before)
        plan = begun_audit_plan_or_new_one(
            lot.out, AuditPlan(list(stated), PROMISE, 0, policy.sha256, purpose="traits")
        )
        for note in labels.notes_on_labels_of_other_policies(lot.out, "traits", policy):
            print(f"note: {note}")
        given = audit_labels_before_first_gap(lot.out, plan, policy)
        if config.decisions:
            given = store_trait_labels_from_table(
                require_file(config.decisions, "decisions"), lot, plan, stated, policy
            )
        elif sys.stdin.isatty():
            given = ask_and_store_trait_labels(lot, plan, stated, given, policy)
        write_audit_terms(lot.out, plan)  # a worksheet shows pictures too
        (attempt,) = attempts = plan.audit_results_for_lot_shares(given)
        if index_of_first_proven_attempt(attempts) is not None:
            found = make_certificate(plan, given, attempts, 0, policy, list(stated.values()))
            found.write_json_file(lot.out / TRAIT_CERTIFICATE)
            remove_worksheet(lot.out / WORKSHEET, "traits", statement_digests_by_worksheet_name(stated))
        else:
            next_ones = [stated[s] for s in plan.labelling_order[len(given) : len(given) + config.promise.num_labels]]
            rows = [
                WorksheetQuestion(
                    s.worksheet_name_from_file_and_trait, s.digest_of_picture_trait_and_value, f"{s.trait}: {s.value}"
                )
                for s in next_ones
            ]
            write_worksheet(lot.out / WORKSHEET, "traits", rows, policy, statement_digests_by_worksheet_name(stated))
        after = judge(config, lot)  # what was found wrong is no longer stated
        write_verdicts_and_gate_record(after)
        write_reports(after, config)
        return print_trait_audit_state(lot.out, plan, attempt)


def trait_statements_of_exportable(judged: JudgedLot) -> dict[str, MetadataTraitStatement]:
    """The statements (eval/promise/statements.py) of the traits of pictures that may be exported, by digest. Raises
    DataError if there are none.
    """
    planned = judged.lot.planned_traits_by_name()
    found = {
        statement.digest_of_picture_trait_and_value: statement
        for verdict in exportable_verdicts(judged.verdicts, is_planned_batch=True)
        for statement in metadata_trait_statements_of_picture(
            verdict.file,
            verdict.sha256,
            planned_traits_with_corrections(planned.get(verdict.file, {}), verdict.shown_traits),
        )
    }
    if not found:
        raise DataError(
            "no accepted picture has planned traits: nothing is stated that could be audited",
            next_step="stylegate gate says why; a plan of traits= has traits.",
        )
    return found


def statement_digests_by_worksheet_name(stated: dict[str, MetadataTraitStatement]) -> dict[str, str]:
    """The digest of each statement by the name that stands for it in worksheets. `stated` is by digest."""
    return {statement.worksheet_name_from_file_and_trait: sha256 for sha256, statement in stated.items()}


def store_trait_labels_from_table(
    path: Path, lot: Lot, plan: AuditPlan, stated: dict[str, MetadataTraitStatement], policy: Policy
) -> list[Label]:
    """Store the labels of a table up to the first statement of the order that has none. Returns all labels up to there,
    those that were stored before too.

    Raises DataError for what cannot be used in the table.
    """
    names = statement_digests_by_worksheet_name(stated)
    before, answers = stored_labels_and_worksheet_labels(path, "traits", lot.out, names, policy)
    rows = read_worksheet_answers(path, "traits", lot.out, names, policy)
    values = all_planned_values_by_trait(lot.planned_traits_by_name().values())
    shown: dict[str, dict[str, str]] = {}
    problems = []
    for row in (row for row in rows if row.shows):
        statement = stated[row.label.sha256]
        try:
            trait, value = parse_trait_and_value_shown(row.shows, {statement.trait: values[statement.trait]})
            if value == statement.value or not row.label.is_reject:
                raise ValueError(f"{row.shows}, but the row says {row.label.verdict} of {trait}: {statement.value}")
        except ValueError as error:
            problems.append(f"{statement.worksheet_name_from_file_and_trait}: {error}")
        else:
            shown[row.label.sha256] = {trait: value}
    if problems:
        step = "it is for rejects, and says what is seen instead: `TRAIT: VALUE`, or the value alone; none was used."
        raise DataError(f"decisions={path}: column shows:", problems, step)
    found = labels_before_first_gap(plan.labelling_order, {**before, **answers})
    write_audit_terms(lot.out, plan)
    new = [label for label in found if label.sha256 not in before]
    labels.append_labels(
        lot.out, "traits", [label_with_policy(label, policy, shown_traits=shown.get(label.sha256, {})) for label in new]
    )
    if unused := sum(label not in found for label in answers.values()):
        lie = counted(unused, "label lies", "labels lie")
        print(f"note: {lie} beyond the first statement without one: not used yet")
    return found


def ask_and_store_trait_labels(
    lot: Lot, plan: AuditPlan, stated: dict[str, MetadataTraitStatement], given: list[Label], policy: Policy
) -> list[Label]:
    """Ask about one statement after the other; each answer is stored at once. Ends with the proof, or when stopped.
    Returns `given` and the new labels.
    """
    print(
        f"{plan.promise_in_words()}: {counted(len(plan.lot), 'stated trait')}, "
        "looked at in random order until that is proven."
    )
    write_audit_terms(lot.out, plan)
    values = all_planned_values_by_trait(lot.planned_traits_by_name().values())
    for number, sha256 in enumerate(plan.labelling_order[len(given) :], start=len(given) + 1):
        (attempt,) = plan.audit_results_for_lot_shares(given)
        if attempt.proven_after is not None:
            break
        statement = stated[sha256]
        terminal.show_picture(lot, statement.file, f"{number} (bound so far {percentage_rounded_up(attempt.bound)})")
        print(f"  stated:  {statement.trait}: {statement.value}")
        others = sorted(values[statement.trait] - {statement.value})
        asked = terminal.ask_label_and_store(
            lot.out,
            "traits",
            sha256,
            policy,
            correction=lambda s=statement, o=others: ask_which_value_is_seen(s.trait, o),
        )
        if asked.label is not None:
            given = [*given, asked.label]
        if asked.stop:
            break
    return given


def ask_which_value_is_seen(trait: str, others: Sequence[str]) -> dict[str, str]:
    """Ask which value a person sees instead of the stated one: {trait: value}, or {} if nobody says."""
    while True:
        try:
            answer = input(f"  {trait} shows instead ({', '.join(others)}; Enter: none of these): ").strip()
        except EOFError:
            return {}
        if not answer or answer in others:
            return {trait: answer} if answer else {}


def print_trait_audit_state(out: Path, plan: AuditPlan, attempt: AuditResultOnBestPictures) -> int:
    """Print the state of the audit. Returns the exit code: 0 if the promise is proven, else 13."""
    print(f"promise: {plan.promise_in_words()}")
    if plan.earlier:
        print(f"note: audits of other traits of this batch have spent {1 - 0.5**plan.earlier:.0%} of delta")
    looked = f"{counted(attempt.labels, 'label')}, {attempt.rejects} of them wrong or unsure"
    if attempt.proven_after is None:
        bound = f"at most {percentage_rounded_up(attempt.bound)} of {attempt.size} stated traits are wrong so far"
        print(f"plan audit: not proven yet: {looked}; {bound}")
        worksheet = files.display_path(out / WORKSHEET)
        print(
            f"Next: fill in verdict (accept: the picture shows it) and who, and for a reject shows; then the same "
            f"words with decisions={worksheet}"
        )
        return ExitCode.EVIDENCE
    claim = read_certificate(out / TRAIT_CERTIFICATE).proven_claim_in_words()
    enough = f" by the first {attempt.proven_after} of {attempt.labels} labels"
    print(f"plan audit: proven{enough * (attempt.proven_after != attempt.labels)}: {claim}")
    print(files.display_path(out / TRAIT_CERTIFICATE))
    return ExitCode.PASS
