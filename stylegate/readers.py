"""What other programs do with a LoRA file: which layers they read, at which strength, and what they refuse.

diffusers' answer is computed with its own functions (0.42), without a base; tests hold it against its loader. The
answers of ComfyUI and A1111 follow their sources (docs/lora-files.md).
"""

import dataclasses
import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from stylegate import adapter, loraheader, loranames
from stylegate.invokeai import lora_problems_in_invokeai
from stylegate.loracontents import (
    LoraContents,
    is_unet_or_text_encoder_layer,
    layers_by_problem,
    layers_with_part,
    naming_styles_of_plain_lora_layers,
    nearly_equal,
    other_adapter_kinds,
    other_strengths_in_words,
    strengths_misread_without_header,
)
from stylegate.words import counted

PEFT_RANK = 8  # where a header has settings, but no rank
SMALLEST_WIDTH = 768  # numbers of a token in the smallest base of ComfyUI, A1111, InvokeAI: Stable Diffusion 1.x
READ_BY_COMFYUI = {"LoHa", "LoKr", "Tucker middle", "OFT", "GLoRA", "norm difference", "weight difference"}
READ_BY_A1111 = {"LoHa", "LoKr", "Tucker middle", "OFT", "GLoRA", "IA3", "norm difference", "weight difference"}


def lora_problems_by_program(file: LoraContents) -> dict[str, str]:
    """For each program, by name, what it does with the file: its problems joined by "; ", or "reads all of it"."""
    found = {
        "diffusers": lora_problems_in_diffusers(file),
        "ComfyUI": lora_problems_in_comfyui(file),
        "A1111": lora_problems_in_a1111(file),
        "InvokeAI": lora_problems_in_invokeai(file),
    }
    found["stylegate"] = lora_problems_in_stylegate(file)
    whole = "reads all of it" + (", and the problem with it" if layers_by_problem(file) else "")
    return {program: "; ".join(text) or whole for program, text in found.items()}


def lora_problems_in_stylegate(file: LoraContents) -> list[str]:
    """Why stylegate refuses lora_file=FILE on every base, as one text in a list; an empty list if it is drawn with
    where the base has its layers.
    """
    unread = [kind for kind in other_adapter_kinds(file) if kind not in loranames.READ_HERE]
    reasons = [f"holds {', '.join(unread)}"] if unread else []
    reasons += [f"has {counted(len(file.unknown), 'key')} of no known kind"] if file.unknown else []
    reasons += [f"{counted(len(layers), 'layer')}: {problem}" for problem, layers in layers_by_problem(file).items()]
    header = loraheader.StatedLoraSettings(file.metadata)
    reasons += header.problems
    if any(adapter.lacks_alpha_of_peft(h, key, file.tensors, header) for key, h in file.parts_by_key.items()):
        reasons.append("its names are PEFT's, and its alpha is not in the file")
    return [f"refuses it: {'; '.join(reasons)}"] if reasons else []


def lora_problems_in_diffusers(file: LoraContents) -> list[str]:
    """What diffusers ignores, refuses, or takes at another strength, a sentence each; an empty list if it reads all."""
    found = ["drops dora_scale: a DoRA without its magnitudes"] if layers_with_part(file, "dora_scale") else []
    plain = naming_styles_of_plain_lora_layers(file)
    if file.styles and not any(map(is_unet_or_text_encoder_layer, file.styles)):
        return found + transformer_lora_problems_in_diffusers(file)
    if any("regular expression" in problem for problem in loraheader.StatedLoraSettings(file.metadata).problems):
        return [*found, "runs the header's patterns as regular expressions: its strengths are not known here"]
    try:
        strengths = diffusers_strengths(file)
    except ValueError as error:
        return [f"refuses it: {error}"]
    bare = [layer for layer in plain.keys() - strengths if plain[layer] == "bare"]
    if bare:
        found.append(f"ignores {counted(len(bare), 'layer')}: their names lack the component (unet.)")
    if lost := plain.keys() - strengths - set(bare):
        dotted = any("." in layer for layer in plain) and any("." not in layer for layer in lost)
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


