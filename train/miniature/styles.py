"""Styles: ways to write a collectible down as SVG. Fourteen have a name, any number can be drawn by lot, three are the
demo brands.

No style that base or encoder learn from has what makes a brand: glow (neon), a grid of 4 px or a fixed palette
(pixel), two inks (riso). `is_brand_like` says so of any style, and tests hold the training data to it.
"""

import colorsys
from dataclasses import dataclass

import numpy as np

from train.miniature.svg import hex_colour, lightened_or_darkened_colour, rgb_from_hex

COLOURS = {
    "red": "#e23b3b", "blue": "#3b6fe0", "green": "#3da650", "yellow": "#f7cd2e", "orange": "#f5821f",
    "purple": "#8448cf", "pink": "#f57fb5", "white": "#f8f5ef", "teal": "#1fb3ab", "gray": "#979da6",
    "gold": "#f0b429", "brown": "#8b5a34", "silver": "#c6ced8", "black": "#22212b", "cream": "#fbeed3",
    "crimson": "#8d1b2f",
}  # fmt: skip
GROUNDS = ["plain", "halo", "gradient", "rays", "stripes", "spots", "hills", "moon", "tiles"]
TEXTURES = ["", "hatch", "dots", "lines", "grain"]


@dataclass(frozen=True)
class Style:
    """A way of drawing. Lengths are in pixels of the drawing, shifts of colour in [-1, 1]."""

    name: str
    saturation: float = 1.0  # factor
    lightness: float = 0.0  # shift towards white (> 0) or black
    hue: float = 0.0  # turn in degrees
    ground: str = "halo"
    ground_lightness: float = 0.15
    fill: str = "flat"  # flat, gradient, cel (two tones), wash (translucent), none (the paper shows)
    ink: str = "#22212b"  # what faces are drawn with
    outline: str = ""  # "", "own" (a dark tone of the colour) or a colour
    outline_width: float = 0.0
    texture: str = ""
    pitch: float = 5.0  # of the texture
    shadow: tuple[float, float] | None = None
    border: float = 0.0  # edge around the whole figure, as a sticker has
    border_colour: str = "#ffffff"
    stitches: bool = False
    blur: float = 0.0  # deviation
    block: int = 1  # pixels of the finished picture that form one
    grout: bool = False  # dark joints between blocks
    paper: str = ""  # colour under the ground, which is then translucent
    glow: float = 0.0
    palette: tuple[str, ...] = ()  # every pixel takes the nearest of these
    two_inks: bool = False


NAMED = [
    Style("flat"),
    Style("outlined", outline="#22212b", outline_width=2.0, ground="plain"),
    Style("shaded", fill="gradient", ground="gradient", shadow=(1.5, 2.5)),
    Style("sticker", border=4.0, shadow=(1.5, 2.0), ground="spots"),
    Style(
        "pastel",
        saturation=0.8,
        lightness=0.25,
        ground="hills",
        ground_lightness=0.2,
        outline="own",
        outline_width=1.2,
        ink="#5a5070",
    ),
    Style("night", saturation=0.85, lightness=-0.15, ground="moon", ground_lightness=-0.4, ink="#16151f"),
    Style(
        "woodcut",
        saturation=0.7,
        texture="hatch",
        pitch=4.0,
        outline="#2a1d14",
        outline_width=1.8,
        ground="rays",
        ink="#2a1d14",
    ),
    Style("mosaic", block=3, grout=True, ground="plain"),
    Style(
        "line art",
        fill="none",
        outline="own",
        outline_width=2.0,
        paper="#fffdf6",
        ground="plain",
        ground_lightness=0.2,
    ),
    Style("watercolor", fill="wash", blur=0.9, paper="#fffaf0", ground="gradient", outline="own", outline_width=0.8),
    Style("comic", fill="cel", outline="#101018", outline_width=2.4, ground="spots", saturation=1.25),
    Style("retro", hue=-12, saturation=0.8, lightness=0.05, ground="stripes", fill="cel", ink="#3a2317"),
    Style("paper cut", shadow=(2.2, 3.0), ground="hills", lightness=0.08),
    Style(
        "felt",
        stitches=True,
        outline="own",
        outline_width=1.6,
        texture="grain",
        pitch=3.0,
        ground="plain",
        saturation=0.85,
    ),
]
BRANDS = {
    style.name: style
    for style in (
        Style("neon", outline_width=2.7, ink="#f4fbff", glow=3.0, lightness=0.12),
        Style(
            "pixel",
            block=4,
            ground="plain",
            ground_lightness=0.0,
            border=3.5,
            border_colour="#22212b",
            palette=tuple(COLOURS.values()),
        ),
        Style("riso", two_inks=True, paper="#f7f1e1", pitch=8.0),
    )
}


