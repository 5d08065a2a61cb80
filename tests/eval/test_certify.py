"""Certificates, calibrations and decisions through the verbs: from labels to what may leave the house."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from eval import gate
from eval.promise import certify, labels
from eval.promise.labels import Label
from stylegate import files
from stylegate.errors import DataError

PROMISE = "promise: {alpha: 0.1, delta: 0.1, ladder: [1.0, 0.5]}\n"
ALL_IN_REVIEW = "version: 1\nchecks: {contrast: {review_below: 200}}\n"
ALL_PASS = "version: 1\nchecks: {contrast: {reject_below: 1}}\n" + PROMISE
CALIBRATED = "version: 1\nchecks: {contrast: {reject_below: 1}, sharpness: calibrated}\n" + PROMISE


@pytest.fixture
def words(judged: Path, tmp_path: Path) -> Callable[[str], list[str]]:
    """Words for a policy of this text, on 32 true pictures."""

    def make(policy: str) -> list[str]:
        (tmp_path / "policy.yaml").write_text(policy)
        return [f"images={judged}", "references=neon", f"out={tmp_path / 'out'}", f"policy={tmp_path / 'policy.yaml'}"]

    return make


def verdicts_of(out: Path) -> dict[str, dict]:
    rows = files.read_jsonl(out / "verdicts.jsonl")
    counts = json.loads((out / "gate.json").read_text())["counts"]
    assert counts["in"] == len(rows) == sum(counts[v] for v in ("accept", "review", "reject", "error"))
    return {row["file"]: row for row in rows}


def fill(sheet: Path, verdict: Callable[[int, dict], str], count: int | None = None) -> Path:
    """A worksheet with its first `count` rows filled in by anna."""
    with sheet.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for i, row in enumerate(rows[:count]):
        row |= {"verdict": verdict(i, row), "who": "anna", "why": f"seen {i}"}
    filled = sheet.with_name("filled.csv")
    with filled.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return filled


def good(i: int, row: dict) -> str:
    return "accept"


def decisions(out: Path, wanted: dict[str, str], path: Path) -> str:
    rows = verdicts_of(out)
    lines = [f"{rows[name]['sha256']},{verdict},anna,looked" for name, verdict in wanted.items()]
    path.write_text("sha256,verdict,who,why\n" + "\n".join(lines) + "\n")
    return f"decisions={path}"


# Decisions: the way out of review.


def test_decisions_settle_what_is_in_review(run, words, tmp_path: Path) -> None:
    told, out = words(ALL_IN_REVIEW), tmp_path / "out"
    assert run("gate", *told)[0] == 11
    names = sorted(verdicts_of(out))
    some = dict.fromkeys(names[:-2], "accept") | {names[-2]: "unsure", names[-1]: "reject"}
    code = run("gate", *told, decisions(out, some, tmp_path / "d.csv"))[0]
    found = verdicts_of(out)
    assert code == 10 and [found[n]["verdict"] for n in names[-2:]] == ["review", "reject"]
    assert found[names[0]]["settled"] == {
        "who": "anna",
        "why": "looked",
        "reasons": found[names[0]]["settled"]["reasons"],
    }
    assert found[names[-1]]["reasons"][0]["detail"] == "anna: looked"
    rest = decisions(out, {names[-2]: "accept", names[-1]: "accept"}, tmp_path / "e.csv")
    assert run("gate", *told, rest)[0] == 0, "who decided may decide again"
    assert run("gate", *told)[0] == 0, "decisions stay"


def test_decisions_accept_nothing_that_the_policy_rejects(run, words, tmp_path: Path, judged: Path) -> None:
    (judged / "broken.png").write_bytes(b"nothing")
    told, out = words("version: 1\nchecks: {contrast: {reject_below: 200}}\n"), tmp_path / "out"
    assert run("gate", *told)[0] == 10
    every = dict.fromkeys(verdicts_of(out), "accept")
    code, text = run("gate", *told, decisions(out, every, tmp_path / "d.csv"))
    assert code == 10 and "decisions are of pictures that the policy rejects" in text
    assert {v["verdict"] for v in verdicts_of(out).values()} == {"reject", "error"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("file,verdict\nx,accept", "needs a first line"),
        ("", "needs a first line"),
        ("sha256,verdict,who,why\nabc,accept,anna,", "line 2: sha256 is not 64 hex digits"),
        ("sha256,verdict,who,why\nKNOWN,maybe,anna,", "verdict 'maybe' is none of"),
        ("sha256,verdict,who,why\nKNOWN,accept,,", "who is empty"),
        ("sha256,verdict,who,why\nKNOWN,accept,anna,\nKNOWN,reject,bob,", "line 3: contradicts"),
        ("sha256,verdict,who,why,purpose\nKNOWN,accept,anna,,audit", "is for audit"),
        ("\xff\xfe", "cannot be read"),
    ],
)
def test_bad_decisions_are_refused_whole(run, words, tmp_path: Path, text: str, says: str) -> None:
    told, out = words(ALL_IN_REVIEW), tmp_path / "out"
    run("gate", *told)
    known = next(iter(verdicts_of(out).values()))["sha256"]
    (tmp_path / "d.csv").write_bytes(text.replace("KNOWN", known).encode("latin-1"))
    code, found = run("gate", *told, f"decisions={tmp_path / 'd.csv'}")
    assert code == 2 and says in found and "Traceback" not in found
    assert not (out / "decisions.jsonl").exists()


def test_decisions_may_be_of_many_lots_and_labels_may_not(run, words, tmp_path: Path) -> None:
    """A pipeline's decisions.csv grows from lot to lot; a label of a picture that is not in the lot is a mistake."""
    told, out = words(ALL_IN_REVIEW), tmp_path / "out"
    run("gate", *told)
    path = tmp_path / "d.csv"
    told_to = decisions(out, dict.fromkeys(verdicts_of(out), "accept"), path)
    path.write_text(path.read_text() + f"{'0' * 64},accept,anna,of last week\n")
    code, text = run("gate", *told, told_to)
    assert code == 0 and "note: 1 decisions are of pictures that are not here" in text
    (tmp_path / "a.csv").write_text(f"sha256,verdict,who,why\n{'0' * 64},accept,anna,\n")
    code, text = run("certify", *told, f"decisions={tmp_path / 'a.csv'}")
    assert code == 2 and "line 2: no picture here is 000000" in text


