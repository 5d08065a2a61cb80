"""Does training stand still where other programs use the cores? Steps a second, by how long waiting threads spin.

    python -m tests.bench.busycores                 about 5 minutes; exit 1 if a line is missed

Trains the miniature by two threads, alone and beside two programs that compute all the time, with the number of spins
that the command sets (stylegate/cli.py) and with that of libgomp, which torch computes with on Linux: three turns
alone, one busy, since libgomp's number takes minutes there.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from stylegate import cli, files  # cli sets the number of spins

OURS, LIBGOMP = os.environ["GOMP_SPINCOUNT"], "300000"
STEPS = 12  # of a turn
QUIET, BUSY = 0.9, 1.5  # wanted, of the steps a second with libgomp's number: alone, and beside busy programs


def steps_per_second(spins: str, home: str) -> float:
    """Of a training by two threads that begins anew."""
    words = ["train", "brand=neon", f"train.max_steps={STEPS}", "train.num_samples=0", "hardware.threads=2"]
    environment = os.environ | {"GOMP_SPINCOUNT": spins, "STYLEGATE_HOME": home, "OMP_NUM_THREADS": "2"}
    started = [sys.executable, "-c", "import sys; from stylegate.cli import main; sys.exit(main(sys.argv[1:]))", *words]
    subprocess.run(started, env=environment, cwd=files.ROOT, check=True, capture_output=True)
    (clock,) = Path(home).glob("checkpoints/*/clock.jsonl")
    rows = files.read_jsonl(clock)
    return sum(row["steps"] for row in rows) / sum(row["seconds"] for row in rows)


def measure(title: str, turns: int) -> float:
    """Print the medians of both over so many turns; returns how many times as many steps ours does."""
    found: dict[str, list[float]] = {OURS: [], LIBGOMP: []}
    for _ in range(turns):
        for spins, speeds in found.items():
            with tempfile.TemporaryDirectory() as home:
                speeds.append(steps_per_second(spins, home))
    ours, theirs = (median(found[spins]) for spins in (OURS, LIBGOMP))
    print(f"{title}: {ours:.2f} steps/s with {OURS} spins, {theirs:.2f} with {LIBGOMP}: {ours / theirs:.2f} times")
    return ours / theirs


def main() -> int:
    assert cli.main
    alone = measure("alone", 3)
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        busy = measure("beside two busy programs", 1)
    finally:
        for other in others:
            other.kill()
    holds = alone >= QUIET and busy >= BUSY
    print("every line holds" if holds else f"missed: {QUIET} alone and {BUSY} busy are wanted")
    return 0 if holds else 1


if __name__ == "__main__":
    raise SystemExit(main())
