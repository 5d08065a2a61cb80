"""W&B that fails in every way, at real trainings where bytes matter.

    python -m pytest tests/prove/test_tracker_prove.py        about 3 minutes on two cores

What one case of each holds in `make test` is in tests/stylegate/test_tracker.py.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from stylegate import files, tracker, wandbrun
from stylegate.config import Config
from stylegate.configgroups import HardwareConfig, TrainConfig
from stylegate.rundirectory import run_directory_name
from tests.conftest import FAST_ALL_LAYERS, command, merged
from tests.fake_wandb import STAGES, FakeWandb, speaking_to
from tests.stylegate.test_tracker import OFFLINE, ONLINE, brisk, everything, failing, history, records
from tests.train.test_loop import CPU, begun, directory, lora_bytes, tell_all

__all__ = ["brisk"]
STEPS = 12
WORDS = merged(
    "brand=small", *FAST_ALL_LAYERS, f"train.max_steps={STEPS}", "train.checkpoint_every=2", "train.num_samples=1"
)
WORDS += ["train.evaluate_every=4", "train.evaluation_share=1"]
MIRRORED = ["tracker=wandb", "tracker.mode=offline"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # of W&B's own threads
@pytest.mark.parametrize("fault", ["hang", "cut", "error", "slow"])
@pytest.mark.parametrize("stage", STAGES)
def test_no_failure_of_the_server_holds_up_a_run(
    tmp_path: Path, brisk: None, capfd: pytest.CaptureFixture[str], stage: str, fault: str
) -> None:
    said, seconds = failing(tmp_path, stage, fault, capfd)
    assert seconds < 2 * tracker.INIT_S + tracker.FINISH_S + 2 * tracker.GRACE_S + wandbrun.KILL_S
    assert said.count("W&B cannot be reached") + said.count("W&B is off") <= 1
    assert (fault == "slow") or said
    assert len(files.read_jsonl(tmp_path / "run" / "lineage.jsonl")) == 2


def test_no_server_at_all(tmp_path: Path, brisk: None, capfd: pytest.CaptureFixture[str]) -> None:
    said, seconds = failing(tmp_path, "init", "refuse", capfd)
    assert seconds < 10 and said.count("W&B cannot be reached") == 1 and len(history(tmp_path / "run")) == 3


def test_its_process_dies(tmp_path: Path, brisk: None, capfd: pytest.CaptureFixture[str]) -> None:
    told = tracker.WandbTracker(OFFLINE, tmp_path / "run", "train", {})
    (process,) = wandbrun.wandb_service_processes()
    process.kill()
    process.wait()
    everything(told, tmp_path)
    assert capfd.readouterr().err.count("W&B is off for this run") == 1


@pytest.fixture(scope="module")
def whole(small_brand: Path) -> tuple[bytes, bytes]:
    """LoRA and stats.jsonl of a run that nothing disturbed, without W&B."""
    assert subprocess.run(command("train", *WORDS, "name=whole"), cwd=files.ROOT, env=CPU).returncode == 0
    return outcome("whole")


def outcome(name: str) -> tuple[bytes, bytes]:
    return lora_bytes(name), (directory(name) / "stats.jsonl").read_bytes()


def test_killed_and_resumed_it_is_one_run(whole: tuple[bytes, bytes]) -> None:
    words = command("train", *WORDS, *MIRRORED, "name=killed")
    for kill in range(2):
        process = begun(words, "killed", 3 + 4 * kill)
        tell_all(process, signal.SIGKILL)
        process.wait()
    assert subprocess.run(words, cwd=files.ROOT, env=CPU).returncode == 0
    assert outcome("killed") == whole
    rows, place = history(directory("killed")), directory("killed")
    assert [row["_step"] for row in rows] == list(range(STEPS + 1))
    assert [row["evaluation/step"] for row in rows if "evaluation/step" in row] == [0, 4, 8, 12]
    assert len({record["run"]["run_id"] for record in records(place) if record["type"] == "run"}) == 1
    assert [(row["kind"], row["type"]) for row in files.read_jsonl(place / "lineage.jsonl")] == [
        ("use", "brand-set"),
        ("make", "lora"),
    ]


@pytest.fixture
def small_disk(small_brand: Path) -> Iterator[str]:
    """The words of a run whose W&B folder is a disk of 128 KiB."""
    hardware = HardwareConfig(device="cpu", precision="fp32")
    config = Config(brand="small", name="crowded", train=TrainConfig(batch_size=2), hardware=hardware)
    place = files.RUNS / run_directory_name(config) / "wandb"
    place.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a disk")
    yield "name=crowded"
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_of_its_own(whole: tuple[bytes, bytes], small_disk: str) -> None:
    done = subprocess.run(
        command("train", *WORDS, *MIRRORED, small_disk), cwd=files.ROOT, env=CPU, capture_output=True, text=True
    )
    assert done.returncode == 0 and outcome("crowded") == whole, done.stderr
    assert done.stderr.count("W&B is off for this run") <= 1
    free = os.statvfs(directory("crowded") / "wandb")
    assert free.f_bavail * free.f_frsize < 16 * 1024, "the disk was full"


def test_training_at_a_server_that_dies_on_the_way(whole: tuple[bytes, bytes]) -> None:
    """A training of its own, with W&B's patience as it ships: the end is bounded, the bytes are the same."""
    with FakeWandb() as server, speaking_to(server.url):
        environment = CPU | {k: v for k, v in os.environ.items() if k.startswith("WANDB_")}
        process = subprocess.Popen(
            command("train", *WORDS, "tracker=wandb", "name=dying"), cwd=files.ROOT, env=environment
        )
        while "UpsertBucket" not in server.requests and process.poll() is None:
            time.sleep(0.1)
        server.fail("log", "hang")
        began = time.monotonic()
        assert process.wait(timeout=400) == 0
    assert outcome("dying") == whole
    assert time.monotonic() - began < tracker.FINISH_S + 2 * tracker.GRACE_S + 90


def test_many_pictures_cost_the_caller_nothing(tmp_path: Path) -> None:
    """What is told waits in a queue: the loop does not wait for pictures to be encoded."""
    told = tracker.WandbTracker(OFFLINE, tmp_path / "run", "train", {})
    page = Image.effect_noise((1024, 1024), 50).convert("RGB")
    began = time.monotonic()
    for step in range(1, 21):
        told.log_picture("samples", page, step)
    assert time.monotonic() - began < 0.1
    told.finish_tracking()
    assert len(history(tmp_path / "run")) == 20


def test_online_settings_reach_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits are W&B's own too: it keeps to them itself wherever it can."""
    import wandb

    seen = {}
    real = wandb.init
    monkeypatch.setattr(wandb, "init", lambda **options: seen.update(options) or real(**options))
    with FakeWandb() as server, speaking_to(server.url):
        tracker.WandbTracker(ONLINE, tmp_path / "run", "train", {}).finish_tracking()
    limits = seen["settings"]
    assert (limits.init_timeout, limits.finish_timeout, limits.finish_timeout_raises) == (15, 60, True)
