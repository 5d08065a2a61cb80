"""Is the gate faster than it was? Two checkouts side by side in one run; only their ratios mean something.

    git worktree add /tmp/before COMMIT
    python -m tests.bench.gate_speed /tmp/before [NEW_CHECKOUT] [--keep DIR] [--runs 5]     exit 1 if a target is missed

`stylegate gate` on 64 pictures that are scored already, and again on an unchanged folder of 10,000 pictures of 64
pixels, reports included: whole processes from a cold start, the builds in turn, medians of wall time (of processor
time beside it: other work on the machine does not count there). Then style.leave_one_out, duplicates.leave_one_out and
style.nearest_leave_one_out of 200 references with a 768-wide encoder: processor time, and the largest difference of
the numbers. Duplicates are looked for among proposals, and a build that proposes more finds nearer ones; and a likeness
in single precision is rounded differently alone and among others. So both builds' numbers are put in the place of the
distances of the same pairs in double precision (`exact_distances`): a difference counts where the new build's number is
further from the exact one, or its pair further apart than the base's.

The first run makes and scores the pictures, once a build (a few minutes); --keep DIR keeps them for the next one.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stylegate import pictures
from train.miniature import world
from train.miniature.drawing import render_collectible
from train.miniature.styles import BRANDS

HERE = Path(__file__).resolve().parents[2]
MANY, FEW, SIDE = 10_000, 64, 64
REFERENCES, WIDTH, FOREIGN = 200, 768, 256
EQUAL = 1e-5  # largest difference of a score
TARGETS = {
    "gate on 64 pictures": 0.6,
    "gate on 10000 pictures": 0.35,
    "style.leave_one_out": 0.1,
    "duplicates.leave_one_out": 0.1,
    "style.nearest_leave_one_out": 1.0,
}
COMMAND = "from stylegate.cli import main; raise SystemExit(main())"
LEAVE_ONE_OUT = """
import sys, time, json
import numpy as np
from eval.scorers import duplicates, style
given = np.load(sys.argv[1])
nearest = getattr(style, "closeness_to_nearest_leave_one_out", None) or style.nearest_leave_one_out  # of older builds
embeddings, foreign, signatures = given["embeddings"], given["foreign"], given["signatures"]
work = {
    "style.leave_one_out": lambda: style.leave_one_out(embeddings),
    "duplicates.leave_one_out": lambda: duplicates.leave_one_out(signatures),
    "style.nearest_leave_one_out": lambda: nearest(embeddings, foreign),
}
style.leave_one_out(embeddings[:9, :8]), duplicates.leave_one_out(signatures[:3])
seconds, found = {}, {}
for name, call in work.items():
    began = time.process_time()
    found[name] = call()
    seconds[name] = time.process_time() - began
