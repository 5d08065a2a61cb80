"""Engines: work in parts that workers do, die at, and do again; the same bytes as in this process."""

import importlib.util
import os
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.engines import parts
from eval.engines.run import results_of_parts
from eval.measuring.stage import EncodePictures
from stylegate import files
from stylegate.config import Config, EngineConfig
from stylegate.errors import ConfigError, DataError, ModelError

ROWS = [{"id": str(i), "value": i} for i in range(10)]


def doubled(rows: Sequence[dict[str, Any]]) -> Mapping[str, parts.Row]:
    return {row["id"]: {"twice": np.array(2 * row["value"])} for row in rows}


def dies_at(*ids: str) -> Callable[[Sequence[dict[str, Any]]], Mapping[str, parts.Row]]:
    """A stage that ends its process as a lack of memory does, at rows of these ids."""

    def stage(rows: Sequence[dict[str, Any]]) -> Mapping[str, parts.Row]:
        if any(row["id"] in ids for row in rows):
            os.kill(os.getpid(), signal.SIGKILL)
        return doubled(rows)

    return stage


def in_a_worker(folder: Path, names: list[str], stage: parts.Stage) -> int:
    """Do the parts in a process of their own; returns its exit status."""
    if not (worker := os.fork()):
        parts.do_parts(folder, names, lambda settings: stage)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])


def test_a_row_that_kills_its_workers_is_found_and_the_others_go_on(tmp_path: Path) -> None:
    names = parts.write_parts(tmp_path, {"factor": 2}, ROWS, 4)
    assert len(names) == 3 and parts.unfinished_parts(tmp_path, names) == names
    begun = 0
    while parts.unfinished_parts(tmp_path, names):
        before = parts.deaths(tmp_path)
        died = in_a_worker(tmp_path, names, dies_at("5"))
        begun += 1
        assert (died == -signal.SIGKILL) == (parts.deaths(tmp_path) > before), (
            "a death leaves its byte, an end does not"
        )
        assert begun < 10
    assert begun == 2 * parts.MAX_DEATHS + 1, "the part kills twice, then its row alone; then it is left out"
    results = [parts.read_part(tmp_path, name) for name in names]
    assert [dead for _, dead in results] == [[], ["5"], []]
    found = {row: int(one["twice"]) for rows, _ in results for row, one in rows.items()}
    assert found == {row["id"]: 2 * row["value"] for row in ROWS if row["id"] != "5"}


def test_finished_parts_are_never_done_twice_and_others_are_named_anew(tmp_path: Path) -> None:
    names = parts.write_parts(tmp_path, {"factor": 2}, ROWS, 4)
    assert in_a_worker(tmp_path, names[:2], doubled) == 0
    done = [(tmp_path / f"{name}.safetensors").stat().st_mtime_ns for name in names[:2]]
    assert parts.write_parts(tmp_path, {"factor": 2}, ROWS, 4) == names
    assert in_a_worker(tmp_path, names, dies_at("0", "4")) == 0, "only the third part was open"
    assert [(tmp_path / f"{name}.safetensors").stat().st_mtime_ns for name in names[:2]] == done
    assert not set(parts.write_parts(tmp_path, {"factor": 3}, ROWS, 4)) & set(names), "other settings, other parts"
    (tmp_path / f"{names[0]}.safetensors").write_bytes(b"cut")
    with pytest.raises(DataError, match="is no whole result"):
        parts.read_part(tmp_path, names[0])


def test_what_a_worker_cannot_do_is_one_clear_error(tmp_path: Path) -> None:
    def refuses(rows: Sequence[dict[str, Any]]) -> Mapping[str, parts.Row]:
        raise ModelError("the weights are missing", next_step="copy them.")

    names = parts.write_parts(tmp_path, {}, ROWS, 4)
    assert in_a_worker(tmp_path, names, refuses) == 0 and parts.deaths(tmp_path) == 0, "an error is no death"
    with pytest.raises(DataError, match="the weights are missing"):
        parts.raise_error_of_workers(tmp_path)
    again = parts.write_parts(tmp_path, {}, ROWS, 4)
    parts.raise_error_of_workers(tmp_path)
    path = tmp_path / f"{again[1]}.json"
    path.write_text(path.read_text().replace('"value": 4', '"value": 40'))
    parts.do_parts(tmp_path, again, lambda settings: doubled)
    with pytest.raises(DataError, match="was changed after it was made"):
        parts.raise_error_of_workers(tmp_path)
    with pytest.raises(ModelError, match="has other weights on the worker's machine"):
        EncodePictures("miniature", "0" * 64, "#ffffff", 8, "cpu")


def test_an_engine_that_is_not_installed_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    config = Config(engine=EngineConfig(name="ray"))
    with pytest.raises(ConfigError, match="needs the package ray") as caught:
        list(results_of_parts(config, tmp_path, {}, ROWS))
    assert caught.value.next_step == "pip install 'stylegate[ray]'." and not any(tmp_path.iterdir())


@pytest.fixture
def lot(tmp_path: Path) -> Path:
    folder = tmp_path / "lot"
    folder.mkdir()
    for i, picture in enumerate(sorted((files.BRANDS[-1] / "neon" / "train").glob("*.png"))[:12]):
        shutil.copy(picture, folder / f"{i}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    return folder


def test_an_array_of_jobs_gives_the_bytes_of_this_process(run, lot: Path, tmp_path: Path) -> None:
    words = ["score", f"images={lot}", "references=neon"]
    elsewhere = [f"out={tmp_path / 'jobs'}", "engine=slurm", "engine.cluster=local", "engine.workers=1"]
    code, said = run(*words, *elsewhere, "engine.part_size=20")
    assert code == 0, said
    (files.CACHE / "features.sqlite").unlink()  # so that this process encodes all of them itself
    assert run(*words, f"out={tmp_path / 'here'}")[0] == 0
    for name in ("scores.parquet", "references.parquet"):
        assert (tmp_path / "jobs" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()
    assert not list((files.CACHE / "engine").glob("*")), "what was taken is removed"
