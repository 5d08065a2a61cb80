"""A LoRA in memory: layers by canonical name (stylegate/loranames.py), whatever file they came from; what they do."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from stylegate import loranames

ADAPTER_METADATA = "lora_adapter_metadata"  # diffusers' key of the safetensors header


class Layer(NamedTuple):
    """One adapted module: its weight changes by alpha / rank * up @ down (arXiv 2106.09685)."""

    down: Tensor  # [rank, in], or [rank, in, kh, kw] of a convolution
    up: Tensor  # [out, rank], or [out, rank, 1, 1]
    alpha: float
    magnitude: Tensor | None = None  # [out], DoRA's (arXiv 2402.09353): the length of each row of the changed weight

    @property
    def rank(self) -> int:
        return self.down.shape[0]


def change(layer: Layer, device: Any = "cpu", dtype: torch.dtype = torch.float64) -> Tensor:
    """What a layer adds to its weight: [out, in, ...]."""
    up, down = (half.detach().to(device, dtype).flatten(1) for half in (layer.up, layer.down))
    return (layer.alpha / layer.rank * (up @ down)).reshape(layer.up.shape[0], *layer.down.shape[1:])


def folded(layer: Layer) -> Layer:
    """The same change at alpha = rank, which is what readers take where nothing is said."""
    return layer._replace(up=layer.up.float() * (layer.alpha / layer.rank), alpha=float(layer.rank))


def merged(weight: Tensor, layer: Layer) -> Tensor:
    """The weight with the layer in it, computed in fp32."""
    whole = weight.detach().float() + change(layer, weight.device, torch.float32)
    if layer.magnitude is not None:
        lengths = whole.flatten(1).norm(dim=1)
        factors = layer.magnitude.to(whole) / lengths.clamp(min=1e-12)
        whole = whole * factors.reshape(-1, *[1] * (whole.ndim - 1))
    return whole.to(weight.dtype)


def apart(one: Mapping[str, Layer], other: Mapping[str, Layer]) -> float:
    """The largest relative difference of a layer's change and of its magnitudes (Frobenius norm); infinite where layers
    differ in name or kind, or anything is not finite.
    """
    if one.keys() != other.keys():
        return math.inf
    found = [0.0]
    for name in one:
        pairs = [(change(one[name]), change(other[name]))]
        lengths = one[name].magnitude, other[name].magnitude
        if lengths[0] is not None and lengths[1] is not None:
            pairs.append((lengths[0].double(), lengths[1].double()))
        elif lengths != (None, None):
            return math.inf
        for mine, theirs in pairs:
            found.append(float((mine - theirs).norm() / mine.norm()) if mine.any() else float(theirs.norm()))
    return max(found) if all(map(math.isfinite, found)) else math.inf


def energy(tensors: Mapping[str, Tensor]) -> float:
    """Sum of squares of all that a file changes, whatever it calls its layers; where alpha is missing it is the rank.

    Taking fused layers apart leaves it as it is; a layer lost or a strength mistaken does not.
    """
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if half := loranames.half_of(key):
            parts.setdefault(half.layer, {})[half.part] = tensor
    total = 0.0
    for found in parts.values():
        if {"down", "up"} <= found.keys():
            alpha = float(found["alpha"]) if "alpha" in found else found["down"].shape[0]
            total += float(change(Layer(found["down"], found["up"], alpha)).square().sum())
    return total


def adaptable(parts: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """The modules that a layer can be of, by canonical name; `parts` are a pipeline's components by name."""
    return {
        f"{component}.{path}": module
        for component, part in parts.items()
        for path, module in part.named_modules()
        if isinstance(getattr(module, "base_layer", module), nn.Linear | nn.Conv2d)
    }


def read(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], modules: Mapping[str, Any]
) -> tuple[dict[str, Layer], list[str]]:
    """The layers of a file by canonical name, and every problem; `modules` by `adaptable`.

    Shapes are held against the modules' weights; a tensor that would be left out is a problem, never ignored.
    """
    problems = [] if tensors else ["it holds no LoRA weights"]
    flat = loranames.flattened(modules)
    header = Header(metadata)
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        half = loranames.half_of(key)
        name = loranames.canonical(half, flat, modules) if half else None
        if half is None:
            problems.append(f"{key}: not the key of a LoRA layer")
        elif half.style == "bare" and ".lora_A." in key and not header.known:
            problems.append(f"{key}: PEFT's name, whose alpha stands beside such a file, not in it")
        elif name is None:
            problems.append(f"{half.layer}: the base has no such layer")
        elif half.part in parts.setdefault(name, {}):
            problems.append(f"{key}: {name} is in the file twice")
        else:
            parts[name][half.part] = tensor
    layers = {}
    for name, found in parts.items():
        if wrong := misfit(found, shape_of(modules[name])):
            problems.append(f"{name}: {wrong}")
            continue
        alpha = float(found["alpha"]) if "alpha" in found else header.alpha(name, found["down"].shape[0])
        magnitude = found["magnitude"].reshape(-1) if "magnitude" in found else None
        layers[name] = Layer(found["down"], found["up"], alpha, magnitude)
    return layers, header.problems + list(dict.fromkeys(problems))


