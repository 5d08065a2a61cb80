"""The charts of a run's page: what evaluations measured, and how training went, by step."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import t

from stylegate.charts import ChartLine, chart_by_step, smoothed_points
from train import select
from train.record import RunDirectoryContents

KNOWN = {"step", "loss", "grad_norm", "learning_rate"}  # columns of stats.jsonl that have a plot of their own


def evaluation_charts(run: RunDirectoryContents, chosen: int | None) -> list[dict[str, Any]]:
    """Charts of what evaluations measured, by step, each as a `chart_with_title_and_legend`; step 0 is the base.
    `chosen` is the step that is handed out.
    """
    results = [run.results[step] for step in sorted(run.results)]
    steps = max([run.num_steps_trained, *run.results])
    charts = []

    def add_score_panel(title: str, says: str, key: str, **how: Any) -> None:
        points = [(r["step"], r[key]) for r in results if r.get(key) is not None]
        if points:
            how["lines"] = [ChartLine(points, dots=True, spans=how.pop("spans", ()))]
            charts.append(chart_with_title_and_legend(title, says, steps, marked_step=chosen, **how))

    judged = [r for r in results if r.get("passed")]
    if judged:
        flags = [select.pass_flag_of_each_prompt(r) or [] for r in judged]
        points = [(r["step"], select.pass_rate(r)) for r in judged]
        line = ChartLine(points, dots=True, spans=[select.wilson_interval(one) for one in flags])
        title, share = "Pass rate", "Share of pictures that the gate accepts"
        if any(r.get("undecided") for r in judged):
            title, share = (
                "Passed by other checks",
                "Share of pictures that only wait for a person, as the style is unread",
            )
        charts.append(
            chart_with_title_and_legend(
                title,
                f"{share}, with its 95 % interval (Wilson).",
                steps,
                lines=[line],
                marked_step=chosen,
                value_range=(0, 1),
                percent=True,
            )
        )
    spans = [confidence_interval_of_mean(r.get("styles")) for r in results if r.get("style") is not None]
    add_score_panel("Style", "Mean over the prompts, with its 95 % interval (t).", "style", spans=spans)
    says = "A high value means that the style also comes without the phrase."
    add_score_panel("Style without the trigger phrase", says, "style_without_trigger")
    add_score_panel(
        "Drift", "How far pictures of unrelated prompts differ from the base's; 0 means not at all.", "drift"
    )
    says = "The smallest distance of a picture to a training picture; near 0 it is a copy."
    add_score_panel("Copy risk", says, "nearest_training")
    return charts


def progress_panels(run: RunDirectoryContents, chosen: int | None) -> list[dict[str, Any]]:
    """The charts of a run's page on how training went, by step: losses, learning rate, gradient norm, steps a second,
    share of time, memory. Each is a dict with title, sentence, SVG and legend; a chart without data is left out.
    `chosen` is the step of the chosen checkpoint, which is marked.
    """
    steps, charts = run.num_steps_trained, []

    def points_of_column(name: str) -> list[tuple[float, float]]:
        return [(row["step"], row[name]) for row in run.stats if isinstance(row.get(name), int | float)]

    def add_chart_by_step(title: str, says: str, lines: list[ChartLine], **how: Any) -> None:
        if any(line.points for line in lines):
            charts.append(chart_with_title_and_legend(title, says, steps, lines=lines, marked_step=chosen, **how))

    loss = points_of_column("loss")
    both = [ChartLine(loss, faint=True, colour="reference"), ChartLine(smoothed_points(loss))]
    add_chart_by_step(
        "Training loss", "Each step faint, an exponential mean over about 20 steps strong.", both, log=True
    )
    says = "On validation/, at fixed noise" + (
        "; by share of noise." if loss_lines_by_noise_level(run) else " and noise levels."
    )
    add_chart_by_step(
        "Evaluation loss",
        says,
        loss_lines_by_noise_level(run) or [ChartLine(evaluation_points_by_step(run, "eval_loss"), dots=True)],
        log=True,
    )
    add_chart_by_step("Learning rate", "After warm-up and schedule.", [ChartLine(points_of_column("learning_rate"))])
    norm, limit = points_of_column("grad_norm"), run.config_by_dotted_key.get("train.max_grad_norm")
    above = limit is not None and any(value > limit for _, value in norm)
    says = f"Before clipping to {limit:g}" + (", the dotted line." if above else ".") if limit is not None else ""
    both = [ChartLine(norm, faint=True, colour="reference"), ChartLine(smoothed_points(norm))]
    add_chart_by_step("Gradient norm", says, both, log=True, marked_value=limit if above else None)
    timed = [row for row in run.clock if row["seconds"] > 0]
    speed = [(row["step"], row["steps"] / row["seconds"]) for row in timed]
    add_chart_by_step("Steps a second", "Evaluations do not count.", [ChartLine(speed)])
    waiting = [(row["step"], row["waited"] / row["seconds"]) for row in timed if "waited" in row]
    add_chart_by_step("Waiting for data", "Share of the time of training.", [ChartLine(waiting)], percent=True)
    memory = [(row["step"], row["memory_gib"]) for row in timed if "memory_gib" in row]
    add_chart_by_step(
        "Memory", "GiB at most so far: of the device, or of the process where that is the CPU.", [ChartLine(memory)]
    )
    add_chart_by_step(
        "Share of evaluations",
        "Of all time so far.",
        [ChartLine(evaluation_time_share_by_step(run), dots=True)],
        percent=True,
    )
    for name in sorted(set().union(*run.stats) - KNOWN if run.stats else []):
        add_chart_by_step(name, "From stats.jsonl.", [ChartLine(points_of_column(name))])
    return charts


def chart_with_title_and_legend(
    title: str, says: str, steps: int, *, lines: list[ChartLine], **how: Any
) -> dict[str, Any]:
    """A chart as the template shows it: its title, a sentence, the SVG, and a legend of (name, colour, opacity).
    `steps` is the last step of the axis.
    """
    legend = [(line.name, line.colour, line.opacity) for line in lines if line.name]
    return {"title": title, "says": says, "svg": chart_by_step(lines, steps, **how), "legend": legend}


def evaluation_points_by_step(run: RunDirectoryContents, key: str) -> list[tuple[float, float]]:
    """(step, value) of one number of result.json, for each evaluation that has it."""
    found = [(step, run.results[step].get(key)) for step in sorted(run.results)]
    return [(step, value) for step, value in found if value is not None]


def loss_lines_by_noise_level(run: RunDirectoryContents) -> list[ChartLine]:
    """A line of the evaluation loss by step for each noise level, a share of the schedule, where evaluations recorded
    it.
    """
    results = sorted(run.results.items())
    losses_of = {step: result["eval_losses"] for step, result in results if result.get("eval_losses")}
    levels = sorted({level for losses in losses_of.values() for level in losses}, key=float)
    return [
        ChartLine(
            [(step, losses[level]) for step, losses in losses_of.items() if level in losses],
            name=f"{float(level):.0%}",
            dots=True,
            opacity=round(1 - 0.7 * i / len(levels), 2),
        )
        for i, level in enumerate(levels)
    ]


def evaluation_time_share_by_step(run: RunDirectoryContents) -> list[tuple[float, float]]:
    """(step, share of the time so far that evaluations have cost) at each evaluation after step 0; empty where not
    every step was timed.
    """
    if run.training_seconds_or_none() is None:
        return []
    trained = {step: sum(row["seconds"] for row in run.clock if row["step"] <= step) for step in run.seconds_of}
    spent = {step: run.evaluation_seconds(step) for step in sorted(run.seconds_of) if step}
    return [(step, s / (s + trained[step])) for step, s in spent.items() if s + trained[step] > 0]


def confidence_interval_of_mean(values: Sequence[float] | None) -> tuple[float, float] | None:
    """The two-sided 95 % confidence interval of a mean (Student's t); None of fewer than two values."""
    if not values or len(values) < 2:
        return None
    half = t.ppf((1 + select.CONFIDENCE) / 2, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return float(np.mean(values) - half), float(np.mean(values) + half)
