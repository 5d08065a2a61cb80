"""Does the gate help? By the default policy, on 256 generated pictures of a brand; the judge and planted defects know.

    python -m tests.bench.gate [brand ...]        about 3 minutes a brand on two cores; exit 1 if a line is missed

First what the LoRA itself gets wrong: the judged-wrong share (style, background, body, species, headwear or item)
among the accepted is at most half of that among all, at a yield of at least 40 %. Then 64 of the pictures are spoilt as
tests/bench/defects.yaml says: at least 90 % of those must not be accepted while at least 60 % of the rest are. A
near-duplicate is caught when at most one of its pair is accepted.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from eval.lot.batch import PlanSlot, batch_folder_and_facts, read_plan
from stylegate import brandset, files, pictures
from stylegate.cli import main
from stylegate.config import Config
from stylegate.configgroups import PlanConfig
from tests.bench.defects import DEFECTS
from tests.bench.style import JUDGED, train
from train.miniature import judge as judging
from train.miniature.drawing import render_collectible
from train.miniature.styles import BRANDS, NAMED

FLAT = NAMED[0]
WRONG_AT_MOST, YIELD = 0.5, 0.40
CAUGHT, KEPT = 0.90, 0.60
SEED, COUNT, PER_CLASS = 7100, 256, 8


def drawn(brand: str) -> tuple[Path, list[PlanSlot]]:
    """A batch of the default config's LoRA, generated and gated."""
    train(brand)
    words = [f"brand={brand}", "traits=collectible", f"plan.seed={SEED}"]
    main(["plan", *words, f"plan.num_images={COUNT}"])
    for verb in ("generate", "gate"):
        main([verb, *words])
    batch, _ = batch_folder_and_facts(
        Config(brand=brand, traits="collectible", plan=PlanConfig(seed=SEED, num_images=COUNT))
    )
    return batch, read_plan(batch)


def helps(brand: str, batch: Path, slots: list[PlanSlot]) -> list[str]:
    """Print the judged-wrong share before and after the gate; returns what was missed."""
    pixels = np.stack(
        [np.asarray(Image.open(batch / "images" / slot.picture_file_name(0)).convert("RGB")) for slot in slots]
    )
    seen = judging.judge_answers(judging.load_judge(), pixels)
    wrong = np.array(
        [seen["style"][i] != brand or any(seen[t][i] != slot.traits[t] for t in JUDGED) for i, slot in enumerate(slots)]
    )
    verdicts = {row["file"]: row["verdict"] for row in files.read_jsonl(batch / "verdicts.jsonl")}
    kept = np.array([verdicts[slot.picture_file_name(0)] == "accept" for slot in slots])
    before, after = float(wrong.mean()), float(wrong[kept].mean()) if kept.any() else float("nan")
    print(f"\n{brand}: judged wrong {before:.3f} of generated, {after:.3f} of accepted; accepted {kept.mean():.3f}")
    lines = [
        ("wrong among accepted", after <= WRONG_AT_MOST * before, f"{after:.3f} of {before:.3f}"),
        ("yield", kept.mean() >= YIELD, f"{kept.mean():.3f}"),
    ]
    return [f"{brand}: {name} {found}" for name, holds, found in lines if not holds]


def planted(brand: str, batch: Path, slots: list[PlanSlot]) -> list[str]:
    """Print the table of planted defects; returns what was missed."""
    random = np.random.default_rng(SEED)
    training = sorted((brandset.brand_folder(brand) / "train").glob("*.png"))
    with tempfile.TemporaryDirectory() as place:
        folder, classes, partner = Path(place) / "judged", {}, {}
        rest = slots[: COUNT - PER_CLASS * 8]
        for slot in rest:
            files.write_atomically(
                folder / slot.picture_file_name(0), (batch / "images" / slot.picture_file_name(0)).read_bytes()
            )
        spoilt = iter(slots[len(rest) :])
        for name, spoil in DEFECTS.items():
            for i in range(PER_CLASS):
                slot = next(spoilt)
                source = batch / "images" / slot.picture_file_name(0)
                if name == "copied_training":
                    source = training[i]
                elif name == "near_duplicate":
                    source = batch / "images" / rest[i].picture_file_name(0)
                    partner[slot.picture_file_name(0)] = rest[i].picture_file_name(0)
                files.write_atomically(
                    folder / slot.picture_file_name(0),
                    pictures.png_bytes(spoil(Image.open(source).convert("RGB"), random)),
                )
                classes[slot.picture_file_name(0)] = name
        for slot in spoilt:
            files.write_atomically(
                folder / slot.picture_file_name(0),
                pictures.png_bytes(render_collectible(slot.traits, FLAT, slot.seed_of_attempt(0))),
            )
            classes[slot.picture_file_name(0)] = "style_mix"
        out = Path(place) / "out"
        main(["gate", f"images={folder}", f"brand={brand}", f"out={out}"])
        verdicts = {row["file"]: row for row in files.read_jsonl(out / "verdicts.jsonl")}
    assert len(verdicts) == COUNT and len(classes) == 64

    def accepted(file: str) -> bool:
        return verdicts[file]["verdict"] == "accept"

    def caught(file: str) -> bool:
        return not accepted(file) or (file in partner and not accepted(partner[file]))

    print(f"\n{brand}: {'class':<18}{'caught':>8}   reasons")
    for name in [*DEFECTS, "style_mix"]:
        members = [file for file, kind in classes.items() if kind == name]
        why = sorted({r["check"] for f in members for r in verdicts[f]["reasons"]})
        print(f"{'':<6}{name:<18}{sum(map(caught, members)):>4} of {len(members)}   {', '.join(why)}")
    shares = (
        float(np.mean([caught(f) for f in classes])),
        float(np.mean([accepted(s.picture_file_name(0)) for s in rest])),
    )
    print(f"defects not accepted {shares[0]:.3f} (wanted {CAUGHT}), rest accepted {shares[1]:.3f} (wanted {KEPT})")
    missed = [f"{brand}: defects not accepted {shares[0]:.3f}"] if shares[0] < CAUGHT else []
    return missed + ([f"{brand}: rest accepted {shares[1]:.3f}"] if shares[1] < KEPT else [])


def measure(brand: str) -> list[str]:
    batch, slots = drawn(brand)
    return helps(brand, batch, slots) + planted(brand, batch, slots)


if __name__ == "__main__":
    missed = [line for name in sys.argv[1:] or BRANDS for line in measure(name)]
    print("\n".join(["missed:", *missed]) if missed else "every line holds")
    raise SystemExit(1 if missed else 0)
