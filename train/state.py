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
    before = files.read_json(record, "the run's record")["facts"]
    changed = [f"{k}: was {before.get(k)}, is {v}" for k, v in facts.items() if before.get(k) != v]
    if changed:
        raise ConfigError(
            f"{files.shown(directory)} was begun with something else:",
            changed,
            "restore it, or remove the directory (or give another name=) to begin anew.",
        )


def states(directory: Path) -> list[Path]:
    """Saved states, oldest first."""
    return sorted((directory / "state").glob("step-*"))


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
    loaded = set_peft_model_state_dict(denoiser, adapter)
    if loaded.unexpected_keys:
        raise ModelError(f"{files.shown(found[-1])} does not fit the model: {loaded.unexpected_keys[:3]}")
    entries: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in moments.items():
        number, _, part = name.partition(".")
        entries.setdefault(int(number), {})[part] = value
    optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(files.read_json(found[-1] / "state.json", "the saved state")["step"])
