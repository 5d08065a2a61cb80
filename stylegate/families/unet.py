"""What Stable Diffusion 1.x, 2.x and SDXL share: a UNet on latents of an autoencoder, and a table of noise levels."""

from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor

from stylegate import files
from stylegate.errors import ModelError
from stylegate.families import pipelines
from stylegate.families.base import LoadedBaseModel, NoiseSchedule, WeightlessModel

COMPONENT = "unet"
TARGETS = {
    "attention": ["to_q", "to_k", "to_v", "to_out.0"],
    "feed_forward": ["ff.net.0.proj", "ff.net.2"],
    "convolution": [f"conv{which}" for which in ("", "1", "2", "_shortcut", "_in", "_out")]
    + ["proj_in", "proj_out", "time_emb_proj"],
}


def base_model_of_unet_pipeline(pipeline: Any, folder: Path) -> LoadedBaseModel:
    """The LoadedBaseModel of a loaded pipeline with a UNet; the files in `folder` give its digest. Raises ModelError if
    the UNet does not name its size.
    """
    side = latent_side_in_unet_config(pipeline.unet.config, folder)
    return LoadedBaseModel(
        pipeline=pipeline,
        denoiser=pipeline.unet,
        schedule=noise_schedule_of(pipeline.scheduler.config),
        resolution=side * pipeline.vae_scale_factor,
        multiple=pipeline.vae_scale_factor * 2 ** (len(pipeline.unet.config.block_out_channels) - 1),
        sha256=pipelines.weights_digest(folder),
    )


def latent_side_in_unet_config(unet_config: Any, folder: Path) -> int:
    """The side of the latents that a UNet was trained for. Raises ModelError if its config, of the base in `folder`,
    does not name it.
    """
    if not isinstance(unet_config.sample_size, int):
        raise ModelError(
            f"base={files.display_path(folder)}: its unet names no sample_size", next_step=pipelines.DOWNLOAD_AGAIN
        )
    return unet_config.sample_size


def noise_schedule_of(config: Any) -> NoiseSchedule:
    """The noise levels that the base was trained with, whatever sampler the pipeline was saved with.

    `config` is that of the sampler. Raises ModelError if the base predicts neither noise (epsilon) nor v.
    """
    kept: Any = DDPMScheduler.from_config(config)
    prediction = {"epsilon": "epsilon", "v_prediction": "v"}.get(kept.config.prediction_type)
    if prediction is None:
        raise ModelError(
            f"the base predicts {kept.config.prediction_type}; known are epsilon and v_prediction",
            next_step="name a base that predicts one of these two.",
        )
    return NoiseSchedule(kept.alphas_cumprod**0.5, (1 - kept.alphas_cumprod) ** 0.5, prediction)


def encode_to_latent_mean_and_deviation(models: LoadedBaseModel, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the scaled latents. AutoencoderTiny is deterministic: deviation 0."""
    vae = models.pipeline.vae
    encoded = vae.encode(pixels.to(vae.device, vae.dtype))
    scale = vae.config.scaling_factor
    if hasattr(encoded, "latent_dist"):
        return encoded.latent_dist.mean * scale, encoded.latent_dist.std * scale
    return encoded.latents * scale, torch.zeros_like(encoded.latents)


def lora_targets(kinds: list[str]) -> list[str]:
    return [ending for kind in kinds for ending in TARGETS[kind]]


def clip_attention_endings(layers: int) -> list[str]:
    """Endings of the names of the attention modules in the first `layers` layers of a CLIP text encoder."""
    return [
        f"layers.{i}.self_attn.{part}" for i in range(layers) for part in ("q_proj", "k_proj", "v_proj", "out_proj")
    ]


def weightless_model(folder: Path) -> WeightlessModel:
    """The UNet without weights and the sizes that it works in, from the config files in `folder`. Raises ModelError if
    they do not name its size.
    """
    unet_config, vae_config = (
        files.read_json(folder / part / "config.json", f"the {part}'s config", *keys)
        for part, keys in (("unet", ("sample_size", "block_out_channels")), ("vae", ("latent_channels",)))
    )
    channels = vae_config.get("block_out_channels") or vae_config["encoder_block_out_channels"]
    factor = 2 ** (len(channels) - 1)  # as the pipeline takes it
    unet: Any = pipelines.build_on_meta_device(UNet2DConditionModel, unet_config)

    def inputs_on_meta_device(batch: int, height: int, width: int) -> dict[str, Any]:
        shape = (batch, unet.config.in_channels, height // factor, width // factor)
        words = (batch, 77, unet.config.cross_attention_dim)
        made = {"sample": shape, "timestep": (batch,), "encoder_hidden_states": words}
        tensors: dict[str, Any] = {name: torch.zeros(size, device="meta") for name, size in made.items()}
        if unet.config.addition_embed_type == "text_time":
            pooled = unet.config.projection_class_embeddings_input_dim - 6 * unet.config.addition_time_embed_dim
            sizes = {"text_embeds": (batch, pooled), "time_ids": (batch, 6)}
            tensors["added_cond_kwargs"] = {k: torch.zeros(size, device="meta") for k, size in sizes.items()}
        return tensors

    multiple = factor * 2 ** (len(unet.config.block_out_channels) - 1)
    side = latent_side_in_unet_config(unet.config, folder) * factor
    return WeightlessModel(unet, side, multiple, unet.config.in_channels / factor**2, inputs_on_meta_device)
