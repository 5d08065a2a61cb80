"""What other programs do with a LoRA file: which layers they read, at which strength, and what they refuse.

diffusers' answer is computed with its own functions (0.42), without a base; tests hold it against its loader. The
answers of ComfyUI and A1111 follow their sources (docs/lora-files.md).
"""

import contextlib
import dataclasses
import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

from torch import Tensor

from stylegate import adapter, loranames, lycoris
from stylegate.loranames import KeyParts
from stylegate.words import counted

PEFT_RANK = 8  # where a header has settings, but no rank
READ_BY_COMFYUI = {"LoHa", "LoKr", "Tucker middle", "OFT", "GLoRA", "norm difference", "weight difference"}
READ_BY_A1111 = {"LoHa", "LoKr", "Tucker middle", "OFT", "GLoRA", "IA3", "norm difference", "weight difference"}
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
    styles: dict[str, str]  # by layer with a down or up half: its style of names
    factored: dict[str, str]  # by layer that is read here and no plain LoRA: its kind (stylegate/lycoris.py)
    strengths: dict[str, float]  # by layer: the factor that it was trained with, alpha / rank for most


def parse_lora_contents(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> LoraContents:
    """The contents of a LoRA file: its keys by meaning, and the strength (alpha / rank) of each layer."""
    parts_by_key = {key: found for key in tensors if (found := loranames.parse_key(key))}
    kinds = {key: kind for key in tensors if (kind := loranames.other_adapter_kind(key))}
    styles = {p.layer: p.style for p in parts_by_key.values() if p.part in ("down", "up")}
    header, strengths, factored = adapter.LoraHeader(metadata), {}, {}
    for layer, parts in parts_by_layer(tensors, parts_by_key).items():
        alpha = parts.get("alpha")
        if alpha is not None and not is_scalar(alpha):
            del parts["alpha"]
        with contextlib.suppress(ValueError):  # half a layer: `layer_problems` says so
            kind = lycoris.kind_of(parts)
            strengths[layer] = header.strength(layer_name_in_header(layer), parts)
            if kind != "LoRA":
                factored[layer] = kind
    unknown = [key for key in tensors if key not in parts_by_key and key not in kinds]
    return LoraContents(tensors, metadata, parts_by_key, kinds, unknown, styles, factored, strengths)


def parts_by_layer(tensors: Mapping[str, Tensor], parts_by_key: Mapping[str, KeyParts]) -> dict[str, dict[str, Tensor]]:
    """The tensors of each layer by part."""
    found: dict[str, dict[str, Tensor]] = {}
    for key, key_parts in parts_by_key.items():
        found.setdefault(key_parts.layer, {})[key_parts.part] = tensors[key]
    return found


def layer_name_in_header(layer: str) -> str:
    """A layer's name with its component, as the header's settings are looked up."""
    name = loranames.without_wrapper_prefixes(layer).replace(".processor.", ".").replace(".text_model.", ".")
    prefix = next((p for p, components in loranames.FLAT.items() if components and name.startswith(p)), "")
    return f"{loranames.FLAT[prefix][0]}.{name.removeprefix(prefix)}" if prefix else name


def is_scalar(tensor: Tensor) -> bool:
    """Whether a tensor is one real number."""
    return tensor.numel() == 1 and not tensor.is_complex()


def answers_by_program(file: LoraContents) -> dict[str, str]:
    """For each program, by name, what it does with the file: its problems joined by "; ", or "reads all of it"."""
    found = {
        "diffusers": problems_in_diffusers(file),
        "ComfyUI": problems_in_comfyui(file),
        "A1111": problems_in_a1111(file),
    }
    found["stylegate"] = problems_in_stylegate(file)
    whole = "reads all of it" + (", and the problem with it" if layer_problems(file) else "")
    return {program: "; ".join(text) or whole for program, text in found.items()}


def layer_problems(file: LoraContents) -> dict[str, list[str]]:
    """Layers by what makes them unusable on every base: a missing half, numbers that are not finite, ..."""
    found: dict[str, list[str]] = {}
    of_other_kinds = {layer for layer, kind in file.kinds.values() if kind not in loranames.READ_HERE}
    for layer, own in parts_by_layer(file.tensors, file.parts_by_key).items():
        if layer in of_other_kinds and own.keys() <= lycoris.BESIDE:
            continue  # OFT and others have an alpha, too
        up, down = own.get("up"), own.get("down")
        shape = (0, 0)
        if up is not None and down is not None and up.ndim > 1 and down.ndim > 1:
            shape = (up.shape[0], *down.shape[1:])
        if problem := factored_problem(own) if layer in file.factored else adapter.tensor_shapes_problem(own, shape):
            found.setdefault(problem, []).append(layer)
    return found


def factored_problem(parts: Mapping[str, Tensor]) -> str | None:
    """Why the tensors of a LoHa, LoKr, ... are of no base; None if they are of one."""
    try:
        lycoris.shape_of_change(parts)
    except ValueError as error:
        return str(error)
    return adapter.tensor_values_problem(parts)


def problems_in_stylegate(file: LoraContents) -> list[str]:
    """Why lora_file=FILE would be refused on every base; empty if it is drawn with where the base has its layers."""
    unread = [kind for kind in other_adapter_kinds(file) if kind not in loranames.READ_HERE]
    reasons = [f"holds {', '.join(unread)}"] if unread else []
    reasons += [f"has {counted(len(file.unknown), 'key')} of no known kind"] if file.unknown else []
    reasons += [f"{counted(len(layers), 'layer')}: {problem}" for problem, layers in layer_problems(file).items()]
    header = adapter.LoraHeader(file.metadata)
    reasons += header.problems
    if any(adapter.lacks_alpha_of_peft(h, key, file.tensors, header) for key, h in file.parts_by_key.items()):
        reasons.append("its names are PEFT's, and its alpha is not in the file")
    return [f"refuses it: {'; '.join(reasons)}"] if reasons else []


def other_adapter_kinds(file: LoraContents) -> list[str]:
    """The kinds of adapters other than plain LoRA, sorted."""
    return sorted({kind for _, kind in file.kinds.values()})


def is_unet_or_text_encoder_layer(layer: str) -> bool:
    """Whether a layer's name is of a UNet or of a text encoder beside one, and not of a transformer."""
    name = loranames.without_wrapper_prefixes(layer)
    if name.startswith(("text_encoder", "lora_te_", "lora_te1_", "lora_te2_")):
        return True
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name.replace(".", "_").startswith(UNET_PARTS)


def problems_in_diffusers(file: LoraContents) -> list[str]:
    """What diffusers ignores, refuses, or takes at another strength."""
    found = ["drops dora_scale: a DoRA without its magnitudes"] if layers_with_part(file, "dora_scale") else []
    of_unet = [layer for layer in file.styles if is_unet_or_text_encoder_layer(layer)]
    if file.styles and not of_unet:
        return found + problems_in_diffusers_of_transformer(file)
    if any("regular expression" in problem for problem in adapter.LoraHeader(file.metadata).problems):
        return [*found, "runs the header's patterns as regular expressions: its strengths are not known here"]
    try:
        strengths = diffusers_strengths(file)
    except ValueError as error:
        return [f"refuses it: {error}"]
    bare = [layer for layer in file.styles.keys() - strengths if file.styles[layer] == "bare"]
    if bare:
        found.append(f"ignores {counted(len(bare), 'layer')}: their names lack the component (unet.)")
    if lost := file.styles.keys() - strengths - set(bare):
        dotted = any("." in layer for layer in file.styles) and any("." not in layer for layer in lost)
        why = "kohya's names among dotted ones" if dotted else "it has no place for their names, or half a pair"
        found.append(f"ignores {counted(len(lost), 'layer')}: {why}")
    other = {k: s for k, s in strengths.items() if k in file.strengths and not nearly_equal(s, file.strengths[k])}
    if other:
        name, strength = next(iter(other.items()))
        found.append(
            f"takes {counted(len(other), 'layer')} at another strength, the first at {strength:g} in place of "
            f"{file.strengths[name]:g}: it misplaces alphas that differ by layer"
        )
    if any(part in layer for layer in strengths for part in ("_input_blocks_", "_middle_block_", "_output_blocks_")):
        found.append("translates the original UNet's names for SDXL alone")
    rest = [key for key in [*file.kinds, *file.unknown] if not key.endswith("lora_B.bias")]
    return found + ([f"ignores {len(rest)} other keys"] if rest else [])


def nearly_equal(one: float, other: float) -> bool:
    """Whether two strengths are equal but for rounding; NaN is near NaN."""
    return math.isclose(one, other, rel_tol=1e-3, abs_tol=1e-9) or (math.isnan(one) and math.isnan(other))


def layers_with_part(file: LoraContents, part: str) -> list[str]:
    """The layers that have this part."""
    return [p.layer for p in file.parts_by_key.values() if p.part == part]


def problems_in_diffusers_of_transformer(file: LoraContents) -> list[str]:
    """What diffusers does with a transformer's file; its loaders differ by family."""
    if foreign := [key for key in file.tensors if "lora" not in key and not key.endswith(".alpha")]:
        return [f"refuses it: {adapter.escape_control_characters(foreign[0])} has no 'lora' in its name"]
    found = []
    if {p.layer for p in file.parts_by_key.values() if p.part == "alpha" and p.style == "diffusers"}:
        found.append("refuses .alpha keys among its own names, but for FLUX.1")
    if any(style == "comfyui" for style in file.styles.values()):
        found.append("translates the original model's names; for FLUX, Krea 2, Qwen-Image and Z-Image alone")
    if bare := [layer for layer, style in file.styles.items() if style == "bare"]:
        found.append(f"ignores {counted(len(bare), 'layer')}: their names lack the component (transformer.)")
    return found


def diffusers_strengths(file: LoraContents) -> dict[str, float]:
    """The strength at which diffusers loads each layer of a UNet's file, by the file's name of the layer.

    Layers that it passes over are missing. Raises ValueError with the reason where it refuses the file.
    """
    from diffusers.loaders.lora_pipeline import StableDiffusionXLLoraLoaderMixin as Loader

    given = {key: tensor for key, tensor in file.tensors.items() if "dora_scale" not in key}  # which it drops first
    settings = SimpleNamespace(layers_per_block=loranames.LAYERS_PER_BLOCK)
    try:
        state, alphas, *_ = Loader.lora_state_dict(dict(given), unet_config=settings)
    except Exception as error:  # of many kinds, for whatever it cannot place
        raise ValueError(untranslatable_reason(file, error)) from None
    if foreign := [key for key in state if "lora" not in key]:
        raise ValueError(f"{adapter.escape_control_characters(foreign[0])} has no 'lora' in its name")
    if not all(tensor.is_floating_point() for tensor in state.values()):
        raise ValueError("it holds whole numbers")
    header = read_header_settings(file.metadata)
    if alphas and header is not None:
        raise ValueError(f"it has .alpha tensors and {adapter.ADAPTER_METADATA}")
    owners = {id(file.tensors[key]): p.layer for key, p in file.parts_by_key.items() if p.part == "up"}
    strengths = {}
    for component in ("unet", "text_encoder", "text_encoder_2"):
        own = {k.removeprefix(f"{component}."): t for k, t in state.items() if k.startswith(f"{component}.")}
        if own:
            read = component_strengths(component, own, alphas or {}, header)
            strengths |= {owners[number]: strength for number, strength in read.items() if number in owners}
    return strengths


def untranslatable_reason(file: LoraContents, error: Exception) -> str:
    """Why diffusers cannot translate a LoRA file with kohya's names, in words.

    `error` is what diffusers raised; its type is named if no other reason is found.
    """
    whole = {p.layer for p in file.parts_by_key.values() if p.part == "down"} & set(layers_with_part(file, "up"))
    if file.kinds:
        return f"it does not know {', '.join(other_adapter_kinds(file))}"
    if lone := [key_parts.layer for key_parts in file.parts_by_key.values() if key_parts.layer not in whole]:
        return f"{adapter.escape_control_characters(lone[0])} has no whole pair of tensors"
    if file.unknown:
        return f"it does not know {adapter.escape_control_characters(file.unknown[0])}"
    return f"its translation fails ({type(error).__name__})"


def read_header_settings(metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """The LoRA settings in the header of a file; None without a header.

    Raises ValueError for one that is not understood.
    """
    if adapter.ADAPTER_METADATA not in metadata:
        return None
    header = adapter.LoraHeader(metadata)
    if header.problems:
        raise ValueError(header.problems[0])
    return header.values


def component_strengths(
    component: str, state: dict[str, Tensor], alphas: Mapping[str, float], header: dict[str, Any] | None
) -> dict[int, float]:
    """The strength of each layer of a component as diffusers loads it, by the id of the layer's up tensor."""
    from diffusers.utils.peft_utils import get_peft_kwargs
    from diffusers.utils.state_dict_utils import convert_state_dict_to_diffusers as to_diffusers
    from diffusers.utils.state_dict_utils import convert_state_dict_to_peft as to_peft
    from diffusers.utils.state_dict_utils import convert_unet_state_dict_to_peft as unet_to_peft

    if component == "unet":
        state = state if "lora_A" in next(iter(state)) else unet_to_peft(state)
    else:
        state = to_peft(to_diffusers(state))
        state = {key.removeprefix("text_model."): tensor for key, tensor in state.items()}
    ranks = {f"^{key}": t.shape[1] for key, t in state.items() if "lora_B" in key and t.ndim > 1}
    if not ranks or not all(ranks.values()):
        raise ValueError(f"it finds no rank of {component} in it")
    if header is None:
        own = {key.removeprefix(f"{component}."): a for key, a in alphas.items() if key.startswith(f"{component}.")}
        settings = get_peft_kwargs(ranks, own, state, is_unet=component == "unet")
    else:
        settings = component_settings(component, header)
    known = {key.removesuffix(".lora_B.weight"): t for key, t in state.items() if key.endswith(".lora_B.weight")}
    known = {
        path: t
        for path, t in known.items()
        if f"{path}.lora_A.weight" in state and is_unet_or_clip_module_path(component, path)
    }
    if not known:
        raise ValueError(f"it finds none of its layers in {component}")
    found = {}
    for path, up in known.items():
        rank = up.shape[1]
        if adapter.value_by_pattern(settings.get("rank_pattern") or {}, [path], settings.get("r", PEFT_RANK)) != rank:
            raise ValueError(f"its header has another rank for {adapter.escape_control_characters(path)}")
        alpha = adapter.value_by_pattern(
            settings.get("alpha_pattern") or {}, [path], settings.get("lora_alpha", adapter.PEFT_ALPHA)
        )
        found[id(up)] = alpha / (math.sqrt(rank) if settings.get("use_rslora") is True else rank)
    return found


def component_settings(component: str, header: dict[str, Any]) -> dict[str, Any]:
    """A header's settings of a component. Raises ValueError for those that PEFT's configuration refuses."""
    from peft import LoraConfig

    settings = {k.removeprefix(f"{component}."): v for k, v in header.items() if k.startswith(f"{component}.")}
    if not settings.get("target_modules"):
        raise ValueError(f"its header has no target_modules for {component}")
    if unknown := settings.keys() - {field.name for field in dataclasses.fields(LoraConfig)}:
        raise ValueError(f"its header has {adapter.escape_control_characters(min(unknown))}, which PEFT does not know")
    return settings


def is_unet_or_clip_module_path(component: str, path: str) -> bool:
    """Whether a path can be of a module in diffusers' UNet or in a CLIP text encoder."""
    if component == "unet":
        return loranames.original_unet_path(path) is not None
    return path.startswith(("encoder.layers.", "text_projection", "embeddings."))


def problems_in_comfyui(file: LoraContents) -> list[str]:
    """What ComfyUI ignores, or takes at another strength. It logs keys that it does not know, and goes on."""
    found = []
    dotted = [layer for layer, style in file.styles.items() if style in ("diffusers", "bare")]
    if layers_with_part(file, "magnitude"):
        found.append("ignores lora_magnitude_vector: a DoRA without its magnitudes")
    if any(p.part == "dora_scale" and file.tensors[key].shape[:1] != (1,) for key, p in file.parts_by_key.items()):
        found.append("scales dora_scale by the lengths of the base's rows, not of the changed rows")
    wrapped = [layer for layer in file.styles if loranames.without_wrapper_prefixes(layer) != layer]
    if wrapped:
        found.append(f"ignores {counted(len(wrapped), 'layer')}: their names hold _orig_mod or PEFT's prefix")
    hidden = [
        layer
        for layer in dotted
        if ".to_" in layer
        and ".processor." not in layer
        and not layer.startswith("transformer.")
        and layer not in wrapped
    ]
    if hidden:
        found.append(f"ignores {len(hidden)} attention layers: their names are not kohya's")
    own_alpha = set(layers_with_part(file, "alpha"))
    wrong = [
        layer for layer in dotted if layer not in own_alpha and not nearly_equal(file.strengths.get(layer, 1.0), 1.0)
    ]
    if wrong:
        found.append(f"takes {counted(len(wrong), 'layer')} at strength 1: it does not read the header's alpha")
    return found + sentences_on_ignored_keys(file, READ_BY_COMFYUI | {"bias difference"})


def problems_in_a1111(file: LoraContents) -> list[str]:
    """What A1111 ignores, refuses, or computes by another formula (dora_scale). It reads kohya's names alone."""
    found = []
    foreign = [layer for layer, style in file.styles.items() if style != "kohya"]
    if foreign:
        found.append(f"ignores {counted(len(foreign), 'layer')}: their names are not kohya's")
    known = ("lora_unet_", "lora_te_", "lora_te1_", "lora_te2_")
    odd = [
        x
        for x in file.styles
        if x not in foreign and not (x.startswith(known) and x == loranames.without_wrapper_prefixes(x))
    ]
    if odd:
        found.append(
            f"ignores {counted(len(odd), 'layer')}: it does not know names such as {adapter.short_text(odd[0])}"
        )
    if layers_with_part(file, "dora_scale"):
        found.append("applies dora_scale by another formula")
    others_of_layer = {layer for layer, kind in file.kinds.values() if kind in READ_BY_A1111}
    whole = set(layers_with_part(file, "down")) & set(layers_with_part(file, "up"))
    lone = [p.layer for p in file.parts_by_key.values() if p.style == "kohya" and p.layer not in whole]
    if lone := [layer for layer in lone if layer not in others_of_layer]:
        found.append(f"refuses it: {adapter.escape_control_characters(lone[0])} has no whole pair of tensors")
    return found + sentences_on_ignored_keys(file, READ_BY_A1111 | {"bundled embedding"})


def sentences_on_ignored_keys(file: LoraContents, readable_kinds: set[str]) -> list[str]:
    """Sentences on the kinds of adapters (other than those in `readable_kinds`) and the unknown keys that a program
    ignores.
    """
    unread = [kind for kind in other_adapter_kinds(file) if kind not in readable_kinds]
    found = [f"ignores {', '.join(unread)}"] if unread else []
    return found + ([f"ignores {counted(len(file.unknown), 'key')} of no known kind"] if file.unknown else [])
