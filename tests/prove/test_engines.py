"""Each engine gives the bytes of one process, also while its workers are killed. Two minutes an engine."""

import shutil
from pathlib import Path

import pytest

from stylegate import files
from tests.bench.engines import KILL_EVERY, draw_pictures, seconds_of_scoring

MOST_KILLS = 4


@pytest.mark.parametrize("engine", ["accelerate", "slurm", "ray"])
def test_an_engine_whose_workers_are_killed_gives_the_same_bytes(engine: str, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    draw_pictures(images, 3000)
    words = [f"engine={engine}", "engine.part_size=100", *(["engine.cluster=local"] if engine == "slurm" else [])]
    _, scores, killed = seconds_of_scoring(images, tmp_path / "home", words, KILL_EVERY[engine], MOST_KILLS)
    assert killed and scores
    assert scores == seconds_of_scoring(images, tmp_path / "home", [])[1]


@pytest.mark.parametrize("engine", ["accelerate", "slurm", "ray"])
def test_an_engine_draws_the_pictures_of_one_process(engine: str, run, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a red cat\na blue dog\na green bear\n")
    words = ["lora_file=none", "hardware=cpu", f"prompts={tmp_path / 'p.txt'}", "generate.batch_size=2"]
    words += ["generate.num_inference_steps=2", f"batch=drawn-{engine}", "plan.num_images=7"]
    images = files.BATCHES / f"drawn-{engine}" / "images"
    assert run("plan", *words)[0] == 0 and run("generate", *words)[0] == 0
    here = {path.name: path.read_bytes() for path in images.iterdir()}
    shutil.rmtree(images)
    by = [f"engine={engine}", *(["engine.cluster=local"] if engine == "slurm" else [])]
    code, text = run("generate", *words, *by)
    assert code == 0 and "generate: 7 drawn, 7 in" in text, text
    assert {path.name: path.read_bytes() for path in images.iterdir()} == here
