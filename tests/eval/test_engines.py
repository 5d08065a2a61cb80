"""Engines: work in parts that workers do, die at, and do again; the same bytes as in this process."""

import contextlib
import errno
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.engines import parts
from eval.engines import run as engines
from eval.engines.place import FolderPlace, ObjectStorePlace, place_from_uri_or_path
from eval.engines.work import run_named_parts
from eval.lot.drawing import PictureDrawingStage
from eval.measuring.stage import PictureFeatureStage
from stylegate import files
from stylegate.configgroups import EngineConfig
from stylegate.errors import ConfigError, DataError, ModelError, SurroundingsError

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


def in_a_worker(place: FolderPlace, names: list[str], stage: parts.Stage) -> int:
    """Do the parts in a process of their own; returns its exit status."""
    if not (worker := os.fork()):
        parts.run_unfinished_parts(place, names, lambda settings: stage)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])


def unfinished(place: FolderPlace, names: list[str]) -> list[str]:
    return [name for name in names if name not in parts.names_of_finished_parts(place)]


@pytest.fixture
def place(tmp_path: Path) -> FolderPlace:
    return FolderPlace(tmp_path / "work")


def test_a_file_that_a_worker_removes_meanwhile_is_passed_over(
    place: FolderPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.write_or_remove_file("left", b".")
    gone = [place.folder / "part.begun0", place.folder / "left"]
    monkeypatch.setattr(Path, "iterdir", lambda folder: iter(gone))
    assert place.file_sizes_in_bytes_by_name() == {"left": 1} and not place.has_nonempty_file("part.begun0")


@pytest.fixture
def workers_are_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """engine=slurm has forks of this process as workers: they have imported what it has, and see its patches."""

    def begin(engine: EngineConfig, folder: Path, place: str, names: list[str], on_gpu: bool) -> Iterator[None]:
        if not (worker := os.fork()):
            run_named_parts(place, names)
            os._exit(0)
        while not os.waitpid(worker, os.WNOHANG)[0]:
            time.sleep(0.02)
            yield

    monkeypatch.setattr(FolderPlace, "seconds", 0.02)
    monkeypatch.setattr(engines, "run_on_slurm", begin)


def test_a_row_that_kills_its_workers_is_found_and_the_others_go_on(place: FolderPlace) -> None:
    names = parts.write_rows_to_do_in_parts(place, {"factor": 2}, ROWS, 4)
    assert len(names) == 3 and unfinished(place, names) == names
    begun = 0
    while unfinished(place, names):
        before = parts.number_of_worker_deaths(place)
        died = in_a_worker(place, names, dies_at("5"))
        begun += 1
        assert (died == -signal.SIGKILL) == (parts.number_of_worker_deaths(place) > before), (
            "a death leaves its mark, an end does not"
        )
        assert begun < 10
    assert begun == 2 * parts.MAX_DEATHS + 1, "the part kills twice, then its row alone; then it is left out"
    results = [parts.read_part_result(place, name) for name in names]
    assert [dead for _, dead in results] == [[], ["5"], []]
    found = {row: int(one["twice"]) for rows, _ in results for row, one in rows.items()}
    assert found == {row["id"]: 2 * row["value"] for row in ROWS if row["id"] != "5"}


def test_finished_parts_are_never_done_twice_whatever_the_clock_says_and_others_are_named_anew(
    place: FolderPlace,
) -> None:
    names = parts.write_rows_to_do_in_parts(place, {"factor": 2}, ROWS, 4)
    assert in_a_worker(place, names[:2], doubled) == 0
    for number, path in enumerate(sorted(place.folder.iterdir())):
        os.utime(path, (0, 0) if number % 2 else (2**33, 2**33))  # 1970 and 2242
    done = [(place.folder / f"{name}.safetensors").stat().st_mtime_ns for name in names[:2]]
    assert parts.write_rows_to_do_in_parts(place, {"factor": 2}, ROWS, 4) == names
    assert in_a_worker(place, names, dies_at("0", "4")) == 0, "only the third part was open"
    assert [(place.folder / f"{name}.safetensors").stat().st_mtime_ns for name in names[:2]] == done
    assert not set(parts.write_rows_to_do_in_parts(place, {"factor": 3}, ROWS, 4)) & set(names), (
        "other settings, other parts"
    )


def test_a_result_that_is_not_as_its_worker_wrote_it_is_refused(place: FolderPlace) -> None:
    names = parts.write_rows_to_do_in_parts(place, {}, ROWS, 4)
    parts.run_unfinished_parts(place, names, lambda settings: doubled)
    first, second = (place.read_file_bytes(f"{name}.safetensors") for name in names[:2])
    assert parts.read_part_result(place, names[0])[0]["1"]["twice"] == 2
    for other in (first[:-1] + b"\x07", first[:100], second, b"cut"):
        place.write_or_remove_file(f"{names[0]}.safetensors", other)
        with pytest.raises(DataError, match="is no whole result"):
            parts.read_part_result(place, names[0])


def test_what_a_worker_cannot_do_is_one_clear_error(place: FolderPlace) -> None:
    def refuses(error: Exception) -> parts.Stage:
        def stage(rows: Sequence[dict[str, Any]]) -> Mapping[str, parts.Row]:
            raise error

        return stage

    for error, kind, says in (
        (ModelError("the weights are missing", next_step="copy them."), DataError, "the weights are missing"),
        (OSError(errno.ENOSPC, "full", "/shared/x"), DataError, "no space left on the disk: /shared/x"),
        (KeyError("ours"), RuntimeError, "KeyError: 'ours'"),
    ):
        names = parts.write_rows_to_do_in_parts(place, {}, ROWS, 4)
        assert in_a_worker(place, names, refuses(error)) == 0 and parts.number_of_worker_deaths(place) == 0, (
            "an error is no death"
        )
        with pytest.raises(kind, match=says):
            parts.raise_error_of_workers(place)
    again = parts.write_rows_to_do_in_parts(place, {}, ROWS, 4)
    parts.raise_error_of_workers(place)
    path = place.folder / f"{again[1]}.json"
    path.write_text(path.read_text().replace('"value": 4', '"value": 40'))
    parts.run_unfinished_parts(place, again, lambda settings: doubled)
    with pytest.raises(DataError, match="was changed after it was made"):
        parts.raise_error_of_workers(place)
    assert unfinished(place, again) == again[1:], "what was done before is kept"
    with pytest.raises(ModelError, match="has other weights on the worker's machine"):
        PictureFeatureStage("miniature", "0" * 64, "#ffffff", 8, "cpu")


def test_an_engine_that_is_not_installed_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="needs the package ray") as caught:
        engines.EngineWork(EngineConfig(name="ray"), {}, tmp_path)
    assert (
        caught.value.next_step
        == "pip install 'stylegate[ray]', in a checkout pip install -c constraints.txt -e '.[ray]'."
        and not any(tmp_path.iterdir())
    )


