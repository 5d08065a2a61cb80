"""docs/readable.png: a brand whose style can be told from other hands, and one whose style cannot.

    python -m tests.bench.readable      about a minute on two cores

The first brand is neon; right of its pictures are those of the foreign set that it is told from least surely. The
second is one shipped foreign set, split in two at random: one half is the brand, the other half, right of it, is given
by foreign= as if another brand had drawn it. Of SPLITS splits the one of the median area is shown. The headings say
what the gate measured (eval/scorers/brand.py), in the words of its console.
"""

import io
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from eval.measuring.scores import read_score_record
from stylegate import files, pictures, sheets
from stylegate.cli import main as stylegate

SPLIT, KIND, OTHERS, SHOWN, SPLITS = "noto-v1", "emoji", "the other half", 6, 11


def foreign_pictures(name: str) -> list[Image.Image]:
    """The pictures of one shipped set, on white."""
    rows = [row for row in pq.read_table(files.FOREIGN).to_pylist() if row["set"] == name]
    drawn = [Image.open(io.BytesIO(row["png"])).convert("RGBA") for row in rows]
    return [Image.alpha_composite(Image.new("RGBA", one.size, "white"), one).convert("RGB") for one in drawn]


def written(folder: Path, images: list[Image.Image]) -> Path:
    folder.mkdir(parents=True)
    for i, image in enumerate(images):
        image.save(folder / f"{i:03d}.png")
    return folder


def row_of(
    name: str, brand: list[Image.Image], others: list[Image.Image] | None, out: Path, *words: str
) -> tuple[float, str, list[Image.Image]]:
    """Area, heading and pictures of one brand: SHOWN of its own, a gap, SHOWN of `others` or of the nearest set."""
    stylegate(["gate", f"out={out}", *words])
    found = read_score_record(out).readability
    assert found is not None
    foreign = OTHERS if others else found.nearest
    told = found.separations[foreign]
    state = "can be read" if found.readable else "can NOT be read"
    title = f"{name}: the style {state}. Compared with {foreign} (after the gap): {told.separation_in_words()}"
    shown = [*brand[:SHOWN], Image.new("RGB", (64, 64), sheets.PAPER)]
    return told.area, title, [*shown, *(others or foreign_pictures(found.nearest))[:SHOWN]]


def row_of_a_split(seed: int, place: Path) -> tuple[float, str, list[Image.Image]]:
    """The row of one half of the set SPLIT, which is told from the other half."""
    drawn = foreign_pictures(SPLIT)
    order = np.random.default_rng(seed).permutation(len(drawn))
    half, rest = ([drawn[i] for i in part] for part in np.array_split(order, 2))
    here, there = written(place / "brand", half), written(place / "foreign" / OTHERS, rest)
    words = [f"images={there}", f"references={here}", f"foreign={place / 'foreign'}"]
    return row_of(f"half of the {KIND} {SPLIT}", half, rest, place / "out", *words)


def main() -> int:
    brand = files.ROOT / "data" / "brands" / "neon"
    own = [Image.open(path).convert("RGB") for path in sorted((brand / "test").glob("*.png"))]
    with tempfile.TemporaryDirectory() as text:
        place = Path(text)
        words = [f"images={brand / 'validation'}", f"references={brand / 'test'}"]
        neon = row_of("neon", own, None, place / "neon", *words)
        splits = sorted((row_of_a_split(seed, place / f"{seed}") for seed in range(SPLITS)), key=lambda row: row[0])
    rows = [row[1:] for row in (neon, splits[SPLITS // 2])]
    page = sheets.contact_sheet(rows, 2 * SHOWN + 1)
    files.write_atomically(files.ROOT / "docs" / "readable.png", pictures.png_bytes(page.quantize(256).convert("P")))
    print("\n".join(title for title, _ in rows))
    print("areas of all splits:", *(f"{area:.2f}" for area, *_ in splits))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
