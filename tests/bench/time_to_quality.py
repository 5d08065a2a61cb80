"""How long until a LoRA holds the style? Ours against the example script that people begin with.

    python -m tests.bench.time_to_quality peer=PATH [brand ...]      about 25 minutes a brand on two cores

Wall time from the start of the process, imports, loading and caching included, to the first saved step whose pictures
meet every line of tests.bench.style (style, brand hits, sharpness, each trait). Checkpoints lie EVERY steps apart and
the first that meets the lines is found by bisection. Both train at fp32, batch 8, rank 16; ours with its default rate
and targets, the script with its own targets and the best of three rates, chosen on seed 0. Exit 1 if the ratio of the
medians exceeds WANTED on a brand.
"""

import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

from safetensors.torch import load_file, save_file

from stylegate import brandset, files
from tests.bench import peer
from tests.bench.style import JUDGED, Figures, Yardstick

WANTED = 0.6
BRANDS, SEEDS, RATES = ("neon", "riso"), (0, 1, 2), (5e-4, 1e-3, 2e-3)
EVERY, OURS, THEIRS = 20, 240, 600  # steps: between checkpoints, and at most


class Reached(NamedTuple):
    """When the lines were met: infinite, at step 0, if never."""

    seconds: float
    step: int
    traits: float  # mean share right of the traits that count


def reached(yardstick: Yardstick, checkpoints: dict[int, Path], times: list[float]) -> Reached:
    """The first checkpoint that meets the lines, by bisection; `times` are those of the steps since the start."""
    steps, seen = sorted(checkpoints), {}

    def holds(step: int) -> bool:
        with tempfile.TemporaryDirectory() as place:
            lora = Path(place) / "lora.safetensors"
            tensors = load_file(checkpoints[step])
            save_file({f"unet.{k.removeprefix('unet.')}": v for k, v in tensors.items()}, lora)
            seen[step] = yardstick.of(lora)
        below = [f"{name} {found:.2f}" for name, found, least in yardstick.lines(seen[step]) if not found >= least]
        print(f"    step {step}: {', '.join(below) or 'every line holds'}", flush=True)
        return not below

    low, high = 0, len(steps)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(steps[middle]) else (middle + 1, high)
    if low == len(steps):
        return Reached(float("inf"), 0, float("nan"))
    found: Figures = seen[steps[low]]
    return Reached(times[steps[low] - 1], steps[low], sum(found.right[t] for t in JUDGED) / len(JUDGED))


def trained(yardstick: Yardstick, script: Path | None, seed: int, rate: float, place: Path) -> Reached:
    """Train once, by the script or by ours, and say when it was good."""
    brand = brandset.locate(yardstick.brand)
    steps = THEIRS if script else OURS
    task = peer.Task(base=files.MODELS / "miniature" / "sd", brand=brand, side=64, steps=steps, seed=seed)
    log = place / f"bench-{'theirs' if script else 'ours'}-{yardstick.brand}-{seed}-{rate:g}.jsonl"
    began = time.monotonic()
    if script:
        process = peer.theirs(task, log, script, rate, EVERY)
    else:
        process = peer.ours(task, log, f"train.checkpoint_every={EVERY}", "train.keep_newest=1000")
    if process.wait() != 0:
        raise SystemExit(log.with_suffix(".out").read_text()[-2000:])
    times = [row["at"] - began for row in files.read_jsonl(log)]
    pattern = "checkpoint-*/pytorch_lora_weights" if script else "checkpoints/*/state/step-*/adapter"
    saved = log.with_suffix("").glob(f"{pattern}.safetensors")
    found = {int(path.parent.name.partition("-")[2]): path for path in saved}
    print(f"  {log.stem}: {len(times)} steps, {times[-1]:.0f} s", flush=True)
    return reached(yardstick, found, times)


def measure(brand: str, script: Path, place: Path) -> list[str]:
    yardstick = Yardstick(brand)
    ours = [trained(yardstick, None, seed, 1e-3, place) for seed in SEEDS]
    tried = {rate: trained(yardstick, script, SEEDS[0], rate, place) for rate in RATES}
    best = min(tried, key=lambda rate: tried[rate].seconds)
    theirs = [tried[best], *(trained(yardstick, script, seed, best, place) for seed in SEEDS[1:])]
    print(f"{brand}: the script's rates {', '.join(f'{r:g}: {t.seconds:.0f} s' for r, t in tried.items())}")
    for title, found in (("ours", ours), ("the script", theirs)):
        rows = [f"{f.seconds:.0f} s (step {f.step}, traits {f.traits:.3f})" for f in found]
        print(f"  {title:<12}{', '.join(rows)}")
    ratio = median(f.seconds for f in ours) / median(f.seconds for f in theirs)
    print(f"  ratio of the medians {ratio:.2f} (at most {WANTED})")
    return [] if ratio <= WANTED else [f"{brand}: {ratio:.2f}"]


def main() -> int:
    script, brands = peer.script_of(sys.argv[1:])
    with tempfile.TemporaryDirectory() as place:
        missed = [line for brand in brands or BRANDS for line in measure(brand, script, Path(place))]
    print("\n".join(["missed:", *missed]) if missed else "every ratio holds")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