def test_a_calibration_that_the_policy_has_no_use_for_is_refused(run, words, tmp_path: Path) -> None:
    code, text = run("gate", *words(ALL_PASS), f"calibration={tmp_path / 'none.json'}")
    assert code == 2 and "no check that is calibrated" in text


def test_a_spreadsheets_semicolons_are_read(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text(f"\ufeffsha256;verdict;who;why\n{'a' * 64};Accept;anna;fine, really\n")
    found = labels.read_csv(tmp_path / "d.csv", "review", tmp_path, ["a" * 64])
    assert found == [Label("a" * 64, "accept", "anna", "fine, really")]


# The certificate.


def test_from_labels_to_a_certificate_to_a_package(run, words, tmp_path: Path) -> None:
    told, out = words(ALL_PASS), tmp_path / "out"
    assert run("gate", *told)[0] == 0
    code, text = run("certify", *told)
    assert code == 13 and text.splitlines()[-1].endswith("audit.csv") and "0 labels" in text
    ten = fill(out / "audit.csv", good, 10)
    code, text = run("certify", *told, f"decisions={ten}")
    assert code == 13 and "not proven yet with 10 labels" in text
    bad = 3
    rest = fill(out / "audit.csv", lambda i, row: "reject" if i == bad else "accept")
    rejected = list(csv.DictReader(rest.open()))[bad]["file"]
    code, text = run("certify", *told, f"decisions={rest}")
    assert code == 0 and "certify: proven" in text, text
    found = verdicts_of(out)
    assert found[rejected]["verdict"] == "reject" and found[rejected]["reasons"][0]["check"] == "audit"
    assert "holds: at most 10.0%" in run("verify", str(out / "certificate.json"))[1]

    assert run("export", *told, "name=sure")[0] == 0
    package = files.EXPORTS / "sure-v1"
    assert not (package / "images" / rejected).exists()
    assert json.loads((package / "provenance.json").read_text())["judged_by"]["promise"]["state"] == "certified"
    assert run("verify", str(package))[0] == 0
    held = json.loads((package / "certificate.json").read_text())
    assert {row["sha256"] for row in files.read_jsonl(package / "metadata.jsonl")} == set(certify.goes_out(held))


def test_a_policy_may_let_nothing_leave_without_proof(run, words, tmp_path: Path) -> None:
    told = words(ALL_PASS.replace("ladder: [1.0, 0.5]", "required: true"))
    code, text = run("gate", *told)
    assert code == 13 and "promise: insufficient" in text
    code, text = run("export", *told, "name=unsure")
    assert code == 13 and "nothing left the house" in text and not (files.EXPORTS / "unsure-v1").exists()
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
    assert json.loads((out / "gate.json").read_text())["promise"]["state"] == "none"
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
    turned = fill(out / "audit.csv", good)
    first = labels.read(out, "audit")[0].sha256
    turned.write_text(turned.read_text() + f"x,{first},reject,bob,,audit\n")
    code, text = run("certify", *told, f"decisions={turned}")
    assert code == 2 and "do not change" in text and "was accept (anna), is reject" in text


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
        return json.dumps(content | {"sha256": files.digest(content)})

    cases = {
        "its digest is of another content": whole.replace('"reject"', '"accept"'),
        "cannot be read": whole[: len(whole) // 2],
        "is version 2": whole.replace('"version": 1', '"version": 2'),
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
    promise = certify.Promise(alpha=0.1, delta=0.1, ladder=(1.0, 0.5))
    plan = certify.Plan(found["lot"]["pictures"], promise, 0)
    found["attempts"] = plan.attempts([Label(**row) for row in found["labels"]])


def test_a_terminal_asks_picture_by_picture(run, words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told, out = words(ALL_PASS), tmp_path / "out"
    run("gate", *told)
    shown: list[str] = []
    answers = iter(["a", "what?", "a", "u", "q"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("webbrowser.open", shown.append)
    monkeypatch.setattr("builtins.input", lambda prompt: next(answers))
    assert run("certify", *told)[0] == 13
    assert [label.verdict for label in labels.read(out, "audit")] == ["accept", "accept", "unsure"]
    assert len(shown) == 4 and all(Path(place.removeprefix("file://")).name.endswith(".png") for place in shown)
    answers = iter(["a"] * 40)
    code, text = run("certify", *told)
    assert code == 0 and len(shown) > 10 and "proven" in text, "it goes on where it was, and stops once it is proven"


def test_the_best_part_is_certified_where_the_whole_is_not() -> None:
    """A ladder: all rejects lie in the worse half, so that half stays here."""
    lot = [f"{i:064x}" for i in range(400)]
    promise = certify.Promise(alpha=0.05, delta=0.05, ladder=(1.0, 0.5))
    plan = certify.Plan(lot, promise, 0)
    worse = set(lot[200:])
    given = [Label(s, "reject" if s in worse and i % 3 == 0 else "accept", "anna") for i, s in enumerate(plan.order)]
    whole, half = plan.attempts(given[:250])
    assert whole["proven_after"] is None and half["proven_after"] is not None and half["rejects"] == 0
    policy = gate.policyfile.read("default")
    found = certify.certificate(plan, given[:250], [whole, half], 1, policy)
    assert certify.goes_out(found) == lot[:200] and not certify.problems_of(found)


def test_copies_are_no_lot(run, words, judged: Path) -> None:
    first = sorted(judged.glob("*.png"))[0]
    shutil.copy(first, judged / "again.png")
    code, text = run("certify", *words(ALL_PASS))
    assert code == 2 and "copies, byte for byte" in text


# Calibration.


def test_a_calibrated_line_comes_from_labels(run, words, tmp_path: Path) -> None:
    told, out = words(CALIBRATED), tmp_path / "out"
    code, text = run("gate", *told)
    assert code == 13 and {v["verdict"] for v in verdicts_of(out).values()} == {"review"}, "no line yet"
    assert run("export", *told)[0] == 13
    ten = ["promise.num_labels=10"]
    assert run("calibrate", *told, *ten)[0] == 13
    code, text = run("calibrate", *told, "promise.num_labels=11")
    assert code == 2 and "began with promise.num_labels=10" in text, "the number is settled before the first label"
    code, text = run("calibrate", *told, *ten, f"decisions={fill(out / 'calibrate.csv', good)}")
    assert code == 13 and "10 labels, 0 rejects: no line keeps the promise" in text, "ten labels are not enough"
    assert run("gate", *told)[0] == 13


def test_three_ways_from_a_calibrated_line(run, words, tmp_path: Path) -> None:
    """Everything is labelled, the softest pictures as rejects: the line lies above the highest of them."""
    told, out = words(CALIBRATED), tmp_path / "out"
    run("gate", *told)
    assert run("calibrate", *told)[0] == 13
    scores = {row["sha256"]: row["sharpness"] for row in gate.read_scores(out)[0]}
    line = sorted(scores.values())[6]
    sheet = fill(out / "calibrate.csv", lambda i, row: "reject" if scores[row["sha256"]] < line else "accept")
    code, text = run("calibrate", *told, f"decisions={sheet}")
    assert code == 0 and "32 labels, 6 rejects" in text
    code, text = run("gate", *told)
    found = {row["sha256"]: row["verdict"] for row in verdicts_of(out).values()}
    assert code == 10 and "promise: valid" in text
    assert {found[s] for s, score in scores.items() if score >= line} == {"accept"}
    assert {found[s] for s, score in scores.items() if score < line} == {"reject"}
    assert run("gate", *told, "observe=true")[0] == 0


def test_another_lora_makes_a_calibration_stale_and_a_certificate_is_the_way_out(
    run, trained: list[str], tmp_path: Path
) -> None:
    """Exit 12 for the base's pictures by a calibration of the LoRA's; the same LoRA's next batch is fine."""
    (tmp_path / "policy.yaml").write_text("version: 1\nchecks: {style: calibrated}\n" + PROMISE)
    told = [*trained, f"policy={tmp_path / 'policy.yaml'}", "traits=collectible", "plan.num_images=8"]

    def drawn(*more: str) -> Path:
        for verb in ("plan", "generate"):
            assert run(verb, *told, *more)[0] == 0
        return files.HOME / run("gate", *told, *more)[1].splitlines()[-1]

    first = drawn()
    assert run("calibrate", *told)[0] == 13
    assert run("calibrate", *told, f"decisions={fill(first / 'calibrate.csv', good)}")[0] == 0
    assert run("gate", *told)[0] == 0
    kept = f"calibration={first / 'calibration.json'}"

    other = [*told, "lora_file=none", kept]
    second = drawn("lora_file=none")
    code, text = run("gate", *other)
    assert code == 12 and "STALE: another LoRA" in text
    assert run("export", *other)[0] == 12
    assert json.loads((second / "gate.json").read_text())["counts"]["accept"] > 0, "its lines still stand, unproven"
    assert run("certify", *other)[0] == 13
    assert run("certify", *other, f"decisions={fill(second / 'audit.csv', good)}")[0] == 0
    assert run("gate", *other)[0] in (0, 10, 11) and run("export", *other)[0] == 0

    third = [*told, "plan.seed=5", kept]
    drawn("plan.seed=5")
    code, text = run("gate", *third)
    assert code == 13 and "STALE" not in text, "the same making: only eight labels are too few for another batch"


def test_tampered_calibrations_are_refused(run, words, tmp_path: Path) -> None:
    told, out = words(CALIBRATED), tmp_path / "out"
    run("gate", *told)
    run("calibrate", *told)
    assert run("calibrate", *told, f"decisions={fill(out / 'calibrate.csv', good)}")[0] == 0
    path = out / "calibration.json"
    whole = path.read_text()
    cases = {
        "was changed after it was written": whole.replace('"accept"', '"reject"', 1),
        "cannot be read": whole[:300],
        "is version 7": whole.replace('"version": 1', '"version": 7'),
        "lacks": '{"version": 1}',
    }
    for says, text in cases.items():
        path.write_text(text)
        code, found = run("gate", *told)
        assert code == 2 and says in found and "Traceback" not in found, (says, found)


def test_pictures_that_trained_a_head_cannot_calibrate(run, words, judged: Path, tmp_path: Path) -> None:
    names = sorted(p.name for p in judged.glob("*.png"))
    rows = [f"{name},{'good' if i % 2 else 'bad'}" for i, name in enumerate(names)]
    (judged / "labels.csv").write_text("file,label\n" + "\n".join(rows) + "\n")
    code, text = run("calibrate", *words(CALIBRATED), f"score.labels={judged / 'labels.csv'}")
    assert code == 2 and "learned from cannot calibrate" in text


def test_calibrate_wants_a_calibrated_policy(run, words) -> None:
    code, text = run("calibrate", *words(ALL_PASS))
    assert code == 2 and "no check that is calibrated" in text


def test_damaged_streams_are_refused(tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").write_text(json.dumps({"sha256": "x", "verdict": "accept", "who": "anna"}) + "\n")
    with pytest.raises(DataError, match="not as stylegate writes it"):
        labels.read(tmp_path, "audit")
