"""The looks of the demo brands, which no base style shares: tubes of light, two inks, faces on a coarse grid."""

from train.miniature.styles import COLOURS, Style, hex_of_colour_word_in_style
from train.miniature.svg import (
    box_path,
    ellipse_path,
    filled_path,
    full_rectangle,
    hex_colour,
    lightened_or_darkened_colour,
    rgb_from_hex,
    stroked_path,
    svg_blur,
    svg_pattern,
)
from train.miniature.world import Shape

DARKEST = 0.2  # luma of the overprint, at most: faces must read


def neon_picture_svg(figure: list[Shape], word: str, style: Style, pose: str) -> str:
    """SVG text of the whole picture: the figure as glowing tubes on near-black, each with a bright core and a halo,
    before a ring in the colour `word`.
    """
    tubes, fills = [], []
    for s in figure:
        if s.part == "face" and s.colour == "white":
            continue
        bright = hex_of_colour_word_in_style(style, "ink" if s.colour == "black" else s.colour)
        bright = "#ffffff" if s.colour in ("white", "silver", "cream") else bright
        inside = -0.4 if s.part == "face" and s.colour in ("crimson", "pink") else -0.75
        thick = min(s.width, style.outline_width) if s.width else 1.8 if s.tone else style.outline_width
        tubes.append((s.path, bright, thick))
        fills.append("" if s.width else filled_path(s.path, lightened_or_darkened_colour(bright, inside)))
    ring, round_about = hex_of_colour_word_in_style(style, word), ellipse_path(32, 34, 28)
    halo = "".join(stroked_path(path, colour, width + 1.6) for path, colour, width in tubes)
    out = svg_blur("h", style.glow, "50%") + full_rectangle(lightened_or_darkened_colour(ring, -0.82))
    out += stroked_path(round_about, ring, 5, 'filter="url(#h)"') + stroked_path(round_about, ring, 2.6)
    out += f'<g transform="{pose}"><g filter="url(#h)" opacity="0.9">{halo}</g>'
    for (path, colour, width), fill in zip(tubes, fills, strict=True):
        out += (
            fill
            + stroked_path(path, colour, width)
            + stroked_path(path, lightened_or_darkened_colour(colour, 0.15), width * 0.5)
        )
    return out + "</g>"


def riso_print_svg(figure: list[Shape], traits: dict[str, str], style: Style, pose: str) -> str:
    """SVG text of the whole picture: one ink for the body, one for the ground, on cream paper; tones are dots; both
    printed twice are the dark.

    What stays paper gets an edge, so that it does not vanish.
    """
    paper, second = style.paper, COLOURS[traits.get("background", "gray")]
    first = paper if traits.get("body", "white") == "white" else COLOURS[traits["body"]]
    dark = overprinted_colour(first, second)
    light = {"cream", "silver", "white", "yellow"}

    def halftone_pattern_svg(name: str, colour: str, turn: float) -> str:
        p = style.pitch
        dot = f'<circle cx="{p / 2}" cy="{p / 2}" r="{p * 0.34:.2f}" fill="{colour}"/>'
        return svg_pattern(name, p, turn, full_rectangle(paper) + dot)

    def ink_of_shape_in_print(s: Shape) -> str:
        if s.part == "face":
            return paper if s.colour == "white" else second if s.colour == "pink" else dark
        if s.part == "prop":
            return paper if s.colour in light else second if s.colour == "gold" else dark
        return "url(#a)" if s.tone > 0.2 else first

    out = halftone_pattern_svg("a", second if first == paper else first, 20) + halftone_pattern_svg("b", second, 45)
    out += full_rectangle(paper) + full_rectangle("url(#b)") + filled_path(box_path(0, 56, 64, 8), second)
    out += f'<g transform="{pose}"><g transform="translate(1 -0.8)">'  # the second plate never quite fits
    out += "".join(filled_path(s.path, paper) for s in figure if not s.width and s.part != "face") + "</g>"
    for s in figure:
        colour = ink_of_shape_in_print(s)
        if s.width:
            out += stroked_path(s.path, colour if s.part == "face" else dark, s.width)
        else:
            edge = stroked_path(s.path, dark, 1.4) if colour == paper and s.part != "face" else ""
            out += filled_path(s.path, colour) + edge
    return out + "</g>"


def overprinted_colour(first: str, second: str) -> str:
    """The colour of two inks printed over each other twice, darkened until lines in it are legible."""
    values = [(a * b) ** 2 for a, b in zip(rgb_from_hex(first), rgb_from_hex(second), strict=True)]
    luma = 0.299 * values[0] + 0.587 * values[1] + 0.114 * values[2]
    return hex_colour(tuple(v * min(1.0, DARKEST / max(luma, 1e-6)) for v in values))


def pixel_grid_face_shapes(traits: dict[str, str]) -> list[Shape]:
    """Eyes and mouth of whole cells of 4 pixels, placed by hand: a face that is only reduced is not legible."""

    def face_shapes_at_grid_cells(colour: str, *places: tuple[int, int]) -> list[Shape]:
        return [Shape(box_path(4 * x, 4 * y, 4, 4), colour, 0.0, "face") for x, y in places]

    lids, brows = [(5, 9), (6, 9), (9, 9), (10, 9)], [(5, 7), (6, 8), (9, 8), (10, 7)]
    white = [(5, 8), (6, 8), (5, 9), (9, 8), (10, 8), (10, 9)]
    eyes = {
        "round": face_shapes_at_grid_cells("white", *white) + face_shapes_at_grid_cells("ink", (6, 9), (9, 9)),
        "sleepy": face_shapes_at_grid_cells("ink", *lids),
        "sunglasses": face_shapes_at_grid_cells("ink", *((x, 8) for x in range(4, 12)), *lids)
        + face_shapes_at_grid_cells("white", (5, 8), (9, 8)),
        "angry": face_shapes_at_grid_cells("ink", *brows)
        + face_shapes_at_grid_cells("white", (5, 8), (10, 8))
        + face_shapes_at_grid_cells("crimson", (6, 9), (9, 9)),
    }
    mouths = {
        "smile": face_shapes_at_grid_cells("ink", (6, 11), (9, 11), (7, 12), (8, 12)),
        "open": face_shapes_at_grid_cells("crimson", (7, 11), (8, 11), (7, 12), (8, 12)),
        "flat": face_shapes_at_grid_cells("ink", *((x, 11) for x in range(6, 10))),
    }
    return eyes.get(traits.get("eyes", ""), []) + mouths.get(traits.get("mouth", ""), [])
