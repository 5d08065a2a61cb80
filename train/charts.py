"""The plot of runs as SVG text, without script: pass rate against cost. The same numbers give the same bytes."""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

from stylegate.charts import Point, axis_scale_around, round_tick_values


class PlottedRun(NamedTuple):
    """A run in the plot of runs: its number in the table, its name, the address of its page, and its figures."""

    number: int
    name: str
    href: str
    seconds: float  # of training
    rate: float  # pass rate, in [0, 1]
    interval: tuple[float, float]


def pass_rate_by_training_time_chart(runs: Sequence[PlottedRun]) -> Markup:
    """A chart as SVG: pass rate with its interval against seconds of training; each mark links to the page of its
    run.
    """
    width, height, left = 720, 320, 46
    scale = axis_scale_around([run.seconds for run in runs])
    placed: list[Point] = []

    def x_of_seconds(seconds: float) -> float:
        return left + 12 + scale.relative_position(seconds) * (width - left - 24)

    def y_of_pass_rate(rate: float) -> float:
        return 10 + (1 - rate) * (height - 20)

    parts = []
    for value in (0, 0.25, 0.5, 0.75, 1):
        parts.append(f'<path class="tick" d="M{left} {y_of_pass_rate(value):.1f}H{width}"/>')
        parts.append(f'<text x="{left - 6}" y="{y_of_pass_rate(value) + 4:.1f}" text-anchor="end">{value:.0%}</text>')
    for value in round_tick_values(scale, 6):
        parts.append(f'<text x="{x_of_seconds(value):.1f}" y="{height + 14}" text-anchor="middle">{value:g} s</text>')
    for run in runs:
        at_x, at_y = x_of_seconds(run.seconds), y_of_pass_rate(run.rate)
        label_y = at_y - 6
        while any(abs(at_x - px) < 16 and abs(label_y - py) < 12 for px, py in placed):
            label_y += 12
        placed.append((at_x, label_y))
        title = f"{run.name}: {pass_rate_and_time_in_words(run)}"
        parts.append(
            f'<a href="{escape(run.href)}"><title>{escape(title)}</title>'
            f'<path class="span" d="M{at_x:.1f} {y_of_pass_rate(run.interval[0]):.1f}'
            f'V{y_of_pass_rate(run.interval[1]):.1f}" '
            f'stroke="var(--accept)"/><circle cx="{at_x:.1f}" cy="{at_y:.1f}" r="5.5" fill="var(--accept)"/>'
            f'<text class="number" x="{at_x + 8:.1f}" y="{label_y:.1f}">{run.number}</text></a>'
        )
    return Markup(f'<svg viewBox="0 0 {width} {height + 20}" role="img">{"".join(parts)}</svg>')


def pass_rate_and_time_in_words(run: PlottedRun) -> str:
    """The pass rate of a run with its interval, and its seconds of training, as text."""
    low, high = run.interval
    return f"{run.rate:.0%} pass [{low:.0%}, {high:.0%}], {run.seconds:.1f} s of training"
