"""Does `stylegate learn` help? The renderer's truth with 5 % errors reviews one lot; a fresh lot is judged by both.

    python -m tests.bench.learn [brand ...]        about a minute a brand on two cores

A lot is a planned batch of COUNT pictures that the renderer draws: GOOD of them as planned, the others with one fault
each (a wrong trait of any kind, eyes and mouth included; a style mixed by .45; half a colour cast; a crop; something
that covers a part). By a policy with a wide band for review the reviewer answers what the gate holds for review, and
`learn` is run. On the fresh lot the gate's own ranking (the margin) is held against the learnt aesthetic score: the
area under the ROC curve, and the share that may be accepted with at most 5 % rejects, by the truth without errors.
Intervals are of 95 %, by a bootstrap of pairs. "At best" is the share that a perfect ranking would accept.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from eval.learning.gains import ranking_gain_of_new_scores
from eval.lot.batch import RECORD, read_existing_batch_record, read_plan
from eval.measuring.scores import read_scores
from eval.reviewing.session import OFF_STYLE
from stylegate import files, pictures
from stylegate.cli import main
from tests.bench import defects
from tests.bench.meaning import KINDS, colour_cast, crop, mixed, spoilt, true, wrong
from tests.worksheets import Row, fill_in
from train.miniature.styles import BRANDS

COUNT, GOOD, ERRORS, SEED, ALPHA = 192, 0.65, 0.05, 7800, 0.05
REVIEWED = """version: 1
guideline: what the plan asks for, in the brand's style, whole
checks:
  contrast: {reject_below: 6}
  brand: {review_below: {quantile: 0.1, foreign: 0.9}}
  style: {review_below: {spreads: -2, foreign: 0.9}}
  drawing: {review_below: {spreads: -2}}
  palette: {review_below: {spreads: -2}}
  coherence: {review_below: {spreads: -3}}
  traits: {review_below: {quantile: 0.3}}
"""


def half_cast(image: Image.Image, random: np.random.Generator) -> Image.Image:
    return Image.blend(image, colour_cast(image, random), 0.5)


def draw_lot(brand: str, name: str, seed: int) -> dict[str, str]:
    """Plan a batch and draw it by the renderer; what is wrong with each picture ("" for nothing), by file name."""
    random = np.random.default_rng(seed)
    words = [f"brand={brand}", "traits=collectible", "lora_file=none", f"batch={name}"]
    assert main(["plan", *words, f"plan.num_images={COUNT}", f"plan.seed={seed}"]) == 0
    folder = files.BATCHES / name
    slots = read_plan(folder)
    values = {kind: sorted({slot.traits[kind] for slot in slots}) for kind in KINDS}
    faults = {f"wrong trait: {kind}": wrong(kind, values) for kind in KINDS} | {
        OFF_STYLE: mixed(0.45),
        "wrong colours": spoilt(half_cast),
        "badly cropped": spoilt(crop),
        "artefacts": spoilt(defects.occlusion),
    }
    found = {}
    for slot in slots:
        fault = "" if random.random() < GOOD else str(random.choice(list(faults)))
        image = faults[fault](slot, brand, random) if fault else true(slot, brand)
        files.write_atomically(folder / "images" / slot.picture_file_name(0), pictures.png_bytes(image.convert("RGB")))
        found[slot.picture_file_name(0)] = fault
    told = {"precision": "fp32", "size": 64, "max_attempts": 1}
    read_existing_batch_record(folder).model_copy(update=told).write_json_file(folder / RECORD)
    return found


def answer(sheet: Path, truth: dict[str, str], random: np.random.Generator) -> Path:
    """The worksheet of a review, filled in by the truth; one answer in twenty is wrong."""

    def said(i: int, row: Row) -> Row:
        fault, mistaken = truth[Path(row["file"]).name], random.random() < ERRORS
        verdict = "accept" if (not fault) != mistaken else "reject"
        return {"who": "truth", "verdict": verdict, "why": "" if mistaken else fault}

    return fill_in(sheet, said)


def measure(brand: str, place: Path) -> None:
    """Print what one brand gains."""
    number = list(BRANDS).index(brand)
    policy = place / "reviewed.yaml"
    policy.write_text(REVIEWED)
    first, fresh = f"learn-{brand}-first", f"learn-{brand}-fresh"
    truth = draw_lot(brand, first, SEED + 2 * number)
    of_fresh = draw_lot(brand, fresh, SEED + 2 * number + 1)
    words = [f"brand={brand}", f"batch={first}", f"policy={policy}"]
    main(["gate", *words])
    filled = answer(files.BATCHES / first / "review.csv", truth, np.random.default_rng(SEED))
    main(["gate", *words, f"decisions={filled}"])
    assert main(["learn", *words]) == 0
    (learnt,) = (files.BATCHES / first / "learnt").glob("*.yaml")
    rankings, accepted = [], []
    good = np.array([], bool)
    for used in (policy, learnt):
        main(["gate", f"brand={brand}", f"batch={fresh}", f"policy={used}"])
        verdicts = files.read_jsonl(files.BATCHES / fresh / "verdicts.jsonl")
        good = np.array([not of_fresh[row["file"]] for row in verdicts])
        rows = read_scores(files.BATCHES / fresh).rows
        rankings.append(
            np.array([row["margin"] for row in verdicts] if used == policy else [r["aesthetic"] for r in rows])
        )
        taken = np.array([row["verdict"] == "accept" for row in verdicts])
        accepted.append((taken.mean(), (~good)[taken].mean() if taken.any() else 0.0))
    gain = ranking_gain_of_new_scores(f"{brand}, fresh lot", good, rankings[0], rankings[1], ALPHA)
    best = min(1.0, good.mean() / (1 - ALPHA))
    print(f"\nRESULT {gain.ranking_gain_in_words()}; at best {best:.0%}")
    for when, (share, rejects) in zip(("before", "after"), accepted, strict=True):
        print(f"RESULT {brand}: accepted by the gate alone {when} {share:.3f}, rejects among them {rejects:.3f}")


if __name__ == "__main__":
    for name in sys.argv[1:] or BRANDS:
        with tempfile.TemporaryDirectory() as folder:
            measure(name, Path(folder))
