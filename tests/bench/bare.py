"""The least that a step of training can be: tensors at hand, forward, backward, AdamW. What trainers are held against.

python -m tests.bench.bare BASE BATCH        a folder of Stable Diffusion's form; goes on until it is stopped
"""

import sys

import torch
from peft import LoraConfig
from torch.nn import functional

from stylegate.families import FAMILIES
from tests.bench.peer import RANK


def main() -> None:
    base, batch = sys.argv[1], int(sys.argv[2])
    family = FAMILIES["sd"]
    models = family.load(base, torch.device("cpu"), torch.float32)
    denoiser = models.denoiser
    targets = family.lora_targets(["attention"])
    denoiser.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="gaussian", target_modules=targets))  # type: ignore[operator]
    pixels = torch.rand(batch, 3, models.resolution, models.resolution) * 2 - 1
    with torch.no_grad():
        clean, told = (
            family.encode_to_latent_mean_and_deviation(models, pixels)[0],
            family.encode_prompts(models, ["a"] * batch),
        )
    noise = torch.randn_like(clean)
    optimizer = torch.optim.AdamW([p for p in denoiser.parameters() if p.requires_grad], lr=1e-3)
    while True:
        levels = torch.randint(0, len(models.schedule.signal), (batch,))
        functional.mse_loss(family.predict(models, denoiser, clean + noise, levels, told), noise).backward()
        optimizer.step()
        optimizer.zero_grad()


if __name__ == "__main__":
    main()
