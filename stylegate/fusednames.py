"""LoRA files in the original names of transformers, whose layers are fused (qkv), for models of diffusers.

diffusers translates the names and splits the layers of each family; what it does is found out with a probe: a LoRA of
rank 1 whose matrices hold the numbers of their rows and columns. Where a number arrives, that row is the model's. So
every kind of layer is split rightly, LoHa, LoKr and DoRA as well, of which diffusers itself translates none or few.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stylegate import loranames, lycoris
from stylegate.adapter import (
    AnyLayer,
    BaseMismatch,
    LoraOrDoraLayer,
    adapter_layer_from_tensors_by_part,
    lora_layers_and_problems,
    problem_of_layer,
    tensor_shapes_problem,
    weight_shape_of,
)
from stylegate.loraheader import StatedLoraSettings


class FusedLayerPart(NamedTuple):
    """The part of a file's layer, which may be fused from several, that belongs to one module."""

    layer: str  # as the file calls it
    rows: Tensor  # indices of its outputs, in the module's order
    columns: Tensor  # indices of its inputs


def lora_layers_and_problems_through_diffusers(
    pipeline: Any, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], modules: Mapping[str, Any]
) -> tuple[dict[str, AnyLayer], list[str]] | None:
    """The layers of a transformer's file by canonical name, and every problem; None if diffusers knows no names of it.

    `modules` are those of the base (adapter.adaptable_modules). Layers that are called as in diffusers, such as those
    of a text encoder, are read as in any file.
    """
    flat = loranames.canonical_names_by_flat_name(modules)
    parts: dict[str, dict[str, Tensor]] = {}
    known = {}
    for key, tensor in tensors.items():
        key_parts = loranames.parse_lora_key(key)
        if key_parts is None:
            return None
        if loranames.canonical_layer_name(key_parts, flat, modules):
            known[key] = tensor
        else:
            parts.setdefault(key_parts.layer, {})[key_parts.part] = tensor
    header, shapes = StatedLoraSettings(metadata), {}
    layers, problems = lora_layers_and_problems(known, metadata, modules) if known else ({}, list(header.problems))
    malformed = []
    for layer, found in parts.items():
        try:
            shapes[layer] = lycoris.shape_of_change(found)
        except ValueError as error:
            malformed.append(f"{layer}: {error}")
    if malformed:
        return {}, problems + malformed
    if (places := fused_parts_by_module(pipeline, shapes)) is None or not places.keys() <= modules.keys():
        return None
    for name, place in places.items():
        found, shape, told_as = parts[place.layer], shapes[place.layer], f"transformer.{place.layer}"
        own, given = weight_shape_of(modules[name]), (len(place.rows), len(place.columns))
        wrong = (
            tensor_shapes_problem(found, shape)
            or header.rank_problem(told_as, found)
            or dora_split_problem(found, shape, place)
        )
        if not wrong and own != given:
            wrong = BaseMismatch(f"LoRA for {given[0]} x {given[1]}, the base has {own[0]} x {own[1]}")
        if wrong or name in layers:
            problems.append(problem_of_layer(name, wrong or "it is in the file twice"))
        else:
            layers[name] = layer_cut_from_fused_layer(
                adapter_layer_from_tensors_by_part(told_as, found, shape, header), place
            )
    return layers, problems


def fused_parts_by_module(pipeline: Any, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, FusedLayerPart] | None:
    """For each module, by canonical name, the part of a file's layer that belongs to it.

    `shapes` are the layers' [out, in]. None if diffusers does not know the layers' names, or not all of a layer
    arrives.
    """
    for flattened in (True, False):  # of some families diffusers knows the names in one spelling alone
        probe, first = {}, 1  # numbers from 1 on, since a translation may pass over zeros
        numbers: dict[str, tuple[int, int]] = {}
        for layer, (outputs, inputs, *_) in shapes.items():
            down, up = down_and_up_keys_of_probe(layer, flattened)
            count = max(outputs, inputs)
            numbers[layer] = (first, first + count)
            every = torch.arange(first, first + count, dtype=torch.float64)
            probe |= {down: every[None, :inputs].clone(), up: every[:outputs, None].clone()}
            first += count
        try:
            found = pipeline.lora_state_dict(probe)
        except Exception:  # of many kinds, for names that diffusers does not know
            continue
        places = fused_parts_from_probe(found, numbers)
        if places is not None and parts_cover_every_layer_once(places, shapes):
            return places
    return None


