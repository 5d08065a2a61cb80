"""Device, precision and threads: chosen once, recorded, kept on resume, because they change bits."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch

from stylegate.config import HardwareConfig
from stylegate.errors import ConfigError

PROBE_S = 1.0  # a precision is measured for about this long


def device_of(hardware: HardwareConfig) -> torch.device:
    """Raises ConfigError if CUDA was asked for and is not there."""
    if hardware.threads:
        torch.set_num_threads(hardware.threads)
    if hardware.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "hardware.device=cuda, but no CUDA device is visible", next_step="hardware.device=auto or cpu."
        )
    wanted = hardware.device if hardware.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)


def weights_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """What a base is loaded in: bf16 on CUDA, half the memory, unless fp32 is asked for. CPUs take fp32."""
    half = device.type == "cuda" and wanted != "fp32" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if half else torch.float32


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """bf16 arithmetic where it is safe, or nothing for fp32."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def choose_precision(wanted: str, device: torch.device, work: Callable[[], object]) -> str:
    """`wanted`, or the faster of fp32 and bf16 at `work` (a training or sampling step) on this machine."""
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    seconds = {}
    for precision in ("fp32", "bf16"):
        with autocast(device, precision):
            work()  # warm-up: kernels are chosen on the first call
            began, calls = time.perf_counter(), 0
            while time.perf_counter() - began < PROBE_S:
                work()
                calls += 1
        seconds[precision] = (time.perf_counter() - began) / calls
    return min(seconds, key=lambda precision: seconds[precision])
