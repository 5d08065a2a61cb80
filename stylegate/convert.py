"""A LoRA file of any kind as a plain LoRA, in the names of one program, with its strength in the matrices.

    stylegate convert FILE to=diffusers|kohya|comfyui base=BASE [rank=N] [out=FILE]

The layers' names and shapes are those of `base`, of which only the configs are read; of a DoRA, and of a file with
layers of a text encoder, its weights too. Plain LoRA layers of rank N or less stay as they are. Every other layer
becomes the pair of matrices of rank N that is nearest to its change (by singular values), and how far that is from it
is said.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stylegate import adapter, files, lorafile, loranames
from stylegate.adapter import AnyLayer, LoraOrDoraLayer
from stylegate.errors import ConfigError, ModelError
from stylegate.families import FAMILIES, Family
from stylegate.words import counted

STYLES = ("diffusers", "kohya", "comfyui")
USAGE = "stylegate convert FILE to=diffusers|kohya|comfyui base=BASE [rank=N] [out=FILE]"
SAME_CHANGE = 1e-6  # relative difference between what is written and what is read back
OVERSAMPLED = 16  # singular values that are estimated besides those that are kept


class ConversionRequest(NamedTuple):
    """What the arguments of `stylegate convert` ask for."""

    path: Path
    style: str  # of STYLES
    base: str
    rank: int | None
    out: Path


class ConversionDeviation(NamedTuple):
    """How far a converted layer's change is from that of the layer it was made of (Frobenius norms)."""

    of_change: float  # norm of the difference of the two changes
    change: float  # norm of the change of the layer that it was made of

    @property
    def relative_deviation(self) -> float:
        return self.of_change / self.change if self.change else 0.0


def convert(words: Sequence[str]) -> int:
    """Run `stylegate convert`: write the converted file, and print how exact it is. Returns 0.

    Raises ConfigError for bad arguments, and ModelError for a file that cannot be read or that has no form in the
    style.
    """
    wanted = parse_convert_arguments(words)
    path = lorafile.lora_file_in_peft_folder(wanted.path) if wanted.path.is_dir() else wanted.path
    tensors, metadata = lorafile.load_tensors_and_metadata(path)
    family, folder = family_and_folder_of_base(wanted.base)
    parsed = [found for key in tensors if (found := loranames.parse_lora_key(key))]
    whole = any(p.part in ("magnitude", "dora_scale") or is_text_encoder_layer(p.layer) for p in parsed)
    if whole:
        pipeline = family.load(wanted.base, torch.device("cpu"), torch.float32).pipeline
        modules: dict[str, Any] = lorafile.adaptable_modules_of_pipeline(pipeline)
    else:
        pipeline = lorafile.diffusers_pipeline_class_of_folder(folder)
        modules = dict(adapter.adaptable_modules({family.COMPONENT: family.weightless_model(folder).denoiser}))
    layers = lorafile.read_lora_layers(path, modules, pipeline)
    kinds = sorted({adapter_kind_in_words(layer) for layer in layers.values()})
    if wanted.rank is None and kinds != ["LoRA"]:
        raise ConfigError(f"rank= is needed: {path} holds {', '.join(kinds)}", next_step=USAGE)
    plain, errors = plain_layers_and_deviations(layers, modules, wanted.rank)
    write_converted_file(wanted, plain, {name: layer.bias for name, layer in layers.items()}, metadata, modules)
    worst = max(errors, key=lambda name: errors[name].relative_deviation)
    total = math.hypot(*(e.of_change for e in errors.values())) / (
        math.hypot(*(e.change for e in errors.values())) or 1
    )
    ranks = sorted({layer.rank for layer in plain.values()})
    rank = " to ".join(str(end) for end in dict.fromkeys((ranks[0], ranks[-1])))
    done = f"{counted(len(plain), 'layer')} ({', '.join(kinds)}), rank {rank}, alpha = rank"
    print(f"{files.display_path(wanted.out)}: {done}")
    most = errors[worst].relative_deviation
    print(f"relative error of the weight changes: {total:.2g} in all, at most {most:.2g} ({worst})")
    return 0


