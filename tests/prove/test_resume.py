"""The full matrix of exact resume: processes x passes a step x three kills, 1,000 steps.

    python -m pytest tests/prove        about 12 minutes on two cores

What one case of each holds in `make test` is in tests/train/test_loop.py.
"""

import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from stylegate import files
from tests.conftest import FAST_ALL_LAYERS
from tests.train import test_preferences
from tests.train.test_loop import CPU, begun, directory, lora_bytes, newest, start, state_tensors, tell_all
from tests.train.test_preferences import words_of

batch, pairs = test_preferences.batch, test_preferences.pairs  # fixtures
KILLS = 3
STEPS = 12


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("passes", [1, 2])
def test_killed_three_times_it_ends_in_the_same_bytes(run, small_brand: Path, processes: int, passes: int) -> None:
    words = [
        "brand=small",
        *FAST_ALL_LAYERS,
        f"train.max_steps={STEPS}",
        "train.checkpoint_every=1",
        "train.ema_decay=0.9",
    ]
    words += [f"train.accumulation={passes}", "train.num_samples=1", "train.evaluate_every=4"]
    whole, killed = (f"{kind}-{processes}-{passes}" for kind in ("whole", "killed"))
    assert subprocess.run(start(processes, [*words, f"name={whole}"]), cwd=files.ROOT, env=CPU).returncode == 0
    for kill in range(KILLS):
        process = begun(start(processes, [*words, f"name={killed}"]), killed, 1 + 3 * kill)
        tell_all(process, signal.SIGKILL)
        process.wait()
    assert not (directory(killed) / "lora").exists()
    assert subprocess.run(start(processes, [*words, f"name={killed}"]), cwd=files.ROOT, env=CPU).returncode == 0
    assert lora_bytes(whole) == lora_bytes(killed)
    one, two = state_tensors(whole, STEPS), state_tensors(killed, STEPS)
    assert one.keys() == two.keys() and all(one[k].equal(two[k]) for k in one)
    rows = [files.read_jsonl(directory(name) / "stats.jsonl") for name in (whole, killed)]
    assert rows[0] == rows[1] and len(rows[0]) == STEPS


def test_learning_from_preferences_is_killed_and_ends_in_the_same_bytes(pairs: Path) -> None:
    """Where it began, the LoRA that the pairs were drawn with, is part of every resumed run."""
    words = words_of(pairs, "x", f"train.max_steps={STEPS}", "hardware=cpu")
    whole, killed = ([word.replace("name=x", f"name={kind}-dpo") for word in words] for kind in ("unharmed", "killed"))
    assert subprocess.run(start(1, whole), cwd=files.ROOT, env=CPU).returncode == 0
    for kill in range(KILLS):
        process = begun(start(1, killed), "killed-dpo", 1 + 3 * kill)
        tell_all(process, signal.SIGKILL)
        process.wait()
    assert subprocess.run(start(1, killed), cwd=files.ROOT, env=CPU).returncode == 0
    assert lora_bytes("unharmed-dpo") == lora_bytes("killed-dpo")
    rows = [files.read_jsonl(directory(name) / "stats.jsonl") for name in ("unharmed-dpo", "killed-dpo")]
    assert rows[0] == rows[1] and len(rows[0]) == STEPS and rows[0][-1]["preference_margin"] > 0


def test_a_thousand_steps_leak_nothing(small_brand: Path) -> None:
    """Resident memory at step 300 and at step 1,000: at most 40 MB more."""
    words = ["brand=small", *FAST_ALL_LAYERS, "name=long", "train.max_steps=1000", "train.checkpoint_every=100"]
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
