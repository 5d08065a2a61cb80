"""SDXL: two CLIP text encoders, a UNet that is also told the picture's size, epsilon or v prediction.

Sizes are told as SDXL's paper has them (arXiv 2307.01952, section 2.2): original size, crop, target size. Pictures are
fitted before they are encoded and drawn at full size, so original and target are the picture's own and the crop is 0.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from torch import Tensor

from stylegate.families import pipelines, unet
from stylegate.families.base import Conditions, LoadedBaseModel
from stylegate.families.unet import COMPONENT, encode_to_latent_mean_and_deviation, lora_targets, weightless_model

__all__ = ["COMPONENT", "encode_to_latent_mean_and_deviation", "lora_targets", "weightless_model"]


def base_folder(base: str, weights: bool = True) -> Path:
    return pipelines.find_base_folder(base, "sdxl", StableDiffusionXLPipeline, weights)


def load(base: str, device: torch.device, dtype: torch.dtype) -> LoadedBaseModel:
    parts, folder = ("unet", "vae", "text_encoder", "text_encoder_2"), base_folder(base)
    # The watermark that the pipeline adds where a package is installed would change pictures behind our back.
    loaded = pipelines.load_pipeline(folder, StableDiffusionXLPipeline, parts, device, dtype, add_watermarker=False)
    return unet.base_model_of_unet_pipeline(loaded, folder)


def token_limit_and_caption_lengths(base: str, captions: list[str]) -> tuple[int, list[int]]:
    return pipelines.clip_token_limit_and_lengths(base_folder(base, weights=False), captions)


def encode_prompts(models: LoadedBaseModel, prompts: list[str]) -> Conditions:
    """Embeddings of the prompts: `words` [n, tokens, widths of both encoders], `pooled` [n, width of the second].

    The empty prompt is zeros where the pipeline draws its unconditional half so (`force_zeros_for_empty_prompt`).
    """
    pipeline = models.pipeline
    words, _, pooled, _ = pipeline.encode_prompt(
        prompts, device=pipeline.vae.device, num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    if pipeline.config.force_zeros_for_empty_prompt:
        empty = torch.tensor([not prompt for prompt in prompts], device=words.device)
        words, pooled = words.masked_fill(empty[:, None, None], 0), pooled.masked_fill(empty[:, None], 0)
    return {"words": words, "pooled": pooled}


def predict(models: LoadedBaseModel, denoiser: Any, noisy: Tensor, levels: Tensor, conditions: Conditions) -> Tensor:
    height, width = (side * models.pipeline.vae_scale_factor for side in noisy.shape[2:])
    sizes = torch.tensor([height, width, 0, 0, height, width], device=noisy.device, dtype=noisy.dtype)
    told = {"text_embeds": conditions["pooled"], "time_ids": sizes.expand(len(noisy), -1)}
    return denoiser(noisy, levels, encoder_hidden_states=conditions["words"], added_cond_kwargs=told).sample


def text_encoder_lora_targets(models: LoadedBaseModel) -> dict[str, list[str]]:
    """For each of the two text encoders, by its component: endings of the names of the attention modules that may get a
    LoRA.

    The last layer of the first one is left out, since its output is not used.
    """
    one, two = (encoder.config.num_hidden_layers for encoder in pipelines.text_encoders(models.pipeline))
    return {"text_encoder": unet.clip_attention_endings(one - 1), "text_encoder_2": unet.clip_attention_endings(two)}


def lora_header_entries_about_base(models: LoadedBaseModel) -> dict[str, str]:
    return {
        "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "ss_base_model_version": "sdxl_base_v1-0",
        "ss_v2": "False",
    }
