"""Stable Diffusion 3 and 3.5: a transformer on latents, words of two CLIP encoders and a T5, flow matching."""

from pathlib import Path
from typing import Any

import torch
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline
from torch import Tensor

from stylegate import files
from stylegate.families import flow, pipelines
from stylegate.families.base import Conditions, LoadedBaseModel, WeightlessModel
from stylegate.families.flow import COMPONENT, text_encoder_lora_targets

__all__ = ["COMPONENT", "text_encoder_lora_targets"]
CLIP_TOKENS, T5_TOKENS = 77, 256  # as the pipeline has them
TARGETS = {
    "attention": flow.JOINT_ATTENTION,
    "feed_forward": ["ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"],
    "convolution": [],
}


def base_folder(base: str, weights: bool = True) -> Path:
    return pipelines.find_base_folder(base, "sd3", StableDiffusion3Pipeline, weights)


def load(base: str, device: torch.device, dtype: torch.dtype) -> LoadedBaseModel:
    parts, folder = ("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"), base_folder(base)
    pipeline = pipelines.load_pipeline(folder, StableDiffusion3Pipeline, parts, device, dtype)
    last = len(pipeline.transformer.transformer_blocks) - 1
    return LoadedBaseModel(
        pipeline=pipeline,
        denoiser=pipeline.transformer,
        schedule=flow.flow_matching_schedule(),
        resolution=pipeline.transformer.config.sample_size * pipeline.vae_scale_factor,
        multiple=pipeline.transformer.config.patch_size * pipeline.vae_scale_factor,
        sha256=pipelines.weights_digest(folder),
        unused_layers=(f"transformer_blocks.{last}.attn.add_q_proj",),
    )


def weightless_model(folder: Path) -> WeightlessModel:
    config, vae = (
        files.read_json(folder / part / "config.json", f"the {part}'s config", key)
        for part, key in (("transformer", "pooled_projection_dim"), ("vae", "block_out_channels"))
    )
    factor = 2 ** (len(vae["block_out_channels"]) - 1)
    transformer: Any = pipelines.build_on_meta_device(SD3Transformer2DModel, config)
    told = transformer.config

    def inputs_on_meta_device(batch: int, height: int, width: int) -> dict[str, Any]:
        shapes = {
            "hidden_states": (batch, told.in_channels, height // factor, width // factor),
            "encoder_hidden_states": (batch, CLIP_TOKENS + T5_TOKENS, told.joint_attention_dim),
            "pooled_projections": (batch, told.pooled_projection_dim),
            "timestep": (batch,),
        }
        return {name: torch.zeros(shape, device="meta") for name, shape in shapes.items()}

    side, multiple = told.sample_size * factor, told.patch_size * factor
    return WeightlessModel(transformer, side, multiple, told.in_channels / factor**2, inputs_on_meta_device)


def token_limit_and_caption_lengths(base: str, captions: list[str]) -> tuple[int, list[int]]:
    """The limit of T5, and each caption's length in its tokens; the two CLIP encoders read the first 77 tokens."""
    limit, lengths = flow.token_limit_and_lengths(base_folder(base, weights=False), "tokenizer_3", captions)
    return min(limit, T5_TOKENS), lengths


def encode_prompts(models: LoadedBaseModel, prompts: list[str]) -> Conditions:
    """Embeddings of the prompts: `words` [n, 77 + 256, width of T5] by token, `pooled` [n, widths of both CLIPs]."""
    pipeline = models.pipeline
    words, _, pooled, _ = pipeline.encode_prompt(
        prompts, None, None, pipeline.vae.device, do_classifier_free_guidance=False, max_sequence_length=T5_TOKENS
    )
    return {"words": words, "pooled": pooled}


def encode_to_latent_mean_and_deviation(models: LoadedBaseModel, pixels: Tensor) -> tuple[Tensor, Tensor]:
    return flow.encode_to_normalised_latent_distribution(models.pipeline.vae, pixels)


def predict(models: LoadedBaseModel, denoiser: Any, noisy: Tensor, levels: Tensor, conditions: Conditions) -> Tensor:
    return denoiser(
        hidden_states=noisy,
        timestep=models.schedule.sigma.to(levels.device)[levels] * flow.LEVELS,
        encoder_hidden_states=conditions["words"],
        pooled_projections=conditions["pooled"],
        return_dict=False,
    )[0]


def lora_targets(kinds: list[str]) -> list[str]:
    return [ending for kind in kinds for ending in TARGETS[kind]]


def lora_header_entries_about_base(models: LoadedBaseModel) -> dict[str, str]:
    """The entries about the base that go into a LoRA file's header: 3 medium, 3.5 medium or 3.5 large, told apart by
    the transformer's config.

    3.5 medium attends twice in some layers; 3.5 large normalises queries and keys; 3 medium does neither.
    """
    config = models.pipeline.transformer.config
    size = "5-medium" if config.dual_attention_layers else "5-large" if config.qk_norm else "m"
    return {
        "modelspec.architecture": f"stable-diffusion-3-{size}/lora",
        "modelspec.implementation": "https://github.com/Stability-AI/sd3.5",
        "ss_base_model_version": "sd3",
    }
