"""The world of the miniature: collectibles drawn from traits as SVG, so that the truth about each picture is known.

A collectible is a list of shapes in a square of 64 units; a style (train/miniature/styles.py) is a way of writing
them down. `drawing.render_collectible` gives the same bytes for the same traits, style and seed.
"""

from typing import NamedTuple

import numpy as np

from train.miniature.svg import box_path, ellipse_path, svg_path_and_mirror_image

TRAITS = {
    "background": ["red", "blue", "green", "yellow", "purple", "pink", "teal", "gray"],
    "body": ["red", "blue", "green", "yellow", "orange", "purple", "pink", "white"],
    "species": ["robot", "cat", "rabbit", "bird", "ghost", "slime", "alien", "bear"],
    "eyes": ["round", "sleepy", "sunglasses", "angry"],
    "mouth": ["smile", "open", "flat"],
    "headwear": ["none", "crown", "cap", "wizard", "flower", "horns"],
    "item": ["none", "sword", "balloon", "book"],
}


class Shape(NamedTuple):
    """One closed path that is filled, or a line if `width` is given."""

    path: str
    colour: str  # a word of styles.COLOURS, or "ink": what the style draws faces with
    tone: float = 0.0  # -1 black ... 0 the colour ... 1 white
    part: str = "body"  # body, face or prop
    width: float = 0.0


def shape_and_mirrored_shape(path: str, colour: str, tone: float = 0.0, width: float = 0.0) -> list[Shape]:
    """Two shapes of the body: one with this path, and its mirror image."""
    return [Shape(p, colour, tone, width=width) for p in svg_path_and_mirror_image(path)]


def torso_shapes(colour: str) -> list[Shape]:
    return [Shape("M20 64 Q20 50 32 50 Q44 50 44 64 z", colour), Shape(ellipse_path(32, 61, 6.5, 6), colour, 0.45)]


def arm_shapes(colour: str) -> list[Shape]:
    return [Shape(ellipse_path(17.5, 56, 3.6, 4.2), colour), Shape(ellipse_path(46.5, 56, 3.6, 4.2), colour)]


def robot_shapes(colour: str) -> list[Shape]:
    return [
        Shape(box_path(12, 33, 40, 9, 2), colour, -0.35),
        Shape(box_path(21, 52, 22, 14, 2), colour, -0.15),
        Shape(box_path(16, 22, 32, 30, 5), colour),
        Shape(box_path(19.5, 27, 25, 22, 4), colour, 0.5),
        Shape(ellipse_path(28, 58, 1.8), colour, 0.6),
        Shape(ellipse_path(36, 58, 1.8), colour, 0.6),
    ]


def cat_shapes(colour: str) -> list[Shape]:
    tail = Shape("M44 61 Q56 62 53 50", colour, -0.2, width=4)
    ears = shape_and_mirrored_shape("M16 31 L15 11 L30 21 z", colour) + shape_and_mirrored_shape(
        "M18.5 24 L18 15.5 L25 20 z", colour, 0.5
    )
    whiskers = shape_and_mirrored_shape("M18 42 L10 40", colour, -0.55, 0.9) + shape_and_mirrored_shape(
        "M18 45 L11 47", colour, -0.55, 0.9
    )
    return [tail, *ears, *torso_shapes(colour), Shape(ellipse_path(32, 36.5, 17.5, 15.5), colour), *whiskers]


def rabbit_shapes(colour: str) -> list[Shape]:
    ears = shape_and_mirrored_shape("M22 27 C12 14 13 2 18.5 1.5 C25 2 28 12 28 25 z", colour)
    inner = shape_and_mirrored_shape("M21.5 21 C16.5 13 16.5 5 19 5 C22.5 5.5 24.5 14 24.5 21 z", colour, 0.5)
    head = [Shape(ellipse_path(32, 37, 15.5, 15), colour), Shape(ellipse_path(32, 45.5, 8, 5.5), colour, 0.45)]
    return [*ears, *inner, *torso_shapes(colour), *arm_shapes(colour), *head]


def bear_shapes(colour: str) -> list[Shape]:
    ears = [Shape(ellipse_path(x, 23, r), colour, tone) for r, tone in ((6.5, 0.0), (3.5, -0.35)) for x in (17, 47)]
    head = [Shape(ellipse_path(32, 37, 18, 16), colour), Shape(ellipse_path(32, 45.5, 9.5, 6.5), colour, 0.5)]
    return [*ears, *torso_shapes(colour), *arm_shapes(colour), *head]


