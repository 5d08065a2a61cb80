"""FLUX.1: a transformer on 2 x 2 patches of latents, words of a T5 encoder, one vector of a CLIP's, flow matching.

FLUX.1 dev has guidance distilled into it: it is told a scale. It is trained at GUIDANCE, where the scale changes
nothing, and drawn at generate.guidance_scale. Its weights are not for commercial use without a licence.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
from torch import Tensor

from stylegate import files
from stylegate.families import flow, pipelines
from stylegate.families.base import Conditions, LoadedBaseModel, WeightlessModel
from stylegate.families.flow import COMPONENT, MAX_TOKENS, text_encoder_lora_targets

__all__ = ["COMPONENT", "text_encoder_lora_targets"]
RESOLUTION = 1024  # pixels a side that it was trained for
GUIDANCE = 1.0  # as kohya's trainer has it
SINGLE_BLOCKS = 64  # more than any released model has: endings that match nothing do no harm
TARGETS = {
    "attention": flow.JOINT_ATTENTION,
    "feed_forward": [
        *("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2", "proj_mlp"),
        *(f"single_transformer_blocks.{i}.proj_out" for i in range(SINGLE_BLOCKS)),
    ],
    "convolution": [],
}


def base_folder(base: str, weights: bool = True) -> Path:
    return pipelines.find_base_folder(base, "flux", FluxPipeline, weights)


def load(base: str, device: torch.device, dtype: torch.dtype) -> LoadedBaseModel:
    parts, folder = ("transformer", "vae", "text_encoder", "text_encoder_2"), base_folder(base)
    pipeline = pipelines.load_pipeline(folder, FluxPipeline, parts, device, dtype)
    return LoadedBaseModel(
        pipeline=pipeline,
        denoiser=pipeline.transformer,
        schedule=flow.flow_matching_schedule(),
        resolution=RESOLUTION,
        multiple=2 * pipeline.vae_scale_factor,
        sha256=pipelines.weights_digest(folder),
        distilled=not pipeline.transformer.config.guidance_embeds,  # schnell
    )


def weightless_model(folder: Path) -> WeightlessModel:
    config, vae = (
        files.read_json(folder / part / "config.json", f"the {part}'s config", key)
        for part, key in (("transformer", "pooled_projection_dim"), ("vae", "block_out_channels"))
    )
    patch = 2 * 2 ** (len(vae["block_out_channels"]) - 1)
    transformer: Any = pipelines.build_on_meta_device(FluxTransformer2DModel, config)

    def inputs_on_meta_device(batch: int, height: int, width: int) -> dict[str, Any]:
        count = (height // patch) * (width // patch)
        shapes = {
            "hidden_states": (batch, count, transformer.config.in_channels),
            "encoder_hidden_states": (batch, MAX_TOKENS, transformer.config.joint_attention_dim),
            "pooled_projections": (batch, transformer.config.pooled_projection_dim),
            "timestep": (batch,),
            "img_ids": (count, 3),
            "txt_ids": (MAX_TOKENS, 3),
        }
        shapes |= {"guidance": (batch,)} if transformer.config.guidance_embeds else {}
        return {name: torch.zeros(shape, device="meta") for name, shape in shapes.items()}

    return WeightlessModel(
        transformer, RESOLUTION, patch, transformer.config.in_channels / patch**2, inputs_on_meta_device
    )


def token_limit_and_caption_lengths(base: str, captions: list[str]) -> tuple[int, list[int]]:
    return flow.token_limit_and_lengths(base_folder(base, weights=False), "tokenizer_2", captions)


def encode_prompts(models: LoadedBaseModel, prompts: list[str]) -> Conditions:
    """Embeddings of the prompts: `words` [n, 512, width of T5] by token, `pooled` [n, width of CLIP] of the whole."""
    pipeline = models.pipeline
    words, pooled, _ = pipeline.encode_prompt(prompts, device=pipeline.vae.device, max_sequence_length=MAX_TOKENS)
    return {"words": words, "pooled": pooled}


def encode_to_latent_mean_and_deviation(models: LoadedBaseModel, pixels: Tensor) -> tuple[Tensor, Tensor]:
    return flow.encode_to_normalised_latent_distribution(models.pipeline.vae, pixels)


def predict(models: LoadedBaseModel, denoiser: Any, noisy: Tensor, levels: Tensor, conditions: Conditions) -> Tensor:
    count, _, height, width = noisy.shape
    place = {"device": noisy.device, "dtype": noisy.dtype}
    told = models.denoiser.config.guidance_embeds  # type: ignore[union-attr]
    predicted = denoiser(
        hidden_states=flow.pack_latents(noisy),
        timestep=models.schedule.sigma.to(levels.device)[levels],
        guidance=torch.full((count,), GUIDANCE, device=noisy.device) if told else None,
        pooled_projections=conditions["pooled"],
        encoder_hidden_states=conditions["words"],
        txt_ids=torch.zeros(conditions["words"].shape[1], 3, **place),
        img_ids=models.pipeline._prepare_latent_image_ids(count, height // 2, width // 2, **place),
        return_dict=False,
    )[0]
    return flow.unpack_latents(predicted, noisy.shape)


def lora_targets(kinds: list[str]) -> list[str]:
    return [ending for kind in kinds for ending in TARGETS[kind]]


def lora_header_entries_about_base(models: LoadedBaseModel) -> dict[str, str]:
    kind = "dev" if models.pipeline.transformer.config.guidance_embeds else "schnell"
    return {
        "modelspec.architecture": f"flux-1-{kind}/lora",
        "modelspec.implementation": "https://github.com/black-forest-labs/flux",
        "ss_base_model_version": "flux1",
    }
