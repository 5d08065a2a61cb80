"""The run directory: its record, its saved states, its refusals.

A state is `state/step-000150/`: adapter.safetensors, optimizer.safetensors, state.json. It appears whole or not at
all. There is nothing else to save: batches and noise are functions of the step (train/batches.py).
"""

import shutil
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import save

from stylegate import files, lorafile
from stylegate.errors import ConfigError, ModelError

KEPT_STATES = 2


def same_run(directory: Path, facts: dict[str, Any]) -> None:
    """Refuse to go on with another data set, base, number of processes or precision. Raises ConfigError naming each."""
    record = directory / "run.json"
    if not record.exists():
        return
    before = files.read_json(record, "the run's record", "facts")["facts"]
    changed = [f"{k}: was {before.get(k)}, is {v}" for k, v in facts.items() if before.get(k) != v]
    if changed:
        raise ConfigError(
            f"{files.shown(directory)} was begun with something else:",
            changed,
            "restore it, or remove the directory (or give another name=) to begin anew.",
        )


def states(directory: Path) -> list[Path]:
    """Saved states, oldest first."""
    return sorted((directory / "state").glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))


def save_state(directory: Path, step: int, denoiser: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Save after `step` steps; the two newest states are kept."""
    target = directory / "state" / f"step-{step:06d}"
    if target.exists():
        return
    adapter = {k: v.detach().cpu().contiguous() for k, v in get_peft_model_state_dict(denoiser).items()}
    moments = {
        f"{number}.{name}": value.detach().cpu().contiguous()
        for number, entries in optimizer.state_dict()["state"].items()
        for name, value in entries.items()
    }

    def build(partial: Path) -> None:
        files.write(partial / "adapter.safetensors", lorafile.canonical_bytes(adapter, {}))
        files.write(partial / "optimizer.safetensors", save(moments))
        files.write_json(partial / "state.json", {"step": step, "learning_rate": optimizer.param_groups[0]["lr"]})

    files.whole_folder(target, build)
    for old in states(directory)[:-KEPT_STATES]:
        shutil.rmtree(old)


def restore(directory: Path, denoiser: torch.nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Load the newest state; returns its step, 0 if there is none. Raises ModelError if it is damaged."""
    found = states(directory)
    if not found:
        return 0
    adapter, _ = lorafile.load(found[-1] / "adapter.safetensors")
    moments, _ = lorafile.load(found[-1] / "optimizer.safetensors")
    step = files.read_json(found[-1] / "state.json", "the saved state", "step")["step"]
    wanted = {name: value.shape for name, value in get_peft_model_state_dict(denoiser).items()}
    shapes = {name: value.shape for name, value in adapter.items()}
    entries: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in moments.items():
        number, _, part = name.partition(".")
        entries.setdefault(int(number), {})[part] = value
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    fits = len(entries) == len(parameters) and all(
        entries.get(i, {}).get(part, torch.empty(0)).shape == parameter.shape
        for i, parameter in enumerate(parameters)
        for part in ("exp_avg", "exp_avg_sq")
    )
    if shapes != wanted or not fits or found[-1].name != f"step-{step:06d}":
        raise ModelError(
            f"{files.shown(found[-1])} does not fit this run", next_step="remove it; the state before it is used then."
        )
    set_peft_model_state_dict(denoiser, adapter)
    optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})
    return step
