"""A thousand slots, killed at thirty random moments: nothing acknowledged is lost, and the same bytes come out.

    python -m pytest -n 0 tests/prove/test_fill.py        about 8 minutes on two cores; three pieces of ten kills

Drawn by the shipped base in one step without guidance, which is fast; everything else is as in a real batch.
"""

import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from stylegate import files
from stylegate.cli import main
from tests.conftest import command

SLOTS, KILLS, PIECES = 1000, 10, 3
LONGEST_S = 6.0  # from the first new picture to a kill
PATIENCE_S = 240.0


def words(name: str) -> list[str]:
    return [
        f"batch={name}",
        "traits=collectible",
        "lora_file=none",
        "hardware=cpu",
        "hardware.threads=1",
        "generate.num_inference_steps=1",
        "generate.guidance_scale=1",
        "generate.by_trial=false",
    ]


def planned(name: str) -> Path:
    told = [word for word in words(name) if not word.startswith("hardware.threads")]
    assert main(["plan", *told, f"plan.num_images={SLOTS}"]) == 0
    return files.BATCHES / name / "images"


def digests(images: Path) -> dict[str, str]:
    """sha256 of every picture that stands under its final name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in images.glob("[0-9]*.png")}


def killed_after(images: Path, wait_s: float) -> bool:
    """Draw, and kill the process `wait_s` seconds after its first new picture. Returns whether it was still at work."""
    before = len(list(images.glob("*.png"))) if images.exists() else 0
    process = subprocess.Popen(command("generate", *words(images.parent.name)), cwd=files.ROOT, env=os.environ)
    end = time.monotonic() + PATIENCE_S
    while process.poll() is None and (len(list(images.glob("*.png"))) if images.exists() else 0) == before:
        assert time.monotonic() < end, "nothing is drawn"
        time.sleep(0.02)
    time.sleep(wait_s)
    at_work = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    return at_work


@pytest.fixture(scope="module")
def undisturbed() -> Iterator[dict[str, str]]:
    """The pictures of a batch that nothing disturbed."""
    images = planned("undisturbed")
    assert subprocess.run(command("generate", *words("undisturbed")), cwd=files.ROOT, env=os.environ).returncode == 0
    yield digests(images)


@pytest.mark.parametrize("piece", range(PIECES))
def test_killed_at_random_moments_a_batch_ends_as_an_undisturbed_one(undisturbed: dict[str, str], piece: int) -> None:
    assert len(undisturbed) == SLOTS and len(set(undisturbed.values())) == SLOTS
    images = planned(f"killed-{piece}")
    random, acknowledged, at_work = np.random.default_rng(piece), {}, 0
    for _ in range(KILLS):
        at_work += killed_after(images, float(random.uniform(0, LONGEST_S)))
        there = digests(images)
        assert acknowledged.items() <= there.items(), "what stood there before stands there unchanged"
        assert there.items() <= undisturbed.items(), "no picture is torn, and none is another one"
        acknowledged = there
    left = [path.name for path in images.iterdir() if not path.name.endswith(".png")]
    assert at_work >= KILLS // 2 and len(acknowledged) < SLOTS, (at_work, len(acknowledged), left)
    done = subprocess.run(command("generate", *words(images.parent.name)), cwd=files.ROOT, env=os.environ)
    assert done.returncode == 0 and digests(images) == undisturbed
