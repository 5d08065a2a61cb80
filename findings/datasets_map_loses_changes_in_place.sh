#!/bin/bash
# What one would guess: Dataset.map keeps the picture that the function returns, whether the function has changed it in place
#   (thumbnail, paste, ImageDraw) or made a new one (resize).
# What is true (datasets 5.2.0, Pillow 13.0.0), without a word: where pictures come from a folder, changes in place are lost. A picture that
#   was opened from a path remembers it as `filename`, and datasets writes that path, not the pixels, into the new rows. So the
#   original comes back. Of the same pictures packed in Parquet, which are opened from bytes, the changes are kept.
# Date: 2026-11-30. Source: this run; datasets/features/image.py (encode_pil_image).
# Why it matters: signatures that were painted over, borders that were cut and pictures that were made small (the methods that
#   Pillow's tutorial shows) are all back in the set that a LoRA is trained on, and a test with packed pictures does not show it.
#   Return picture.copy(), or look at a row of the result.
# Exits with 1 if the behaviour has changed.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install -q datasets==5.2.0 pillow==13.0.0 numpy==2.4.6 pyarrow==26.0.1
cd "$place"
export HF_HOME="$place/cache" HF_HUB_OFFLINE=1
venv/bin/python -W ignore - <<'PYTHON'
from pathlib import Path

import datasets
import PIL
from PIL import Image, ImageDraw

print("datasets", datasets.__version__, "Pillow", PIL.__version__)
datasets.disable_progress_bars()
Path("pictures").mkdir()
Image.new("RGB", (64, 64), "red").save("pictures/one.png")
folder = datasets.load_dataset("imagefolder", data_dir="pictures", split="train")
data = datasets.Features({"image": datasets.Image()})
packed = datasets.Dataset.from_list([{"image": {"bytes": Path("pictures/one.png").read_bytes(), "path": None}}], features=data)
packed.to_parquet("packed.parquet")
packed = datasets.load_dataset("parquet", data_files="packed.parquet", split="train")


def thumbnail(row):
    row["image"].thumbnail((16, 16))
    return row


def paste(row):
    row["image"].paste("blue", (0, 0, 64, 64))
    return row


def draw(row):
    ImageDraw.Draw(row["image"]).rectangle((0, 0, 64, 64), fill="blue")
    return row


def paste_and_copy(row):
    row["image"].paste("blue", (0, 0, 64, 64))
    return {"image": row["image"].copy()}


def resize(row):
    return {"image": row["image"].resize((16, 16))}


seen = {}
for function in (thumbnail, paste, draw, paste_and_copy, resize):
    results = [rows.map(function)[0]["image"].convert("RGB") for rows in (folder, packed)]
    kept = [result.size == (16, 16) or result.getpixel((9, 9)) == (0, 0, 255) for result in results]
    words = ["the change is kept" if one else "the original picture" for one in kept]
    seen[function.__name__] = kept
    print(f"{function.__name__}: from a folder: {words[0]}; from Parquet: {words[1]}")
wanted = {"thumbnail": [False, True], "paste": [False, True], "draw": [False, True], "paste_and_copy": [True, True], "resize": [True, True]}
assert seen == wanted, "the behaviour has changed"
PYTHON
