"""A training program with a clock: the time of each optimizer step, and the loss if it is taken by F.mse_loss.

    python -m tests.bench.clocked LOG SCRIPT.py|MODULE ARGUMENT ...

LOG gets a JSON line a step: {"at": seconds of the system's monotonic clock, "loss": ...}. The program itself is run as
it is, whoever wrote it. One more thing is changed around it: where the base has an AutoencoderTiny, as the miniature
does, a program that asks for AutoencoderKL gets it, with the `latent_dist` of a distribution without spread.
"""

import json
import runpy
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from torch.nn import functional

AUTOENCODERS: dict[str, Any] = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny}


def clock(log: Path) -> None:
    """Let every AdamW in this process write its steps."""
    step, mean_square, last = torch.optim.AdamW.step, functional.mse_loss, {}
    lines = log.open("a", buffering=1)

    def timed(self: Any, *arguments: Any, **named: Any) -> Any:
        result = step(self, *arguments, **named)
        loss = float(last["loss"]) if last else None
        lines.write(json.dumps({"at": time.monotonic(), "loss": loss}) + "\n")
        return result

    def remembered(*arguments: Any, **named: Any) -> torch.Tensor:
        loss = mean_square(*arguments, **named)
        last["loss"] = loss.detach().mean()
        return loss

    torch.optim.AdamW.step = timed  # type: ignore[method-assign]
    functional.mse_loss = remembered


class Autoencoder:
    """What a program gets that asks for an AutoencoderKL."""

    @staticmethod
    def from_pretrained(base: str, subfolder: str, **_: Any) -> Any:
        kind = json.loads((Path(base) / subfolder / "config.json").read_text())["_class_name"]
        vae: Any = AUTOENCODERS[kind].from_pretrained(base, subfolder=subfolder)
        if kind == "AutoencoderTiny":
            encode = vae.encode
            vae.encode = lambda x: SimpleNamespace(latent_dist=SimpleNamespace(sample=lambda: encode(x).latents))
        return vae


def main() -> None:
    log, program, *arguments = sys.argv[1:]
    clock(Path(log))
    sys.argv = [program, *arguments]
    if program.endswith(".py"):
        diffusers.AutoencoderKL = Autoencoder  # type: ignore[misc]
        runpy.run_path(program, run_name="__main__")
    else:
        runpy.run_module(program, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
