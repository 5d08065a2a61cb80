"""Qwen-Image 2.1: a transformer over words and latents in one sequence, pictures with alpha, flow matching.

Latents are [n, c, h/16, w/16], one token each; words come from a Qwen3-VL encoder. Its autoencoder reads and gives
four channels: red, green, blue and alpha.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers.models.transformers.transformer_qwenimage21 import QwenImage21Transformer2DModel
from diffusers.pipelines.qwenimage21.pipeline_qwenimage21 import QwenImage21Pipeline
from torch import Tensor

from stylegate import files
from stylegate.families import flow, pipelines
from stylegate.families.base import Conditions, LoadedBaseModel, WeightlessModel
from stylegate.families.flow import COMPONENT, MAX_TOKENS, text_encoder_lora_targets

__all__ = ["COMPONENT", "text_encoder_lora_targets"]
RESOLUTION = 1024  # pixels a side that it was trained for
MULTIPLE = 32  # pixels: the transformer counts tokens of 16 x 16 in groups of 2 x 2
MOST_POSITIONS = 8192  # of words, in the transformer's table; the pipeline cuts nothing
TARGETS = {
    "attention": ["to_q", "to_k", "to_v", "to_out.0"],
    "feed_forward": ["img_mlp.proj", "img_mlp.gate_layer", "img_mlp.out"],
    "convolution": [],
}


def base_folder(base: str, weights: bool = True) -> Path:
    return pipelines.find_base_folder(base, "qwenimage21", QwenImage21Pipeline, weights)


def load(base: str, device: torch.device, dtype: torch.dtype) -> LoadedBaseModel:
    parts, folder = ("transformer", "vae", "text_encoder"), base_folder(base)
    pipeline = pipelines.load_pipeline(folder, QwenImage21Pipeline, parts, device, dtype)
    return LoadedBaseModel(
        pipeline=pipeline,
        denoiser=pipeline.transformer,
        schedule=flow.flow_matching_schedule(),
        resolution=RESOLUTION,
        multiple=MULTIPLE,
        sha256=pipelines.weights_digest(folder),
        guidance="true_cfg_scale",
        negative=" ",  # without one the pipeline does not guide
        draws_alpha=pipeline.vae.config.out_channels == 4,
        draws_singly=True,
    )


def weightless_model(folder: Path) -> WeightlessModel:
    config = files.read_json(folder / "transformer" / "config.json", "the transformer's config", "context_in_dim")
    # With causal_condition the model selects by a mask that has values, which a model of shapes alone cannot.
    transformer: Any = pipelines.build_on_meta_device(
        QwenImage21Transformer2DModel, {**config, "causal_condition": False}
    )
    told = transformer.config

    def inputs_on_meta_device(batch: int, height: int, width: int) -> dict[str, Any]:
        rows, columns = height // 16, width // 16
        shapes = {
            "hidden_states": (batch, rows * columns, told.in_channels),
            "encoder_hidden_states": (batch, MAX_TOKENS, told.context_in_dim),
            "timestep": (batch,),
        }
        made: dict[str, Any] = {name: torch.zeros(shape, device="meta") for name, shape in shapes.items()}
        return made | {
            "img_shapes": [[(1, rows, columns)]] * batch,
            "img_mask": picture_token_mask(batch, MAX_TOKENS, rows, columns, torch.device("cpu")),
        }

    return WeightlessModel(transformer, RESOLUTION, MULTIPLE, told.in_channels / 16**2, inputs_on_meta_device)


def token_limit_and_caption_lengths(base: str, captions: list[str]) -> tuple[int, list[int]]:
    return MOST_POSITIONS, flow.token_limit_and_lengths(base_folder(base, weights=False), "processor", captions)[1]


def encode_prompts(models: LoadedBaseModel, prompts: list[str]) -> Conditions:
    """Embeddings by token: `words` [n, tokens, width]; the first `length` [n] of each prompt are not padding."""
    words, mask, _ = models.pipeline.encode_prompt(prompts, device=models.pipeline.vae.device)
    whole = torch.full((len(words),), words.shape[1], device=words.device)
    return {"words": words, "length": whole if mask is None else mask.sum(1)}


def encode_to_latent_mean_and_deviation(models: LoadedBaseModel, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the latents; `pixels` are [n, 4, h, w] with alpha, from -1 (transparent) to 1."""
    return flow.encode_as_one_frame_video(models.pipeline.vae, pixels)


def predict(models: LoadedBaseModel, denoiser: Any, noisy: Tensor, levels: Tensor, conditions: Conditions) -> Tensor:
    """The velocity, noise minus latents; the denoiser is called for each picture by itself.

    The transformer counts a picture's position from the words before it, padding included: beside a longer prompt a
    picture would stand elsewhere than it does when it is drawn. Prompts of one length are not computed together, since
    each process of a distributed run has to call the denoiser equally often.
    """
    words = zip(conditions["words"], conditions["length"].tolist(), strict=True)
    told = [(own[: int(count)][None], levels[i : i + 1]) for i, (own, count) in enumerate(words)]
    return torch.cat(
        [predict_for_one_picture(models, denoiser, one[None], *its) for one, its in zip(noisy, told, strict=True)]
    )


def predict_for_one_picture(
    models: LoadedBaseModel, denoiser: Any, noisy: Tensor, words: Tensor, level: Tensor
) -> Tensor:
    """The velocity [1, c, h, w] for one picture, by its words [1, tokens, width] without padding and its level [1]."""
    rows, columns = noisy.shape[2:]
    found = denoiser(
        hidden_states=noisy.flatten(2).transpose(1, 2),
        timestep=models.schedule.sigma.to(level.device)[level],
        encoder_hidden_states=words,
        img_shapes=[[(1, rows, columns)]],
        img_mask=picture_token_mask(1, words.shape[1], rows, columns, noisy.device),
        return_dict=False,
    )[0]
    return found[:, -rows * columns :].transpose(1, 2).reshape(noisy.shape)


def picture_token_mask(batch: int, tokens: int, rows: int, columns: int, device: torch.device) -> Tensor:
    """bool [batch, tokens + rows columns / 4]: False at words, True at each 2 x 2 tokens of the picture after them."""
    return (torch.arange(tokens + rows * columns // 4, device=device) >= tokens).expand(batch, -1)


def lora_targets(kinds: list[str]) -> list[str]:
    return [ending for kind in kinds for ending in TARGETS[kind]]


def lora_header_entries_about_base(models: LoadedBaseModel) -> dict[str, str]:
    return {
        "modelspec.architecture": "Qwen-Image-2.1/lora",
        "modelspec.implementation": "https://github.com/QwenLM/Qwen-Image",
        "ss_base_model_version": "qwen_image_2.1",
    }
