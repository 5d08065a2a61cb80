"""The README's picture, docs/demo.png: each demo brand, the base, the LoRA and what the gate refused.

    python -m tests.bench.gate && python -m tests.bench.picture

The batches are the ones that tests.bench.gate draws and judges; nothing is picked by eye: the first slots are shown.
"""

from pathlib import Path

from PIL import Image, ImageDraw

from stylegate import brandset, files, pictures, sheets
from tests.bench.gate import drawn
from tests.bench.style import draw
from train.miniature.styles import BRANDS

COLUMNS, CELL, GAP, HEAD, SIDE_GAP = 4, 96, 4, 26, 20
ROWS = [
    "the brand's own pictures, held out",
    "the base, asked for the pictures below",
    "with the LoRA: accepted",
    "with the LoRA: refused, or left to a person",
]


def cells(brand: str) -> list[list[tuple[Image.Image, str]]]:
    """Four rows of pictures, each with a word to write on it."""
    batch, slots = drawn(brand)
    verdicts = {row["file"]: row for row in files.read_jsonl(batch / "verdicts.jsonl")}
    images = batch / "images"

    def opened(path: Path) -> Image.Image:
        return Image.open(path).convert("RGB")

    accepted = [slot for slot in slots if verdicts[slot.picture_file_name(0)]["verdict"] == "accept"][:COLUMNS]
    refused = [
        slot.picture_file_name(0) for slot in slots if verdicts[slot.picture_file_name(0)]["verdict"] != "accept"
    ][:COLUMNS]
    folder = brandset.brand_folder(brand)
    own = [opened(folder / item.file) for item in brandset.read_brand_set(folder).splits["test"][:COLUMNS]]
    base = draw([slot.prompt for slot in accepted], [slot.seed_of_attempt(0) for slot in accepted], None)
    return [
        [(image, "") for image in own],
        [(image, "") for image in base],
        [(opened(images / slot.picture_file_name(0)), "") for slot in accepted],
        [(opened(images / name), verdicts[name]["reasons"][0]["check"]) for name in refused],
    ]


def main() -> None:
    block = COLUMNS * (CELL + GAP)
    width = len(BRANDS) * (block + SIDE_GAP) - GAP + SIDE_GAP
    page = Image.new("RGB", (width, HEAD + len(ROWS) * (CELL + GAP + HEAD)), sheets.PAPER)
    pen = ImageDraw.Draw(page)
    for b, brand in enumerate(BRANDS):
        left = SIDE_GAP + b * (block + SIDE_GAP)
        pen.text((left, 6), brand, fill=sheets.INK, font=sheets.font(16))
        for r, row in enumerate(cells(brand)):
            top = HEAD + r * (CELL + GAP + HEAD)
            if b == 0:
                pen.text((left, top + 5), ROWS[r], fill=sheets.INK, font=sheets.font(13))
            for c, (image, word) in enumerate(row):
                x, y = left + c * (CELL + GAP), top + HEAD
                page.paste(image.resize((CELL, CELL), Image.Resampling.LANCZOS), (x, y))
                if word:
                    pen.rectangle((x, y + CELL - 16, x + CELL - 1, y + CELL - 1), fill="#000000")
                    pen.text((x + 4, y + CELL - 15), word, fill="#ffffff", font=sheets.font(11))
    files.write_atomically(files.ROOT / "docs" / "demo.png", pictures.png_bytes(page))
    print(files.ROOT / "docs" / "demo.png")


if __name__ == "__main__":
    main()
