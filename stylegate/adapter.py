"""A LoRA in memory: layers by canonical name (stylegate/loranames.py), whatever file they came from; what they do."""

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from stylegate import loranames, lycoris
from stylegate.loraheader import ADAPTER_METADATA, PEFT_CONFIG, StatedLoraSettings, escape_control_characters
from stylegate.lycoris import LycorisLayer


class LoraOrDoraLayer(NamedTuple):
    """A LoRA layer: the tensors of one adapted module, whose weight changes by alpha / rank * up @ down (arXiv
    2106.09685). With magnitudes it is a DoRA: the changed weight is then scaled to these lengths.
    """

    down: Tensor  # [rank, in], or [rank, in, kh, kw] of a convolution
    up: Tensor  # [out, rank], or [out, rank, 1, 1]
    alpha: float
    magnitude: Tensor | None = None  # DoRA's (arXiv 2402.09353): the lengths that the changed weight is scaled to
    # of its rows, [out, 1, ...], or, as older LyCORIS files have it, of its input channels, [1, in, ...]
    bias: Tensor | None = None  # [out], added to the module's bias

    @property
    def rank(self) -> int:
        return self.down.shape[0]


AnyLayer = LoraOrDoraLayer | LycorisLayer  # LycorisLayer: LoHa, LoKr and others, which are no pair of matrices


def weight_change(layer: AnyLayer, device: Any = "cpu", dtype: torch.dtype = torch.float64) -> Tensor:
    """The tensor that a layer adds to its module's weight: [out, in, ...], in `dtype`."""
    if isinstance(layer, LycorisLayer):
        return lycoris.weight_change(layer, device, dtype)
    up, down = (half.detach().to(device, dtype).flatten(1) for half in (layer.up, layer.down))
    return (layer.alpha / layer.rank * (up @ down)).reshape(layer.up.shape[0], *layer.down.shape[1:])


def lora_and_dora_layers_by_name(layers: Mapping[str, AnyLayer]) -> dict[str, LoraOrDoraLayer]:
    """Those of `layers` that are LoRA or DoRA (a pair of matrices), by the same names; the others are left out."""
    return {name: layer for name, layer in layers.items() if isinstance(layer, LoraOrDoraLayer)}


def with_alpha_equal_to_rank(layer: LoraOrDoraLayer) -> LoraOrDoraLayer:
    """The layer with alpha = rank and `up` rescaled, so that it adds the same to the weight: programs assume this alpha
    where a file has none.
    """
    return layer._replace(up=layer.up.float() * (layer.alpha / layer.rank), alpha=float(layer.rank))


def merged_weight(weight: Tensor, layer: AnyLayer) -> Tensor:
    """The module's weight [out, in, ...] with the layer merged into it; computed in fp32, in the dtype of `weight`.

    For DoRA, the merged weight is scaled to the layer's magnitudes: its norms are taken along every axis on which the
    magnitude has size 1.
    """
    whole = weight.detach().float() + weight_change(layer, weight.device, torch.float32)
    return (whole if layer.magnitude is None else dora_weight(whole, layer.magnitude)).to(weight.dtype)


def dora_weight(changed: Tensor, magnitude: Tensor) -> Tensor:
    """The changed weight [out, in, ...], scaled so that its norms are a DoRA's magnitudes, [out, 1, ...] or [1, in,
    ...].
    """
    others = [axis for axis, count in enumerate(magnitude.shape) if count == 1]
    lengths = torch.linalg.vector_norm(changed, dim=others, keepdim=True)
    return changed * magnitude.to(changed) / lengths.clamp(min=1e-12)


def is_dora_of_input_channels(layer: AnyLayer) -> bool:
    """Whether a layer is a DoRA with one magnitude for each input channel; PEFT and diffusers do not support this
    form.
    """
    outputs = layer.up.shape[0] if isinstance(layer, LoraOrDoraLayer) else layer.shape[0]
    return layer.magnitude is not None and layer.magnitude.shape[0] == 1 and outputs != 1


