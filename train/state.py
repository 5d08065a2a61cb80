"""The run directory: its record and its saved states.

A state is `state/step-000150/`: adapter.safetensors, optimizer.safetensors, average.safetensors where the weights are
averaged, state.json. It appears whole or not at all. There is nothing else to save: batches and noise are functions of
the step (train/batches.py).
"""

import math
import re
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import save
from torch import Tensor, nn

from stylegate import files, lorafile
from stylegate.errors import ConfigError, ModelError

DIGESTS = {  # facts that are digests, and of what
    "data": "data (pictures, captions, traits, trigger or background of the brand set)",
    "base": "base (the base model's files)",
    "draw_base": "draw_base (the files of the base that draws)",
}


def require_unchanged_run_facts(directory: Path, facts: dict[str, Any]) -> None:
    """Compare `facts` with those that the directory was begun with, if it was.

    Raises ConfigError naming each fact that differs, such as the data, the base or the number of processes.
    """
    record = directory / "run.json"
    if not record.exists():
        return
    before = files.read_json(record, "the run's record", "facts")["facts"]
    changed = [f"{DIGESTS.get(k, k)}: was {before.get(k)}, is {v}" for k, v in facts.items() if before.get(k) != v]
    if changed:
        raise ConfigError(
            f"{files.display_path(directory)} was begun with other facts:",
            changed,
            "restore what has changed, or begin a new run: remove the directory, or give this and the next commands "
            "another name=.",
        )


def saved_states(directory: Path) -> list[Path]:
    """The folders of the saved states, oldest first. What lies beside them under other names is left alone."""
    found = files.sorted_paths_matching_pattern(directory / "state", "step-*")
    return sorted((path for path in found if re.fullmatch("step-[0-9]{6,}", path.name)), key=step_of_state)


def step_of_state(state: Path) -> int:
    """The step of a saved state, read from its folder's name."""
    return int(state.name.removeprefix("step-"))


def save_state(
    directory: Path,
    step: int,
    adapted: nn.ModuleDict,
    optimizer: torch.optim.Optimizer,
    average: list[Tensor],
    keep_newest: int,
    best: Collection[int],
) -> None:
    """Save LoRA, optimizer and averaged weights after `step` steps, unless this state is there already.

    Then the newest `keep_newest` states and those of the steps in `best` are kept, and the others are removed.
    """
    target = directory / "state" / f"step-{step:06d}"
    if not target.exists():
        state = optimizer.state_dict()
        tensors, plain = {}, {}
        for name, value in flattened_optimizer_state(state["state"]):
            (tensors if isinstance(value, Tensor) else plain)[name] = value
        # Numbers alone can change; what is infinite, absent or a list is a setting, and comes from the config.
        groups = [
            {k: v for k, v in group.items() if isinstance(v, int | float) and math.isfinite(v)}
            for group in state["param_groups"]
        ]

        def write_state_files(partial: Path) -> None:
            files.write_atomically(
                partial / "adapter.safetensors", lorafile.canonical_safetensors_bytes(adapter_tensors(adapted), {})
            )
            files.write_atomically(partial / "optimizer.safetensors", save(copies_on_cpu(tensors)))
            if average:
                named = {str(i): value for i, value in enumerate(average)}
                files.write_atomically(partial / "average.safetensors", save(copies_on_cpu(named)))
            files.write_json(partial / "state.json", {"step": step, "groups": groups, "plain": plain})

        files.write_folder_atomically(target, write_state_files)
    for old in saved_states(directory)[:-keep_newest]:
        if step_of_state(old) not in best:
            removed = old.with_name(f".{old.name}.gone")  # half a state must never look like one
            old.rename(removed)
            shutil.rmtree(removed)


