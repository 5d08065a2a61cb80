"""docs/scores.png: for each score nine pictures of one lot, from low to high, so that a person sees what it means.

python -m tests.bench.strips [brand]      about two minutes on two cores
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from eval.scorers import SCORES
from stylegate import files, pictures, sheets
from stylegate.config import Config
from tests.bench.meaning import judged, planted

SHOWN, CELL, LABEL = 9, 96, 150  # pictures a strip; pixels


def strip(page: Image.Image, top: int, name: str, values: np.ndarray, images: list[Image.Image]) -> None:
    """One score: pictures at nine quantiles, the value below each."""
    draw, known = ImageDraw.Draw(page), np.flatnonzero(np.isfinite(values))
    draw.text((10, top + CELL // 2 - 8), name, fill=sheets.INK, font=sheets.font(15))
    order = known[np.argsort(values[known], kind="stable")]
    for place, number in enumerate(order[np.linspace(0, len(order) - 1, SHOWN).astype(int)]):
        left = LABEL + place * (CELL + 8)
        page.paste(images[number].resize((CELL, CELL), Image.Resampling.LANCZOS), (left, top))
        draw.text((left, top + CELL + 2), f"{values[number]:.3g}", fill=sheets.FAINT, font=sheets.font(12))


def main() -> int:
    brand = sys.argv[1] if sys.argv[1:] else "neon"
    good, bad = planted(brand)
    cases = good + [case for several in bad.values() for case in several]
    with tempfile.TemporaryDirectory() as place:
        _, rows = judged(cases, Config(brand=brand), Path(place))
    names = [name for name in SCORES if any(row.get(name) is not None for row in rows) and SCORES[name].graded]
    page = Image.new("RGB", (LABEL + SHOWN * (CELL + 8), len(names) * (CELL + 26) + 10), sheets.PAPER)
    for i, name in enumerate(names):
        values = np.array([np.nan if row[name] is None else row[name] for row in rows])
        strip(page, 10 + i * (CELL + 26), name, values, [image for _, image in cases])
    files.write_atomically(files.ROOT / "docs" / "scores.png", pictures.png_bytes(page.quantize(256).convert("P")))
    print("strips: docs/scores.png")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