def largest_relative_difference_of_loras(one: Mapping[str, AnyLayer], other: Mapping[str, AnyLayer]) -> float:
    """The largest difference between two LoRAs, relative to `one`: of a layer's change, or of its magnitudes (Frobenius
    norms). Absolute where `one` is all zero.

    Infinite where the layers have other names, where only one of two is a DoRA, or where a number is not finite.
    Changes of biases are not compared.
    """
    if one.keys() != other.keys():
        return math.inf
    found = [0.0]
    for name in one:
        pairs = [(weight_change(one[name]), weight_change(other[name]))]
        lengths = one[name].magnitude, other[name].magnitude
        if lengths[0] is not None and lengths[1] is not None:
            if lengths[0].shape != lengths[1].shape:
                return math.inf
            pairs.append((lengths[0].double(), lengths[1].double()))
        elif lengths != (None, None):
            return math.inf
        for mine, theirs in pairs:
            found.append(float((mine - theirs).norm() / mine.norm()) if mine.any() else float(theirs.norm()))
    return max(found) if all(map(math.isfinite, found)) else math.inf


def adaptable_modules(parts: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """The linear and convolution modules that a LoRA can adapt, by canonical name.

    `parts` are a pipeline's components by name (unet, text_encoder, ...).
    """
    return {
        f"{component}.{path}": module
        for component, part in parts.items()
        for path, module in part.named_modules()
        if isinstance(getattr(module, "base_layer", module), nn.Linear | nn.Conv2d)
    }


class BaseMismatch(str):
    """A problem of a LoRA file, in words, that another base does not have: this one lacks the layer, or the layer has
    another shape. Its class is what advice rests on; its words may change.
    """

    __slots__ = ()


def problem_of_layer(layer: str, problem: str) -> str:
    """The problem with the layer's name before it; a `BaseMismatch` stays one."""
    return type(problem)(f"{layer}: {problem}")


def lora_layers_and_problems(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], modules: Mapping[str, Any]
) -> tuple[dict[str, AnyLayer], list[str]]:
    """The layers of a LoRA file by canonical name, and a list of every problem; `modules` as `adaptable_modules`
    returns.

    Shapes are compared with the modules' weights. A tensor that fits no module is a problem and is never ignored.
    """
    problems = [] if tensors else ["it holds no LoRA weights"]
    flat = loranames.canonical_names_by_flat_name(modules)
    header = StatedLoraSettings(metadata)
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        key_parts = loranames.parse_lora_key(key)
        name = loranames.canonical_layer_name(key_parts, flat, modules) if key_parts else None
        if key_parts is None:
            kind = loranames.layer_and_other_adapter_kind(key)
            problems.append(
                f"{escape_control_characters(key)}: not the key of a LoRA layer{f' but of {kind[1]}' if kind else ''}"
            )
        elif lacks_alpha_of_peft(key_parts, key, tensors, header):
            problems.append(
                f"{escape_control_characters(key)}: PEFT's name, whose alpha stands beside such a file "
                f"({PEFT_CONFIG}), not in it"
            )
        elif name is None:
            problems.append(
                problem_of_layer(
                    escape_control_characters(key_parts.layer), why_layer_fits_no_module(key_parts, modules)
                )
            )
        elif key_parts.part in parts.setdefault(name, {}):
            problems.append(f"{escape_control_characters(key)}: {name} is in the file twice")
        else:
            parts[name][key_parts.part] = tensor
    layers: dict[str, AnyLayer] = {}
    for name, found in parts.items():
        shape = weight_shape_of(modules[name])
        wrong = tensor_shapes_problem(found, shape) or header.rank_problem(name, found)
        if not wrong and "bias" in found and getattr(modules[name], "bias", None) is None:
            wrong = BaseMismatch("a difference of its bias (diff_b), but the base has no bias there")
        if wrong:
            problems.append(problem_of_layer(name, wrong))
        else:
            layers[name] = adapter_layer_from_tensors_by_part(name, found, shape, header)
    return layers, header.problems + list(dict.fromkeys(problems))


