"""Certificates through the verbs: from labels to what may leave the house."""

import csv
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from eval import plan_audit
from eval.package import receiver
from eval.policy import file as policyfile
from eval.policy.model import Promise
from eval.promise import audit, auditplan, certificate, labels
from eval.promise.certificate import certificate_proof_problems
from eval.promise.ranked import BY_MARGIN
from eval.promise.rejected import interval_without_replacement, labelling_order_of_rejected_pictures
from eval.promise.statements import MetadataTraitStatement, stated_traits_match_audit
from stylegate import files
from tests.eval.packages import digests_in, provenance_of
from tests.eval.people import ALL_PASS, PROMISE, decisions, fill, good, label, verdicts_of


def test_from_labels_to_a_certificate_to_a_package(run, words, tmp_path: Path) -> None:
    told, out = words(ALL_PASS), tmp_path / "out"
    assert run("gate", *told)[0] == 0
    code, text = run("certify", *told)
    assert code == 13 and "audit.csv to this command." in text.splitlines()[-1] and "0 labels" in text
    assert "32 pictures are too few to measure them with 40 known rejects" in text
    ten = fill(out / "audit.csv", good, 10)
    code, text = run("certify", *told, f"decisions={ten}")
    assert code == 13 and "not proven yet with 10 labels" in text
    bad = 3
    rest = fill(out / "audit.csv", lambda i, row: "reject" if i == bad else "accept")
    rejected = list(csv.DictReader(rest.open()))[bad]["file"]
    code, text = run("certify", *told, f"decisions={rest}")
    assert code == 0 and "certify: proven" in text, text
    assert "reviewers: the reviewers are taken to be right: no known rejects were shown to them" in text
    found = verdicts_of(out)
    assert found[rejected]["verdict"] == "reject" and found[rejected]["reasons"][0]["check"] == "audit"
    looked = "all 32 pictures were looked at; 1 is a reject and is not exported"
    assert f"holds: {looked}" in run("verify", str(out / "certificate.json"))[1] and looked in text

    assert run("export", *told, "name=sure")[0] == 0
    package = files.EXPORTS / "sure-v1"
    assert not (package / "data" / "images" / rejected).exists()
    assert provenance_of(package)["judged_by"]["promise"]["state"] == "certified"
    assert run("verify", str(package))[0] == 0
    proven, _, wrong = receiver.check_received_package(package)
    assert not wrong and any("by 32 labels in an order that the ranking settles" in line for line in proven), wrong
    held = certificate.read_certificate(package / "data" / "certificate.json")
    assert digests_in(package) == set(certificate.certified_digests(held))


def test_known_rejects_measure_who_fills_in_a_worksheet(run, words, tmp_path: Path) -> None:
    """Two sheets, since another person than the first fills in the rest: each has to see the known rejects."""
    told, out = [*words(ALL_PASS), "promise.known_rejects=30"], tmp_path / "out"
    code, text = run("certify", *told)
    assert code == 13 and "reviewers: 30 known rejects are hidden among the pictures" in text
    (terms,) = auditplan.read_audit_terms(out)
    known, rows = terms.known_rejects, list(csv.DictReader((out / "audit.csv").open()))
    assert len(rows) == 62 and set(known) < {row["sha256"] for row in rows}
    assert {row["file"] for row in rows} == {f"audit-pictures/{row['sha256'][:16]}.png" for row in rows}
    assert all(files.sha256_of_file(out / row["file"]) == row["sha256"] for row in rows), "the names tell nothing"
    place = [row["sha256"] in known for row in rows]
    assert not all(place[:30]) and any(place[:20]), "mixed"

    def seen(i: int, row: dict) -> str:
        return "reject" if row["sha256"] in known and row["sha256"] != min(known) else "accept"

    code, text = run("certify", *told, f"decisions={fill(out / 'audit.csv', seen, 55)}")
    assert code == 13 and "anna: " in text and "not answered yet, which count as missed" in text
    stored = labels.read_stored_labels(out, "audit")
    assert {row.sha256 for row in stored if row.asked_for == "known"} < set(known)
    assert all(row.is_neither_withdrawn_nor_reviewer_test == (row.sha256 not in known) for row in stored)
    code, text = run("certify", *told, f"decisions={fill(out / 'audit.csv', seen)}")
    assert code == 0 and "anna did not see 1 of 30 known rejects: at most " in text, text
    assert not (out / "audit-pictures").exists()
    assert run("gate", *told)[0] == 0 and run("export", *told, "name=measured")[0] == 0
    assert {row["verdict"] for row in verdicts_of(out).values()} == {"accept"}, "known rejects say nothing of the lot"
    proven, _, wrong = receiver.check_received_package(files.EXPORTS / "measured-v1")
    assert not wrong and any("anna did not see 1 of 30 known rejects" in line for line in proven), (proven, wrong)
    shutil.rmtree(files.EXPORTS / "measured-v1")
    code, text = run("certify", *told[:-1], "promise.known_rejects=0")
    assert code == 0 and "have spent 75% of delta" in text and "reviewers are taken to be right" in text, (
        "a new attempt"
    )


