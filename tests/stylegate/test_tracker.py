"""W&B as a mirror: offline it holds what was logged, broken it hurts nobody."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from stylegate.config import TrackerConfig
from stylegate.tracker import NullTracker, WandbTracker, tracker_of

OFFLINE = TrackerConfig(name="wandb", mode="offline", project="tests")


def everything(tracker, folder: Path) -> None:
    tracker.log({"loss": 0.5}, step=1)
    tracker.picture("samples", Image.new("RGB", (8, 8)), step=1)
    tracker.table("verdicts", ["file", "picture"], [["a", Image.new("RGB", (8, 8))]])
    (folder / "x.txt").write_text("x")
    tracker.artifact("thing", "batch", [folder / "x.txt"], {"sha256": "0"})
    tracker.finish()


def test_offline_run_holds_what_was_logged(tmp_path: Path) -> None:
    """Read back with W&B's own documented tool."""
    everything(tracker_of(OFFLINE, tmp_path / "run", "train", {"lora": {"rank": 4}}), tmp_path)
    (run,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    read = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--json", str(run)]
    out = subprocess.run(read, capture_output=True, text=True, timeout=60)
    text = out.stdout
    assert out.returncode == 0 and [json.loads(line) for line in text.splitlines()]
    for part in ("loss", "samples", "verdicts", "thing", "rank"):
        assert part in text


def test_other_processes_and_none_are_silent(tmp_path: Path) -> None:
    assert isinstance(tracker_of(OFFLINE, tmp_path, "train", {}, main=False), NullTracker)
    everything(tracker_of(TrackerConfig(), tmp_path, "train", {}), tmp_path)
    assert not (tmp_path / "wandb").exists()


@pytest.mark.parametrize("breaks", ["init", "log", "log_artifact", "finish"])
def test_no_error_of_wandb_reaches_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], breaks: str
) -> None:
    import wandb
    from wandb.errors import UsageError

    class Run:
        def __getattr__(self, name: str):
            def method(*arguments, **options):
                if name == breaks:
                    raise RuntimeError("server is gone")

            return method

    def init(**options):
        if breaks == "init":
            raise UsageError("no key")
        return Run()

    monkeypatch.setattr(wandb, "init", init)
    everything(WandbTracker(OFFLINE, tmp_path / "run", "train", {}), tmp_path)
    assert capsys.readouterr().err.count("W&B is off for this run") == 1


def test_unwritable_place_is_no_reason_to_stop(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file where the directory should be")
    everything(WandbTracker(OFFLINE, tmp_path / "run", "train", {}), tmp_path)
