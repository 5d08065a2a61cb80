"""stats.jsonl has a row for each step, which W&B mirrors; clock.jsonl records how long the steps took.

They are two files because the same command gives the same stats.jsonl, at any time of day.
"""

import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from stylegate import files
from stylegate.errors import StylegateError
from stylegate.tracker import Tracker
from stylegate.wandbrun import EVALUATED, STEP
from train import select
from train.record import CLOCK
from train.run import LiveTrainingRun


class CacheWithReadTimer:
    """A cache that counts the seconds that its readers have waited, in `seconds`."""

    def __init__(self, cache: Any):
        self.cache, self.seconds = cache, 0.0

    def read_arrays_of_key(self, key: str) -> Any:
        """The arrays that the cache holds of `key`, by name, or None."""
        began = time.monotonic()
        value = self.cache.read_arrays_of_key(key)
        self.seconds += time.monotonic() - began
        return value


def install_cache_read_timer(run: LiveTrainingRun) -> CacheWithReadTimer:
    """Replace the cache that the run reads its data from, in place, by one that counts the seconds of waiting. Returns
    that cache.
    """
    timed = CacheWithReadTimer(run.data.cache)
    run.data = run.data._replace(cache=timed)
    return timed


def peak_memory_gib(device: torch.device) -> float:
    """The most memory used so far, in GiB: of the device, or of this process where that is the CPU.

    Of an Apple GPU it is what Metal holds now: no peak is kept there.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    if device.type == "mps":
        return torch.mps.driver_allocated_memory() / 2**30
    unit = 1 if sys.platform == "darwin" else 2**10  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


class StepStatsWriter:
    """Collects losses on the device, and writes several steps together to stats.jsonl, clock.jsonl and the tracker.

    Rows after step `first`, the state that a run resumes from, are removed from the files. `pictures(step, rank)` gives
    the names of the pictures whose losses a process adds at a step, in order.
    """

    def __init__(
        self,
        directory: Path,
        accelerator: Accelerator,
        tracker: Tracker,
        first: int,
        pictures: Callable[[int, int], list[str]],
        timed: CacheWithReadTimer | None = None,
    ):
        self.path, self.accelerator, self.tracker = directory / "stats.jsonl", accelerator, tracker
        self.clock = directory / CLOCK
        self.pictures = pictures
        self.rows: list[tuple[int, torch.Tensor, torch.Tensor, float, dict[str, torch.Tensor]]] = []
        self.first = first
        self.flushed, self.aside = time.perf_counter(), 0.0
        self.timed, self.waited = timed or CacheWithReadTimer(None), 0.0
        for path in (self.path, self.clock) if accelerator.is_main_process else []:
            files.write_jsonl(path, [row for row in files.read_jsonl(path, "step") if row["step"] <= first])

    def send_missing_to_tracker(self, results: Sequence[dict[str, Any]]) -> bool:
        """Send the tracker the steps, and those of the evaluations `results`, that it lacks. Returns whether it lacked
        an evaluation.
        """
        rows = [
            row
            for row in files.read_jsonl(self.path, "step")
            if row["step"] > self.tracker.highest_value_wandb_had_at_start(STEP)
        ]
        late = [
            r for r in results if self.tracker.highest_value_wandb_had_at_start(EVALUATED) < r["step"] <= self.first
        ]
        lacking = [(row["step"], row) for row in rows]
        lacking += [(result["step"], select.tracked_evaluation_values(result)) for result in late]
        for step, values in sorted(lacking, key=lambda pair: pair[0]):  # the tracker's steps never go back
            self.tracker.log_values(values, step=step)
        return bool(late)

    def collect_step_values(
        self,
        step: int,
        losses: torch.Tensor,
        norm: torch.Tensor,
        learning_rate: float,
        measures: dict[str, torch.Tensor] | None = None,
    ) -> None:
        """Collect one step: `losses` [pictures of the step on this process], `norm` the gradient norm, a scalar.

        `measures` are other values [pictures], by the name of their column in stats.jsonl; their mean is written.
        """
        self.rows.append((step, losses, norm, learning_rate, measures or {}))

    def write_collected_steps(self, aside: float = 0.0) -> float:
        """Write the collected steps, with losses averaged over the processes. Returns the mean of these losses.

        `aside` are the seconds that evaluations have cost so far; they do not count as the steps' time. Raises
        StylegateError for a loss or gradient that is not finite: the steps before it are written, the others are not.
        """
        by_step = self.gathered_from_all_processes([row[1] for row in self.rows])
        measured = {
            name: self.gathered_from_all_processes([row[4][name] for row in self.rows]) for name in self.rows[0][4]
        }
        now = time.perf_counter()
        seconds = max((now - self.flushed) - (aside - self.aside), 1e-9)
        waited, memory = self.timed.seconds - self.waited, peak_memory_gib(self.accelerator.device)
        beside = {
            "steps_per_s": len(self.rows) / seconds,
            "data_wait_share": waited / seconds,
            "memory_gib": memory,
        }
        for number, ((step, _, norm, learning_rate, _), losses) in enumerate(zip(self.rows, by_step, strict=True)):
            broken = ~np.isfinite(losses)
            if broken.any() or not torch.isfinite(norm):
                ranks, places = np.nonzero(broken if broken.any() else ~broken)  # a gradient is of all of them
                names = sorted({self.pictures(step, int(r))[int(p)] for r, p in zip(ranks, places, strict=True)})
                raise StylegateError(
                    f"the {'loss' if broken.any() else 'gradient'} is not finite at step {step}:",
                    names,
                    "look at these pictures, or lower train.learning_rate; the last saved state can be used.",
                )
            if self.accelerator.is_main_process:
                values = {"loss": float(losses.mean()), "grad_norm": norm.item(), "learning_rate": learning_rate}
                values |= {name: float(of_steps[number].mean()) for name, of_steps in measured.items()}
                files.append_jsonl(self.path, {"step": step} | values)
                if step > self.tracker.highest_value_wandb_had_at_start(STEP):
                    self.tracker.log_values({STEP: step} | values | beside, step=step)
        if self.accelerator.is_main_process:
            row = {"step": self.rows[-1][0], "steps": len(self.rows), "seconds": round(seconds, 4)}
            files.append_jsonl(self.clock, row | {"waited": round(waited, 4), "memory_gib": round(memory, 3)})
        self.flushed, self.aside, self.waited = now, aside, self.timed.seconds
        self.rows.clear()
        return float(by_step.mean())

    def gathered_from_all_processes(self, each: list[torch.Tensor]) -> np.ndarray:
        """The values [pictures] of several steps on this process, as those of all processes: [steps, processes,
        pictures].
        """
        gathered: torch.Tensor = self.accelerator.gather(torch.stack(each)[None])  # type: ignore[assignment]
        return gathered.transpose(0, 1).cpu().numpy()
