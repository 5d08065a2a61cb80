"""What LoRA files call their layers: ours, and those of other programs.

One namespace in memory, `unet.down_blocks.0.attentions.0.proj_in`: the pipeline's component, then the module's path in
diffusers. Readers translate into it, writers out of it.

    style       a key                                                        alpha            read by
    diffusers   unet.down_blocks.0...to_q.lora_A.weight (or .lora.down)      in the header    diffusers
    kohya       lora_unet_down_blocks_0_..._to_q.lora_down.weight            .alpha           ComfyUI, A1111, diffusers

kohya's own SDXL files call blocks as the original UNet does (input_blocks_4_1_...); both ways are read, diffusers'
names are written, which all three take.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

PAIRS = [
    ("lora_A.weight", "lora_B.weight"),
    ("lora_A.default.weight", "lora_B.default.weight"),
    ("lora_down.weight", "lora_up.weight"),
    ("lora.down.weight", "lora.up.weight"),
    ("_lora.down.weight", "_lora.up.weight"),
    ("lora_linear_layer.down.weight", "lora_linear_layer.up.weight"),
]
ENDINGS = {ending: part for pair in PAIRS for ending, part in zip(pair, ("down", "up"), strict=True)} | {
    "alpha": "alpha",
    "lora_magnitude_vector.weight": "magnitude",
    "lora_magnitude_vector": "magnitude",
    "dora_scale": "magnitude",
}
KOHYA = {"unet": "lora_unet", "transformer": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}
FLAT = {  # what stands before a flattened path, and the component it means
    "lora_unet_": ("unet", "transformer"),
    "lycoris_": ("unet", "transformer"),
    "lora_transformer_": ("transformer",),
    "lora_te_": ("text_encoder",),
    "lora_te1_": ("text_encoder",),
    "lora_te2_": ("text_encoder_2",),
}
ADAPTER_METADATA = "lora_adapter_metadata"  # diffusers' key of the safetensors header


class Layer(NamedTuple):
    """One adapted module: its weight changes by alpha / rank * up @ down (arXiv 2106.09685)."""

    down: Tensor  # [rank, in], or [rank, in, kh, kw] of a convolution
    up: Tensor  # [out, rank], or [out, rank, 1, 1]
    alpha: float
    magnitude: Tensor | None = None  # [out], DoRA's (arXiv 2402.09353)

    @property
    def rank(self) -> int:
        return self.down.shape[0]


class Half(NamedTuple):
    """What a key says: whose tensor of which layer, as the file calls it."""

    style: str  # "diffusers" or "kohya"
    layer: str
    part: str  # down, up, alpha or magnitude


def half_of(key: str) -> Half | None:
    """None for a key of no known style."""
    ending = max((e for e in ENDINGS if key.endswith(e)), key=len, default="")
    layer = key.removesuffix(ending).rstrip(".") if ending else ""
    if not layer:
        return None
    return Half("kohya" if "." not in layer and layer.startswith(tuple(FLAT)) else "diffusers", layer, ENDINGS[ending])


def read(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], modules: Mapping[str, Any]
) -> tuple[dict[str, Layer], list[str]]:
    """The layers of a file by canonical name, and what cannot be placed.

    `modules` are the pipeline's by canonical name. Shapes are held against their weights; a tensor that would be left
    out is a problem, never ignored.
    """
    problems = [] if tensors else ["it holds no LoRA weights"]
    flat = flattened(modules)
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        half = half_of(key)
        name = canonical(half, flat, modules) if half else None
        if half is None:
            problems.append(f"{key}: not the key of a LoRA layer")
        elif name is None:
            problems.append(f"{half.layer}: the base has no such layer")
        elif half.part in parts.setdefault(name, {}):
            problems.append(f"{key}: {name} is in the file twice")
        else:
            parts[name][half.part] = tensor
    alphas, unread = alphas_of(metadata)
    layers = {}
    for name, found in parts.items():
        wrong = misfit(found, getattr(modules[name], "weight", None))
        if wrong:
            problems.append(f"{name}: {wrong}")
            continue
        rank = found["down"].shape[0]
        alpha = float(found["alpha"]) if "alpha" in found else alphas(name, rank)
        magnitude = found["magnitude"].reshape(-1) if "magnitude" in found else None
        layers[name] = Layer(found["down"], found["up"], alpha, magnitude)
    return layers, unread + list(dict.fromkeys(problems))


def canonical(half: Half, flat: Mapping[str, str], modules: Mapping[str, Any]) -> str | None:
    """The module that a file's layer means; None if the base has none."""
    if half.style == "kohya":
        return flat.get(half.layer)
    name = half.layer.removeprefix("base_model.model.").replace(".processor.", ".")
    older = name.replace(".text_model.", ".")  # as transformers called it before version 5
    spelled = [name, older, f"unet.{name}", f"transformer.{name}"]
    candidates = [*spelled, *(f"{name}.0" for name in spelled)]  # to_out is a list of a layer and a dropout
    return next((c for c in candidates if hasattr(modules.get(c), "weight")), None)


