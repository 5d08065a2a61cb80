"""Verdicts for pipelines: JUnit XML for test reporters, Markdown for a job's summary. Same verdicts, same bytes.

JUnit has a case for each check, not for each picture, and some case fails if and only if the gate's exit code is not 0.
The summary stays below 200 KiB (GitHub drops summaries of more than 1 MiB whole). Names come from whoever made the
files: nothing in them is markup, a line of its own, or longer than is shown.
"""

import re
from typing import Any, NamedTuple
from xml.etree import ElementTree

from eval.judging.verdicts import ORDER, reasons_of
from eval.policy.model import VERDICTS
from stylegate.errors import Exit

SHOWN = 20  # pictures that a case or a summary names
LONGEST = 200  # characters of a name or a detail
SENTENCE = 400  # characters of what is said
WORDS = {
    Exit.PASS: "pass",
    Exit.REJECTED: "rejected",
    Exit.REVIEW: "review pending",
    Exit.STALE: "calibration stale",
    Exit.EVIDENCE: "not proven",
}
# What a check did to pictures that fails its case, by exit code. Below max_failed_share rejects fail nothing.
FAILING = {Exit.REJECTED: ("error", "reject"), Exit.REVIEW: ("review",)}


class Case(NamedTuple):
    name: str
    text: str
    failed: bool = False
    skipped: bool = False


def junit(name: str, outcome: dict[str, Any], verdicts: list[dict]) -> str:
    """One suite: a case for each check, those left out as skipped, each rule, the promise, and the lot."""
    cases = [case if not outcome["observe"] else case._replace(failed=False) for case in cases_of(outcome, verdicts)]
    suite = ElementTree.Element("testsuite", name=f"stylegate {one_line(name)}", tests=str(len(cases)))
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


def cases_of(outcome: dict[str, Any], verdicts: list[dict]) -> list[Case]:
    code, counts, promise = outcome["exit_code"], outcome["counts"], outcome["promise"]
    ours = [*outcome["thresholds"], *([outcome["calibrated"]] if outcome["calibrated"] else [])]
    found: dict[str, list[tuple[dict, str]]] = {check: [] for check in ours}
    for verdict in verdicts:
        for reason in verdict["reasons"]:
            found.setdefault(reason["check"], []).append((reason, verdict["file"]))
    cases = []
    for check in [*ours, *sorted(found.keys() - set(ours))]:
        failed = any(reason["verdict"] in FAILING.get(code, ()) for reason, _ in found[check])
        cases.append(Case(f"check.{check}", listed(found[check]), failed))
    for line in outcome["left_out"]:
        check, _, why = line.partition(": ")
        cases.append(Case(f"check.{check}", one_line(why), skipped=True))
    for rule in outcome["batch"]:
        cases.append(Case(f"batch.{rule['measure']}", one_line(rule["says"]), rule["state"] == "fail"))
    broken = promise["state"] in ("stale", "insufficient")
    cases.append(Case("promise", f"{promise['state']}: {one_line(promise['says'], SENTENCE)}", broken))
    text = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS)
    cases.append(Case("lot", f"exit {code:d}: {counts['in']} in, {text}", code != Exit.PASS))
    return cases


def listed(found: list[tuple[dict, str]]) -> str:
    """Reasons with their pictures, a line each, worst consequence first."""
    found = sorted(found, key=lambda item: (ORDER.index(item[0]["verdict"]), item[1]))
    lines = [f"{reason['verdict']}: {one_line(file)}{against(reason)}" for reason, file in found[:SHOWN]]
    return "\n".join([*lines, *([f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else [])])


def against(reason: dict) -> str:
    if reason["score"] is not None and reason["threshold"] is not None:
        return f" ({reason['score']:.4g} < {reason['threshold']:.4g})"
    return f" ({one_line(reason['detail'])})" if reason.get("detail") else ""


def one_line(text: str, longest: int = LONGEST) -> str:
    """One line; what XML forbids, what cannot be seen and line breaks are escaped as in a Python string."""
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return line if len(line) <= longest else line[: longest - 1] + "…"


def markdown(name: str, outcome: dict[str, Any], verdicts: list[dict]) -> str:
    """Counts, promise, rules, reasons, what people settled, what did not judge, the worst pictures."""
    counts, code = outcome["counts"], outcome["exit_code"]
    observed = f" (observed only: exit code 0 instead of {code:d})" if outcome["observe"] else ""
    lines = [f"## stylegate: {plain(name)}: {WORDS.get(code, f'exit code {code:d}')}{observed}", ""]
    lines += ["| in | accept | review | reject | error |", "|---|---|---|---|---|"]
    lines += ["| " + " | ".join(str(counts[key]) for key in ("in", *VERDICTS)) + " |", ""]
    state = outcome["promise"]["state"]
    said = f"{state}: {outcome['promise']['says']}" if state != "none" else "none was asked for or proven"
    lines += [f"Promise: {plain(said, SENTENCE)}", ""]
    if slots := outcome.get("slots"):
        lines.append(f"- slots: {slots['accepted']} have an accepted picture, {slots['wanted']} are wanted")
    lines += [f"- {rule['state']}: {plain(rule['says'])}" for rule in outcome["batch"] if rule["state"] != "pass"]
    for kind in ORDER:
        if causes := reasons_of(verdicts, kind):
            lines.append(f"- {kind}: " + ", ".join(f"{check} {count}" for check, count in causes.items()))
    if settled := sum("settled" in verdict for verdict in verdicts):
        lines.append(f"- settled by people: {settled} accepted")
    lines += [f"- left out: {plain(check)}" for check in outcome["left_out"]]
    lines += [f"- note: {plain(note, SENTENCE)}" for note in outcome["notes"][:SHOWN]]
    lines += [f"- and {len(outcome['notes']) - SHOWN} more notes"] if len(outcome["notes"]) > SHOWN else []
    held = [v for v in verdicts if v["verdict"] != "accept"]
    held.sort(key=lambda v: (ORDER.index(v["verdict"]), v["margin"] or 0.0, v["file"]))
    if held:
        lines += ["", "| picture | verdict | reasons |", "|---|---|---|"]
        for verdict in held[:SHOWN]:
            why = "; ".join(f"{r['check']}{against(r)}" for r in verdict["reasons"])
            lines.append(f"| <code>{plain(verdict['file'])}</code> | {verdict['verdict']} | {plain(why, SENTENCE)} |")
        lines += [f"| and {len(held) - SHOWN} more | | |"] if len(held) > SHOWN else []
    return "\n".join(lines) + f"\n\npolicy {plain(outcome['policy']['name'])} {outcome['policy']['sha256'][:12]}\n"


# Every character that begins something in GitHub's Markdown, where it can: < and _ and : also stand in plain text.
MARKUP = re.compile(r"[&>|\\`*~$@#\[\]]|<(?! )|(?<![^\W_])_|_(?![^\W_])|:(?! |$)|(?<=www)\.")


def plain(text: str, longest: int = LONGEST) -> str:
    """Text that Markdown takes for nothing else: entities begin no markup, within tables neither."""
    return MARKUP.sub(lambda found: f"&#{ord(found[0])};", one_line(text, longest))
