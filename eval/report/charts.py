"""The report's charts, as SVG text. The same numbers give the same bytes."""

from collections.abc import Collection
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from eval.judging.record import CheckThresholds
from eval.measuring.scores import LotScores
from eval.scorers import SCORES


def score_histograms(
    scores: LotScores, thresholds: dict[str, CheckThresholds], not_believed: Collection[str]
) -> list[dict[str, Any]]:
    """For each score that was computed its name, what it says and a histogram as SVG; scores with thresholds first.
    Those in `not_believed` are left out.
    """
    drawn, names = [], [name for name in scores.computed_score_names() if name not in not_believed]
    for name in sorted(names, key=lambda name: name not in thresholds):
        values = scores.computed_values_of_score(name)
        if len(values):
            lines = thresholds[name].model_dump() if name in thresholds else {}
            ends = (SCORES[name].lowest, SCORES[name].highest)
            svg = score_histogram_svg(values, scores.references.get(name, np.zeros(0)), lines, ends)
            drawn.append({"name": name, "does": SCORES[name].description, "svg": svg})
    return drawn


def score_histogram_svg(
    values: np.ndarray,
    references: np.ndarray,
    lines: dict[str, float | None],
    ends: tuple[float, float],
    bins: int = 32,
) -> Markup:
    """A histogram as SVG: pictures as filled bars, references as an outline, the reject and review thresholds as lines.

    `ends` are the ends of the score's range: the axis stops there, and a threshold beyond them, which no score can
    reach, has no line. The heights are relative to the highest bar of each set. Values beyond the axis are counted in
    the outermost bars.
    """
    lines = {name: x for name, x in lines.items() if x is not None and ends[0] <= x <= ends[1]}
    marks = [x for x in lines.values() if x is not None]
    every = np.concatenate([values, references])
    low, high = np.quantile(every, [0.01, 0.99])
    low, high = min(low, *marks, high) if marks else low, max(high, *marks, low) if marks else high
    pad = (high - low) * 0.05 or max(abs(high), 1.0) * 0.05
    edges = np.linspace(max(low - pad, min(low, ends[0])), min(high + pad, max(high, ends[1])), bins + 1)
    width, height, foot = 240, 96, 14

    def bar_heights_in_svg_units(data: np.ndarray) -> np.ndarray:
        """[bins] heights of the bars, in units of the SVG."""
        counts = np.histogram(data.clip(edges[0], edges[-1]), edges)[0]
        return counts / max(counts.max(), 1) * (height - 8)

    def x_coordinate(value: float) -> float:
        """Where a score lies on the axis, in units of the SVG."""
        return (value - edges[0]) / (edges[-1] - edges[0]) * width

    step = width / bins
    filled = "".join(
        f"M{i * step:.1f} {height}v{-h:.1f}h{step - 0.6:.1f}V{height}z"
        for i, h in enumerate(bar_heights_in_svg_units(values))
        if h
    )
    parts = [f'<path d="{filled}" fill="var(--accept)" opacity=".75"/>']
    if len(references):
        outline = "".join(
            f"L{i * step:.1f} {height - h:.1f}h{step:.1f}" for i, h in enumerate(bar_heights_in_svg_units(references))
        )
        parts.append(f'<path d="M0 {height}{outline}" fill="none" stroke="var(--reference)" stroke-width="1.4"/>')
    for name, colour in (("reject_below", "reject"), ("review_below", "review")):
        if (value := lines.get(name)) is not None:
            parts.append(
                f'<path d="M{x_coordinate(value):.1f} 0V{height}" stroke="var(--{colour})" stroke-width="1.6"/>'
            )
    parts.append(f'<text x="0" y="{height + 11}">{edges[0]:.3g}</text>')
    parts.append(f'<text x="{width}" y="{height + 11}" text-anchor="end">{edges[-1]:.3g}</text>')
    return Markup(f'<svg viewBox="0 0 {width} {height + foot}" role="img">{"".join(parts)}</svg>')


def slider_curve_svg(
    shares: NDArray[np.float64], highest_share: float, start: int, colour: str, marked_value: float | None = None
) -> Markup:
    """An area chart, as SVG, of `shares` [t] over the slider's positions; `highest_share` is the highest that is shown.
    A broken line stands where the slider starts, a level line at `marked_value`.

    It is stretched to its place, so words stand beside it. The marker is moved by the page's script.
    """
    width = len(shares) - 1
    heights = 100 - np.minimum(shares / highest_share, 1.0) * 100
    points = "L".join(f"{x} {y:.2f}" for x, y in enumerate(heights))
    level = (
        f'<path class="rule" d="M0 {100 - 100 * marked_value / highest_share:.2f}H{width}"/>'
        if marked_value is not None
        else ""
    )
    return Markup(
        f'<svg viewBox="0 0 {width} 100" preserveAspectRatio="none" aria-hidden="true">'
        f'<path d="M0 100L{points}V100z" fill="var(--{colour})" opacity=".16"/>'
        f'<path class="edge" d="M{points}" stroke="var(--{colour})"/>{level}'
        f'<path class="start" d="M{start} 0V100"/>'
        f'<path class="marker" d="M0 0V100" transform="translate({start})"/></svg>'
    )