def flattened(modules: Mapping[str, Any]) -> dict[str, str]:
    """kohya's name of every module that can have an adapter, in all spellings, to the canonical one."""
    found: dict[str, str] = {}
    for name in modules:
        component, _, path = name.partition(".")
        spellings = [path, original(path) if component == "unet" else in_clip(path)]
        for prefix, components in FLAT.items():
            if component in components:
                found |= {prefix + spelling.replace(".", "_"): name for spelling in spellings if spelling}
    return found


def in_clip(path: str) -> str:
    """A text encoder's module path as it was before transformers 5, and still is in LoRA files."""
    return path if path.startswith("text_model.") else f"text_model.{path}"


BLOCK = re.compile(r"(down|up|mid)_block(?:s\.(\d+))?\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.?(.*)")
OUTSIDE = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
RESNET = {
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
LAYERS_PER_BLOCK = 2  # of SD's and SDXL's UNets


def original(path: str) -> str | None:
    """A UNet module's path in the original code (LDM, SGM), as kohya's SDXL files have it; None if there is none."""
    match = BLOCK.fullmatch(path)
    if not match:
        return OUTSIDE.get(path)
    side, block, kind, number, rest = match[1], int(match[2] or 0), match[3], int(match[4]), match[5]
    inner = RESNET.get(rest, rest) if kind == "resnets" else "op" if kind == "downsamplers" else rest
    if side == "mid":
        place = f"middle_block.{2 * number if kind == 'resnets' else 1}"
    elif side == "down":
        last = LAYERS_PER_BLOCK if kind == "downsamplers" else number
        place = f"input_blocks.{1 + block * (LAYERS_PER_BLOCK + 1) + last}.{int(kind == 'attentions')}"
    else:
        last = LAYERS_PER_BLOCK if kind == "upsamplers" else number
        slot = {"resnets": 0, "attentions": 1, "upsamplers": 2}[kind]
        place = f"output_blocks.{block * (LAYERS_PER_BLOCK + 1) + last}.{slot}"
    return f"{place}.{inner}" if inner else place


def alphas_of(metadata: Mapping[str, str]) -> tuple[Any, list[str]]:
    """A function from layer and rank to alpha, by diffusers' header; without one alpha is the rank, as loaders do."""
    try:
        known = json.loads(metadata.get(ADAPTER_METADATA, "{}"))
        if not isinstance(known, dict):
            raise ValueError
    except ValueError:
        return (lambda name, rank: float(rank)), [f"its {ADAPTER_METADATA} is not JSON"]

    def alpha(name: str, rank: int) -> float:
        component, _, path = name.partition(".")
        own = known.get(f"{component}.alpha_pattern") or {}
        return float(own.get(path, known.get(f"{component}.lora_alpha", rank)))

    return alpha, []


def misfit(found: Mapping[str, Tensor], weight: Tensor | None) -> str | None:
    """Why tensors are no adapter of a module with this weight [out, in, ...]; None if they are one."""
    down, up = found.get("down"), found.get("up")
    if down is None or up is None or weight is None:
        return f"its {'lora_A (lora_down)' if down is None else 'lora_B (lora_up)'} is missing"
    kinds = {str(t.dtype) for part, t in found.items() if part != "alpha" and not t.is_floating_point()}
    if kinds:
        return f"holds {', '.join(sorted(kinds))}, not floating-point numbers"
    if down.ndim != weight.ndim or up.ndim != weight.ndim:
        return f"its halves have {down.ndim} and {up.ndim} axes, the layer has {weight.ndim}"
    if up.shape[1] != down.shape[0]:
        return f"its halves have ranks {down.shape[0]} and {up.shape[1]}"
    if down.shape[1:] != weight.shape[1:] or up.shape[0] != weight.shape[0]:
        sizes = (up.shape[:1] + down.shape[1:], weight.shape)
        return "LoRA for {}, the base has {}".format(*(" x ".join(map(str, size)) for size in sizes))
    if "magnitude" in found and found["magnitude"].numel() != weight.shape[0]:
        return f"its magnitude has {found['magnitude'].numel()} numbers, the layer puts out {weight.shape[0]}"
    return None


def diffusers(layers: Mapping[str, Layer]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of a file in diffusers' style; alpha stands in the header."""
    tensors, header = {}, {}
    for name, layer in layers.items():
        tensors |= {f"{name}.lora_A.weight": layer.down, f"{name}.lora_B.weight": layer.up}
        if layer.magnitude is not None:
            shape = (1, -1, 1, 1) if layer.down.ndim == 4 else (-1,)
            tensors[f"{name}.lora_magnitude_vector"] = layer.magnitude.reshape(shape)
    for component in dict.fromkeys(name.partition(".")[0] for name in layers):
        own = {n.removeprefix(f"{component}."): one for n, one in layers.items() if n.startswith(f"{component}.")}
        first = next(iter(own.values()))
        header |= {
            f"{component}.r": first.rank,
            f"{component}.lora_alpha": first.alpha,
            f"{component}.target_modules": sorted(own),
            f"{component}.rank_pattern": {n: one.rank for n, one in own.items() if one.rank != first.rank},
            f"{component}.alpha_pattern": {n: one.alpha for n, one in own.items() if one.alpha != first.alpha},
        }
        if any(one.magnitude is not None for one in own.values()):
            header[f"{component}.use_dora"] = True
    return tensors, {"format": "pt", ADAPTER_METADATA: json.dumps(header, sort_keys=True)}


def kohya(layers: Mapping[str, Layer]) -> dict[str, Tensor]:
    """Tensors of a file in kohya's style, which ComfyUI and A1111 read; alpha is a tensor of each layer."""
    tensors = {}
    for name, layer in layers.items():
        component, _, path = name.partition(".")
        path = in_clip(path) if component.startswith("text_encoder") else path
        own = f"{KOHYA[component]}_{path.replace('.', '_')}"
        tensors |= {f"{own}.lora_down.weight": layer.down, f"{own}.lora_up.weight": layer.up}
        tensors[f"{own}.alpha"] = torch.tensor(layer.alpha)
        if layer.magnitude is not None:
            tensors[f"{own}.dora_scale"] = layer.magnitude.reshape(-1, *[1] * (layer.down.ndim - 1))
    return tensors


def change(layer: Layer) -> Tensor:
    """What a layer without magnitude adds to its weight: [out, in, ...]."""
    product = layer.up.flatten(1).double() @ layer.down.flatten(1).double()
    return layer.alpha / layer.rank * product.reshape(layer.up.shape[0], *layer.down.shape[1:])


def apart(one: Mapping[str, Layer], other: Mapping[str, Layer]) -> float:
    """The largest relative difference of a layer's change (Frobenius norm); infinite where layers differ in name."""
    if one.keys() != other.keys():
        return float("inf")
    found = [0.0]
    for name, layer in one.items():
        mine, theirs = change(layer), change(other[name])
        found.append(
            float((mine - theirs).norm() / mine.norm().clamp(min=1e-30)) if mine.norm() else float(theirs.norm())
        )
        if (layer.magnitude is None) != (other[name].magnitude is None):
            return float("inf")
        if layer.magnitude is not None and other[name].magnitude is not None:
            gap = (layer.magnitude.double() - other[name].magnitude.double()).norm()
            found.append(float(gap / layer.magnitude.double().norm()))
    return max(found)
