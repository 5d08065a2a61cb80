"""Collectibles drawn in a style: written out as SVG, and made into pixels."""

import numpy as np
from PIL import Image

from train.miniature import looks, world
from train.miniature.styles import Style, hex_of_colour_word_in_style
from train.miniature.svg import (
    SIDE,
    box_path,
    ellipse_path,
    filled_path,
    full_rectangle,
    lightened_or_darkened_colour,
    rasterise,
    rgb_from_hex,
    stroked_path,
    svg_blur,
    svg_gradient,
    svg_pattern,
)
from train.miniature.world import Shape


def render_collectible(traits: dict[str, str], style: Style, seed: int) -> Image.Image:
    """A collectible with these traits in this style: RGB, 64 x 64 pixels. The seed moves, turns and scales the figure a
    little, and places the marks of its background.
    """
    cells = -(-SIDE // style.block)
    side = cells * style.block
    image = rasterise(collectible_as_svg(traits, style, np.random.default_rng([seed, 5]), side), cells)
    if style.palette:
        image = quantised_to_palette(image, style.palette)
    if style.block > 1:
        image = image.resize((side, side), Image.Resampling.NEAREST).crop((0, 0, SIDE, SIDE))
    if style.block > 1 and style.grout:
        pixels = np.asarray(image).astype(np.float32)
        pixels[:: style.block] *= 0.72
        pixels[:, :: style.block] *= 0.72
        image = Image.fromarray(pixels.round().astype(np.uint8))
    return image


def quantised_to_palette(image: Image.Image, palette: tuple[str, ...]) -> Image.Image:
    """The picture with each pixel replaced by the nearest colour of the palette."""
    table = np.array([rgb_from_hex(c) for c in palette]) * 255
    pixels = np.asarray(image, dtype=np.float64)
    nearest = ((pixels[:, :, None] - table) ** 2).sum(-1).argmin(-1)
    return Image.fromarray(table[nearest].round().astype(np.uint8))


def collectible_as_svg(traits: dict[str, str], style: Style, r: np.random.Generator, side: int = SIDE) -> str:
    """The collectible and its background as the text of an SVG file that shows `side` units; what is drawn fills 64."""
    word = traits.get("background", "gray")
    figure = world.figure_shapes(traits)
    if style.palette:
        figure = [s for s in figure if s.part != "face"] + looks.pixel_grid_face_shapes(traits)
        pose = f"translate(0 {4 * int(r.integers(-1, 1))})"
    else:
        x, y, turn, size = r.uniform(-2, 2), r.uniform(-1, 1.5), r.uniform(-5, 5), r.uniform(0.93, 1.03)
        about = f"rotate({turn:.2f} 32 40) translate(32 40) scale({size:.3f}) translate(-32 -40)"
        pose = f"translate({x:.2f} {y:.2f}) {about}"
    if style.two_inks:
        body = looks.riso_print_svg(figure, traits, style, pose)
    elif style.glow:
        body = looks.neon_picture_svg(figure, word, style, pose)
    else:
        body = background_svg(word, style, r) + figure_svg(figure, style, pose)
    edges = 'shape-rendering="crispEdges"' if style.palette else ""
    return f'<svg {edges} xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {side} {side}">{body}</svg>'


def background_svg(word: str, style: Style, r: np.random.Generator) -> str:
    """The background as SVG text, in the colour `word`; its pattern is always weak enough that the
    colour can be named.
    """
    main = lightened_or_darkened_colour(hex_of_colour_word_in_style(style, word), style.ground_lightness)
    other = lightened_or_darkened_colour(main, 0.22 if style.ground_lightness >= 0 else -0.3)
    marks = GROUNDS[style.ground](main, other, r)
    return (
        full_rectangle(style.paper or main)
        + f'<g opacity="{0.75 if style.paper else 1}">{full_rectangle(main)}{marks}</g>'
    )


def plain_background_marks(main: str, other: str, r: np.random.Generator) -> str:
    return ""


def halo_background_marks(main: str, other: str, r: np.random.Generator) -> str:
    return filled_path(ellipse_path(32, 38, 27), other)


def gradient_background_marks(main: str, other: str, r: np.random.Generator) -> str:
    ends = [(0, lightened_or_darkened_colour(main, 0.35)), (1, lightened_or_darkened_colour(main, -0.15))]
    return svg_gradient("g", "linear", ends, 'x1="0" x2="0" y1="0" y2="1"') + full_rectangle("url(#g)")


def ray_background_marks(main: str, other: str, r: np.random.Generator) -> str:
    out, turn = "", r.uniform(0, 0.5)
    for a in np.arange(8) * np.pi / 4 + turn:
        ends = " ".join(f"L{32 + 60 * np.cos(b):.1f} {36 + 60 * np.sin(b):.1f}" for b in (a, a + np.pi / 8))
        out += filled_path(f"M32 36 {ends} z", other)
    return out


def striped_background_marks(main: str, other: str, r: np.random.Generator) -> str:
    return "".join(filled_path(box_path(0, y, 64, 5), other) for y in range(int(r.integers(0, 5)), 64, 11))


def spotted_background_marks(main: str, other: str, r: np.random.Generator) -> str:
    rows = enumerate(range(3, 64, 9))
    return "".join(filled_path(ellipse_path(x + 6 * (i % 2), y, 2.2), other) for i, y in rows for x in range(2, 66, 12))


def hills_background_marks(main: str, other: str, r: np.random.Generator) -> str:
    y = r.uniform(-3, 3)
    hill = f"M0 {46 + y:.1f} Q18 {32 + y:.1f} 36 {48 + y:.1f} T64 {42 + y:.1f} L64 64 L0 64 z"
    return filled_path(hill, lightened_or_darkened_colour(main, -0.18)) + filled_path(ellipse_path(12, 12, 6), other)


def moon_background_marks(main: str, other: str, r: np.random.Generator) -> str:
    stars = "".join(
        filled_path(ellipse_path(x, y, 1), lightened_or_darkened_colour(main, 0.7)) for x, y in r.uniform(2, 62, (9, 2))
    )
    return filled_path(ellipse_path(11, 12, 6), lightened_or_darkened_colour(main, 0.75)) + stars


def tiled_background_marks(main: str, other: str, r: np.random.Generator) -> str:
    return "".join(filled_path(box_path(8 * i, 8 * j, 8, 8), other) for i in range(8) for j in range(8) if (i + j) % 2)


GROUNDS = {
    "plain": plain_background_marks,
    "halo": halo_background_marks,
    "gradient": gradient_background_marks,
    "rays": ray_background_marks,
    "stripes": striped_background_marks,
    "spots": spotted_background_marks,
    "hills": hills_background_marks,
    "moon": moon_background_marks,
    "tiles": tiled_background_marks,
}


def figure_svg(figure: list[Shape], style: Style, pose: str) -> str:
    """The figure as SVG text: its shadow, its edge, then its shapes from back to front. `pose` is an SVG transform."""
    solid = [s for s in figure if s.part != "face"]
    out = ""
    if style.shadow:
        x, y = style.shadow
        inside = silhouette_svg(solid, "#0d0c14", style.border)
        out += f'<g opacity="0.35" transform="translate({x:.2f} {y:.2f})">{inside}</g>'
    if style.border:
        out += silhouette_svg(solid, style.border_colour, style.border)
    if style.fill in ("none", "wash"):
        out += silhouette_svg(solid, style.paper or "#fffdf6", style.border)
    out += "".join(shape_svg(i, s, style) for i, s in enumerate(figure))
    if style.blur:
        return f'{texture_svg(style)}{svg_blur("soft", style.blur)}<g transform="{pose}" filter="url(#soft)">{out}</g>'
    return f'{texture_svg(style)}<g transform="{pose}">{out}</g>'


def silhouette_svg(figure: list[Shape], colour: str, edge: float) -> str:
    """SVG text with all shapes of the figure in one colour, each wider by `edge` pixels: its outline."""
    outer = f'stroke="{colour}" stroke-width="{2 * edge:.2f}" stroke-linejoin="round"'
    lines = [
        stroked_path(s.path, colour, s.width + 2 * edge) if s.width else filled_path(s.path, colour, outer)
        for s in figure
    ]
    return "".join(lines)


def texture_svg(style: Style) -> str:
    """SVG text that defines the style's texture as the pattern "t", for shapes to be filled with; "" for a style
    without texture.
    """
    p, half, dark = style.pitch, f"{style.pitch / 2:.2f}", 'fill="#000000" fill-opacity="0.3"'
    light = 'fill="#ffffff" fill-opacity="0.16"'
    marks = {
        "hatch": f'<rect width="{p}" height="{p * 0.32:.2f}" {dark}/>',
        "dots": f'<circle cx="{half}" cy="{half}" r="{p * 0.28:.2f}" {dark}/>',
        "lines": f'<rect width="{p * 0.3:.2f}" height="{p}" fill="#ffffff" fill-opacity="0.35"/>',
        "grain": f'<rect width="{half}" height="{half}" {dark}/>'
        f'<rect x="{half}" y="{half}" width="{half}" height="{half}" {light}/>',
    }
    return svg_pattern("t", p, 35, marks[style.texture]) if style.texture else ""


def shape_svg(number: int, shape: Shape, style: Style) -> str:
    """A shape as SVG text, filled and outlined as the style does it. Faces have plain colours, so that they stay
    legible.
    """
    colour = hex_of_colour_word_in_style(style, shape.colour, shape.tone)
    if shape.part == "face":
        return stroked_path(shape.path, colour, shape.width) if shape.width else filled_path(shape.path, colour)
    edge = outline_colour(shape, style)
    if shape.width:
        around = stroked_path(shape.path, edge, shape.width + 2 * style.outline_width) if edge else ""
        return around + stroked_path(shape.path, colour, shape.width)
    out = filled_shape_svg(number, shape.path, colour, style)
    if style.texture and shape.part == "body":
        out += filled_path(shape.path, "url(#t)")
    if edge and style.outline_width:
        out += stroked_path(shape.path, edge, style.outline_width)
    if style.stitches:
        out += stroked_path(shape.path, lightened_or_darkened_colour(colour, 0.65), 0.9, 'stroke-dasharray="2 2"')
    return out


def outline_colour(shape: Shape, style: Style) -> str:
    """The colour of a shape's outline; "" for a style without outlines."""
    if style.outline != "own":
        return style.outline
    dark = -0.12 if style.fill == "none" else -0.55 if style.ground_lightness > -0.2 else -0.8
    return lightened_or_darkened_colour(hex_of_colour_word_in_style(style, shape.colour), dark)


def filled_shape_svg(number: int, path: str, colour: str, style: Style) -> str:
    """The path as SVG text, filled as the style does it. `number` names its gradient."""
    if style.fill == "none":
        return filled_path(path, colour, 'fill-opacity="0.16"')
    if style.fill == "wash":
        return filled_path(path, colour, 'fill-opacity="0.72"')
    if style.fill == "gradient":
        stops = [
            (0, lightened_or_darkened_colour(colour, 0.4)),
            (0.55, colour),
            (1, lightened_or_darkened_colour(colour, -0.4)),
        ]
        made = svg_gradient(f"r{number}", "radial", stops, 'cx="0.35" cy="0.3" r="0.8"')
        return made + filled_path(path, f"url(#r{number})")
    if style.fill == "cel":
        stops = [(0.62, colour), (0.63, lightened_or_darkened_colour(colour, -0.25))]
        made = svg_gradient(f"r{number}", "linear", stops, 'x1="0" y1="0" x2="1" y2="0.4"')
        return made + filled_path(path, f"url(#r{number})")
    return filled_path(path, colour)
