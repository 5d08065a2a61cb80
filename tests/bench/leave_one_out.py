"""Leave-one-out scores of references against scoring each reference by the others anew: time and difference.

    python -m tests.bench.leave_one_out [--references 200] [--width 768]      about 2 minutes

Prints the share of process time and the largest difference of a score; exit 1 if `style`, `nearest` or `duplicates`
takes more than a tenth, or any score differs by more than 1e-5.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from eval.scorers import drawing, duplicates, palette, style

SHARE, DIFFERENCE = 0.1, 1e-5
BOUNDED = ("style", "nearest", "duplicates")


def timed(run: Callable[[NDArray], NDArray], references: NDArray) -> tuple[NDArray, float]:
    began = time.process_time()
    found = run(references)
    return found, time.process_time() - began


def each_anew(score: Callable[[NDArray, NDArray], NDArray]) -> Callable[[NDArray], NDArray]:
    def run(references: NDArray) -> NDArray:
        rest = (np.delete(references, i, axis=0) for i in range(len(references)))
        return np.concatenate([score(references[i : i + 1], others) for i, others in enumerate(rest)])

    return run


def nearest_anew(references: NDArray, foreign: NDArray) -> NDArray:
    """All references whiten, also the one that is left out (style.nearest_leave_one_out)."""
    own, found = style.whitened_features(references, references), []
    for i in range(len(own)):
        closeness = style.pairwise_closeness(own[i : i + 1], np.delete(own, i, axis=0), foreign, references)
        found.append(style.mean_of_largest(closeness, style.NEAREST))
    return np.concatenate(found)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.leave_one_out")
    parser.add_argument("--references", type=int, default=200)
    parser.add_argument("--width", type=int, default=768)
    asked = parser.parse_args()
    random, count, width = np.random.default_rng(0), asked.references, asked.width
    rows = random.normal(size=(count + 100, width)) * np.linspace(0.02, 0.3, width) + 2 * np.eye(width)[0]
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    rows, foreign = rows[:count], rows[count:]
    signatures = random.integers(0, 256, (count, 8, 8, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    cases = {
        "style": (style.leave_one_out, each_anew(style.score), rows),
        "nearest": (
            lambda r: style.closeness_to_nearest_leave_one_out(r, foreign),
            lambda r: nearest_anew(r, foreign),
            rows,
        ),
        "duplicates": (
            duplicates.leave_one_out,
            each_anew(lambda a, b: duplicates.nearest_training_picture(a, b).score),
            signatures,
        ),
        "drawing": (drawing.leave_one_out, each_anew(drawing.score), rows.astype(np.float16)),
        "palette": (palette.leave_one_out, each_anew(palette.score), signatures),
    }
    failed = False
    print(f"{'score':<12}{'anew, s':>10}{'now, s':>10}{'share':>8}{'largest difference':>20}")
    for name, (now, anew, references) in cases.items():
        (fast, took), (slow, before) = timed(now, references), timed(anew, references)
        apart = float(np.abs(fast.astype(float) - slow).max())
        print(f"{name:<12}{before:>10.2f}{took:>10.3f}{took / before:>8.3f}{apart:>20.1e}")
        failed |= apart > DIFFERENCE or (name in BOUNDED and took > SHARE * before)
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
