"""What a LoRA file is, from itself alone: whose names it uses, what it adapts, how strongly, who would ignore what.

    stylegate inspect FILE ...

What other programs do with it: stylegate/readers.py.
"""

import contextlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from stylegate import files, loracontents, lorafile, loraheader, lycoris, readers
from stylegate.errors import DataError, ModelError
from stylegate.loracontents import LoraContents
from stylegate.words import counted

ARCHITECTURES = {  # by what headers call it
    "stable-diffusion-v1": "Stable Diffusion 1.x",
    "stable-diffusion-xl-v1-base": "SDXL",
    "sd_v1": "Stable Diffusion 1.x",
    "sdxl_base_v1-0": "SDXL",
}
WORDS = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 2048: "SDXL"}  # by the width of its text encoders
SHOWN = 100  # characters of a header's value
# Parts of a layer's name, each between dots. `attentions` is none of them: it holds a whole transformer of a UNet.
ATTENTION_NAME = re.compile(r"\.(attn\d*|attention|\w*qkv|to\.[qkv])\.|\.single\.blocks\.\d+\.linear1\.")
FEED_FORWARD_NAME = re.compile(
    r"\.(ff|ffn|feed\.forward|mlp)\.|\.single\.(blocks\.\d+\.linear2|transformer\.blocks\.\d+\.proj\.out)\."  # FLUX.1
)


def inspect(paths: Sequence[Path]) -> int:
    """Print what each LoRA file in `paths` is, also where another file of the list is bad.

    Raises DataError without files, and ModelError at the end, naming each file that is not a LoRA that can be read.
    """
    if not paths:
        raise DataError("inspect needs LoRA files", next_step="stylegate inspect checkpoints/*/lora/*.safetensors")
    problems = []
    for path in paths:
        try:
            lines = lora_file_in_words(*lorafile.load_tensors_and_metadata(path))
        except ModelError as error:
            problems.append(f"{error.summary}\n    {error.next_step}")
            continue
        path = lorafile.lora_file_in_peft_folder(path) if path.is_dir() else path
        size, sha256 = path.stat().st_size / 1e6, files.sha256_of_file(path)
        print(f"{files.display_path(path.resolve())}: {size:.1f} MB, sha256 {sha256}")
        for title, text in lines:
            print(f"  {title:<11}{text}")
        if not any(title == "rank" for title, _ in lines):
            problems.append(f"{path} holds no LoRA layers")
    if problems:
        raise ModelError(
            f"{len(problems)} of {len(paths)} files cannot be read as a LoRA:",
            problems,
            next_step="LoRA, LoHa, LoKr and whole differences in safetensors files are read; pickles never are.",
        )
    return 0


