"""The gate: accept, review or reject each picture by a policy; what cannot be judged is an error, never a pass.

    stylegate gate images=DIR references=DIR        any folder; exit 0 pass, 10 rejected, 11 review
    stylegate gate brand=neon traits=collectible    the batch of these arguments
    stylegate gate images=DIR decisions=FILE.csv    settles what is in review
    stylegate gate explain=true policy=default      print the policy and its hash
    stylegate gate images=DIR observe=true          verdicts, but exit 0; export refuses them
    stylegate gate images=DIR out=DIR watch=true    judge a folder while it is filled (eval/watch.py)

Reads scores.parquet (makes it if it is missing or of other pictures), writes verdicts.jsonl, gate.json, junit.xml,
summary.md and report/. In this order: scores, waivers, the calibrated line, people's decisions, the audit of the lot,
rules for the batch. in = accept + review + reject + error, always. With scores at hand it needs no torch and encodes
nothing.
"""

from pathlib import Path

from eval.judging.advice import (
    are_margins_believed,
    failed_share_in_words,
    next_step_with_export_in_words,
    observe_only_note_in_words,
    warning_without_references,
)
from eval.judging.decisions import store_decisions_from_table, write_review_worksheet
from eval.judging.judge import judge, write_verdicts_and_gate_record
from eval.judging.judged import JudgedLot
from eval.lot.attempts import advice_on_exhausted_slots, failed_attempts_and_filled_slots
from eval.lot.batch import require_file
from eval.lot.lot import locked_lot
from eval.policy import file as policyfile
from eval.policy.model import VERDICTS
from eval.report.mirror import mirror_to_wandb
from eval.report.page import write_reports
from eval.report.summaries import (
    HOW_TO_READ,
    NOT_ACCEPTED,
    check_and_numbers,
    escaped_on_one_line,
    left_out_checks_in_words,
    lot_state_in_words,
    not_accepted_nearest_to_passing_first,
)
from stylegate import files
from stylegate.config import Config
from stylegate.errors import ExitCode, keeping_exit_code_of_verdict
from stylegate.words import counted

NAMED = 5  # pictures of each verdict that the console names; the report shows all


def gate(config: Config) -> int:
    """Judge a lot, write verdicts and reports, mirror them in W&B. Returns the exit code of the lot."""
    if config.explain:
        words = policyfile.policy_in_words(policyfile.read_policy(config.policy), policyfile.policy_path(config.policy))
        print("\n".join(words))
        return ExitCode.PASS
    judged = judge_and_report(config)
    with keeping_exit_code_of_verdict(judged.outcome.exit_code):
        mirror_to_wandb(config, judged)
    print(files.display_path(judged.lot.out))
    return exit_code_unless_observed(judged)


def exit_code_unless_observed(judged: JudgedLot) -> int:
    """The exit code of the lot; 0 for a lot that is only observed."""
    return ExitCode.PASS if judged.outcome.observe else judged.outcome.exit_code


def judge_and_report(config: Config, with_next_step: bool = True) -> JudgedLot:
    """Judge a lot under its lock, write verdicts and reports, and print what was found, and what a person does next.
    Returns the judged lot.
    """
    judged = judge_and_write(config)
    print_gate_summary_and_next_step(judged, with_next_step)
    return judged


def judge_and_write(config: Config, only: set[Path] | None = None) -> JudgedLot:
    """Judge a lot under its lock, and write verdicts and reports. Returns the judged lot. Of a folder only the files in
    `only` are judged, or all without it.
    """
    with locked_lot(config, only=only) as lot:
        if config.decisions:
            # Judging reports what is wrong with the other arguments before any decision is recorded.
            store_decisions_from_table(require_file(config.decisions, "decisions"), judge(config, lot))
        judged = judge(config, lot)
        write_verdicts_and_gate_record(judged)
        write_review_worksheet(judged)
        with keeping_exit_code_of_verdict(judged.outcome.exit_code):
            write_reports(judged, config)
    return judged


