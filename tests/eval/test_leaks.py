"""Ways in which a picture once left the house, or a promise was said that did not hold: each is closed."""

import datetime
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from eval.judging.judge import evidence_digests
from eval.package.proof import package_problems
from eval.policy import file as policyfile
from eval.policy.model import Promise
from eval.promise import audit, auditplan, labels, store
from stylegate import files
from stylegate.cli import main
from tests.eval.packages import digests_in, made_anew, provenance_of
from tests.eval.people import ALL_PASS, CALIBRATED, decisions, fill, good, label, verdicts_of

REQUIRED = ALL_PASS.replace("ladder: [1.0, 0.5]", "ladder: [1.0, 0.5], required: true")


@pytest.fixture
def certified(run, words: Callable[[str], list[str]], tmp_path: Path) -> list[str]:
    told = words(ALL_PASS)
    run("gate", *told)
    run("certify", *told)
    assert run("certify", *told, f"decisions={fill(tmp_path / 'out' / 'audit.csv', good)}")[0] == 0
    return told


def test_a_reject_that_the_gate_has_not_heard_of_is_not_exported(run, words, tmp_path: Path) -> None:
    """An audit that was stopped, or killed, after the label was kept."""
    told, out = words(ALL_PASS), tmp_path / "out"
    run("gate", *told)
    first = next(iter(verdicts_of(out).values()))["sha256"]
    policy = policyfile.read_policy(str(tmp_path / "policy.yaml"))
    labels.append_labels(out, "audit", [labels.label_with_policy(label(first, "reject"), policy)])
    code, text = run("export", *told, "name=early")
    assert code == 2 and "audit labels" in text and "not what the gate knew" in text
    assert run("gate", *told)[0] == 10 and run("export", *told, "name=early")[0] == 0
    assert first not in digests_in(files.EXPORTS / "early-v1")


def test_a_package_names_the_labels_that_the_gate_read(run, words, tmp_path: Path) -> None:
    """But not who gave them; and labels that change nothing make no new version."""
    told, out = words(ALL_PASS), tmp_path / "out"
    run("gate", *told)
    names = sorted(verdicts_of(out))
    assert run("gate", *told, decisions(out, {names[0]: "reject"}, tmp_path / "d.csv"))[0] == 10
    assert run("export", *told, "name=named")[0] == 0
    package, held = files.EXPORTS / "named-v1", out / "labels.sqlite"
    heads = json.loads((package / "proof" / "labels.json").read_text())
    assert heads == {"review": store.read_all_label_store_rows(out)[-1].hash}
    assert not any(b"anna" in path.read_bytes() for path in package.rglob("*") if path.is_file())
    code, text = run("verify", str(package), f"labels={held}")
    assert code == 0 and "proven: labels.sqlite begins with the 1 row that the gate read" in text
    assert run("gate", *told, decisions(out, {names[0]: "reject", names[1]: "accept"}, tmp_path / "e.csv"))[0] == 10
    assert run("export", *told, "name=named")[0] == 0 and not (files.EXPORTS / "named-v2").exists()
    assert run("verify", str(package), f"labels={held}")[0] == 0, "rows came after, none was changed"
    other = tmp_path / "other"
    labels.append_labels(other, "review", labels.read_stored_labels(out, "review"))
    code, text = run("verify", str(package), f"labels={other / 'labels.sqlite'}")
    assert code == 2 and "labels.sqlite has not the last row for review that the gate read" in text, "made anew"
    assert run("verify", str(package), f"labels={tmp_path / 'd.csv'}")[0] == 2
    (package / "proof" / "labels.json").unlink()
    made_anew(package)
    code, text = run("verify", str(package), f"labels={held}")
    assert code == 0 and "not proven: the package names no labels" in text


def test_a_command_that_is_refused_keeps_no_decision(run, words, tmp_path: Path) -> None:
    told, out = words(ALL_PASS), tmp_path / "out"
    run("gate", *told)
    given = decisions(out, {sorted(verdicts_of(out))[0]: "reject"}, tmp_path / "d.csv")
    assert run("gate", *told[:-1], "policy=nosuch", given)[0] == 2 and not (out / "labels.sqlite").exists()


