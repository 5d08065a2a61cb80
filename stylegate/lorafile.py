"""LoRA files: canonical safetensors bytes, read strictly, merged into a pipeline whatever program wrote them."""

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from stylegate import adapter, files, loranames
from stylegate.adapter import Layer
from stylegate.config import Config, run_name
from stylegate.errors import ModelError
from stylegate.families import Models
from stylegate.rundirectory import run_directory_name

SAME_ENERGY = 1e-2  # share of the sum of squares: half precision is rounded on the way
ALIGNMENT = 8  # bytes; the safetensors format wants the header padded to it


def canonical_bytes(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> bytes:
    """A safetensors file whose bytes depend on nothing but its content.

    The library writes `__metadata__` in the order of a hash map; here the header is written again, sorted.
    """
    raw = save({name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}, metadata)
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    text = json.dumps(header, separators=(",", ":"), sort_keys=True).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return struct.pack("<Q", len(text)) + text + raw[8 + length :]


def load(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file. Raises ModelError if it is none (pickles are never opened)."""
    if path.suffix != ".safetensors":
        raise ModelError(f"{path} is not a .safetensors file", next_step="weights are read from safetensors only.")
    if not path.is_file():
        raise ModelError(
            f"LoRA file not found: {path}", next_step="stylegate train makes one, or lora_file=FILE names it."
        )
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except SafetensorError as error:
        raise ModelError(
            f"{path} is not a whole safetensors file: {error}", next_step="copy or train it again."
        ) from None


def trained(config: Config) -> Path | None:
    """The LoRA that later verbs draw with: lora_file, else the one trained by the same words; None for the base alone.

    Raises ModelError if there is none yet.
    """
    if config.lora_file == "none":
        return None
    if config.lora_file:
        given = Path(config.lora_file).expanduser().resolve()
        load(given)
        return given
    path = files.RUNS / run_directory_name(config) / "lora" / f"{run_name(config)}.safetensors"
    if not path.is_file():
        raise ModelError(
            f"no LoRA has been trained by these words: {files.shown(path)} is missing",
            next_step="stylegate train with the same words; lora_file=FILE for another; lora_file=none for the base.",
        )
    return path


def modules_of(pipeline: Any) -> dict[str, torch.nn.Module]:
    """Every module of a pipeline that a LoRA may adapt, by canonical name."""
    parts = {name: getattr(pipeline, name, None) for name in loranames.COMPONENTS}
    return adapter.adaptable({name: part for name, part in parts.items() if part})


def attach(models: Models, path: Path) -> None:
    """Merge a LoRA file of any style into the pipeline's weights: drawing then costs no more than with the base alone.
    On a base in 4 bits it stays beside them.

    Raises ModelError naming what does not fit; nothing is skipped silently.
    """
    modules = modules_of(models.pipeline)
    tensors, metadata = load(path)
    layers, problems = adapter.read(tensors, metadata, modules)
    whole = not adapter.Header(metadata).known  # in translation a header's alpha would be lost
    if problems and whole and (translated := by_diffusers(models.pipeline, tensors)):
        layers, problems = adapter.read(translated, {}, modules)
    if problems:
        shown = problems[:5] + ([f"and {len(problems) - 5} more"] if len(problems) > 5 else [])
        raise ModelError(
            f"{path} does not fit the base:", shown, "use the base that the LoRA was trained on (base=...)."
        )
    beside = {}
    for name, layer in layers.items():
        weight: Any = modules[name].weight
        if weight.is_floating_point():
            weight.data = adapter.merged(weight, layer)
        else:  # 4 bits: nothing can be merged into them
            beside[name] = adapter.folded(layer)
    if beside:
        models.pipeline.load_lora_weights(adapter.diffusers(beside)[0])
        for name, parameter in models.denoiser.named_parameters():
            if "lora_" in name:
                parameter.data = parameter.data.float()  # as they were trained


def by_diffusers(pipeline: Any, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor] | None:
    """A transformer's file in the original model's names (ComfyUI's, kohya's), in diffusers' own translation.

    None where it has none, or where not all of the file is in it.
    """
    halves = [loranames.half_of(name) for name in tensors]
    if not hasattr(pipeline, "transformer") or not all(half and half.part != "magnitude" for half in halves):
        return None  # a DoRA's magnitudes would be lost in translation
    flat = {loranames.flat_original(name): tensor for name, tensor in tensors.items()}
    for spelled in (flat, tensors):  # it knows alpha among kohya's names, but not among ComfyUI's
        try:
            before = adapter.energy(tensors)
            found = pipeline.lora_state_dict({name: tensor.clone() for name, tensor in spelled.items()})
            after = adapter.energy(found)
        except Exception:  # whatever it meets in names that it does not know, or in shapes that are none
            continue
        if abs(after - before) <= SAME_ENERGY * before:
            return found
    return None


def layers_of(adapted: Mapping[str, Any], scale: float = 1.0) -> dict[str, Layer]:
    """The trained adapters of the parts by component; `scale` is folded into alpha: strength 1 is the one chosen."""
    tensors, header = {}, {}
    for component, part in adapted.items():
        settings = part.peft_config["default"]
        header |= {f"{component}.lora_alpha": settings.lora_alpha * scale}
        header |= {f"{component}.use_rslora": settings.use_rslora}
        tensors |= {f"{component}.{name}": t.detach().cpu() for name, t in get_peft_model_state_dict(part).items()}
    told = {adapter.ADAPTER_METADATA: json.dumps(header)}
    layers, problems = adapter.read(tensors, told, adapter.adaptable(adapted))
    assert not problems, problems
    return layers


def released(tensors: dict[str, torch.Tensor], described: dict[str, str]) -> bytes:
    """A file to hand out: ModelSpec's hash, of the tensors alone, goes into its header."""
    plain = canonical_bytes(tensors, {})
    (length,) = struct.unpack("<Q", plain[:8])
    digest = hashlib.sha256(plain[8 + length :]).hexdigest()
    return canonical_bytes(tensors, described | {"modelspec.hash_sha256": f"0x{digest}"})