def bird_shapes(colour: str) -> list[Shape]:
    crest = Shape("M29 21 C24 14 26 10 30 15 C31 8 36 8 35 15 C39 11 40 15 36 21 z", colour, -0.2)
    wings = shape_and_mirrored_shape("M18 38 C8 38 4 48 7 59 C12 58 17 54 20 50 z", colour, -0.2)
    feet = [Shape(path, "orange", part="prop") for path in svg_path_and_mirror_image("M27 61 L21 64 L30 64 z")]
    body = [
        Shape("M13 42 C12 14 52 14 51 42 C51 68 13 68 13 42 z", colour),
        Shape(ellipse_path(32, 55, 11, 7), colour, 0.45),
    ]
    return [crest, *wings, *feet, *body]


def ghost_shapes(colour: str) -> list[Shape]:
    hem = "Q47 54 44 60 Q41 66 38 59 Q35 53 32 60 Q29 66 26 59 Q23 53 20 60 Q17 66 14 62 z"
    stumps = shape_and_mirrored_shape("M15 42 C8 40 6 46 9 50 C12 51 15 50 16 48 z", colour)
    return [*stumps, Shape(f"M14 62 L14 36 C14 13 50 13 50 36 L50 62 {hem}", colour)]


def slime_shapes(colour: str) -> list[Shape]:
    drop = "M32 13 C36 21 54 28 55 48 C62 52 60 63 54 63 L10 63 C4 63 2 52 9 48 C10 28 28 21 32 13 z"
    foot = "M9 58 Q20 51 32 57 Q44 62 55 55 Q59 63 53 63 L11 63 Q6 63 9 58 z"
    return [Shape(drop, colour), Shape(foot, colour, -0.25), Shape(ellipse_path(19, 30, 2.6, 4), colour, 0.6)]


def alien_shapes(colour: str) -> list[Shape]:
    antennae = shape_and_mirrored_shape("M25 23 Q21 14 16 11", colour, -0.25, 2)
    balls = [Shape(ellipse_path(x, 10, 3.6), colour, 0.35) for x in (15.5, 48.5)]
    body = Shape("M25 64 Q24 50 32 50 Q40 50 39 64 z", colour, -0.2)
    return [*antennae, *balls, body, Shape("M32 54 C22 54 11 42 11 31 C11 15 53 15 53 31 C53 42 42 54 32 54 z", colour)]


# Ears, body and head in one colour; the face has its place at (32, 39).
SPECIES = {
    "robot": robot_shapes,
    "cat": cat_shapes,
    "rabbit": rabbit_shapes,
    "bird": bird_shapes,
    "ghost": ghost_shapes,
    "slime": slime_shapes,
    "alien": alien_shapes,
    "bear": bear_shapes,
}


def headwear_shapes(kind: str) -> list[Shape]:
    """The shapes of a headwear; empty for "none"."""

    def headwear_shape_from_path(path: str, colour: str, tone: float = 0.0) -> Shape:
        return Shape(path, colour, tone, "prop")

    if kind == "crown":
        band = headwear_shape_from_path("M20 24 L18 8 L26 15 L32 5 L38 15 L46 8 L44 24 z", "gold")
        return [
            band,
            *(
                headwear_shape_from_path(ellipse_path(x, 20, 1.9), c)
                for x, c in ((25, "red"), (32, "blue"), (39, "red"))
            ),
        ]
    if kind == "cap":
        return [
            headwear_shape_from_path("M18 24 C18 6 46 6 46 24 z", "blue", -0.1),
            headwear_shape_from_path("M30 20 L58 22 Q60 27 54 27 L30 26 z", "blue", -0.4),
            headwear_shape_from_path(ellipse_path(31, 17, 3.5), "white"),
        ]
    if kind == "wizard":
        cone = headwear_shape_from_path("M20 23 Q30 12 35 -1 Q38 12 45 23 z", "purple", -0.15)
        star = headwear_shape_from_path(
            "M32 11 L33.2 14 L36.4 14.2 L34 16.2 L34.8 19.4 L32 17.6 L29.2 19.4 L30 16.2 L27.6 14.2 L30.8 14 z", "gold"
        )
        return [cone, headwear_shape_from_path(ellipse_path(32, 23.5, 18, 3.6), "purple", -0.4), star]
    if kind == "flower":
        petals = [
            headwear_shape_from_path(ellipse_path(32 + 5.6 * np.cos(a), 15 + 5.6 * np.sin(a), 4.2), "pink", 0.25)
            for a in np.arange(5) * 1.2566 - 1.57
        ]
        leaves = [
            headwear_shape_from_path(path, "green", -0.15)
            for path in svg_path_and_mirror_image("M30 21 Q20 16 18 23 Q25 26 30 23 z")
        ]
        return [*leaves, *petals, headwear_shape_from_path(ellipse_path(32, 15, 3.6), "yellow")]
    if kind == "horns":
        return [
            headwear_shape_from_path(path, "cream")
            for path in svg_path_and_mirror_image("M23 25 C14 21 12 11 17 4 C18 12 22 17 29 21 z")
        ]
    return []


