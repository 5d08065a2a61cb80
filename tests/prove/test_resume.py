"""The full matrix of exact resume: processes x passes a step x three kills, a rank that dies, 1,000 steps.

    python -m pytest tests/prove        about 12 minutes on two cores

What one case of each holds in `make test` is in tests/train/test_loop.py.
"""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from stylegate import files
from tests.conftest import FAST, command
from tests.train.test_loop import LAUNCH, directory, lora_bytes, state_tensors

CPU = os.environ | {"ACCELERATE_USE_CPU": "true"}
KILLS = 3
STEPS = 12


def start(processes: int, words: list[str]) -> list[str]:
    launch = [*LAUNCH, "--main_process_port", "29618"] if processes == 2 else []
    return [command()[0], *launch, "-m", "train", *words]


def newest(name: str) -> int:
    steps = [int(p.name[5:]) for p in files.RUNS.glob(f"{name}-sd-*/state/step-*")]
    return max(steps, default=0)


def begun(arguments: list[str], name: str, at: int) -> subprocess.Popen:
    """Started, and at least `at` steps saved."""
    process = subprocess.Popen(
        arguments, cwd=files.ROOT, env=CPU, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 240
    while newest(name) < at and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None, "it ended before it could be stopped"
    return process


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("passes", [1, 2])
def test_killed_three_times_it_ends_in_the_same_bytes(run, small_brand: Path, processes: int, passes: int) -> None:
    words = ["brand=small", *FAST, f"train.max_steps={STEPS}", "train.checkpoint_every=1", "train.ema_decay=0.9"]
    words += [f"train.accumulation={passes}", "train.num_samples=1", "train.evaluate_every=4"]
    whole, killed = (f"{kind}-{processes}-{passes}" for kind in ("whole", "killed"))
    assert subprocess.run(start(processes, [*words, f"name={whole}"]), cwd=files.ROOT, env=CPU).returncode == 0
    for kill in range(KILLS):
        process = begun(start(processes, [*words, f"name={killed}"]), killed, 1 + 3 * kill)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not (directory(killed) / "lora").exists()
    assert subprocess.run(start(processes, [*words, f"name={killed}"]), cwd=files.ROOT, env=CPU).returncode == 0
    assert lora_bytes(whole) == lora_bytes(killed)
    one, two = state_tensors(whole, STEPS), state_tensors(killed, STEPS)
    assert one.keys() == two.keys() and all(one[k].equal(two[k]) for k in one)
    rows = [files.read_jsonl(directory(name) / "stats.jsonl") for name in (whole, killed)]
    assert rows[0] == rows[1] and len(rows[0]) == STEPS


def test_a_rank_that_dies_ends_the_run_and_it_can_be_started_again(run, small_brand: Path) -> None:
    words = ["brand=small", *FAST, "name=orphan", "train.max_steps=2000", "train.checkpoint_every=1"]
    process = begun(start(2, words), "orphan", 2)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    workers = [int(pid) for pid in children if b"train" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    assert process.wait(timeout=180) != 0
    done = newest("orphan") + 3
    again = [w.replace("2000", str(done)) for w in words]
    assert subprocess.run(start(2, again), cwd=files.ROOT, env=CPU, timeout=240).returncode == 0
    assert newest("orphan") == done


def test_a_thousand_steps_leak_nothing(small_brand: Path) -> None:
    """Resident memory at step 300 and at step 1,000: at most 40 MB more."""
    words = ["brand=small", *FAST, "name=long", "train.max_steps=1000", "train.checkpoint_every=100"]
    process = begun(start(1, [*words, "lora=attention", "train.batch_size=1"]), "long", 300)

    def resident() -> float:
        status = Path(f"/proc/{process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found
        return int(found[1]) / 1024

    before = resident()
    while newest("long") < 900 and process.poll() is None:
        time.sleep(0.2)
    after = resident()
    assert process.wait(timeout=240) == 0
    assert after - before < 40, f"{before:.0f} MB, then {after:.0f} MB"