def down_and_up_keys_of_probe(layer: str, flattened: bool) -> tuple[str, str]:
    """The keys of a plain LoRA (down, up) for a layer of a file: in kohya's flattened names or in dotted ones."""
    name = loranames.without_wrapper_prefixes(layer)
    for prefix in ("model.", "diffusion_model.", "lora_unet_"):
        name = name.removeprefix(prefix)
    if flattened or "." not in name:
        flat = f"lora_unet_{name.replace('.', '_')}"
        return f"{flat}.lora_down.weight", f"{flat}.lora_up.weight"
    return f"diffusion_model.{name}.lora_A.weight", f"diffusion_model.{name}.lora_B.weight"


def fused_parts_from_probe(
    found: Mapping[str, Tensor], numbers: Mapping[str, tuple[int, int]]
) -> dict[str, FusedLayerPart] | None:
    """For each module of the translated probe: which layer of the file it is from, with which of its rows and columns.
    `numbers`: for each layer its first number and the first number after it.

    None where the translation has changed a number, or has mixed layers.
    """
    halves: dict[str, dict[str, Tensor]] = {}
    for key, tensor in found.items():
        key_parts = loranames.parse_lora_key(key)
        if key_parts is None or key_parts.part not in ("down", "up"):
            return None
        halves.setdefault(key_parts.layer, {})[key_parts.part] = tensor.double().flatten()
    places = {}
    for name, own in halves.items():
        if own.keys() != {"down", "up"}:
            return None
        layer = next((one for one, (first, end) in numbers.items() if first <= own["up"][0] < end), None)
        if layer is None:
            return None
        first, end = numbers[layer]
        rows, columns = own["up"].long(), own["down"].long()
        if not all(exact.equal(half) for exact, half in ((rows.double(), own["up"]), (columns.double(), own["down"]))):
            return None
        if not all(bool(((half >= first) & (half < end)).all()) for half in (rows, columns)):
            return None
        places[name] = FusedLayerPart(layer, rows - first, columns - first)
    return places


def parts_cover_every_layer_once(places: Mapping[str, FusedLayerPart], shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether every output and input of every layer is in exactly one of the places; `shapes` are the layers' [out,
    in].
    """
    for layer, (outputs, inputs, *_) in shapes.items():
        seen = torch.zeros(outputs, dtype=torch.long)
        for place in places.values():
            if place.layer == layer:
                seen[place.rows] += len(place.columns.unique())
        if not bool((seen == inputs).all()):
            return False
    return True


def dora_split_problem(found: Mapping[str, Tensor], shape: tuple[int, ...], place: FusedLayerPart) -> str | None:
    """Why the magnitudes of a fused DoRA layer cannot be split among modules as `place` says; None if they can be, or
    if it is no DoRA.
    """
    if "dora_scale" not in found and "magnitude" not in found:
        return None
    layer = adapter_layer_from_tensors_by_part("", found, shape, StatedLoraSettings({}))
    if layer.magnitude is not None and layer.magnitude.shape[0] == 1 and shape[0] != 1:
        whole = len(place.rows) == shape[0]
    else:
        whole = len(place.columns) == shape[1]
    return None if whole else f"a DoRA by channels of a fused layer ({place.layer}), which cannot be split"


def layer_cut_from_fused_layer(layer: AnyLayer, place: FusedLayerPart) -> AnyLayer:
    """The rows and columns of a fused layer that belong to one module, as a layer of their own."""
    rows, columns = place.rows, place.columns
    lengths, bias = layer.magnitude, None if layer.bias is None else layer.bias[rows]
    if lengths is not None:
        lengths = lengths[rows] if lengths.shape[0] != 1 else lengths[:, columns]
    if isinstance(layer, LoraOrDoraLayer):
        return layer._replace(down=layer.down[:, columns], up=layer.up[rows], magnitude=lengths, bias=bias)
    shape = (len(rows), len(columns))
    return layer._replace(rows=rows, columns=columns, magnitude=lengths, bias=bias, shape=shape)
