"""Each engine gives the bytes of one process, also while its workers are killed. A minute an engine."""

from pathlib import Path

import pytest

from tests.bench.engines import KILL_EVERY, draw_pictures, seconds_of_scoring


@pytest.mark.parametrize("engine", ["accelerate", "slurm", "ray"])
def test_an_engine_whose_workers_are_killed_gives_the_same_bytes(engine: str, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    draw_pictures(images, 3000)
    words = [f"engine={engine}", "engine.part_size=100", *(["engine.cluster=local"] if engine == "slurm" else [])]
    _, scores, killed = seconds_of_scoring(images, tmp_path / "home", words, KILL_EVERY[engine])
    assert killed and scores
    assert scores == seconds_of_scoring(images, tmp_path / "home", [])[1]