def test_how_many_good_pictures_are_thrown_away(run, words, tmp_path: Path) -> None:
    """The interval holds in all but a twentieth of the samples; labels in their order say it, and decide nothing."""
    rng = np.random.default_rng(5)
    for num_good in (0, 3, 20):
        truth = np.arange(40) < num_good
        found = [int(truth[rng.permutation(40)[:12]].sum()) for _ in range(300)]
        intervals = [interval_without_replacement(count, 12, 40, 0.05) for count in found]
        held = [low <= num_good <= high for low, high in intervals]
        assert np.mean(held) >= 0.95
    assert interval_without_replacement(7, 40, 40, 0.05) == (7, 7), "all were looked at"

    told, out = words("version: 1\nchecks: {contrast: {reject_below: 200}}\n"), tmp_path / "out"
    run("gate", *told)
    policy = policyfile.read_policy(str(tmp_path / "policy.yaml"))
    pictures = sorted(row["sha256"] for row in verdicts_of(out).values())
    order = labelling_order_of_rejected_pictures(pictures, policy)
    good_ones = [label(sha256, "accept" if number < 2 else "reject") for number, sha256 in enumerate(order[:8])]
    labels.append_labels(out, "rejected", [labels.label_with_policy(one, policy) for one in good_ones])
    text = run("gate", *told)[1]
    low, high = interval_without_replacement(2, 8, 32, 0.05)
    assert (
        "8 of the 32 pictures that the gate rejects by a score were looked at (each with a chance of 0.25), 2" in text
    )
    assert f"about 8 good ones are thrown away, {low} to {high} with 95% confidence" in text
    assert {row["verdict"] for row in verdicts_of(out).values()} == {"reject"}, "these labels decide nothing"


def test_a_policy_may_let_nothing_leave_without_proof(run, words, tmp_path: Path) -> None:
    told = words(ALL_PASS.replace("ladder: [1.0, 0.5]", "required: true"))
    code, text = run("gate", *told)
    assert code == 13 and "promise: insufficient" in text
    code, text = run("export", *told, "name=unsure")
    assert code == 13 and "nothing was exported" in text and not (files.EXPORTS / "unsure-v1").exists()
    run("certify", *told)
    assert run("certify", *told, f"decisions={fill(tmp_path / 'out' / 'audit.csv', good)}")[0] == 0
    assert run("gate", *told)[0] == 0 and run("export", *told, "name=unsure")[0] == 0


def test_a_certificate_is_of_its_lot_alone(run, words, tmp_path: Path) -> None:
    """A decision that changes the lot voids it; the next attempt may spend half as much of delta, and less."""
    told, out = words(ALL_PASS), tmp_path / "out"
    run("gate", *told)
    run("certify", *told)
    assert run("certify", *told, f"decisions={fill(out / 'audit.csv', good)}")[0] == 0
    first = proof(out)
    name = sorted(verdicts_of(out))[0]
    code, text = run("gate", *told, decisions(out, {name: "reject"}, tmp_path / "d.csv"))
    assert "certificate.json is of another lot (32 pictures)" in text
    promise = json.loads((out / "gate.json").read_text())["promise"]
    assert promise["state"] == "none" and promise["says"].startswith("asked for, and not proven: certificate.json")
    code, text = run("certify", *told)
    assert "2 attempts at other lots of this batch have spent 75% of delta" in text
    assert code == 0 and json.loads((out / "certificate.json").read_text())["earlier_attempts"] == 2
    assert proof(out) > first, "the labels count again, but an eighth of delta asks for more of them"


