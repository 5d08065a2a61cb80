"""Charts over training steps as SVG text, without script, and what the pages of reports and runs share.

The same numbers give the same bytes. A chart needs the classes and colours of look.css, which a page includes.
"""

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, Template
from markupsafe import Markup, escape

WIDTH, HEIGHT = 340, 150  # of a chart's picture, in SVG units
LEFT, FOOT = 36, 16  # room for the labels at the left and below
MOST_POINTS = 500  # points of a line that are drawn
SMOOTHING = 0.95  # weight of the past in the exponential mean, which then covers about 20 steps
Point = tuple[float, float]


@cache  # parsing the report's takes longer than filling it in for a small lot
def page_template(folder: Path, name: str) -> Template:
    """The page template `name` of `folder`. It may include look.css, which lies beside this file."""
    loader = FileSystemLoader([folder, Path(__file__).parent])
    return Environment(loader=loader, autoescape=True, trim_blocks=True).get_template(name)


class ChartLine(NamedTuple):
    """One series of (x, y) points.

    `dots` marks each point, for values that were measured one by one; `spans` are the (low, high) intervals of points.
    """

    points: Sequence[Point]
    name: str = ""
    colour: str = "accept"  # the name of a colour in look.css
    dots: bool = False
    faint: bool = False
    opacity: float = 1.0
    spans: Sequence[tuple[float, float] | None] = ()


class AxisScale(NamedTuple):
    """The range of an axis, linear or logarithmic."""

    low: float
    high: float
    log: bool = False

    def relative_position(self, value: float) -> float:
        """Where a value lies on the axis: 0 at its low end, 1 at its high end, outside of [0, 1] beyond them.

        On a logarithmic axis it is the place of its logarithm; values below 1e-12 count as 1e-12 there.
        """
        low, high, value = (math.log(max(v, 1e-12)) if self.log else v for v in (self.low, self.high, value))
        return (value - low) / (high - low)


def chart_by_step(
    lines: Sequence[ChartLine],
    steps: int,
    *,
    log: bool = False,
    value_range: tuple[float, float] | None = None,
    marked_value: float | None = None,
    marked_step: int | None = None,
    percent: bool = False,
) -> Markup:
    """An SVG chart of lines over the steps 0 to `steps`.

    `value_range` fixes the range of the values. A dotted line marks the value `marked_value`, a broken line the step
    `marked_step`, whose dots get a ring.
    """
    values = [v for line in lines for _, v in line.points]
    values += [v for line in lines for span in line.spans if span for v in span]
    scale = (
        AxisScale(*value_range)
        if value_range
        else axis_scale_around(values if marked_value is None else [*values, marked_value], log)
    )

    def format_value_for_tooltip(value: float) -> str:
        return f"{value:.0%}" if percent else f"{value:.3g}"

    def x_at(step: float) -> float:
        return LEFT + 6 + step / max(steps, 1) * (WIDTH - LEFT - 12)

    def y_at(value: float) -> float:
        return 6 + (1 - min(max(scale.relative_position(value), 0.0), 1.0)) * (HEIGHT - 12)

    parts = []
    for value in round_tick_values(scale):
        parts.append(f'<path class="tick" d="M{LEFT} {y_at(value):.1f}H{WIDTH}"/>')
        label = f"{100 * value:.6g}%" if percent else f"{value:.6g}"
        parts.append(f'<text x="{LEFT - 5}" y="{y_at(value) + 3:.1f}" text-anchor="end">{label}</text>')
    if marked_value is not None:
        parts.append(f'<path class="rule" d="M{LEFT} {y_at(marked_value):.1f}H{WIDTH}"/>')
    if marked_step is not None:
        parts.append(f'<path class="chosen" d="M{x_at(marked_step):.1f} 0V{HEIGHT}"/>')
    for line in lines:
        look = f'stroke="var(--{line.colour})" opacity="{0.45 if line.faint else line.opacity:g}"'
        if len(line.points) > 1:
            path = "L".join(f"{x_at(s):.1f} {y_at(v):.1f}" for s, v in thinned_points(line.points))
            parts.append(f'<path class="{"faint" if line.faint else "line"}" d="M{path}" {look}/>')
        for i, (step, value) in enumerate(line.points if line.dots or len(line.points) == 1 else []):
            span = line.spans[i] if line.spans else None
            if span:
                parts.append(
                    f'<path class="span" d="M{x_at(step):.1f} {y_at(span[0]):.1f}V{y_at(span[1]):.1f}" {look}/>'
                )
            title = f"step {step:g}: {format_value_for_tooltip(value)}" + (
                f" [{format_value_for_tooltip(span[0])}, {format_value_for_tooltip(span[1])}]" if span else ""
            )
            title = f"{line.name}, {title}" if line.name else title
            at, ring = f'cx="{x_at(step):.1f}" cy="{y_at(value):.1f}"', step == marked_step
            parts.append(f'<circle {at} r="{4 if ring else 2.6}" class="{"ring" if ring else "dot"}" {look}')
            parts.append(f' fill="var(--{line.colour})"><title>{escape(title)}</title></circle>')
    foot = HEIGHT + 12
    parts.append(f'<text x="{x_at(0):.1f}" y="{foot}">0</text>')
    parts.append(f'<text x="{WIDTH}" y="{foot}" text-anchor="end">step {steps}</text>')
    if marked_step is not None and 0.08 < marked_step / max(steps, 1) < 0.8:
        parts.append(f'<text x="{x_at(marked_step):.1f}" y="{foot}" text-anchor="middle">{marked_step}</text>')
    return Markup(f'<svg viewBox="0 0 {WIDTH} {HEIGHT + FOOT}" role="img">{"".join(parts)}</svg>')


