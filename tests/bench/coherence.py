"""Does the coherence score tell melted pictures from drawn ones? It has seen none of these.

    python -m tests.bench.coherence                       the demo brands; about 7 minutes each, 4 of them for the LoRA
    python -m tests.bench.coherence neon=LORA.safetensors FOLDER=LORA.safetensors        with LoRAs that are there
    exit 1 if a line is missed

FOLDER is a brand set of real art (stylegate brand). Without a file, the LoRA of the default config is trained. Drawn
pictures: true ones that are no references (of demo brands, renders of unseen traits), and what the autoencoder makes of
them. Melted pictures: what a sampler of two steps draws; the LoRA at two and a half times its strength; and of real art
the LoRA's own pictures, since nothing on them can be recognised: the miniature knows collectibles alone. Interpolated
latents of two true pictures are printed and not counted: both can often be recognised. Of a demo brand, the LoRA's
pictures that the judge finds right in style, background, body, species, headwear and item must be kept by the default
policy's line. "refused" is what falls below that line.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import roc_auc_score

from eval.lot.batch import PlanSlot
from eval.policy import file as policyfile
from eval.scorers import coherence
from stylegate import brandset, lorafile, sample, similarity
from stylegate.configgroups import GenerateConfig
from stylegate.families import FAMILIES, LoadedBaseModel
from tests.bench.style import JUDGED, train, truth, unseen
from train.miniature import judge as judging
from train.miniature.styles import BRANDS

SEED, COUNT, TOGETHER = 7900, 64, 16  # plan seeds 7000 to 7999 are for benchmarks
AREA, KEPT = 0.95, 0.95
NOT_COUNTED = "interpolated latents"
TOO_STRONG, TOO_FEW = 2.5, 2  # times the LoRA's strength; steps

Pixels = NDArray[np.uint8]  # [n, 64, 64, 3]


class Case(NamedTuple):
    """What is held against each other, of one brand."""

    references: Pixels
    drawn: dict[str, Pixels]  # by kind
    melted: dict[str, Pixels]
    right: Pixels  # of the LoRA's pictures those that the judge finds right; none for real art


def load(lora: Path, strength: float = 1.0) -> LoadedBaseModel:
    """The miniature with the LoRA merged into it, at `strength` times its own."""
    models = FAMILIES["sd"].load("miniature", torch.device("cpu"), torch.float32)
    before = {name: weight.clone() for name, weight in models.denoiser.state_dict().items()}
    lorafile.merge_lora_file_into_pipeline(models, lora)
    for name, weight in models.denoiser.state_dict().items():
        weight.copy_(before[name] + strength * (weight - before[name]))
    return models


def draw(models: LoadedBaseModel, prompts: list[str], steps: int = GenerateConfig().num_inference_steps) -> Pixels:
    settings, drawn = GenerateConfig(num_inference_steps=steps), []
    for start in range(0, len(prompts), TOGETHER):
        some = prompts[start : start + TOGETHER]
        drawn += sample.draw_pictures(models, some, list(range(SEED + start, SEED + start + len(some))), settings, 64)
    return as_pixels(drawn)


def as_pixels(images: list[Image.Image]) -> Pixels:
    return np.stack([similarity.signature_of_picture(image) for image in images])


@torch.no_grad()
def coded(models: LoadedBaseModel, pixels: Pixels, mixed: bool = False) -> Pixels:
    """What the autoencoder makes of pictures; or of latents halfway from each one to the next on a great circle."""
    x = torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2).float() / 127.5 - 1
    latents, _ = FAMILIES["sd"].encode_to_latent_mean_and_deviation(models, x)
    if mixed:
        halfway = latents + latents.roll(1, 0)
        latents = halfway * (latents.flatten(1).norm(dim=1) / halfway.flatten(1).norm(dim=1))[:, None, None, None]
    vae = models.pipeline.vae
    decoded = vae.decode(latents / vae.config.scaling_factor).sample
    return ((decoded.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def case(name: str, lora: Path) -> Case:
    folder = brandset.brand_folder(name)
    brand_set, brand = brandset.read_brand_set(folder), brandset.read_brand_file(folder)
    parts = {
        split: as_pixels([brandset.decoded_image(item, brand) for item in items])
        for split, items in brand_set.splits.items()
    }
    slots = unseen(name, COUNT, SEED) if name in BRANDS else []
    items = [item for split in brand_set.splits.values() for item in split]
    prompts = [slot.prompt for slot in slots] or [
        brand.prompt_with_trigger(items[i % len(items)].text) for i in range(COUNT)
    ]
    true = truth(slots, name) if slots else np.concatenate([parts["train"], parts["validation"]])
    models = load(lora)
    own = draw(models, prompts)
    melted = {
        "interpolated latents": coded(models, true, mixed=True),
        f"{TOO_FEW} steps": draw(models, prompts, TOO_FEW),
    }
    melted |= {f"{TOO_STRONG} times as strong": draw(load(lora, TOO_STRONG), prompts)}
    melted |= {} if slots else {"the LoRA's": own}
    return Case(
        parts["test"], {"true": true, "coded": coded(models, true)}, melted, own[judged_right(own, name, slots)]
    )


def judged_right(pixels: Pixels, brand: str, slots: list[PlanSlot]) -> NDArray[np.bool_]:
    """[n] whether the judge finds the style and what was planned; none of them without slots."""
    if not slots:
        return np.zeros(len(pixels), bool)
    seen = judging.judge_answers(judging.load_judge(), pixels)
    planned = [all(seen[trait][i] == slot.traits[trait] for trait in JUDGED) for i, slot in enumerate(slots)]
    return np.array(planned) & (np.array(seen["style"]) == brand)


def measure(name: str, lora: Path) -> Iterator[str]:
    """Print the table of one brand; what was missed."""
    found = case(name, lora)
    check = policyfile.read_policy("default").checks["coherence"]
    assert check.reject_below
    line = check.reject_below.numeric_threshold_given_references("coherence", None) or 0.0
    drawn = {kind: coherence.score(pixels, found.references) for kind, pixels in found.drawn.items()}
    shares = [f"{kind} {(scores >= line).mean():.3f}" for kind, scores in drawn.items()]
    print(f"\n{Path(name).name}: {len(found.references)} references, line {line:.2f}; kept of {', '.join(shares)}")
    if len(found.right):
        kept = float((coherence.score(found.right, found.references) >= line).mean())
        print(f"  judged right {len(found.right)} of {COUNT} of the LoRA's, kept {kept:.3f} (wanted {KEPT})")
        if kept < KEPT:
            yield f"{name}: kept {kept:.3f} of what the judge finds right"
    print(f"  {'area under the ROC curve against':<34}" + "".join(f"{kind:>8}" for kind in drawn) + "  refused")
    for kind, pixels in found.melted.items():
        scores = coherence.score(pixels, found.references)
        labels = [np.r_[np.ones(len(good)), np.zeros(len(scores))] for good in drawn.values()]
        areas = [
            float(roc_auc_score(label, np.r_[good, scores])) for label, good in zip(labels, drawn.values(), strict=True)
        ]
        print(f"  {kind:<34}" + "".join(f"{a:>8.3f}" for a in areas) + f"{(scores < line).mean():>9.2f}", flush=True)
        if kind != NOT_COUNTED and min(areas) < AREA:
            yield f"{name}: {kind} {min(areas):.3f}"


def main() -> int:
    missed = []
    for word in sys.argv[1:] or BRANDS:
        name, _, given = word.partition("=")
        missed += measure(name, Path(given) if given else train(name)[0])
    print("\n".join(["missed:", *missed]) if missed else "every line holds")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