def proof(out: Path) -> int:
    """After how many labels the whole lot was certified."""
    return json.loads((out / "certificate.json").read_text())["attempts"][0]["proven_after"]


def test_labels_beyond_a_gap_do_not_count(run, words, tmp_path: Path) -> None:
    """Who may leave out a picture could leave out the bad ones."""
    told, out = words(ALL_PASS), tmp_path / "out"
    run("gate", *told)
    run("certify", *told)
    filled = fill(out / "audit.csv", lambda i, row: "" if i == 4 else "accept")
    code, text = run("certify", *told, f"decisions={filled}")
    assert code == 13 and "27 labels lie beyond the first picture without one" in text and "with 4 labels" in text
    says = json.loads((out / "gate.json").read_text())["promise"]["says"]
    assert says == "asked for, and not proven by the 4 labels of the audit so far"
    page = (out / "report" / "index.html").read_text()
    assert f"A proof was {says}." in page
    turned = fill(out / "audit.csv", good)
    first = labels.read_stored_labels(out, "audit")[0].sha256
    turned.write_text(turned.read_text() + f"x,{first},reject,bob,,audit\n")
    code, text = run("certify", *told, f"decisions={turned}")
    assert code == 2 and "do not change" in text and "was accept (anna), is reject" in text


def test_labels_certify_under_their_own_guideline_alone(run, words, tmp_path: Path) -> None:
    """Labels given under guideline v1 once certified v2 with no new label."""
    told, out = words("guideline: v1\n" + ALL_PASS), tmp_path / "out"
    run("gate", *told)
    run("certify", *told)
    sheet = fill(out / "audit.csv", lambda i, row: "reject" if i == 0 else "accept")
    assert run("certify", *told, f"decisions={sheet}")[0] == 0
    assert {label.guideline for label in labels.read_stored_labels(out, "audit")} == {"v1"}

    told = words("guideline: v2\n" + ALL_PASS)
    code, text = run("gate", *told)
    assert code == 11 and "certificate.json is of another policy or guideline" in text
    assert "review, by reason: rejected-by-another-rule 1" in text
    assert json.loads((out / "gate.json").read_text())["promise"]["state"] == "none"
    code, text = run("certify", *told)
    assert code == 13 and "not proven yet with 0 labels" in text and "2 attempts at other lots" in text
    assert "32 labels of audits in labels.sqlite were given under another policy" in text
    code, text = run("certify", *told, f"decisions={sheet}")
    assert code == 2 and "was asked for under another policy or guideline" in text
    bare = "\n".join(",".join(line.split(",")[1:5]) for line in sheet.read_text().splitlines())
    (tmp_path / "bare.csv").write_text(bare)
    code, text = run("certify", *told, f"decisions={tmp_path / 'bare.csv'}")
    assert code == 2 and "this very row was given under another policy or guideline" in text
    assert run("certify", *told, f"decisions={fill(out / 'audit.csv', good)}")[0] == 0, "looked at afresh"


def test_review_decisions_never_certify(run, words, tmp_path: Path) -> None:
    told, out = words("version: 1\nchecks: {contrast: {review_below: 200}}\n" + PROMISE), tmp_path / "out"
    run("gate", *told)
    every = decisions(out, dict.fromkeys(verdicts_of(out), "accept"), tmp_path / "d.csv")
    assert run("gate", *told, every)[0] == 0
    code, text = run("certify", *told, every)
    assert code == 2 and "this very row was given for review" in text
    assert not (out / "certificate.json").exists()


