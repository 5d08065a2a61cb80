"""Charts of runs as SVG text, without script: values by step, and runs by cost. The same numbers, the same bytes."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, Template
from markupsafe import Markup, escape

WIDTH, HEIGHT, LEFT, FOOT = 340, 150, 36, 16  # of a chart by step; what labels take
MOST = 500  # points of a line that are drawn
SMOOTH = 0.95  # of an exponential mean, over about 20 steps
Point = tuple[float, float]


def template(name: str) -> Template:
    """A page beside this file: look.html.j2 is what pages of runs share."""
    places = FileSystemLoader(Path(__file__).parent)
    return Environment(loader=places, autoescape=True, trim_blocks=True).get_template(name)


class Line(NamedTuple):
    """One series. `spans` are the intervals of its points; dots are of points that were measured one by one."""

    points: Sequence[Point]
    name: str = ""
    colour: str = "accept"  # a variable of the page's style
    dots: bool = False
    faint: bool = False
    opacity: float = 1.0
    spans: Sequence[tuple[float, float] | None] = ()


class Scale(NamedTuple):
    low: float
    high: float
    log: bool = False

    def share(self, value: float) -> float:
        """0 at the lowest, 1 at the highest."""
        low, high, value = (math.log(max(v, 1e-12)) if self.log else v for v in (self.low, self.high, value))
        return (value - low) / (high - low)


def by_step(
    lines: Sequence[Line],
    steps: int,
    *,
    log: bool = False,
    within: tuple[float, float] | None = None,
    rule: float | None = None,
    chosen: int | None = None,
    percent: bool = False,
) -> Markup:
    """Lines over 0..steps; a broken line at `rule`, and one with a ring on dots at the chosen step."""
    values = [v for line in lines for _, v in line.points]
    values += [v for line in lines for span in line.spans if span for v in span]
    scale = Scale(*within) if within else around(values if rule is None else [*values, rule], log)

    def say(value: float) -> str:
        return f"{value:.0%}" if percent else f"{value:.3g}"

    def x(step: float) -> float:
        return LEFT + 6 + step / max(steps, 1) * (WIDTH - LEFT - 12)

    def y(value: float) -> float:
        return 6 + (1 - min(max(scale.share(value), 0.0), 1.0)) * (HEIGHT - 12)

    parts = []
    for value in ticks(scale):
        parts.append(f'<path class="tick" d="M{LEFT} {y(value):.1f}H{WIDTH}"/>')
        label = f"{100 * value:.6g}%" if percent else f"{value:.6g}"
        parts.append(f'<text x="{LEFT - 5}" y="{y(value) + 3:.1f}" text-anchor="end">{label}</text>')
    if rule is not None:
        parts.append(f'<path class="rule" d="M{LEFT} {y(rule):.1f}H{WIDTH}"/>')
    if chosen is not None:
        parts.append(f'<path class="chosen" d="M{x(chosen):.1f} 0V{HEIGHT}"/>')
    for line in lines:
        look = f'stroke="var(--{line.colour})" opacity="{0.45 if line.faint else line.opacity:g}"'
        if len(line.points) > 1:
            path = "L".join(f"{x(s):.1f} {y(v):.1f}" for s, v in thinned(line.points))
            parts.append(f'<path class="{"faint" if line.faint else "line"}" d="M{path}" {look}/>')
        for i, (step, value) in enumerate(line.points if line.dots or len(line.points) == 1 else []):
            span = line.spans[i] if line.spans else None
            if span:
                parts.append(f'<path class="span" d="M{x(step):.1f} {y(span[0]):.1f}V{y(span[1]):.1f}" {look}/>')
            said = f"step {step:g}: {say(value)}" + (f" [{say(span[0])}, {say(span[1])}]" if span else "")
            said = f"{line.name}, {said}" if line.name else said
            at, ring = f'cx="{x(step):.1f}" cy="{y(value):.1f}"', step == chosen
            parts.append(f'<circle {at} r="{4 if ring else 2.6}" class="{"ring" if ring else "dot"}" {look}')
            parts.append(f' fill="var(--{line.colour})"><title>{escape(said)}</title></circle>')
    foot = HEIGHT + 12
    parts.append(f'<text x="{x(0):.1f}" y="{foot}">0</text>')
    parts.append(f'<text x="{WIDTH}" y="{foot}" text-anchor="end">step {steps}</text>')
    if chosen is not None and 0.08 < chosen / max(steps, 1) < 0.8:
        parts.append(f'<text x="{x(chosen):.1f}" y="{foot}" text-anchor="middle">{chosen}</text>')
    return Markup(f'<svg viewBox="0 0 {WIDTH} {HEIGHT + FOOT}" role="img">{"".join(parts)}</svg>')


def around(values: Sequence[float], log: bool = False) -> Scale:
    """From the lowest to the highest with some room; a single value lies in the middle."""
    low, high = min(values), max(values)
    if log and low > 0:
        return Scale(low / 1.08, high * 1.08, True)
    pad = (high - low) * 0.08 or abs(high) * 0.08 or 1.0
    return Scale(low - pad, high + pad)


def ticks(scale: Scale, count: int = 4) -> list[float]:
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


def thinned(points: Sequence[Point]) -> Sequence[Point]:
    stride = math.ceil(len(points) / MOST)
    return points if stride == 1 else [*points[:-1:stride], points[-1]]


def smoothed(points: Sequence[Point]) -> list[Point]:
    """An exponential mean of values, from the first one on."""
    found: list[Point] = []
    for x, value in points:
        found.append((x, SMOOTH * found[-1][1] + (1 - SMOOTH) * value if found else value))
    return found


class Mark(NamedTuple):
    """A run in the plot of runs."""

    number: int
    name: str
    href: str
    seconds: float
    rate: float
    interval: tuple[float, float]


def by_cost(marks: Sequence[Mark]) -> Markup:
    """Pass rate with its interval against seconds of training; a mark is a link to its run's page."""
    width, height, left = 720, 320, 46
    scale = around([m.seconds for m in marks])
    placed: list[Point] = []

    def x(seconds: float) -> float:
        return left + 12 + scale.share(seconds) * (width - left - 24)

    def y(rate: float) -> float:
        return 10 + (1 - rate) * (height - 20)

    parts = []
    for value in (0, 0.25, 0.5, 0.75, 1):
        parts.append(f'<path class="tick" d="M{left} {y(value):.1f}H{width}"/>')
        parts.append(f'<text x="{left - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.0%}</text>')
    for value in ticks(scale, 6):
        parts.append(f'<text x="{x(value):.1f}" y="{height + 14}" text-anchor="middle">{value:g} s</text>')
    for mark in marks:
        at_x, at_y = x(mark.seconds), y(mark.rate)
        label_y = at_y - 6
        while any(abs(at_x - px) < 16 and abs(label_y - py) < 12 for px, py in placed):
            label_y += 12
        placed.append((at_x, label_y))
        said = f"{mark.name}: {in_words(mark)}"
        parts.append(
            f'<a href="{escape(mark.href)}"><title>{escape(said)}</title>'
            f'<path class="span" d="M{at_x:.1f} {y(mark.interval[0]):.1f}V{y(mark.interval[1]):.1f}" '
            f'stroke="var(--accept)"/><circle cx="{at_x:.1f}" cy="{at_y:.1f}" r="5.5" fill="var(--accept)"/>'
            f'<text class="number" x="{at_x + 8:.1f}" y="{label_y:.1f}">{mark.number}</text></a>'
        )
    return Markup(f'<svg viewBox="0 0 {width} {height + 20}" role="img">{"".join(parts)}</svg>')


def in_words(mark: Mark) -> str:
    low, high = mark.interval
    return f"{mark.rate:.0%} pass [{low:.0%}, {high:.0%}], {mark.seconds:.1f} s of training"
