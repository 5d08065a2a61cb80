"""The README's picture, docs/demo.png: references, base, LoRA and what the gate refused, from the demo's own batch.

stylegate demo && python -m tests.bench.picture
"""

import tempfile
from pathlib import Path

from PIL import Image, ImageDraw

from eval.batch.place import batch_folder, read_plan
from stylegate import brandset, files, pictures
from stylegate.config import Config, GenerateConfig, PlanConfig
from tests.bench.style import draw

COLUMNS, CELL, GAP, HEAD = 7, 128, 8, 30


def main() -> None:
    config = Config(name="demo", brand="neon", traits="collectible", generate=GenerateConfig(), plan=PlanConfig())
    batch, _ = batch_folder(config)
    verdicts = {row["file"]: row for row in files.read_jsonl(batch / "verdicts.jsonl")}
    slots = [slot for slot in read_plan(batch) if verdicts[slot.file(0)]["verdict"] == "accept"][:COLUMNS]
    held_out = brandset.read(brandset.locate("neon")).splits["test"][:COLUMNS]
    refused = sorted(file for file, row in verdicts.items() if row["verdict"] != "accept")[:COLUMNS]
    with tempfile.TemporaryDirectory() as place:
        base = draw([s.prompt for s in slots], [s.attempt_seed(0) for s in slots], None, Path(place) / "base")
        neon = files.ROOT / "data" / "brands" / "neon"
        rows = [
            ("the brand's own pictures (held out: the gate's references)", [neon / item.file for item in held_out]),
            ("the base, asked for the same seven pictures as the next row", [path for _, path in base]),
            ("with the LoRA, after 300 steps: accepted", [batch / "images" / slot.file(0) for slot in slots]),
            ("refused, or left to a person", [batch / "images" / name for name in refused]),
        ]
        page = Image.new("RGB", (COLUMNS * (CELL + GAP) + GAP, len(rows) * (CELL + GAP + HEAD) + GAP), pictures.PAPER)
        pen = ImageDraw.Draw(page)
        for r, (title, paths) in enumerate(rows):
            top = r * (CELL + GAP + HEAD)
            pen.text((GAP, top + 9), title, fill=pictures.INK, font=pictures.font(15))
            for c, path in enumerate(paths):
                left = GAP + c * (CELL + GAP)
                image = Image.open(path).convert("RGB").resize((CELL, CELL), Image.Resampling.NEAREST)
                page.paste(image, (left, top + HEAD))
                if path.name in refused:
                    why = verdicts[path.name]["reasons"][0]["check"]
                    pen.text((left + 4, top + HEAD + CELL - 18), why, fill="#ffffff", font=pictures.font(12))
    files.write(files.ROOT / "docs" / "demo.png", pictures.png(page))
    print(files.ROOT / "docs" / "demo.png")


if __name__ == "__main__":
    main()