def why_layer_fits_no_module(key_parts: loranames.KeyParts, modules: Mapping[str, Any]) -> str:
    """Why a layer's name means no module of the base, in words."""
    found = loranames.possible_text_encoder_module_names(key_parts.layer, modules) if key_parts.style == "bare" else []
    if not found:
        return BaseMismatch("the base has no such layer")
    parts = " and ".join(name.partition(".")[0] for name in found)
    return f"{parts} have such a layer, and PEFT's name does not tell which is meant; put the part before its keys"


def lacks_alpha_of_peft(
    key_parts: loranames.KeyParts, key: str, tensors: Mapping[str, Tensor], header: StatedLoraSettings
) -> bool:
    """Whether a key has the form that PEFT writes, and its alpha is unknown: neither the header nor PEFT's settings
    beside the file have it, nor, for LoHa and LoKr, a tensor.
    """
    if key_parts.style != "bare" or header.values or key_parts.part in ("diff", "bias"):
        return False
    return ".lora_A." in key or (
        key_parts.part.startswith(("hada_", "lokr_")) and f"{key_parts.layer}.alpha" not in tensors
    )


def adapter_layer_from_tensors_by_part(
    name: str, found: Mapping[str, Tensor], shape: tuple[int, ...], header: StatedLoraSettings
) -> AnyLayer:
    """The layer made of the tensors `found`, by part (down, up, alpha, ...), for a weight of `shape` [out, in, ...].

    `name` is the canonical name. `tensor_shapes_problem` must have found no problem.
    """
    kind, magnitude, bias = (
        lycoris.adapter_kind_of_parts(found),
        dora_magnitudes_of_one_layer(found, shape),
        found.get("bias"),
    )
    if kind == "LoRA":
        own = float(found["alpha"]) * header.block_size if "alpha" in found else None
        alpha = header.effective_lora_alpha_of_layer(name, found["down"].shape[0]) if own is None else own
        up = found["up"].reshape(*found["up"].shape[:2], *[1] * (len(shape) - 2))
        return LoraOrDoraLayer(found["down"], up, alpha, magnitude, bias)
    parts = {part: tensor for part, tensor in found.items() if part not in lycoris.BESIDE}
    return LycorisLayer(kind, parts, shape, header.trained_strength_of_layer(name, found), magnitude, bias)


def weight_shape_of(module: Any) -> tuple[int, ...]:
    """The shape [out, in, ...] of a module's weight; also correct for a weight that is stored in 4 bits."""
    own = getattr(module, "base_layer", module)
    return (own.out_features, own.in_features) if isinstance(own, nn.Linear) else tuple(own.weight.shape)


def tensor_shapes_problem(found: Mapping[str, Tensor], shape: tuple[int, ...]) -> str | None:
    """Why the tensors of one layer (by part: down, up, ...) are no LoRA, or do not fit a weight of `shape` [out, in,
    ...]; None if they do.
    """
    try:
        kind = lycoris.adapter_kind_of_parts(found)
    except ValueError as error:
        return str(error)
    if wrong := tensor_values_problem(found):
        return wrong
    return (lora_shape_problem if kind == "LoRA" else factored_shape_problem)(
        found, shape
    ) or magnitude_or_bias_problem(found, shape, kind)


def lora_shape_problem(found: Mapping[str, Tensor], shape: tuple[int, ...]) -> str | None:
    """Why a pair of matrices (down, up) does not fit a weight of `shape` [out, in, ...]; None if it does."""
    down, up = found["down"], found["up"]
    if down.ndim != len(shape) or up.ndim not in (2, len(shape)):  # 2: LyCORIS' DyLoRA of a convolution
        return f"its halves have {down.ndim} and {up.ndim} axes, the layer has {len(shape)}"
    if up.shape[1] != down.shape[0] or not down.shape[0] or set(up.shape[2:]) - {1}:
        halves = f"{tensor_shape_as_text(down.shape)} and {tensor_shape_as_text(up.shape)}"
        return f"its halves are {halves}: they do not share a rank"
    if down.shape[1:] != shape[1:] or up.shape[0] != shape[0]:
        of_lora = tensor_shape_as_text(up.shape[:1] + down.shape[1:])
        return BaseMismatch(f"LoRA for {of_lora}, the base has {tensor_shape_as_text(shape)}")
    return None


