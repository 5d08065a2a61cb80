"""JUnit and Markdown of a gate: parsers of both read what was meant, whatever the pictures are called."""

import itertools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from eval.judging.advice import NOBODY_LOOKED, failed_share_in_words, most_frequent_reject_in_words, next_step_in_words
from eval.judging.record import GateRecord, SlotCounts
from eval.judging.rules import lot_exit_code
from eval.judging.verdicts import NO_LINE_YET, AcceptingDecision, Reason, Verdict, make_reason
from eval.lot.lot import Lot
from eval.policy.model import Policy
from eval.report.summaries import (
    MAX_NAME,
    MAX_NAMED,
    escaped_on_one_line,
    junit_xml,
    left_out_checks_in_words,
    lot_state_in_words,
    markdown_summary,
)
from eval.scorers import SCORES
from eval.scorers.entry import NEEDS, PLAN
from stylegate import files
from stylegate.errors import ExitCode
from tests import lots

FOLDER = Lot(Path("in"), Path("out"), [], {}, None, None)
HOSTILE = [
    "line\nbreak\r\n.png",
    "nul\0 bell\x07 escape\x1b[31m.png",
    "]]>.png",
    "<script>alert(1)</script>.png",
    "</code></td></table>.png",
    "\"double\" 'single'.png",
    "a|b||c\\|d\\\\|e.png",
    "`tick` ``ticks`` ```\n# heading.png",
    "*bold* _under_ __dunder__ ~~gone~~ in_word_s.png",
    "[link](x) ![image](y) <a@b.example> www.b.example ftp: http://b.example mailto:a.png",
    "&lt;b&gt; &amp; &#124;.png",
    "@somebody #12 $x^2$ :smile:.png",
    "\u202egnp.exe \u2028 \ufffe \x85.png",
    "raw\udcff.png",
    "ünïcödé 絵 🎨.png",
    "accept: others.png\nerror: forged.png",
    "| in | accept |",
    "---|---|---",
    "x" * 255,
    "|" * 255,
    "\x01" * 255,
]


def verdict(file: str, *reasons: Reason, **more: Any) -> Verdict:
    sha256 = f"{abs(hash(file)):064x}"[:64]
    return lots.verdict(*reasons, file=file, sha256=sha256, margin=-1.5 if reasons else 0.5, **more)


REJECTED = verdict(
    "r.png", make_reason("style", "reject", 0.1234567, 0.5), make_reason("sharpness", "review", 1.0, 2.0)
)
IN_REVIEW = verdict("v.png", make_reason("sharpness", "review", 1.0, 2.0))
BROKEN = verdict("e.png", make_reason("decode", "error", detail="is no picture"))
WARNED = verdict("w.png", make_reason("size", "warn", 0.0, 1.0))
FINE = verdict("a.png")


def outcome_of(verdicts: list[Verdict], policy: Policy | None = None, **parts: Any) -> GateRecord:
    """The gate's record of a folder, its exit code as the gate gives it."""
    policy = policy or lots.policy(name="default", sha256="f" * 64)
    lines = {"reject_below": None, "review_below": None}
    plain = {
        "policy": {"name": policy.name, "sha256": policy.sha256, "max_failed_share": policy.max_failed_share},
        "thresholds": dict.fromkeys(("contrast", "sharpness", "style", "size"), lines),
        "left_out": ["palette: no references", "traits: no plan", "brand: no references"],
    }
    found = lots.gate_record(verdicts, **(plain | parts))
    return found.model_copy(
        update={"exit_code": lot_exit_code(FOLDER, verdicts, policy, found.batch, found.promise.state)}
    )


def suite_of(verdicts: list[Verdict], outcome: GateRecord) -> ElementTree.Element:
    """Parsed from the bytes that the gate writes."""
    return ElementTree.fromstring(junit_xml("lot", outcome, verdicts).encode())


def failed(suite: ElementTree.Element) -> set[str]:
    return {case.get("name", "") for case in suite.iter("testcase") if case.find("failure") is not None}


RULES = [
    [],
    [{"measure": "variety", "value": 0.5, "state": "warn", "says": "w"}],
    [{"measure": "variety", "value": 0.5, "state": "fail", "says": "f"}],
]
LOTS = [
    [FINE],
    [FINE, WARNED],
    [FINE, IN_REVIEW],
    [FINE, REJECTED, IN_REVIEW],
    [BROKEN, FINE],
    [FINE, verdict("f.png", make_reason("size", "reject", 0.0, 1.0).model_copy(update={"fails_batch": True}))],
]