def test_workers_that_can_write_nothing_end_the_work_with_one_error_and_lose_nothing(
    tmp_path: Path, workers_are_forks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a shared disk that is full: not even the error can be written down."""
    taken: list[str] = []
    work = engines.EngineWork(EngineConfig(name="slurm"), {"stage": "none"}, tmp_path)
    monkeypatch.setattr(parts, "run_unfinished_parts", lambda place, names, load_stage: os._exit(1))
    with pytest.raises(SurroundingsError, match="ended and did nothing"), work.locked_against_other_commands():
        work.do_rows_in_parts(ROWS, 4, lambda found, dead: taken.extend(found), False)
    assert not taken and work.folder.is_dir()
    monkeypatch.undo()
    monkeypatch.setattr(
        engines, "run_on_slurm", lambda engine, folder, place, names, gpu: in_this_process(place, names)
    )
    with work.locked_against_other_commands():
        work.do_rows_in_parts(ROWS, 4, lambda found, dead: taken.extend(found), False)
    assert sorted(taken) == sorted(row["id"] for row in ROWS) and not work.folder.exists()


def in_this_process(place: str, names: list[str], stage: parts.Stage = doubled) -> Iterator[None]:
    parts.run_unfinished_parts(place_from_uri_or_path(place), names, lambda settings: stage)
    yield


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URI of a bucket of an S3-compatible server on this machine."""
    (tmp_path / "served" / "acme").mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in (("ENDPOINT_URL", f"http://127.0.0.1:{port}"), ("REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "any")
    command = [sys.executable, "-m", "localbucket", "--port", str(port), str(tmp_path / "served")]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield "s3://acme/parts"
    finally:
        server.kill()
        server.wait()


def test_parts_pictures_and_results_lie_in_an_object_store(
    tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = {str(i): tmp_path / f"{i}.png" for i in range(10)}
    for name, path in pictures.items():
        path.write_bytes(b"picture " + name.encode())
    rows = [{"id": name, "path": str(path)} for name, path in pictures.items()]
    taken: dict[str, bytes] = {}

    def reads(some: Sequence[dict[str, Any]]) -> Mapping[str, parts.Row]:
        assert not any(path.exists() for path in pictures.values()), "workers see another disk"
        return {row["id"]: {"held": np.frombuffer(Path(row["path"]).read_bytes(), np.uint8)} for row in some}

    def begin(engine: EngineConfig, folder: Path, place: str, names: list[str], on_gpu: bool) -> Iterator[None]:
        for path in pictures.values():
            path.unlink(missing_ok=True)
        yield from in_this_process(place, names[:1] if not taken else names, reads)

    monkeypatch.setattr(engines, "run_on_slurm", begin)
    monkeypatch.setattr(ObjectStorePlace, "seconds", 0.0)
    work = engines.EngineWork(EngineConfig(name="slurm", store=bucket), {"stage": "none"}, tmp_path)
    with work.locked_against_other_commands():
        work.do_rows_in_parts(
            rows, 4, lambda found, dead: taken.update({n: bytes(r["held"]) for n, r in found.items()}), False
        )
        assert taken == {name: b"picture " + name.encode() for name in pictures}
        assert [name for name in work.place.file_sizes_in_bytes_by_name() if name.endswith(".tar")], "they were sent"
        assert not list((work.folder / "parts").glob("*")), "nothing of it lies here"
        work.place.write_or_remove_file("settings.json", b"{}")
        with pytest.raises(DataError, match=r"s3://acme/parts/\w+/\w+.json was changed after it was made"):
            parts.run_unfinished_parts(work.place, ["0" * 24], lambda settings: reads)
            parts.read_rows_to_do_in_part(work.place, min(parts.names_of_finished_parts(work.place)))
    with pytest.raises(SurroundingsError, match=r"engine.store: s3://nowhere/x does not"):
        parts.write_rows_to_do_in_parts(ObjectStorePlace("s3://nowhere/x"), {}, ROWS, 4)
    with pytest.raises(ConfigError, match=r"engine.store=what://x"):
        ObjectStorePlace("what://x")


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


def test_a_picture_that_is_named_as_a_reference_goes_to_the_workers_too_and_one_command_at_a_time(
    run, lot: Path, tmp_path: Path, workers_are_forks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (lot / "broken.png").unlink()
    references = tmp_path / "references"
    references.mkdir()
    for i, picture in enumerate(sorted((files.BRANDS[-1] / "neon" / "test").glob("*.png"))[:4]):
        shutil.copy(picture, references / f"{i}.png")
    words = ["score", f"images={lot}", f"references={references}", f"out={tmp_path / 'out'}", "engine=slurm"]
    sent: list[str] = []
    write = parts.write_rows_to_do_in_parts
    monkeypatch.setattr(
        parts,
        "write_rows_to_do_in_parts",
        lambda place, settings, rows, size: (
            sent.extend(row["id"] for row in rows) or write(place, settings, rows, size)
        ),
    )
    (files.CACHE / "features.sqlite").unlink(missing_ok=True)
    with monkeypatch.context() as other:
        begin = engines.run_on_slurm

        def begin_while_another_starts(*told: Any) -> Iterator[None]:
            assert run(*words)[0] == 2 and "another stylegate is at work" in run(*words)[1]
            yield from begin(*told)

        other.setattr(engines, "run_on_slurm", begin_while_another_starts)
        code, text = run(*words)
    assert code == 0, text
    assert sorted(sent) == sorted(
        files.sha256_of_file(path) for place in (lot, references) for path in place.glob("*.png")
    )


def drawn_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for kind in ("images", "base") for path in (folder / kind).rglob("*.png")}


def test_workers_draw_the_pictures_of_this_process_and_a_part_that_kills_them_is_said(
    run, trained: list[str], tmp_path: Path, workers_are_forks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    colours = ("red", "green", "blue", "deadly")
    (tmp_path / "prompts.txt").write_text("".join(f"a {colour} cat {i}\n" for i in range(4) for colour in colours))
    words = [*trained, f"prompts={tmp_path / 'prompts.txt'}", "plan.num_images=16", "generate.batch_size=3"]
    words += ["batch=by-engine", "generate.num_inference_steps=1"]
    folder = files.BATCHES / "by-engine"
    assert run("plan", *words)[0] == 0 and run("generate", *words)[0] == 0
    here = drawn_in(folder)
    assert len(here) == 32, "16 pictures, and as many of the base alone"
    shutil.rmtree(folder / "images")
    shutil.rmtree(folder / "base")
    draw = PictureDrawingStage.draw_with_lora_and_watermark

    def dies_at_a_prompt(stage: PictureDrawingStage, prompts: Sequence[str], *told: Any) -> Any:
        if any("deadly cat 1" in prompt for prompt in prompts):
            os.kill(os.getpid(), signal.SIGKILL)
        return draw(stage, prompts, *told)

    with monkeypatch.context() as deadly:
        deadly.setattr(PictureDrawingStage, "draw_with_lora_and_watermark", dies_at_a_prompt)
        code, text = run("generate", *words, "engine=slurm")
    assert code == 2 and "1 of 6 parts were not drawn, since each worker that drew them died" in text, text
    assert "00006-0.png, 00007-0.png, 00008-0.png" in text
    there = drawn_in(folder)
    assert there == {name: here[name] for name in there} and len(there) == 29
    code, text = run("generate", *words, "engine=slurm")
    assert code == 0 and "generate: 3 drawn, 16 in" in text, text
    assert drawn_in(folder) == here and not list((files.CACHE / "engine").glob("*"))
    assert files.read_json(folder / "batch.json", "the record", "size")["size"] == 64


def test_a_worker_without_the_weights_says_so(trained: list[str], tmp_path: Path) -> None:
    told: dict[str, Any] = {
        "family": {"name": "sd", "resolution": None},
        "base": "miniature",
        "base_sha256": "0" * 64,
        "lora": None,
        "lora_sha256": None,
        "background": None,
        "watermark": None,
        "watermark_sha256": "",
        "precision": "fp32",
        "nf4": False,
        "device": "cpu",
        "threads": None,
        "generate": {},
    }
    others: tuple[tuple[dict[str, Any], str], ...] = (
        ({}, "base=miniature has other weights here"),
        ({"base": str(tmp_path / "none")}, "none"),
        ({"lora": str(tmp_path / "none.safetensors"), "lora_sha256": "0" * 64}, "is missing on the worker's machine"),
    )
    for other, says in others:
        with pytest.raises(ModelError, match=says):
            PictureDrawingStage(**(told | other))


def test_what_ray_says_of_a_cluster_of_another_python_is_said_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message is of Ray 2.60 and a cluster that says that it has Python 3.12."""
    import ray

    def refuses(**told: Any) -> None:
        raise RuntimeError(
            "Version mismatch: The cluster was started with:\n    Ray: 2.60.0\n    Python: 3.12.1\n"
            "This process on node 10.0.0.5 was started with:\n    Ray: 2.60.0\n    Python: 3.11.7\n"
        )

    monkeypatch.setattr(ray, "init", refuses)
    with socket.create_server(("127.0.0.1", 0)) as cluster, pytest.raises(ConfigError) as caught:
        engine = EngineConfig(name="ray", address=f"127.0.0.1:{cluster.getsockname()[1]}")
        list(engines.run_on_ray(engine, tmp_path, str(tmp_path), ["a"], False))
    assert {"Python: 3.12.1", "Python: 3.11.7"} <= set(caught.value.problems)


def test_a_cluster_that_nobody_named_is_not_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray 2.60 would join the last cluster of this machine, and refuses num_cpus= for one that is long dead."""
    import ray

    told: list[dict[str, Any]] = []

    def notes(**words: Any) -> None:
        told.append(words)
        raise RuntimeError("as far as this")

    monkeypatch.setattr(ray, "init", notes)
    with socket.create_server(("127.0.0.1", 0)) as cluster:
        named = f"127.0.0.1:{cluster.getsockname()[1]}"
        for address in (None, named, "auto"):
            engine = EngineConfig(name="ray", address=address, workers=1)
            with pytest.raises(ConfigError, match="Ray does not begin"):
                list(engines.run_on_ray(engine, tmp_path, "", ["a"], False))
    assert [one["address"] for one in told] == ["local", named, "auto"]
    assert told[0]["num_cpus"] == 1 and "num_cpus" not in told[1]
    with pytest.raises(ConfigError, match="nothing answers there") as dead:  # Ray itself tries for some 14 minutes
        list(engines.run_on_ray(EngineConfig(name="ray", address=named), tmp_path, "", ["a"], False))
    assert "ray start --head" in dead.value.next_step and len(told) == 3


def test_workers_for_devices_that_nobody_can_count_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(ConfigError, match=r"engine\.workers is not given") as raised:
        engines.default_num_workers(on_gpu=True)
    assert raised.value.next_step == "give engine.workers=N."
    assert engines.default_num_workers(on_gpu=False) == os.cpu_count()