def test_a_certify_that_is_refused_changes_no_verdict(run, words, tmp_path: Path) -> None:
    told, out = words(REQUIRED), tmp_path / "out"
    assert run("gate", *told)[0] == 13
    before = {name: (out / name).read_bytes() for name in ("gate.json", "verdicts.jsonl", "summary.md", "junit.xml")}
    (tmp_path / "lax.yaml").write_text(ALL_PASS)
    (tmp_path / "bad.csv").write_text("no columns\n")
    told[-1] = f"policy={tmp_path / 'lax.yaml'}"
    assert run("certify", *told, f"decisions={tmp_path / 'bad.csv'}")[0] == 2
    assert {name: (out / name).read_bytes() for name in before} == before


def test_a_line_that_fails_the_batch_holds_all_of_it(run, words) -> None:
    text = "version: 1\nmax_failed_share: 1.0\nchecks: {contrast: {fail_batch_below: 55}}\n"
    assert run("gate", *words(text))[0] == 10
    code, said = run("export", *words(text), "name=failed")
    assert code == 10 and "fails the batch" in said and not (files.EXPORTS / "failed-v1").exists()


def test_a_waiver_that_has_ended_since_lets_nothing_out(run, words, judged: Path, monkeypatch) -> None:
    sha256 = files.sha256_of_file(sorted(judged.glob("*.png"))[0])
    waiver = f"waivers: [{{sha256: {sha256}, check: contrast, owner: anna, reason: fine, expires: 2090-01-01}}]\n"
    told = words("version: 1\nmax_failed_share: 1.0\nchecks: {contrast: {reject_below: 200}}\n" + waiver)
    assert run("gate", *told)[0] == 0
    monkeypatch.setattr(files, "today_in_utc", lambda: datetime.date(2090, 1, 2))
    code, text = run("export", *told, "name=waived")
    assert code == 2 and "has ended" in text


def test_a_certificate_never_goes_with_a_part_of_its_lot(
    run, certified: list[str], judged: Path, tmp_path: Path
) -> None:
    assert run("export", *certified, "name=whole")[0] == 0
    package = files.EXPORTS / "whole-v1"
    sorted((package / "data" / "images").iterdir())[0].unlink()
    record = provenance_of(package)
    record["counts"]["exported"] -= 1
    (package / "data" / "provenance.json").write_text(json.dumps(record))
    (package / "proof" / "marks.json").unlink()  # its counts would not hold either
    made_anew(package)
    problems = package_problems(package)
    assert any("all of them and no others" in problem for problem in problems), problems
    sorted(judged.glob("*.png"))[0].unlink()
    code, text = run("export", *certified, "name=part")
    assert code != 0 and not (files.EXPORTS / "part-v1").exists(), text


def test_a_certificate_that_was_taken_out_is_missed(run, certified: list[str]) -> None:
    assert run("export", *certified, "name=bare")[0] == 0
    package = files.EXPORTS / "bare-v1"
    assert "certified: all 32 pictures were looked at" in run("verify", str(package))[1]
    (package / "data" / "certificate.json").unlink()
    made_anew(package)
    assert any("certificate.json is missing" in problem for problem in package_problems(package))


def test_a_certificate_says_what_its_terms_are(run, certified: list[str], tmp_path: Path) -> None:
    path = tmp_path / "out" / "certificate.json"
    for change, says in (
        (
            {"says": "at most 0.1% of it are rejects"},
            "something else than its terms",
        ),
        ({"promise": {"alpha": 0.1, "delta": 0.0, "ladder": [1.0, 0.5]}}, "promise.delta: input should be greater"),
        ({"promise": {"alpha": 0.9, "delta": 0.05, "ladder": [1.0, 0.5]}}, "promise.alpha: input should be less"),
        ({"promise": {"alpha": 0.05, "delta": 0.05, "ladder": [1.0, 1.0]}}, "promise.ladder: must be from 1 to 10"),
        ({"earlier_attempts": 5000}, "earlier_attempts: input should be less"),
    ):
        content = {k: v for k, v in json.loads(path.read_text()).items() if k != "sha256"} | change
        (tmp_path / "forged.json").write_text(json.dumps(content | {"sha256": files.canonical_sha256(content)}))
        code, text = run("verify", str(tmp_path / "forged.json"))
        assert code == 2 and says in text and "Traceback" not in text


