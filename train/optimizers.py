"""Optimizers, the learning rate, and the average of the weights. Optimizers from outside torch are an extra."""

import importlib
import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from stylegate.configgroups import TrainConfig
from stylegate.errors import ConfigError

EXTRAS = {"adamw8bit": ("bitsandbytes.optim", "AdamW8bit"), "prodigy": ("prodigyopt", "Prodigy")}


def build_optimizer(settings: TrainConfig, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    """The configured optimizer for the parameters. Raises ConfigError if its package is not installed."""
    shared: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(parameters, **shared)
    module, name = EXTRAS[settings.optimizer]
    try:
        kind = getattr(importlib.import_module(module), name)
    except ImportError:
        raise ConfigError(
            f"train.optimizer={settings.optimizer} needs {module.partition('.')[0]}, which is not installed",
            next_step="pip install -e '.[optimizers]', or train.optimizer=adamw.",
        ) from None
    if settings.optimizer == "prodigy":  # as its authors advise for diffusion models
        shared |= {"use_bias_correction": True, "safeguard_warmup": True, "decouple": True}
    return kind(parameters, **shared)


def learning_rate_at(settings: TrainConfig, step: int) -> float:
    """The learning rate at `step`, counted from 0: a linear warm-up, then constant or half a cosine to zero at
    max_steps.
    """
    warm = min(1.0, (step + 1) / max(settings.warmup_steps, 1))
    if settings.schedule == "constant":
        return settings.learning_rate * warm
    share = (step - settings.warmup_steps) / max(settings.max_steps - settings.warmup_steps, 1)
    return settings.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * min(max(share, 0.0), 1.0)))


def update_weight_average(average: Sequence[Tensor], parameters: Sequence[Tensor], decay: float, step: int) -> None:
    """Move each averaged weight, in place, 1 - `decay` of the way to the trained one; farther in early steps, so that
    the weights of the beginning are forgotten.
    """
    for mean, parameter in zip(average, parameters, strict=True):
        mean.lerp_(parameter.detach(), 1 - min(decay, (1 + step) / (10 + step)))
