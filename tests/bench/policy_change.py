"""Another policy over 10,000 scored pictures: seconds from the command to the verdicts, nothing encoded, no torch.

    python -m tests.bench.policy_change        about 3 minutes on two cores; exit 1 if the line is missed

The pictures are neon's, each with noise of its own. Wall time of a whole process, start and hashing of all pictures
included, report/, junit.xml and summary.md aside: median of five, each with another threshold.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from stylegate import brandset, files, pictures
from stylegate.cli import main

COUNT, WANTED_S = 10_000, 2.0
JUDGE = """
import sys
from eval import gate
gate.write_reports = lambda subject, config, outcome: subject.out
from stylegate.cli import main
code = main(sys.argv[1:])
assert "torch" not in sys.modules, "torch was imported"
raise SystemExit(code)
"""


def lot(place: Path) -> None:
    rng = np.random.default_rng(0)
    bases = [
        np.asarray(Image.open(i.path).convert("RGB"), int)
        for i in brandset.read_brand_set(brandset.brand_folder("neon")).splits["train"]
    ]
    place.mkdir()
    for number in range(COUNT):
        noisy = bases[number % len(bases)] + rng.integers(-3, 4, bases[0].shape)
        (place / f"{number:05d}.png").write_bytes(
            pictures.png_bytes(Image.fromarray(noisy.clip(0, 255).astype(np.uint8)))
        )


def run() -> int:
    with tempfile.TemporaryDirectory() as place:
        folder, out = Path(place) / "lot", Path(place) / "out"
        lot(folder)
        words = [f"images={folder}", "references=neon", f"out={out}"]
        assert main(["score", *words]) == 0
        before = (out / "scores.parquet").stat().st_mtime_ns
        found = []
        for threshold in (5, 10, 20, 30, 40):
            policy = Path(place) / f"{threshold}.yaml"
            policy.write_text(
                f"version: 1\nchecks: {{contrast: {{reject_below: {threshold}}}, style: {{review_below: 0.9}}}}\n"
            )
            began = time.perf_counter()
            command = [sys.executable, "-c", JUDGE, "gate", *words, f"policy={policy}"]
            ended = subprocess.run(command, cwd=files.ROOT, env=os.environ, capture_output=True, text=True)
            found.append(time.perf_counter() - began)
            assert ended.returncode in (0, 10, 11), ended.stderr
        counts = json.loads((out / "gate.json").read_text())["counts"]
        assert counts["in"] == COUNT and (out / "scores.parquet").stat().st_mtime_ns == before, (
            "nothing was scored again"
        )
    spread = f"{min(found):.2f} to {max(found):.2f}"
    print(f"{COUNT} pictures, another policy: {median(found):.2f} s ({spread}; wanted {WANTED_S:g})")
    return int(median(found) > WANTED_S)


if __name__ == "__main__":
    raise SystemExit(run())
