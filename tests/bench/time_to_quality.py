"""How long until a LoRA holds the style? Ours against the example script that people begin with.

    python -m tests.bench.time_to_quality peer=PATH [brand ...]      about 25 minutes a brand on two cores

Wall time from the start of the process, imports, loading and caching included, to the first checkpoint whose pictures
meet every line of tests.bench.style (style, brand hits, sharpness, each trait). Checkpoints lie EVERY steps apart;
every COARSE-th is looked at in order, and those before the first that holds. Both train at fp32, batch 8, rank 16,
turn by turn; ours with its default rate and targets (all parts), the script with its own (attention) and the best of
three rates, chosen on seed 0. A run that never gets there counts as if its last step had. Exit 1 if the ratio of the
medians exceeds WANTED on a brand, or ours draws traits worse by more than POINTS.
"""

import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

from safetensors.torch import load_file, save_file

from stylegate import brandset, files
from stylegate.config import Config
from tests.bench import peer
from tests.bench.style import JUDGED, Yardstick

WANTED = 0.6
BRANDS, SEEDS, RATES = ("neon", "riso"), (0, 1, 2), (1e-3, 2e-3, 4e-3)
EVERY, OURS, THEIRS, COARSE = 10, 160, 600, 4  # steps: between checkpoints, and at most
POINTS = 0.02


class Reached(NamedTuple):
    """When the lines were met; at step 0, after all the time there was, if never."""

    seconds: float
    step: int
    traits: float  # mean share right of the traits that count

    def badness(self) -> tuple[bool, float]:
        """Less is better: the time, and of those that never got there the traits."""
        return not self.step, self.seconds if self.step else -self.traits

    def __str__(self) -> str:
        when = f"{self.seconds:.0f} s (step {self.step})" if self.step else f"never within {self.seconds:.0f} s"
        return f"{when}, traits {self.traits:.3f}"


def reached(yardstick: Yardstick, checkpoints: dict[int, Path], times: list[float]) -> Reached:
    """The first checkpoint that meets the lines; `times` are those of the steps since the start."""
    steps = sorted(checkpoints)

    def look(step: int) -> tuple[bool, float]:
        with tempfile.TemporaryDirectory() as place:
            lora = Path(place) / "lora.safetensors"
            tensors = load_file(checkpoints[step])
            save_file({f"unet.{k.removeprefix('unet.')}": v for k, v in tensors.items()}, lora)
            found = yardstick.of(lora)
        below = [f"{name} {value:.2f}" for name, value, least in yardstick.lines(found) if not value >= least]
        print(f"    step {step}: {', '.join(below) or 'every line holds'}", flush=True)
        return not below, sum(found.right[t] for t in JUDGED) / len(JUDGED)

    traits, failed = float("nan"), 0
    for last in range(COARSE - 1, len(steps), COARSE):
        holds, traits = look(steps[last])
        if holds:
            for step in steps[failed:last]:
                before, own = look(step)
                if before:
                    return Reached(times[step - 1], step, own)
            return Reached(times[steps[last] - 1], steps[last], traits)
        failed = last + 1
    return Reached(times[-1], 0, traits)


def trained(yardstick: Yardstick, script: Path | None, seed: int, rate: float, place: Path) -> Reached:
    """Train once, by the script or by ours, and say when it was good."""
    brand = brandset.brand_folder(yardstick.brand)
    steps = THEIRS if script else OURS
    task = peer.Task(base=files.MODELS / "miniature" / "sd", brand=brand, side=64, steps=steps, seed=seed)
    log = place / f"bench-{'theirs' if script else 'ours'}-{yardstick.brand}-{seed}-{rate:g}.jsonl"
    began = time.monotonic()
    if script:
        process = peer.theirs(task, log, script, rate, EVERY)
    else:
        process = peer.ours(task, log, f"train.checkpoint_every={EVERY}", "train.keep_newest=1000")
    try:
        code = process.wait()
    finally:
        process.kill()
    if code:
        raise SystemExit(log.with_suffix(".out").read_text()[-2000:])
    times = [row["at"] - began for row in files.read_jsonl(log)]
    pattern = "checkpoint-*/pytorch_lora_weights" if script else "checkpoints/*/state/step-*/adapter"
    saved = log.with_suffix("").glob(f"{pattern}.safetensors")
    found = {int(path.parent.name.partition("-")[2]): path for path in saved}
    print(f"  {log.stem}: {len(times)} steps, {times[-1]:.0f} s", flush=True)
    return reached(yardstick, found, times)


def measure(brand: str, script: Path, place: Path) -> list[str]:
    yardstick = Yardstick(brand)
    ours, theirs, tried = [], [], {}
    for seed in SEEDS:
        ours.append(trained(yardstick, None, seed, Config().train.learning_rate, place))
        if seed == SEEDS[0]:
            tried = {rate: trained(yardstick, script, seed, rate, place) for rate in RATES}
            best = min(tried, key=lambda rate: tried[rate].badness())
            theirs.append(tried[best])
        else:
            theirs.append(trained(yardstick, script, seed, best, place))
    print(f"{brand}: the script's rates")
    for rate, found in tried.items():
        print(f"    {rate:g}: {found}{'  taken' if rate == best else ''}")
    for title, several in (("ours", ours), ("the script", theirs)):
        print(f"  {title}: {'; '.join(map(str, several))}")
    ratio = median(f.seconds for f in ours) / median(f.seconds for f in theirs)
    bound = "" if all(f.step for f in theirs) else " at most: the script did not always get there"
    print(f"  ratio of the medians {ratio:.2f}{bound} (wanted {WANTED})")
    missed = [f"{brand}: ratio {ratio:.2f}"] if ratio > WANTED or not all(f.step for f in ours) else []
    worse = mean(f.traits for f in theirs) - mean(f.traits for f in ours)
    return missed + ([f"{brand}: traits worse by {worse:.3f}"] if worse > POINTS else [])


def main() -> int:
    script, brands = peer.script_of(sys.argv[1:])
    with tempfile.TemporaryDirectory() as place:
        missed = [line for brand in brands or BRANDS for line in measure(brand, script, Path(place))]
    print("\n".join(["missed:", *missed]) if missed else "every ratio holds")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