def test_a_case_fails_if_and_only_if_the_exit_code_is_not_0() -> None:
    codes = set()
    for lot, rules, state, share in itertools.product(
        LOTS, RULES, ("none", "valid", "certified", "stale", "insufficient"), (0.0, 0.9)
    ):
        promise = {"state": state, "says": "says"}
        outcome = outcome_of(lot, lots.policy(share, sha256="0" * 64), batch=rules, promise=promise)
        suite, code = suite_of(lot, outcome), outcome.exit_code
        codes.add(code)
        assert bool(failed(suite)) == (code != 0), (outcome, failed(suite))
        assert int(suite.get("failures", "")) == len(failed(suite)) and suite.get("errors") == "0"
        assert int(suite.get("tests", "")) == len(suite) == len({case.get("name") for case in suite})
        assert not failed(suite_of(lot, outcome.model_copy(update={"observe": True}))), "the exit code is 0 then"
    assert codes == {ExitCode.PASS, ExitCode.REJECTED, ExitCode.REVIEW, ExitCode.STALE, ExitCode.EVIDENCE}


def test_there_is_a_case_a_check_and_it_says_what_failed_the_lot() -> None:
    lot = [REJECTED, IN_REVIEW, BROKEN, WARNED, FINE]
    suite = suite_of(lot, outcome_of(lot))
    assert [case.get("name") for case in suite] == [
        *("check.contrast", "check.sharpness", "check.style", "check.size"),
        *("check.decode", "check.palette", "check.traits", "check.brand", "promise", "lot"),
    ]
    assert failed(suite) == {"check.style", "check.decode", "lot"}, "what is in review does not reject a lot"
    assert suite.findtext("*[@name='check.style']/failure") == "reject: r.png (0.1235 < 0.5)"
    assert suite.findtext("*[@name='check.decode']/failure") == "error: e.png (is no picture)"
    assert suite.findtext("*[@name='check.size']/system-out") == "warn: w.png (another size than the others)"
    assert suite.findtext("*[@name='check.traits']/skipped") == "no plan"
    assert suite.get("skipped") == "3"
    assert NOBODY_LOOKED in (suite.findtext("*[@name='lot']/failure") or "")
    calibrated = suite_of([FINE], outcome_of([FINE], calibrated="margin"))
    assert calibrated.find("*[@name='check.margin']") is not None and not failed(calibrated), "of labels"
    pending = [IN_REVIEW, FINE]
    assert failed(suite_of(pending, outcome_of(pending))) == {"check.sharpness", "lot"}
    assert failed(suite_of(lot, outcome_of(lot, lots.policy(0.5)))) == {"check.sharpness", "lot"}, "share of .4"


def test_names_survive_in_xml() -> None:
    """A parser gives each name back on a line of its own: as it was, but for what XML or a line cannot hold."""
    for name in HOSTILE:
        lot = [verdict(name, make_reason("style", "reject", 0.1, 0.5)), FINE]
        for text in (junit_xml("lot", outcome_of(lot), lot), junit_xml(name, outcome_of(lot), lot)):
            suite = ElementTree.fromstring(text.encode())
            case = suite.find("*[@name='check.style']/failure")
            assert case is not None and case.text == f"reject: {escaped_on_one_line(name)} (0.1 < 0.5)" == case.get(
                "message"
            ), name
        assert escaped_on_one_line(name) in suite.get("name", "")
    for plain in ("\"double\" 'single'.png", "]]>.png", "ünïcödé 絵 🎨.png", "a|b||c\\|d\\\\|e.png"):
        assert escaped_on_one_line(plain) == plain
    assert escaped_on_one_line("a\nb\0\udcff\u202e") == "a\\nb\\x00\\udcff\\u202e"
    assert len(escaped_on_one_line("x" * 255)) == MAX_NAME == len(
        escaped_on_one_line("\x01" * 255)
    ) and escaped_on_one_line("x" * 255).endswith("…")


def tables(text: str) -> list[list[list[str]]]:
    """Every table as a Markdown parser sees it: rows of cells, a cell as its text."""
    tokens = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text)
    found: list[list[list[str]]] = []
    for before, token in itertools.pairwise(tokens):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif before.type in ("td_open", "th_open"):
            found[-1][-1].append(text_of(token))
    return found


def text_of(token: Token) -> str:
    """What a reader sees; our own <code> is the only markup that may be there."""
    children = token.children or []
    assert all(child.type in ("text", "html_inline") for child in children), token
    assert all(child.content in ("<code>", "</code>") for child in children if child.type == "html_inline"), token
    return "".join(child.content for child in children if child.type == "text")


