"""W&B as a mirror: it holds what was told, offline and online; broken in any way it hurts nobody."""

import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from accelerate import Accelerator
from PIL import Image

from stylegate import files, tracker, wandbrun
from stylegate.cli import main
from stylegate.configgroups import TrackerConfig
from stylegate.errors import SurroundingsError
from stylegate.tracker import LedgerTracker, WandbTracker, make_tracker
from tests.conftest import FAST, merged
from tests.fake_wandb import KEY, FakeWandb, refusing, speaking_to
from tests.train.test_loop import directory, lora_bytes
from train import select, stats

OFFLINE = TrackerConfig(name="wandb", mode="offline", project="tests")
ONLINE = TrackerConfig(name="wandb", project="tests")
DIGEST = {"sha256": "1" * 64}


def everything(told: tracker.Tracker, folder: Path, steps: range = range(1, 4)) -> None:
    for step in steps:
        told.log_values({"step": step, "loss": 1 / step}, step=step)
    told.log_values({"evaluation/step": steps[-1], "evaluation/style": 0.5}, step=steps[-1])
    told.log_picture("samples", Image.new("RGB", (8, 8)), step=steps[-1])
    told.log_histogram("scores/style", [0.1, 0.2, float("nan")])
    told.set_summary_values({"chosen/step": 3})
    told.send_alert("fewer accepted", "40 %")
    told.log_table("verdicts", ["file", "picture"], [["a", Image.new("RGB", (8, 8))]])
    (folder / "x.txt").write_text("x")
    told.record_input_artifact("brand-a b", "brand-set", [folder / "x.txt"], DIGEST)
    told.log_artifact("thing", "batch", [folder / "x.txt"], DIGEST)
    told.finish_tracking()


def records(run: Path) -> list[dict]:
    """What W&B wrote below a run, by its own documented tool."""
    found = []
    for log in sorted(run.glob("wandb/*run-*/*.wandb")):
        read = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(log)]
        out = subprocess.run(read, capture_output=True, text=True, timeout=60, check=True)
        found += [json.loads(line) for line in out.stdout.splitlines()]
    return found


