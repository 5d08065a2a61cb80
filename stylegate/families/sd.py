"""Stable Diffusion 1.x and 2.x, and the shipped miniature: one CLIP text encoder, a UNet, epsilon or v prediction."""

from pathlib import Path
from typing import Any

import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from torch import Tensor

from stylegate.families import pipelines, unet
from stylegate.families.base import Conditions, LoadedBaseModel
from stylegate.families.unet import COMPONENT, encode_to_latent_mean_and_deviation, lora_targets, weightless_model

__all__ = ["COMPONENT", "encode_to_latent_mean_and_deviation", "lora_targets", "weightless_model"]


def base_folder(base: str, weights: bool = True) -> Path:
    return pipelines.find_base_folder(base, "sd", StableDiffusionPipeline, weights)


def load(base: str, device: torch.device, dtype: torch.dtype) -> LoadedBaseModel:
    # The safety checker paints pictures black behind our back; what leaves the house is the gate's business.
    told: dict[str, Any] = {"safety_checker": None, "requires_safety_checker": False}
    parts, folder = ("unet", "vae", "text_encoder"), base_folder(base)
    return unet.base_model_of_unet_pipeline(
        pipelines.load_pipeline(folder, StableDiffusionPipeline, parts, device, dtype, **told), folder
    )


def token_limit_and_caption_lengths(base: str, captions: list[str]) -> tuple[int, list[int]]:
    return pipelines.clip_token_limit_and_lengths(base_folder(base, weights=False), captions)


def encode_prompts(models: LoadedBaseModel, prompts: list[str]) -> Conditions:
    """Embeddings of the prompts by token: `words` [n, tokens, width]."""
    pipeline = models.pipeline
    return {"words": pipeline.encode_prompt(prompts, pipeline.vae.device, 1, do_classifier_free_guidance=False)[0]}


def predict(models: LoadedBaseModel, denoiser: Any, noisy: Tensor, levels: Tensor, conditions: Conditions) -> Tensor:
    return denoiser(noisy, levels, encoder_hidden_states=conditions["words"]).sample


def text_encoder_lora_targets(models: LoadedBaseModel) -> dict[str, list[str]]:
    return {"text_encoder": unet.clip_attention_endings(models.pipeline.text_encoder.config.num_hidden_layers)}


def lora_header_entries_about_base(models: LoadedBaseModel) -> dict[str, str]:
    """The entries about the base that go into a LoRA file's header: 1.x or 2.x, told apart by the width of the prompt
    embeddings, 768 or 1,024.
    """
    named = {"modelspec.implementation": "diffusers", "modelspec.architecture": "stable-diffusion-v1/lora"}
    if models.pipeline.unet.config.cross_attention_dim != 1024:
        return named | {"ss_base_model_version": "sd_v1", "ss_v2": "False"}
    size = "768-v" if models.schedule.prediction == "v" else "512"
    named["modelspec.architecture"] = f"stable-diffusion-v2-{size}/lora"
    return named | {"ss_base_model_version": "sd_v2", "ss_v2": "True"}
