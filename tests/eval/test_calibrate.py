"""Calibrations through the verbs: lines from labels, and what makes them stale."""

import json
from dataclasses import replace
from pathlib import Path

from eval.lot.compared import comparison_pictures_with_decided_ones
from eval.lot.lot import read_lot
from eval.measuring.scores import read_scores, scores_key
from eval.policy import file as policyfile
from eval.promise.calibration import calibration_digests_by_input
from stylegate import files
from stylegate.config import Config
from tests.eval.people import ALL_PASS, CALIBRATED, PROMISE, fill, good, verdicts_of


def test_a_calibration_that_the_policy_has_no_use_for_is_refused(run, words, tmp_path: Path) -> None:
    code, text = run("gate", *words(ALL_PASS), f"calibration={tmp_path / 'none.json'}")
    assert code == 2 and "no check that is calibrated" in text


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
    scores = {row["sha256"]: row["sharpness"] for row in read_scores(out)[0]}
    line = sorted(scores.values())[6]
    sheet = fill(out / "calibrate.csv", lambda i, row: "reject" if scores[row["sha256"]] < line else "accept")
    code, text = run("calibrate", *told, f"decisions={sheet}")
    assert code == 0 and "32 labels, 6 rejects" in text
    code, text = run("gate", *told)
    found = {row["sha256"]: row["verdict"] for row in verdicts_of(out).values()}
    assert code == 10 and "promise: valid" in text and 'name="check.sharpness"' in (out / "junit.xml").read_text()
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


def test_all_that_the_scores_depend_on_is_part_of_a_calibrations_fingerprint(judged: Path, tmp_path: Path) -> None:
    config = Config(images=str(judged), out=str(tmp_path / "out"), references="neon")
    lot = read_lot(config)
    compared = comparison_pictures_with_decided_ones(config, lot)
    policy = policyfile.read_policy("default")
    for change in ({"alpha": "keep"}, {"background": "#123456"}, {"references": compared.references[1:]}):
        other = replace(compared, **change)
        before, after = (calibration_digests_by_input(config, lot, one, policy) for one in (compared, other))
        assert scores_key(config, lot, compared) != scores_key(config, lot, other) and before != after, change


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
        "is version 7": whole.replace('"version": 2', '"version": 7'),
        "labels: missing": '{"version": 2}',
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