def transformer_lora_problems_in_diffusers(file: LoraContents) -> list[str]:
    """What diffusers ignores or refuses of a transformer's file, or reads for some families alone, a sentence each; an
    empty list if it reads all. Its loaders differ by family.
    """
    if "LoKr" in file.factored.values():
        if len(set(file.factored.values())) > 1 or naming_styles_of_plain_lora_layers(file):
            return ["refuses it: it has LoKr beside layers of another kind"]
        return ["reads LoKr for FLUX.2 and Z-Image alone"]
    if foreign := [key for key in file.tensors if "lora" not in key and not key.endswith(".alpha")]:
        return [f"refuses it: {loraheader.escape_control_characters(foreign[0])} has no 'lora' in its name"]
    found = []
    if {p.layer for p in file.parts_by_key.values() if p.part == "alpha" and p.style == "diffusers"}:
        found.append("refuses .alpha keys among its own names, but for FLUX.1")
    if any(style == "comfyui" for style in file.styles.values()):
        found.append("translates the original model's names; for FLUX, Krea 2, Qwen-Image and Z-Image alone")
    if bare := [layer for layer, style in file.styles.items() if style == "bare"]:
        found.append(f"ignores {counted(len(bare), 'layer')}: their names lack the component (transformer.)")
    return found


def diffusers_strengths(file: LoraContents) -> dict[str, float]:
    """The strength (alpha over rank, or over its root) at which diffusers loads each layer of a UNet's file, by the
    file's name of the layer.

    Layers that it passes over are missing. Raises ValueError with the reason where it refuses the file.
    """
    from diffusers.loaders.lora_pipeline import StableDiffusionXLLoraLoaderMixin as Loader

    given = {key: tensor for key, tensor in file.tensors.items() if "dora_scale" not in key}  # which it drops first
    settings = SimpleNamespace(layers_per_block=loranames.LAYERS_PER_BLOCK)
    try:
        state, alphas, *_ = Loader.lora_state_dict(dict(given), unet_config=settings)
    except Exception as error:  # of many kinds, for whatever it cannot place
        raise ValueError(why_diffusers_cannot_translate_file(file, error)) from None
    if foreign := [key for key in state if "lora" not in key]:
        raise ValueError(f"{loraheader.escape_control_characters(foreign[0])} has no 'lora' in its name")
    if not all(tensor.is_floating_point() for tensor in state.values()):
        raise ValueError("it holds whole numbers")
    header = lora_settings_in_header(file.metadata)
    if alphas and header is not None:
        raise ValueError(f"it has .alpha tensors and {loraheader.ADAPTER_METADATA}")
    owners = {id(file.tensors[key]): p.layer for key, p in file.parts_by_key.items() if p.part == "up"}
    strengths = {}
    for component in ("unet", "text_encoder", "text_encoder_2"):
        own = {k.removeprefix(f"{component}."): t for k, t in state.items() if k.startswith(f"{component}.")}
        if own:
            read = diffusers_strengths_of_component(component, own, alphas or {}, header)
            strengths |= {owners[number]: strength for number, strength in read.items() if number in owners}
    return strengths


def why_diffusers_cannot_translate_file(file: LoraContents, error: Exception) -> str:
    """Why diffusers cannot translate a LoRA file with kohya's names, in words.

    `error` is what diffusers raised; its type is named if no other reason is found.
    """
    whole = {p.layer for p in file.parts_by_key.values() if p.part == "down"} & set(layers_with_part(file, "up"))
    if file.kinds:
        return f"it does not know {', '.join(other_adapter_kinds(file))}"
    if lone := [key_parts.layer for key_parts in file.parts_by_key.values() if key_parts.layer not in whole]:
        return f"{loraheader.escape_control_characters(lone[0])} has no whole pair of tensors"
    if file.unknown:
        return f"it does not know {loraheader.escape_control_characters(file.unknown[0])}"
    return f"its translation fails ({type(error).__name__})"


