"""Verdicts for pipelines: JUnit XML for test reporters, Markdown for a job's summary. Same verdicts, same bytes.

JUnit has a case for each check, not for each picture. At least one case fails if and only if the gate's exit code is
not 0. The summary stays below 200 KiB (GitHub drops summaries of more than 1 MiB whole). File names come from whoever
made the files: they are escaped, so that they are neither markup nor several lines, and they are cut to a length.
"""

import heapq
import math
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from xml.etree import ElementTree

from eval.judging.advice import (
    SAID_ONCE,
    are_margins_believed,
    failed_share_in_words,
    fault_in_words,
    next_step_in_words,
    warning_without_references,
)
from eval.judging.record import GateRecord
from eval.judging.verdicts import ORDER, Reason, Verdict
from eval.policy.model import VERDICTS
from eval.scorers.entry import NEEDS, PLAN
from stylegate.errors import ExitCode
from stylegate.words import counted

MAX_NAMED = 20  # pictures that a case or a summary names
MAX_NAME = 200  # characters of a name or a detail
MAX_SENTENCE = 400  # characters
MAX_LEFT_OUT = 1000  # characters: every check of a policy, with the causes
NOT_ACCEPTED = ("review", "reject", "error")  # verdicts, in the order in which people are shown their pictures
HOW_TO_READ = "score < limit; higher is better, so -2 is better than -11"
OUTCOMES = {
    ExitCode.PASS: "pass",
    ExitCode.REJECTED: "rejected",
    ExitCode.REVIEW: "review pending",
    ExitCode.STALE: "calibration stale",
    ExitCode.EVIDENCE: "not proven",
}
# The verdicts that make the case of a check fail, by exit code. Below max_failed_share rejects fail nothing.
FAILING = {ExitCode.REJECTED: ("error", "reject"), ExitCode.REVIEW: ("review",)}


class JUnitCase(NamedTuple):
    """One test case of the JUnit file."""

    name: str
    text: str
    failed: bool = False
    skipped: bool = False


def left_out_checks_in_words(outcome: GateRecord) -> str:
    """The checks that were left out, by their cause, and that they hold nothing back, in one line; "" if there are
    none. Of a folder that nobody planned it is not said that checks of the plan are left out.
    """
    checks: dict[str, list[str]] = {}
    for check, _, cause in (text.partition(": ") for text in outcome.left_out):
        if outcome.slots or cause != NEEDS[PLAN]:
            checks.setdefault(cause, []).append(check)
    by_cause = "; ".join(f"{', '.join(names)} ({cause})" for cause, names in checks.items())
    return f"checks left out, which hold no picture back: {by_cause}" if checks else ""


def junit_xml(name: str, outcome: GateRecord, verdicts: Sequence[Verdict]) -> str:
    """The JUnit file: one suite with a case for each check, each rule for the lot, the promise, and the lot itself.

    `name` is the lot's, `outcome` the content of gate.json. Checks that were left out are skipped cases.
    """
    cases = [case if not outcome.observe else case._replace(failed=False) for case in junit_cases_of(outcome, verdicts)]
    suite = ElementTree.Element("testsuite", name=f"stylegate {escaped_on_one_line(name)}", tests=str(len(cases)))
    suite.set("failures", str(sum(case.failed for case in cases)))
    suite.set("errors", "0")
    suite.set("skipped", str(sum(case.skipped for case in cases)))
    for case in cases:
        element = ElementTree.SubElement(suite, "testcase", classname="stylegate", name=case.name)
        if case.failed or case.skipped:
            kind = "failure" if case.failed else "skipped"
            ElementTree.SubElement(element, kind, message=case.text.split("\n")[0]).text = case.text
        elif case.text:
            ElementTree.SubElement(element, "system-out").text = case.text
    ElementTree.indent(suite)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"