def test_names_do_not_break_the_table() -> None:
    for name in HOSTILE:
        lot = [verdict(name, make_reason("decode", "error", detail=name)), IN_REVIEW, FINE]
        said = {"notes": [f"waived: {name}"], "promise": {"state": "valid", "says": name}}
        text = markdown_summary(name, outcome_of(lot, **said), lot)
        counts, pictures = tables(text)
        assert counts == [["in", "accept", "review", "reject", "error"], ["3", "1", "1", "0", "1"]], name
        wanted = ["picture", "v.png", escaped_on_one_line(name)]
        assert [row[0] for row in pictures] == [" ".join(cell.split()) for cell in wanted], name
        assert [row[1:] for row in pictures[1:]] == [
            ["review", "sharpness (1 < 2)"],
            ["error", " ".join(f"decode ({escaped_on_one_line(name)})".split())],
        ]
        blocks = [t.type for t in MarkdownIt("commonmark").enable("table").parse(text)]
        assert blocks.count("heading_open") == 1 and not {"html_block", "fence", "code_block", "hr"} & set(blocks), name
        left = re.sub(r"&#\d+;|</?code>|^## ", "", text)
        found = re.search(r"<(?! )|[&>@#$\\`*~\[\]]|www\.|:[/\w]", left)
        assert found is None, f"{found}: a tag, a link or a mention, for some reader of Markdown"
        for token in MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text):
            if token.type == "inline":
                text_of(token)


def test_the_summary_of_a_large_lot_is_small_and_names_near_misses() -> None:
    for letter in ("x", "|", "\x01", "🎨"):
        lot = [
            verdict(f"{number:05d}{letter * 250}", make_reason("style", "reject", 0.1, 0.5)) for number in range(5_000)
        ]
        for number, found in enumerate(lot):
            found.margin = float(-number)
            found.reasons += [make_reason("person", "reject", detail=letter * 2000)] * 3
        notes = [letter * 5000] * 500
        text = markdown_summary(letter * 255, outcome_of(lot, notes=notes, left_out=notes[:20]), lot)
        assert len(text.encode()) < 200 * 1024, letter
        one_line_rows = tables(text)[1][1:]
        assert [row[0][:5] for row in one_line_rows[:-1]] == [f"{i:05d}" for i in range(MAX_NAMED)]
        assert one_line_rows[-1][0] == f"and {5_000 - MAX_NAMED} more" and "- and 480 more notes" in text
        suite = suite_of(lot, outcome_of(lot))
        lines = (suite.findtext("*[@name='check.style']/failure") or "").splitlines()
        assert len(lines) == MAX_NAMED + 1 and lines[-1] == f"and {5_000 - MAX_NAMED} more"


def test_the_summary_says_what_the_gate_says() -> None:
    settled = FINE.model_copy(update={"settled": AcceptingDecision(who="a", why="", reasons=[])})
    lot = [REJECTED, IN_REVIEW, BROKEN, WARNED, settled]
    slots = {"wanted": 5, "accepted": 2}
    rules = [
        {"measure": "variety", "value": 0.4, "state": "warn", "says": "variety is 0.4"},
        {"measure": "uniqueness", "value": 1.0, "state": "pass", "says": "unheard"},
    ]
    outcome = outcome_of(lot, slots=slots, batch=rules, notes=["3 references are left out"])
    text = markdown_summary("lot", outcome, lot)
    for line in (
        "## stylegate: lot: rejected",
        "| 5 | 2 | 1 | 1 | 1 |",
        "- slots: 2 have an accepted picture, 5 are wanted",
        "- warn: variety is 0.4",
        "- error: decode 1",
        "- reject: style 1",
        "- review: sharpness 1",
        "- warn: size 1",
        "- settled by people: 1 accepted",
        "- checks left out, which hold no picture back: palette, brand (no references); traits (no plan)",
        "- note: 3 references are left out",
        "| picture | verdict | reasons (score < limit; higher is better, so -2 is better than -11) |",
        "| <code>e.png</code> | error | decode (is no picture) |",
        "| <code>r.png</code> | reject | style (0.1235 < 0.5); sharpness (1 < 2) |",
        "policy default ffffffffffff",
    ):
        assert line in text.splitlines(), (line, text)
    assert "Promise" not in text, "none was asked for"
    assert "unheard" not in text and "observed" not in text
    assert text.splitlines()[2] == NOBODY_LOOKED, "the first thing that is said"
    given = outcome.model_copy(update={"references": outcome.references.model_copy(update={"given": 9})})
    assert NOBODY_LOOKED not in markdown_summary("lot", given, lot) + junit_xml("lot", given, lot)
    observed = markdown_summary("lot", outcome.model_copy(update={"observe": True}), lot)
    assert observed.startswith("## stylegate: lot: rejected (observed only: exit code 0 instead of 10)\n")
    assert markdown_summary("lot", outcome_of([FINE]), [FINE]).count("|---") == 5, (
        "no table of pictures where none is held"
    )