class Header:
    """Alpha by layer, as diffusers writes it: `lora_adapter_metadata` in the safetensors header."""

    def __init__(self, metadata: Mapping[str, str]) -> None:
        self.problems: list[str] = []
        self.known: dict[str, Any] = {}
        try:
            told = json.loads(metadata.get(ADAPTER_METADATA, "{}"))
        except (ValueError, RecursionError):
            told = None
        if not isinstance(told, dict):
            self.problems.append(f"its {ADAPTER_METADATA} is not a JSON object")
            return
        self.known = told
        for key, value in told.items():
            name, pattern = key.rpartition(".")[2], value if isinstance(value, dict) else {}
            if name == "lora_alpha" and not is_number(value):
                self.problems.append(f"{ADAPTER_METADATA}: {key} is {value!r}, not a number")
            if name == "alpha_pattern" and not (isinstance(value, dict) and all(map(is_number, pattern.values()))):
                self.problems.append(f"{ADAPTER_METADATA}: {key} is not an object of numbers")
            if name == "alpha_pattern" and not all(map(is_pattern, pattern)):
                self.problems.append(f"{ADAPTER_METADATA}: {key} holds what is no pattern")
        if self.problems:
            self.known = {}

    def alpha(self, name: str, rank: int) -> float:
        """Alpha of a layer; its rank where the header says nothing, as loaders take it.

        Patterns match the end of a path, as PEFT's do; rsLoRA's alpha / sqrt(rank) (arXiv 2312.03732) becomes an alpha
        of the same strength.
        """
        component, _, path = name.partition(".")

        def told(key: str, default: Any) -> Any:
            return self.known.get(f"{component}.{key}", self.known.get(key, default))

        alpha = float(told("lora_alpha", rank))
        for pattern, value in (told("alpha_pattern", {}) or {}).items():
            if re.fullmatch(rf"(.*\.)?({pattern})", path) or re.fullmatch(rf"(.*\.)?({pattern})", f"text_model.{path}"):
                alpha = float(value)
                break
        return alpha * math.sqrt(rank) if told("use_rslora", False) is True else alpha


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_pattern(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return True


def shape_of(module: Any) -> tuple[int, ...]:
    """[out, in, ...] of a module's weight, however it is stored."""
    own = getattr(module, "base_layer", module)
    return (own.out_features, own.in_features) if isinstance(own, nn.Linear) else tuple(own.weight.shape)


def misfit(found: Mapping[str, Tensor], shape: tuple[int, ...]) -> str | None:
    """Why tensors are no adapter of a module whose weight has this shape [out, in, ...]; None if they are one."""
    down, up, magnitude = found.get("down"), found.get("up"), found.get("magnitude")
    if down is None or up is None:
        return f"its {'lora_A (lora_down)' if down is None else 'lora_B (lora_up)'} is missing"
    kinds = {str(t.dtype) for part, t in found.items() if part != "alpha" and not t.is_floating_point()}
    if kinds:
        return f"holds {', '.join(sorted(kinds))}, not floating-point numbers"
    if not all(bool(torch.isfinite(t).all()) for t in found.values()):
        return "holds numbers that are not finite"
    if down.ndim != len(shape) or up.ndim != len(shape):
        return f"its halves have {down.ndim} and {up.ndim} axes, the layer has {len(shape)}"
    if up.shape[1] != down.shape[0] or not down.shape[0] or set(up.shape[2:]) - {1}:
        return f"its halves are {size(down.shape)} and {size(up.shape)}: they do not share a rank"
    if down.shape[1:] != shape[1:] or up.shape[0] != shape[0]:
        return f"LoRA for {size(up.shape[:1] + down.shape[1:])}, the base has {size(shape)}"
    if "alpha" in found and found["alpha"].numel() != 1:
        return f"its alpha is {found['alpha'].numel()} numbers"
    rows = shape[0]  # PEFT's shapes of a magnitude, and kohya's
    shapes = [(rows,), (rows, 1)] if len(shape) == 2 else [(1, rows, 1, 1), (rows, 1, 1, 1)]
    if magnitude is not None and tuple(magnitude.shape) not in shapes:
        return f"its magnitude is {size(magnitude.shape)}, the layer puts out {shape[0]}"
    return None


def size(shape: Any) -> str:
    return " x ".join(map(str, shape))


def diffusers(layers: Mapping[str, Layer]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of a file in diffusers' style; alpha stands in the header."""
    tensors, header = {}, {}
    for name, layer in layers.items():
        name = loranames.diffusers(name)
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


def kohya(layers: Mapping[str, Layer]) -> dict[str, Tensor]:
    """Tensors of a file in kohya's style, which ComfyUI and A1111 read; alpha is a tensor of each layer."""
    tensors = {}
    for name, layer in layers.items():
        own = loranames.kohya(name)
        tensors |= {f"{own}.lora_down.weight": layer.down, f"{own}.lora_up.weight": layer.up}
        tensors |= {f"{own}.alpha": torch.tensor(layer.alpha), **dora_scale(own, layer)}
    return tensors


def comfyui(layers: Mapping[str, Layer]) -> dict[str, Tensor]:
    """Tensors of a transformer's file as ComfyUI reads it: diffusers' names, and alpha as a tensor of each layer."""
    plain = {name: layer._replace(magnitude=None) for name, layer in layers.items()}
    tensors = diffusers(plain)[0] | {f"{name}.alpha": torch.tensor(layer.alpha) for name, layer in layers.items()}
    for name, layer in layers.items():
        tensors |= dora_scale(name, layer)
    return tensors


def dora_scale(name: str, layer: Layer) -> dict[str, Tensor]:
    """The magnitudes as kohya and ComfyUI have them: [out, 1], or [out, 1, 1, 1] of a convolution."""
    if layer.magnitude is None:
        return {}
    return {f"{name}.dora_scale": layer.magnitude.reshape(-1, *[1] * (layer.down.ndim - 1))}
