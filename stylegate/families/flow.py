"""What the transformers share that were trained by flow matching (arXiv 2210.02747): levels, and prompts as chats."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer

from stylegate.families import pipelines
from stylegate.families.base import Conditions, LoadedBaseModel, NoiseSchedule

COMPONENT = "transformer"
LEVELS = 1000  # of the table; the models take any sigma
MAX_TOKENS = 512  # of a prompt in its chat template, as the pipelines have it


JOINT_ATTENTION = [  # layers of the attention over picture and words together, as diffusers names them
    *("to_q", "to_k", "to_v", "to_out.0"),
    *("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
]


def text_encoder_lora_targets(models: LoadedBaseModel) -> dict[str, list[str]]:
    """An empty mapping: these text encoders are language models, which are not trained for a style."""
    return {}


def flow_matching_schedule() -> NoiseSchedule:
    """The noise levels of flow matching: x = (1 - sigma) latents + sigma noise, for sigma from 1/1000 to 1."""
    sigma = torch.arange(1, LEVELS + 1) / LEVELS
    return NoiseSchedule(1 - sigma, sigma, "flow")


def chat_token_limit_and_lengths(folder: Path, captions: Sequence[str]) -> tuple[int, list[int]]:
    """MAX_TOKENS, and each caption's number of tokens, counted with the chat that FLUX.2's and Z-Image's pipelines put
    around it.

    The empty thought that FLUX.2's pipeline puts behind the chat is not counted.
    """
    tokenizer = pipelines.load_tokenizer(AutoTokenizer, folder / "tokenizer")
    asked = [[{"role": "user", "content": caption}] for caption in captions]
    texts = [tokenizer.apply_chat_template(a, tokenize=False, add_generation_prompt=True) for a in asked]
    return MAX_TOKENS, [len(tokenizer(text).input_ids) for text in texts]


def token_limit_and_lengths(folder: Path, tokenizer: str, captions: Sequence[str]) -> tuple[int, list[int]]:
    """MAX_TOKENS, and each caption's number of tokens without any chat around it, by the tokenizer in the subfolder
    `tokenizer` of the base.
    """
    loaded = pipelines.load_tokenizer(AutoTokenizer, folder / tokenizer)
    return MAX_TOKENS, [len(ids) for ids in loaded(list(captions)).input_ids]


def encode_to_normalised_latent_distribution(vae: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the latents of `pixels`, [n, c, h/f, w/f] each, by the shift and the scale in the
    autoencoder's config.
    """
    found = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist
    scale = vae.config.scaling_factor
    return (found.mean - (vae.config.shift_factor or 0)) * scale, found.std * scale


def encode_as_one_frame_video(vae: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the latents of `pixels`, [n, c, h/f, w/f] each, by a video autoencoder, with a
    shift and a scale for each channel.

    `pixels` are [n, c, h, w]: each picture is encoded as a video of one frame.
    """
    found = vae.encode(pixels.to(vae.device, vae.dtype).unsqueeze(2)).latent_dist
    centre, spread = (
        torch.tensor(values, device=vae.device, dtype=vae.dtype).view(1, -1, 1, 1, 1)
        for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    return ((found.mean - centre) / spread).squeeze(2), (found.std / spread).squeeze(2)


def trim_prompt_padding_and_make_mask(conditions: Conditions) -> tuple[Tensor, Tensor | None]:
    """The embeddings `words` [n, tokens, ...], cut after the longest prompt, and a mask [n, tokens], False at padding.

    The mask is None where there is no padding, as the pipelines have it.
    """
    length = conditions["length"].long()
    words = conditions["words"][:, : int(length.max())]
    mask = torch.arange(words.shape[1], device=words.device) < length[:, None]
    return words, None if mask.all() else mask


def pack_latents(latents: Tensor) -> Tensor:
    """Latents [n, c, h, w] as tokens [n, h/2 w/2, 4 c], one for each 2 x 2 patch; the four numbers of a channel stand
    together.
    """
    n, c, h, w = latents.shape
    return latents.reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(n, h * w // 4, 4 * c)


def unpack_latents(tokens: Tensor, shape: Sequence[int]) -> Tensor:
    """Latents [n, c, h, w] of tokens as `pack_latents` makes them; `shape` is [n, c, h, w]."""
    n, c, h, w = shape
    return tokens.reshape(n, h // 2, w // 2, c, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(n, c, h, w)
