"""How much planted text is found near the edges of pictures, and how often text is seen where none was planted?

    python -m tests.bench.textmarks FOLDER [fonts=DIR] [side=256] [skip=24]      about a minute of one core

FOLDER has a folder of PNG pictures for each style, at any depth, such as real icons and avatars; of each EACH are
taken after the first `skip`, scaled to `side`. Drawn pictures of the demo brands come with them. Words are written over
each picture near its upper or lower edge, in 3.5 to 7 % of its height, light or dark as the ground asks for. `fonts` is
a folder of TrueType files; without one Pillow's own font is used. A style's own letters (icons of programs) count as
false alarms. Exit 1 if less than WANTED is found, or more than FALSE_ALARMS is called text.
"""

import sys
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from stylegate.textmarks import has_text_near_edge
from train.miniature.drawing import collectible_as_svg, rasterise, render_collectible
from train.miniature.styles import BRANDS
from train.miniature.svg import SIDE
from train.miniature.world import random_traits

EACH, WANTED, FALSE_ALARMS = 16, 0.75, 0.02
WORDS = ("shutterstock", "(c) 2024 Anna Meyer", "www.artshop.com", "Drawn by Kim", "PREVIEW ONLY", "A. Lindqvist '23")


def drawn(brand: str, side: int) -> list[Image.Image]:
    """Pictures of a demo brand: as large as `side`, of pixel art enlarged by whole blocks to nearly that."""
    traits, style, found = np.random.default_rng(11), BRANDS[brand], []
    for number in range(EACH):
        row = random_traits(traits)
        if style.block > 1:
            small = render_collectible(row, style, number)
            times = side // small.width
            found.append(small.resize((times * small.width, times * small.height), Image.Resampling.NEAREST))
        else:
            found.append(rasterise(collectible_as_svg(row, style, np.random.default_rng([number, 5]), SIDE), side))
    return found


def with_words(image: Image.Image, fonts: list[Path], draw: Random) -> Image.Image:
    """The picture with words near its upper or lower edge."""
    image, words = image.convert("RGB"), draw.choice(WORDS)
    size = max(6, round(1.3 * draw.uniform(0.035, 0.07) * image.height))
    font = ImageFont.truetype(draw.choice(fonts), size) if fonts else ImageFont.load_default(size)
    left, top, right, bottom = font.getbbox(words)
    free = image.width - (right - left)
    x = max(1.0, draw.choice([0.03 * image.width, free - 0.03 * image.width, free / 2]))
    y = draw.choice([0.02 * image.height, 0.97 * image.height - (bottom - top)])
    ground = image.crop((int(x), int(y), min(image.width, int(x + right - left)), int(y + bottom - top)))
    light = np.asarray(ground.convert("L")).mean() < 110
    ImageDraw.Draw(image).text((x - left, y - top), words, font=font, fill=(235, 235, 225) if light else (20, 20, 30))
    return image


def main(folder: Path, fonts: list[Path], side: int, skip: int) -> int:
    """Print both shares of each style, and of all pictures; 1 if a line is missed."""
    styles = {brand: drawn(brand, side) for brand in BRANDS}
    for place in sorted({path.parent for path in folder.rglob("*.png")}):
        chosen = sorted(place.glob("*.png"))[skip : skip + EACH]
        styles[place.name] = [Image.open(path).convert("RGB").resize((side, side)) for path in chosen]
    draw, found, false, count = Random(7), 0, 0, 0
    for name, images in styles.items():
        hits = sum(has_text_near_edge(with_words(image, fonts, draw)) for image in images)
        alarms = sum(map(has_text_near_edge, images))
        print(f"  {name:26} found {hits} of {len(images)}, false alarms {alarms}", flush=True)
        found, false, count = found + hits, false + alarms, count + len(images)
    print(f"{len(styles)} styles, {count} pictures: found {found / count:.1%}, false alarms {false / count:.1%}")
    return int(found < WANTED * count or false > FALSE_ALARMS * count)


if __name__ == "__main__":
    given = dict(word.split("=", 1) for word in sys.argv[2:])
    fonts = sorted(Path(given["fonts"]).rglob("*.ttf")) if "fonts" in given else []
    raise SystemExit(main(Path(sys.argv[1]), fonts, int(given.get("side", 256)), int(given.get("skip", 24))))
