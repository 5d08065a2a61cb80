"""What the run's page plots: what evaluations measured, and how training went, step by step."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from train import select
from train.charts import Line, by_step, smoothed
from train.record import Record

KNOWN = {"step", "loss", "grad_norm", "learning_rate"}  # columns of stats.jsonl that have a plot of their own


def scores(run: Record, chosen: int | None) -> list[dict[str, Any]]:
    """What evaluations measured, step 0 being the base."""
    results = [run.results[step] for step in sorted(run.results)]
    steps = max([run.done, *run.results])
    charts = []

    def add(title: str, says: str, key: str, **how: Any) -> None:
        points = [(r["step"], r[key]) for r in results if r.get(key) is not None]
        if points:
            how["lines"] = [Line(points, dots=True, spans=how.pop("spans", ()))]
            charts.append(card(title, says, steps, chosen=chosen, **how))

    judged = [r for r in results if r.get("passed")]
    if judged:
        points = [(r["step"], select.rate(r)) for r in judged]
        line = Line(points, dots=True, spans=[select.wilson(r["passed"]) for r in judged])
        says = "Share of pictures that the gate accepts, with its 95 % interval (Wilson)."
        charts.append(card("Pass rate", says, steps, lines=[line], chosen=chosen, within=(0, 1), percent=True))
    spans = [mean_interval(r.get("styles")) for r in results if r.get("style") is not None]
    add("Style", "Mean over the prompts, with its 95 % interval (t).", "style", spans=spans)
    add("Style without the trigger phrase", "Much of it means that the style bleeds.", "style_without_trigger")
    add("Drift", "How far unrelated prompts have moved from the base's pictures; 0 is not at all.", "drift")
    says = "Distance of the nearest picture to a training picture; towards 0 it is a copy."
    add("Copy risk", says, "nearest_training")
    return charts


def progress(run: Record, chosen: int | None) -> list[dict[str, Any]]:
    """What training noted by step, and where its time went."""
    steps, charts = run.done, []

    def column(name: str) -> list[tuple[float, float]]:
        return [(row["step"], row[name]) for row in run.stats if isinstance(row.get(name), int | float)]

    def add(title: str, says: str, lines: list[Line], **how: Any) -> None:
        if any(line.points for line in lines):
            charts.append(card(title, says, steps, lines=lines, chosen=chosen, **how))

    loss = column("loss")
    both = [Line(loss, faint=True, colour="reference"), Line(smoothed(loss))]
    add("Training loss", "Each step faint, an exponential mean over about 20 steps strong.", both, log=True)
    says = "On validation/, at fixed noise" + ("; by share of noise." if by_level(run) else " and noise levels.")
    add("Evaluation loss", says, by_level(run) or [Line(evaluated(run, "eval_loss"), dots=True)], log=True)
    add("Learning rate", "After warm-up and schedule.", [Line(column("learning_rate"))])
    norm, limit = column("grad_norm"), run.config.get("train.max_grad_norm")
    above = limit is not None and any(value > limit for _, value in norm)
    says = f"Before clipping to {limit:g}" + (", the dotted line." if above else ".") if limit is not None else ""
    both = [Line(norm, faint=True, colour="reference"), Line(smoothed(norm))]
    add("Gradient norm", says, both, log=True, rule=limit if above else None)
    timed = [row for row in run.clock if row["seconds"] > 0]
    speed = [(row["step"], row["steps"] / row["seconds"]) for row in timed]
    add("Steps a second", "Between two looks at the losses, evaluations aside.", [Line(speed)])
    waiting = [(row["step"], row["waited"] / row["seconds"]) for row in timed if "waited" in row]
    add("Waiting for data", "Share of the steps' time.", [Line(waiting)], percent=True)
    memory = [(row["step"], row["memory_gib"]) for row in timed if "memory_gib" in row]
    add("Memory", "GiB at most so far: of the device, or of the process where that is the CPU.", [Line(memory)])
    add("Share of evaluations", "Of all time up to then.", [Line(shares(run), dots=True)], percent=True)
    for name in sorted(set().union(*run.stats) - KNOWN if run.stats else []):
        add(name, "From stats.jsonl.", [Line(column(name))])
    return charts


def card(title: str, says: str, steps: int, *, lines: list[Line], **how: Any) -> dict[str, Any]:
    legend = [(line.name, line.colour, line.opacity) for line in lines if line.name]
    return {"title": title, "says": says, "svg": by_step(lines, steps, **how), "legend": legend}


def evaluated(run: Record, key: str) -> list[tuple[float, float]]:
    found = [(step, run.results[step].get(key)) for step in sorted(run.results)]
    return [(step, value) for step, value in found if value is not None]


def by_level(run: Record) -> list[Line]:
    """Evaluation loss of each noise level, where evaluations noted it: eval_losses, share of the schedule -> loss."""
    told = {step: result["eval_losses"] for step, result in sorted(run.results.items()) if result.get("eval_losses")}
    levels = sorted({level for losses in told.values() for level in losses}, key=float)
    return [
        Line(
            [(step, losses[level]) for step, losses in told.items() if level in losses],
            name=f"{float(level):.0%}",
            dots=True,
            opacity=round(1 - 0.7 * i / len(levels), 2),
        )
        for i, level in enumerate(levels)
    ]


def shares(run: Record) -> list[tuple[float, float]]:
    """Evaluating over evaluating and training, at each evaluation after the first step."""
    if run.seconds() is None:
        return []
    trained = {step: sum(row["seconds"] for row in run.clock if row["step"] <= step) for step in run.seconds_of}
    spent = {step: run.evaluating(step) for step in sorted(run.seconds_of) if step}
    return [(step, s / (s + trained[step])) for step, s in spent.items() if s + trained[step] > 0]


def mean_interval(values: Sequence[float] | None) -> tuple[float, float] | None:
    """Two-sided confidence interval of a mean (Student's t)."""
    if not values or len(values) < 2:
        return None
    half = select.t.ppf((1 + select.CONFIDENCE) / 2, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return float(np.mean(values) - half), float(np.mean(values) + half)
