"""Stable Diffusion 1.x and the shipped miniature: one CLIP text encoder, a UNet, epsilon or v prediction."""

from pathlib import Path
from typing import Any

import torch
import transformers
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.utils import logging as diffusers_logging
from torch import Tensor
from transformers import CLIPTokenizer

from stylegate import files
from stylegate.errors import ModelError
from stylegate.families.base import Models, Schedule, Sketch

COMPONENT = "unet"
PIPELINES = ("StableDiffusionPipeline",)
TARGETS = {
    "attention": ["to_q", "to_k", "to_v", "to_out.0"],
    "feed_forward": ["ff.net.0.proj", "ff.net.2"],
    "convolution": [f"conv{which}" for which in ("", "1", "2", "_shortcut", "_in", "_out")]
    + ["proj_in", "proj_out", "time_emb_proj"],
}


def locate(base: str) -> Path:
    """Folder of a shipped name, a path or a hub id (downloaded once). Raises ModelError."""
    shipped = files.MODELS / base / "sd"
    folder = shipped if base and shipped.is_dir() else Path(base).expanduser()
    if not folder.exists() and base.count("/") == 1 and not base.startswith((".", "~", "/")):
        try:
            folder = Path(StableDiffusionPipeline.download(base, use_safetensors=True))
        except Exception as error:  # network, name, licence not accepted: whatever the hub client raises
            raise ModelError(f"base={base}: neither a folder nor a hub model at hand: {error}") from None
    index = folder / "model_index.json"
    if not index.is_file():
        raise ModelError(
            f"base={base} is not a diffusers pipeline: {index} is missing",
            next_step="base=miniature, a folder saved with save_pretrained, or a hub id.",
        )
    kind = files.read_json(index, "the base's index", "_class_name")["_class_name"]
    if kind not in PIPELINES:
        raise ModelError(f"base={base} is a {kind}, family=sd takes {' or '.join(PIPELINES)}")
    return folder.resolve()


def load(base: str, device: torch.device, dtype: torch.dtype) -> Models:
    """Load from safetensors only. Raises ModelError if a part is missing or broken."""
    folder = locate(base)
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        # The safety checker paints pictures black behind our back; what leaves the house is the gate's business.
        pipeline: Any = StableDiffusionPipeline.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, safety_checker=None, requires_safety_checker=False
        )
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"base={base} cannot be loaded: {reason}", next_step="copy or download the base again."
        ) from None
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(device)
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        part.requires_grad_(False)
    if not isinstance(pipeline.unet.config.sample_size, int):
        raise ModelError(f"base={base}: its unet names no sample_size", next_step="copy or download the base again.")
    return Models(
        pipeline=pipeline,
        denoiser=pipeline.unet,
        schedule=schedule_of(pipeline.scheduler.config),
        resolution=pipeline.unet.config.sample_size * pipeline.vae_scale_factor,
        multiple=pipeline.vae_scale_factor * 2 ** (len(pipeline.unet.config.block_out_channels) - 1),
        sha256=files.folder_digest(folder),
    )


def sketch(folder: Path) -> Sketch:
    """UNet and sizes, from the configs alone."""
    unet_config, vae_config = (
        files.read_json(folder / part / "config.json", f"the {part}'s config", *keys)
        for part, keys in (("unet", ("sample_size", "block_out_channels")), ("vae", ("latent_channels",)))
    )
    channels = vae_config.get("block_out_channels") or vae_config["encoder_block_out_channels"]
    factor = 2 ** (len(channels) - 1)  # as the pipeline takes it
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel.from_config(unet_config)
    unet.requires_grad_(False)

    def inputs(batch: int, height: int, width: int) -> dict[str, Tensor]:
        shape = (batch, unet.config.in_channels, height // factor, width // factor)
        words = (batch, 77, unet.config.cross_attention_dim)
        made = {"sample": shape, "timestep": (batch,), "encoder_hidden_states": words}
        return {name: torch.zeros(size, device="meta") for name, size in made.items()}

    multiple = factor * 2 ** (len(unet.config.block_out_channels) - 1)
    numbers = unet.config.in_channels / factor**2
    return Sketch(unet, unet.config.sample_size * factor, multiple, numbers, inputs)


def schedule_of(config: Any) -> Schedule:
    """The training schedule, whatever sampler the pipeline was saved with."""
    kept: Any = DDPMScheduler.from_config(config)
    prediction = {"epsilon": "epsilon", "v_prediction": "v"}.get(kept.config.prediction_type)
    if prediction is None:
        raise ModelError(f"the base predicts {kept.config.prediction_type}; family=sd knows epsilon and v_prediction")
    return Schedule(kept.alphas_cumprod**0.5, (1 - kept.alphas_cumprod) ** 0.5, prediction)


def caption_lengths(base: str, captions: list[str]) -> tuple[int, list[int]]:
    folder = locate(base)
    limit_key = "max_position_embeddings"
    limit = files.read_json(folder / "text_encoder" / "config.json", "the text encoder's config", limit_key)[limit_key]
    transformers.logging.set_verbosity_error()  # it warns of long captions in words of its own
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    except Exception as error:
        raise ModelError(f"base={base}: its tokenizer cannot be loaded: {str(error).splitlines()[0]}") from None
    return limit, [len(tokenizer(caption).input_ids) for caption in captions]


def encode_prompts(models: Models, prompts: list[str]) -> Tensor:
    """[n, tokens, width]."""
    pipeline = models.pipeline
    return pipeline.encode_prompt(prompts, pipeline.device, 1, do_classifier_free_guidance=False)[0]


def encode_images(models: Models, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the scaled latents. AutoencoderTiny is deterministic: deviation 0."""
    vae = models.pipeline.vae
    encoded = vae.encode(pixels.to(vae.device, vae.dtype))
    scale = vae.config.scaling_factor
    if hasattr(encoded, "latent_dist"):
        return encoded.latent_dist.mean * scale, encoded.latent_dist.std * scale
    return encoded.latents * scale, torch.zeros_like(encoded.latents)


def predict(models: Models, denoiser: Any, noisy: Tensor, levels: Tensor, conditions: Tensor) -> Tensor:
    return denoiser(noisy, levels, encoder_hidden_states=conditions).sample


def spec(models: Models) -> dict[str, str]:
    """Stable Diffusion 2.x has the same pipeline; its words are 1,024 wide."""
    named = {"modelspec.implementation": "diffusers", "modelspec.architecture": "stable-diffusion-v1/lora"}
    if models.denoiser.config.cross_attention_dim != 1024:  # type: ignore[union-attr]
        return named | {"ss_base_model_version": "sd_v1", "ss_v2": "False"}
    size = "768-v" if models.schedule.prediction == "v" else "512"
    named["modelspec.architecture"] = f"stable-diffusion-v2-{size}/lora"
    return named | {"ss_base_model_version": "sd_v2", "ss_v2": "True"}


def lora_targets(kinds: list[str]) -> list[str]:
    return [ending for kind in kinds for ending in TARGETS[kind]]
