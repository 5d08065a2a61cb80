"""Files from outside: no traceback, no hang, memory bounded, all accounted for; what does not decode never passes."""

import io
import os
import resource
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stylegate import files, pictures
from tests.mutants import DAMAGES, bomb, drawn, encoded, mutant

COUNT = 2000
PATIENCE_S = 20


@contextmanager
def no_hang() -> Iterator[None]:
    """One decode must not take longer than PATIENCE_S."""

    def late(*_: object) -> None:
        raise AssertionError(f"took longer than {PATIENCE_S} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def held(numbers: range) -> Counter[str]:
    """Decode each mutant; returns how many decoded and how many were refused, by reason's first words."""
    told: Counter[str] = Counter()
    for number in numbers:
        content = mutant(number)
        with no_hang():
            try:
                image = pictures.decode_picture(content).image
            except pictures.PictureError as error:
                assert str(error), number
                told[" ".join(str(error).split()[:3])] += 1
                continue
        assert image.mode == "RGB" and min(image.size) >= pictures.MIN_SIDE, number
        assert image.width * image.height <= pictures.MAX_PIXELS, number
        with Image.open(io.BytesIO(content)) as again:  # another reader: it decodes to the end
            again.load()
        told["decoded"] += 1
    return told


def test_mutants_decode_or_are_refused_with_a_reason() -> None:
    told = held(range(COUNT))
    assert told.total() == COUNT
    assert told["decoded"] > COUNT / len(DAMAGES) and told.total() - told["decoded"] > COUNT / 4
    assert told["animated (2 frames)"] and any("no picture" in reason or "decoded" in reason for reason in told)


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # MiB; Linux counts KiB


BOUNDED = """
from tests.eval.test_mutants import bombs_refused, held, peak_mib
before = peak_mib()
held(range(600))
bombs_refused()
print(peak_mib() - before)
"""


def test_memory_stays_bounded() -> None:
    """In a process of its own: a peak of this one would hide what is taken."""
    done = subprocess.run([sys.executable, "-c", BOUNDED], cwd=files.ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) < 200


def bombs_refused() -> None:
    for side in (10_001, 50_000, 2**31 - 1):
        with no_hang(), pytest.raises(pictures.PictureError):
            pictures.decode_picture(
                bomb(side) if side < 10**6 else bomb(50_000).replace(b"\x00\x00\xc3P", b"\x7f\xff\xff\xff")
            )


def test_bombs_are_refused_by_their_headers() -> None:
    bombs_refused()


ODD_NAMES = [
    "a\nb.png",
    "a..b.png",
    "'; rm -rf.png",
    "<img src=x>.png",
    "ünï.png",
    "a" * 200 + ".png",
    "%2e.png",
]


def test_a_folder_of_all_that_can_be_wrong_is_accounted_for(run, tmp_path: Path) -> None:
    """Mutants under any extension, a bomb, links out, to nothing and to themselves, a pipe, a device, odd names."""
    place, out = tmp_path / "from outside", tmp_path / "out"
    place.mkdir()
    suffixes = sorted(pictures.SUFFIXES)
    for number in range(120):
        (place / f"m{number:03d}{suffixes[number % len(suffixes)]}").write_bytes(mutant(number))
    good = encoded(drawn(np.random.default_rng(1), 64), "PNG")
    for i, name in enumerate(ODD_NAMES):
        (place / name).write_bytes(encoded(drawn(np.random.default_rng(i + 10), 64), "PNG"))
    (place / os.fsdecode(b"raw\xff.png")).write_bytes(good)
    (place / "empty.png").write_bytes(b"")
    (place / "bomb.png").write_bytes(bomb(30_000))
    (tmp_path / "elsewhere.png").write_bytes(encoded(drawn(np.random.default_rng(5), 64), "PNG"))
    for name, target in (("out.png", tmp_path / "elsewhere.png"), ("nothing.png", "nowhere"), ("self.png", "self.png")):
        (place / name).symlink_to(target)
    (place / "zero.png").symlink_to("/dev/zero")
    os.mkfifo(place / "pipe.png")
    (place / "folder.png").mkdir()
    given = sum(path.suffix in pictures.SUFFIXES and not path.is_dir() for path in place.iterdir())

    with no_hang():
        code, text = run("gate", f"images={place}", f"out={out}")
        (tmp_path / "few").mkdir()
        (tmp_path / "few" / "one.png").write_bytes(good)
        as_references = run("gate", f"images={tmp_path / 'few'}", f"references={place}", f"out={tmp_path / 'other'}")
    assert as_references[0] == 0, "the picture is one of the references"
    assert "is left out: cannot be read" in as_references[1]
    assert code == 10 and "Traceback" not in text, text
    rows = {row["file"]: row for row in files.read_jsonl(out / "verdicts.jsonl")}
    assert len(rows) == given and f"{given} in = " in text
    for name in ("empty.png", "bomb.png", "nothing.png", "self.png", "zero.png", "pipe.png"):
        assert rows[name]["verdict"] == "error" and rows[name]["reasons"][0]["detail"], name
    for name, row in rows.items():
        if row["verdict"] in ("accept", "review"):
            with Image.open(place / name.replace("\\xff", os.fsdecode(b"\xff"))) as image:
                image.load()
    assert all(rows[name]["verdict"] != "error" for name in (*ODD_NAMES, "out.png", "raw\\xff.png"))
    page = (out / "report" / "index.html").read_text()
    assert "<img src=x>" not in page