def factored_shape_problem(found: Mapping[str, Tensor], shape: tuple[int, ...]) -> str | None:
    """Why a LoHa, LoKr, Tucker or difference layer does not fit a weight of `shape` [out, in, ...]; None if it does."""
    try:
        lycoris.rank_of_parts(found)
        made = lycoris.shape_of_change(found)
    except ValueError as error:
        return str(error)
    fits = made == shape if len(made) == len(shape) else made == (shape[0], math.prod(shape[1:]))
    kind = lycoris.adapter_kind_of_parts(found)
    if fits:
        return None
    return BaseMismatch(f"{kind} for {tensor_shape_as_text(made)}, the base has {tensor_shape_as_text(shape)}")


def magnitude_or_bias_problem(found: Mapping[str, Tensor], shape: tuple[int, ...], kind: str) -> str | None:
    """Why the magnitudes or the bias of a layer do not fit a weight of `shape` [out, in, ...]; None if they do."""
    if "bias" in found and tuple(found["bias"].shape) != shape[:1]:
        of_bias = tensor_shape_as_text(found["bias"].shape)
        return BaseMismatch(f"its diff_b is {of_bias}, the base has {shape[0]} outputs")
    if kind == "difference" and found.keys() & {"magnitude", "dora_scale"}:
        return "a whole difference with magnitudes of a DoRA, which no writer defines"
    if kind != "LoRA" and "magnitude" in found:
        return f"{kind} with PEFT's magnitudes, which PEFT does not define"
    if ("magnitude" in found or "dora_scale" in found) and dora_magnitudes_of_one_layer(found, shape) is None:
        lengths = found["dora_scale" if "dora_scale" in found else "magnitude"]
        given, wanted = tensor_shape_as_text(lengths.shape), tensor_shape_as_text(shape)
        return f"its magnitude is {given}, which is neither per output nor per input of {wanted}"
    return None


def tensor_values_problem(found: Mapping[str, Tensor]) -> str | None:
    """Why the tensors of a layer are no LoRA of any base: not floating-point, not finite, a bad alpha; None if they
    are. `found` holds the tensors of one layer by part (down, up, alpha, ...).
    """
    kinds = {str(t.dtype) for part, t in found.items() if part != "alpha" and not t.is_floating_point()}
    if kinds:
        return f"holds {', '.join(sorted(kinds))}, not floating-point numbers"
    whole = not any(part in found for part in ("down", "hada_w1_b", "lokr_w1_b", "lokr_w2_b"))  # no rank: no alpha
    try:
        if not all(bool(torch.isfinite(t).all()) for part, t in found.items() if not (whole and part == "alpha")):
            return "holds numbers that are not finite"
    except NotImplementedError:  # packed formats, such as two numbers of 4 bits a byte
        return f"holds {', '.join(sorted({str(t.dtype) for t in found.values()}))}, which cannot be computed with"
    if "alpha" in found and found["alpha"].numel() != 1:
        return f"its alpha is {found['alpha'].numel()} numbers"
    if "alpha" in found and found["alpha"].is_complex():
        return "its alpha is a complex number"
    if "magnitude" in found and "dora_scale" in found:
        return "has both lora_magnitude_vector and dora_scale"
    return None


def dora_magnitudes_of_one_layer(found: Mapping[str, Tensor], shape: tuple[int, ...]) -> Tensor | None:
    """A layer's DoRA magnitudes, as [out, 1, ...] or [1, in, ...]; None if it has none, or of no known shape.

    The name of the key tells the writer, and so the axis also where out = in: PEFT's `lora_magnitude_vector` is always
    of the outputs, [out] or [1, out, 1, 1]. LyCORIS, OneTrainer and kohya write `dora_scale` so that it can be
    multiplied with the weight: [out, 1, ...] of the outputs, [1, in, ...] of the inputs.
    """
    ones = [1] * (len(shape) - 1)
    outputs, inputs = (shape[0], *ones), (1, shape[1], *ones[1:])
    if "dora_scale" in found:
        scale = found["dora_scale"]
        if tuple(scale.shape) in (outputs, inputs):
            return scale
        return scale.reshape(outputs) if tuple(scale.shape) == (shape[0],) else None
    if "magnitude" in found:
        vector = found["magnitude"]
        peft = (1, shape[0], 1, 1) if len(shape) == 4 else (shape[0],)
        return vector.reshape(outputs) if tuple(vector.shape) in (peft, outputs, outputs[:1]) else None
    return None


