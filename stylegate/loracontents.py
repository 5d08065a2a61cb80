"""A LoRA file with its keys sorted by what they mean, and what is true of it whoever reads it (`stylegate inspect`)."""

import contextlib
import math
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from stylegate import adapter, loraheader, loranames, lycoris
from stylegate.loranames import KeyParts
from stylegate.words import counted

UNET_PARTS = ("down_block", "up_block", "mid_block", "input_block", "middle_block", "output_block", "conv_in")
UNET_PARTS += ("conv_out", "time_embed", "add_embedding", "label_emb", "out_2")
PREFIXES = ("unet.", "model.", "diffusion_model.", *loranames.FLAT)


class LoraContents(NamedTuple):
    """A LoRA file, with its keys sorted by what their names mean."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    parts_by_key: dict[str, KeyParts]  # by key: the tensors of layers that are read here
    kinds: dict[str, tuple[str, str]]  # by key: layer and kind of adapters that are no plain LoRA (loranames.KINDS)
    unknown: list[str]  # keys of no known kind
    styles: dict[str, str]  # by layer of any kind that is read here: its style of names
    factored: dict[str, str]  # by layer that is read here and no plain LoRA: its kind (stylegate/lycoris.py)
    strengths: dict[str, float]  # by layer: the factor that it was trained with, alpha / rank for most


def parse_lora_contents(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> LoraContents:
    """The contents of a LoRA file: its keys by meaning, and the strength (alpha / rank) of each layer."""
    parts_by_key = {key: found for key in tensors if (found := loranames.parse_lora_key(key))}
    kinds = {key: kind for key in tensors if (kind := loranames.layer_and_other_adapter_kind(key))}
    styles = {p.layer: p.style for p in parts_by_key.values() if p.part not in lycoris.BESIDE}
    header, strengths, factored = loraheader.StatedLoraSettings(metadata), {}, {}
    for layer, parts in tensors_by_layer(tensors, parts_by_key).items():
        alpha = parts.get("alpha")
        if alpha is not None and not is_scalar(alpha):
            del parts["alpha"]
        with contextlib.suppress(ValueError):  # half a layer: `layers_by_problem` says so
            kind = lycoris.adapter_kind_of_parts(parts)
            strengths[layer] = header.trained_strength_of_layer(layer_name_in_header(layer), parts)
            if kind != "LoRA":
                factored[layer] = kind
    unknown = [key for key in tensors if key not in parts_by_key and key not in kinds]
    return LoraContents(tensors, metadata, parts_by_key, kinds, unknown, styles, factored, strengths)


def tensors_by_layer(
    tensors: Mapping[str, Tensor], parts_by_key: Mapping[str, KeyParts]
) -> dict[str, dict[str, Tensor]]:
    """The tensors by the layer's name in the file, then by part (down, up, alpha, ...)."""
    found: dict[str, dict[str, Tensor]] = {}
    for key, key_parts in parts_by_key.items():
        found.setdefault(key_parts.layer, {})[key_parts.part] = tensors[key]
    return found


def prompt_embedding_widths_of_lora_file(file: LoraContents) -> set[int]:
    """The widths of the prompt embeddings that the file's cross-attention reads (inputs of attn2.to_k); several only
    where layers differ.
    """
    return {
        file.tensors[key].shape[1]
        for key, p in file.parts_by_key.items()
        if p.part == "down"
        and p.layer.replace("_", ".").replace(".processor", "").endswith("attn2.to.k")
        and file.tensors[key].ndim == 2
    }


def layer_name_in_header(layer: str) -> str:
    """The name by which settings of a layer are looked up in the header: the component first, without wrappers'
    prefixes.
    """
    name = loranames.without_wrapper_prefixes(layer).replace(".processor.", ".").replace(".text_model.", ".")
    prefix = next((p for p, components in loranames.FLAT.items() if components and name.startswith(p)), "")
    return f"{loranames.FLAT[prefix][0]}.{name.removeprefix(prefix)}" if prefix else name