def held_item_shapes(kind: str, colour: str) -> list[Shape]:
    """The shapes of an item, and of a small hand that holds it, at the right; `colour` is that of the body. Empty for
    "none".
    """

    def item_shape_from_path(path: str, colour: str, tone: float = 0.0, width: float = 0.0) -> Shape:
        return Shape(path, colour, tone, "prop", width)

    hand = Shape(ellipse_path(54, 53.5, 3.6), colour, -0.1)
    if kind == "sword":
        blade = item_shape_from_path("M52 46 L52 22 L54.5 17 L57 22 L57 46 z", "silver", 0.1)
        return [
            blade,
            item_shape_from_path(box_path(48, 45.5, 13, 3.4, 1), "gold"),
            item_shape_from_path(box_path(53, 49, 3.2, 8), "brown"),
            hand,
        ]
    if kind == "balloon":
        string = item_shape_from_path("M54 53 Q58 42 55 33", "black", 0.1, 1.1)
        return [
            string,
            item_shape_from_path("M55 12 C63 12 63 25 55 32 C47 25 47 12 55 12 z", "red"),
            item_shape_from_path(ellipse_path(52.6, 18, 1.6, 2.4), "red", 0.6),
            hand,
        ]
    if kind == "book":
        return [
            item_shape_from_path(box_path(43, 45, 18, 16, 1.5), "brown"),
            item_shape_from_path(box_path(45.5, 47.5, 13, 11), "cream"),
            item_shape_from_path(box_path(50.8, 45, 2.4, 16), "red"),
            hand,
        ]
    return []


def face_shapes(eyes: str, mouth: str) -> list[Shape]:
    """The shapes of eyes and mouth; an unknown kind is not drawn."""

    def face_shape_from_path(path: str, colour: str = "ink", tone: float = 0.0, width: float = 0.0) -> Shape:
        return Shape(path, colour, tone, "face", width)

    out: list[Shape] = []
    if eyes == "round":
        for x in (24.5, 39.5):
            out += [
                face_shape_from_path(ellipse_path(x, 34, 5.2), "white"),
                face_shape_from_path(ellipse_path(x, 34.4, 3.1)),
                face_shape_from_path(ellipse_path(x + 1.2, 33, 1.1), "white"),
            ]
    elif eyes == "sleepy":
        out += [face_shape_from_path(p, width=2.4) for p in svg_path_and_mirror_image("M19.5 33.5 Q24.5 40 29.5 33.5")]
    elif eyes == "sunglasses":
        out += [face_shape_from_path("M17 29.5 L47 29.5 L46 37 Q40 41 34.5 36 L32 33 L29.5 36 Q24 41 18 37 z")]
        out += [
            face_shape_from_path("M21 32 L25 32 L22.5 36 z", "white"),
            face_shape_from_path("M37 32 L41 32 L38.5 36 z", "white"),
        ]
    elif eyes == "angry":
        out += [
            face_shape_from_path(p, "white")
            for p in svg_path_and_mirror_image("M18.8 30.5 L29.8 35 Q28 40 24 39.6 Q19 38.6 18.8 30.5 z")
        ]
        out += [face_shape_from_path(ellipse_path(26, 36.4, 2)), face_shape_from_path(ellipse_path(38, 36.4, 2))]
        out += [face_shape_from_path(p, width=3) for p in svg_path_and_mirror_image("M17.5 28.5 L30 33.8")]
    if mouth == "smile":
        out += [face_shape_from_path("M25.5 43.5 Q32 51 38.5 43.5", width=2.2)]
    elif mouth == "open":
        out += [
            face_shape_from_path(ellipse_path(32, 46, 4.6, 4.8), "crimson"),
            face_shape_from_path(ellipse_path(32, 48.4, 2.8, 1.9), "pink"),
        ]
    elif mouth == "flat":
        out += [face_shape_from_path("M26 46 L38 46", width=2.4)]
    return out


def figure_shapes(traits: dict[str, str]) -> list[Shape]:
    """All shapes of a collectible but the background, from back to front. A trait that is missing is left out; of a
    missing body or species a white ghost is drawn.
    """
    body = traits.get("body", "white")
    return [
        *SPECIES[traits.get("species", "ghost")](body),
        *headwear_shapes(traits.get("headwear", "none")),
        *face_shapes(traits.get("eyes", ""), traits.get("mouth", "")),
        *held_item_shapes(traits.get("item", "none"), body),
    ]


def random_traits(random: np.random.Generator) -> dict[str, str]:
    """A random combination of traits; the values of a trait are equally likely."""
    return {name: values[int(random.integers(len(values)))] for name, values in TRAITS.items()}
