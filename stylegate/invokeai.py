"""What InvokeAI (6.14.2) does with a LoRA file: which layers it reads, at which strength, and what it refuses.

`python -m tests.bench.lora_invokeai` holds these answers against InvokeAI's own loading code.
"""

from stylegate import loraheader, loranames, lycoris
from stylegate.loracontents import (
    LoraContents,
    is_unet_or_text_encoder_layer,
    layers_with_part,
    naming_styles_of_plain_lora_layers,
    other_adapter_kinds,
    other_strengths_in_words,
    strengths_misread_without_header,
    tensors_by_layer,
)
from stylegate.words import counted

UNREADABLE = {"OFT", "GLoRA", "whole weight"}  # kinds that it raises on
OF_FLUX = ("double_blocks.", "single_blocks.")  # in dotted names of FLUX's original model
OF_FLUX_IN_DIFFUSERS = ("single_transformer_blocks.", ".ff.linear_in", ".ff_context.linear_in")
PAIRS = ("lora_A.weight", "lora_B.weight", "lora.down.weight", "lora.up.weight")


def lora_problems_in_invokeai(file: LoraContents) -> list[str]:
    """What InvokeAI ignores, refuses, or takes at another strength; an empty list if it reads all of the file."""
    if unreadable := [kind for kind in other_adapter_kinds(file) if kind in UNREADABLE]:
        return [f"refuses it: it does not know {', '.join(unreadable)}"]
    if reason := why_invokeai_would_raise_error(file):
        return [f"refuses it: {reason}"]
    if file.styles and not any(map(is_unet_or_text_encoder_layer, file.styles)):
        return invokeai_problems_with_transformer(file)
    return invokeai_problems_with_unet(file)


def why_invokeai_would_raise_error(file: LoraContents) -> str | None:
    """Why InvokeAI raises an error on a layer of the file, whatever model it is of; None if it does not."""
    for key, found in file.parts_by_key.items():
        if found.style == "kohya" and found.part in ("down", "up") and not key.endswith(("_down.weight", "_up.weight")):
            return f"{loraheader.escape_control_characters(key)} is not kohya's name, but for the layer"
    for layer, parts in tensors_by_layer(file.tensors, file.parts_by_key).items():
        try:
            kind = lycoris.adapter_kind_of_parts(parts)
        except ValueError as error:
            return f"{loraheader.escape_control_characters(layer)}: {error}"
        if kind not in ("LoRA", "Tucker") and "dora_scale" in parts:
            return f"{loraheader.escape_control_characters(layer)}: {kind} with a DoRA's magnitudes"
    return None


def invokeai_problems_with_unet(file: LoraContents) -> list[str]:
    """What InvokeAI does not read rightly in a file of a UNet and its text encoders, of which it knows kohya's names
    alone.
    """
    if foreign := [layer for layer, style in file.styles.items() if style != "kohya"]:
        return [f"refuses it: {loraheader.escape_control_characters(foreign[0])} is not kohya's name"]
    found = []
    changed = {layer for layer, kind in file.factored.items() if kind == "difference"}
    if set(layers_with_part(file, "bias")) - changed:
        found.append("ignores bias differences of layers that have no whole difference")
    known = ("lora_unet_", "lora_te_", "lora_te1_", "lora_te2_")
    if odd := [x for x in file.styles if not x.startswith(known) or x != loranames.without_wrapper_prefixes(x)]:
        name = loraheader.repr_cut_to_80_characters(odd[0])
        found.append(f"ignores {counted(len(odd), 'layer')}: it does not know names such as {name}")
    of_outputs = [
        key for key, p in file.parts_by_key.items() if p.part == "dora_scale" and file.tensors[key].shape[0] != 1
    ]
    if of_outputs:
        found.append("takes the magnitudes of a DoRA's outputs by the lengths of its inputs")
    if any(part in layer for layer in file.styles for part in ("_input_blocks_", "_middle_block_", "_output_blocks_")):
        found.append("translates the original UNet's names for SDXL alone")
    if wrong := strengths_misread_without_header(file):
        found.append(f"{other_strengths_in_words(wrong)}: it reads the tensors alone")
    if "bundled embedding" in other_adapter_kinds(file):
        found.append("ignores bundled embedding")
    if file.unknown:
        found.append(f"ignores or refuses {counted(len(file.unknown), 'key')} of no known kind")
    return found


def invokeai_problems_with_transformer(file: LoraContents) -> list[str]:
    """What InvokeAI does not read rightly in a transformer's file; its loaders differ by family."""
    found = []
    of_flux = any(part in layer for layer in file.styles for part in OF_FLUX)
    dotted = {layer for layer, style in file.styles.items() if style != "kohya"}
    plain = naming_styles_of_plain_lora_layers(file).keys() & dotted
    beside = [key for key, p in file.parts_by_key.items() if p.layer in plain and p.part in lycoris.BESIDE]
    if of_flux and beside:
        return [f"refuses it: {loraheader.escape_control_characters(beside[0])} beside a pair of matrices"]
    in_diffusers = any(part in layer for layer in dotted for part in OF_FLUX_IN_DIFFUSERS)
    if in_diffusers and (odd := [key for key in file.tensors if not key.endswith(PAIRS)]):
        return [f"refuses it: {loraheader.escape_control_characters(odd[0])} is neither lora_A nor lora_B"]
    pairs = {p.layer for key, p in file.parts_by_key.items() if ".lora_A." in key}
    if pairs & set(layers_with_part(file, "alpha")):
        found.append("refuses .alpha beside lora_A for FLUX, and drops it for Z-Image and Qwen-Image")
        if wrong := [layer for layer in pairs if layer in file.strengths and file.strengths[layer] != 1]:
            found.append(f"takes {counted(len(wrong), 'layer')} at strength 1 there")
    if dotted - plain:
        kinds = sorted({kind for layer, kind in file.factored.items() if layer in dotted})
        if not of_flux or "difference" in kinds:
            return [f"refuses it: {', '.join(kinds)} in dotted names"]
    if wrong := strengths_misread_without_header(file):
        found.append(f"{other_strengths_in_words(wrong)}: it reads the tensors alone")
    if layers_with_part(file, "magnitude"):
        found.append("ignores lora_magnitude_vector: a DoRA without its magnitudes")
    return found
