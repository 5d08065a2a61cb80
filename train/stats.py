"""stats.jsonl: a row a step, the truth that W&B mirrors."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from stylegate import files
from stylegate.errors import StylegateError
from stylegate.tracker import Tracker


class Stats:
    """Collects losses on the device and writes them together; rows past the state that a run resumes from are cut.

    `pictures(step, rank)` names the files whose losses a process adds at a step, in order.
    """

    def __init__(
        self,
        directory: Path,
        accelerator: Accelerator,
        tracker: Tracker,
        first: int,
        pictures: Callable[[int, int], list[str]],
    ):
        self.path, self.accelerator, self.tracker = directory / "stats.jsonl", accelerator, tracker
        self.pictures = pictures
        self.rows: list[tuple[int, torch.Tensor, torch.Tensor, float]] = []
        self.first, self.began = first, time.perf_counter()
        if accelerator.is_main_process:
            files.write_jsonl(self.path, [row for row in files.read_jsonl(self.path, "step") if row["step"] <= first])

    def add(self, step: int, losses: torch.Tensor, norm: torch.Tensor, learning_rate: float) -> None:
        """`losses` [pictures of the step on this process]."""
        self.rows.append((step, losses, norm, learning_rate))

    def flush(self) -> float:
        """Write what has been added, losses averaged over the processes; returns their mean.

        Raises StylegateError for a loss that is not finite; what came before it is written, it and the rest are not.
        """
        gathered: torch.Tensor = self.accelerator.gather(torch.stack([row[1] for row in self.rows])[None])  # type: ignore[assignment]
        by_step = gathered.transpose(0, 1).cpu().numpy()  # [steps, processes, pictures]
        rate = (self.rows[-1][0] - self.first) / (time.perf_counter() - self.began)
        for (step, _, norm, learning_rate), losses in zip(self.rows, by_step, strict=True):
            broken = ~np.isfinite(losses)
            if broken.any() or not torch.isfinite(norm):
                ranks, places = np.nonzero(broken if broken.any() else ~broken)  # a gradient is of all of them
                named = sorted({self.pictures(step, int(r))[int(p)] for r, p in zip(ranks, places, strict=True)})
                raise StylegateError(
                    f"the {'loss' if broken.any() else 'gradient'} is not finite at step {step}:",
                    named,
                    "look at these pictures, or lower train.learning_rate; the last saved state is good.",
                )
            if self.accelerator.is_main_process:
                values = {"loss": float(losses.mean()), "grad_norm": norm.item(), "learning_rate": learning_rate}
                files.append_jsonl(self.path, {"step": step} | values)
                self.tracker.log(values | {"steps_per_s": rate}, step=step)
        self.rows.clear()
        return float(by_step.mean())