def lora_settings_in_header(metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """The LoRA settings in the entry `lora_adapter_metadata` of a file's header; None without that entry.

    Raises ValueError for one that is not understood.
    """
    if loraheader.ADAPTER_METADATA not in metadata:
        return None
    header = loraheader.StatedLoraSettings(metadata)
    if header.problems:
        raise ValueError(header.problems[0])
    return header.values


def diffusers_strengths_of_component(
    component: str, state: dict[str, Tensor], alphas: Mapping[str, float], header: dict[str, Any] | None
) -> dict[int, float]:
    """The strength (alpha over rank, or over its root) of each layer of a component as diffusers loads it, by the id of
    the layer's up tensor.

    `state` are the component's tensors, `alphas` those that diffusers found by layer, `header` the file's LoRA
    settings. Raises ValueError with the reason where diffusers refuses them.
    """
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
        settings = header_settings_of_component(component, header)
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
        if (
            loraheader.value_by_pattern(settings.get("rank_pattern") or {}, [path], settings.get("r", PEFT_RANK))
            != rank
        ):
            raise ValueError(f"its header has another rank for {loraheader.escape_control_characters(path)}")
        alpha = loraheader.value_by_pattern(
            settings.get("alpha_pattern") or {}, [path], settings.get("lora_alpha", loraheader.PEFT_ALPHA)
        )
        found[id(up)] = alpha / (math.sqrt(rank) if settings.get("use_rslora") is True else rank)
    return found


def header_settings_of_component(component: str, header: dict[str, Any]) -> dict[str, Any]:
    """The settings of a component in a header, without the component's name before them.

    Raises ValueError for those that PEFT's configuration refuses, and if no target_modules are named.
    """
    from peft import LoraConfig

    settings = {k.removeprefix(f"{component}."): v for k, v in header.items() if k.startswith(f"{component}.")}
    if not settings.get("target_modules"):
        raise ValueError(f"its header has no target_modules for {component}")
    if unknown := settings.keys() - {field.name for field in dataclasses.fields(LoraConfig)}:
        raise ValueError(
            f"its header has {loraheader.escape_control_characters(min(unknown))}, which PEFT does not know"
        )
    return settings


def is_unet_or_clip_module_path(component: str, path: str) -> bool:
    """Whether `path` can be that of a module of the `component`: diffusers' UNet if that is "unet", else a CLIP text
    encoder.
    """
    if component == "unet":
        return loranames.original_unet_path(path) is not None
    return path.startswith(("encoder.layers.", "text_projection", "embeddings."))


def lora_problems_in_comfyui(file: LoraContents) -> list[str]:
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
    if wrong := {k: strength for k, strength in strengths_misread_without_header(file).items() if k not in wrapped}:
        found.append(f"{other_strengths_in_words(wrong)}: it does not read the header's alpha")
    return found + sentences_on_ignored_keys(file, READ_BY_COMFYUI | {"bias difference"})


def lora_problems_in_a1111(file: LoraContents) -> list[str]:
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
        name = loraheader.repr_cut_to_80_characters(odd[0])
        found.append(f"ignores {counted(len(odd), 'layer')}: it does not know names such as {name}")
    if layers_with_part(file, "dora_scale"):
        found.append("applies dora_scale by another formula")
    if wrong := {k: strength for k, strength in strengths_misread_without_header(file).items() if k not in foreign}:
        found.append(f"{other_strengths_in_words(wrong)}: it reads the tensors alone")
    others_of_layer = {layer for layer, kind in file.kinds.values() if kind in READ_BY_A1111}
    whole = set(layers_with_part(file, "down")) & set(layers_with_part(file, "up"))
    lone = [p.layer for p in file.parts_by_key.values() if p.style == "kohya" and p.layer not in whole]
    if lone := [layer for layer in lone if layer not in others_of_layer]:
        found.append(f"refuses it: {loraheader.escape_control_characters(lone[0])} has no whole pair of tensors")
    return found + sentences_on_ignored_keys(file, READ_BY_A1111 | {"bundled embedding"})


def sentences_on_ignored_keys(file: LoraContents, readable_kinds: set[str]) -> list[str]:
    """Sentences on the kinds of adapters (other than those in `readable_kinds`) and the unknown keys that a program
    ignores.
    """
    unread = [kind for kind in other_adapter_kinds(file) if kind not in readable_kinds]
    found = [f"ignores {', '.join(unread)}"] if unread else []
    return found + ([f"ignores {counted(len(file.unknown), 'key')} of no known kind"] if file.unknown else [])