def history(run: Path) -> list[dict]:
    return [record["history"]["item"] for record in records(run) if record["type"] == "history"]


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server has a second and a half where it has a quarter or a whole minute else."""
    monkeypatch.setattr(tracker, "INIT_S", 1.5)
    monkeypatch.setattr(tracker, "FINISH_S", 1.5)
    monkeypatch.setattr(tracker, "GRACE_S", 3.0)


def test_offline_run_holds_what_was_told_and_can_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    everything(make_tracker(OFFLINE, tmp_path / "run", "train", {"lora": {"rank": 4}}), tmp_path)
    assert not list(home.rglob("*")), "all that W&B writes lies in the run's directory"
    moved = tmp_path / "elsewhere" / "moved"
    shutil.move(tmp_path / "run", moved)
    told = records(moved)
    text = json.dumps(told)
    for part in ("loss", "samples", "verdicts", "thing", "rank", "chosen/step", "fewer accepted", "scores/style"):
        assert f'"{part}' in text
    assert [row["_step"] for row in history(moved)] == [1, 2, 3]
    (glob,) = [r["metric"] for r in told if r["type"] == "metric" and "glob_name" in r["metric"]]
    assert (glob["glob_name"], glob["step_metric"]) == ("evaluation/*", "evaluation/step")
    files_of_artifacts = [e for r in told if r["type"] == "artifact" for e in r["artifact"]["manifest"]["contents"]]
    assert files_of_artifacts
    for entry in files_of_artifacts:
        assert (moved / Path(entry["local_path"]).relative_to(tmp_path / "run")).is_file()


def test_no_value_is_lost_to_a_row_that_has_passed(tmp_path: Path) -> None:
    """W&B keeps only the last value of a name in a row: late evaluations, and values without a step, get rows."""
    told = WandbTracker(OFFLINE, tmp_path / "run", "train", {})
    told.log_values({"step": 5, "loss": 0.5}, step=5)
    for step in (0, 3, 5):
        told.log_values({"evaluation/step": step, "evaluation/style": step / 10}, step=step)
        told.log_picture("samples", Image.new("RGB", (8, 8)), step=step)
    for step in (6, 7, 8):
        told.log_values({"step": step, "loss": step / 10}, step=step)
    told.log_values({"gate/accept": 0.1})
    told.log_values({"gate/accept": 0.2})
    told.finish_tracking()
    rows = history(tmp_path / "run")

    def column(name: str) -> list[float]:
        return [row[name] for row in rows if name in row]

    assert column("evaluation/step") == [0, 3, 5] and column("evaluation/style") == [0.0, 0.3, 0.5]
    assert column("step") == [5, 6, 7, 8] and column("loss") == [0.5, 0.6, 0.7, 0.8]
    assert column("gate/accept") == [0.1, 0.2] and len(column("samples._type")) == 3
    assert all(one["_step"] < next_["_step"] for one, next_ in itertools.pairwise(rows))
    again = WandbTracker(OFFLINE, tmp_path / "run", "train", {})
    assert (
        again.highest_value_wandb_had_at_start("step"),
        again.highest_value_wandb_had_at_start("evaluation/step"),
    ) == (8, 5), "though W&B's own rows ran ahead"
    again.finish_tracking()


def test_config_says_of_what_code_it_is(tmp_path: Path) -> None:
    found = wandbrun.code_digest_and_commit()
    assert len(found["code"]) == 64
    if (files.ROOT / ".git").exists():
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=files.ROOT, capture_output=True, text=True)
        assert found["git"]["commit"] == commit.stdout.strip() and isinstance(found["git"]["clean"], bool)


def test_no_git_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert wandbrun.code_digest_and_commit().keys() == {"code"}


def test_other_processes_and_none_are_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(make_tracker(OFFLINE, tmp_path, "train", {}, main=False), LedgerTracker)
    everything(make_tracker(OFFLINE, tmp_path / "other", "train", {}, main=False), tmp_path)
    assert not (tmp_path / "other").exists(), "only the main process writes the ledger"
    disabled = TrackerConfig(name="wandb", mode="disabled")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    for name, settings in (("none", TrackerConfig()), ("disabled", disabled), ("variable", ONLINE)):
        everything(make_tracker(settings, tmp_path / name, "train", {}), tmp_path)
        assert [path.name for path in (tmp_path / name).iterdir()] == ["lineage.jsonl"]
        kinds = [row["kind"] for row in files.read_jsonl(tmp_path / name / "lineage.jsonl")]
        assert kinds == ["use", "make"]


@pytest.mark.parametrize("breaks", ["init", "log", "log_artifact", "finish"])
def test_no_error_of_wandb_reaches_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], breaks: str
) -> None:
    import wandb

    class Run:
        dir = str(tmp_path / "run" / "wandb" / "run" / "files")

        def __getattr__(self, name: str):
            def method(*arguments, **options):
                if name == breaks:
                    raise RuntimeError(f"server is gone, it said {KEY}")

            return method

    def init(**options):
        if breaks == "init":
            raise RuntimeError(f"no good key: {KEY}")
        return Run()

    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setattr(wandb, "init", init)
    everything(WandbTracker(OFFLINE, tmp_path / "run", "train", {}), tmp_path)
    said = capsys.readouterr().err
    assert said.count("W&B is off for this run") == 1 and KEY not in said


def test_a_mirror_that_takes_nothing_in_is_switched_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told, stuck = WandbTracker(OFFLINE, tmp_path / "run", "train", {}), threading.Event()
    monkeypatch.setattr(tracker, "MAX_WAITING", 5)
    told.calls.put(stuck.wait)
    for step in range(100):
        told.log_values({"loss": 1.0}, step=step)
    assert told.calls.qsize() < 8 and told.highest_value_wandb_had_at_start("_step") == math.inf, "nothing more is told"
    stuck.set()
    told.finish_tracking()
    assert capsys.readouterr().err.count("W&B accepts no more values") == 1


def test_unwritable_place_is_no_reason_to_stop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "wandb").write_text("a file where the directory should be")
    everything(WandbTracker(OFFLINE, tmp_path / "run", "train", {}), tmp_path)
    assert capsys.readouterr().err.count("W&B is off for this run") == 1
    assert len(files.read_jsonl(tmp_path / "run" / "lineage.jsonl")) == 2


def test_without_a_key_it_is_kept_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with speaking_to(refusing()):
        monkeypatch.delenv("WANDB_API_KEY")
        monkeypatch.setenv("NETRC", str(tmp_path / "none"))
        everything(WandbTracker(ONLINE, tmp_path / "run", "train", {}), tmp_path)
    said = capsys.readouterr().err
    assert said.count("W&B cannot be reached (UsageError: No API key configured") == 1
    assert f"wandb sync {tmp_path / 'run' / 'wandb'}" in said and len(history(tmp_path / "run")) == 3


def test_online_and_resumed_it_is_one_run(tmp_path: Path) -> None:
    with FakeWandb() as server, speaking_to(server.url):
        everything(WandbTracker(ONLINE, tmp_path / "run", "train", {"lora": {"rank": 4}}), tmp_path)
        resumed = WandbTracker(ONLINE, tmp_path / "run", "train", {})
        assert (
            resumed.highest_value_wandb_had_at_start("step"),
            resumed.highest_value_wandb_had_at_start("evaluation/step"),
        ) == (3, 3)
        everything(resumed, tmp_path, range(4, 7))
        ((name, run),) = [(name, run) for name, run in server.runs.items() if run.history]
        assert run.steps == [1, 2, 3, 4, 5, 6] and run.complete and json.loads(run.summary)["chosen/step"] == 3
        assert '"rank"' in run.config and len(server.alerts) == 2
        assert {server.title(i) for i in run.used} == {"brand-a-b"} and run.made.count("thing") == 2
        assert json.loads((tmp_path / "run" / "wandb.json").read_text())["id"] == name
        assert server.runs["thing"].files.keys() == {"x.txt"}
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert not kept, "the key is nowhere"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # of W&B's own threads
@pytest.mark.parametrize(("stage", "fault"), [("init", "hang"), ("log", "cut"), ("finish", "hang")])
def test_a_server_that_fails_holds_nobody_up(
    tmp_path: Path, brisk: None, capfd: pytest.CaptureFixture[str], stage: str, fault: str
) -> None:
    """All combinations are in tests/prove/test_tracker_prove.py."""
    said, seconds = failing(tmp_path, stage, fault, capfd)
    assert seconds < 10
    assert said.count("cannot be reached" if stage == "init" else "W&B is off") == 1
    if stage != "log":  # W&B writes in blocks: what is ended by force loses the last one
        assert len(history(tmp_path / "run")) == 3, "what was told lies on the disk, to be synced"


def failing(folder: Path, stage: str, fault: str, capfd: pytest.CaptureFixture[str]) -> tuple[str, float]:
    """Tell everything to a server that fails from `stage` on; what was said, and the seconds that it took."""
    with FakeWandb() as server, speaking_to(refusing() if fault == "refuse" else server.url):
        if stage == "init" and fault != "refuse":
            server.fail(stage, fault)
        began = time.monotonic()
        told = WandbTracker(ONLINE, folder / "run", "train", {})
        if stage != "init":
            server.fail(stage, fault)
        everything(told, folder)
        seconds = time.monotonic() - began
        assert not told.thread.is_alive() and not wandbrun.wandb_service_processes()
    out = capfd.readouterr()
    assert KEY not in out.out + out.err
    return out.err, seconds


KILLED = """
import os, sys, time
from pathlib import Path
from stylegate import files
from stylegate.cli import main
from stylegate.config import TrackerConfig
from stylegate.tracker import make_tracker
run = Path(sys.argv[1])
told = make_tracker(TrackerConfig(name="wandb", mode="offline", project="tests"), run, "train", {})
for step in range(1, 401):
    files.append_jsonl(run / "stats.jsonl", {"step": step, "loss": 1 / step})
    told.log_values({"step": step, "loss": 1 / step} | {f"value {i}": i / step for i in range(9)}, step=step)
