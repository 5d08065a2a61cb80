"""Qwen-Image: a transformer on 2 x 2 patches of latents, words of a Qwen2.5-VL encoder, flow matching."""

from pathlib import Path
from typing import Any

import torch
from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel
from diffusers.pipelines.qwenimage.pipeline_qwenimage import QwenImagePipeline
from torch import Tensor

from stylegate import files
from stylegate.families import flow, pipelines
from stylegate.families.base import Conditions, LoadedBaseModel, WeightlessModel
from stylegate.families.flow import COMPONENT, MAX_TOKENS, text_encoder_lora_targets

__all__ = ["COMPONENT", "text_encoder_lora_targets"]
TARGETS = {
    "attention": flow.JOINT_ATTENTION,
    "feed_forward": [f"{side}_mlp.net.{layer}" for side in ("img", "txt") for layer in ("0.proj", "2")],
    "convolution": [],
}
LAST_UNUSED = ("attn.add_q_proj", "attn.to_add_out", "txt_mlp.net.0.proj", "txt_mlp.net.2")  # words end there


def base_folder(base: str, weights: bool = True) -> Path:
    return pipelines.find_base_folder(base, "qwenimage", QwenImagePipeline, weights)


def load(base: str, device: torch.device, dtype: torch.dtype) -> LoadedBaseModel:
    parts, folder = ("transformer", "vae", "text_encoder"), base_folder(base)
    pipeline = pipelines.load_pipeline(folder, QwenImagePipeline, parts, device, dtype)
    last = f"transformer_blocks.{len(pipeline.transformer.transformer_blocks) - 1}"
    return LoadedBaseModel(
        pipeline=pipeline,
        denoiser=pipeline.transformer,
        schedule=flow.flow_matching_schedule(),
        resolution=pipeline.default_sample_size * pipeline.vae_scale_factor,
        multiple=2 * pipeline.vae_scale_factor,
        sha256=pipelines.weights_digest(folder),
        guidance="true_cfg_scale",
        unused_layers=tuple(f"{last}.{part}" for part in LAST_UNUSED),
        negative=" ",  # without one the pipeline does not guide
    )


def weightless_model(folder: Path) -> WeightlessModel:
    config, vae = (
        files.read_json(folder / part / "config.json", f"the {part}'s config", key)
        for part, key in (("transformer", "joint_attention_dim"), ("vae", "temperal_downsample"))
    )
    patch = 2 * 2 ** len(vae["temperal_downsample"])
    transformer: Any = pipelines.build_on_meta_device(QwenImageTransformer2DModel, config)

    def inputs_on_meta_device(batch: int, height: int, width: int) -> dict[str, Any]:
        rows, columns = height // patch, width // patch
        shapes = {
            "hidden_states": (batch, rows * columns, transformer.config.in_channels),
            "encoder_hidden_states": (batch, MAX_TOKENS, transformer.config.joint_attention_dim),
            "timestep": (batch,),
        }
        made: dict[str, Any] = {name: torch.zeros(shape, device="meta") for name, shape in shapes.items()}
        return made | {"img_shapes": [[(1, rows, columns)]] * batch}

    return WeightlessModel(transformer, 1024, patch, transformer.config.in_channels / patch**2, inputs_on_meta_device)


def token_limit_and_caption_lengths(base: str, captions: list[str]) -> tuple[int, list[int]]:
    return flow.token_limit_and_lengths(base_folder(base, weights=False), "tokenizer", captions)


def encode_prompts(models: LoadedBaseModel, prompts: list[str]) -> Conditions:
    """Embeddings of the prompts by token: `words` [n, 512, width]; the first `length` [n] of each are not padding."""
    pipeline = models.pipeline
    found, mask = pipeline.encode_prompt(prompts, device=pipeline.vae.device, max_sequence_length=MAX_TOKENS)
    words = torch.zeros(len(found), MAX_TOKENS, found.shape[2], device=found.device, dtype=found.dtype)
    words[:, : found.shape[1]] = found
    whole = torch.full((len(found),), found.shape[1], device=found.device)
    return {"words": words, "length": whole if mask is None else mask.sum(1)}


def encode_to_latent_mean_and_deviation(models: LoadedBaseModel, pixels: Tensor) -> tuple[Tensor, Tensor]:
    return flow.encode_as_one_frame_video(models.pipeline.vae, pixels)


def predict(models: LoadedBaseModel, denoiser: Any, noisy: Tensor, levels: Tensor, conditions: Conditions) -> Tensor:
    words, mask = flow.trim_prompt_padding_and_make_mask(conditions)
    predicted = denoiser(
        hidden_states=flow.pack_latents(noisy),
        timestep=models.schedule.sigma.to(levels.device)[levels],
        encoder_hidden_states=words,
        encoder_hidden_states_mask=None if mask is None else mask.long(),
        img_shapes=[[(1, noisy.shape[2] // 2, noisy.shape[3] // 2)]] * len(noisy),
        return_dict=False,
    )[0]
    return flow.unpack_latents(predicted, noisy.shape)


def lora_targets(kinds: list[str]) -> list[str]:
    return [ending for kind in kinds for ending in TARGETS[kind]]


def lora_header_entries_about_base(models: LoadedBaseModel) -> dict[str, str]:
    return {
        "modelspec.architecture": "Qwen-Image/lora",
        "modelspec.implementation": "https://github.com/QwenLM/Qwen-Image",
        "ss_base_model_version": "qwen_image",
    }
