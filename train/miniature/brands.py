"""The demo brands: 32 pictures to learn from, 32 to choose by, 64 to measure with; each value of a trait as often as
the others in each split.
"""

import shutil
from pathlib import Path

import numpy as np
import yaml

from eval.planning.traits import TraitsFile
from eval.planning.traitsfile import read_traits_file
from stylegate import files, pictures
from train.miniature.drawing import render_collectible
from train.miniature.styles import BRANDS, Style
from train.miniature.world import TRAITS

SPLITS = {"train": 32, "validation": 32, "test": 64}
WORDS = {
    "neon": "tubes of light on near-black, a ring in the colour of the background",
    "pixel": "a grid of 16 x 16 and a palette of 16 colours, a dark edge around the figure",
    "riso": "two inks on cream paper, tones as dots, the second plate a little off",
}


def balanced_trait_combinations(count: int, random: np.random.Generator) -> list[dict[str, str]]:
    """`count` combinations of traits in which the values of a trait occur equally often, up to one."""
    columns = {}
    for trait, values in TRAITS.items():
        rounds = [random.permutation(np.array(values)) for _ in range(-(-count // len(values)))]
        columns[trait] = random.permutation(np.concatenate(rounds)[:count]).tolist()
    return [{trait: column[i] for trait, column in columns.items()} for i in range(count)]


def write_brand(folder: Path, style: Style, traits: TraitsFile) -> None:
    """Draw the pictures of one demo brand and write its brand set into `folder`."""
    number = list(BRANDS).index(style.name)
    trigger, drawn = f"{style.name} style", 0
    seen: set[str] = set()
    for split, count in SPLITS.items():
        random, rows = np.random.default_rng([41, number, drawn]), []
        while len(rows) < count:
            for row in balanced_trait_combinations(count, random):
                if str(row) in seen or len(rows) == count:
                    continue
                seen.add(str(row))
                phrases = {trait: traits.traits[trait][value].phrase for trait, value in row.items()}
                file = f"{drawn:04d}.png"
                files.write_atomically(
                    folder / split / file,
                    pictures.png_bytes(render_collectible(row, style, 9_000_000 + 1000 * number + drawn)),
                )
                text = traits.prompt.format(trigger=trigger, **phrases)
                rows.append({"file_name": file, "text": text, "traits": row})
                drawn += 1
        files.write_jsonl(folder / split / "metadata.jsonl", rows)
    described = {
        "name": style.name,
        "trigger": trigger,
        "style": WORDS[style.name],
        "licence": "Apache-2.0",
        "source": "drawn by the stylegate project (train/miniature); the shipped base and encoder never saw it",
        "background": "#ffffff",
    }
    files.write_atomically(folder / "brand.yaml", yaml.safe_dump(described, sort_keys=False))


def write_all_brands(place: Path) -> None:
    """Write the brand set of each demo brand into a folder of its name in `place`, in place of an older one."""
    traits = read_traits_file(files.ROOT / "data" / "traits" / "collectible.yaml")
    for name, style in BRANDS.items():
        shutil.rmtree(place / name, ignore_errors=True)
        files.write_folder_atomically(place / name, lambda folder, style=style: write_brand(folder, style, traits))
