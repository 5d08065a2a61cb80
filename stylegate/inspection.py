"""What a LoRA file is, from itself alone: whose names it uses, what it adapts, how strongly, who would ignore what.

    stylegate inspect FILE ...

What readers do is taken from their sources as of 2026-11 (docs/lora-files.md).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from stylegate import adapter, files, lorafile, loranames
from stylegate.errors import DataError, ModelError
from stylegate.loranames import Half

ARCHITECTURES = {  # by what headers call it
    "stable-diffusion-v1": "Stable Diffusion 1.x",
    "stable-diffusion-xl-v1-base": "SDXL",
    "sd_v1": "Stable Diffusion 1.x",
    "sdxl_base_v1-0": "SDXL",
}
WORDS = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 2048: "SDXL"}  # by the width of its text encoders
SHOWN = 100  # characters of a header's value


def inspect(paths: Sequence[Path]) -> int:
    """Print what each file is. Raises DataError without files, ModelError for one that is no LoRA file."""
    if not paths:
        raise DataError("inspect needs LoRA files", next_step="stylegate inspect checkpoints/*/lora/*.safetensors")
    for path in paths:
        tensors, metadata = lorafile.load(path)
        lines = described(tensors, metadata)
        if not lines:
            raise ModelError(f"{path} holds no LoRA layers", next_step="LoHa, LoKr and whole weights are not read.")
        print(f"{files.shown(path.resolve())}: {path.stat().st_size / 1e6:.1f} MB, sha256 {files.sha256(path)}")
        for title, text in lines:
            print(f"  {title:<11}{text}")
    return 0


def described(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> list[tuple[str, str]]:
    """Title and text of each line; none for a file without LoRA layers."""
    halves = {key: loranames.half_of(key) for key in tensors}
    known = {key: half for key, half in halves.items() if half and (half.part == "alpha" or tensors[key].ndim > 0)}
    layers = {half.layer: half.style for half in known.values() if half.part in ("down", "up")}
    ranks = {half.layer: tensors[key].shape[0] for key, half in known.items() if half.part == "down"}
    header = adapter.Header(metadata)
    strengths = {layer: header.alpha(layer, rank) / max(rank, 1) for layer, rank in ranks.items()}
    for key, half in known.items():
        if half.part == "alpha" and ranks.get(half.layer) and tensors[key].numel() == 1:
            strengths[half.layer] = float(tensors[key]) / ranks[half.layer]
    if not layers:
        return []
    out = [
        ("family", family_of(tensors, known, metadata)),
        ("names", ", ".join(f"{style} {count}" for style, count in Counter(layers.values()).items())),
        ("layers", ", ".join(f"{kind} {count}" for kind, count in Counter(map(kind_of, layers)).items())),
        ("rank", spelled(ranks.values())),
        ("strength", f"{spelled(strengths.values())} (alpha / rank)"),
        ("numbers", spelled(str(t.dtype).removeprefix("torch.") for t in tensors.values())),
    ]
    out += [("problem", problem) for problem in header.problems]
    out += [(reader, text) for reader, text in readers(known, strengths).items()]
    if unknown := [key for key, half in halves.items() if half is None]:
        out.append(("unknown", f"{len(unknown)} keys of no known kind: {', '.join(map(repr, unknown[:3]))}"))
    return out + [("header", f"{key} = {value[:SHOWN]!r}") for key, value in sorted(metadata.items())]


def family_of(tensors: Mapping[str, Tensor], known: Mapping[str, Half], metadata: Mapping[str, str]) -> str:
    """By the header, else by the width of the words that the UNet attends to."""
    for key in ("modelspec.architecture", "ss_base_model_version"):
        if named := metadata.get(key):
            return f"{ARCHITECTURES.get(named.removesuffix('/lora'), named)} (by {key})"
    widths = {
        tensors[key].shape[1]
        for key, half in known.items()
        if half.part == "down"
        and half.layer.replace("_", ".").replace(".processor", "").endswith("attn2.to.k")
        and tensors[key].ndim == 2
    }
    named = [WORDS.get(width, f"a UNet that attends to words of width {width}") for width in sorted(widths)]
    return " or ".join(named) or "not told by header or keys"


def kind_of(layer: str) -> str:
    """What part of a model a layer is, by its name."""
    name = layer.replace("_", ".")
    if "text.model" in name or name.startswith(("lora.te", "text.encoder")):
        return "text encoder"
    if ".attn" in name or ".to.q" in name or "qkv" in name:
        return "attention"
    if ".ff." in name or ".mlp" in name:
        return "feed-forward"
    return "convolution and projection"


def readers(known: Mapping[str, Half], strengths: Mapping[str, float]) -> dict[str, str]:
    """Who would ignore what, or take another strength."""
    layers = {half.layer: half.style for half in known.values() if half.part in ("down", "up")}
    dotted = [layer for layer, style in layers.items() if style in ("diffusers", "bare")]
    original = [layer for layer, style in layers.items() if style == "comfyui"]
    bare = [layer for layer, style in layers.items() if style == "bare"]
    own_alpha = {half.layer for half in known.values() if half.part == "alpha"}
    said: dict[str, list[str]] = {"diffusers": [], "ComfyUI": [], "A1111": []}
    if any(key.endswith("dora_scale") for key in known):
        said["diffusers"].append("drops dora_scale: a DoRA without its magnitudes")
    if dotted and own_alpha & set(dotted):
        said["diffusers"].append("refuses .alpha keys among its own names")
    if bare:
        said["diffusers"].append(f"ignores {len(bare)} layers: their names lack the component (unet.)")
    if dotted and len(dotted) < len(layers):
        said["diffusers"].append(f"ignores {len(layers) - len(dotted)} layers: kohya's names among dotted ones")
    if original:
        said["diffusers"].append("translates the original model's names; for FLUX, Qwen-Image and Z-Image alone")
    if any("lora_magnitude_vector" in key for key in known):
        said["ComfyUI"].append("ignores lora_magnitude_vector: a DoRA without its magnitudes")
    hidden = [
        layer
        for layer in dotted
        if ".to_" in layer and ".processor." not in layer and not layer.startswith("transformer.")
    ]
    if hidden:
        said["ComfyUI"].append(f"ignores {len(hidden)} attention layers: their names are not kohya's")
    wrong = [layer for layer in dotted if layer not in own_alpha and strengths.get(layer, 1.0) != 1.0]
    if wrong:
        said["ComfyUI"].append(f"takes {len(wrong)} layers at strength 1: it does not read the header's alpha")
    if dotted or original:
        said["A1111"].append(f"ignores {len(dotted) + len(original)} layers: their names are not kohya's")
    return {reader: "; ".join(text) or "reads all of it" for reader, text in said.items()}


def spelled(values) -> str:
    """Distinct values, the most frequent first, with their counts where there are several."""
    counts = Counter(f"{v:g}" if isinstance(v, float) else str(v) for v in values)
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{value} ({count} times)" for value, count in counts.most_common(4))