def test_every_lot_that_does_not_pass_is_told_what_is_next() -> None:
    promises = ("none", "certified", "stale", "insufficient")
    for lot, rules, state, share in itertools.product(LOTS, RULES, promises, (0.0, 0.5)):
        promise = {"state": state, "says": "says"}
        outcome = outcome_of(lot, lots.policy(share, sha256="0" * 64), batch=rules, promise=promise)
        advice = next_step_in_words(outcome, lot, "out")
        assert bool(advice) == (outcome.exit_code != ExitCode.PASS), (outcome, advice)
        assert ("out/review.csv" in advice) == (bool(advice) and IN_REVIEW in lot)
        assert not advice or f"Next: {advice[:20]}" in markdown_summary("out", outcome, lot)
        assert not next_step_in_words(outcome.model_copy(update={"observe": True}), lot, "out"), "the exit code is 0"
    policies = [lots.policy(share, sha256="0" * 64) for share in (0.0, 0.4, 0.6)]
    said = [failed_share_in_words(outcome_of([FINE, REJECTED], policy)) for policy in policies]
    assert (
        said[0] == "" and "is more than max_failed_share 0.4" in said[1] and "is within max_failed_share 0.6" in said[2]
    )
    assert not failed_share_in_words(outcome_of([FINE], policies[1]))


def test_pictures_that_wait_for_a_line_alone_are_not_given_to_a_person() -> None:
    """Nobody is asked to decide about pictures that a calibration will judge."""
    no_line = verdict("m.png", make_reason("margin", "review", 1.0, None, NO_LINE_YET))
    for lot, calibration, asked in (
        ([FINE, no_line], "data/c.json", ""),
        ([no_line, IN_REVIEW], "data/c.json", "A person must decide about 1 picture: "),
        ([no_line, IN_REVIEW], None, "A person must decide about 2 pictures: "),
    ):
        outcome = outcome_of(lot, calibration=calibration, promise={"state": "insufficient", "says": "says"})
        advice = next_step_in_words(outcome, lot, "out")
        assert ("1 picture is in review only until stylegate calibrate" in advice) == bool(calibration)
        assert asked in advice and ("A person" in advice) == ("out/review.csv" in advice) == bool(asked)


def test_checks_of_a_plan_are_not_missed_where_nobody_planned() -> None:
    left_out = [f"traits: {NEEDS[PLAN]}", "palette: no references"]
    folder = outcome_of([FINE], left_out=left_out)
    planned = outcome_of([FINE], left_out=left_out, slots={"wanted": 1, "accepted": 1})
    start = "checks left out, which hold no picture back: "
    assert left_out_checks_in_words(folder) == f"{start}palette (no references)"
    assert left_out_checks_in_words(planned) == f"{start}traits ({NEEDS[PLAN]}); palette (no references)"
    assert left_out_checks_in_words(outcome_of([FINE], left_out=left_out[:1])) == ""
    assert suite_of([FINE], folder).findtext("*[@name='check.traits']/skipped") == NEEDS[PLAN], "JUnit has all"


def test_what_is_wrong_is_said_in_words_where_numbers_do_not_say_it() -> None:
    """And what is true of every picture is explained once, not beside each."""
    odd = verdict("o.png", make_reason("size", "review", 0.0, 1.0), make_reason("alpha", "review", 0.0, 1.0))
    unread = verdict("u.png", make_reason("style-unreadable", "review", detail="the references cannot be told"))
    text = markdown_summary("lot", outcome_of([odd, unread]), [odd, unread])
    assert f"size (another size than the others); alpha ({SCORES['alpha'].fault})" in text
    assert "| style-unreadable |" in text
    assert [bool(score.fault) for score in SCORES.values()] == [not score.graded for score in SCORES.values()]


