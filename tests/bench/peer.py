"""Two trainers for the same task, as commands: ours, and diffusers' examples/text_to_image/train_text_to_image_lora.py.

Same base, pictures, captions, batch size, precision (fp32), rank, optimizer and constant rate; each in a process of
its own with a clock (tests/bench/clocked.py). The script is not shipped: `peer=PATH` names a copy.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from stylegate import files
from stylegate.errors import ConfigError

RANK = 16


@dataclass(frozen=True, kw_only=True)
class Task:
    base: Path  # a diffusers folder
    brand: Path  # a brand set
    side: int  # pixels
    steps: int
    batch: int = 8  # pictures
    seed: int = 0


def script_of(arguments: list[str]) -> tuple[Path, list[str]]:
    """The peer's script, and the arguments that are left. Raises ConfigError."""
    named = [a.removeprefix("peer=") for a in arguments if a.startswith("peer=")]
    if len(named) != 1 or not Path(named[0]).is_file():
        raise ConfigError("peer=PATH must name a copy of diffusers' train_text_to_image_lora.py")
    return Path(named[0]).resolve(), [a for a in arguments if not a.startswith("peer=")]


def ours(task: Task, log: Path, *words: str) -> subprocess.Popen:
    """Our trainer, without evaluations; run and caches are made anew below the folder that is named as the log."""
    told = [f"base={task.base}", f"brand={task.brand}", f"train.max_steps={task.steps}"]
    told += [f"train.seed={task.seed}", f"train.batch_size={task.batch}", f"lora.rank={RANK}", f"lora.alpha={RANK}"]
    told += ["hardware.precision=fp32", "train.num_samples=0", "accept_licence=unknown", *words]
    return started(log, ["train", *told])


def theirs(task: Task, log: Path, script: Path, rate: float, every: int) -> subprocess.Popen:
    """The script, saving every `every` steps below the folder that is named as the log."""
    told = {
        "pretrained_model_name_or_path": task.base,
        "train_data_dir": task.brand / "train",
        "output_dir": log.with_suffix(""),
        "resolution": task.side,
        "train_batch_size": task.batch,
        "max_train_steps": task.steps,
        "learning_rate": rate,
        "lr_scheduler": "constant",
        "lr_warmup_steps": 0,
        "rank": RANK,
        "seed": task.seed,
        "checkpointing_steps": every,
        "mixed_precision": "no",
    }
    return started(log, [str(script), *(f"--{name}={value}" for name, value in told.items())])


def started(log: Path, command: list[str]) -> subprocess.Popen:
    """The program, with its own empty home; what it prints goes beside the log."""
    place = log.with_suffix("")
    offline = {"STYLEGATE_HOME": str(place), "HF_DATASETS_CACHE": str(place / "datasets"), "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.bench.clocked", str(log), *command],
        cwd=files.ROOT,
        env=os.environ | offline | {"ACCELERATE_USE_CPU": "true"},
        stdout=log.with_suffix(".out").open("w"),
        stderr=subprocess.STDOUT,
    )
