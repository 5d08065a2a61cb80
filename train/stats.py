"""stats.jsonl: a row a step, the truth that W&B mirrors."""

import time
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from stylegate import files
from stylegate.errors import StylegateError
from stylegate.tracker import Tracker


class Stats:
    """Collects losses on the device and writes them together; rows past the state that a run resumes from are cut."""

    def __init__(self, directory: Path, accelerator: Accelerator, tracker: Tracker, first: int):
        self.path, self.accelerator, self.tracker = directory / "stats.jsonl", accelerator, tracker
        self.rows: list[tuple[int, torch.Tensor, torch.Tensor, float]] = []
        self.first, self.began = first, time.perf_counter()
        if accelerator.is_main_process:
            files.write_jsonl(self.path, [row for row in files.read_jsonl(self.path, "step") if row["step"] <= first])

    def add(self, step: int, loss: torch.Tensor, norm: torch.Tensor, learning_rate: float) -> None:
        self.rows.append((step, loss, norm, learning_rate))

    def flush(self) -> float:
        """Write what has been added, losses averaged over the processes; returns their mean.

        Raises StylegateError for a loss that is not finite; what came before it is written, it and the rest are not.
        """
        losses = self.accelerator.reduce(torch.stack([row[1] for row in self.rows]), "mean").tolist()  # type: ignore[union-attr]
        rate = (self.rows[-1][0] - self.first) / (time.perf_counter() - self.began)
        for (step, _, norm, learning_rate), loss in zip(self.rows, losses, strict=True):
            if not np.isfinite(loss):
                raise StylegateError(
                    f"the loss is not finite at step {step}",
                    next_step="lower train.learning_rate; the last saved state is good, the same words go on from it.",
                )
            if self.accelerator.is_main_process:
                values = {"loss": loss, "grad_norm": norm.item(), "learning_rate": learning_rate}
                files.append_jsonl(self.path, {"step": step} | values)
                self.tracker.log(values | {"steps_per_s": rate}, step=step)
        self.rows.clear()
        return float(np.mean(losses))