def test_tampered_certificates_are_refused(run, words, tmp_path: Path) -> None:
    told, out = words(ALL_PASS), tmp_path / "out"
    run("gate", *told)
    run("certify", *told)
    filled = fill(out / "audit.csv", lambda i, row: "reject" if i == 0 else "accept")
    assert run("certify", *told, f"decisions={filled}")[0] == 0
    path = out / "certificate.json"
    whole = path.read_text()

    def forged(change: Callable[[dict], object]) -> str:
        """Changed, and its digest made to fit, as who means it would."""
        found = json.loads(whole)
        change(found)
        content = {key: value for key, value in found.items() if key != "sha256"}
        return json.dumps(content | {"sha256": files.canonical_sha256(content)})

    cases = {
        "its digest is of another content": whole.replace('"reject"', '"accept"'),
        "cannot be read": whole[: len(whole) // 2],
        "is version 1": whole.replace('"version": 3', '"version": 1'),
        "version 3 has a design, version 2 has none": forged(lambda c: c.update(version=2)),
        "must add up to 1": forged(lambda c: c["design"]["gamblers"][0].update(share=0.9)),
        "of the lot's random order": forged(lambda c: c["design"].update(draw=0.3)),
        "not as stylegate writes it": forged(lambda c: c.update(attempts=3, labels=[{}])),
        "the attempts do not follow": forged(lambda c: c["labels"][0].update(verdict="accept")),
        "not of the first pictures": forged(lambda c: c["labels"].pop(0)),
        "the lot is not the one": forged(lambda c: c["lot"]["pictures"].pop()),
        "that it calls proven is not": forged(lambda c: (c.update(labels=c["labels"][:3]), refit(c))),
    }
    for says, text in cases.items():
        path.write_text(text)
        for verb in (["gate", *told], ["verify", str(path)]):
            code, found = run(*verb)
            assert code == 2 and says in found and "Traceback" not in found, (says, found)
    path.write_text(whole)
    assert run("gate", *told)[0] in (0, 10)


def refit(found: dict) -> None:
    """The attempts as they follow from the labels."""
    promise = Promise(alpha=0.1, delta=0.1, ladder=(1.0, 0.5))
    plan = auditplan.AuditPlan(found["lot"]["pictures"], promise, 0, found["policy"]["sha256"], BY_MARGIN)
    attempts = plan.audit_results_for_lot_shares([label(row["sha256"], row["verdict"]) for row in found["labels"]])
    found["attempts"] = [attempt.json_data_without_defaults() for attempt in attempts]


def test_a_terminal_asks_picture_by_picture(run, words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told, out = words(ALL_PASS), tmp_path / "out"
    run("gate", *told)
    shown: list[str] = []
    answers = iter(["a", "", "what?", "a", "b", "r", "b", "a", "", "u", "", "q"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("webbrowser.open", shown.append)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("builtins.input", lambda prompt: next(answers))
    assert run("certify", *told)[0] == 13
    policy = policyfile.read_policy(str(tmp_path / "policy.yaml"))
    counting = labels.valid_labels_by_sha256(out, "audit", policy)
    assert [label.verdict for label in counting.values()] == ["accept", "accept", "unsure"], "undone answers count not"
    assert sum(label.withdrawn for label in labels.read_stored_labels(out, "audit")) == 2, (
        "but what was undone is on record"
    )
    assert len(shown) == 4 and all(Path(place.removeprefix("file://")).name.endswith(".png") for place in shown)
    monkeypatch.setenv("DISPLAY", "")
    monkeypatch.setenv("WAYLAND_DISPLAY", "")
    answers = iter(["a", "", "q"])
    assert run("certify", *told)[0] == 13 and len(shown) == 4, "no browser takes a terminal without a display"
    monkeypatch.setenv("DISPLAY", ":0")
    rows = list(csv.DictReader((out / "audit.csv").open()))
    rows[-1] |= {"verdict": "reject", "who": "bea"}
    with (out / "audit.csv").open("w", newline="") as file:
        (writer := csv.DictWriter(file, list(rows[0]))).writeheader()
        writer.writerows(rows)
    answers = iter(["a", ""] * 40)
    code, text = run("certify", *told)
    assert "audit.csv has 1 answer that was not needed; now it is audit-1.csv" in text
    assert "bea" in (out / "audit-1.csv").read_text() and not (out / "audit.csv").exists()
    assert code == 0 and len(shown) > 10 and "proven" in text, "it goes on where it was, and stops once it is proven"


def test_the_best_part_is_certified_where_the_whole_is_not() -> None:
    """A ladder: all rejects lie in the worse half, so that half stays here."""
    lot = [f"{i:064x}" for i in range(400)]
    promise = Promise(alpha=0.05, delta=0.05, ladder=(1.0, 0.5))
    policy = policyfile.read_policy("default")
    plan = auditplan.AuditPlan(lot, promise, 0, policy.sha256)
    worse = set(lot[200:])
    given = [label(s, "reject" if s in worse and i % 3 == 0 else "accept") for i, s in enumerate(plan.labelling_order)]
    whole, half = plan.audit_results_for_lot_shares(given[:250])
    assert whole.proven_after is None and half.proven_after is not None and half.rejects == 0
    found = certificate.make_certificate(plan, given[:250], [whole, half], 1, policy)
    assert certificate.certified_digests(found) == lot[:200] and not certificate_proof_problems(found)


def test_a_trait_that_was_found_wrong_is_not_stated_as_before() -> None:
    stated = [
        MetadataTraitStatement(file=f"{i}-0.png", picture=f"{i:064x}", trait="hat", value="cap") for i in range(3)
    ]
    rows = [(one.picture, one.trait, one.value) for one in stated]
    given = [label(one.digest_of_picture_trait_and_value, "reject" if one is stated[1] else "accept") for one in stated]
    corrected = [rows[0], (*rows[1][:2], "crown"), rows[2]]
    assert stated_traits_match_audit(stated, given, corrected) and stated_traits_match_audit(stated, given, rows[::2])
    for wrong in (rows, [*corrected, rows[1]], rows[:1]):
        assert not stated_traits_match_audit(stated, given, wrong)


def test_an_audit_of_traits_is_computed_again_from_its_statements() -> None:
    policy = policyfile.read_policy("default")
    stated = [
        MetadataTraitStatement(file=f"{i:05d}-0.png", picture=f"{i:064x}", trait="hat", value="cap") for i in range(300)
    ]
    plan = auditplan.AuditPlan(
        [s.digest_of_picture_trait_and_value for s in stated], plan_audit.PROMISE, 0, policy.sha256, purpose="traits"
    )
    assert plan.labelling_order != auditplan.AuditPlan(plan.lot, plan_audit.PROMISE, 0, policy.sha256).labelling_order
    given = [label(sha256) for sha256 in plan.labelling_order]
    found = certificate.make_certificate(plan, given, plan.audit_results_for_lot_shares(given), 0, policy, stated)
    assert (
        not certificate_proof_problems(found)
        and found.says == "at most 1.0% of the stated traits are wrong, with 95.0% confidence"
    )
    after = found.proven_attempt().proven_after
    assert after is not None and math.comb(300 - after, 4) / math.comb(300, 4) <= 0.025, "4 wrong ones would be seen"
    moved = [stated[0].model_copy(update={"value": "crown"}), *stated[1:]]
    other = found.model_copy(update={"statements": moved, "sha256": ""})
    other = other.model_copy(update={"sha256": other.computed_sha256()})
    assert certificate_proof_problems(other) == ["the lot is not that of its statements"]
    of_pictures = found.model_copy(update={"statements": [], "sha256": ""})
    of_pictures = of_pictures.model_copy(update={"sha256": of_pictures.computed_sha256()})
    assert certificate_proof_problems(of_pictures), "labels of one purpose serve no other"
    alpha, delta = plan_audit.PROMISE.alpha, plan_audit.PROMISE.delta
    assert audit.labels_until_proven([0] * 500, 70_000, alpha, delta / 2) == 434, "docs/plan.md"


def test_copies_are_no_lot(run, words, judged: Path) -> None:
    first = sorted(judged.glob("*.png"))[0]
    shutil.copy(first, judged / "again.png")
    code, text = run("certify", *words(ALL_PASS))
    assert code == 2 and "copies, byte for byte" in text
