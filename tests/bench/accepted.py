"""Accepted pictures per unit of compute: as configured (20 steps) against what `stylegate trial` chooses.

    python -m tests.bench.accepted [neon:60 pixel:70 riso:80 neon:400 ...]    BRAND:STEPS OF TRAINING; 5 minutes each

Each LoRA is trained for that many steps. The same SLOTS slots with the same seeds are drawn and judged both ways, once.
Compute is counted twice: as passes of the denoiser, and as seconds of processor time of drawing and judging, start-up
included. Quality is the share of accepted pictures that the judge calls right in style and traits; its difference has
an interval (95 %, bootstrap over slots, so that it is paired). Exit 1 if, at a yield below HALF, the ratio of passes is
below WANTED, if the interval lies below 0, or if at any yield a ratio is below 1.
"""

import contextlib
import io
import json
import sys
import time
from typing import NamedTuple

import numpy as np
from PIL import Image

from eval.lot.batch import read_plan
from eval.lot.record import SamplerTrial
from stylegate import files
from stylegate.cli import main as stylegate
from tests.bench.style import JUDGED
from train.miniature import judge as judging

SLOTS, BOOTSTRAPS = 96, 4000
HALF, WANTED = 0.6, 2.5  # a yield of about .4; accepted pictures per pass of the denoiser
DEFAULT = ["neon:60", "pixel:70", "riso:80", "neon:400"]


class Drawn(NamedTuple):
    """A batch that was drawn and judged once."""

    accepted: np.ndarray  # [slots] bool
    right: np.ndarray  # [slots] bool, by the judge
    passes: float  # of the denoiser, a picture
    seconds: float  # of processor time


def quietly(*words: str) -> int:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return stylegate(list(words))


def trained(brand: str, steps: int) -> str:
    """The LoRA's file."""
    name = f"{brand}{steps}"
    quietly("train", f"brand={brand}", f"name={name}", f"train.max_steps={steps}", "train.num_samples=0")
    (found,) = [
        path for path in files.RUNS.glob(f"{name}-*/lora/*.safetensors") if not path.name.endswith(".kohya.safetensors")
    ]
    return str(found)


def drawn(brand: str, words: list[str], name: str, steps: int, guidance: float) -> Drawn:
    """Draw and judge a batch of its own with these settings."""
    told = [*words, f"batch={name}", f"generate.num_inference_steps={steps}", f"generate.guidance_scale={guidance}"]
    told += ["generate.by_trial=false"]
    quietly("plan", *told, f"plan.num_images={SLOTS}")
    began = time.process_time()
    quietly("generate", *told, "hardware.threads=1")
    quietly("gate", *told)
    seconds = time.process_time() - began
    folder = files.BATCHES / name
    slots = read_plan(folder)
    verdicts = {row["file"]: row["verdict"] for row in files.read_jsonl(folder / "verdicts.jsonl")}
    pixels = np.stack(
        [np.asarray(Image.open(folder / "images" / slot.picture_file_name(0)).convert("RGB")) for slot in slots]
    )
    seen = judging.judge_answers(judging.load_judge(), pixels)
    right = [
        seen["style"][i] == brand and all(seen[t][i] == slot.traits[t] for t in JUDGED) for i, slot in enumerate(slots)
    ]
    accepted = [verdicts[slot.picture_file_name(0)] == "accept" for slot in slots]
    return Drawn(np.array(accepted), np.array(right), steps * (2 if guidance > 1 else 1), seconds)


def right_share_change(before: Drawn, after: Drawn) -> tuple[float, float, float]:
    """Change of the share of accepted pictures that are right, and the bounds of its interval."""
    random = np.random.default_rng(0)

    def share(one: Drawn, which: np.ndarray) -> float:
        kept = one.accepted[which]
        return float(one.right[which][kept].mean()) if kept.any() else np.nan

    every = np.arange(SLOTS)
    found = [share(after, which) - share(before, which) for which in random.integers(0, SLOTS, (BOOTSTRAPS, SLOTS))]
    low, high = np.nanquantile(found, [0.025, 0.975])
    return share(after, every) - share(before, every), float(low), float(high)


def measure(brand: str, steps: int) -> list[str]:
    """Print what one LoRA gains; returns what was missed."""
    words = [f"brand={brand}", "traits=collectible", f"lora_file={trained(brand, steps)}"]
    before = drawn(brand, words, f"{brand}{steps}-configured", 20, 3.0)
    began = time.process_time()
    quietly("trial", *words, f"plan.num_images={SLOTS}", "hardware.threads=1")
    cost = time.process_time() - began
    (path,) = (files.BATCHES / "trials").glob("*.json")
    chosen = SamplerTrial.read_json_file(path, "the trial").chosen
    tried = [
        (one.setting.sampler_setting_in_words(), one.accepted)
        for one in SamplerTrial.read_json_file(path, "the trial").tried
    ]
    path.unlink()
    after = drawn(brand, words, f"{brand}{steps}-chosen", chosen.num_inference_steps, chosen.guidance_scale)
    rates = [(one.accepted.mean() / one.passes, one.accepted.sum() / one.seconds) for one in (before, after)]
    by_pass, by_second = rates[1][0] / rates[0][0], rates[1][1] / rates[0][1]
    change, low, high = right_share_change(before, after)
    print(f"{brand}, {steps} steps of training: {chosen.sampler_setting_in_words()}; tried: {json.dumps(tried)}")
    for name, one in (("configured", before), ("chosen", after)):
        right = one.right[one.accepted].mean() if one.accepted.any() else float("nan")
        print(
            f"  {name:<10} accepted {one.accepted.mean():.3f}, {one.passes:g} passes and "
            f"{one.seconds / SLOTS:.3f} s a picture, right among accepted {right:.3f}"
        )
    print(
        f"  accepted per pass {by_pass:.2f}, per second {by_second:.2f} times; right among accepted {change:+.3f} "
        f"({low:+.3f} to {high:+.3f}); the trial took {cost:.0f} s",
        flush=True,
    )
    missed = [
        f"{brand}:{steps}: per {what} {ratio:.2f}"
        for what, ratio in (("pass", by_pass), ("second", by_second))
        if ratio < 1
    ]
    if before.accepted.mean() < HALF and by_pass < WANTED:
        missed.append(f"{brand}:{steps}: {by_pass:.2f} accepted per pass, {WANTED} wanted")
    return missed + ([f"{brand}:{steps}: quality {change:+.3f}"] if high < 0 else [])


def main() -> int:
    missed = []
    for asked in sys.argv[1:] or DEFAULT:
        brand, _, steps = asked.partition(":")
        missed += measure(brand, int(steps))
    print("\n".join(["missed:", *missed]) if missed else "every line holds")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