time.sleep(1)
os.kill(os.getpid(), 9)
"""


def test_a_part_that_only_the_tool_cannot_read_stays_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tool that is missing or fails says nothing about the file; one that is no log of W&B's is set aside."""
    whole, junk, empty = (tmp_path / "wandb" / f"offline-run-{name}" for name in ("whole", "junk", "empty"))
    for part in (whole, junk, empty):
        part.mkdir(parents=True)
    (whole / "run-a.wandb").write_bytes(wandbrun.BEGINS + b"more")
    (junk / "run-b.wandb").write_bytes(b"junk")
    failed = subprocess.CompletedProcess([], 1, stdout="", stderr="No module named wandb")
    monkeypatch.setattr(wandbrun.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(SurroundingsError, match="No module named wandb"):
        wandbrun.read_highest_steps_moving_damaged_files(tmp_path)
    assert whole.is_dir() and {path.name for path in (tmp_path / "wandb" / "torn").iterdir()} == {junk.name, empty.name}
    told = make_tracker(OFFLINE, tmp_path, "train", {})
    told.log_values({"step": 1, "loss": 1.0}, step=1)
    told.finish_tracking()
    assert whole.is_dir(), "W&B is off for this run, which goes on"


def test_killed_and_resumed_it_is_one_run_offline(tmp_path: Path) -> None:
    """W&B loses its last rows when it is killed, and would not sync what is torn: the resumed run tells it again."""
    run = tmp_path / "run"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(run)], cwd=files.ROOT, timeout=60)
    assert killed.returncode == -signal.SIGKILL and 50 < len(history(run)) < 400
    identity = (run / "wandb.json").read_text()
    results = [{"step": s, "passed": [True], "eval_loss": 0.5} for s in (0, 390, 600)]
    names = ("style", "style_without_trigger", "drift", "nearest_training")
    results = [result | dict.fromkeys(names) for result in results]
    for first, last in ((399, 410), (410, 420)):
        told = make_tracker(OFFLINE, run, "train", {})
        assert told.highest_value_wandb_had_at_start("step") == (first if first > 400 else -1)
        going_on = stats.StepStatsWriter(run, Accelerator(cpu=True), told, first, lambda step, rank: [])
        assert going_on.send_missing_to_tracker(results) == (first < 400), "evaluations too, once"
        for step in range(first + 1, last + 1):
            files.append_jsonl(run / "stats.jsonl", {"step": step, "loss": 1 / step})
            told.log_values({"step": step, "loss": 1 / step}, step=step)
        told.finish_tracking()
    kept = records(run)
    rows = [record["history"]["item"] for record in kept if record["type"] == "history"]
    assert [row["_step"] for row in rows] == list(range(421))
    assert [row["evaluation/step"] for row in rows if "evaluation/step" in row] == [0, 390]
    ids = {record["run"]["run_id"] for record in kept if record["type"] == "run"}
    assert len(list(run.glob("wandb/offline-run-*"))) == 2 and len(list(run.glob("wandb/torn/*"))) == 1
    assert ids == {json.loads(identity)["id"]} and (run / "wandb.json").read_text() == identity
    with FakeWandb() as server, speaking_to(server.url):
        sync = [sys.executable, "-m", "wandb", "sync", str(run / "wandb")]
        subprocess.run(sync, env=os.environ | {"WANDB_ERROR_REPORTING": "false"}, check=True, timeout=60)
        assert server.runs[ids.pop()].steps == list(range(421)), "the two parts make one run on a server"