@pytest.mark.parametrize(
    ("alpha", "delta", "says"),
    [
        (0.05, 0.05, "at most 5.0% of what is exported are rejects, with 95.0% confidence"),
        (0.29, 0.07, "at most 29.0% of what is exported are rejects, with 93.0% confidence"),
        (0.0544, 0.0504, "at most 5.5% of what is exported are rejects, with 94.9% confidence"),
        (0.0005, 0.0005, "at most 0.1% of what is exported are rejects, with 99.9% confidence"),
    ],
)
def test_a_promise_is_rounded_to_what_is_proven(alpha: float, delta: float, says: str) -> None:
    assert Promise(alpha=alpha, delta=delta).promise_sentence_part() == says


def test_what_was_not_promised_is_not_said(run, words, tmp_path: Path) -> None:
    assert run("gate", *words(ALL_PASS))[0] == 0
    for name in ("gate.json", "junit.xml", "summary.md"):
        text = (tmp_path / "out" / name).read_text()
        assert ("none was asked for" in text) == (name != "summary.md") and "at most" not in text, name
    assert "Promise" not in text, "a summary says nothing of what nobody asked for"


def test_labels_by_another_guideline_do_not_calibrate(run, words, tmp_path: Path) -> None:
    told, out = words(CALIBRATED), tmp_path / "out"
    run("gate", *told)
    run("calibrate", *told)
    assert run("calibrate", *told, f"decisions={fill(out / 'calibrate.csv', good)}")[0] == 0
    told = words("guideline: version 2\n" + CALIBRATED)
    code, text = run("calibrate", *told)
    assert code == 13 and "calibrate: 0 of 32 labels" in text
    code, text = run("calibrate", *told, "promise.num_labels=20")
    assert code == 2 and "it cannot become 20" in text, "nor can the number be chosen anew by changing a word"


def test_copies_cannot_thin_out_a_calibrated_bound(run, words, judged: Path) -> None:
    first = sorted(judged.glob("*.png"))[0]
    (judged / "copy.png").write_bytes(first.read_bytes())
    code, text = run("gate", *words(CALIBRATED))
    assert code == 2 and "counts each picture once" in text


def test_people_who_reject_much_of_a_calibrated_lot_void_its_bound(run, words, tmp_path: Path, judged: Path) -> None:
    """Five of 32 are unlabelled; where but two are left, the one that may hide among them is too large a share."""
    policy = CALIBRATED.replace("alpha: 0.1, delta: 0.1", "alpha: 0.3, delta: 0.3")
    told, out = [*words(policy), "promise.num_labels=27"], tmp_path / "out"
    run("gate", *told)
    run("calibrate", *told)
    assert run("calibrate", *told, f"decisions={fill(out / 'calibrate.csv', good)}")[0] == 0
    run("gate", *told)
    assert json.loads((out / "gate.json").read_text())["promise"]["state"] == "valid"
    rejected = dict.fromkeys(sorted(verdicts_of(out))[:-2], "reject")
    text = run("gate", *told, decisions(out, rejected, tmp_path / "d.csv"))[1]
    assert json.loads((out / "gate.json").read_text())["promise"]["state"] == "insufficient", text


def test_every_attempt_at_a_lot_is_written_down(run, certified: list[str], words, tmp_path: Path) -> None:
    """Other terms on the same labels are other attempts: each spends, labels or none."""
    for alpha, earlier in ((0.11, 2), (0.12, 4)):
        told = words(ALL_PASS.replace("alpha: 0.1", f"alpha: {alpha}"))
        assert run("certify", *told)[0] == 2, "the gate judged under other terms"
        run("gate", *told)
        text = run("certify", *told)[1]
        assert f"{earlier} attempts at other lots" in text
    assert len(auditplan.read_audit_terms(tmp_path / "out")) == 3


def test_labels_that_rule_everything_out_prove_nothing() -> None:
    given = [0] * 73 + [1, 0] * 49 + [1]
    assert audit.labels_until_proven(given[:73], 300, 0.05, 0.05) is not None
    assert audit.upper_bound_on_reject_share_after_removal(given, 300, 0.05, 0.05) == 1.0
    lot = [f"{i:064x}" for i in range(300)]
    plan = auditplan.AuditPlan(lot, Promise(ladder=(1.0,)), 0)
    told = [label(s, "reject" if bad else "accept") for s, bad in zip(plan.labelling_order, given, strict=False)]
    assert plan.audit_results_for_lot_shares(told)[0].proven_after is None


