"""Prompts and seeds to pictures: the trainer's sample grids and `generate` draw the same way."""

from collections.abc import Sequence

import torch
from PIL import Image

from stylegate.config import Config, GenerateConfig
from stylegate.families import Models


def resolution_of(config: Config, models: Models) -> int:
    """Pixels a side: as configured, else what the base was trained for."""
    return config.family.resolution or models.resolution


@torch.no_grad()
def draw(
    models: Models, prompts: Sequence[str], seeds: Sequence[int], settings: GenerateConfig, resolution: int
) -> list[Image.Image]:
    """One picture a prompt, `resolution` pixels a side; each has its own noise, so neighbours do not matter.

    The number drawn at once can change last bits: callers keep it fixed for a picture that must come out again.
    """
    noise = [torch.Generator().manual_seed(seed) for seed in seeds]
    drawn = models.pipeline(
        prompt=list(prompts),
        generator=noise,
        num_inference_steps=settings.num_inference_steps,
        guidance_scale=settings.guidance_scale,
        height=resolution,
        width=resolution,
    )
    return drawn.images
