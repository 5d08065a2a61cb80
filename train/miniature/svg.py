"""SVG in strings: paths, colours, and the one call that makes pixels of them."""

import io
from collections.abc import Sequence

import resvg_py
from PIL import Image

SIDE = 64  # units of a drawing, and pixels of a picture


def ellipse_path(x: float, y: float, rx: float, ry: float | None = None) -> str:
    """An ellipse around (x, y) as SVG path data; a circle if `ry` is left out."""
    ry = rx if ry is None else ry
    return f"M{x - rx:.2f} {y:.2f}a{rx:.2f} {ry:.2f} 0 1 0 {2 * rx:.2f} 0a{rx:.2f} {ry:.2f} 0 1 0 {-2 * rx:.2f} 0z"


def box_path(x: float, y: float, w: float, h: float, r: float = 0.0) -> str:
    """A rectangle with the upper left corner (x, y) as SVG path data; `r` is the radius of its corners."""
    if not r:
        return f"M{x} {y}h{w}v{h}h{-w}z"
    corner = f"a{r} {r} 0 0 1"
    return (
        f"M{x + r} {y}h{w - 2 * r}{corner} {r} {r}v{h - 2 * r}{corner} {-r} {r}"
        f"h{2 * r - w}{corner} {-r} {-r}v{2 * r - h}{corner} {r} {-r}z"
    )


def svg_path_and_mirror_image(path: str) -> list[str]:
    """The path, of absolute M, L, Q and C commands, and its mirror image about the vertical middle, as
    two path data.
    """
    mirrored, is_x = [], True
    for token in path.replace("z", " z").split():
        command, number = (token[0], token[1:]) if token[0].isalpha() else ("", token)
        if command:
            is_x = True
        if not number:
            mirrored.append(command)
            continue
        mirrored.append(f"{command}{64 - float(number):g}" if is_x else f"{command}{number}")
        is_x = not is_x
    return [path, " ".join(mirrored)]


def rgb_from_hex(colour: str) -> tuple[float, float, float]:
    """The RGB values in [0, 1] of a colour #rrggbb."""
    return (int(colour[1:3], 16) / 255, int(colour[3:5], 16) / 255, int(colour[5:7], 16) / 255)


def hex_colour(values: tuple[float, ...]) -> str:
    """The colour of RGB values in [0, 1] as #rrggbb; values outside are clipped."""
    return "#" + "".join(f"{round(255 * min(max(v, 0), 1)):02x}" for v in values)


def lightened_or_darkened_colour(colour: str, tone: float) -> str:
    """The colour mixed with white (tone > 0) or black (tone < 0); `tone` is in [-1, 1], colours are #rrggbb."""
    end = 1.0 if tone > 0 else 0.0
    return hex_colour(tuple(v + (end - v) * abs(tone) for v in rgb_from_hex(colour)))


def filled_path(path: str, colour: str, more: str = "") -> str:
    return f'<path d="{path}" fill="{colour}" {more}/>'


def stroked_path(path: str, colour: str, width: float, more: str = "") -> str:
    line = f'stroke="{colour}" stroke-width="{width:.2f}" stroke-linecap="round" stroke-linejoin="round"'
    return f'<path d="{path}" fill="none" {line} {more}/>'


def svg_gradient(name: str, kind: str, stops: Sequence[tuple[float, str]], where: str) -> str:
    """SVG text that defines a gradient with the id `name`; `kind` is linear or radial, `where` gives its ends as SVG
    attributes.
    """
    listed = "".join(f'<stop offset="{offset}" stop-color="{colour}"/>' for offset, colour in stops)
    return f'<{kind}Gradient id="{name}" {where}>{listed}</{kind}Gradient>'


def svg_pattern(name: str, pitch: float, turn: float, marks: str) -> str:
    """SVG text that defines a pattern with the id `name`: `marks` every `pitch` pixels, turned by `turn` degrees."""
    size = f'width="{pitch:.2f}" height="{pitch:.2f}" patternUnits="userSpaceOnUse"'
    return f'<pattern id="{name}" {size} patternTransform="rotate({turn})">{marks}</pattern>'


def svg_blur(name: str, deviation: float, reach: str = "10%") -> str:
    """SVG text that defines a blur filter with the id `name`; `reach` is how far it may extend beyond the shape, in
    whole percent of its size (SVG's default: "10%").
    """
    wide = f"{100 + 2 * int(reach[:-1])}%"
    where = f'x="-{reach}" y="-{reach}" width="{wide}" height="{wide}"'
    return f'<filter id="{name}" {where}><feGaussianBlur stdDeviation="{deviation:.2f}"/></filter>'


def full_rectangle(colour: str) -> str:
    """A rectangle over the whole picture, as SVG text."""
    return f'<rect width="{SIDE}" height="{SIDE}" fill="{colour}"/>'


def rasterise(svg: str, side: int) -> Image.Image:
    """The SVG drawn as an RGB picture, `side` pixels wide and high."""
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=side, height=side, skip_system_fonts=True))
    return Image.open(io.BytesIO(png)).convert("RGB")