np.savez(sys.argv[2], **found)
print(json.dumps(seconds))
"""


class Build:
    """One checkout, with a home and results of its own."""

    def __init__(self, name: str, checkout: Path, place: Path) -> None:
        self.name, self.checkout, self.place = name, checkout, place / name
        self.place.mkdir(parents=True, exist_ok=True)

    def run(self, *program: str) -> tuple[float, float, subprocess.CompletedProcess[str]]:
        """A process of this build: seconds of wall time and of processor time, and how it ended."""
        environment = os.environ | {
            "PYTHONPATH": str(self.checkout),
            "STYLEGATE_HOME": str(self.place / "home"),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installation has its modules compiled
        before, began = os.times(), time.perf_counter()
        ended = subprocess.run(
            [sys.executable, "-c", *program], cwd=self.place, env=environment, capture_output=True, text=True
        )
        wall, after = time.perf_counter() - began, os.times()
        processor = after.children_user + after.children_system - before.children_user - before.children_system
        return wall, processor, ended

    def gate(self, lot: Path) -> tuple[float, float]:
        """Seconds of wall and processor time of one gate. Stops the benchmark where it could not judge."""
        words = [f"images={lot}", "references=neon", f"out={self.place / lot.name}", "hardware=cpu"]
        wall, processor, ended = self.run(COMMAND, "gate", *words)
        if ended.returncode not in (0, 10, 11):
            raise SystemExit(f"{self.name}: gate ended with {ended.returncode}:\n{ended.stderr[-2000:]}")
        return wall, processor


def lot(folder: Path, count: int) -> Path:
    """`count` renders of neon, each of other traits: most of them are accepted. Made once."""
    if len(list(folder.glob("*.png"))) == count:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    random, seen = np.random.default_rng(0), set()
    while len(seen) < count:
        traits = world.random_traits(random)
        if (key := tuple(sorted(traits.items()))) not in seen:
            image = render_collectible(traits, BRANDS["neon"], len(seen))
            (folder / f"{len(seen):05d}.png").write_bytes(pictures.png_bytes(image))
            seen.add(key)
    return folder


def gates(builds: list[Build], folder: Path, runs: int) -> tuple[float, str]:
    """The second build's median wall time as a share of the first's, and what was measured."""
    tables = [build.place / folder.name / "scores.parquet" for build in builds]
    for build in builds:
        build.gate(folder)  # scores what was not scored before, fills caches
    written = [table.stat().st_mtime_ns for table in tables]
    found: list[list[tuple[float, float]]] = [[], []]
    for number in range(2 * runs):
        turn = (number + number // 2) % 2  # base, new, new, base: a load that grows is shared
        found[turn].append(builds[turn].gate(folder))
    assert written == [table.stat().st_mtime_ns for table in tables], "something was scored again"
    walls, processors = ([median(run[part] for run in of) for of in found] for part in (0, 1))
    text = f"wall {walls[0]:.2f} s -> {walls[1]:.2f} s, processor {processors[0]:.2f} s -> {processors[1]:.2f} s"
    return walls[1] / walls[0], f"{text} (ratio {processors[1] / processors[0]:.2f})"


def references(path: Path) -> Path:
    """Embeddings of a brand that varies in few directions, foreign ones, and signatures of shipped pictures."""
    random = np.random.default_rng(1)
    directions = random.normal(size=(24, WIDTH))
    centre = random.normal(size=WIDTH) * 2
    rows = centre + random.normal(size=(REFERENCES, 24)) @ directions + random.normal(size=(REFERENCES, WIDTH)) * 0.3
    foreign = random.normal(size=(FOREIGN, WIDTH)) + random.normal(size=(FOREIGN, 24)) @ directions
    shipped = sorted((HERE / "data" / "brands").glob("*/*/*.png"))[:REFERENCES]
    signatures = [np.asarray(Image.open(file).convert("RGB").resize((SIDE, SIDE))) for file in shipped]
    unit = [(a / np.linalg.norm(a, axis=1, keepdims=True)).astype(np.float32) for a in (rows, foreign)]
    np.savez(path, embeddings=unit[0], foreign=unit[1], signatures=np.stack(signatures))
    return path


def exact_distances(signatures: NDArray[np.uint8]) -> NDArray[np.float64]:
    """[n, n] 1 - likeness of each pair in double precision: the best correlation over shifts of up to 2 pixels."""
    planes = signatures.transpose(0, 3, 1, 2).astype(np.float64)
    planes -= planes.mean((2, 3), keepdims=True)
    best = np.full((len(planes), len(planes)), -1.0)
    for down, right in product(range(-2, 3), repeat=2):
        one, other = (
            planes[:, :, max(y, 0) : SIDE + min(y, 0), max(x, 0) : SIDE + min(x, 0)].reshape(len(planes), -1)
            for y, x in ((down, right), (-down, -right))
        )
        lengths = np.linalg.norm(one, axis=1)[:, None] * np.linalg.norm(other, axis=1)
        best = np.maximum(best, one @ other.T / lengths)
    np.fill_diagonal(best, np.inf)  # no picture is compared with itself
    return 1 - best


def duplicates_gap(old: NDArray, new: NDArray, signatures: NDArray[np.uint8]) -> tuple[float, str]:
    """How much worse the new build's log distances are than the base's, and in words what was compared."""
    exact, rows = exact_distances(signatures), np.arange(len(signatures))
    distances = [np.exp(values) for values in (old, new)]
    found = [exact[rows, np.abs(exact - values[:, None]).argmin(1)] for values in distances]
    errors = [float(np.abs(values - pair).max()) for values, pair in zip(distances, found, strict=True)]
    gap = max(errors[1], float((found[1] - found[0]).max()))
    text = f"{(found[1] < found[0] - EQUAL).sum()} of {len(old)} nearer, {(found[1] > found[0] + EQUAL).sum()} further"
    return gap, f"{text}, largest error {errors[0]:.1e} -> {errors[1]:.1e}"


def leave_one_out(builds: list[Build], given: Path) -> dict[str, tuple[float, str, float]]:
    """By function: the ratio of times, what was measured, the largest difference that counts."""
    seconds, numbers = [], []
    for build in builds:
        target = build.place / "leave_one_out.npz"
        ended = build.run(LEAVE_ONE_OUT, str(given), str(target))[2]
        if ended.returncode:
            raise SystemExit(f"{build.name}: {ended.stderr[-2000:]}")
        seconds.append(json.loads(ended.stdout.splitlines()[-1]))
        numbers.append(np.load(target))
    found = {}
    for name, before in seconds[0].items():
        old, new = (found_by[name].astype(np.float64) for found_by in numbers)
        text = f"{before:.2f} s -> {seconds[1][name]:.2f} s"
        if name == "duplicates.leave_one_out":
            gap, said = duplicates_gap(old, new, np.load(given)["signatures"])
            text += f", {said}"
        else:
            gap = float(np.abs(new - old).max())
            text += f", largest difference {gap:.1e}"
        found[name] = (seconds[1][name] / before, text, gap)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gate_speed")
    parser.add_argument("base", type=Path, help="the checkout that was there before")
    parser.add_argument("new", type=Path, nargs="?", default=HERE, help="by default the one of this file")
    parser.add_argument("--keep", type=Path, help="a folder for pictures and scores, used again the next time")
    parser.add_argument("--runs", type=int, default=5, help="gates of each build")
    asked = parser.parse_args()
    missed = 0
    with tempfile.TemporaryDirectory(prefix="gate-speed-") as temporary:
        place = (asked.keep or Path(temporary)).resolve()
        builds = [Build(name, getattr(asked, name).resolve(), place) for name in ("base", "new")]
        results = {}
        for count in (FEW, MANY):
            ratio, text = gates(builds, lot(place / f"lot-{count}", count), asked.runs)
            results[f"gate on {count} pictures"] = (ratio, text, 0.0)
        results |= leave_one_out(builds, references(place / "references.npz"))
    for name, (ratio, text, gap) in results.items():
        holds = ratio <= TARGETS[name] and gap <= EQUAL
        missed += not holds
        print(f"{name:<28} {ratio:5.2f}x (wanted {TARGETS[name]:g}x)  {'holds' if holds else 'MISSED'}   {text}")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
