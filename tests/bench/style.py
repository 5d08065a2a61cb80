"""Does the LoRA carry the brand's style? Nearest-centroid hits among ten centroids, the base's own beside it.

    python -m tests.bench.style [brand]        about 4 minutes on two cores

Centroids: the test/ pictures of neon and pixel, and 32 pictures of the base in each of its 8 styles. Judged: 64
pictures of the LoRA (default config) on trait combinations that it has not seen, and the base on the same words.
Exit 1 if the hits of neon are below .85.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf

from eval import encoder as encoding
from eval.batch.plan import from_traits, read_traits
from eval.features import extract
from eval.subject import hashes
from stylegate import brandset, files, lorafile, pictures, sample
from stylegate.brandset import Brand
from stylegate.cli import main
from stylegate.config import Config, GenerateConfig, PlanConfig
from stylegate.families import FAMILIES
from train.miniature.standin import STYLES

WANTED = 0.85
SEED = 7000  # plan seeds 7000 to 7999 are for benchmarks; the stand-in's known pictures used 100 to 107


def draw(prompts: list[str], seeds: list[int], lora: Path | None, folder: Path) -> list[tuple[str, Path]]:
    """Draw with the base or the LoRA; returns named files, as the scorer takes them."""
    family = FAMILIES["sd"]
    models = family.load("miniature", torch.device("cpu"), torch.float32)
    if lora:
        lorafile.attach(models, family, lora)
    named = []
    for start in range(0, len(prompts), 16):
        images = sample.draw(models, prompts[start : start + 16], seeds[start : start + 16], GenerateConfig(), 64)
        for i, image in enumerate(images, start=start):
            files.write(folder / f"{i:03d}.png", pictures.png(image))
            named.append((f"{folder.name}/{i:03d}.png", folder / f"{i:03d}.png"))
    return named


def hits(embeddings: NDArray, centroids: NDArray, own: int) -> float:
    unit = centroids / np.linalg.norm(centroids, axis=1, keepdims=True)
    return float(((embeddings @ unit.T).argmax(1) == own).mean())


def measure(brand_name: str) -> float:
    """Print the table of one brand; returns the LoRA's hits on plain embeddings."""
    assert main(["train", f"brand={brand_name}"]) == 0
    lora = lorafile.trained(Config(brand=brand_name))
    traits = read_traits(files.ROOT / "data" / "traits" / "collectible.yaml")
    brand_set = brandset.read(brandset.locate(brand_name))
    learned = {tuple(sorted(item.traits.items())) for item in brand_set.splits["train"]}
    slots = from_traits(traits, brand_set.brand, PlanConfig(num_images=64, seed=SEED), learned)
    taken = learned | {tuple(sorted(slot.traits.items())) for slot in slots}
    prompts, seeds = [slot.prompt for slot in slots], [slot.attempt_seed(0) for slot in slots]
    encoder = encoding.load("miniature", torch.device("cpu"))

    with tempfile.TemporaryDirectory() as place:

        def encode(named: list[tuple[str, Path]], title: str) -> NDArray:
            return extract(named, hashes(named), encoder, "#ffffff", 64, title)[0].embeddings

        sets = {
            name: encode([(p.name, p) for p in sorted((brandset.locate(name) / "test").glob("*.png"))], name)
            for name in ("neon", "pixel")
        }
        for number, style in enumerate(STYLES):
            trigger = Brand(name=style, trigger=f"{style} style")
            drawn = from_traits(traits, trigger, PlanConfig(num_images=32, seed=SEED + 1 + number), taken)
            taken |= {tuple(sorted(slot.traits.items())) for slot in drawn}
            texts, noise = [slot.prompt for slot in drawn], [slot.attempt_seed(0) for slot in drawn]
            sets[style] = encode(draw(texts, noise, None, Path(place) / style.replace(" ", "-")), style)
        judged = {
            "base": encode(draw(prompts, seeds, None, Path(place) / "base"), "base"),
            "LoRA": encode(draw(prompts, seeds, lora, Path(place) / "lora"), "LoRA"),
            "real (test/, its own centroid)": sets[brand_name],
        }

    names = list(sets)
    centroids = np.stack([sets[name].mean(0) for name in names])
    within = np.concatenate([values - values.mean(0) for values in sets.values()])
    values, vectors = np.linalg.eigh(ledoit_wolf(within)[0])
    whiten = (vectors * values**-0.5) @ vectors.T
    own = names.index(brand_name)
    print(f"\n{brand_name}: nearest-centroid hits among {len(names)} centroids")
    print(f"{'pictures':<32}{'plain':>8}{'whitened':>10}{'cosine to own':>15}")
    result = 0.0
    for title, embeddings in judged.items():
        plain, white = hits(embeddings, centroids, own), hits(embeddings @ whiten, centroids @ whiten, own)
        cosine = float((embeddings @ centroids[own]).mean() / np.linalg.norm(centroids[own]))
        print(f"{title:<32}{plain:>8.3f}{white:>10.3f}{cosine:>15.3f}")
        result = plain if title == "LoRA" else result
    return result


if __name__ == "__main__":
    brand = sys.argv[1] if len(sys.argv) > 1 else "neon"
    found = measure(brand)
    held = found >= WANTED
    print(f"LoRA hits {found:.3f}, wanted {WANTED}: {'holds' if held else 'does not hold'}")
    raise SystemExit(0 if held or brand != "neon" else 1)
