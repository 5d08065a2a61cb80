"""From the command to the chosen LoRA: the default run against that of another checkout, and where its time goes.

    python -m tests.bench.default_run old=PATH [brand ...]      about 6 minutes of CPU time a brand; exit 1 if missed

Each checkout trains `brand=` by its own defaults, in a process and an empty home of its own, one after the other. Wall
and CPU time include the start and all that is encoded. The pictures of both LoRAs are held against the lines of
tests.bench.style, by this checkout's code. Missed: wall time above RATIO of the other's, evaluations above SHARE of the
wall time, and a line of tests.bench.style that this LoRA misses and the other one holds.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from stylegate import files
from tests.bench.style import Yardstick

RATIO, SHARE = 0.6, 0.25


class DefaultRun(NamedTuple):
    """One run of a checkout: what it cost and what it handed out."""

    wall_s: float
    cpu_s: float
    evaluation_s: float
    step: int  # that was chosen
    last: int  # step of training
    lora: Path


def default_run(checkout: Path, brand: str, home: Path) -> DefaultRun:
    """Run `stylegate train` of a checkout with an empty home. Ends this program if it fails."""
    command = f"from stylegate.cli import main; raise SystemExit(main(['train', 'brand={brand}']))"
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    told = {"STYLEGATE_HOME": str(home), "PYTHONPATH": str(checkout)}
    done = subprocess.run(
        [sys.executable, "-c", command],
        cwd=checkout,
        env=os.environ | told,
        capture_output=True,
        text=True,
        check=False,
    )
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(done.stdout[-2000:] + done.stderr[-2000:])
    (run,) = (home / "checkpoints").iterdir()
    chosen = files.read_json(run / "selection.json", "the selection", "step", "evaluation_seconds")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    last = files.read_jsonl(run / "stats.jsonl", "step")[-1]["step"]
    lora = run / "lora" / f"{brand}.safetensors"
    return DefaultRun(wall, cpu, chosen["evaluation_seconds"], chosen["step"], last, lora)


def measure(brand: str, old: Path) -> list[str]:
    """Print the figures of one brand. Returns what was missed."""
    with tempfile.TemporaryDirectory() as place:
        runs = {
            name: default_run(checkout, brand, Path(place) / name)
            for name, checkout in (("other", old), ("this", files.ROOT))
        }
        yardstick = Yardstick(brand)
        lines = {name: yardstick.lines(yardstick.of(run.lora)) for name, run in runs.items()}
    print(f"\n{brand}")
    for name, run in runs.items():
        share = run.evaluation_s / run.wall_s
        print(
            f"  {name:<6} {run.wall_s:.0f} s, {run.cpu_s:.0f} s of CPU time, evaluations {run.evaluation_s:.0f} s "
            f"({share:.0%}); {run.last} steps, step {run.step} chosen"
        )
        print("         " + ", ".join(f"{what} {value:.2f} ({wanted:.2f})" for what, value, wanted in lines[name]))
    this, other = runs["this"], runs["other"]
    wall, cpu = this.wall_s / other.wall_s, this.cpu_s / other.cpu_s
    print(f"  ratio: wall {wall:.2f}, CPU {cpu:.2f} (wanted {RATIO})", flush=True)
    held = {what for what, value, wanted in lines["other"] if value >= wanted}
    missed = [f"{brand}: {what} {v:.3f}" for what, v, wanted in lines["this"] if v < wanted and what in held]
    missed += [f"{brand}: wall time {wall:.2f}"] if wall > RATIO else []
    return missed + ([f"{brand}: evaluations"] if this.evaluation_s > SHARE * this.wall_s else [])


if __name__ == "__main__":
    (named,) = [word.removeprefix("old=") for word in sys.argv[1:] if word.startswith("old=")]
    brands = [word for word in sys.argv[1:] if not word.startswith("old=")]
    missed = [line for brand in brands or ["neon"] for line in measure(brand, Path(named).resolve())]
    print("\n".join(["missed:", *missed]) if missed else "every line holds")
    raise SystemExit(1 if missed else 0)