def print_gate_summary_and_next_step(judged: JudgedLot, with_next_step: bool = True) -> None:
    """Print what was found, where its report is, and what a person does next."""
    out = judged.lot.out
    for line in console_summary_lines(judged):
        print(line)
    counts = judged.outcome.counts
    total = " + ".join(f"{getattr(counts, verdict)} {verdict}" for verdict in VERDICTS)
    if not judged.outcome.observe:
        print(f"lot: {lot_state_in_words(judged.outcome)} (exit code {judged.outcome.exit_code:d})")
    print(f"gate: {counts.judged} in = {total}   report: {files.display_path(out / 'report' / 'index.html')}")
    if with_next_step and (advice := next_step_with_export_in_words(judged.outcome, judged.verdicts, out)):
        print(f"Next: {advice}")


def console_summary_lines(judged: JudgedLot) -> list[str]:
    """The lines that the console shows before its last ones: scores, notes, reasons, rules, promise, pictures that did
    not pass.
    """
    outcome = judged.outcome
    lines = [warning] if (warning := warning_without_references(outcome)) else []
    lines += [*outcome.summary, *(f"note: {line}" for line in outcome.notes)]
    if left_out := left_out_checks_in_words(outcome):
        lines.append(f"note: {left_out}")
    for verdict, causes in outcome.why.items():
        if causes:
            lines.append(f"{verdict}, by reason: {', '.join(f'{check} {count}' for check, count in causes.items())}")
    lines += filter(None, [failed_share_in_words(outcome), observe_only_note_in_words(outcome)])
    lines += [f"{rule.state}: {rule.says}" for rule in outcome.batch if rule.state != "pass"]
    if outcome.promise.state != "none":
        lines.append(f"promise: {outcome.promise.promise_state_in_words()}")
    if named := pictures_that_did_not_pass_in_words(judged):
        lines += [f"pictures that did not pass ({HOW_TO_READ}):", *(f"  {line}" for line in named)]
    if slots := outcome.slots:
        have, are = counted(slots.accepted, "has", "have"), counted(slots.wanted, "is", "are")
        lines.append(f"slots: {have} an accepted picture, {are} wanted")
        if slots.stopped_early:
            lines.append(f"stopped early: {counted(slots.stopped_early, 'attempt')}, without a picture to judge")
        if slots.accepted < slots.wanted:
            lot, record = judged.lot, judged.lot.record
            states = failed_attempts_and_filled_slots(((v.file, v.verdict) for v in judged.verdicts), lot.stopped)
            rows = [verdict.model_dump(include={"file", "verdict", "reasons"}) for verdict in judged.verdicts]
            traits = record.words.traits if record else ""
            lines += advice_on_exhausted_slots(slots.exhausted, states, rows, lot.stopped, lot.out.name, traits)
    return lines


def pictures_that_did_not_pass_in_words(judged: JudgedLot) -> list[str]:
    """A line for each of NAMED pictures in review, rejected and in error each, those nearest to passing first (by name
    where the style cannot be read): its worst reason, and how many others. After those of each verdict, how many more
    there are.
    """
    ranked, lines = are_margins_believed(judged.outcome), []
    failed = not_accepted_nearest_to_passing_first(judged.verdicts, ranked)
    for kind in NOT_ACCEPTED:
        found = [verdict for verdict in failed if verdict.verdict == kind]
        for verdict in found[:NAMED]:
            first, *others = verdict.reasons
            more = f", and {counted(len(others), 'more reason')}" if others else ""
            if for_review := sum(reason.verdict == "review" for reason in others) if kind != "review" else 0:
                more += ", only for review" if for_review == len(others) else f", {for_review} of them only for review"
            lines.append(f"{kind}: {escaped_on_one_line(verdict.file)}: {check_and_numbers(first)}{more}")
        if len(found) > NAMED:
            further = ", further from passing" if ranked and kind != "error" else ""
            lines.append(f"{kind}: and {len(found) - NAMED} more{further}")
    return lines
