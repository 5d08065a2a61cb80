"""Do time and memory of `score` and `gate` grow no faster than the lot? Two lots, one ten times as large, in one run.

    python -m tests.bench.flat [COUNT] [SIDE]      10,000 and 100,000 pictures of 64 pixels: 10 to 20 minutes; 2000 1024

Each picture is one of neon's, with noise of its own, enlarged to SIDE pixels; it is scored with neon's test/ as
references, gated, and gated under another policy, report included: whole processes. Time: the second gate of the large
lot against that of the small one. Memory: the largest RssAnon of all processes of a lot, read ten times a second; pages
of mapped files are the system's to drop. Exit 1 if a line is missed.
"""

import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
from PIL import Image

from stylegate import brandset, files

SLOWER, LARGER = 12.0, 1.1  # times the seconds, times the memory, of a lot that is ten times as large
COMMAND = "from stylegate.cli import main; raise SystemExit(main())"


class Ended(NamedTuple):
    """What a process took."""

    seconds: float
    mib: float


def write_lot(folder: Path, count: int, side: int) -> None:
    folder.mkdir()
    shipped = sorted((brandset.brand_folder("neon") / "train").glob("*.png"))
    bases = [np.asarray(Image.open(path).convert("RGB"), np.int16) for path in shipped]

    def write(number: int) -> None:
        random = np.random.default_rng(number)
        noisy = bases[number % len(bases)] + random.integers(-3, 4, bases[0].shape, dtype=np.int16)
        image = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
        image.resize((side, side), Image.Resampling.NEAREST).save(folder / f"{number:06d}.png", compress_level=1)

    with ThreadPoolExecutor() as pool:
        list(pool.map(write, range(count)))


def process(*words: str, home: Path) -> Ended:
    """Run a command of stylegate; asserts that it judged."""
    environment = os.environ | {"STYLEGATE_HOME": str(home), "PYTHONPATH": str(files.ROOT), "CUDA_VISIBLE_DEVICES": ""}
    began = time.perf_counter()
    said = home / "said.txt"
    with said.open("wb") as file:
        running = subprocess.Popen([sys.executable, "-c", COMMAND, *words], env=environment, stdout=file, stderr=file)
    largest = 0.0
    while running.poll() is None:
        status = Path(f"/proc/{running.pid}/status").read_text()
        if own := status.partition("RssAnon:")[2].split():
            largest = max(largest, int(own[0]) / 1024)
        time.sleep(0.1)
    spent = time.perf_counter() - began
    assert running.returncode in (0, 10, 11), said.read_text()[-2000:]
    return Ended(spent, largest)


def measure(place: Path, count: int, side: int) -> dict[str, Ended]:
    """Score a lot, gate it, and gate it under three other policies: the median of these."""
    write_lot(place / "lot", count, side)
    words = [f"images={place / 'lot'}", "references=neon", f"out={place / 'out'}"]
    found = {"score": process("score", *words, home=place), "gate": process("gate", *words, home=place)}
    others = []
    for line in (10, 20, 30):
        policy = place / f"{line}.yaml"
        policy.write_text(f"version: 1\nchecks: {{contrast: {{reject_below: {line}}}, style: {{review_below: 0.9}}}}\n")
        others.append(process("gate", *words, f"policy={policy}", home=place))
    both = [median(values) for values in zip(*others, strict=True)]
    return found | {"gate, another policy": Ended(*both)}


def main() -> int:
    count, side = (int(word) for word in (sys.argv[1:] + ["10000", "64"][len(sys.argv) - 1 :]))
    with tempfile.TemporaryDirectory() as place:
        lots = []
        for number in (count, 10 * count):
            folder = Path(place) / str(number)
            folder.mkdir()
            lots.append(measure(folder, number, side))
    small, large = lots
    missed = []
    for name in small:
        times, more = large[name].seconds / small[name].seconds, large[name].mib / small[name].mib
        print(
            f"{name:<22} {small[name].seconds:8.1f} s {large[name].seconds:8.1f} s ({times:.1f}x)"
            f" {small[name].mib:8.0f} MiB {large[name].mib:8.0f} MiB ({more:.2f}x)"
        )
    more = max(ended.mib for ended in large.values()) / max(ended.mib for ended in small.values())
    missed += [f"{more:.2f} times the memory"] if more > LARGER else []
    times = large["gate, another policy"].seconds / small["gate, another policy"].seconds
    missed += [f"gate, another policy: {times:.1f} times the seconds"] if times > SLOWER else []
    print("\n".join(["missed:", *missed]) if missed else "every line holds")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
