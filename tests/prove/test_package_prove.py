"""Packages: 10,000 random tamperings, and SIGKILL at random moments of an export."""

import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from eval.package import receiver
from eval.package.proof import check_package
from stylegate import files
from tests.conftest import MADE_BY_A_MODEL, command
from tests.eval.packages import make_package
from tests.eval.tampering import KINDS

TAMPERINGS = 10_000
BY_SHA256SUM = 200  # of those that it can see
KILLS = 30


def test_no_tampering_is_unseen(tmp_path: Path) -> None:
    package = make_package(tmp_path)
    draw = random.Random(0)
    for number in range(TAMPERINGS):
        kind = KINDS[number % len(KINDS)]
        name, undo = kind(package, draw)
        for wrong in (check_package(package)[2], receiver.check_received_package(package)[2]):
            assert any(name in line for line in wrong), (number, kind.__name__, name, wrong)
        payload = kind.__name__ in ("edit_trait", "lower_threshold")
        if payload and number < BY_SHA256SUM * len(KINDS):
            told = ["sha256sum", "--quiet", "-c", "manifest-sha256.txt"]
            assert subprocess.run(told, cwd=package, capture_output=True).returncode == 1
        undo()
    assert not check_package(package)[2]


def test_a_killed_export_leaves_a_whole_package_or_none(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Run again it equals an undisturbed one, byte for byte."""
    whole = receiver.sha256(make_package(tmp_path) / receiver.TAGMANIFEST)
    words = [f"images={tmp_path / 'lot'}", f"out={tmp_path / 'out'}", *MADE_BY_A_MODEL, "name=acme"]
    start = time.monotonic()
    subprocess.run(command("export", *words), cwd=files.ROOT, check=True)
    lasts_s, draw, killed = time.monotonic() - start, random.Random(0), 0
    for _ in range(KILLS):
        shutil.rmtree(files.EXPORTS)
        export = subprocess.Popen(command("export", *words), cwd=files.ROOT)
        time.sleep(lasts_s * draw.uniform(0.5, 1))  # before that it has not begun to write
        export.send_signal(signal.SIGKILL)
        killed += export.wait() == -signal.SIGKILL
        packages = list(files.EXPORTS.glob("[!.]*"))
        assert len(packages) <= 1 and not any(check_package(package)[2] for package in packages)
        subprocess.run(command("export", *words), cwd=files.ROOT, check=True)
        (package,) = files.EXPORTS.iterdir()
        assert receiver.sha256(package / receiver.TAGMANIFEST) == whole
    assert killed >= KILLS // 3
