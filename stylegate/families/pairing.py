"""Whether a LoRA that is trained on one base can be drawn with on another: both must be of one architecture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stylegate import files, hub
from stylegate.errors import ModelError
from stylegate.families.base import Family, LoadedBaseModel

# What decides the latent space of an autoencoder, and the shape of a text encoder's output, by diffusers' names.
LATENTS = ("latent_channels", "z_dim", "scaling_factor", "shift_factor", "latents_mean", "latents_std", "patch_size")
LATENTS += ("block_out_channels", "encoder_block_out_channels", "in_channels", "out_channels", "temperal_downsample")
TEXT = ("hidden_size", "num_hidden_layers", "vocab_size", "projection_dim", "d_model", "num_layers", "text_config")
LEARNING_PARTS = ("unet", "transformer", "vae", "text_encoder", "tokenizer")
FARTHEST = 0.3  # standard deviations of latents that two autoencoders of one latent space may be apart in the mean


def require_bases_of_same_architecture(family: Family, base: str, draw_base: str) -> None:
    """Check, before weights are read, that a LoRA which is trained on `base` fits `draw_base`.

    Compared are the kinds of all parts, the shapes of the denoiser's layers, and the settings that decide latent space,
    text encoding and what the denoiser predicts. Raises ModelError with every reason at once.
    """
    trains, draws = family.base_folder(base, weights=False), family.base_folder(draw_base, weights=False)
    reasons = differing_parts_in_words(trains, draws)
    reasons += differing_settings_in_words(trains, draws, "vae", LATENTS)
    for part in sorted(path.name for path in trains.glob("text_encoder*")):
        reasons += differing_settings_in_words(trains, draws, part, TEXT)
    reasons += differing_settings_in_words(trains, draws, "scheduler", ("prediction_type",))
    reasons += differing_layers_in_words(family, trains, draws)
    if reasons:
        raise ModelError(
            f"draw_base={draw_base} cannot draw with a LoRA that is trained on base={base}:",
            reasons,
            "name a base that was tuned or distilled from the one that is trained on.",
        )


@torch.no_grad()
def require_same_latents_of_autoencoders(
    family: Family, trains: LoadedBaseModel, draws: LoadedBaseModel, pixels: Tensor
) -> None:
    """Check that both autoencoders encode a picture, `pixels` [1, 3, h, w] in [-1, 1], to nearly the same latents.

    Raises ModelError if their mean difference is more than FARTHEST of the latents' standard deviation.
    """
    one, other = (
        family.encode_to_latent_mean_and_deviation(models, pixels)[0].float().cpu() for models in (trains, draws)
    )
    apart = float((one - other).abs().mean() / one.std())
    if not apart <= FARTHEST:
        raise ModelError(
            "draw_base: its autoencoder has another latent space: the latents of one and the same picture are "
            f"{apart:.2f} standard deviations apart ({FARTHEST:g} are allowed)",
            next_step="name a base with the autoencoder of the one that is trained on.",
        )


def differing_parts_in_words(trains: Path, draws: Path) -> list[str]:
    """A sentence for each part of the two pipelines that is of another kind, or that one of them lacks."""
    one, other = (
        files.read_json(folder / "model_index.json", "the base's index", "_class_name") for folder in (trains, draws)
    )
    names = [name for name in sorted({*one, *other}) if name.startswith(LEARNING_PARTS)]
    kinds = {
        name: (class_name_of_pipeline_part(one.get(name)), class_name_of_pipeline_part(other.get(name)))
        for name in names
    }
    return [
        f"{name} is a {draws}, trained with a {trains}" for name, (trains, draws) in kinds.items() if trains != draws
    ]


def class_name_of_pipeline_part(entry: Any) -> str:
    """The class in a part's `entry` of model_index.json, which is [library, class]; "none" where the pipeline has no
    such part.
    """
    return str(entry[1]) if isinstance(entry, list) and len(entry) == 2 and entry[1] else "none"


def differing_settings_in_words(trains: Path, draws: Path, part: str, keys: Sequence[str]) -> list[str]:
    """A sentence for each of the `keys` whose values differ in the configs of a part of the two bases."""
    one, other = (config_of_part(folder / part) for folder in (trains, draws))
    changed = [key for key in keys if one.get(key) != other.get(key)]
    if "text_config" in changed:  # of a model of pictures and text
        changed.remove("text_config")
        inner = [(config.get("text_config") or {}) for config in (one, other)]
        one, other = one | inner[0], other | inner[1]
        changed += [key for key in keys if key != "text_config" and inner[0].get(key) != inner[1].get(key)]
    return [f"{part}: {key} is {other.get(key)}, trained with {one.get(key)}" for key in changed]


def config_of_part(folder: Path) -> dict[str, Any]:
    """The config in the folder of one part of a base; an empty mapping where it has none."""
    for name in ("config.json", "scheduler_config.json"):
        if (folder / name).is_file():
            return files.read_json(folder / name, "a config of the base")
    return {}


def differing_layers_in_words(family: Family, trains: Path, draws: Path) -> list[str]:
    """Sentences on the denoiser's layers that are missing or have other shapes: how many, and the name of the first
    one.

    Layers that only the base that draws has are no hindrance: a distilled one may be told its guidance.
    """
    try:
        one, other = (
            {n: tuple(p.shape) for n, p in family.weightless_model(f).denoiser.named_parameters()}
            for f in (trains, draws)
        )
    except (KeyError, TypeError, ValueError, RuntimeError) as error:  # whatever a config of another kind breaks
        return [f"{family.COMPONENT}: its config makes no model of this family ({hub.first_line_of_error(error)})"]
    missing = [name for name in one if name not in other]
    odd = [name for name in one if name in other and one[name] != other[name]]
    reasons = []
    if missing:
        reasons.append(f"{family.COMPONENT}: {len(missing)} of {len(one)} layers are missing, {missing[0]} first")
    if odd:
        here, there = (list(shapes[odd[0]]) for shapes in (one, other))
        reasons.append(
            f"{family.COMPONENT}: {len(odd)} of {len(one)} layers have other shapes, {odd[0]} first: {there}, trained "
            f"with {here}"
        )
    return reasons
