"""Pictures of nothing: dots, checks, lines and blots in any colours, so that the autoencoder can store looks to come.

Lines are sharp or soft, never both at once: light tubes are a brand's.
"""

import numpy as np
from PIL import Image

from train.miniature.svg import (
    SIDE,
    box_path,
    ellipse_path,
    filled_path,
    full_rectangle,
    hex_colour,
    rasterise,
    stroked_path,
    svg_blur,
    svg_gradient,
    svg_pattern,
)


def random_colour(r: np.random.Generator) -> str:
    """A random colour as #rrggbb, often near black or near white, as backgrounds of brands are."""
    values = r.uniform(0, 1, 3)
    kind = r.random()
    return hex_colour(tuple(values * 0.2 if kind < 0.2 else 0.8 + values * 0.2 if kind < 0.35 else values))


def random_svg_pattern(name: str, r: np.random.Generator) -> str:
    """SVG text that defines a random pattern with the id `name`: dots, checks or stripes of at least 2 pixels."""
    pitch, mark, under = float(r.uniform(4, 11)), random_colour(r), random_colour(r)
    size = pitch * float(r.uniform(0.25, 0.48))
    kind = int(r.integers(3))
    dot = filled_path(ellipse_path(pitch / 2, pitch / 2, size), mark)
    check = filled_path(box_path(0, 0, pitch / 2, pitch / 2), mark) + filled_path(
        box_path(pitch / 2, pitch / 2, pitch / 2, pitch / 2), mark
    )
    marks = [dot, check, filled_path(box_path(0, 0, size, pitch), mark)][kind]
    return svg_pattern(name, pitch, float(r.uniform(0, 90)), full_rectangle(under) + marks)


def random_path_data(r: np.random.Generator) -> str:
    """Random SVG path data: an open curve, an ellipse or a broken line."""
    x = r.uniform(-4, SIDE + 4, 8)
    kind = int(r.integers(3))
    if kind == 0:
        return ellipse_path(x[0], x[1], abs(x[2]) / 3 + 2, abs(x[3]) / 3 + 2)
    curve = f"M{x[0]:.1f} {x[1]:.1f} C{x[2]:.1f} {x[3]:.1f} {x[4]:.1f} {x[5]:.1f} {x[6]:.1f} {x[7]:.1f}"
    return curve if kind == 1 else curve.replace("C", "L")


def random_texture(seed: int) -> Image.Image:
    """A picture of 64 x 64 pixels: a background, filled shapes, lines over them, and soft light or shade."""
    r = np.random.default_rng([seed, 61])
    out = (
        random_svg_pattern("a", r)
        + random_svg_pattern("b", r)
        + svg_gradient("g", "linear", [(0, random_colour(r)), (1, random_colour(r))], "")
    )
    out += svg_blur("soft", float(r.uniform(0.7, 3.0)), "50%")
    out += full_rectangle(str(r.choice(["url(#a)", "url(#g)", random_colour(r), random_colour(r)])))
    for _ in range(int(r.integers(1, 6))):
        fill = str(r.choice(["url(#a)", "url(#b)", "url(#g)", random_colour(r), random_colour(r), random_colour(r)]))
        x, y, w, h = r.uniform(0, SIDE), r.uniform(0, SIDE), r.uniform(3, 22), r.uniform(3, 22)
        out += filled_path(ellipse_path(x, y, w, h) if r.random() < 0.5 else box_path(x - w, y - h, 2 * w, 2 * h), fill)
    for _ in range(int(r.integers(0, 9))):
        soft = 'filter="url(#soft)"' if r.random() < 0.35 else ""
        out += stroked_path(random_path_data(r), random_colour(r), float(r.uniform(0.8, 5.0)), soft)
    return rasterise(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIDE} {SIDE}">{out}</svg>', SIDE)
