#!/bin/bash
# What one would guess: imagefolder, which the LoRA scripts of diffusers read with --train_data_dir, gives each picture of the
#   folder once, with its caption where it has one.
# What is true (datasets 5.2.0), each without a word:
#   - a picture without a row in metadata.jsonl is left out, where any metadata.jsonl is there;
#   - with folders acme/ and acme-test/ only the second is read: "test" between other letters makes a split, and what is in no split is left out;
#   - metadata.jsonl at the top, beside train/ and test/, is not read: no captions, but a column "label";
#   - with metadata.jsonl in a folder and in the one above it, a picture that both name comes twice, once with each caption.
#   And metadata of another split counts: split="train" is refused if test/metadata.jsonl has a key that train's lacks.
# Date: 2026-11-29. Source: this run.
# Why it matters: a LoRA is trained on fewer pictures, on one picture twice, or without captions, and nothing says so. Compare
#   the number of rows with the number of files.
# Exits with 1 if the behaviour has changed.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install -q datasets==5.2.0 pillow==12.3.0
cd "$place"
export HF_HOME="$place/hf" HF_HUB_OFFLINE=1 HF_DATASETS_DISABLE_PROGRESS_BARS=1
"$place/venv/bin/python" - <<'PYTHON'
import json
from pathlib import Path

import datasets
from PIL import Image


def read(name, pictures, metadata, **words):
    """The rows of each split, without the pictures; or the kind of error."""
    for path in pictures:
        (Path(name) / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(Path(name) / path)
    for path, rows in metadata.items():
        (Path(name) / path).write_text("".join(json.dumps(row) + "\n" for row in rows))
    try:
        read = datasets.load_dataset("imagefolder", data_dir=name, **words)
    except ValueError as error:
        found = str(error).partition(" have ")[2].partition(":")[0]
    else:
        found = {split: [{k: v for k, v in row.items() if k != "image"} for row in read[split]] for split in read}
    print(f"{name}: {len(pictures)} pictures, read {found}")
    return found


print("datasets", datasets.__version__)
row = lambda file, text, **more: {"file_name": file, "text": text, **more}
raise SystemExit(
    read("without_a_row", ["train/a.png", "train/b.png"], {"train/metadata.jsonl": [row("a.png", "a fox")]})
    != {"train": [{"text": "a fox"}]}
    or read("word_test", ["acme/a.png", "acme/b.png", "acme-test/c.png"], {}) != {"test": [{}]}
    or "text" in read(
        "at_the_top", ["train/a.png", "test/b.png"], {"metadata.jsonl": [row("train/a.png", "a fox"), row("test/b.png", "an owl")]}
    )["train"][0]
    or len(
        read(
            "named_twice",
            ["train/x/a.png", "train/b.png"],
            {"train/x/metadata.jsonl": [row("a.png", "inner")], "train/metadata.jsonl": [row("x/a.png", "outer"), row("b.png", "an owl")]},
        )["train"]
    )
    != 3
    or read(
        "other_split",
        ["train/a.png", "test/b.png"],
        {"train/metadata.jsonl": [row("a.png", "a fox")], "test/metadata.jsonl": [row("b.png", "an owl", species="owl")]},
        split="train",
    )
    != "different features"
)
PYTHON
