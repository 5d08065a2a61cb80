"""Pictures to learn from, drawn once and kept in parts under .cache/miniature/.

Parts lie in a folder named after what the code draws: another world is drawn anew.

    corpus   what is in it                                                         for
    base     named and unnamed styles, traits that are not held out                VAE, encoder, base
    twins    the same, four by four: each changes one trait of the one before it   encoder
    kin      as twins, but only the hardest traits change                          encoder, its second half
    judge    the same styles and the demo brands, other seeds                      the judge, which benchmarks use

and `textures`, pictures of nothing, for the VAE alone.
"""

import hashlib
import json
import zlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stylegate import files, progress
from stylegate.pictures import CORES
from train.miniature import world
from train.miniature.drawing import render_collectible
from train.miniature.styles import BRANDS, NAMED, Style, unnamed_style
from train.miniature.svg import SIDE
from train.miniature.textures import random_texture

WORK = files.CACHE / "miniature"
PART = 2048  # pictures in one file
NUM_UNNAMED = 400
SHARE_NAMED = 0.6
HELD_OUT = 16  # one combination of traits in so many is for measuring alone
SIZES = {"base": 98_304, "twins": 49_152, "kin": 49_152, "judge": 49_152, "textures": 24_576}
FAMILY = 4  # twins, or kin, that differ in one trait from one to the next
HARDEST = ["species", "mouth", "eyes"]  # what an encoder learns last


class Corpus(NamedTuple):
    """Drawn pictures to learn from, with the style and the traits of each."""

    pixels: NDArray[np.uint8]  # [n, 64, 64, 3]
    styles: list[str]  # [n] names
    traits: list[dict[str, str]]  # [n]


def is_held_out(traits: dict[str, str]) -> bool:
    """Whether a combination of traits is kept out of every corpus, for measuring: a fixed sixteenth of all, in every
    style.
    """
    return zlib.crc32(json.dumps(traits, sort_keys=True).encode()) % HELD_OUT == 0


def random_style_for_base(random: np.random.Generator) -> Style:
    """A random style that base and encoder may learn from, never a demo brand's."""
    if random.random() < SHARE_NAMED:
        return NAMED[int(random.integers(len(NAMED)))]
    return unnamed_style(int(random.integers(NUM_UNNAMED)))


def random_style_for_judge(random: np.random.Generator) -> Style:
    """A random style for the judge: a third of the time a demo brand's, else one of `random_style_for_base`."""
    return list(BRANDS.values())[int(random.integers(3))] if random.random() < 0.34 else random_style_for_base(random)


SOURCES: dict[str, Callable[[np.random.Generator], Style]] = {
    "base": random_style_for_base,
    "twins": random_style_for_base,
    "judge": random_style_for_judge,
    "kin": random_style_for_base,
}
CHANGES = {"twins": list(world.TRAITS), "kin": HARDEST}


def styles_traits_and_seeds_of_part(name: str, number: int) -> list[tuple[Style, dict[str, str], int]]:
    """The style, traits and seed of each picture of part `number` of the corpus `name`: PART pictures."""
    random = np.random.default_rng([list(SOURCES).index(name), number])
    out: list[tuple[Style, dict[str, str], int]] = []
    while len(out) < PART:
        twin = name in CHANGES and len(out) % FAMILY > 0
        traits = with_changed_trait(out[-1][1], CHANGES[name], random) if twin else world.random_traits(random)
        if not is_held_out(traits):
            style, seed = (out[-1][0], out[-1][2]) if twin else (SOURCES[name](random), int(random.integers(2**31)))
            out.append((style, traits, seed))
    return out


def with_changed_trait(traits: dict[str, str], among: list[str], random: np.random.Generator) -> dict[str, str]:
    """The traits with another value of one of the traits in `among`, which is drawn at random."""
    trait = str(random.choice(among))
    return traits | {trait: str(random.choice([v for v in world.TRAITS[trait] if v != traits[trait]]))}


@cache
def corpus_fingerprint(name: str = "base") -> str:
    """The first eight hex digits of a sha256 over sample drawings of a corpus: every named style, a few unnamed, and
    for the judge the brands; of `textures` the first 64. It also covers what the seeds and the changes of traits follow
    from: the corpus's place in SOURCES, and for twins and kin FAMILY and their traits, in order.
    """
    if name == "textures":
        return hashlib.sha256(b"".join(random_texture(seed).tobytes() for seed in range(64))).hexdigest()[:8]
    changed = [FAMILY, CHANGES[name]] if name in CHANGES else []
    settings = [PART, NUM_UNNAMED, SHARE_NAMED, HELD_OUT, list(SOURCES).index(name), *changed]
    drawn = hashlib.sha256(str(settings).encode())
    for i, style in enumerate([*NAMED, *map(unnamed_style, range(32)), *(BRANDS.values() if name == "judge" else ())]):
        for j in range(3):
            drawn.update(render_collectible(world.random_traits(np.random.default_rng([i, j])), style, j).tobytes())
    return drawn.hexdigest()[:8]


def corpus_part_path(name: str, number: int) -> Path:
    """The file with the pixels of part `number` of the corpus `name`."""
    return WORK / f"{name}-{corpus_fingerprint(name)}" / f"{number:03d}.rgb"


def write_corpus_part(name: str, number: int) -> None:
    """Draw the pictures of one part of a corpus and write their pixels to its file; nothing is drawn if the file
    exists.
    """
    target = corpus_part_path(name, number)
    if not target.exists():
        if name == "textures":
            drawn = [random_texture(number * PART + i) for i in range(PART)]
        else:
            drawn = [
                render_collectible(traits, style, seed)
                for style, traits, seed in styles_traits_and_seeds_of_part(name, number)
            ]
        files.write_atomically(target, b"".join(image.tobytes() for image in drawn))


def draw_or_read_corpus_pixels(name: str) -> NDArray[np.uint8]:
    """The pixels of a corpus, uint8 [n, 64, 64, 3]; parts that are missing are drawn first."""
    numbers = range(SIZES[name] // PART)
    missing = [n for n in numbers if not corpus_part_path(name, n).exists()]
    if missing:
        total, there = len(numbers) * PART, (len(numbers) - len(missing)) * PART
        with progress.progress_bar(f"draw {name}", total, there) as tick, ProcessPoolExecutor(CORES) as pool:
            for _ in pool.map(partial(write_corpus_part, name), missing):
                tick(PART)
    pixels = [np.frombuffer(corpus_part_path(name, n).read_bytes(), np.uint8) for n in numbers]
    return np.concatenate(pixels).reshape(-1, SIDE, SIDE, 3)


def draw_or_read_corpus(name: str) -> Corpus:
    """The corpus `name` with its labels; parts that are missing are drawn first."""
    known = [entry for n in range(SIZES[name] // PART) for entry in styles_traits_and_seeds_of_part(name, n)]
    return Corpus(
        draw_or_read_corpus_pixels(name), [style.name for style, _, _ in known], [traits for _, traits, _ in known]
    )
