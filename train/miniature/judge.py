"""The judge: a small network that names traits and style of a picture. It knows the demo brands; benchmarks alone use
it, product code never (tests/test_architecture.py).
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional

from stylegate import files, progress
from train.miniature.corpus import Corpus, corpus_fingerprint
from train.miniature.fit import bf16_autocast, train_modules_resumably, training_device
from train.miniature.styles import BRANDS, NAMED
from train.miniature.world import TRAITS

PLACE = files.MODELS / "miniature" / "judge" / "judge.safetensors"
STYLES = [*(style.name for style in NAMED), *BRANDS, "unnamed"]
HEADS = {**TRAITS, "style": STYLES}
STEPS, BATCH, LEARNING_RATE = 1600, 128, 2e-3
WIDTHS = (48, 80, 112, 128)
CODING_NOISE = 0.3  # deviations of the latents, at most


class TraitAndStyleJudge(nn.Module):
    """A small classifier: pixels [n, 3, 64, 64] in [-1, 1] to the logits of each head."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for width in WIDTHS:  # 64 pixels become 32, 16, 8, 4
            layers += [nn.Conv2d(before, width, 4, stride=2, padding=1), nn.GroupNorm(8, width), nn.ReLU()]
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(8, width), nn.ReLU()]
            before = width
        self.body = nn.Sequential(*layers, nn.AvgPool2d(2), nn.Flatten(), nn.Linear(before * 4, 256), nn.ReLU())
        self.heads = nn.ModuleDict({name: nn.Linear(256, len(values)) for name, values in HEADS.items()})

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        seen = self.body(pixels)
        return {name: head(seen) for name, head in self.heads.items()}


def true_classes(corpus: Corpus) -> dict[str, NDArray[np.int64]]:
    """The number of the true class of each picture, int64 [n], for each head by name."""
    out = {trait: np.array([values.index(row[trait]) for row in corpus.traits]) for trait, values in TRAITS.items()}
    return out | {"style": np.array([STYLES.index(s if s in STYLES else "unnamed") for s in corpus.styles])}


def augmented_pictures(x: Tensor, r: np.random.Generator) -> Tensor:
    """The pictures [n, 3, 64, 64], all moved, and the first half softened and noisy, since generated pictures are
    softer than renders.
    """
    shift = tuple(int(v) for v in r.integers(-3, 4, 2))
    x = torch.roll(functional.pad(x, (3, 3, 3, 3), mode="replicate"), shift, (2, 3))[..., 3:-3, 3:-3]
    half = len(x) // 2
    soft = functional.avg_pool2d(x[:half], 3, stride=1, padding=1, count_include_pad=False)
    share = torch.from_numpy(r.uniform(0, 1, (half, 1, 1, 1))).float()
    noise = torch.randn(x[:half].shape, generator=torch.Generator().manual_seed(int(r.integers(2**31))))
    return torch.cat([x[:half].lerp(soft, share) + 0.06 * share * noise, x[half:]])


@torch.no_grad()
def noisy_vae_round_trip(vae: Any, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pictures [n, 64, 64, 3] coded and decoded with noise on their latents, which looks like generated pictures."""
    where, parts = next(vae.parameters()).device, []
    random = np.random.default_rng(29)
    with progress.progress_bar("code", len(pixels)) as tick, bf16_autocast(where):
        for start in range(0, len(pixels), 256):
            x = torch.from_numpy(pixels[start : start + 256]).to(where).permute(0, 3, 1, 2).float() / 127.5 - 1
            latents = vae.encode(x.contiguous(memory_format=torch.channels_last)).latents.float().cpu()
            share = random.uniform(0, CODING_NOISE, (len(x), 1, 1, 1)) / vae.config.scaling_factor
            noisy = latents + torch.from_numpy(share * random.standard_normal(latents.shape)).float()
            y = vae.decode(noisy.to(where)).sample.float().cpu()
            parts.append(((y.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy())
            tick(len(x))
    return np.concatenate(parts)


def train_judge(corpus: Corpus, vae: Any) -> TraitAndStyleJudge:
    """Train a new judge and return it; a third of its pictures have been coded and decoded by the autoencoder."""
    pixels = corpus.pixels.copy()
    pixels[::3] = noisy_vae_round_trip(vae, pixels[::3])
    where = training_device()
    torch.manual_seed(3)
    judge = TraitAndStyleJudge().to(where).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    truth = {name: torch.from_numpy(values) for name, values in true_classes(corpus).items()}

    def classification_loss_at_step(step: int, r: np.random.Generator) -> Tensor:
        chosen = r.integers(len(pixels), size=BATCH)
        x = torch.from_numpy(pixels[chosen]).permute(0, 3, 1, 2).float() / 127.5 - 1
        with bf16_autocast(where):
            logits = judge(augmented_pictures(x, r).to(where, memory_format=torch.channels_last))
        losses = [functional.cross_entropy(v.float(), truth[name][chosen].to(where)) for name, v in logits.items()]
        return torch.stack(losses).sum()

    depends_on = [corpus_fingerprint("judge"), WIDTHS, BATCH, CODING_NOISE, round(vae.config.scaling_factor, 3)]
    train_modules_resumably(
        "judge", {"judge": judge}, classification_loss_at_step, STEPS, {"judge": LEARNING_RATE}, depends_on
    )
    return judge


def write_judge(judge: TraitAndStyleJudge, path: Path = PLACE) -> None:
    """Write the judge's weights in half precision."""
    files.write_atomically(
        path, save({name: p.detach().half().cpu().contiguous() for name, p in judge.state_dict().items()})
    )


def load_judge(path: Path = PLACE) -> TraitAndStyleJudge:
    """Load the judge in fp32, for inference."""
    judge = TraitAndStyleJudge()
    judge.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    return judge.eval()


@torch.no_grad()
def judge_answers(judge: TraitAndStyleJudge, pixels: NDArray[np.uint8]) -> dict[str, list[str]]:
    """The judge's answers for pictures [n, 64, 64, 3]: for each head, by name, the n values that it
    finds most likely.
    """
    parts: dict[str, list[Tensor]] = {name: [] for name in HEADS}
    for start in range(0, len(pixels), 256):
        x = torch.from_numpy(pixels[start : start + 256]).permute(0, 3, 1, 2).float() / 127.5 - 1
        for name, logits in judge(x).items():
            parts[name].append(logits.argmax(1))
    return {name: [HEADS[name][int(i)] for i in torch.cat(found)] for name, found in parts.items()}
