"""Does a LoRA that learned from preferences pass the gate more often, on seeds that it has not seen?

    python -m tests.bench.dpo [riso:80 pixel:70 neon:150]     BRAND:STEPS; 6 CPU minutes each; goes on if stopped

Each LoRA is trained for so few STEPS that about half of its pictures pass. SLOTS slots are drawn up to ATTEMPTS times
each; what stands in review is decided by the renderer's truth (the judge: style and traits), of which WRONG are
turned around. The pairs go to `stylegate preferences`, and `train objective=dpo` learns from them with its default
values. The control learns from no pair: it is trained on as before, by as many steps more. Then FRESH slots of another
seed are drawn once by the LoRA before, once by the one after and once by the control, and judged by the same gate.
Differences are paired by slot and have 95 % intervals. "right" is the judge's view of the same pictures, which no
product code uses. Exit 1 if no brand gains beyond its interval.
"""

import sys
from collections import Counter
from typing import NamedTuple

import numpy as np
from PIL import Image

from eval.lot.batch import PlanSlot, attempt_and_slot, read_plan
from eval.lot.paired import paired_difference_interval
from stylegate import files
from stylegate.preferenceset import read_preference_set
from tests.bench.accepted import quietly
from tests.bench.style import JUDGED
from train.miniature import judge as judging

SLOTS, ATTEMPTS, FRESH, WRONG = 96, 3, 128, 0.05
DPO_STEPS = 20  # the default of objective=dpo (conf/objective/dpo.yaml)
SEEDS = 7100, 7101  # of the plans of pairs and of fresh slots
FEW = ["generate.num_inference_steps=8", "generate.by_trial=false", "hardware.threads=1"]  # 8 pass as often as 20
DEFAULT = ["riso:80", "pixel:70", "neon:150"]


def right(folder: str, brand: str) -> dict[str, bool]:
    """For each picture of a batch whether the judge calls style and traits right, by file name."""
    slots: dict[int, PlanSlot] = {slot.slot: slot for slot in read_plan(files.BATCHES / folder)}
    paths = sorted((files.BATCHES / folder / "images").glob("*.png"))
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
    seen = judging.judge_answers(judging.load_judge(), pixels)
    planned = [slots[attempt_and_slot(path.name)[1]].traits for path in paths]
    return {
        path.name: seen["style"][i] == brand and all(seen[trait][i] == planned[i][trait] for trait in JUDGED)
        for i, path in enumerate(paths)
    }


def reviewed(name: str, brand: str, gate: list[str]) -> None:
    """Let the reviewer decide about every picture in review, and judge again."""
    folder, truth, lines = files.BATCHES / name, right(name, brand), ["sha256,verdict,who,why"]
    for row in files.read_jsonl(folder / "verdicts.jsonl"):
        turned = np.random.default_rng(int(row["sha256"][:8], 16)).random() < WRONG
        if row["verdict"] == "review":
            lines.append(f"{row['sha256']},{'accept' if truth[row['file']] != turned else 'reject'},judge,")
    path = folder / "reviewer.csv"
    files.write_atomically(path, "\n".join(lines) + "\n")
    quietly("gate", *gate, f"decisions={path}")


def batch(name: str, words: list[str], slots: int, seed: int, attempts: int, brand: str) -> None:
    """Plan, draw and judge a batch, unless that was done; with several attempts a reviewer decides between them."""
    done = files.BATCHES / name / ("preferences" if attempts > 1 else "gate.json")
    if done.exists():
        return
    told = [*words, f"batch={name}"]
    plan = [*told, f"plan.num_images={slots}", f"plan.seed={seed}", f"plan.max_attempts={attempts}"]
    gate = [*told, f"plan.seed={seed}"]
    assert quietly("plan", *plan) == 0
    for _ in range(attempts):
        quietly("generate", *gate, f"plan.max_attempts={attempts}")
        quietly("gate", *gate)
        if attempts > 1:
            reviewed(name, brand, gate)


