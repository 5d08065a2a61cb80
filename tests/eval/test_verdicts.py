"""Warnings, waivers, margins, rules for the lot, exit codes; and nothing that breaks on the way is ever a pass."""

import datetime
import itertools
import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from eval import gate
from eval.judging import certified, rules
from eval.judging import judge as judging
from eval.judging.byscores import (
    margins_of_rows_above_all_lines,
    smallest_margin_in_spreads,
    verdict_and_reasons,
    verdict_of_row,
    verdicts_of_rows,
)
from eval.judging.changes import apply_waivers
from eval.judging.record import GateRecord, LotRuleResult
from eval.judging.verdicts import Reason, Verdict, make_reason, read_verdicts
from eval.lot.lot import Lot
from eval.measuring.record import BatchMeasures
from eval.policy.lines import ResolvedCheckLines
from eval.policy.model import LotRule, Policy, Waiver
from stylegate import files
from stylegate.errors import PRECEDENCE, DataError, ExitCode, most_important_exit_code
from tests import lots
from tests.lots import verdict

TODAY = datetime.date(2027, 1, 15)
STYLE = ResolvedCheckLines("style", 0.5, 0.7, True, warn_below=0.8, fail_batch_below=0.2, spread=0.1)


def judged_by(score: float) -> tuple[str, list[Reason]]:
    return verdict_and_reasons({"style": score, "in_domain": 1}, [STYLE])


@pytest.mark.parametrize(
    ("score", "verdict", "leads_to", "fails"),
    [
        (0.9, "accept", [], False),
        (0.75, "accept", ["warn"], False),
        (0.6, "review", ["review"], False),
        (0.4, "reject", ["reject"], False),
        (0.1, "reject", ["reject"], True),
    ],
)
def test_each_action_of_a_check(score: float, verdict: str, leads_to: list[str], fails: bool) -> None:
    found, reasons = judged_by(score)
    assert found == verdict and [r.verdict for r in reasons] == leads_to
    assert any(r.fails_batch for r in reasons) == fails


def test_reasons_stand_worst_first() -> None:
    """By consequence, then by how many spreads a score lies below its line, whatever the policy's order is."""
    bounds = [
        ResolvedCheckLines("sharpness", 3.0, None, True, spread=0.5),  # 1 spread below
        ResolvedCheckLines("contrast", None, 6.0, False),  # a review
        ResolvedCheckLines("brand", 0.0, None, True, spread=2.0),  # 5 spreads below
        ResolvedCheckLines("palette", -4.0, None, True, spread=0.5),  # 3 spreads below
        ResolvedCheckLines("unclipped", 0.5, None, False),  # cannot be judged
    ]
    scores = {"sharpness": 2.5, "contrast": -100, "brand": -10.0, "palette": -5.5, "unclipped": None}
    for order in itertools.permutations(bounds):
        found, reasons = verdict_and_reasons(scores, order)
        assert found == "error"
        assert [r.check for r in reasons] == ["unclipped", "brand", "palette", "sharpness", "contrast"]


def test_a_warning_whose_score_is_missing_only_warns() -> None:
    only = ResolvedCheckLines("style", None, None, True, warn_below=0.8)
    assert verdict_and_reasons({"in_domain": 1}, [only]) == (
        "accept",
        [make_reason("style", "warn", None, 0.8)],
    )


def test_the_margin_is_the_distance_to_the_nearest_line() -> None:
    sharp = ResolvedCheckLines("sharpness", 1.0, None, False, spread=0.5)
    row = {"style": 0.9, "sharpness": 1.5, "in_domain": 1}
    assert smallest_margin_in_spreads(row, [STYLE, sharp]) == pytest.approx(
        1.0
    )  # sharpness is one spread above; style two
    assert smallest_margin_in_spreads(row | {"sharpness": 5.0}, [STYLE, sharp]) == pytest.approx(2.0)
    assert smallest_margin_in_spreads(row | {"style": 0.6}, [STYLE, sharp]) == pytest.approx(-1.0)
    assert smallest_margin_in_spreads(row | {"style": None}, [STYLE, sharp]) is None
    assert smallest_margin_in_spreads(row, [ResolvedCheckLines("style", None, None, True, warn_below=2.0)]) is None, (
        "a warning holds nothing back"
    )