def parse_convert_arguments(words: Sequence[str]) -> ConversionRequest:
    """Parse the arguments of `stylegate convert`. Raises ConfigError with every problem."""
    plain = [word for word in words if "=" not in word]
    told = dict(word.split("=", 1) for word in words if "=" in word)
    problems = [] if len(plain) == 1 else ["it takes one file"]
    problems += [f"{key}=: convert does not read it" for key in sorted(told.keys() - {"to", "base", "rank", "out"})]
    keys = [word.partition("=")[0] for word in words if "=" in word]
    problems += [f"{key}=: given {keys.count(key)} times" for key in told if keys.count(key) > 1]
    if told.get("to") not in STYLES:
        problems.append(f"to={told.get('to', '')}: one of {', '.join(STYLES)}")
    if not told.get("base"):
        problems.append("base= names the model that the LoRA is for: its layers' names and shapes are needed")
    if not re.fullmatch("[1-9][0-9]{0,4}", told.get("rank", "1")):
        problems.append(f"rank={told['rank']} is no rank")
    if "out" in told and not told["out"].endswith(".safetensors"):
        problems.append(f"out={told['out']} is not the name of a .safetensors file")
    if not problems:
        path = Path(plain[0]).expanduser()
        beside = path.absolute() if path.is_dir() else path.absolute().with_suffix("")
        out = Path(told.get("out", f"{beside}.{told['to']}.safetensors")).expanduser().absolute()
        if out.exists():
            problems.append(f"{files.display_path(out)} exists: name a new file with out=")
        else:
            return ConversionRequest(path, told["to"], told["base"], int(told["rank"]) if "rank" in told else None, out)
    raise ConfigError("convert cannot begin:", problems, USAGE)


def family_and_folder_of_base(base: str) -> tuple[Family, Path]:
    """The family that a base belongs to, and its folder. Raises ModelError if it belongs to none."""
    found: list[ModelError] = []
    for family in FAMILIES.values():
        try:
            return family, family.base_folder(base, weights=False)
        except ModelError as error:
            found.append(error)
    raise found[0]


def is_text_encoder_layer(layer: str) -> bool:
    """Whether a file's layer belongs to a text encoder, by its name."""
    return loranames.without_wrapper_prefixes(layer).startswith(("text_encoder", "lora_te"))


def adapter_kind_in_words(layer: AnyLayer) -> str:
    """The kind of a layer as text: "LoRA", "LoHa", ...; of a DoRA " with a DoRA's magnitudes" follows."""
    kind = "LoRA" if isinstance(layer, LoraOrDoraLayer) else layer.kind
    return kind if layer.magnitude is None else f"{kind} with a DoRA's magnitudes"


def plain_layers_and_deviations(
    layers: Mapping[str, AnyLayer], modules: Mapping[str, Any], rank: int | None
) -> tuple[dict[str, LoraOrDoraLayer], dict[str, ConversionDeviation]]:
    """Each layer as a plain LoRA with alpha = rank, and how far it is from the layer it was made of, by canonical name.

    Layers of a rank above `rank` are reduced to it. With None no rank is reduced, and every layer must be a plain LoRA.
    """
    made, errors = {}, {}
    for name, layer in layers.items():
        if isinstance(layer, LoraOrDoraLayer) and layer.magnitude is None and (rank is None or layer.rank <= rank):
            made[name] = adapter.with_alpha_equal_to_rank(layer)._replace(down=layer.down.float(), bias=None)
            change = adapter.weight_change(layer)
        else:
            change = weight_change_on_base(layer, modules[name])
            made[name] = nearest_lora(change, min(rank or 1, *change.flatten(1).shape))
        errors[name] = ConversionDeviation(
            float((adapter.weight_change(made[name]) - change).norm()), float(change.norm())
        )
    return made, errors


