"""What a model family is: one small module of these functions, chosen by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

# What the denoiser is told of prompts, by the family's own names; [n, ...] each. Where there is a `length` [n], what
# `words` [n, tokens, ...] holds after it is padding.
Conditions = dict[str, Tensor]


class NoiseSchedule(NamedTuple):
    """Noise levels of training: x_t = signal[t] * latents + sigma[t] * noise, level 0 nearly clean."""

    signal: Tensor  # [T]
    sigma: Tensor  # [T]
    prediction: str  # "epsilon", "v" or "flow"


class LoadedBaseModel(NamedTuple):
    """A loaded base model: the pipeline for drawing, and the parts that the trainer needs."""

    pipeline: Any  # a diffusers pipeline
    denoiser: torch.nn.Module  # gets the LoRA
    schedule: NoiseSchedule
    resolution: int  # pixels a side that the base was trained for
    multiple: int  # of pixels that sides must be, so that every stage of the denoiser halves evenly
    sha256: str  # of the base's weights and configs
    guidance: str = "guidance_scale"  # what the pipeline calls the strength of guidance
    no_guidance: float = 1.0  # the pipeline's own value for none; Krea 2 counts from 0
    distilled: bool = False  # to few steps: not what to train on
    unused_layers: tuple[
        str, ...
    ] = ()  # layers whose output nothing reads: no adapter, or several processes wait for it
    negative: str | None = None  # the prompt that guidance leads away from; None = the pipeline's own
    draws_alpha: bool = False  # pictures have a fourth channel: 255 where they are opaque
    background: str | None = None  # the colour that drawn pictures with alpha are laid on; None = alpha is kept
    draws_singly: bool = False  # beside a longer prompt a picture would come out otherwise


class WeightlessModel(NamedTuple):
    """A base without weights, to count its numbers and try its shapes: the denoiser is on torch's meta device."""

    denoiser: Any
    resolution: int
    multiple: int
    latent_numbers: float  # a pixel
    example_inputs: Callable[
        [int, int, int], dict[str, Any]
    ]  # batch, height, width in pixels -> the denoiser's arguments


class Family(Protocol):
    """What each model family provides, so that trainer and gate need not know it.

    pixels [n, 3, h, w] in [-1, 1], [n, 4, h, w] where the base draws alpha; latents [n, c, h/f, w/f]; levels int64 [n].
    """

    COMPONENT: str  # of the pipeline, which gets the LoRA; keys of LoRA files begin with it

    def base_folder(self, base: str, weights: bool = True) -> Path:
        """The folder of a base: a shipped name, a path, or a hub id (`owner/name@revision`), which is downloaded;
        without its weights if `weights` is False.

        Raises ModelError if there is none, or if it is of another family.
        """
        ...

    def load(self, base: str, device: torch.device, dtype: torch.dtype) -> LoadedBaseModel:
        """Load the base from safetensors alone; denoiser and text encoders in `dtype`, the autoencoder in fp32.

        Raises ModelError if `base` is no pipeline of this family.
        """
        ...

    def weightless_model(self, folder: Path) -> WeightlessModel:
        """The base without weights, built from the config files in `folder`."""
        ...

    def token_limit_and_caption_lengths(self, base: str, captions: list[str]) -> tuple[int, list[int]]:
        """The most tokens that the text encoder reads, and each caption's number of tokens, with those at start and
        end.
        """
        ...

    def encode_prompts(self, models: LoadedBaseModel, prompts: list[str]) -> Conditions:
        """The embeddings that tell the denoiser the prompts, a row for each prompt, on the autoencoder's device;
        prompts that are too long are cut.
        """
        ...

    def encode_to_latent_mean_and_deviation(self, models: LoadedBaseModel, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the scaled latents of `pixels`, [n, c, h/f, w/f] each (deviation 0 for a
        deterministic encoder).
        """
        ...

    def predict(
        self, models: LoadedBaseModel, denoiser: Any, noisy: Tensor, levels: Tensor, conditions: Conditions
    ) -> Tensor:
        """What the denoiser predicts, [n, c, h/f, w/f]: noise, v or velocity, as `schedule.prediction` says.

        `noisy` are noisy latents, `levels` the indices of their noise levels in the schedule, int64 [n]. `denoiser` is
        that of `models`, or the same one wrapped for distributed training.
        """
        ...

    def lora_header_entries_about_base(self, models: LoadedBaseModel) -> dict[str, str]:
        """The entries about the base that go into a LoRA file's header: ModelSpec's architecture and implementation,
        and kohya's ss_ keys.
        """
        ...

    def lora_targets(self, kinds: list[str]) -> list[str]:
        """Endings of the names of modules that get a LoRA, for the kinds asked for: attention, feed_forward,
        convolution.
        """
        ...

    def text_encoder_lora_targets(self, models: LoadedBaseModel) -> dict[str, list[str]]:
        """For each text encoder that may be trained, by its component in the pipeline: endings of the names of its
        attention modules.

        The mapping is empty for a family whose text encoders are not trained.
        """
        ...
