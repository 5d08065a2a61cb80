"""Does the gate help? 256 neon pictures, 64 of them planted defects of tests/bench/defects.yaml, by the default policy.

    python -m tests.bench.gate [brand]        about 3 minutes on two cores

At least 90 % of the defects must not be accepted while at least 60 % of the rest are (exit 1 otherwise). A
near-duplicate is caught when at most one of its pair is accepted.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from eval.batch.place import batch_folder, read_plan
from stylegate import brandset, files, pictures
from stylegate.cli import main
from stylegate.config import Config, PlanConfig
from tests.bench.defects import DEFECTS
from tests.bench.style import draw

CAUGHT, KEPT = 0.90, 0.60
SEED, PER_CLASS = 7100, 8


def measure(brand: str) -> tuple[float, float]:
    """Print the table; returns the share of defects not accepted, and of the rest accepted."""
    words = [f"brand={brand}", "traits=collectible", f"plan.seed={SEED}", "plan.num_images=256"]
    assert main(["train", f"brand={brand}"]) == 0
    assert main(["plan", *words]) == 0
    assert main(["generate", *words]) == 0
    batch, _ = batch_folder(Config(brand=brand, traits="collectible", plan=PlanConfig(seed=SEED, num_images=256)))
    slots = read_plan(batch)
    random = np.random.default_rng(SEED)
    training = sorted((brandset.locate(brand) / "train").glob("*.png"))

    with tempfile.TemporaryDirectory() as place:
        folder, classes, partner = Path(place) / "judged", {}, {}
        rest = slots[: 256 - PER_CLASS * 8]
        for slot in rest:
            files.write(folder / slot.file(0), (batch / "images" / slot.file(0)).read_bytes())
        spoilt = iter(slots[len(rest) :])
        for name, spoil in DEFECTS.items():
            for i in range(PER_CLASS):
                slot = next(spoilt)
                source = batch / "images" / slot.file(0)
                if name == "copied_training":
                    source = training[i]
                elif name == "near_duplicate":
                    source = batch / "images" / rest[i].file(0)
                    partner[slot.file(0)] = rest[i].file(0)
                files.write(folder / slot.file(0), pictures.png(spoil(Image.open(source).convert("RGB"), random)))
                classes[slot.file(0)] = name
        mixed = list(spoilt)
        flat = [slot.prompt.replace(slot.prompt.split(",")[0], "flat style") for slot in mixed]
        drawn = draw(flat, [slot.attempt_seed(0) for slot in mixed], None, Path(place) / "flat")
        for slot, (_, path) in zip(mixed, drawn, strict=True):
            files.write(folder / slot.file(0), path.read_bytes())
            classes[slot.file(0)] = "style_mix"

        out = Path(place) / "out"
        main(["gate", f"images={folder}", f"brand={brand}", f"out={out}"])
        verdicts = {row["file"]: row for row in files.read_jsonl(out / "verdicts.jsonl")}
    assert len(verdicts) == 256 and len(classes) == 64

    def accepted(file: str) -> bool:
        return verdicts[file]["verdict"] == "accept"

    def caught(file: str) -> bool:
        return not accepted(file) or (file in partner and not accepted(partner[file]))

    print(f"\n{brand}: {'class':<18}{'caught':>8}   reasons")
    for name in [*DEFECTS, "style_mix"]:
        members = [file for file, kind in classes.items() if kind == name]
        why = sorted({r["check"] for f in members for r in verdicts[f]["reasons"]})
        print(f"{'':<6}{name:<18}{sum(map(caught, members)):>4} of {len(members)}   {', '.join(why)}")
    good = [slot.file(0) for slot in rest]
    shares = float(np.mean([caught(f) for f in classes])), float(np.mean([accepted(f) for f in good]))
    print(f"defects not accepted {shares[0]:.3f} (wanted {CAUGHT}), rest accepted {shares[1]:.3f} (wanted {KEPT})")
    return shares


if __name__ == "__main__":
    found = measure(sys.argv[1] if len(sys.argv) > 1 else "neon")
    raise SystemExit(0 if found[0] >= CAUGHT and found[1] >= KEPT else 1)