def weight_change_on_base(layer: AnyLayer, module: Any) -> Tensor:
    """The tensor that a layer adds to its module's weight, [out, in, ...], fp64; of a DoRA it depends on the weight."""
    if layer.magnitude is None:
        return adapter.weight_change(layer)
    weight = module.weight.detach().double()
    return adapter.dora_weight(weight + adapter.weight_change(layer), layer.magnitude) - weight


def nearest_lora(change: Tensor, rank: int) -> LoraOrDoraLayer:
    """The LoRA of rank `rank` whose change is nearest to `change` [out, in, ...], by singular values, of which each of
    the two matrices gets the square root.
    """
    flat = change.flatten(1)
    if 4 * (rank + OVERSAMPLED) < min(flat.shape):  # large: the leading singular values alone, the same in each run
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            left, values, right = torch.svd_lowrank(flat, rank + OVERSAMPLED, niter=6)
        right = right.T
    else:
        left, values, right = torch.linalg.svd(flat, full_matrices=False)
    root = values[:rank].sqrt()
    down = (root[:, None] * right[:rank]).reshape(rank, *change.shape[1:])
    up = (left[:, :rank] * root).reshape(len(flat), rank, *[1] * (change.ndim - 2))
    return LoraOrDoraLayer(down.float(), up.float(), float(rank))


def write_converted_file(
    wanted: ConversionRequest,
    layers: Mapping[str, LoraOrDoraLayer],
    biases: Mapping[str, Tensor | None],
    metadata: Mapping[str, str],
    modules: Mapping[str, Any],
) -> None:
    """Write the converted file whole or not at all, once its tensors, parsed as a reader parses them, were found to be
    the same layers. Changes of biases are not compared.

    Raises ModelError if the style has no names for them.
    """
    of_transformer = any(name.startswith("transformer.") for name in layers)
    changed = {name: bias.float() for name, bias in biases.items() if bias is not None}
    if of_transformer and wanted.style == "kohya":
        raise ModelError(
            "kohya's names are for UNets: those of a transformer are the original model's, whose layers are fused",
            next_step="to=comfyui, which ComfyUI reads.",
        )
    if changed and wanted.style == "diffusers":
        raise ModelError(
            f"biases of {counted(len(changed), 'layer')} change too (diff_b): diffusers' names have no place for them",
            next_step="to=kohya or to=comfyui.",
        )
    header: dict[str, str] = {}
    if wanted.style == "diffusers":
        tensors, header = adapter.to_diffusers(layers)
    else:
        tensors = (adapter.to_comfyui if of_transformer else adapter.to_kohya)(layers)
    spell = loranames.layer_name_in_diffusers if of_transformer else loranames.layer_name_in_kohya
    tensors |= {f"{spell(name)}.diff_b": bias for name, bias in changed.items()}
    read_back, problems = adapter.lora_layers_and_problems(tensors, header, modules)
    assert not problems and adapter.largest_relative_difference_of_loras(layers, read_back) <= SAME_CHANGE, problems
    files.write_atomically(
        wanted.out, lorafile.published_lora_bytes(tensors, metadata_of_converted_file(metadata, layers) | header)
    )


def metadata_of_converted_file(metadata: Mapping[str, str], layers: Mapping[str, LoraOrDoraLayer]) -> dict[str, str]:
    """The metadata of the converted file: entries of the original that stay true (modelspec.*, ss_base_model_version),
    and kohya's keys with the rank of the converted file.
    """
    kept = {key: value for key, value in metadata.items() if key.startswith(("modelspec.", "ss_base_model_version"))}
    kept.pop("modelspec.hash_sha256", None)
    rank = str(max(layer.rank for layer in layers.values()))
    args = json.dumps({"conv_dim": rank, "conv_alpha": rank})
    return kept | {
        "ss_network_module": "networks.lora",
        "ss_network_dim": rank,
        "ss_network_alpha": rank,
        "ss_network_args": args,
    }
