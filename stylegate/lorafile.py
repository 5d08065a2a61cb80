"""LoRA files: canonical safetensors bytes, read strictly, merged into a pipeline whatever program wrote them."""

import hashlib
import json
import shlex
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from peft import get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from stylegate import adapter, files, fusednames, loraheader, loranames
from stylegate.adapter import AnyLayer, LoraOrDoraLayer
from stylegate.config import Config, config_as_dict, run_or_batch_name
from stylegate.errors import DataError, ModelError
from stylegate.families import LoadedBaseModel
from stylegate.rundirectory import run_directory_name
from stylegate.verbs import shell_arguments_naming_run

PEFT_FILE = "adapter_model.safetensors"  # as PEFT's save_pretrained names it
ALIGNMENT = 8  # bytes; the safetensors format wants the header padded to it


def canonical_safetensors_bytes(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> bytes:
    """The bytes of a safetensors file with these tensors and metadata: equal content gives equal bytes.

    The library writes `__metadata__` in the order of a hash map; here the header is written again, sorted.
    """
    raw = save({name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}, metadata)
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    text = json.dumps(header, separators=(",", ":"), sort_keys=True).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return struct.pack("<Q", len(text)) + text + raw[8 + length :]


def load_tensors_and_metadata(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file, or of a folder that PEFT has written.

    PEFT's settings, which stand beside its file, are then in the metadata by the name of their file. Raises ModelError
    for any other file (pickles are never opened).
    """
    path = lora_file_in_peft_folder(path) if path.is_dir() else path
    if path.suffix != ".safetensors":
        raise ModelError(f"{path} is not a .safetensors file", next_step="weights are read from safetensors only.")
    if not path.is_file():
        raise ModelError(
            f"LoRA file not found: {path}", next_step="stylegate train makes one, or lora_file=FILE names it."
        )
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = dict(file.metadata() or {})
    except SafetensorError as error:
        raise ModelError(
            f"{path} is not a whole safetensors file: {error}", next_step="copy or train it again."
        ) from None
    beside = peft_settings_path(path)
    return tensors, metadata | ({} if beside is None else {loraheader.PEFT_CONFIG: beside.read_text(errors="replace")})


def lora_file_in_peft_folder(folder: Path) -> Path:
    """The path of the LoRA file in a folder that PEFT has written. Raises ModelError if there is none."""
    path = folder / PEFT_FILE
    if not path.is_file():
        within = sorted(found.parent.name for found in folder.glob(f"*/{PEFT_FILE}"))
        each = f", but {' and '.join(within)} in it have one each: name one of them" if within else ""
        raise ModelError(
            f"{folder} is no LoRA: it is a folder without {PEFT_FILE}{each}",
            next_step="name a .safetensors file, or a folder that PEFT's save_pretrained has written.",
        )
    return path


def peft_settings_path(path: Path) -> Path | None:
    """The path of the settings that PEFT has written beside a LoRA file; None if the file is not PEFT's or has none."""
    beside = path.with_name(loraheader.PEFT_CONFIG)
    return beside if path.name == PEFT_FILE and beside.is_file() else None


def lora_file_digest(path: Path) -> str:
    """The sha256 (hex) of a LoRA file; where PEFT's settings stand beside it, which hold its strength, a digest of
    both.
    """
    beside = peft_settings_path(path)
    return (
        files.sha256_of_file(path)
        if beside is None
        else files.canonical_sha256([files.sha256_of_file(path), files.sha256_of_file(beside)])
    )


def lora_file_for_drawing(config: Config) -> Path | None:
    """The path of the LoRA that `plan` and `generate` use: lora_file, else the one that `train` made with this
    configuration.

    None for lora_file=none, which is the base without a LoRA. Raises ModelError if the file does not exist yet.
    """
    if config.lora_file == "none":
        return None
    if config.lora_file:
        given = Path(config.lora_file).expanduser().resolve()
        given = lora_file_in_peft_folder(given) if given.is_dir() else given
        load_tensors_and_metadata(given)
        return given
    path = trained_lora_path(config)
    if not path.is_file():
        raise ModelError(
            f"no LoRA has been trained with these arguments: {files.display_path(path)} is missing",
            next_step=missing_lora_advice(config),
        )
    return path


def missing_lora_advice(config: Config) -> str:
    """What to do where the LoRA of this configuration has not been trained."""
    others = "lora_file=FILE names another LoRA; lora_file=none is the base alone."
    if not config.brand:
        return f"give brand=, and what else was given to stylegate train. {others}"
    found = newest_lora_of_same_brand(config)
    run = (
        f"lora_file={shlex.quote(files.display_path(found))} draws with what a run of this brand trained; "
        if found
        else ""
    )
    batch = f"batch={config.batch} alone, without brand=, draws with the LoRA of that batch; " if config.batch else ""
    return f"stylegate train {shell_arguments_naming_run(config)} makes it; {run}{batch}{others}"


def newest_lora_of_same_brand(config: Config) -> Path | None:
    """The newest LoRA file that any run in checkpoints/ made of this brand, for this base and family; None if there is
    none.
    """
    asked, found = config_as_dict(config), []
    for record in files.RUNS.glob("*/run.json"):
        try:
            made = files.read_json(record, "the run's record", "config")["config"]
        except DataError:
            continue  # a damaged record names no run
        if all(made.get(key) == asked[key] for key in ("brand", "base", "family")):
            path = (
                record.parent
                / "lora"
                / f"{run_or_batch_name(Config(name=made['name'], brand=made['brand']))}.safetensors"
            )
            found += [path] if path.is_file() else []
    return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)


def trained_lora_path(config: Config) -> Path:
    """The path of the LoRA file that `train` writes for this configuration, whether it exists or not."""
    return files.RUNS / run_directory_name(config) / "lora" / f"{run_or_batch_name(config)}.safetensors"


def adaptable_modules_of_pipeline(pipeline: Any) -> dict[str, torch.nn.Module]:
    """Every module of a pipeline that a LoRA can adapt, by canonical name."""
    parts = {name: getattr(pipeline, name, None) for name in loranames.COMPONENTS}
    return adapter.adaptable_modules({name: part for name, part in parts.items() if part})


def merge_lora_file_into_pipeline(models: LoadedBaseModel, path: Path) -> None:
    """Merge a LoRA file of any style into the pipeline's weights: drawing then costs as much as with the base alone.

    On a base in 4 bits the LoRA is loaded beside the weights. Raises ModelError naming what does not fit, before any
    weight changes.
    """
    modules = adaptable_modules_of_pipeline(models.pipeline)
    layers = read_lora_layers(path, modules, models.pipeline)
    beside = {name for name in layers if not weight_of_module(modules[name]).is_floating_point()}
    plain = {name: layer for name, layer in adapter.lora_and_dora_layers_by_name(layers).items() if name in beside}
    if wrong := [name for name in beside if name not in plain or layers[name].bias is not None]:
        raise ModelError(
            f"{path} is more than a plain LoRA ({wrong[0]}): it cannot be used on a base in 4 bits",
            next_step="use the base in 16 or 32 bits.",
        )
    if wrong := [name for name in beside if adapter.is_dora_of_input_channels(layers[name])]:
        raise ModelError(
            f"{path} is a DoRA by input channels ({wrong[0]}): it cannot be used on a base in 4 bits",
            next_step="use the base in 16 or 32 bits.",
        )
    for name in layers.keys() - beside:
        weight, change = weight_of_module(modules[name]), layers[name]
        weight.data = adapter.merged_weight(weight, change)
        if change.bias is not None:
            bias: torch.Tensor = modules[name].bias  # type: ignore[assignment]
            bias.data += change.bias.to(bias)
    if beside:
        folded = {name: adapter.with_alpha_equal_to_rank(layer) for name, layer in plain.items()}
        models.pipeline.load_lora_weights(adapter.to_diffusers(folded)[0])
        for name, parameter in models.denoiser.named_parameters():
            if "lora_" in name:
                parameter.data = parameter.data.float()  # as they were trained


def read_lora_layers(path: Path, modules: Mapping[str, Any], pipeline: Any) -> dict[str, AnyLayer]:
    """Read a LoRA file of any style. Returns its layers by canonical name.

    `modules` are those of the base (adapter.adaptable_modules), `pipeline` is its pipeline, or the class of it. Raises
    ModelError naming what does not fit the base.
    """
    tensors, metadata = load_tensors_and_metadata(path)
    layers, problems = adapter.lora_layers_and_problems(tensors, metadata, modules)
    if problems and any(name.startswith("transformer.") for name in modules):
        translated = fusednames.lora_layers_and_problems_through_diffusers(pipeline, tensors, metadata, modules)
        layers, problems = translated or (layers, problems)
    if problems:
        shown = problems[:5] + ([f"and {len(problems) - 5} more"] if len(problems) > 5 else [])
        raise ModelError(
            f"{path} {'does not fit the base' if another_base_helps(problems) else 'cannot be used'}:",
            shown,
            advice_on_unusable_lora(tensors, problems),
        )
    return layers


def diffusers_pipeline_class_of_folder(folder: Path) -> Any:
    """diffusers' class of the pipeline in `folder`, which its model_index.json names."""
    return getattr(
        diffusers, files.read_json(folder / "model_index.json", "the base's index", "_class_name")["_class_name"]
    )


def weight_of_module(module: Any) -> torch.Tensor:
    """The weight of a linear or convolution module, [out, in, ...]; in 4 bits it is packed, and not floating-point."""
    return module.weight


def advice_on_unusable_lora(tensors: Mapping[str, torch.Tensor], problems: list[str]) -> str:
    """The next step, as a sentence, for a user whose LoRA file has these problems and cannot be used."""
    kinds = {
        found[1] for key in tensors if (found := loranames.layer_and_other_adapter_kind(key))
    } - loranames.READ_HERE
    if kinds:
        return (
            f"it holds {', '.join(sorted(kinds))}, which is not read here: train a plain LoRA, or convert the file "
            "with the program that made it; stylegate inspect says which programs read it."
        )
    if another_base_helps(problems):
        return "use the base that the LoRA was trained on (base=...)."
    return "export it again with the program that made it; stylegate inspect says what it holds."


def another_base_helps(problems: list[str]) -> bool:
    """Whether another base can help: every problem is a layer or a shape that the base does not have."""
    return all(isinstance(problem, adapter.BaseMismatch) for problem in problems)


def adapters_as_plain_lora_layers(adapted: Mapping[str, Any], scale: float = 1.0) -> dict[str, LoraOrDoraLayer]:
    """The trained adapters as plain LoRA layers, by canonical name; `adapted` are the adapted modules by component.

    `scale`, the strength that was chosen, is multiplied into alpha: readers then use strength 1.
    """
    tensors, header = {}, {}
    for component, part in adapted.items():
        settings = part.peft_config["default"]
        header |= {f"{component}.lora_alpha": settings.lora_alpha * scale}
        header |= {f"{component}.use_rslora": settings.use_rslora}
        tensors |= {f"{component}.{name}": t.detach().cpu() for name, t in get_peft_model_state_dict(part).items()}
    metadata = {loraheader.ADAPTER_METADATA: json.dumps(header)}
    layers, problems = adapter.lora_layers_and_problems(tensors, metadata, adapter.adaptable_modules(adapted))
    assert not problems, problems
    return adapter.lora_and_dora_layers_by_name(layers)


@torch.no_grad()
def load_lora_into_adapters(path: Path, adapted: torch.nn.ModuleDict) -> None:
    """Set the trained adapters of `adapted`, modules by component, to the LoRA in a file; its strength goes into B.

    Raises ModelError if its layers, ranks or kind are not those of the adapters, or if it changes biases too.
    """
    tensors, metadata = load_tensors_and_metadata(path)
    modules = adapter.adaptable_modules(dict(adapted.items()))
    layers, problems = adapter.lora_layers_and_problems(tensors, metadata, modules)
    wanted: dict[str, Any] = {name: module for name, module in modules.items() if isinstance(module, LoraLayer)}
    if not problems and (other := len(layers.keys() ^ wanted.keys())):
        problems = [f"it adapts {len(layers)} layers, these arguments {len(wanted)}; {other} are in only one of both"]
    plain = adapter.lora_and_dora_layers_by_name(layers)
    problems += [f"{name}: no plain LoRA; stylegate convert makes one of it" for name in layers.keys() - plain]
    for name, layer in plain.items() if not problems else ():
        if layer.rank != wanted[name].r["default"]:
            problems.append(f"{name}: rank {layer.rank}, these arguments say {wanted[name].r['default']}")
        if (layer.magnitude is not None) != bool(wanted[name].use_dora.get("default")):
            problems.append(f"{name}: {'a DoRA' if layer.magnitude is not None else 'no DoRA'}, unlike these arguments")
        if layer.bias is not None:
            problems.append(f"{name}: it changes the layer's bias too (diff_b), which is not trained here")
    if problems:
        raise ModelError(
            f"{files.display_path(path)} is not a LoRA as these arguments describe one:",
            problems[:3] + ([f"and {len(problems) - 3} more"] if len(problems) > 3 else []),
            "give the arguments that it was trained with (lora=, lora.rank=, base=).",
        )
    for name, layer in plain.items():
        target = wanted[name]
        strength = layer.alpha / layer.rank / target.scaling["default"]
        target.lora_A["default"].weight.copy_(layer.down)
        target.lora_B["default"].weight.copy_(layer.up.float() * strength)
        if layer.magnitude is not None:
            vector = target.lora_magnitude_vector["default"].weight
            vector.copy_(layer.magnitude.reshape(vector.shape))


def published_lora_bytes(tensors: dict[str, torch.Tensor], described: dict[str, str]) -> bytes:
    """The bytes of a safetensors file to publish: `described` and ModelSpec's hash of the tensors are its header."""
    plain = canonical_safetensors_bytes(tensors, {})
    (length,) = struct.unpack("<Q", plain[:8])
    digest = hashlib.sha256(plain[8 + length :]).hexdigest()
    return canonical_safetensors_bytes(tensors, described | {"modelspec.hash_sha256": f"0x{digest}"})