def test_a_check_without_degrees_keeps_no_distance() -> None:
    """`size` is 1 or 0: a picture that has the size of the others is not nearest to that line."""
    size = ResolvedCheckLines("size", None, 1.0, False, spread=0.1)
    row = {"style": 0.9, "size": 1.0, "in_domain": 1}
    assert (
        smallest_margin_in_spreads(row, [STYLE, size]) == smallest_margin_in_spreads(row, [STYLE]) == pytest.approx(2.0)
    )
    assert smallest_margin_in_spreads(row | {"size": 0.0}, [STYLE, size]) == pytest.approx(-10.0)


def test_a_picture_passes_if_and_only_if_its_margin_is_not_below_zero() -> None:
    sharp = ResolvedCheckLines("sharpness", 1.0, 1.2, False, spread=0.5)
    grid = itertools.product([0.1, 0.5, 0.6999, 0.7, 0.9], [0.9, 1.0, 1.1999, 1.2, 3.0])
    for style, sharpness in grid:
        row = {"style": style, "sharpness": sharpness, "in_domain": 1}
        kept = smallest_margin_in_spreads(row, [STYLE, sharp])
        assert kept is not None and (kept >= 0) == (verdict_and_reasons(row, [STYLE, sharp])[0] == "accept"), row


def row_of(sha256: str, *reasons: Reason) -> Verdict:
    return verdict(*reasons, sha256=sha256)


A, B = "a" * 64, "b" * 64


def test_waivers_lift_one_check_of_one_picture_until_a_day() -> None:
    rows = [
        row_of(A, make_reason("style", "reject", 0.4, 0.5), make_reason("sharpness", "review", 1, 2)),
        row_of(B, make_reason("style", "reject")),
    ]
    waiver = Waiver(sha256=A, check="style", owner="anna", reason="the client wants it", expires=TODAY)
    said = apply_waivers(rows, [waiver], TODAY)
    assert rows[0].verdict == "review" and rows[0].waived[0].owner == "anna"
    assert rows[1].verdict == "reject", "another picture"
    assert said == ["waived until 2027-01-15: style of aaaa.png by anna: the client wants it"]


def test_an_expired_waiver_counts_for_nothing_and_is_said() -> None:
    rows = [row_of(A, make_reason("style", "reject", 0.4, 0.5))]
    said = apply_waivers(
        rows,
        [Waiver(sha256=A, check="style", owner="anna", reason="for now", expires=TODAY)],
        TODAY + datetime.timedelta(days=1),
    )
    assert rows[0].verdict == "reject" and "ended on 2027-01-15: it counts for nothing" in said[0]


def test_no_waiver_lifts_an_error() -> None:
    rows = [row_of(A, make_reason("style", "error", None, 0.5))]
    said = apply_waivers(rows, [Waiver(sha256=A, check="style", owner="anna", reason="please", expires=TODAY)], TODAY)
    assert rows[0].verdict == "error" and not rows[0].waived
    assert said == ["the waiver of style of aaaa.png by anna lifts nothing: style gives no reason that can be waived"]


def test_a_line_that_comes_from_labels_is_not_waived() -> None:
    with pytest.raises(ValueError, match="its line comes from labels; decide the picture in review"):
        Waiver(sha256=A, check="margin", owner="anna", reason="please", expires=TODAY)


# Rules for the lot.


def policy_of(**rules: LotRule) -> Policy:
    return lots.policy(1.0, batch=rules)


@pytest.mark.parametrize(
    ("value", "optional", "state"),
    [(0.95, False, "pass"), (0.85, False, "warn"), (0.5, False, "fail"), (None, False, "fail"), (None, True, "pass")],
)
def test_rules_for_the_lot(value: float | None, optional: bool, state: str) -> None:
    values = dict.fromkeys(("acceptance", "uniqueness", "variety", "quotas"), None) | {"variety": value}
    (found,) = rules.results_of_lot_rules(
        policy_of(variety=LotRule(warn_below=0.9, fail_below=0.8, optional=optional)), values
    )
    assert found.state == state and found.value == value


def test_what_is_measured_of_a_lot(tmp_path: Path) -> None:
    rows = [
        row_of(A),
        row_of(B, make_reason("distinct", "reject")),
        row_of("c" * 64),
        row_of("d" * 64, make_reason("size", "review")),
    ]
    whole = BatchMeasures(vendi=3.0, vendi_references=4.0)
    found = rules.lot_measures(rows, whole, Lot(tmp_path, tmp_path, [], {}, None, None))
    assert found == {"acceptance": 0.5, "uniqueness": 0.75, "variety": 0.75, "quotas": None}