def difference(before: list[bool], after: list[bool]) -> tuple[str, float]:
    """Two rates and their paired difference in words, and the lower bound of the difference."""
    low, high = paired_difference_interval(after, before, 0.95)
    rates = f"{np.mean(before):.3f} -> {np.mean(after):.3f}"
    return f"{rates}, {np.mean(after) - np.mean(before):+.3f} [{low:+.3f}, {high:+.3f}]", low


class Fresh(NamedTuple):
    """The fresh slots of one LoRA, in the order of the plan."""

    passed: list[bool]  # the gate accepts the picture
    right: list[bool]  # the judge calls style and traits right
    rejected_by: Counter[str]  # pictures by check; one can be rejected by several


def fresh(folder: str, brand: str) -> Fresh:
    """What gate and judge say of a batch that was drawn once."""
    rows = {row["file"]: row for row in files.read_jsonl(files.BATCHES / folder / "verdicts.jsonl")}
    names, looks = [slot.picture_file_name(0) for slot in read_plan(files.BATCHES / folder)], right(folder, brand)
    checks = Counter(why["check"] for row in rows.values() for why in row["reasons"] if why["verdict"] == "reject")
    return Fresh([rows[name]["verdict"] == "accept" for name in names], [looks[name] for name in names], checks)


def measure(brand: str, steps: int, more: list[str]) -> float:
    """Print what preferences change for one brand; returns the lower bound of the change in pass rate."""
    name = f"{brand}{steps}"
    shared = [f"brand={brand}", "train.num_samples=0", "hardware.threads=1"]
    run = [*shared, f"name={name}"]
    assert quietly("train", *run, f"train.max_steps={steps}") == 0
    sampled = [f"brand={brand}", "train.num_samples=0", "traits=collectible", *FEW]
    words = [*sampled, f"name={name}"]
    batch(f"{name}-pairs", words, SLOTS, SEEDS[0], ATTEMPTS, brand)
    pairs = files.BATCHES / f"{name}-pairs" / "preferences"
    if not pairs.exists():
        assert quietly("preferences", f"batch={name}-pairs") == 0
    found = read_preference_set(str(pairs)).pairs
    people = sum("person" in (pair.chosen_by, pair.rejected_by) for pair in found)
    dpo = ["objective=dpo", f"preferences={pairs}", *more]
    assert quietly("train", *run, *dpo) == 0
    learned = "-".join(["after", *(word.partition(".")[2].replace("=", "") for word in more)])
    more_steps = [f"name={name}-control", f"train.max_steps={steps + DPO_STEPS}"]
    assert quietly("train", *shared, *more_steps) == 0
    batch(f"{name}-before", words, FRESH, SEEDS[1], 1, brand)
    batch(f"{name}-{learned}", [*words, *dpo], FRESH, SEEDS[1], 1, brand)
    batch(f"{name}-control", [*sampled, *more_steps], FRESH, SEEDS[1], 1, brand)
    before, after, control = (fresh(f"{name}-{which}", brand) for which in ("before", learned, "control"))
    slots = len({pair.slot for pair in found})
    print(f"{brand}, {steps} steps: {len(found)} pairs of {slots} slots, {people} by the reviewer {' '.join(more)}")
    text, low = difference(before.passed, after.passed)
    print(f"  pass the gate                  {text}")
    print(f"  right                          {difference(before.right, after.right)[0]}")
    for which, one in (("before", before), ("after", after), ("control", control)):
        counted = ", ".join(f"{check} {count}" for check, count in one.rejected_by.most_common())
        print(f"  rejected by, {which:<18}{counted}")
    print(f"  {DPO_STEPS} ordinary steps instead     {difference(before.passed, control.passed)[0]}")
    print(f"  preferences beyond those       {difference(control.passed, after.passed)[0]}", flush=True)
    return low


def main() -> int:
    asked = [word for word in sys.argv[1:] if ":" in word] or DEFAULT
    more = [word for word in sys.argv[1:] if "=" in word]
    lows = [measure(brand, int(steps), more) for brand, _, steps in (word.partition(":") for word in asked)]
    print("a brand gains beyond its interval" if max(lows) > 0 else "missed: no brand gains beyond its interval")
    return 0 if max(lows) > 0 else 1


if __name__ == "__main__":
    raise SystemExit(main())
