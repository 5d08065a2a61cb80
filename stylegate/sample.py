"""Prompts and seeds to pictures: the trainer's sample grids and `generate` draw the same way."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from PIL import Image

from stylegate import pictures
from stylegate.config import Config
from stylegate.configgroups import GenerateConfig
from stylegate.errors import ConfigError
from stylegate.families import LoadedBaseModel, pipelines


def drawing_resolution(config: Config, models: LoadedBaseModel) -> int:
    """The side of drawn pictures in pixels: as configured, else what the base was trained for.

    Raises ConfigError if a configured size is no multiple of what the base works in.
    """
    require_size_multiples(config, models.multiple)
    return config.family.resolution or models.resolution


def require_size_multiples(config: Config, multiple: int) -> None:
    """Check that the base can draw the configured sizes. Raises ConfigError naming each that is no multiple of
    `multiple` pixels.
    """
    squares = config.train.resolutions or [] if not config.train.buckets else []  # the sides of buckets are rounded
    wanted = [("family.resolution", config.family.resolution), *(("train.resolutions", side) for side in squares)]
    odd = [f"{key}={side}" for key, side in wanted if side and side % multiple]
    if odd:
        raise ConfigError(f"sizes that base={config.base} cannot draw:", odd, f"take a multiple of {multiple} pixels.")


@torch.no_grad()
def draw_pictures(
    models: LoadedBaseModel,
    prompts: Sequence[str],
    seeds: Sequence[int],
    settings: GenerateConfig,
    resolution: int,
    negatives: Sequence[str] = (),
) -> list[Image.Image]:
    """Draw one picture for each prompt, `resolution` pixels a side; each has the noise of its own seed, whichever
    pictures are drawn with it.

    `negatives`: for each prompt what guidance leads away from, empty for the family's own. Where all are empty, or the
    pipeline takes none (FLUX), it is not told any.

    The number drawn at once can change last bits: callers keep it fixed for a picture that must come out again. A base
    that draws alpha gives RGBA pictures, unless `models.background` names a colour to lay them on.
    """
    told: dict[str, list[Any]] = {  # of each prompt
        "prompt": list(prompts),
        "generator": [torch.Generator().manual_seed(seed) for seed in seeds],
    }
    if models.negative is not None or (any(negatives) and takes_negative_prompt(models)):
        told["negative_prompt"] = [text or models.negative or "" for text in negatives or [""] * len(prompts)]
    same: dict[str, Any] = {
        "height": resolution,
        "width": resolution,
        **pipeline_arguments_for_denoising_steps(models, settings.num_inference_steps),
    }
    same[models.guidance] = settings.guidance_scale - 1 + models.no_guidance
    at_once = 1 if models.draws_singly else len(prompts)
    drawn: list[Image.Image] = []
    with moving_text_encoders_to_device(models):
        for start in range(0, len(prompts), at_once):
            some = {name: values[start : start + at_once] for name, values in told.items()}
            drawn += models.pipeline(**some, **same).images
    return (
        drawn if models.background is None else [pictures.laid_on_background(one, models.background) for one in drawn]
    )


def pipeline_arguments_for_denoising_steps(models: LoadedBaseModel, count: int) -> dict[str, Any]:
    """The pipeline's arguments for `count` denoising steps.

    A base that brings its own noise levels would ignore the count: it is given even ones, unless it has as many.
    """
    own = models.pipeline.config.get("sample_sigmas")
    even = {"sigmas": torch.linspace(1, 1 / count, count).tolist()} if own and len(own) != count else {}
    return {"num_inference_steps": count, **even}


def takes_negative_prompt(models: LoadedBaseModel) -> bool:
    """Whether the pipeline has an argument for negative prompts."""
    return "negative_prompt" in inspect.signature(models.pipeline.__call__).parameters


@contextmanager
def moving_text_encoders_to_device(models: LoadedBaseModel) -> Iterator[None]:
    """A context with the text encoders on the denoiser's device, so that prompts can be encoded; at its end they are
    put back to where the trainer keeps them.
    """
    device: Any = models.denoiser.device
    away = [part for part in pipelines.text_encoders(models.pipeline) if part.device != device]
    before = [part.device for part in away]
    for part in away:
        part.to(device)
    try:
        yield
    finally:
        for part, place in zip(away, before, strict=True):
            part.to(place)
