"""FLUX.2 klein: a transformer on 2 x 2 patches of normalised latents, words of a Qwen3 encoder, flow matching.

Latents are [n, 4 c, h/16, w/16] here: patched and normalised as the pipeline has them between autoencoder and
transformer. Train on a base model, not a distilled one: what it draws in four steps it cannot learn in.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers.models.transformers.transformer_flux2 import Flux2Transformer2DModel
from diffusers.pipelines.flux2.pipeline_flux2_klein import Flux2KleinPipeline
from torch import Tensor

from stylegate import files
from stylegate.families import flow, pipelines
from stylegate.families.base import Conditions, LoadedBaseModel, WeightlessModel
from stylegate.families.flow import COMPONENT, MAX_TOKENS, text_encoder_lora_targets

__all__ = ["COMPONENT", "text_encoder_lora_targets"]
SINGLE_BLOCKS = 64  # more than any released model has: endings that match nothing do no harm
TARGETS = {
    "attention": [
        *(
            "to_q",
            "to_k",
            "to_v",
            "to_out.0",
            "add_q_proj",
            "add_k_proj",
            "add_v_proj",
            "to_add_out",
            "to_qkv_mlp_proj",
        ),
        *(f"single_transformer_blocks.{i}.attn.to_out" for i in range(SINGLE_BLOCKS)),
    ],
    "feed_forward": ["ff.linear_in", "ff.linear_out", "ff_context.linear_in", "ff_context.linear_out"],
    "convolution": [],
}


def base_folder(base: str, weights: bool = True) -> Path:
    return pipelines.find_base_folder(base, "flux2", Flux2KleinPipeline, weights)


def load(base: str, device: torch.device, dtype: torch.dtype) -> LoadedBaseModel:
    parts, folder = ("transformer", "vae", "text_encoder"), base_folder(base)
    pipeline = pipelines.load_pipeline(folder, Flux2KleinPipeline, parts, device, dtype)
    return LoadedBaseModel(
        pipeline=pipeline,
        denoiser=pipeline.transformer,
        schedule=flow.flow_matching_schedule(),
        resolution=pipeline.default_sample_size * pipeline.vae_scale_factor,
        multiple=2 * pipeline.vae_scale_factor,
        sha256=pipelines.weights_digest(folder),
        distilled=bool(pipeline.config.is_distilled),
    )


def weightless_model(folder: Path) -> WeightlessModel:
    config, vae = (
        files.read_json(folder / part / "config.json", f"the {part}'s config", key)
        for part, key in (("transformer", "joint_attention_dim"), ("vae", "block_out_channels"))
    )
    patch = 2 * 2 ** (len(vae["block_out_channels"]) - 1)
    transformer: Any = pipelines.build_on_meta_device(Flux2Transformer2DModel, config)

    def inputs_on_meta_device(batch: int, height: int, width: int) -> dict[str, Any]:
        count = (height // patch) * (width // patch)
        shapes = {
            "hidden_states": (batch, count, transformer.config.in_channels),
            "encoder_hidden_states": (batch, MAX_TOKENS, transformer.config.joint_attention_dim),
            "timestep": (batch,),
            "img_ids": (batch, count, 4),
            "txt_ids": (batch, MAX_TOKENS, 4),
        }
        return {name: torch.zeros(shape, device="meta") for name, shape in shapes.items()}

    return WeightlessModel(transformer, 1024, patch, transformer.config.in_channels / patch**2, inputs_on_meta_device)


def token_limit_and_caption_lengths(base: str, captions: list[str]) -> tuple[int, list[int]]:
    return flow.chat_token_limit_and_lengths(base_folder(base, weights=False), captions)


def encode_prompts(models: LoadedBaseModel, prompts: list[str]) -> Conditions:
    """Embeddings of the prompts by token: `words` [n, tokens, width]."""
    return {"words": models.pipeline.encode_prompt(prompts, device=models.pipeline.vae.device)[0]}


def encode_to_latent_mean_and_deviation(models: LoadedBaseModel, pixels: Tensor) -> tuple[Tensor, Tensor]:
    vae = models.pipeline.vae
    found = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist
    mean, deviation = (models.pipeline._patchify_latents(part) for part in (found.mean, found.std))
    centre = vae.bn.running_mean.view(1, -1, 1, 1)
    width = torch.sqrt(vae.bn.running_var.view(1, -1, 1, 1) + vae.config.batch_norm_eps)
    return (mean - centre) / width, deviation / width


def predict(models: LoadedBaseModel, denoiser: Any, noisy: Tensor, levels: Tensor, conditions: Conditions) -> Tensor:
    pipeline, words = models.pipeline, conditions["words"]
    predicted = denoiser(
        hidden_states=pipeline._pack_latents(noisy),
        timestep=models.schedule.sigma.to(levels.device)[levels],
        guidance=None,
        encoder_hidden_states=words,
        txt_ids=pipeline._prepare_text_ids(words).to(noisy.device),
        img_ids=pipeline._prepare_latent_ids(noisy).to(noisy.device),
        return_dict=False,
    )[0]
    return predicted.transpose(1, 2).reshape(noisy.shape)


def lora_targets(kinds: list[str]) -> list[str]:
    return [ending for kind in kinds for ending in TARGETS[kind]]


def lora_header_entries_about_base(models: LoadedBaseModel) -> dict[str, str]:
    return {
        "modelspec.architecture": "Flux.2-klein/lora",
        "modelspec.implementation": "https://github.com/black-forest-labs/flux2",
        "ss_base_model_version": "flux2",
    }
