"""LoRA files: canonical safetensors bytes, honest metadata, the diffusers key names."""

import json
import struct
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from stylegate import files
from stylegate.config import Config, run_directory_name, run_name
from stylegate.errors import ModelError
from stylegate.families import Family, Models

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


def attach(models: Models, family: Family, path: Path) -> None:
    """Load a LoRA file into the pipeline. Raises ModelError naming what does not fit; nothing is skipped silently."""
    tensors, metadata = load(path)
    misfits = misfits_of(tensors, family.PREFIX, dict(models.denoiser.named_modules()))
    try:
        json.loads(metadata.get("lora_adapter_metadata", "{}"))
    except ValueError:
        misfits.append("its lora_adapter_metadata is not JSON")
    if misfits:
        shown = misfits[:5] + ([f"and {len(misfits) - 5} more"] if len(misfits) > 5 else [])
        raise ModelError(
            f"{path} does not fit the base:", shown, "use the base that the LoRA was trained on (base=...)."
        )
    try:
        models.pipeline.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name="brand")
    except Exception as error:  # what metadata of other trainers can hold is not ours to foresee
        raise ModelError(f"{path} cannot be loaded: {str(error).splitlines()[0]}") from None
    models.pipeline.fuse_lora()  # merged into the weights, drawing costs no more than with the base alone
    models.pipeline.unload_lora_weights()


def misfits_of(tensors: dict[str, torch.Tensor], prefix: str, modules: dict[str, torch.nn.Module]) -> list[str]:
    """What does not fit: every tensor must be half of a pair for a layer of the base, of its shape."""
    found = [] if tensors else ["it holds no LoRA weights"]
    for key, tensor in tensors.items():
        half = next((h for h in ("lora_A", "lora_B") if key.endswith(f".{h}.weight")), None)
        name = key.removeprefix(prefix).removesuffix(f".{half}.weight")
        weight = getattr(modules.get(name), "weight", None)
        if half is None or not key.startswith(prefix):
            found.append(f"{key}: not of the form {prefix}<layer>.lora_A.weight or lora_B")
        elif weight is None:
            found.append(f"{name}: the base has no such layer")
        elif tensor.ndim != weight.ndim or not tensor.is_floating_point():
            found.append(f"{key}: {tensor.dtype} of {tensor.ndim} axes, the layer has {weight.ndim}")
        elif half == "lora_A":
            other = tensors.get(key.replace("lora_A", "lora_B"))
            if other is None or other.ndim < 2 or other.shape[1] != tensor.shape[0]:
                found.append(f"{name}: its lora_B is missing or of another rank")
            elif (tensor.shape[1], other.shape[0]) != (weight.shape[1], weight.shape[0]):
                here = f"{other.shape[0]} x {tensor.shape[1]}"
                found.append(f"{name}: LoRA for {here}, the base has {weight.shape[0]} x {weight.shape[1]}")
        elif key.replace("lora_B", "lora_A") not in tensors:
            found.append(f"{name}: its lora_A is missing")
    return found


def release_bytes(denoiser: torch.nn.Module, prefix: str, facts: dict[str, str], scale: float = 1.0) -> bytes:
    """The adapter in diffusers' form (`unet.<layer>.lora_A.weight`), with what a loader needs to know of its scale.

    `scale` is folded into alpha, so that strength 1 in any program is the one that was chosen.
    """
    tensors = {prefix + name: tensor for name, tensor in get_peft_model_state_dict(denoiser).items()}
    adapter: Any = denoiser.peft_config["default"]  # type: ignore[index]
    component = prefix.rstrip(".")
    known = {
        f"{component}.r": adapter.r,
        f"{component}.lora_alpha": adapter.lora_alpha * scale,
        f"{component}.target_modules": sorted(adapter.target_modules),
    }
    return canonical_bytes(
        tensors, facts | {"format": "pt", "lora_adapter_metadata": json.dumps(known, sort_keys=True)}
    )
