"""Export of 10,000 items, signed, a second one after one item changed, and each way of checking the package.

    python -m tests.bench.package        about 3 minutes on two cores; exit 1 if a limit is missed

The pictures are of 64 pixels, each with noise of its own; a policy with one check accepts them. Every command is a
process of its own: wall time and CPU time from its start to its end, and the largest memory that it held.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from stylegate import files

COUNT = 10_000
EXPORT_S, AGAIN_S, VERIFY_S, MEMORY_MB = 480, 15, 120, 600  # at most


STYLEGATE = [sys.executable, "-c", "from stylegate.cli import main; raise SystemExit(main())"]


def main() -> int:
    with tempfile.TemporaryDirectory() as place:
        os.environ |= {"STYLEGATE_HOME": place, "OMP_NUM_THREADS": "1"}
        draw_lot(Path(place, "lot"))
        Path(place, "policy.yaml").write_text("version: 1\nchecks: {contrast: {reject_below: 1}}\n")
        words = [f"images={place}/lot", f"out={place}/out"]
        export = [*STYLEGATE, "export", *words, "name=bench", "source_type=trainedAlgorithmicMedia"]
        judge = [*STYLEGATE, "gate", *words, f"policy={place}/policy.yaml"]
        subprocess.run(judge, cwd=files.ROOT, check=True, stdout=subprocess.DEVNULL)
        package = str(Path(place, "data", "exports", "bench-v2"))
        print("| | s | CPU s | MB |\n|---|---|---|---|")
        good = [
            measured("export", export, EXPORT_S),
            measured("export again, nothing changed", export, AGAIN_S),
        ]
        draw_picture(Path(place, "lot", "00003.png"), np.random.default_rng(1))
        subprocess.run(judge, cwd=files.ROOT, check=True, stdout=subprocess.DEVNULL)
        good += [
            measured("export after one item changed", export, AGAIN_S),
            measured("stylegate verify", [*STYLEGATE, "verify", package], VERIFY_S),
            measured("verify.py", [sys.executable, "-I", f"{package}/verify.py"], VERIFY_S),
        ]
    return 0 if all(good) else 1


def draw_lot(folder: Path) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        draw_picture(folder / f"{number:05d}.png", rng)


def draw_picture(path: Path, rng: np.random.Generator) -> None:
    """Noise in blocks of eight pixels: as a plain drawing."""
    small = rng.integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(small).resize((64, 64), Image.Resampling.NEAREST).save(path)


def measured(what: str, words: list[str], limit_s: float) -> bool:
    """Run a command, print a row of the table; whether it stayed below the limits."""
    start = time.monotonic()
    process = subprocess.Popen(words, cwd=files.ROOT, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall_s, memory_mb = time.monotonic() - start, used.ru_maxrss / 1024
    print(f"| {what} | {wall_s:.0f} | {used.ru_utime + used.ru_stime:.0f} | {memory_mb:.0f} |", flush=True)
    return process.returncode == 0 and wall_s <= limit_s and memory_mb <= MEMORY_MB


if __name__ == "__main__":
    raise SystemExit(main())