@pytest.mark.parametrize("state", ["stale", "insufficient"])
def test_a_promise_that_is_not_kept_is_said(state: str) -> None:
    outcome = outcome_of([FINE], promise={"state": state, "says": "another LoRA than then"})
    text = markdown_summary("lot", outcome, [FINE])
    assert f"Promise: {state}: another LoRA than then" in text
    assert text.splitlines()[0] in ("## stylegate: lot: calibration stale", "## stylegate: lot: not proven")
    assert failed(suite_of([FINE], outcome)) == {"promise", "lot"}


AGAIN = """
from eval.judging.verdicts import make_reason
from tests.eval.test_summaries import BROKEN, FINE, HOSTILE, IN_REVIEW, REJECTED, WARNED, outcome_of, verdict
from eval.report.summaries import junit_xml, markdown_summary
lot = [REJECTED, IN_REVIEW, BROKEN, WARNED, FINE]
lot += [v.model_copy(update={"file": name}) for v in (REJECTED, BROKEN) for name in HOSTILE]
for check in ("person", "audit", "outside-certificate", "too-few-references"):
    lot.append(verdict(check, make_reason(check, "review", detail="why")))
outcome = outcome_of(lot)
print(ascii(junit_xml("lot", outcome, lot) + markdown_summary("lot", outcome, lot)))
"""


def test_identical_input_gives_identical_bytes() -> None:
    """Also under another order of hashes."""
    made = set()
    for seed in ("1", "2", "3"):
        environment = {"PYTHONHASHSEED": seed, "PATH": ""}
        done = subprocess.run([sys.executable, "-c", AGAIN], cwd=files.ROOT, capture_output=True, env=environment)
        assert done.returncode == 0, done.stderr.decode()
        made.add(done.stdout)
    assert len(made) == 1 and len(made.pop()) > 5000


def test_what_helps_most_and_what_a_copy_is_like_are_said() -> None:
    copy = verdict("c.png", make_reason("novelty", "reject", -6.9, -3.6, detail="like 0001.png"))
    both = [copy, BROKEN]
    folder = outcome_of(both)
    assert "novelty (-6.9 < -3.6, like 0001.png)" in markdown_summary("lot", folder, [copy])
    mend = "for it in a policy file (docs/policies.md). Repair or remove 1 picture in error"
    assert mend in next_step_in_words(folder, both, "out")
    planned = folder.model_copy(update={"slots": SlotCounts(wanted=2, accepted=0)})
    assert f"reason to reject is novelty; what helps: {SCORES['novelty'].remedies_in_words()}." in next_step_in_words(
        planned, both, "out"
    )


def test_a_batch_of_which_hardly_any_picture_passes_is_not_drawn_again_first() -> None:
    again = "Run generate and then gate"
    for accepted, rejected, hopeless in ((0, 16, True), (1, 19, True), (1, 15, False), (0, 0, False)):
        lot = [FINE] * accepted + [REJECTED] * rejected + [BROKEN]
        outcome = outcome_of(lot, slots={"wanted": 40, "accepted": accepted})
        outcome = outcome.model_copy(update={"exit_code": ExitCode.REJECTED})
        advice = next_step_in_words(outcome, lot, "out")
        assert advice.startswith("The most frequent reason to reject is style") == hopeless, advice
        assert advice.startswith(again) != hopeless
        assert (
            f"of {accepted + rejected} pictures that the gate decided {accepted} were accepted" in advice
        ) == hopeless


def test_reasons_that_reject_as_many_pictures_are_all_named() -> None:
    lot = [
        REJECTED,
        verdict("n.png", make_reason("novelty", "reject", 0.0, 1.0)),
        verdict("p.png", make_reason("person", "reject")),
    ]
    outcome = outcome_of(lot, slots={"wanted": 3, "accepted": 0})
    advice = most_frequent_reject_in_words(outcome)
    helps = [f"What helps against {check}: {SCORES[check].remedies_in_words()}." for check in ("style", "novelty")]
    assert advice == ["The most frequent reasons to reject are style, novelty and person.", *helps]
    assert most_frequent_reject_in_words(outcome_of([*lot, REJECTED]))[0].startswith(
        "The most frequent reason to reject is style; what helps: "
    )


def test_the_state_of_a_batch_is_worded_by_what_a_person_must_decide() -> None:
    waiting = {"exit_code": ExitCode.REVIEW}
    for lot, exhausted, words in (
        ([REJECTED], [3], "a person must decide about 1 slot"),
        ([REJECTED], [3, 7], "a person must decide about 2 slots"),
        ([IN_REVIEW], [3], "review pending"),
        ([IN_REVIEW], [], "review pending"),
    ):
        outcome = outcome_of(lot, slots={"wanted": 2, "accepted": 0, "exhausted": exhausted})
        assert lot_state_in_words(outcome.model_copy(update=waiting)) == words


