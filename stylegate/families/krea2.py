"""Krea 2: a transformer over words and 2 x 2 patches of latents in one sequence, flow matching.

Words are the states of several layers of a Qwen3-VL encoder. Train on the raw base, not on Turbo: what a distilled
model draws in eight steps it cannot learn in.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers.models.transformers.transformer_krea2 import Krea2Transformer2DModel
from diffusers.pipelines.krea2.pipeline_krea2 import Krea2Pipeline
from torch import Tensor

from stylegate import files
from stylegate.families import flow, pipelines
from stylegate.families.base import Conditions, LoadedBaseModel, WeightlessModel
from stylegate.families.flow import COMPONENT, MAX_TOKENS, text_encoder_lora_targets

__all__ = ["COMPONENT", "text_encoder_lora_targets"]
RESOLUTION = 1024  # pixels a side that it was trained for
TARGETS = {
    "attention": ["to_q", "to_k", "to_v", "to_out.0", "to_gate"],
    "feed_forward": ["ff.gate", "ff.up", "ff.down"],
    "convolution": [],
}
SYSTEM_TOKENS, END_TOKENS = 34, 5  # of the chat around a prompt: before it (not kept), and after it


def base_folder(base: str, weights: bool = True) -> Path:
    return pipelines.find_base_folder(base, "krea2", Krea2Pipeline, weights)


def load(base: str, device: torch.device, dtype: torch.dtype) -> LoadedBaseModel:
    parts, folder = ("transformer", "vae", "text_encoder"), base_folder(base)
    pipeline = pipelines.load_pipeline(folder, Krea2Pipeline, parts, device, dtype)
    return LoadedBaseModel(
        pipeline=pipeline,
        denoiser=pipeline.transformer,
        schedule=flow.flow_matching_schedule(),
        resolution=RESOLUTION,
        multiple=pipeline.patch_size * pipeline.vae_scale_factor,
        sha256=pipelines.weights_digest(folder),
        no_guidance=0.0,
        distilled=bool(pipeline.config.is_distilled),
    )


def weightless_model(folder: Path) -> WeightlessModel:
    config, vae = (
        files.read_json(folder / part / "config.json", f"the {part}'s config", key)
        for part, key in (("transformer", "text_hidden_dim"), ("vae", "temperal_downsample"))
    )
    patch = 2 * 2 ** len(vae["temperal_downsample"])
    transformer: Any = pipelines.build_on_meta_device(Krea2Transformer2DModel, config)
    told = transformer.config

    def inputs_on_meta_device(batch: int, height: int, width: int) -> dict[str, Any]:
        count = (height // patch) * (width // patch)
        shapes = {
            "hidden_states": (batch, count, told.in_channels),
            "encoder_hidden_states": (batch, MAX_TOKENS, told.num_text_layers, told.text_hidden_dim),
            "timestep": (batch,),
            "position_ids": (MAX_TOKENS + count, 3),
        }
        return {name: torch.zeros(shape, device="meta") for name, shape in shapes.items()}

    return WeightlessModel(transformer, RESOLUTION, patch, told.in_channels / patch**2, inputs_on_meta_device)


def token_limit_and_caption_lengths(base: str, captions: list[str]) -> tuple[int, list[int]]:
    limit, lengths = flow.token_limit_and_lengths(base_folder(base, weights=False), "tokenizer", captions)
    return limit - END_TOKENS, lengths


def encode_prompts(models: LoadedBaseModel, prompts: list[str]) -> Conditions:
    """States of the prompts by token and layer: `words` [n, tokens, layers, width]; the first `length` [n] of each are
    not padding.

    The pipeline pads between a prompt and the end of the chat. The transformer gives words no positions and passes over
    padding, so that it may as well stand last.
    """
    found, mask = models.pipeline.encode_prompt(prompts, device=models.pipeline.vae.device)
    words = torch.zeros_like(found)
    for row, own, kept in zip(words, found, mask, strict=True):
        row[: int(kept.sum())] = own[kept]
    return {"words": words, "length": mask.sum(1)}


def encode_to_latent_mean_and_deviation(models: LoadedBaseModel, pixels: Tensor) -> tuple[Tensor, Tensor]:
    return flow.encode_as_one_frame_video(models.pipeline.vae, pixels)


def predict(models: LoadedBaseModel, denoiser: Any, noisy: Tensor, levels: Tensor, conditions: Conditions) -> Tensor:
    words, mask = flow.trim_prompt_padding_and_make_mask(conditions)
    rows, columns = noisy.shape[2] // 2, noisy.shape[3] // 2
    predicted = denoiser(
        hidden_states=flow.pack_latents(noisy),
        encoder_hidden_states=words,
        timestep=models.schedule.sigma.to(levels.device)[levels],
        position_ids=models.pipeline.prepare_position_ids(words.shape[1], rows, columns, noisy.device),
        encoder_attention_mask=mask,
        return_dict=False,
    )[0]
    return flow.unpack_latents(predicted, noisy.shape)


def lora_targets(kinds: list[str]) -> list[str]:
    return [ending for kind in kinds for ending in TARGETS[kind]]


def lora_header_entries_about_base(models: LoadedBaseModel) -> dict[str, str]:
    return {
        "modelspec.architecture": "Krea-2/lora",
        "modelspec.implementation": "https://github.com/krea-ai/krea-2",
        "ss_base_model_version": "krea2",
    }
