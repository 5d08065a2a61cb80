"""Remembered digests: never of other bytes than the file has, and no error where nothing can be remembered."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stylegate import digests, files


@pytest.fixture
def lot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Three files that count as old enough to be remembered."""
    monkeypatch.setattr(files, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(digests, "SETTLED_NS", 0)
    paths = [tmp_path / name for name in ("a [1]", "b\nc", os.fsdecode(b"\xff"))]
    for path in paths:
        path.write_text(path.name.encode("utf-8", "replace").decode())
    time.sleep(0.02)  # the kernel's file times step in milliseconds
    return paths


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files whose bytes were read, in order."""
    read: list[Path] = []
    plain = digests.read_sha256_and_status
    monkeypatch.setattr(digests, "read_sha256_and_status", lambda path: read.append(path) or plain(path))
    return read


def test_what_did_not_change_is_not_read_again(lot: list[Path], reads: list[Path]) -> None:
    wanted = [files.sha256_of_file(path) for path in lot]
    for _ in range(3):
        assert digests.sha256_of_files(lot) == wanted
    assert reads == lot
    assert digests.sha256_of_files(lot, remember=False) == wanted and reads == lot * 2, "export and verify read again"


def same_size(path: Path) -> None:
    path.write_bytes(path.read_bytes()[::-1])


def times_put_back(path: Path) -> None:
    before = path.stat()
    same_size(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced(path: Path) -> None:
    before = path.stat()
    path.with_suffix(".new").write_bytes(path.read_bytes()[::-1])
    os.utime(path.with_suffix(".new"), ns=(before.st_atime_ns, before.st_mtime_ns))
    path.with_suffix(".new").replace(path)


def linked(path: Path) -> None:
    path.with_suffix(".new").write_bytes(path.read_bytes()[::-1])
    path.unlink()
    path.symlink_to(path.with_suffix(".new"))


@pytest.mark.parametrize("change", [same_size, times_put_back, replaced, linked])
def test_every_change_is_seen(lot: list[Path], change) -> None:
    before = digests.sha256_of_files(lot)
    change(lot[0])
    after = digests.sha256_of_files(lot)
    assert after == [files.sha256_of_file(path) for path in lot] and after[0] != before[0]
    assert digests.sha256_of_files(lot) == after


def test_a_file_that_just_changed_is_read_again(
    lot: list[Path], reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could change once more within the same time stamp, with the same size."""
    monkeypatch.setattr(digests, "SETTLED_NS", 2_000_000_000)
    digests.sha256_of_files(lot)
    digests.sha256_of_files(lot)
    assert reads == lot * 2


def test_what_cannot_be_read_has_no_digest(lot: list[Path], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    digests.sha256_of_files(lot)
    lot[0].unlink()
    odd = [lot[0], tmp_path / "pipe", tmp_path / "dangling", tmp_path, Path("/dev/zero")]
    assert digests.sha256_of_files(odd) == [""] * len(odd)


@pytest.mark.parametrize("damage", ["no store", "another store", "a folder"])
def test_a_damaged_store_costs_time_only(lot: list[Path], reads: list[Path], damage: str) -> None:
    wanted = digests.sha256_of_files(lot)
    path = files.CACHE / digests.STORE
    if damage == "a folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(b"no database" * 999 if damage == "no store" else path.read_bytes()[:5000])
    reads.clear()
    assert digests.sha256_of_files(lot) == wanted and reads == lot
    assert digests.sha256_of_files(lot) == wanted and digests.sha256_of_files(lot) == wanted
    assert damage == "a folder" or len(reads) <= 2 * len(lot), "a new one is made"


def test_two_processes_remember_into_one_store(lot: list[Path], tmp_path: Path) -> None:
    many = [tmp_path / f"{number}" for number in range(300)]
    for path in many:
        path.write_text(path.name)
    code = f"""
from pathlib import Path
from stylegate import digests, files
files.CACHE, digests.SETTLED_NS = Path({str(files.CACHE)!r}), 0
for _ in range(5):
    assert len(digests.sha256_of_files([Path({str(tmp_path)!r}) / str(number) for number in range(300)])) == 300
"""
    both = [subprocess.Popen([sys.executable, "-c", code], cwd=files.ROOT) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    keys = [os.fsencode(path) for path in many]
    assert {key: entry.sha256 for key, entry in digests.read_remembered_digests(keys).items()} == {
        key: files.sha256_of_file(path) for key, path in zip(keys, many, strict=True)
    }
