"""Do the base's own pictures, as a foreign set, hold back what a LoRA has not learned, and nothing else?

    python -m tests.bench.base_pictures [BRAND ...]       about 6 minutes a brand; exit 1 if a line is missed

A LoRA of each brand is trained; after 0, 25, 50 and 100 % of the steps SLOTS slots are drawn with the same seeds. Each
lot is judged by the default policy twice: without, and with the base's own pictures of the same prompts. Printed, both
ways: pictures accepted; of these, those that the judge takes for another style; and pictures with the reason `brand`.
What a finished LoRA draws must be accepted as before; of what the bare base draws nothing.
"""

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from eval.judging.judge import judge
from eval.lot.batch import read_plan
from eval.lot.compared import comparison_pictures_with_decided_ones
from eval.lot.comparison import BASE, base_pictures_as_foreign_set
from eval.lot.lot import read_lot
from stylegate import files, lorafile
from stylegate.config import Config
from tests.bench.accepted import quietly
from train.miniature import judge as judging
from train.miniature.styles import BRANDS

RUN, SLOTS, STEPS = "base-pictures", 64, {"0 %": 0, "25 %": 75, "50 %": 150, "100 %": 300}
LOST, PASSED = 0.02, 0.02  # shares of a lot: good pictures lost by a finished LoRA; pictures of the bare base accepted


class Counted(NamedTuple):
    """What the gate said of one lot, in numbers of pictures."""

    accepted: int
    other_style: int  # accepted, and the judge takes them for another style
    by_brand: int  # held back by the score `brand`, whatever else holds them back


def trained(brand: str, steps: int, keep: Path) -> Path:
    """The LoRA after so many steps, copied to `keep`; the same run is continued each time."""
    if not keep.exists():
        quietly("train", f"brand={brand}", f"name={RUN}", f"train.max_steps={steps}", "train.num_samples=0")
        found = lorafile.lora_file_for_drawing(Config(brand=brand, name=RUN))
        assert found
        keep.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(found, keep)
    return keep


def drawn(brand: str, steps: int) -> Path:
    """The folder of a batch that the LoRA has drawn after so many steps; the bare base after none."""
    batch = f"{brand}-after-{steps}"
    lora = trained(brand, steps, files.RUNS / RUN / f"{brand}-{steps}.safetensors") if steps else "none"
    words = [f"brand={brand}", "traits=collectible", f"lora_file={lora}", f"batch={batch}"]
    quietly("plan", *words, f"plan.num_images={SLOTS}")
    quietly("generate", *words)
    return files.BATCHES / batch


def counted(brand: str, folder: Path, of_base: Path | None) -> Counted:
    """Judge a batch, with the pictures in `of_base` as the base's own; None: without any."""
    config = Config(brand=brand, batch=folder.name)
    lot = read_lot(config)
    foreign = base_pictures_as_foreign_set(of_base) if of_base else {}
    judged = judge(
        config, lot, replace(comparison_pictures_with_decided_ones(config, lot), foreign=foreign), quiet=True
    )
    by_file = {verdict.file: verdict for verdict in judged.verdicts}
    named = [slot.picture_file_name(0) for slot in read_plan(folder)]
    pixels = np.stack([np.asarray(Image.open(folder / "images" / name).convert("RGB")) for name in named])
    seen = judging.judge_answers(judging.load_judge(), pixels)["style"]
    good = [by_file[name].verdict == "accept" for name in named]
    held = [any(reason.check == "brand" for reason in by_file[name].reasons) for name in named]
    return Counted(sum(good), sum(yes and style != brand for yes, style in zip(good, seen, strict=True)), sum(held))


def measure(brand: str) -> list[str]:
    """Print the table of one brand; returns what was missed."""
    folders = {share: drawn(brand, steps) for share, steps in STEPS.items()}
    of_base = next(folder / BASE for folder in folders.values() if (folder / BASE).is_dir())
    missed = []
    for share, folder in folders.items():
        without, given = counted(brand, folder, None), counted(brand, folder, of_base)
        numbers = "   ".join(f"{n.accepted:>3} / {n.other_style:>2} / {n.by_brand:>2}" for n in (without, given))
        print(f"{brand:<6}{share:>6}   {numbers}", flush=True)
        if share == "100 %" and without.accepted - given.accepted > LOST * SLOTS:
            missed.append(f"{brand}: {without.accepted - given.accepted} good pictures lost")
        if share == "0 %" and given.accepted > PASSED * SLOTS:
            missed.append(f"{brand}: {given.accepted} pictures of the bare base accepted")
    return missed


def main() -> int:
    print(f"of {SLOTS}: accepted / of these another style / held back by brand; without, with the base's own pictures")
    missed = [line for brand in sys.argv[1:] or BRANDS for line in measure(brand)]
    print("\n".join(["missed:", *missed]) if missed else "every line holds")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
