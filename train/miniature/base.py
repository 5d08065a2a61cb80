"""The miniature's base: a UNet and its text encoder, trained to draw what captions say. Stable Diffusion's form.

v-prediction with zero terminal SNR (Lin et al. 2023, arXiv 2305.08891) and DDIM from the last step, so that dark and
light brands are in reach. The text encoder begins as the encoder's text tower and learns on.
"""

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel

from stylegate import progress
from train.miniature.captions import random_caption
from train.miniature.clip import MODEL, RECIPE, token_ids_of
from train.miniature.corpus import Corpus, corpus_fingerprint
from train.miniature.fit import bf16_autocast, compiled_module, train_modules_resumably, training_device
from train.miniature.text import CONTEXT, VOCABULARY

CHANNELS = (64, 128, 192)
STEPS, BATCH, LEARNING_RATE = 4500, 32, 1.5e-3
TEXT_RATE = 0.5  # of the UNet's
UNCONDITIONAL, SHARE_FULL, STYLE_SAID = 0.1, 0.9, 0.92
SCHEDULE: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "clip_sample": False,
}


def build_unet(latent_channels: int) -> UNet2DConditionModel:
    """The UNet with random weights, always the same ones."""
    torch.manual_seed(2)
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=CHANNELS,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        only_cross_attention=(True, False, False),  # type: ignore[arg-type]  # full attention at 8 x 8 alone
        cross_attention_dim=MODEL["text_cfg"]["width"],
        attention_head_dim=4,
        norm_num_groups=16,
    )


def text_encoder_from_clip(clip: Any) -> CLIPTextModel:
    """A transformers CLIPTextModel with the weights of an open_clip model's text tower; the joint projection of q, k
    and v is split.
    """
    text = MODEL["text_cfg"]
    model = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=VOCABULARY,
            hidden_size=text["width"],
            intermediate_size=4 * text["width"],
            projection_dim=MODEL["embed_dim"],
            num_hidden_layers=text["layers"],
            num_attention_heads=text["heads"],
            max_position_embeddings=CONTEXT,
            hidden_act="gelu",
            bos_token_id=VOCABULARY - 2,
            eos_token_id=VOCABULARY - 1,
            pad_token_id=VOCABULARY - 1,
        )
    )
    source = {name: p.detach() for name, p in clip.state_dict().items()}
    renamed = {
        "embeddings.token_embedding.weight": source["token_embedding.weight"],
        "embeddings.position_embedding.weight": source["positional_embedding"],
        "final_layer_norm.weight": source["ln_final.weight"],
        "final_layer_norm.bias": source["ln_final.bias"],
    }
    for i in range(text["layers"]):
        old, new = f"transformer.resblocks.{i}", f"encoder.layers.{i}"
        for kind in ("weight", "bias"):
            parts = source[f"{old}.attn.in_proj_{kind}"].chunk(3)
            renamed |= {f"{new}.self_attn.{n}_proj.{kind}": p for n, p in zip("qkv", parts, strict=True)}
            renamed |= {
                f"{new}.self_attn.out_proj.{kind}": source[f"{old}.attn.out_proj.{kind}"],
                f"{new}.layer_norm1.{kind}": source[f"{old}.ln_1.{kind}"],
                f"{new}.layer_norm2.{kind}": source[f"{old}.ln_2.{kind}"],
                f"{new}.mlp.fc1.{kind}": source[f"{old}.mlp.c_fc.{kind}"],
                f"{new}.mlp.fc2.{kind}": source[f"{old}.mlp.c_proj.{kind}"],
            }
    model.load_state_dict(renamed)
    return model


@torch.no_grad()
def latents_of_pictures(vae: Any, pixels: np.ndarray) -> Tensor:
    """The latents of pictures, bf16 [n, c, 16, 16], scaled to a standard deviation of 1."""
    where, parts = next(vae.parameters()).device, []
    with progress.progress_bar("latents", len(pixels)) as tick, bf16_autocast(where):
        for start in range(0, len(pixels), 256):
            x = torch.from_numpy(pixels[start : start + 256]).to(where).permute(0, 3, 1, 2).float() / 127.5 - 1
            x = x.contiguous(memory_format=torch.channels_last)
            parts.append((vae.encode(x).latents * vae.config.scaling_factor).bfloat16().cpu())
            tick(len(x))
    return torch.cat(parts)


def train_base(corpus: Corpus, vae: Any, clip: Any, tokenizer: Any) -> tuple[Any, Any]:
    """Train a new UNet, and a text encoder that begins as that of `clip`, on the corpus; returns both."""
    where = training_device()
    latents = latents_of_pictures(vae, corpus.pixels)
    unet = build_unet(latents.shape[1]).to(where).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    text: Any = text_encoder_from_clip(clip)
    text.to(where)
    denoise = compiled_module(unet)
    schedule: Any = DDPMScheduler(**SCHEDULE)

    def denoising_loss_at_step(step: int, r: np.random.Generator) -> Tensor:
        words, chosen = Random(step), r.integers(len(latents), size=BATCH)
        captions = [
            random_caption(corpus.traits[i], corpus.styles[i], words, SHARE_FULL, STYLE_SAID).text for i in chosen
        ]
        ids = token_ids_of(tokenizer, ["" if r.random() < UNCONDITIONAL else text for text in captions]).to(where)
        clean = latents[torch.from_numpy(chosen)].to(where).float()
        random = torch.Generator().manual_seed(step)
        noise = torch.randn(clean.shape, generator=random).to(where)
        times = torch.randint(0, 1000, (BATCH,), generator=random).to(where)
        noisy = schedule.add_noise(clean, noise, times).to(memory_format=torch.channels_last)
        with bf16_autocast(where):
            velocity = denoise(noisy, times, encoder_hidden_states=text(ids).last_hidden_state).sample
        return functional.mse_loss(velocity.float(), schedule.get_velocity(clean, noise, times))

    parts: dict[str, nn.Module] = {"unet": unet, "text": text}
    rates = {"unet": LEARNING_RATE, "text": TEXT_RATE * LEARNING_RATE}
    depends_on = [corpus_fingerprint(), CHANNELS, BATCH, round(vae.config.scaling_factor, 3), *RECIPE]
    train_modules_resumably("unet", parts, denoising_loss_at_step, STEPS, rates, depends_on)
    return unet, text


def write_base(folder: Path, vae: Any, unet: Any, text: Any, tokenizer: Any) -> None:
    """Write a Stable Diffusion pipeline in half precision into `folder`. The modules given become half precision
    themselves.
    """
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(**SCHEDULE, steps_offset=1),  # type: ignore[arg-type]
        safety_checker=None,  # type: ignore[arg-type]
        feature_extractor=None,  # type: ignore[arg-type]
        requires_safety_checker=False,
    )
    pipeline.to(dtype=torch.float16).save_pretrained(folder)
