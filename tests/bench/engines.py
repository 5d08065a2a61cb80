"""Do engines give the same bytes, how fast, and what does it cost when workers are killed? Ratios of one run.

    python -m tests.bench.engines [pictures=20000] [accelerate] [slurm] [ray]      about 10 minutes on two cores

`stylegate score` of the same folder of 64-pixel pictures with nothing encoded before: in this process, then with each
engine with as many workers as cores; then the engine again, while one of its workers is killed every KILL_EVERY
seconds. Whole processes, wall time. Exit 1 if bytes differ, an engine is slower than WANTED of the plain run, or the
run with kills takes more than SLOWER times the engine's own.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from stylegate import files

KILL_EVERY = {"accelerate": 30.0, "slurm": 10.0, "ray": 10.0}  # seconds; accelerate begins all workers again
WANTED, SLOWER = 0.9, 1.5
ENGINES = ("accelerate", "slurm", "ray")
COMMAND = "from stylegate.cli import main; raise SystemExit(main())"


def draw_pictures(folder: Path, count: int) -> None:
    """Write pictures of neon with noise, so that all differ."""
    random = np.random.default_rng(0)
    sources = sorted((files.ROOT / "data" / "brands" / "neon" / "train").glob("*.png"))
    for i in range(count):
        with Image.open(sources[i % len(sources)]) as image:
            noisy = np.asarray(image.convert("RGB")).astype(int) + random.integers(-20, 21, (64, 64, 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{i:06d}.png")


def workers_of(process: int) -> list[int]:
    """Processes below `process` that encode: those that took more processor time than all others, oldest first."""
    rows = subprocess.run(
        ["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True
    ).stdout.splitlines()[1:]
    parents = {int(pid): (int(parent), words) for pid, parent, words in (row.split(None, 2) for row in rows)}
    below, found = {process}, []
    for _ in range(6):
        below |= {pid for pid, (parent, _) in parents.items() if parent in below}
    for pid in below:
        words = parents.get(pid, (0, ""))[1]
        if ("eval.engines.work" in words and "accelerate" not in words) or "submitit" in words or "MapWorker" in words:
            found.append(pid)
    return sorted(found)


def seconds_of_scoring(
    images: Path, home: Path, words: list[str], kill_every: float | None = None, most_kills: int = 10_000
) -> tuple[float, bytes, int]:
    """Wall time of `stylegate score` with an empty cache, its scores.parquet, and how many workers were killed.

    `kill_every` is in seconds. On a machine whose workers need as long to start, `most_kills` lets the work end.
    """
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    out, killed = home / "out", 0
    surroundings = os.environ | {"STYLEGATE_HOME": str(home), "PYTHONPATH": str(files.ROOT)}
    command = [sys.executable, "-c", COMMAND, "score", f"images={images}", "references=neon", f"out={out}", *words]
    began = last = time.monotonic()
    with subprocess.Popen(command, env=surroundings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            time.sleep(0.2)
            due = kill_every and killed < most_kills and time.monotonic() - last > kill_every
            if due and (found := workers_of(process.pid)):
                os.kill(found[killed % len(found)], signal.SIGKILL)
                killed, last = killed + 1, time.monotonic()
    spent = time.monotonic() - began
    return spent, (out / "scores.parquet").read_bytes() if process.returncode == 0 else b"", killed


def main() -> int:
    """Print a table; returns 1 if a line is missed."""
    told = sys.argv[1:]
    count = next((int(word.partition("=")[2]) for word in told if word.startswith("pictures=")), 20_000)
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        images, home = Path(folder) / "images", Path(folder) / "home"
        images.mkdir()
        draw_pictures(images, count)
        plain, scores, _ = seconds_of_scoring(images, home, [])
        print(f"{count} pictures in this process: {plain:.1f} s, {count / plain:.0f} a second")
        for engine in [word for word in told if word in ENGINES] or ENGINES:
            words = [f"engine={engine}", *(["engine.cluster=local"] if engine == "slurm" else [])]
            spent, same, _ = seconds_of_scoring(images, home, words)
            print(f"{engine}: {spent:.1f} s, {plain / spent:.2f} of its pictures a second", flush=True)
            harried, after, killed = seconds_of_scoring(images, home, words, KILL_EVERY[engine])
            holds = same == after == scores and plain / spent >= WANTED and harried / spent <= SLOWER
            print(f"  {killed} workers killed: {harried:.1f} s, {harried / spent:.2f} of that")
            print(f"  bytes {'the same' if same == after == scores else 'DIFFER'}{'' if holds else '    MISSED'}")
            missed += not holds
    return missed > 0


if __name__ == "__main__":
    raise SystemExit(main())
