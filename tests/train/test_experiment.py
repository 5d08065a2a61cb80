"""The whole chain by `run`, and a real brand's art through the README's five steps."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from eval import trial
from eval.judging.record import GateRecord
from eval.report import mirror
from stylegate import files
from tests.conftest import FAST
from tests.stylegate.test_dashboards import Remembering, check_that_it_shows_nothing_that_is_not_told
from train import loop

NOTO = files.ROOT.parent / "shared" / "data" / "noto-animals"


def test_run_goes_from_brand_to_package(run, small_brand: Path, tmp_path: Path, monkeypatch) -> None:
    """W&B is told all that the dashboards show, by this and by a gate that holds pictures back."""
    told: set[str] = set()
    for module in (loop, mirror):
        real = module.make_tracker
        monkeypatch.setattr(module, "make_tracker", lambda *a, real=real, **k: Remembering(real(*a, **k), told))
    (tmp_path / "lenient.yaml").write_text("version: 1\nchecks: {contrast: {reject_below: 0.001}}\n")
    words = [
        "brand=small",
        "name=chain",
        *FAST,
        "train.num_samples=1",
        "train.max_steps=2",
        "traits=collectible",
        "plan.num_images=4",
        "hardware.price_per_hour=3.6",
    ]
    words += [f"policy={tmp_path / 'lenient.yaml'}", "tracker=wandb", "tracker.mode=offline"]
    code, text = run("run", *words)
    assert code == 0, text
    assert "│ cost" in text and "s of compute per accepted" in text
    assert "4 / 0 / 0 / 0" in text and "\nreport: " in text and "trial" not in text
    (batch,) = files.BATCHES.glob("chain-*")
    for name in ("plan.parquet", "scores.parquet", "verdicts.jsonl", "gate.json", "report/index.html"):
        assert (batch / name).exists()
    page = (batch / "report" / "index.html").read_text()
    assert "s of compute per accepted picture" in page and "in money at 3.6 an hour" in page
    assert "The style, before and after" in page and "http" not in page.replace("http://www.w3.org", "")
    assert (files.EXPORTS / "chain-v1" / "data" / "provenance.json").exists()
    spent = json.loads((files.EXPORTS / "chain-v1" / "proof" / "cost.json").read_text())
    assert spent["accepted"] == 4 and {"train", "draw", "gate"} <= spent["money_per_accepted"].keys()
    assert spent["money_per_accepted"]["train"] == pytest.approx(
        spent["seconds_per_accepted"]["train"] / 1000, rel=1e-3
    )
    assert list(batch.glob("wandb/offline-run-*")) and list(files.RUNS.glob("chain-*/wandb/offline-run-*"))
    code, text = run("run", *words)
    assert code == 0 and "drawn" not in text, "a batch that is complete is left alone"
    assert len(list(files.EXPORTS.glob("chain-v*"))) == 1

    (tmp_path / "strict.yaml").write_text(
        "version: 1\nchecks: {contrast: {reject_below: 1000}}\nbatch: {acceptance: {warn_below: 1}}\n"
    )
    judged = [f"images={batch / 'images'}", "brand=small", f"out={tmp_path / 'out'}", "tracker=wandb"]
    assert run("gate", *judged, "tracker.mode=offline", f"policy={tmp_path / 'strict.yaml'}")[0] == 10
    promise = {"state": "certified", "says": "", "bound": 0.1, "labels": 9}
    outcome = GateRecord.model_validate(json.loads((batch / "gate.json").read_text()) | {"promise": promise})
    told |= mirror.gate_metrics(SimpleNamespace(out=batch), outcome).keys()  # type: ignore[arg-type]
    check_that_it_shows_nothing_that_is_not_told(told)


def test_run_leaves_slots_to_a_person_when_nothing_can_pass(
    run, small_brand: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "LARGE", 2)  # from so many slots on a run tries fewer steps by itself
    (tmp_path / "never.yaml").write_text("version: 1\nchecks: {contrast: {reject_below: 1000}}\n")
    words = ["brand=small", "name=never", "batch=never", *FAST, "train.max_steps=1", "traits=collectible"]
    words += ["plan.num_images=2", "plan.max_attempts=2", f"policy={tmp_path / 'never.yaml'}"]
    code, text = run("run", *words)
    assert code == 11 and "0 / 0 / 4 / 0" in text
    assert "trial: none of 2 pictures was accepted" in text and "trial" in text.split("seconds per stage")[1]
    assert text.splitlines()[-1].startswith("Next: Some slots have no attempt left: choose one of the ways")
    assert text.count("Next:") == 1 and not list(files.EXPORTS.glob("never-*"))


@pytest.mark.skipif(not NOTO.is_dir(), reason="the art of Noto Emoji lies beside the checkout in some places only")
def test_real_art_goes_through_and_is_left_to_people(run) -> None:
    """Transparent 128-px pictures by other hands, which the miniature's base cannot draw."""
    assert run("brand", "name=noto", f"images={NOTO}")[0] == 0
    code, text = run("check", "brand=noto")
    assert code == 0 and "alpha: 1" in text
    words = ["brand=noto", *FAST, "train.max_steps=2", "plan.num_images=4"]
    assert run("train", *words)[0] == 0 and run("plan", *words)[0] == 0 and run("generate", *words)[0] == 0
    code, text = run("gate", *words)
    assert code in (10, 11), text
    (batch,) = files.BATCHES.glob("noto-*")
    rows = files.read_jsonl(batch / "verdicts.jsonl")
    assert len(rows) == 4 and {row["verdict"] for row in rows} <= {"review", "reject"}, "melted pictures are rejected"
    assert json.loads((batch / "gate.json").read_text())["counts"]["accept"] == 0
