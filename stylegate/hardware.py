"""Device, precision and threads of a run. They change the last bits of what is computed, so all three are recorded."""

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from stylegate.config import Config
from stylegate.configgroups import HardwareConfig
from stylegate.errors import ConfigError

if TYPE_CHECKING:
    from accelerate import PartialState


def set_threads_and_choose_device(hardware: HardwareConfig) -> torch.device:
    """Set the configured number of CPU threads in torch, and return the configured device.

    Raises ConfigError if CUDA or an Apple GPU was asked for and there is none.
    """
    if hardware.threads:
        torch.set_num_threads(hardware.threads)
    if hardware.device == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(
            "hardware.device=mps, but torch finds no Apple GPU that it can use",
            next_step="hardware.device=auto or cpu; on a Mac, macOS 14 and a torch for arm64.",
        )
    if hardware.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "hardware.device=cuda, but no CUDA device is visible", next_step="hardware.device=auto or cpu."
        )
    return torch.device(device_type(hardware))


def accelerate_process_state(hardware: HardwareConfig) -> "PartialState":
    """accelerate's PartialState of this process among those launched together (`accelerate launch`, torchrun), or
    alone.

    Raises ConfigError if CUDA or an Apple GPU was asked for and there is none.
    """
    from accelerate import PartialState

    return PartialState(cpu=set_threads_and_choose_device(hardware).type == "cpu")


def hardware_config_cpu_if_workers_elsewhere(config: Config) -> HardwareConfig:
    """The config's hardware for this process: where Ray or Slurm has the CUDA devices and this machine none, it is the
    CPU.
    """
    has_workers = config.engine.name in ("ray", "slurm")
    away = has_workers and config.hardware.device == "cuda" and not torch.cuda.is_available()
    return replace(config.hardware, device="cpu") if away else config.hardware


def device_type(hardware: HardwareConfig) -> str:
    """The kind of device to compute on, "cuda", "mps" or "cpu": the one that hardware.device names. With "auto" it is
    "cuda" where there is one and accelerate is not told to use the CPU, else "cpu", and never "mps".

    Apple's GPUs ("mps") are used where they are asked for by name.
    """
    if hardware.device != "auto":
        return hardware.device
    cpu_wanted = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "y", "yes", "t", "true", "on")
    return "cuda" if torch.cuda.is_available() and not cpu_wanted else "cpu"


def choose_fp32_or_bf16(hardware: HardwareConfig) -> str:
    """ "fp32" or "bf16", the precision of training and drawing.

    With `auto` the device alone decides, never a clock: bf16 on a CUDA device that computes in it, else fp32. All
    families are trained alike. A CUDA device that is asked for and not visible here (a dry run on a login node) is
    taken for one that computes in bf16, as all of the last years do.
    """
    if hardware.precision != "auto":
        return hardware.precision
    if device_type(hardware) != "cuda":
        return "fp32"
    computes = not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if computes else "fp32"


def weights_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The dtype that a base's weights are loaded in: bfloat16 if `precision` is "bf16" and the device is MPS or a CUDA
    card that computes bf16 natively, else float32.
    """
    computes = device.type == "mps" or (
        device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    )
    return torch.bfloat16 if precision == "bf16" and computes else torch.float32


def autocast_to_bf16(device: torch.device, precision: str) -> AbstractContextManager:
    """For "bf16" a context in which torch computes in bf16 where that is safe; for "fp32" one that does nothing."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
