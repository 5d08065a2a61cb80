"""The loop that every part of the miniature is trained with: AdamW, warm-up, cosine, an average of the weights.

A step is a function of its number, so a stopped training goes on where it was last saved (every minute), under
.cache/miniature/, in a folder that is named after everything the result depends on.
"""

import json
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from stylegate import files, progress
from train.miniature.corpus import WORK

SAVE_EVERY_S, NOTE_EVERY = 60.0, 50
WARMUP, FLAT, LAST = 150, 0.3, 0.01  # steps; share of steps at the full rate; final share of the rate
BETAS, WEIGHT_DECAY, CLIP = (0.9, 0.99), 0.01, 1.0
AVERAGE = 0.999


def training_device() -> torch.device:
    """The first CUDA device, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def bf16_autocast(where: torch.device) -> Any:
    """A context of autocast to bf16, which is at least twice as fast on CPUs with AMX or AVX512-BF16."""
    return torch.autocast(where.type, torch.bfloat16)


def compiled_module(module: nn.Module) -> Any:
    """The module compiled by torch, or unchanged where there is no C++ compiler: 0.7 of the time for a step, measured
    on two cores.
    """
    return torch.compile(module) if shutil.which("c++") else module


def learning_rate_factor(step: int, steps: int) -> float:
    """What the full learning rate is multiplied by at `step` of `steps`: a warm-up, then constant, then a cosine to
    LAST.
    """
    if step < WARMUP:
        return (step + 1) / WARMUP
    done = max(0.0, (step / steps - FLAT) / (1 - FLAT))
    return LAST + (1 - LAST) * 0.5 * (1 + float(np.cos(np.pi * done)))


def train_modules_resumably(
    title: str,
    parts: dict[str, nn.Module],
    loss_of: Callable[[int, np.random.Generator], Tensor],
    steps: int,
    learning_rates: dict[str, float],
    depends_on: Any,
) -> None:
    """Train the modules `parts` in place and leave the averaged weights in them. The state is saved on the way, so a
    stopped training goes on, and one that is finished is only read.

    `loss_of(step, random)` gives a scalar; `learning_rates` is by part. `depends_on` names what else the result rests
    on (data, sizes), as JSON: with another value a training begins anew.
    """
    place = WORK / f"{title}-{files.canonical_sha256([title, steps, learning_rates, depends_on])[:8]}"
    modules = nn.ModuleDict(parts)
    parameters = dict(modules.named_parameters())
    average = {name: p.detach().clone() for name, p in parameters.items()}
    groups = [{"params": list(part.parameters()), "lr": learning_rates[name]} for name, part in parts.items()]
    optimizer = torch.optim.AdamW(groups, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True)
    start = restore_state(place, parameters, average, optimizer)
    remove_notes_after_step(place, start)
    where = next(iter(parameters.values())).device
    # Flash attention's backward is slow on CPUs (1.1 s of a 3.2 s step, measured): plain matrix products instead.
    attention = sdpa_kernel(SDPBackend.MATH) if where.type == "cpu" else nullcontext()
    full = [group["lr"] for group in optimizer.param_groups]
    saved, losses = time.monotonic(), []
    modules.train()
    with progress.progress_bar(title, steps, start) as tick, attention:
        for step in range(start, steps):
            for group, lr in zip(optimizer.param_groups, full, strict=True):
                group["lr"] = lr * learning_rate_factor(step, steps)
            loss = loss_of(step, np.random.default_rng([step, 23]))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters.values(), CLIP)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            decay = min(AVERAGE, (step + 1) / (step + 10))
            for name, p in parameters.items():
                average[name].lerp_(p.detach(), 1 - decay)
            losses.append(loss.detach())
            if (step + 1) % NOTE_EVERY == 0:  # at the same steps after a stop, of fewer losses the first time
                mean = float(torch.stack(losses).mean())
                files.append_jsonl(place / "stats.jsonl", {"step": step + 1, "loss": round(mean, 5)})
                tick(len(losses), f"loss {mean:.4f}")
                losses = []
            if time.monotonic() - saved > SAVE_EVERY_S or step + 1 == steps:
                save_state(place, step + 1, parameters, average, optimizer)
                saved = time.monotonic()
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(average[name])
    modules.eval()


def remove_notes_after_step(place: Path, step: int) -> None:
    """Remove the rows of stats.jsonl in the folder `place` that are of steps after `step`, which are trained again."""
    rows = files.read_jsonl(place / "stats.jsonl", "step")
    kept = [row for row in rows if row["step"] <= step]
    if len(kept) < len(rows):
        files.write_jsonl(place / "stats.jsonl", kept)


def save_state(place: Path, step: int, parameters: dict, average: dict, optimizer: torch.optim.Optimizer) -> None:
    """Write step, weights, averaged weights and the optimizer's moments to state.safetensors in the folder `place`."""
    tensors = {f"weight/{n}": p.detach() for n, p in parameters.items()} | {
        f"average/{n}": p for n, p in average.items()
    }
    for number, entries in optimizer.state_dict()["state"].items():
        tensors |= {f"moment/{number}/{key}": value for key, value in entries.items()}
    files.write_atomically(
        place / "state.safetensors",
        save({k: v.cpu().contiguous() for k, v in tensors.items()}, {"step": json.dumps(step)}),
    )


def restore_state(place: Path, parameters: dict, average: dict, optimizer: torch.optim.Optimizer) -> int:
    """Load the last saved state into weights, averages and optimizer. Returns its step, or 0 if there is none; then the
    folder `place` is emptied.
    """
    path = place / "state.safetensors"
    if not path.exists():
        shutil.rmtree(place, ignore_errors=True)  # notes of a training that was never saved
        place.mkdir(parents=True)
        return 0
    with safe_open(path, "pt") as opened:
        step = int((opened.metadata() or {})["step"])
    moments: dict[int, dict[str, Tensor]] = {}
    with torch.no_grad():
        for name, value in load_file(path).items():
            kind, _, rest = name.partition("/")
            if kind == "moment":
                number, _, key = rest.partition("/")
                moments.setdefault(int(number), {})[key] = value
            else:
                (parameters if kind == "weight" else average)[rest].copy_(value)
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    return step