def is_scalar(tensor: Tensor) -> bool:
    """Whether a tensor is one real number."""
    return tensor.numel() == 1 and not tensor.is_complex()


def layers_by_problem(file: LoraContents) -> dict[str, list[str]]:
    """Names of layers that are unusable on every base, by the problem: a missing half, numbers that are not finite."""
    found: dict[str, list[str]] = {}
    of_other_kinds = {layer for layer, kind in file.kinds.values() if kind not in loranames.READ_HERE}
    for layer, own in tensors_by_layer(file.tensors, file.parts_by_key).items():
        if layer in of_other_kinds and own.keys() <= lycoris.BESIDE:
            continue  # OFT and others have an alpha, too
        up, down = own.get("up"), own.get("down")
        shape = (0, 0)
        if up is not None and down is not None and up.ndim > 1 and down.ndim > 1:
            shape = (up.shape[0], *down.shape[1:])
        if (
            problem := lycoris_layer_problem(own)
            if layer in file.factored
            else adapter.tensor_shapes_problem(own, shape)
        ):
            found.setdefault(problem, []).append(layer)
    return found


def lycoris_layer_problem(parts: Mapping[str, Tensor]) -> str | None:
    """Why the tensors of one LoHa, LoKr, ... layer, by part, fit no base at all; None if they may fit one."""
    try:
        lycoris.shape_of_change(parts)
    except ValueError as error:
        return str(error)
    return adapter.tensor_values_problem(parts)


def other_adapter_kinds(file: LoraContents) -> list[str]:
    """The kinds of adapters other than plain LoRA that the file's keys belong to, sorted."""
    return sorted({kind for _, kind in file.kinds.values()})


def is_unet_or_text_encoder_layer(layer: str) -> bool:
    """Whether a layer's name is of a UNet or of a text encoder beside one, and not of a transformer."""
    name = loranames.without_wrapper_prefixes(layer)
    if name.startswith(("text_encoder", "lora_te_", "lora_te1_", "lora_te2_")):
        return True
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name.replace(".", "_").startswith(UNET_PARTS)


def nearly_equal(one: float, other: float) -> bool:
    """Whether two strengths are equal but for rounding; NaN is near NaN."""
    return math.isclose(one, other, rel_tol=1e-3, abs_tol=1e-9) or (math.isnan(one) and math.isnan(other))


def layers_with_part(file: LoraContents, part: str) -> list[str]:
    """The names of the layers that have a tensor of this part, such as "alpha"."""
    return [p.layer for p in file.parts_by_key.values() if p.part == part]


def naming_styles_of_plain_lora_layers(file: LoraContents) -> dict[str, str]:
    """The style of names of each layer that is plain LoRA, or half of one, by layer."""
    return {layer: style for layer, style in file.styles.items() if layer not in file.factored}


def strengths_misread_without_header(file: LoraContents) -> dict[str, float]:
    """The layers that a program which reads the tensors alone takes at a wrong strength: by name, that strength.

    The alpha that is meant, or LyCORIS' settings, are told in a header or in PEFT's adapter_config.json.
    """
    alone, found = loraheader.StatedLoraSettings({}), {}
    for layer, parts in tensors_by_layer(file.tensors, file.parts_by_key).items():
        alpha = parts.get("alpha")
        if layer not in file.strengths or (alpha is not None and not is_scalar(alpha)):
            continue
        strength = alone.trained_strength_of_layer(layer_name_in_header(layer), parts)
        if not nearly_equal(strength, file.strengths[layer]):
            found[layer] = strength
    return found


def other_strengths_in_words(strengths: Mapping[str, float]) -> str:
    """A clause on the layers that a program takes at these strengths: "takes 4 layers at strength 1"."""
    shown = list(dict.fromkeys(f"{strength:g}" for strength in strengths.values()))
    how = f"at strength {shown[0]}" if len(shown) == 1 else f"at other strengths, the first at {shown[0]}"
    return f"takes {counted(len(strengths), 'layer')} {how}"
