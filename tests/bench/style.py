"""Does the LoRA carry the brand's style, and does it still draw what was asked? The judge looks beside the score.

    python -m tests.bench.style [brand ...]        about 4 minutes a brand on two cores; exit 1 if a line is missed

Default config, 128 combinations of traits that the LoRA has not seen. Compared: the base on the same words and seeds,
and true renders of the same traits in the brand's style. The style score is the product's: whitened cosine to the
centroid of the brand's test pictures.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from eval import encoder as encoding
from eval.batch.plan import Slot, from_traits, read_traits
from eval.scorers import style
from stylegate import brandset, files, hardware, lorafile, sample
from stylegate.cli import main
from stylegate.config import Config, GenerateConfig, PlanConfig, run_directory_name
from stylegate.families import FAMILIES
from tests.bench.miniature import embed, pictures_of
from train.miniature import judge as judging
from train.miniature.drawing import render
from train.miniature.styles import BRANDS

SEED, COUNT, TOGETHER = 7000, 128, 16  # plan seeds 7000 to 7999 are for benchmarks
JUDGED = ("background", "body", "species", "headwear", "item")
DISTANCE, HITS, ENERGY, POINTS, CPU_S = 0.80, 0.90, 0.80, 0.05, 240.0


def draw(prompts: list[str], seeds: list[int], lora: Path | None) -> list[Image.Image]:
    """Draw with the base or the LoRA, in the faster precision."""
    family, cpu = FAMILIES["sd"], torch.device("cpu")
    models = family.load("miniature", cpu, torch.float32)
    if lora:
        lorafile.attach(models, family, lora)

    def some(start: int) -> list[Image.Image]:
        part = slice(start, start + TOGETHER)
        return sample.draw(models, prompts[part], seeds[part], GenerateConfig(), models.resolution)

    with hardware.autocast(cpu, hardware.choose_precision("auto", cpu, lambda: some(0))):
        return [image for start in range(0, len(prompts), TOGETHER) for image in some(start)]


def train(brand: str) -> tuple[Path, float]:
    """The LoRA of the default config and the CPU seconds that it took; NaN if it was there already."""
    config, began = Config(brand=brand), time.process_time()
    there = (files.RUNS / run_directory_name(config) / "lora").exists()
    assert main(["train", f"brand={brand}"]) == 0
    seconds = float("nan") if there else time.process_time() - began
    lora = lorafile.trained(config)
    assert lora
    return lora, seconds


def unseen(brand: str, count: int, seed: int) -> list[Slot]:
    """Slots of combinations that are in none of the brand's pictures."""
    traits = read_traits(files.ROOT / "data" / "traits" / "collectible.yaml")
    brand_set = brandset.read(brandset.locate(brand))
    known = {tuple(sorted(item.traits.items())) for items in brand_set.splits.values() for item in items}
    return from_traits(traits, brand_set.brand, PlanConfig(num_images=count, seed=seed), known)


def truth(slots: list[Slot], brand: str) -> NDArray[np.uint8]:
    """Renders of the slots in the brand's style."""
    return np.stack([np.asarray(render(slot.traits, BRANDS[brand], slot.attempt_seed(0))) for slot in slots])


def energy(pixels: NDArray[np.uint8]) -> float:
    """Mean absolute difference to the right and lower neighbour, in levels of 255."""
    values = pixels.astype(np.float64)
    return float(np.abs(np.diff(values, axis=1)).mean() + np.abs(np.diff(values, axis=2)).mean())


def measure(brand: str) -> list[str]:
    """Print the table of one brand; returns what was missed."""
    lora, seconds = train(brand)
    slots = unseen(brand, COUNT, SEED)
    prompts, seeds = [slot.prompt for slot in slots], [slot.attempt_seed(0) for slot in slots]
    sets = {
        "base": np.stack([np.asarray(image) for image in draw(prompts, seeds, None)]),
        "LoRA": np.stack([np.asarray(image) for image in draw(prompts, seeds, lora)]),
        "true renders": truth(slots, brand),
    }
    encoder, judge = encoding.load("miniature", torch.device("cpu")), judging.load()
    references = embed(encoder, np.stack([np.asarray(image) for image in pictures_of(brandset.locate(brand))]))

    print(
        f"\n{brand:<14}{'style':>7}{'hits':>7}{'energy':>8}   "
        + "".join(f"{t:>11}" for t in (*JUDGED, "eyes", "mouth"))
    )
    styles, hits, energies, shares = {}, {}, {}, {}
    for title, pixels in sets.items():
        seen = judging.verdicts(judge, pixels)
        styles[title] = float(style.score(embed(encoder, pixels), references).mean())
        hits[title] = float(np.mean([name == brand for name in seen["style"]]))
        energies[title] = energy(pixels)
        right = {t: np.mean([v == s.traits[t] for v, s in zip(seen[t], slots, strict=True)]) for t in slots[0].traits}
        shares[title] = right
        numbers = "".join(f"{right[t]:>11.2f}" for t in (*JUDGED, "eyes", "mouth"))
        print(f"{title:<14}{styles[title]:>7.2f}{hits[title]:>7.2f}{energies[title]:>8.1f}   {numbers}")

    way = (styles["LoRA"] - styles["base"]) / (styles["true renders"] - styles["base"])
    sharp = energies["LoRA"] / energies["true renders"]
    lines = [
        ("distance covered", way, DISTANCE),
        ("brand hits", hits["LoRA"], HITS),
        ("gradient energy", sharp, ENERGY),
    ]
    for trait in JUDGED:
        floor = min(shares["base"][trait], shares["true renders"][trait]) - POINTS
        lines.append((trait, float(shares["LoRA"][trait]), float(floor)))
    missed = [
        f"{brand}: {name} {found:.3f}, wanted {wanted:.3f}" for name, found, wanted in lines if not found >= wanted
    ]
    print(f"distance covered {way:.2f} ({DISTANCE}), gradient energy {sharp:.2f} ({ENERGY})")
    print("training: at hand before" if np.isnan(seconds) else f"training: {seconds:.0f} CPU seconds ({CPU_S:.0f})")
    return missed + ([f"{brand}: {seconds:.0f} CPU seconds"] if seconds > CPU_S else [])


if __name__ == "__main__":
    missed = [line for name in sys.argv[1:] or BRANDS for line in measure(name)]
    print("\n".join(["missed:", *missed]) if missed else "every line holds")
    raise SystemExit(1 if missed else 0)
