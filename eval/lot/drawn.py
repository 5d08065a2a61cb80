"""drawn.jsonl of a batch: the sha256 of every picture that `generate` drew, so that a retouched one is known as such.

A row is written before its picture is, so that no drawn picture lacks one. Drawn again after a kill it stands twice.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from eval.lot.batch import names_of_attempts_with_picture
from stylegate import files

DRAWN = "drawn.jsonl"


def start_drawn_digests_file(folder: Path, of_earlier_version: bool) -> None:
    """Make drawn.jsonl, or cut off its torn last line. One process does it, before any draws.

    The pictures that stand in a batch of an earlier version, which wrote no such file, are taken for drawn ones.
    """
    path = folder / DRAWN
    if path.exists():
        files.write_jsonl(path, files.read_jsonl(path, "file", "sha256"))
        return
    images = folder / "images"
    there = names_of_attempts_with_picture(images) if of_earlier_version else []
    files.write_jsonl(path, [{"file": name, "sha256": files.sha256_of_file(images / name)} for name in there])


def append_drawn_digests(folder: Path, pictures: Mapping[str, str]) -> None:
    """Append a row to drawn.jsonl for each picture: `pictures` has the sha256 by file name. Processes may do so at
    once.
    """
    rows = "".join(json.dumps({"file": name, "sha256": sha256}) + "\n" for name, sha256 in pictures.items())
    files.append_in_one_write(folder / DRAWN, rows)


def remove_drawn_digests(folder: Path, names: set[str]) -> None:
    """Remove the rows of these file names from drawn.jsonl, since their pictures are no longer in the batch."""
    rows = files.read_jsonl(folder / DRAWN, "file", "sha256")
    if rows:
        files.write_jsonl(folder / DRAWN, [row for row in rows if row["file"] not in names])


def read_drawn_digests(folder: Path) -> dict[str, set[str]] | None:
    """By the name of a picture's file the sha256 of all that was drawn under it; None if there is no drawn.jsonl, as in
    batches of older versions.
    """
    if not (folder / DRAWN).exists():
        return None
    found: dict[str, set[str]] = {}
    for row in files.read_jsonl(folder / DRAWN, "file", "sha256"):
        found.setdefault(row["file"], set()).add(row["sha256"])
    return found