def flattened_optimizer_state(state: dict[Any, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (name, value) for each value of an optimizer's state. bitsandbytes nests its state; the names of its levels
    are joined by dots.
    """
    for name, value in state.items():
        if isinstance(value, dict):
            yield from flattened_optimizer_state(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def adapter_tensors(adapted: nn.ModuleDict) -> dict[str, Tensor]:
    """The LoRA's tensors on the CPU, by name. A name is the component ("unet", ...), a dot, and PEFT's name."""
    return {
        f"{component}.{name}": tensor.detach().cpu().contiguous()
        for component, part in adapted.items()
        for name, tensor in get_peft_model_state_dict(part).items()
    }


def load_adapter_tensors(adapted: nn.ModuleDict, tensors: dict[str, Tensor]) -> None:
    """Copy tensors, named as `adapter_tensors` names them, into the LoRA."""
    for component, part in adapted.items():
        own = {k.removeprefix(f"{component}."): t for k, t in tensors.items() if k.startswith(f"{component}.")}
        set_peft_model_state_dict(part, own)


def load_saved_lora_weights(state: Path, adapted: nn.ModuleDict) -> None:
    """Load the LoRA weights of the saved state in the folder `state` into `adapted`: the averaged weights if the state
    has them, else the last ones.
    """
    load_adapter_tensors(adapted, lorafile.load_tensors_and_metadata(state / "adapter.safetensors")[0])
    if (state / "average.safetensors").exists():
        averaged, _ = lorafile.load_tensors_and_metadata(state / "average.safetensors")
        trained = [p for p in adapted.parameters() if p.requires_grad]
        for i, parameter in enumerate(trained):
            parameter.data.copy_(averaged[str(i)])


def copies_on_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies of the tensors on the CPU, by name: safetensors refuses shared memory, and bitsandbytes shares its tables
    among parameters.
    """
    return {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}


def restore_weights_and_optimizer(
    directory: Path, adapted: nn.ModuleDict, optimizer: torch.optim.Optimizer, average: list[Tensor]
) -> int:
    """Load the newest state into LoRA, optimizer and averaged weights. Returns its step, or 0 if there is none.

    Raises ModelError if the state is damaged or belongs to another run.
    """
    found = saved_states(directory)
    if not found:
        return 0
    record = files.read_json(found[-1] / "state.json", "the saved state", "step", "groups", "plain")
    adapter, _ = lorafile.load_tensors_and_metadata(found[-1] / "adapter.safetensors")
    moments, _ = lorafile.load_tensors_and_metadata(found[-1] / "optimizer.safetensors")
    averaged = lorafile.load_tensors_and_metadata(found[-1] / "average.safetensors")[0] if average else {}
    entries: dict[int, dict[str, Any]] = {}
    for name, value in (record["plain"] | moments).items():
        number, *inner, last = name.split(".")
        place = entries.setdefault(int(number), {})
        for part in inner:
            place = place.setdefault(part, {})
        place[last] = value
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    wanted = {name: value.shape for name, value in adapter_tensors(adapted).items()}
    fits = (
        {name: value.shape for name, value in adapter.items()} == wanted
        and len(entries) == len(parameters)
        and all(any(isinstance(v, Tensor) for _, v in flattened_optimizer_state(entry)) for entry in entries.values())
        and {name: value.shape for name, value in averaged.items()} == {str(i): a.shape for i, a in enumerate(average)}
        and len(record["groups"]) == len(optimizer.param_groups)
        and found[-1].name == f"step-{record['step']:06d}"
    )
    if not fits:
        raise ModelError(
            f"{files.display_path(found[-1])} does not fit this run",
            next_step="remove this folder; the state before it is used then.",
        )
    load_adapter_tensors(adapted, adapter)
    empty = optimizer.state_dict()["param_groups"]
    groups = [group | saved for group, saved in zip(empty, record["groups"], strict=True)]
    optimizer.load_state_dict({"state": entries, "param_groups": groups})
    for i, value in enumerate(average):
        value.copy_(averaged[str(i)])
    return record["step"]