def tensor_shape_as_text(shape: Any) -> str:
    """The shape of a tensor as text, for example "64 x 3 x 3 x 3"."""
    return " x ".join(map(str, shape))


def to_diffusers(layers: Mapping[str, LoraOrDoraLayer]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of a LoRA file in diffusers' style, whose alpha is in the header.

    `layers` are by canonical name. None of them may be a DoRA of input channels.
    """
    tensors, header = {}, {}
    for name, layer in layers.items():
        name = loranames.layer_name_in_diffusers(name)
        tensors |= {f"{name}.lora_A.weight": layer.down, f"{name}.lora_B.weight": layer.up}
        if layer.magnitude is not None:
            shape = (1, -1, 1, 1) if layer.down.ndim == 4 else (-1,)  # as PEFT has them
            tensors[f"{name}.lora_magnitude_vector"] = layer.magnitude.reshape(shape)
    for component in dict.fromkeys(name.partition(".")[0] for name in layers):
        own = {n.removeprefix(f"{component}."): one for n, one in layers.items() if n.startswith(f"{component}.")}
        first = next(iter(own.values()))
        header |= {
            f"{component}.r": first.rank,
            f"{component}.lora_alpha": first.alpha,
            f"{component}.target_modules": sorted(own),
            **({f"{component}.use_dora": True} if first.magnitude is not None else {}),
            f"{component}.rank_pattern": {f"^{n}": one.rank for n, one in own.items() if one.rank != first.rank},
            f"{component}.alpha_pattern": {f"^{n}": one.alpha for n, one in own.items() if one.alpha != first.alpha},
        }
    return tensors, {"format": "pt", ADAPTER_METADATA: json.dumps(header, sort_keys=True)}


def to_kohya(layers: Mapping[str, LoraOrDoraLayer]) -> dict[str, Tensor]:
    """The tensors of a LoRA file with kohya's key names, which ComfyUI and A1111 read: for each of `layers` (by module
    name) lora_down, lora_up and alpha, and dora_scale of a DoRA. Changes of biases are left out.
    """
    tensors = {}
    for name, layer in layers.items():
        own = loranames.layer_name_in_kohya(name)
        tensors |= {f"{own}.lora_down.weight": layer.down, f"{own}.lora_up.weight": layer.up}
        tensors |= {f"{own}.alpha": torch.tensor(layer.alpha), **dora_scale_state_dict(own, layer)}
    return tensors


def to_comfyui(layers: Mapping[str, LoraOrDoraLayer]) -> dict[str, Tensor]:
    """The tensors of a LoRA file for a transformer denoiser, as ComfyUI reads it: diffusers' key names, and for each
    layer `alpha`, and `dora_scale` of a DoRA.
    """
    plain = {name: layer._replace(magnitude=None) for name, layer in layers.items()}
    tensors = to_diffusers(plain)[0] | {f"{name}.alpha": torch.tensor(layer.alpha) for name, layer in layers.items()}
    for name, layer in layers.items():
        tensors |= dora_scale_state_dict(name, layer)
    return tensors


def dora_scale_state_dict(name: str, layer: LoraOrDoraLayer) -> dict[str, Tensor]:
    """The magnitudes of a layer by the key that kohya and ComfyUI read: [out, 1, ...], or [1, in, ...] of a DoRA of
    input channels. The mapping is empty for a layer without magnitudes.
    """
    return {} if layer.magnitude is None else {f"{name}.dora_scale": layer.magnitude}