def axis_scale_around(values: Sequence[float], log: bool = False) -> AxisScale:
    """An axis from the lowest to the highest value with a margin; a single value lies in its middle.

    With `log` it is logarithmic, unless a value is 0 or less.
    """
    low, high = min(values), max(values)
    if log and low > 0:
        return AxisScale(low / 1.08, high * 1.08, True)
    pad = (high - low) * 0.08 or abs(high) * 0.08 or 1.0
    return AxisScale(low - pad, high + pad)


def round_tick_values(scale: AxisScale, count: int = 4) -> list[float]:
    """Round values within a scale: steps of 1, 2 or 5; on a wide logarithmic one 1, 2 and 5 times powers of ten."""
    if scale.log and scale.high / scale.low > 8:
        low, high = math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high))
        found = [m * 10.0**e for e in range(low, high + 1) for m in (1, 2, 5)]
        found = [v for v in found if scale.low <= v <= scale.high]
        return found[:: math.ceil(len(found) / 6)]
    rough = (scale.high - scale.low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((m * power for m in (1, 2, 5, 10)), key=lambda s: abs(math.log(s / rough)))
    first = math.ceil(scale.low / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, math.floor(scale.high / step + 1e-9) + 1)]


def thinned_points(points: Sequence[Point]) -> Sequence[Point]:
    """At most MOST_POINTS + 1 of the points, evenly spaced, the last one included."""
    stride = math.ceil(len(points) / MOST_POINTS)
    return points if stride == 1 else [*points[:-1:stride], points[-1]]


def smoothed_points(points: Sequence[Point]) -> list[Point]:
    """The points with each value replaced by the exponential moving average of the values up to it."""
    found: list[Point] = []
    for x, value in points:
        found.append((x, SMOOTHING * found[-1][1] + (1 - SMOOTHING) * value if found else value))
    return found


def loss_chart(points: Sequence[Point]) -> Markup:
    """An SVG chart of the training loss, points (step, loss), on a logarithmic axis: each step faint, the exponential
    mean strong.
    """
    lines = [ChartLine(points, faint=True, colour="reference"), ChartLine(smoothed_points(points))]
    return chart_by_step(lines, int(points[-1][0]), log=True)