def junit_cases_of(outcome: GateRecord, verdicts: Sequence[Verdict]) -> list[JUnitCase]:
    """The cases in their order: the policy's checks, other checks, checks left out, rules, promise, lot."""
    code, counts, promise = outcome.exit_code, outcome.counts, outcome.promise
    of_policy = [*outcome.thresholds, *([outcome.calibrated] if outcome.calibrated else [])]
    found: dict[str, list[tuple[Reason, str]]] = {check: [] for check in of_policy}
    for verdict in verdicts:
        for reason in verdict.reasons:
            found.setdefault(reason.check, []).append((reason, verdict.file))
    cases = []
    for check in [*of_policy, *sorted(found.keys() - set(of_policy))]:
        failed = any(reason.verdict in FAILING.get(ExitCode(code), ()) for reason, _ in found[check])
        cases.append(JUnitCase(f"check.{check}", reason_and_file_lines_of_check(found[check]), failed))
    for line in outcome.left_out:
        check, _, cause = line.partition(": ")
        cases.append(JUnitCase(f"check.{check}", escaped_on_one_line(cause), skipped=True))
    for rule in outcome.batch:
        cases.append(JUnitCase(f"batch.{rule.measure}", escaped_on_one_line(rule.says), rule.state == "fail"))
    broken = promise.state in ("stale", "insufficient")
    cases.append(JUnitCase("promise", escaped_on_one_line(promise.promise_state_in_words(), MAX_SENTENCE), broken))
    text = ", ".join(f"{getattr(counts, verdict)} {verdict}" for verdict in VERDICTS)
    warning = warning_without_references(outcome)
    lot = f"exit {code:d}: {counts.judged} in, {text}" + (f"\n{warning}" if warning else "")
    cases.append(JUnitCase("lot", lot, code != ExitCode.PASS))
    return cases


def reason_and_file_lines_of_check(found: Sequence[tuple[Reason, str]]) -> str:
    """Reasons of one check with the files that have them, one on a line, the worst first; at most MAX_NAMED.

    The worst consequence comes first; of equal ones, the lowest score.
    """

    def sort_key_worst_reason_first(item: tuple[Reason, str]) -> tuple[int, float, str]:
        """Sort key of (reason, file): the worst consequence first; of equal ones, the lowest score."""
        reason, file = item
        return ORDER.index(reason.verdict), -math.inf if reason.score is None else reason.score, file

    first = heapq.nsmallest(MAX_NAMED, found, key=sort_key_worst_reason_first)
    lines = [
        f"{reason.verdict}: {escaped_on_one_line(file)}{score_and_threshold_in_brackets(reason)}"
        for reason, file in first
    ]
    more = len(found) - MAX_NAMED
    return "\n".join([*lines, *([f"and {more} more"] if more > 0 else [])])


def not_accepted_nearest_to_passing_first(verdicts: Iterable[Verdict], ranked: bool) -> list[Verdict]:
    """The pictures that did not pass: those for review, then rejects, then errors; of each verdict the nearest to a
    line first, or by name where they cannot be `ranked`, since their margins are of a style that cannot be read.

    A picture whose distance is not known comes last of its verdict.
    """

    def sort_key_nearest_first(verdict: Verdict) -> tuple[int, float, str]:
        distance = math.inf if verdict.margin is None else -verdict.margin
        return NOT_ACCEPTED.index(verdict.verdict), distance if ranked else 0.0, verdict.file

    return sorted((verdict for verdict in verdicts if verdict.verdict in NOT_ACCEPTED), key=sort_key_nearest_first)


def score_and_threshold_in_brackets(reason: Reason) -> str:
    """Score and threshold of a reason, or its fault in words, and its detail, in brackets; "" if it has neither."""
    known = reason.score is not None and reason.threshold is not None
    parts = [fault_in_words(reason) or f"{reason.score:.4g} < {reason.threshold:.4g}"] if known else []
    parts += [escaped_on_one_line(reason.detail)] if reason.detail else []
    return f" ({', '.join(parts)})" if parts else ""


def check_and_numbers(reason: Reason) -> str:
    """A reason on one line: its check and, unless that is explained once for the lot, score, threshold and detail."""
    return reason.check if reason.check in SAID_ONCE else f"{reason.check}{score_and_threshold_in_brackets(reason)}"


def escaped_on_one_line(text: str, longest: int = MAX_NAME) -> str:
    """The text on one line, of at most `longest` characters.

    Line breaks, what XML forbids and what cannot be seen are escaped as in a Python string.
    """
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return line if len(line) <= longest else line[: longest - 1] + "…"


def lot_state_in_words(outcome: GateRecord) -> str:
    """What the exit code of a gate says of the lot: "pass", "rejected", "review pending" and others; of a batch in
    which only slots without an attempt left wait, that a person must decide about these.
    """
    exhausted = outcome.slots.exhausted if outcome.slots and not outcome.counts.review else []
    if outcome.exit_code == ExitCode.REVIEW and exhausted:
        return f"a person must decide about {counted(len(exhausted), 'slot')}"
    return OUTCOMES.get(ExitCode(outcome.exit_code), f"exit code {outcome.exit_code:d}")


