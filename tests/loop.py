"""The whole loop on the miniature: train, generate, gate, review, learn, train on preferences, gate again.

    make loop                                    or python -m tests.loop [brand] [pictures] [steps]
                                                 about five minutes on two cores

The reviewer is simulated. The judge of the benchmarks, a small classifier that was trained on the renderer's pictures,
says whether style and traits are as planned. And the reviewer has a taste that no check knows: pictures that are darker
than most references are rejected. One answer in twenty is wrong. All else is what a person would type. Each
command is printed before it runs. Everything lies in STYLEGATE_HOME.
"""

import shlex
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from eval.lot.batch import read_plan
from stylegate import files
from stylegate.cli import main
from tests.bench.learn import ERRORS, REVIEWED
from tests.bench.style import JUDGED
from tests.worksheets import Row, fill_in, worksheet_rows
from train.miniature import judge as judging

ATTEMPTS, SEED = 3, 7900
DARKEST = 0.4  # share of the references that are as dark as what the reviewer rejects


def stylegate(*words: str) -> None:
    """Run a command as a person would. Raises AssertionError where it fails; pictures that are left open are none."""
    print(f"\n$ stylegate {shlex.join(words)}", flush=True)
    code = main(list(words))
    assert code in (0, 10, 11), f"exit code {code}"


def brightness(path: Path) -> float:
    """The mean brightness of a picture, 0 to 255."""
    return float(np.asarray(Image.open(path).convert("L")).mean())


def review(batch: Path, brand: str) -> str:
    """Fill in review.csv as the judge sees the pictures; the word that gives it to the gate."""
    sheet, random = batch / "review.csv", np.random.default_rng(SEED)
    rows = worksheet_rows(sheet)
    planned = {slot.slot: slot.traits for slot in read_plan(batch)}
    seen = judging.judge_answers(
        judging.load_judge(),
        np.stack([np.asarray(Image.open(batch / "images" / row["file"]).convert("RGB")) for row in rows]),
    )
    darkest = np.quantile([brightness(path) for path in (files.BRANDS[-1] / brand / "test").glob("*.png")], DARKEST)

    def said(i: int, row: Row) -> Row:
        traits = planned[int(row["file"].split("-")[0])]
        wrong = {trait: str(seen[trait][i]) for trait in JUDGED if seen[trait][i] != traits[trait]}
        off_style, mistaken = seen["style"][i] != brand, random.random() < ERRORS
        dark = brightness(batch / "images" / row["file"]) < darkest
        good = (not wrong and not off_style and not dark) != mistaken
        told = {"who": "the judge", "verdict": "accept" if good else "reject", "why": "", "shows": ""}
        if not good and not mistaken:
            told["shows"] = "; ".join(f"{trait}: {value}" for trait, value in wrong.items())
            told["why"] = "off the style" if off_style else "too dark" if dark else ""
        return told

    return f"decisions={fill_in(sheet, said)}"


def loop(brand: str, count: int, steps: int) -> None:
    """Go round once."""
    policy = files.HOME / "reviewed.yaml"
    files.write_atomically(policy, REVIEWED)  # the home need not be there yet
    words = [f"brand={brand}", f"train.max_steps={steps}", "train.num_samples=0"]
    drawn = [*words, "traits=collectible"]
    drop = [*drawn, f"plan.seed={SEED}", "batch=loop-drop"]
    stylegate("train", *words)
    stylegate("plan", *drop, f"plan.num_images={count}")
    batch = files.BATCHES / "loop-drop"
    for _ in range(ATTEMPTS):
        stylegate("generate", *drop, f"plan.max_attempts={ATTEMPTS}")
        stylegate("gate", *drop, f"policy={policy}")
        if (batch / "review.csv").exists():
            stylegate("gate", *drop, f"policy={policy}", review(batch, brand))
    stylegate("learn", *drop, f"policy={policy}")
    (learnt,) = (batch / "learnt").glob("*.yaml")
    stylegate("preferences", "batch=loop-drop")
    preferred = ["objective=dpo", f"preferences={batch / 'preferences'}"]
    stylegate("train", *words, *preferred)
    for name, more in (("loop-before", []), ("loop-after", preferred)):
        fresh = [*drawn, *more, f"plan.seed={SEED + 1}", f"batch={name}"]
        stylegate("plan", *fresh, f"plan.num_images={count}")
        stylegate("generate", *fresh)
        stylegate("gate", *fresh, f"policy={learnt}")
    stylegate("compare", str(files.BATCHES / "loop-before"), str(files.BATCHES / "loop-after"))


if __name__ == "__main__":
    given = dict(enumerate(sys.argv[1:]))
    loop(given.get(0, "neon"), int(given.get(1, 32)), int(given.get(2, 60)))
