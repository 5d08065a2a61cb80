#!/bin/bash
# What one would guess: load_dataset("imagefolder").to_parquet(file) writes the pictures into the file. push_to_hub writes Parquet with the
#   pictures in it, save_to_disk and download_and_prepare(file_format="parquet") keep them too, and each of the three says so.
# What is true (datasets 5.2.0), without a word: to_parquet writes {"bytes": None, "path": "/absolute/path/of/the/picture.png"}; so do the
#   same method of a streamed set and to_json. The documentation of to_parquet says nothing of pictures.
#   - Once the folder has moved, the file is loaded with the right number of rows and type; only the reading of a row fails.
#   - If another picture now has the same name, that one comes, without an error. The file follows the folder.
#   - After a map that makes some pictures anew (those that are too large) and returns the others as they are, the new ones are in the
#     file and the others are paths, so a look at the wrong row shows that all is well.
# Date: 2026-11-30. Source: this run; datasets/io/parquet.py (ParquetDatasetWriter), datasets/table.py (embed_table_storage). What
#   push_to_hub does is from its documentation. The same of save_to_disk was reported and mended (huggingface/datasets #4196).
# Why it matters: the Parquet file that is archived beside a LoRA as the set it was trained on, or is sent to a machine with a card, holds
#   no picture, and as long as the folder is there every test of it passes. Look at the size of the file, read it with pyarrow, or
#   write it from load_from_disk after save_to_disk, or with download_and_prepare(file_format="parquet").
# Exits with 1 if the behaviour has changed.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install -q datasets==5.2.0 pillow==13.0.0 numpy==2.4.6 pyarrow==26.0.1
cd "$place"
export HF_HOME="$place/cache" HF_HUB_OFFLINE=1
venv/bin/python - 2> log <<'PYTHON' || { tail -5 log; exit 1; }
import json
import warnings
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
from PIL import Image

print("datasets", datasets.__version__, "pyarrow", pyarrow.__version__)
datasets.disable_progress_bars()
recorded = warnings.catch_warnings(record=True)
said = recorded.__enter__()
warnings.simplefilter("always")
Path("pictures").mkdir()
Image.effect_noise((64, 64), 50).convert("RGB").save("pictures/large.png")
Image.new("RGB", (16, 16), "red").save("pictures/small.png")
folder = datasets.load_dataset("imagefolder", data_dir="pictures", split="train")
streamed = datasets.load_dataset("imagefolder", data_dir="pictures", split="train", streaming=True)


def at_most_32_wide(row):
    return {"image": row["image"].resize((32, 32)) if row["image"].width > 32 else row["image"]}


folder.to_parquet("written.parquet")
streamed.to_parquet("streamed.parquet")
folder.map(at_most_32_wide).to_parquet("mapped.parquet")
folder.to_json("written.jsonl")
folder.save_to_disk("saved")
datasets.load_from_disk("saved").to_parquet("saved.parquet")
builder = datasets.load_dataset_builder("imagefolder", data_dir="pictures")
builder.download_and_prepare("prepared", file_format="parquet")
Path("prepared/imagefolder-train.parquet").rename("prepared.parquet")
recorded.__exit__(None, None, None)
assert not said, [str(one.message) for one in said]
print("warnings: none")


def contents(rows):
    """Of each row, whether the picture is in it or its absolute path alone."""
    for row in rows:
        assert row["image"]["bytes"] or Path(row["image"]["path"]).is_relative_to(Path.cwd() / "pictures")
    return ["path" if row["image"]["bytes"] is None else "picture" for row in rows]


names = {
    "to_parquet": "written",
    "to_parquet of a streamed set": "streamed",
    "to_parquet after map": "mapped",
    "save_to_disk, load_from_disk, to_parquet": "saved",
    "download_and_prepare(file_format='parquet')": "prepared",
}
seen = {name: contents(pyarrow.parquet.read_table(f"{file}.parquet").to_pylist()) for name, file in names.items()}
seen["to_json"] = contents([json.loads(line) for line in Path("written.jsonl").read_text().splitlines()])
for name, found in seen.items():
    print(f"{name}: {', '.join(found)}")
size, pictures = Path("written.parquet").stat().st_size, sum(file.stat().st_size for file in Path("pictures").iterdir())
print(f"the pictures have {pictures} bytes, the file of to_parquet has {size}")
says = {method.__name__: "bytes of your images" in method.__doc__ for method in (datasets.Dataset.push_to_hub, datasets.Dataset.to_parquet)}
mentions = any(word in datasets.Dataset.to_parquet.__doc__.lower() for word in ("image", "embed", "picture"))
print(f"push_to_hub documents that the pictures are in the file: {says['push_to_hub']}; to_parquet mentions pictures: {mentions}")


def read(file):
    rows = datasets.load_dataset("parquet", data_files=f"{file}.parquet", split="train")
    assert len(rows) == 2
    assert isinstance(rows.features["image"], datasets.Image)
    answers = []
    for number in range(2):
        try:
            picture = rows[number]["image"]
        except FileNotFoundError:
            answers.append("FileNotFoundError")
        else:
            answers.append("green" if picture.convert("RGB").getpixel((0, 0)) == (0, 128, 0) else f"{picture.width} wide")
    return answers


after = {"there": read("written")}
Path("pictures").rename("elsewhere")
after |= {file: read(file) for file in ("written", "mapped", "saved", "prepared")}
Path("pictures").mkdir()
Image.new("RGB", (64, 64), "green").save("pictures/large.png")
Image.new("RGB", (64, 64), "green").save("pictures/small.png")
after["other"] = read("written")
print(f"the file of to_parquet is read, with the folder there: {', '.join(after['there'])}")
print(f"with the folder moved: 2 rows, type Image, and then {', '.join(after['written'])}; after map: {', '.join(after['mapped'])}")
print(f"with the folder moved, from save_to_disk: {', '.join(after['saved'])}; from download_and_prepare: {', '.join(after['prepared'])}")
print(f"with green pictures under the same names: {', '.join(after['other'])}")
assert seen == {
    "to_parquet": ["path", "path"],
    "to_parquet of a streamed set": ["path", "path"],
    "to_parquet after map": ["picture", "path"],
    "save_to_disk, load_from_disk, to_parquet": ["picture", "picture"],
    "download_and_prepare(file_format='parquet')": ["picture", "picture"],
    "to_json": ["path", "path"],
}, "the behaviour has changed"
assert size < pictures, "the behaviour has changed"
assert says == {"push_to_hub": True, "to_parquet": False} and not mentions, "the documentation has changed"
lost, kept = "FileNotFoundError", ["64 wide", "16 wide"]
wanted = {"there": kept, "written": [lost, lost], "mapped": ["32 wide", lost], "saved": kept, "prepared": kept, "other": ["green", "green"]}
assert after == wanted, "the behaviour has changed"
PYTHON