def test_quotas_compare_planned_and_accepted_shares(tmp_path: Path) -> None:
    from eval.lot.batch import PlanSlot

    def judged(accepted: list[int]) -> tuple[list[Verdict], Lot]:
        slots = {
            s.picture_file_name(0): s
            for s in (PlanSlot(slot=i, prompt="", seed=i, traits={"hat": "red" if i < 2 else "blue"}) for i in range(8))
        }
        rows = [
            verdict(file=name, kind="accept" if slot.slot in accepted else "reject") for name, slot in slots.items()
        ]
        drawn = {name: slot for name, slot in slots.items() if slot.slot != 7}  # of slot 7 no attempt has a picture
        return [row for row in rows if row.file in drawn], Lot(
            tmp_path, tmp_path, [], {}, drawn, None, plan=tuple(slots.values())
        )

    assert rules.planned_share_agreement(*judged(list(range(7)))) == pytest.approx(1 - (2 / 7 - 2 / 8))
    assert rules.planned_share_agreement(*judged([2, 3, 4, 5])) == 0.75, "red was planned for a quarter"
    assert rules.planned_share_agreement(*judged([0, 1])) == 0.25
    assert rules.planned_share_agreement(*judged([])) is None


# Exit codes.


def test_a_line_that_is_no_verdict_is_named_by_its_number_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "verdicts.jsonl").write_text("\n\n{}\n")
    with pytest.raises(DataError) as found:
        read_verdicts(tmp_path / "verdicts.jsonl")
    assert found.value.problems and all(problem.startswith("line 3: ") for problem in found.value.problems)


def test_precedence_is_the_one_that_is_documented() -> None:
    assert [int(code) for code in PRECEDENCE if code != ExitCode.PREEMPTED] == [2, 10, 1, 12, 13, 11, 0]
    assert (
        most_important_exit_code(ExitCode.REVIEW, ExitCode.STALE, ExitCode.PASS) == 12
        and most_important_exit_code(ExitCode.REJECTED, ExitCode.INTERNAL) == 10
    )


def test_the_exit_code_of_a_lot(tmp_path: Path) -> None:
    lot = Lot(tmp_path, tmp_path, [], {}, None, None)
    strict = lots.policy()
    failing = [LotRuleResult(measure="variety", value=0.1, state="fail", says="")]

    def code(rows: list[Verdict], states: list[LotRuleResult] | None = None, promise: str = "none") -> int:
        return rules.lot_exit_code(lot, rows, strict, states or [], promise)

    good, held, bad = row_of(A), row_of(A, make_reason("style", "review")), row_of(A, make_reason("style", "reject"))
    assert (code([good]), code([held]), code([bad])) == (0, 11, 10)
    assert (code([good], promise="stale"), code([good], promise="insufficient")) == (12, 13)
    assert (code([held], promise="stale"), code([bad], promise="stale")) == (12, 10)
    assert (code([good], failing), code([good], promise="certified"), code([good], promise="valid")) == (10, 0, 0)
    deep = row_of(A, make_reason("style", "reject", 0.1, 0.2).model_copy(update={"fails_batch": True}))
    assert rules.lot_exit_code(lot, [deep, good], lots.policy(1.0), [], "none") == 10


def test_actions_rules_and_waivers_through_the_gate(run, judged: Path, tmp_path: Path) -> None:
    names = sorted(p.name for p in judged.glob("*.png"))
    shas = [files.sha256_of_file(judged / name) for name in names]
    text = "version: 1\nchecks: {contrast: {reject_below: 200}}\nwaivers:\n"
    text += "".join(
        f"- {{sha256: {sha}, check: contrast, owner: anna, reason: fine, expires: 2999-01-01}}\n" for sha in shas[:31]
    )
    (tmp_path / "p.yaml").write_text(text + "batch: {acceptance: {warn_below: 0.99}, uniqueness: {fail_below: 0.5}}\n")
    told = [f"images={judged}", f"out={tmp_path / 'out'}", f"policy={tmp_path / 'p.yaml'}"]
    code, said = run("gate", *told)
    rows = files.read_jsonl(tmp_path / "out" / "verdicts.jsonl")
    assert code == 10 and [row["verdict"] for row in rows].count("accept") == 31
    assert rows[0]["waived"][0]["why"] == "fine" and "warn: acceptance is 0.969, 0.99 is asked" in said
    (tmp_path / "p.yaml").write_text(
        "version: 1\nchecks: {contrast: {reject_below: 1, warn_below: 200}}\nbatch: {variety: {fail_below: 0.1}}\n"
    )
    code, said = run("gate", *told)
    assert code == 10 and "fail: variety cannot be measured here" in said and "warn, by reason: contrast 32" in said
    code, said = run("export", *told, "name=broken-rule")
    assert code == 10 and "nothing was exported: variety cannot be measured" in said
    assert not (files.EXPORTS / "broken-rule-v1").exists()


