"""Z-Image: a transformer over picture and words in one sequence, a Qwen3 encoder, flow matching.

Train on the base, not on Turbo: what a distilled model draws in eight steps it cannot learn in.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers.models.transformers.transformer_z_image import ZImageTransformer2DModel
from diffusers.pipelines.z_image.pipeline_z_image import ZImagePipeline
from torch import Tensor

from stylegate import files
from stylegate.families import flow, pipelines
from stylegate.families.base import Conditions, LoadedBaseModel, WeightlessModel
from stylegate.families.flow import COMPONENT, MAX_TOKENS, text_encoder_lora_targets

__all__ = ["COMPONENT", "text_encoder_lora_targets"]
RESOLUTION = 1024  # pixels a side that it was trained for
TARGETS = {
    "attention": ["to_q", "to_k", "to_v", "to_out.0"],
    "feed_forward": ["feed_forward.w1", "feed_forward.w2", "feed_forward.w3"],
    "convolution": [],
}


def base_folder(base: str, weights: bool = True) -> Path:
    return pipelines.find_base_folder(base, "zimage", ZImagePipeline, weights)


def load(base: str, device: torch.device, dtype: torch.dtype) -> LoadedBaseModel:
    parts, folder = ("transformer", "vae", "text_encoder"), base_folder(base)
    pipeline = pipelines.load_pipeline(folder, ZImagePipeline, parts, device, dtype)
    return LoadedBaseModel(
        pipeline=pipeline,
        denoiser=pipeline.transformer,
        schedule=flow.flow_matching_schedule(),
        resolution=RESOLUTION,
        multiple=2 * pipeline.vae_scale_factor,
        sha256=pipelines.weights_digest(folder),
        distilled="turbo" in base.lower(),
    )


def weightless_model(folder: Path) -> WeightlessModel:
    config, vae = (
        files.read_json(folder / part / "config.json", f"the {part}'s config", key)
        for part, key in (("transformer", "cap_feat_dim"), ("vae", "block_out_channels"))
    )
    factor = 2 ** (len(vae["block_out_channels"]) - 1)
    transformer: Any = pipelines.build_on_meta_device(ZImageTransformer2DModel, config)

    def inputs_on_meta_device(batch: int, height: int, width: int) -> dict[str, Any]:
        shape = (transformer.config.in_channels, 1, height // factor, width // factor)
        return {
            "x": [torch.zeros(shape, device="meta") for _ in range(batch)],
            "t": torch.zeros(batch, device="meta"),
            "cap_feats": [
                torch.zeros(MAX_TOKENS, transformer.config.cap_feat_dim, device="meta") for _ in range(batch)
            ],
        }

    return WeightlessModel(
        transformer, RESOLUTION, 2 * factor, transformer.config.in_channels / factor**2, inputs_on_meta_device
    )


def token_limit_and_caption_lengths(base: str, captions: list[str]) -> tuple[int, list[int]]:
    return flow.chat_token_limit_and_lengths(base_folder(base, weights=False), captions)


def encode_prompts(models: LoadedBaseModel, prompts: list[str]) -> Conditions:
    """Embeddings of the prompts by token: `words` [n, 512, width]; the transformer gets the first `length` of each."""
    found = models.pipeline.encode_prompt(
        list(prompts),
        device=models.pipeline.vae.device,
        do_classifier_free_guidance=False,
        max_sequence_length=MAX_TOKENS,
    )[0]
    words = torch.zeros(len(found), MAX_TOKENS, found[0].shape[1], device=found[0].device)
    for row, own in zip(words, found, strict=True):
        row[: len(own)] = own
    return {"words": words, "length": torch.tensor([len(own) for own in found], device=words.device)}


def encode_to_latent_mean_and_deviation(models: LoadedBaseModel, pixels: Tensor) -> tuple[Tensor, Tensor]:
    return flow.encode_to_normalised_latent_distribution(models.pipeline.vae, pixels)


def predict(models: LoadedBaseModel, denoiser: Any, noisy: Tensor, levels: Tensor, conditions: Conditions) -> Tensor:
    """The velocity, noise minus latents [n, c, h/f, w/f].

    Z-Image is told how clean a picture is, not how noisy, and gives latents less noise: both signs are turned.
    """
    sigma = models.schedule.sigma.to(levels.device)[levels]
    told = [own[: int(count)] for own, count in zip(conditions["words"], conditions["length"], strict=True)]
    found = denoiser(list(noisy.unsqueeze(2).unbind(0)), 1 - sigma, told, return_dict=False)[0]
    return -torch.stack(list(found)).squeeze(2)


def lora_targets(kinds: list[str]) -> list[str]:
    return [ending for kind in kinds for ending in TARGETS[kind]]


def lora_header_entries_about_base(models: LoadedBaseModel) -> dict[str, str]:
    return {
        "modelspec.architecture": "Z-Image/lora",
        "modelspec.implementation": "https://github.com/Tongyi-MAI/Z-Image",
        "ss_base_model_version": "zimage",
    }