EVALUATED = merged(*FAST, "brand=small", "train.max_steps=4", "train.evaluate_every=2", "train.num_samples=1")
EVALUATED = merged(*EVALUATED, "train.scales=[1]", "generate.num_inference_steps=1")


@pytest.fixture(scope="module")
def bare(small_brand: Path) -> tuple[bytes, bytes]:
    """LoRA and stats.jsonl of a run without W&B."""
    assert main(["train", *EVALUATED, "name=bare", "train.evaluation_share=1"]) == 0
    return lora_bytes("bare"), (directory("bare") / "stats.jsonl").read_bytes()


def test_training_is_the_same_with_it(run, bare: tuple[bytes, bytes], brisk: None) -> None:
    """At a server that is dead: kept offline, nothing lost, not a byte of the run is another."""
    name = "mirrored"
    words = [*EVALUATED, f"name={name}", "train.evaluation_share=1", "tracker=wandb"]
    with speaking_to(refusing()):
        code, text = run("train", *words)
    place = directory(name)
    assert code == 0 and (lora_bytes(name), (place / "stats.jsonl").read_bytes()) == bare
    assert text.count("W&B cannot be reached") == 1 and f"wandb sync {place / 'wandb'}" in text
    told = records(place)
    rows = [record["history"]["item"] for record in told if record["type"] == "history"]
    assert [row["_step"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row["evaluation/step"] for row in rows if "evaluation/step" in row] == [0, 2, 4]
    assert {row["_step"] for row in rows if "samples._type" in row} == {0, 2, 4}
    for row, kept in zip(rows[1:], files.read_jsonl(place / "stats.jsonl"), strict=True):
        assert all(row[key] == pytest.approx(kept[key]) for key in ("loss", "grad_norm", "learning_rate"))
        assert 0 <= row["data_wait_share"] < 1 and 0.05 < row["memory_gib"] < 64 and row["steps_per_s"] > 0
    assert 0 < rows[4]["evaluation/share"] < 1
    config = next(record["run"]["config"]["update"] for record in told if record["type"] == "run")
    assert config["digests"]["data"] and len(config["code"]) == 64 and config["lora"]["rank"] == 16
    summary = {k: v for record in told if record["type"] == "summary" for k, v in record["summary"]["update"].items()}
    selection = json.loads((place / "selection.json").read_text())
    assert (summary["chosen/step"], summary["chosen/strength"]) == (selection["step"], selection["scale"])
    (made,) = [record["artifact"] for record in told if record["type"] == "artifact"]
    ledger = files.read_jsonl(place / "lineage.jsonl")
    assert [(row["kind"], row["type"]) for row in ledger] == [("use", "brand-set"), ("make", "lora")]
    assert wandbrun.digest_alias(ledger[1]["sha256"]) in made["aliases"]
    assert ledger[1]["sha256"] == files.sha256_of_file(place / "lora" / f"{name}.safetensors")
    assert ledger[0]["sha256"] == config["digests"]["data"]


def test_a_finished_run_tells_a_server_everything(run, bare: tuple[bytes, bytes]) -> None:
    """Trained without W&B; the same arguments with it."""
    with FakeWandb() as server, speaking_to(server.url):
        code, text = run("train", *EVALUATED, "name=bare", "train.evaluation_share=1", "tracker=wandb")
        assert code == 0 and "steps were done before" in text
        (told,) = [found for found in server.runs.values() if found.history]
        assert told.steps == [0, 1, 2, 3, 4] and told.history[4]["evaluation/step"] == 4


def test_an_evaluation_is_told_with_the_ends_of_its_interval() -> None:
    names, passed = (
        ("style", "style_without_trigger", "drift", "nearest_training", "eval_loss"),
        [True, True, False, True],
    )
    result = {"step": 7, "passed": passed, "eval_losses": {"0.1": 0.5, "0.9": 0.25}}
    found = select.tracked_evaluation_values(result | dict(zip(names, range(5), strict=True)))
    assert (found["evaluation/eval_loss/10"], found["evaluation/eval_loss/90"]) == (0.5, 0.25)
    assert found["evaluation/step"] == 7 and found["evaluation/pass_rate"] == 0.75
    ends = found["evaluation/pass_rate_low"], found["evaluation/pass_rate_high"]
    assert ends == select.wilson_interval(passed) and ends[0] < 0.75 < ends[1]
    assert {f"evaluation/{name}" for name in names} < found.keys()
    assert select.tracked_evaluation_values({"step": 0, "passed": None} | dict.fromkeys(names)) == {
        "evaluation/step": 0
    }


def test_waiting_for_data_is_timed() -> None:
    class Slow:
        def read_arrays_of_key(self, key: str) -> str:
            time.sleep(0.02)
            return key

    timed = stats.CacheWithReadTimer(Slow())
    assert timed.read_arrays_of_key("a") == "a" and 0.01 < timed.seconds < 1