STAGES: dict[str, tuple[Any, str]] = {
    "scores": (judging, "read_scores"),
    "policy": (judging, "resolve_check_lines"),
    "a verdict": (judging, "verdicts_of_rows"),
    "waivers": (judging, "apply_waivers"),
    "decisions": (judging, "apply_decisions"),
    "certificates": (certified, "apply_audit_labels_and_certificate"),
    "rules": (judging, "results_of_lot_rules"),
    "the exit code": (judging, "lot_exit_code"),
    "writing": (GateRecord, "write_json_file"),
    "the reports": (gate, "write_reports"),
}


def test_an_internal_error_anywhere_is_never_a_pass(
    run, judged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = [f"images={judged}", "brand=neon", f"out={tmp_path / 'out'}"]
    run("score", *told)

    def broken(*_, **__) -> None:
        raise RuntimeError("injected")

    for stage, place in STAGES.items():
        for name in ("verdicts.jsonl", "gate.json"):
            (tmp_path / "out" / name).unlink(missing_ok=True)
        with monkeypatch.context() as injected:
            injected.setattr(*place, broken)
            code, text = run("gate", *told)
        assert code == 1 and "injected" in text, (stage, code)
        if stage != "the reports":
            assert run("export", *told, "name=after-a-bug")[0] == 2, "no verdicts, no export"
            assert not (files.EXPORTS / "after-a-bug-v1").exists()


def test_the_sums_agree_everywhere(run, judged: Path, tmp_path: Path) -> None:
    (judged / "broken.png").write_bytes(b"nothing")
    run("gate", f"images={judged}", "brand=neon", f"out={tmp_path / 'out'}")
    outcome = json.loads((tmp_path / "out" / "gate.json").read_text())
    rows = files.read_jsonl(tmp_path / "out" / "verdicts.jsonl")
    counts = outcome["counts"]
    assert counts["in"] == 33 == len(rows) == sum(counts[v] for v in ("accept", "review", "reject", "error"))
    for kind in ("reject", "review", "error"):
        assert sum(outcome["why"][kind].values()) >= counts[kind]


def test_pictures_above_every_line_get_the_verdict_of_the_slow_way() -> None:
    random = Random(0)
    bounds = [
        STYLE,
        ResolvedCheckLines("contrast", 6.0, None, False, spread=1.0),
        ResolvedCheckLines("size", None, 1.0, False, spread=0.1),
    ]
    policy = policy_of()
    rows = [
        {"file": f"{i}.png", "sha256": f"{i:064x}", "error": None, "in_domain": domain}
        | {"style": style, "contrast": contrast, "size": size}
        for i, (style, contrast, size, domain) in enumerate(
            zip(
                random.choices([0.1, 0.5, 0.6999, 0.7, 0.75, 0.8, 0.8123456, 0.9, None, np.nan], k=600),
                random.choices([5.9, 6.0, 6.00004, 6.1, 40.0, None], k=600),
                random.choices([0.0, 1.0, 1.0, 1.0], k=600),
                random.choices([0, 1, 1, None], k=600),
                strict=True,
            )
        )
    ]
    rows += [rows[0] | {"error": "is no picture"}, rows[0] | {"sha256": ""}]
    for lacking, unreadable in (([], ""), (["style"], ""), ([], "like another")):
        slow = [verdict_of_row(row, bounds, policy, lacking, unreadable) for row in rows]
        assert verdicts_of_rows(rows, bounds, policy, lacking, unreadable) == slow
    assert {found.verdict for found in slow} >= {"review", "reject", "error"}
    assert any(margin is not None for margin in margins_of_rows_above_all_lines(rows, bounds))