def lora_file_in_words(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> list[tuple[str, str]]:
    """The lines about a LoRA file as (title, text); those on layers are left out if it has no LoRA layer."""
    file = loracontents.parse_lora_contents(tensors, metadata)
    out = layers_in_words(file) if file.styles else []
    if file.kinds:
        layers = Counter(kind for _, kind in set(file.kinds.values()))
        out.append(("also holds", ", ".join(f"{kind} {count}" for kind, count in sorted(layers.items()))))
    out += [("problem", problem) for problem in problems_of_lora_file(file)]
    answers = readers.lora_problems_by_program(file) if file.styles or file.kinds else {}
    if any(width < readers.SMALLEST_WIDTH for width in loracontents.prompt_embedding_widths_of_lora_file(file)):
        for program in ("ComfyUI", "A1111", "InvokeAI"):
            answers[program] += ", and has no base so small: only stylegate and diffusers draw with it"
    out += list(answers.items())
    if file.unknown:
        shown = ", ".join(map(loraheader.repr_cut_to_80_characters, file.unknown[:3]))
        out.append(("unknown", f"{counted(len(file.unknown), 'key')} of no known kind: {shown}"))
    return out + [
        ("header", f"{loraheader.escape_control_characters(key)} = {header_value_in_words(value)}")
        for key, value in sorted(metadata.items())
    ]


def header_value_in_words(value: str) -> str:
    """A value of the header in quotes, cut to SHOWN characters.

    Of a `data:` address, such as a thumbnail, only the media type and the number of characters are shown.
    """
    if value.startswith("data:"):
        return f"{value.partition(',')[0][:SHOWN]!r}, {len(value)} characters that are not shown"
    return repr(value[:SHOWN])


def layers_in_words(file: LoraContents) -> list[tuple[str, str]]:
    """Title and text of each line about the layers of a file."""
    dtypes = (str(tensor.dtype).removeprefix("torch.") for tensor in file.tensors.values())
    told = f"{values_and_counts_in_words(file.strengths.values()) or 'none'} (alpha / rank)"
    if any(rank is None for rank in ranks_of_layers(file)):
        told += "; LoKr of whole matrices has no rank: LyCORIS trains it at 1, PEFT at alpha / r"
    products = [layer for layer, kind in file.factored.items() if kind in ("LoHa", "LoKr")]
    if any(file.strengths[layer] != 1 for layer in products):
        told += "; LyCORIS' own merge of LoHa and LoKr applies it twice"
    return [
        ("family", base_family_in_words(file)),
        ("names", ", ".join(f"{style} {count}" for style, count in Counter(file.styles.values()).items())),
        (
            "layers",
            ", ".join(
                f"{kind} {count}" for kind, count in Counter(map(layer_kind_from_layer_name, file.styles)).items()
            ),
        ),
        ("rank", values_and_counts_in_words(rank or "whole" for rank in ranks_of_layers(file)) or "none"),
        ("strength", told),
        ("numbers", values_and_counts_in_words(dtypes)),
    ]


def ranks_of_layers(file: LoraContents) -> list[int | None]:
    """The rank of each whole layer of the file; None for one whose matrices are all whole."""
    found = []
    for parts in loracontents.tensors_by_layer(file.tensors, file.parts_by_key).values():
        with contextlib.suppress(ValueError, IndexError):  # a layer that is no whole one is a problem of the file
            if parts.keys() - lycoris.BESIDE:
                found.append(lycoris.rank_of_parts(parts))
    return found


def problems_of_lora_file(file: LoraContents) -> list[str]:
    """What is wrong with a file whoever reads it, and that it has layers which change nothing, a sentence each."""
    found = list(loraheader.StatedLoraSettings(file.metadata).problems)
    for problem, layers in loracontents.layers_by_problem(file).items():
        found.append(f"{problem}: {counted(len(layers), 'layer')}, {loraheader.escape_control_characters(layers[0])}")
    idle = layers_without_effect(file)
    if idle and len(idle) == len(file.styles):
        found.append("changes nothing: a half of each layer, or its alpha, is zero")
    elif idle:
        found.append(f"{counted(len(idle), 'layer changes', 'layers change')} nothing: a half or the alpha is zero")
    return found


def layers_without_effect(file: LoraContents) -> list[str]:
    """Sorted names of the layers that change nothing: their strength is zero, or one of a plain LoRA's two matrices.
    DoRAs, whose magnitudes change the weight, are left out.
    """
    zero = {layer for layer, strength in file.strengths.items() if strength == 0}
    for key, key_parts in file.parts_by_key.items():
        if (
            key_parts.part in ("down", "up")
            and file.tensors[key].is_floating_point()
            and not has_nonzero(file.tensors[key])
        ):
            zero.add(key_parts.layer)
    scaled = {p.layer for p in file.parts_by_key.values() if p.part in ("magnitude", "dora_scale")}
    return sorted(zero - scaled)


def has_nonzero(tensor: Tensor) -> bool:
    """Whether a tensor holds a number other than zero; True where its format cannot be computed with."""
    try:
        return bool(tensor.float().any())
    except NotImplementedError:
        return True


def base_family_in_words(file: LoraContents) -> str:
    """The family of bases that a file names in its header, else by the width of the words that the UNet attends to;
    else that it is not known.
    """
    for key in ("modelspec.architecture", "ss_base_model_version"):
        if named := file.metadata.get(key):
            name = ARCHITECTURES.get(named.removesuffix("/lora"), named)
            return f"{loraheader.escape_control_characters(name)[:SHOWN]} (by {key})"
    widths = sorted(loracontents.prompt_embedding_widths_of_lora_file(file))
    named = [WORDS.get(width, f"a UNet that attends to words of width {width}") for width in widths]
    return " or ".join(named) or "not known from header or keys"


def layer_kind_from_layer_name(layer: str) -> str:
    """The part of a model that a layer belongs to, by its name, dotted or as kohya writes it: "text encoder",
    "attention", "feed-forward" or "convolution and projection". A layer that is fused from attention and feed-forward
    counts where the family has it (`lora_targets`).
    """
    name = f".{layer.replace('_', '.')}."
    if ".text.model." in name or name.startswith((".lora.te", ".text.encoder.")):
        return "text encoder"
    if ATTENTION_NAME.search(name):
        return "attention"
    return "feed-forward" if FEED_FORWARD_NAME.search(name) else "convolution and projection"


def values_and_counts_in_words(values: Iterable[object]) -> str:
    """The distinct values as text, the most frequent first: four at most, with their counts where there are several."""
    counts = Counter(f"{v:g}" if isinstance(v, float) else str(v) for v in values)
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{value} ({count} times)" for value, count in counts.most_common(4))
