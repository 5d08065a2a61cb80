"""Runs side by side, and the table at the end of a sweep."""

from pathlib import Path

import pytest

from stylegate import cli, files
from stylegate.errors import Exit
from tests.conftest import FAST, process


def test_a_sweep_ends_with_its_runs_side_by_side(run, small_brand: Path) -> None:
    words = ["brand=small", "name=swept", *FAST, "train.max_steps=2"]
    code, text = run("train", "--multirun", *words, "lora.rank=2,4", "train.seed=0,1")
    assert code == 0
    table = text[text.index("lora.rank") :]
    assert "train.seed" in table and "train.max_steps" not in table, "only what differs"
    places = sorted(files.RUNS.glob("swept-sd-*"))
    assert len(places) == 4
    code, again = run("compare", *map(str, places))
    assert code == 0 and "lora.rank" in again
    for place in places:
        loss = sum(row["loss"] for row in files.read_jsonl(place / "stats.jsonl")) / 2
        (line,) = (line for line in again.splitlines() if place.name[:20] in line)
        assert f" {loss:.3f} " in line


def test_a_folder_that_is_no_run_is_named(run, tmp_path: Path) -> None:
    code, text = run("compare", str(tmp_path))
    assert code == 2 and f"{tmp_path}: no run.json in it" in text
    assert run("compare")[0] == 2


def test_a_sweep_sent_away_trains_and_ends_with_the_table(small_brand: Path) -> None:
    """submitit's local executor: jobs in processes of their own, as on a cluster."""
    words = ["brand=small", "name=away", *FAST, "train.max_steps=1", "train.seed=0,1", "hydra/launcher=submitit_local"]
    done = process(
        "train", "--multirun", *words, "hydra.launcher.timeout_min=5", f"hydra.sweep.dir={files.CACHE}/sweep"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(files.RUNS.glob("away-sd-*/lora/away.safetensors"))) == 2
    assert "train.seed" in done.stdout and "away-sd-s1" in done.stdout


def test_a_job_that_fails_away_fails_the_sweep(small_brand: Path, tmp_path: Path) -> None:
    words = [f"brand={tmp_path}", "name=lost", *FAST, "train.seed=0,1", "hydra/launcher=submitit_local"]
    done = process(
        "train", "--multirun", *words, "hydra.launcher.timeout_min=5", f"hydra.sweep.dir={files.CACHE}/sweep"
    )
    assert done.returncode not in (0, None) and "brand.yaml" in done.stdout + done.stderr


def test_who_is_told_to_stop_begins_no_further_job(run, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []
    monkeypatch.setattr(cli, "run_verb", lambda verb, config: begun.append(config) or Exit.PREEMPTED)
    code, _ = run("train", "--multirun", "brand=neon", "train.seed=0,1,2")
    assert code == Exit.PREEMPTED and len(begun) == 1


def test_an_error_of_another_rank_is_a_line(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    code, text = run("train", "brand=nosuch")
    assert code == 2 and text.startswith("rank 1: error: brand=nosuch") and len(text.splitlines()) == 1
