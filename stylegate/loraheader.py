"""What a LoRA file says of its alphas and ranks beside the tensors: in its header, or in PEFT's settings beside it."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from stylegate import lycoris

ADAPTER_METADATA = "lora_adapter_metadata"  # diffusers' key of the safetensors header
PEFT_CONFIG = "adapter_config.json"  # PEFT's settings, in a file beside the tensors
PEFT_ALPHA = 8  # in a header that has settings of a component, but no alpha
LAYER_NAME = re.compile(r"\^?[A-Za-z0-9_]+([.-][A-Za-z0-9_]+)*\$?")  # what a pattern of the header may be: a name


class StatedLoraSettings:
    """Alpha and rank by layer as stated beside the tensors: in diffusers' `lora_adapter_metadata` in the safetensors
    header, or in PEFT's adapter_config.json beside the file (which lorafile.load_tensors_and_metadata puts into the
    metadata).

    `problems` names everything in it that is not understood; `values` is then empty. `rank_stabilised` and `block_size`
    are LyCORIS' settings, from kohya's header.
    """

    def __init__(self, metadata: Mapping[str, str]) -> None:
        self.problems: list[str] = []
        self.values: dict[str, Any] = {}
        self.source = ADAPTER_METADATA if ADAPTER_METADATA in metadata else PEFT_CONFIG
        self.rank_stabilised, self.block_size = rslora_and_block_size_of_lycoris(metadata)
        try:
            values = json.loads(metadata.get(self.source, "{}"))
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            self.problems.append(f"its {self.source} is not a JSON object")
            return
        for key, value in values.items():
            if problem := header_entry_problem(key, value):
                self.problems.append(f"{self.source}: {escape_control_characters(key)} {problem}")
        if not self.problems:
            self.values = values

    def setting_of_component(self, component: str, key: str, default: Any) -> Any:
        """The value of a setting for a component (unet, ...): its own one in the header, else the general one, else
        `default`.
        """
        return self.values.get(f"{component}.{key}", self.values.get(key, default))

    def effective_lora_alpha_of_layer(self, name: str, rank: int) -> float:
        """Alpha of the layer with this canonical name: the rank if there is no header; PEFT's default if it names
        no alpha.

        The strength of rsLoRA, alpha / sqrt(rank) (arXiv 2312.03732), is returned as the alpha that gives the same
        strength.
        """
        component, _, path = name.partition(".")
        has_settings = "r" in self.values or any(key.startswith(f"{component}.") for key in self.values)
        of_loha = self.setting_of_component(component, "alpha", None)  # and of LoKr
        alpha = self.setting_of_component(component, "lora_alpha", of_loha)
        alpha = float((PEFT_ALPHA if has_settings else rank) if alpha is None else alpha)
        paths = (path, f"text_model.{path}")  # text encoders as they were before transformers 5
        alpha = float(value_by_pattern(self.setting_of_component(component, "alpha_pattern", None) or {}, paths, alpha))
        return alpha * math.sqrt(rank) if self.setting_of_component(component, "use_rslora", False) is True else alpha

    def stated_rank_of_layer(self, name: str) -> float | None:
        """The rank that is stated beside the tensors for the layer with this canonical name; None if none is."""
        component, _, path = name.partition(".")
        told = self.setting_of_component(component, "r", None)
        patterns = self.setting_of_component(component, "rank_pattern", None) or {}
        return None if told is None else value_by_pattern(patterns, (path, f"text_model.{path}"), told)

    def rank_problem(self, name: str, found: Mapping[str, Tensor]) -> str | None:
        """What is wrong if the tensors of a layer (by part) have another rank than the stated one; None if it is the
        same.
        """
        told, rank = self.stated_rank_of_layer(name), lycoris.rank_of_parts(found)
        if told is None or rank is None or told == rank:
            return None
        return f"rank {rank}, but its {self.source} says {told:g}: which strength is meant is not known"

    def trained_strength_of_layer(self, name: str, found: Mapping[str, Tensor]) -> float:
        """The factor that the writer of a layer trains with, from the layer's tensors by part and what is stated beside
        them.

        It is alpha / rank. Where all matrices are whole there is no rank: LyCORIS (and OneTrainer, ai-toolkit, musubi)
        then trains at 1, whatever alpha it saves; with rs_lora at sqrt(rank), of which it saves the cube. PEFT divides
        the alpha of its settings by their rank there too.
        """
        rank = lycoris.rank_of_parts(found)
        if "diff" in found:
            return 1.0
        if "alpha" in found and rank is None:
            return float(found["alpha"]) ** (1 / 3) if self.rank_stabilised else 1.0
        if "alpha" in found and rank is not None:
            return float(found["alpha"]) * self.block_size / rank
        told = rank or self.stated_rank_of_layer(name)
        return self.effective_lora_alpha_of_layer(name, int(told)) / told if told else 1.0


def rslora_and_block_size_of_lycoris(metadata: Mapping[str, str]) -> tuple[bool, int]:
    """Two settings of LyCORIS from kohya's header, which no tensor shows: whether rs_lora is on, and DyLoRA's block
    size.

    DyLoRA is trained at alpha / number of blocks, and its alpha is saved: alpha / rank is too weak by the block size,
    which is 1 for all other files.
    """
    try:
        told = json.loads(metadata.get("ss_network_args", "{}"))
        told = (
            told
            if isinstance(told, dict) and metadata.get("ss_network_module", "lycoris").startswith("lycoris")
            else {}
        )
        block_size = int(told.get("block_size") or 4) if str(told.get("algo")).lower() == "dylora" else 1
    except (ValueError, TypeError, RecursionError):
        return False, 1
    return str(told.get("rs_lora", False)).lower() in ("true", "1", "yes"), block_size


def header_entry_problem(key: str, value: Any) -> str:
    """What is wrong with a header entry that affects the strength, as text; "" if nothing is wrong."""
    setting = key.rpartition(".")[2]
    if setting in ("lora_alpha", "alpha", "r") and not is_number(value):
        return f"is {repr_cut_to_80_characters(value)}, not a number"
    if setting not in ("alpha_pattern", "rank_pattern") or value is None:
        return ""
    if not isinstance(value, dict) or not all(map(is_number, value.values())):
        return "is not an object of numbers"
    unread = [pattern for pattern in value if not LAYER_NAME.fullmatch(pattern)]
    if unread:
        return (
            f"has {repr_cut_to_80_characters(unread[0])}, which is not the name of a layer: PEFT would run it as a "
            "regular expression, which is never done here with a file's content; write out the layers' names"
        )
    return ""


def value_by_pattern(patterns: Mapping[str, float], paths: Sequence[str], default: float) -> float:
    """The value of the first pattern that matches one of the module's `paths`; `default` if none matches.

    A pattern matches a whole path, or the end of a path after a dot; with a leading ^ only the whole path.
    """
    for pattern, value in patterns.items():
        wanted = pattern.removeprefix("^").removesuffix("$")
        for path in paths:
            if path == wanted or (not pattern.startswith("^") and path.endswith(f".{wanted}")):
                return value
    return default


def is_number(value: Any) -> bool:
    """Whether a value of a JSON file is a finite number that a float can hold."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def escape_control_characters(text: str) -> str:
    """The text with its control characters escaped, so that a name from a file cannot control the terminal."""
    return text if text.isprintable() else repr(text)


def repr_cut_to_80_characters(value: Any) -> str:
    """The `repr` of a value from a file, cut to 80 characters: text stands in quotes, control characters escaped."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