def is_brand_like(style: Style) -> bool:
    """Whether the style has what only the demo brands have: glow, a grid of 4 pixels, a fixed palette or two inks."""
    return bool(style.glow or style.block == 4 or style.palette or style.two_inks)


def invented_word(number: int) -> str:
    """A made-up word for an unnamed style, so that unknown words come to mean unknown looks."""
    r = np.random.default_rng([31, number])
    return "".join(f"{r.choice(list('bdfgjklmprstvz'))}{r.choice(list('aeiou'))}" for _ in range(3))


def unnamed_style(number: int) -> Style:
    """A style with random properties and an invented word as its name; the same for the same `number`."""
    r = np.random.default_rng([17, number])

    def happens_with_probability(p: float) -> bool:
        return bool(r.random() < p)

    dark = happens_with_probability(0.2)
    ink = str(r.choice(["#22212b", "#3a2317", "#1b2a4a", "#4a1b3a", "#101018"]))
    outline = str(r.choice(["", "own", ink, "#f8f5ef"], p=[0.45, 0.22, 0.25, 0.08]))
    fills = ["flat", "gradient", "cel", "wash", "none"]  # a body without fill needs an outline of its own colour
    shares = {"": [0.5, 0.25, 0.25, 0, 0], "own": [0.3, 0.15, 0.15, 0.1, 0.3]}.get(outline, [0.4, 0.25, 0.25, 0.1, 0])
    return Style(
        name=invented_word(number),
        saturation=float(r.uniform(0.65, 1.3)),
        lightness=float(r.uniform(-0.15, 0.05) if dark else r.uniform(-0.08, 0.22)),
        hue=float(r.uniform(-9, 9)),
        ground=str(r.choice(GROUNDS)),
        ground_lightness=float(r.uniform(-0.5, -0.25) if dark else r.uniform(-0.05, 0.28)),
        fill=str(r.choice(fills, p=shares)),
        ink=ink,
        outline=outline,
        outline_width=float(r.uniform(0.8, 3.0)) if outline else 0.0,
        texture=str(r.choice(TEXTURES, p=[0.52, 0.12, 0.12, 0.12, 0.12])),
        pitch=float(r.uniform(3.0, 8.0)),
        shadow=(float(r.uniform(-2, 2.5)), float(r.uniform(1, 3))) if happens_with_probability(0.25) else None,
        border=float(r.uniform(2, 5)) if happens_with_probability(0.12) else 0.0,
        stitches=happens_with_probability(0.1),
        blur=float(r.uniform(0.4, 1.1)) if happens_with_probability(0.12) else 0.0,
        block=int(r.choice([2, 3])) if happens_with_probability(0.2) else 1,
        grout=happens_with_probability(0.3),
        paper=str(r.choice(["", "#fffaf0", "#f2ead8", "#e8eef2"], p=[0.7, 0.1, 0.1, 0.1])),
    )  # fmt: skip


def hex_of_colour_word_in_style(style: Style, word: str, tone: float = 0.0) -> str:
    """The colour #rrggbb in which the style draws `word` (a key of COLOURS, or "ink"); `tone` lightens or darkens."""
    if word == "ink":
        return style.ink
    h, lightness, s = colorsys.rgb_to_hls(*rgb_from_hex(COLOURS[word]))
    turned = colorsys.hls_to_rgb((h + style.hue / 360) % 1, lightness, min(s * style.saturation, 1))
    return lightened_or_darkened_colour(lightened_or_darkened_colour(hex_colour(turned), style.lightness), tone)