def test_a_look_at_what_was_rejected_is_offered_where_nothing_else_waits() -> None:
    looked = {"rejected labels": "0" * 64}
    failed_by_size = LOTS[-1]
    for lot, share, parts, offered in (
        ([FINE, REJECTED], 0.0, {}, True),
        ([FINE, REJECTED], 0.5, {}, True),  # the lot passes: there is nothing else to do
        (failed_by_size, 0.0, {}, True),
        ([FINE, REJECTED, IN_REVIEW], 0.0, {}, False),  # a person decides about the other one first
        ([FINE, REJECTED], 0.0, {"evidence": looked}, False),
        ([FINE, REJECTED], 0.0, {"slots": {"wanted": 2, "accepted": 1}}, False),
        ([FINE, REJECTED], 0.0, {"observe": True}, False),
        ([FINE, BROKEN], 0.0, {}, False),  # it cannot be shown
        ([FINE, verdict("p.png", make_reason("person", "reject", detail="a"))], 0.0, {}, False),
    ):
        outcome = outcome_of(lot, lots.policy(share, sha256="0" * 64), **parts)
        for out in ("out", ""):
            advice = next_step_in_words(outcome, lot, out)
            assert ("stylegate review queue=rejected with the same arguments" in advice) == offered, (lot, advice)


def test_a_rejected_folder_says_how_the_accepted_pictures_leave() -> None:
    by_person = verdict("p.png", make_reason("person", "reject", detail="a"))
    slots: dict[str, Any] = {"slots": {"wanted": 2, "accepted": 1}}
    none: dict[str, Any] = {}
    pack = "because of {} alone. To pack the {}, run stylegate export with the same images= and out=."
    for lot, parts, waive, packed in (
        ([FINE, FINE, REJECTED, by_person], none, True, pack.format("2 pictures", "2 accepted ones")),
        (
            [FINE, by_person],
            none,
            False,
            pack.format("1 picture", "1 accepted one"),
        ),  # no waiver lifts what people said
        ([REJECTED, by_person], none, True, ""),
        ([FINE, REJECTED, IN_REVIEW], none, True, ""),  # more may be accepted once people have decided
        ([FINE, REJECTED], slots, False, ""),
        ([FINE], none, False, ""),
    ):
        advice = next_step_in_words(outcome_of(lot, **parts), lot, "out")
        assert ("waive its check" in advice) == waive, advice
        assert packed in advice and ("stylegate export" in advice) == bool(packed), advice


def test_what_people_decided_is_offered_to_learn_from_once_it_is_enough() -> None:
    accepted = FINE.model_copy(update={"settled": AcceptingDecision(who="a", why="", reasons=[])})
    rejected = verdict("p.png", make_reason("person", "reject", detail="a"))
    for good, bad, offered in ((10, 10, True), (9, 10, False), (10, 9, False)):
        lot = [accepted] * good + [rejected] * bad
        for outcome in (outcome_of(lot), outcome_of(lot, lots.policy(1.0, sha256="0" * 64))):
            advice = next_step_in_words(outcome, lot, "out")
            assert (f"people, who accepted {good} and rejected {bad} pictures: run stylegate" in advice) == offered
            assert ("stylegate learn" in markdown_summary("lot", outcome, lot)) == offered
        assert outcome.exit_code == ExitCode.PASS, "the lot passes, and can be learned from all the same"
    on_page = next_step_in_words(outcome_of([IN_REVIEW, REJECTED]), [IN_REVIEW, REJECTED], "")
    assert (
        "stylegate review with the same arguments" in on_page and ".csv" not in on_page and "index.html" not in on_page
    )


def test_the_summary_names_files_as_they_are_typed(run, judged: Path, tmp_path: Path, monkeypatch) -> None:
    """Not by the last folder of out= alone; and, where it lies elsewhere, without a path of the machine."""
    for here, typed in ((tmp_path, "some/where"), (judged, "where")):
        monkeypatch.chdir(here)
        run("gate", f"images={judged}", "references=neon", f"out={tmp_path / 'some' / 'where'}")
        said = (tmp_path / "some" / "where" / "summary.md").read_text()
        assert f"decisions={typed}/review.csv" in said and str(tmp_path) not in said, said