def test_a_torn_line_is_cut_before_the_next_is_appended(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"a": ')
    files.append_jsonl(path, {"a": 2})
    assert files.read_jsonl(path) == [{"a": 1}, {"a": 2}]


def test_a_worksheet_that_somebody_fills_in_is_not_overwritten(run, words, tmp_path: Path) -> None:
    told, sheet = words(ALL_PASS), tmp_path / "out" / "audit.csv"
    run("gate", *told)
    run("certify", *told)
    half = sheet.read_bytes().decode().replace(",,,,,,,audit", ",accept,anna,,,,,audit", 5)
    sheet.write_bytes(half.encode())
    code, text = run("certify", *told)
    assert code == 13 and "has 5 answers that are not stored yet" in text and sheet.read_bytes().decode() == half
    assert run("certify", *told, f"decisions={sheet}")[0] == 13
    assert "with 5 labels" in run("certify", *told)[1] and sheet.read_bytes().decode() != half


def test_gates_evidence_is_of_every_stream(tmp_path: Path) -> None:
    assert set(evidence_digests(tmp_path)) == {
        "plan.parquet",
        "rejected labels",
        "review labels",
        "traits labels",
        "trait-certificate.json",
        "calibrate labels",
        "audit labels",
        "calibration.json",
        "certificate.json",
    }


def test_a_gate_that_came_between_decides_on_an_export(run, words, before_the_lock, tmp_path: Path) -> None:
    told = words(ALL_PASS)
    assert run("gate", *told)[0] == 0
    strict = tmp_path / "strict.yaml"
    strict.write_text(REQUIRED)
    between: list[int] = []
    again = [*told[:-1], f"policy={strict}"]
    before_the_lock(lambda: between.append(main(["gate", *again])))
    code, text = run("export", *told, "name=between")
    assert between == [13] and code == 13 and "nothing was exported" in text
    assert not list(files.EXPORTS.glob("*between*"))


@pytest.mark.parametrize("verb", ["gate", "calibrate", "certify"])
def test_a_picture_that_came_between_is_judged(
    run, words, judged: Path, before_the_lock, verb: str, tmp_path: Path
) -> None:
    told, out = words(CALIBRATED if verb == "calibrate" else ALL_PASS), tmp_path / "out"
    run("gate", *told)
    Image.new("RGB", (64, 64), "navy").save(tmp_path / "new.png")
    before_the_lock(lambda: shutil.copy(tmp_path / "new.png", judged / "new.png"))
    run(verb, *told)
    assert "new.png" in {row["file"] for row in files.read_parquet_as_arrow_table(out / "scores.parquet").to_pylist()}


def refused_as_copies(out: Path) -> set[str]:
    rows = verdicts_of(out).values()
    return {row["file"] for row in rows if any(reason["check"] == "distinct" for reason in row["reasons"])}


def export_neon(run, lot: Path, out: Path, name: str) -> Path:
    """The package of the lot's pictures, judged as neon's by the default policy."""
    told = [f"images={lot}", "references=neon", f"out={out}"]
    assert run("gate", *told)[0] in (0, 10, 11) and run("export", *told, f"name={name}")[0] == 0
    return files.EXPORTS / f"{name}-v1"


def test_where_a_lot_lies_does_not_make_it_its_own_copy(run, judged: Path, tmp_path: Path) -> None:
    package = export_neon(run, judged, tmp_path / "out", "first")
    moved = shutil.copytree(judged, tmp_path / "moved")
    part = tmp_path / "part"
    part.mkdir()
    for path in sorted((package / "data" / "images").iterdir())[:5]:
        shutil.copy(path, part)
    for lot in (moved, package, part):
        run("gate", f"images={lot}", "references=neon", f"out={tmp_path / f'out-{lot.name}'}")
        assert refused_as_copies(tmp_path / f"out-{lot.name}") <= refused_as_copies(tmp_path / "out"), lot


def test_a_copy_names_its_twin_at_the_console(run, judged: Path, tmp_path: Path) -> None:
    package = export_neon(run, judged, tmp_path / "out", "first")
    known = sorted((package / "data" / "images").iterdir())[0]
    lot = tmp_path / "lot"
    lot.mkdir()
    Image.open(known).save(lot / "again.png", compress_level=1)
    text = run("gate", f"images={lot}", "references=neon", f"out={tmp_path / 'two'}")[1]
    assert "again.png: distinct" in text and f"like first-v1/{known.name}" in text


def test_packages_of_other_brands_are_left_aside(run, judged: Path, tmp_path: Path) -> None:
    package = export_neon(run, judged, tmp_path / "out", "first")
    resaved = tmp_path / "resaved"
    resaved.mkdir()
    for path in sorted((package / "data" / "images").iterdir())[:4]:
        Image.open(path).save(resaved / path.name, compress_level=1)

    def copies(out: str) -> tuple[set[str], str]:
        _, text = run("gate", f"images={resaved}", "references=neon", f"out={tmp_path / out}")
        return refused_as_copies(tmp_path / out), text

    assert len(copies("same")[0]) == 4
    record = provenance_of(package)
    assert record["brand"] == "neon"
    (package / "data" / "provenance.json").write_text(json.dumps(record | {"brand": "pixel"}))
    assert not copies("other")[0]
    shutil.rmtree(package / "data" / "images")
    (files.EXPORTS / "empty-v1").mkdir()
    found, text = copies("damaged")
    assert not found and "first-v1" in text and "another brand (pixel)" in text and "empty-v1 is empty" in text
    (package / "data" / "provenance.json").write_text(json.dumps(record))
    code, text = run("gate", f"images={resaved}", "references=neon", f"out={tmp_path / 'closed'}")
    assert code == 2 and "first-v1" in text and "missing or changed" in text


def restated(package: Path, change: dict) -> None:
    """Change what provenance.json says of the promise, and sign the package anew."""
    path = package / "data" / "provenance.json"
    record = json.loads(path.read_text())
    record["judged_by"]["promise"] = change
    path.write_text(json.dumps(record))
    made_anew(package)


@pytest.mark.parametrize("state", ["certified", "valid", "stale"])
def test_a_promise_without_its_proof_does_not_hold(run, words, state: str) -> None:
    assert run("gate", *words(ALL_PASS))[0] == 0 and run("export", *words(ALL_PASS), "name=bare")[0] == 0
    package = files.EXPORTS / "bare-v1"
    assert ";" not in run("verify", str(package))[1].splitlines()[0], "nothing is promised, so nothing is printed of it"
    restated(package, {"state": state, "says": "at most 0.1% of what is exported are rejects"})
    code, text = run("verify", str(package))
    assert code == 2 and "0.1%" not in text


def test_verify_prints_what_the_certificate_proves(run, certified: list[str]) -> None:
    assert run("export", *certified, "name=sure")[0] == 0
    package = files.EXPORTS / "sure-v1"
    promise = provenance_of(package)["judged_by"]["promise"]
    assert "certified: all 32 pictures were looked at" in run("verify", str(package))[1]
    for change in ({"says": "at most 0.1% of what is exported are rejects"}, {"bound": 0.001}, {"labels": 5000}):
        restated(package, promise | change)
        code, text = run("verify", str(package))
        assert code == 2 and "says something else of the promise than certificate.json proves" in text
    restated(package, {"state": "none", "says": "", "labels": 5000})
    (package / "data" / "certificate.json").unlink()
    made_anew(package)
    assert run("verify", str(package))[0] == 2


def test_a_certificate_of_another_policy_does_not_hold(run, certified: list[str]) -> None:
    assert run("export", *certified, "name=other")[0] == 0
    package = files.EXPORTS / "other-v1"
    record = provenance_of(package)
    record["judged_by"]["policy"]["sha256"] = "0" * 64
    (package / "data" / "provenance.json").write_text(json.dumps(record))
    made_anew(package)
    code, text = run("verify", str(package))
    assert code == 2 and "certificate.json is of another policy than the one that judged" in text


@pytest.fixture
def calibrated(run, words, tmp_path: Path) -> tuple[list[str], Path]:
    """Words of a lot whose promise rests on a calibration outside its folder, and where that lies."""
    told, out = words(CALIBRATED), tmp_path / "out"
    run("gate", *told)
    run("calibrate", *told)
    assert run("calibrate", *told, f"decisions={fill(out / 'calibrate.csv', good)}")[0] == 0
    elsewhere = tmp_path / "kept.json"
    (out / "calibration.json").rename(elsewhere)
    told.append(f"calibration={elsewhere}")
    assert run("gate", *told)[0] in (0, 10, 11)
    return told, elsewhere


def signed(content: dict) -> dict:
    """A calibration with the digest of its other fields."""
    return content | {"sha256": files.canonical_sha256({k: v for k, v in content.items() if k != "sha256"})}


def test_a_calibrated_promise_is_computed_again_from_the_package(run, calibrated: tuple[list[str], Path]) -> None:
    told, _ = calibrated
    assert run("export", *told, "name=lined")[0] == 0
    package = files.EXPORTS / "lined-v1"
    code, text = run("verify", str(package))
    assert code == 0 and "valid: 32 labels, 0 rejects" in text
    whole = {name: (package / "data" / name).read_text() for name in ("calibration.json", "pool.json")}
    labelled = json.loads(whole["calibration.json"])
    for row in labelled["labels"][:16]:
        row["verdict"] = "reject"
    labelled = signed(labelled)
    for name, content, says in (
        ("calibration.json", json.dumps(labelled), "labelled rejects"),
        ("calibration.json", None, "calibration is missing"),
        ("pool.json", None, "scores of the lot is missing"),
        ("pool.json", "{}", "a number for each picture"),
        ("pool.json", json.dumps(dict.fromkeys(json.loads(whole["pool.json"]), True)), "a number for each picture"),
        ("calibration.json", json.dumps(signed(labelled | {"pool": labelled["pool"] * 2})), "has a picture twice"),
    ):
        (package / "data" / name).unlink() if content is None else (package / "data" / name).write_text(content)
        made_anew(package)
        code, text = run("verify", str(package))
        assert code == 2 and says in text and "Traceback" not in text, text
        (package / "data" / name).write_text(whole[name])
    lower = json.loads(whole["pool.json"])
    del lower[min(digests_in(package))]  # a person accepted it, for all that the package says
    (package / "data" / "pool.json").write_text(json.dumps(lower))
    made_anew(package)
    code, text = run("verify", str(package))
    assert code == 0 and "of 1 of the pictures it says nothing: people accepted those" in text


def test_a_calibration_that_lies_elsewhere_is_evidence(run, calibrated: tuple[list[str], Path]) -> None:
    told, elsewhere = calibrated
    elsewhere.write_text(elsewhere.read_text() + "\n")
    code, text = run("export", *told, "name=moved")
    assert code == 2 and elsewhere.name in text and "not what the gate knew" in text
    assert not list(files.EXPORTS.glob("*moved*"))


def test_a_package_has_no_path_of_the_machine_in_it(run, judged: Path, tmp_path: Path) -> None:
    """Neither of references, encoder and calibration, nor of the folder that was judged."""
    references = tmp_path / "my references"
    shutil.copytree(files.ROOT / "data" / "brands" / "neon" / "test", references)
    encoder = shutil.copytree(files.MODELS / "miniature" / "clip", tmp_path / "my encoder")
    (tmp_path / "policy.yaml").write_text(CALIBRATED)
    out = tmp_path / "out"
    told = [f"images={judged}", f"references={references}", f"encoder={encoder}", f"out={out}"]
    told.append(f"policy={tmp_path / 'policy.yaml'}")
    run("gate", *told)
    run("calibrate", *told)
    assert run("calibrate", *told, f"decisions={fill(out / 'calibrate.csv', good)}")[0] == 0
    assert run("gate", *told)[0] in (0, 10, 11) and run("export", *told, "name=placeless")[0] == 0
    package = files.EXPORTS / "placeless-v1"
    judged_by = provenance_of(package)["judged_by"]
    assert judged_by["encoder"] == "my encoder" and judged_by["references"]["from"] == "my references"
    for path in package.rglob("*"):
        assert not path.is_file() or str(tmp_path).encode() not in path.read_bytes(), path.name
