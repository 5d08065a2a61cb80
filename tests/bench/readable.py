"""docs/readable.png: a brand whose style can be told from other hands, and one whose style cannot.

    python -m tests.bench.readable      about half a minute on two cores

The first brand is neon. The second is one shipped foreign set, split in two at random: one half is the brand, the other
half is given by foreign= as if another brand had drawn it. Each row shows pictures of the brand and, right of them, of
the foreign set that it is told from least surely, with what the gate measured (eval/scorers/brand.py).
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

SPLIT, OTHERS, SHOWN, SEED = "noto-v1", "the other half", 6, 0


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
) -> tuple[str, list[Image.Image]]:
    """Heading and pictures of one brand: SHOWN of its own, a gap, SHOWN of `others` or of the nearest foreign set."""
    stylegate(["gate", f"out={out}", *words])
    found = read_score_record(out).readability
    assert found is not None
    foreign = OTHERS if others else found.nearest
    told = found.separations[foreign]
    state = "can be read" if found.readable else "can NOT be read"
    title = f"{name}: {state}. Told from {foreign}: area {told.area:.2f}, at least {told.low:.2f}"
    shown = [*brand[:SHOWN], Image.new("RGB", (64, 64), sheets.PAPER)]
    return title, [*shown, *(others or foreign_pictures(found.nearest))[:SHOWN]]


def main() -> int:
    brand = files.ROOT / "data" / "brands" / "neon"
    own = [Image.open(path).convert("RGB") for path in sorted((brand / "test").glob("*.png"))]
    drawn = foreign_pictures(SPLIT)
    order = np.random.default_rng(SEED).permutation(len(drawn))
    half, rest = ([drawn[i] for i in part] for part in np.array_split(order, 2))
    with tempfile.TemporaryDirectory() as text:
        place = Path(text)
        here, there = written(place / "brand", half), written(place / "foreign" / OTHERS, rest)
        against = f"foreign={place / 'foreign'}"
        rows = [
            row_of("neon", own, None, place / "neon", f"images={brand / 'validation'}", f"references={brand / 'test'}"),
            row_of(f"half of {SPLIT}", half, rest, place / "half", f"images={there}", f"references={here}", against),
        ]
    page = sheets.contact_sheet(rows, 2 * SHOWN + 1)
    files.write_atomically(files.ROOT / "docs" / "readable.png", pictures.png_bytes(page.quantize(256).convert("P")))
    print("\n".join(title for title, _ in rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