def markdown_summary(name: str, outcome: GateRecord, verdicts: Sequence[Verdict], out: str = "") -> str:
    """The summary of a gate in Markdown, for the page of a pipeline's job: counts, promise, rules, reasons, what people
    decided, checks left out, pictures that did not pass. `out` is the gate's out= folder as a person types it; by
    default the `name` in the heading, which is that of the batch or of the folder that was judged.
    """
    counts, code = outcome.counts, outcome.exit_code
    observed = f" (observed only: exit code 0 instead of {code:d})" if outcome.observe else ""
    lines = [
        f"## stylegate: {escape_markdown_on_one_line(name)}: {lot_state_in_words(outcome)}{observed}",
        "",
    ]
    lines += [warning, ""] if (warning := warning_without_references(outcome)) else []
    lines += ["| in | accept | review | reject | error |", "|---|---|---|---|---|"]
    lines += ["| " + " | ".join(str(getattr(counts, key)) for key in ("judged", *VERDICTS)) + " |", ""]
    if outcome.promise.was_asked_for():
        promise = escape_markdown_on_one_line(outcome.promise.promise_state_in_words(), MAX_SENTENCE)
        lines += [f"Promise: {promise}", ""]
    if slots := outcome.slots:
        stopped = f"; {slots.stopped_early} attempts were stopped early, without a picture" * bool(slots.stopped_early)
        have, are = counted(slots.accepted, "has", "have"), counted(slots.wanted, "is", "are")
        lines.append(f"- slots: {have} an accepted picture, {are} wanted{stopped}")
    if allowed := failed_share_in_words(outcome):
        lines.append(f"- {allowed}")
    lines += [
        f"- {rule.state}: {escape_markdown_on_one_line(rule.says)}" for rule in outcome.batch if rule.state != "pass"
    ]
    for kind in ORDER:
        if causes := outcome.why[kind]:
            lines.append(f"- {kind}: " + ", ".join(f"{check} {count}" for check, count in causes.items()))
    if settled := sum(verdict.settled is not None for verdict in verdicts):
        lines.append(f"- settled by people: {settled} accepted")
    if left_out := left_out_checks_in_words(outcome):
        lines.append(f"- {escape_markdown_on_one_line(left_out, MAX_LEFT_OUT)}")
    if outcome.readability and not outcome.readability.readable:
        lines.append(f"- {escape_markdown_on_one_line(outcome.readability.readability_in_words(), MAX_SENTENCE)}")
    lines += [f"- note: {escape_markdown_on_one_line(note, MAX_SENTENCE)}" for note in outcome.notes[:MAX_NAMED]]
    lines += [f"- and {len(outcome.notes) - MAX_NAMED} more notes"] if len(outcome.notes) > MAX_NAMED else []
    if advice := next_step_in_words(outcome, verdicts, out or name):
        lines += ["", f"Next: {escape_markdown_on_one_line(advice, MAX_LEFT_OUT)}"]
    if failed := not_accepted_nearest_to_passing_first(verdicts, are_margins_believed(outcome)):
        lines += ["", f"| picture | verdict | reasons ({HOW_TO_READ}) |", "|---|---|---|"]
        for verdict in failed[:MAX_NAMED]:
            reasons = "; ".join(map(check_and_numbers, verdict.reasons))
            cells = (
                f"<code>{escape_markdown_on_one_line(verdict.file)}</code>",
                verdict.verdict,
                escape_markdown_on_one_line(reasons, MAX_SENTENCE),
            )
            lines.append(f"| {' | '.join(cells)} |")
        lines += [f"| and {len(failed) - MAX_NAMED} more | | |"] if len(failed) > MAX_NAMED else []
    return (
        "\n".join(lines)
        + f"\n\npolicy {escape_markdown_on_one_line(outcome.policy.name)} {outcome.policy.sha256[:12]}\n"
    )


# Every character that begins something in GitHub's Markdown, where it can: < and _ and : also stand in plain text.
MARKUP = re.compile(r"[&>|\\`*~$@#\[\]]|<(?! )|(?<![^\W_])_|_(?![^\W_])|:(?! |$)|(?<=www)\.")


def escape_markdown_on_one_line(text: str, longest: int = MAX_NAME) -> str:
    """The text on one line, of at most `longest` characters before they are escaped, with every character that Markdown
    would read inside a line written as an HTML entity (- or 1. at its start are left).
    """
    return MARKUP.sub(lambda found: f"&#{ord(found[0])};", escaped_on_one_line(text, longest))
