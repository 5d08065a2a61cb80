"""Random changes to a package, each with a way back."""

import json
import random
from collections.abc import Callable
from pathlib import Path

Undo = Callable[[], object]


def flip(package: Path, draw: random.Random) -> tuple[str, Undo]:
    """One bit of one file."""
    path = any_file(package, draw)
    before = path.read_bytes()
    changed = bytearray(before)
    changed[draw.randrange(len(before))] ^= 1 << draw.randrange(8)
    path.write_bytes(changed)
    return path.name, lambda: path.write_bytes(before)


def add(package: Path, draw: random.Random) -> tuple[str, Undo]:
    """A file more, beside another one."""
    path = any_file(package, draw).parent / f"more-{draw.randrange(10**6)}"
    path.write_bytes(draw.randbytes(draw.randrange(9)))
    return path.name, path.unlink


def remove(package: Path, draw: random.Random) -> tuple[str, Undo]:
    path = any_file(package, draw)
    before = path.read_bytes()
    path.unlink()
    return path.name, lambda: path.write_bytes(before)


def rename(package: Path, draw: random.Random) -> tuple[str, Undo]:
    path = any_file(package, draw)
    moved = path.rename(path.with_name(f"x{path.name}"))
    return path.name, lambda: moved.rename(path)


def swap(package: Path, draw: random.Random) -> tuple[str, Undo]:
    """The contents of two files of one folder."""
    one = any_file(package, draw)
    others = [p for p in one.parent.iterdir() if p.is_file() and p.read_bytes() != one.read_bytes()]
    if not others:
        return swap(package, draw)
    other = draw.choice(sorted(others))
    contents = one.read_bytes(), other.read_bytes()
    one.write_bytes(contents[1])
    other.write_bytes(contents[0])
    return one.name, lambda: (one.write_bytes(contents[0]), other.write_bytes(contents[1]))


def edit_trait(package: Path, draw: random.Random) -> tuple[str, Undo]:
    """What the metadata of one item says."""
    path = draw.choice(sorted((package / "data" / "metadata").rglob("*.json")))
    return edited(path, lambda token: token["attributes"].append({"trait_type": "hat", "value": "crown"}))


def lower_threshold(package: Path, draw: random.Random) -> tuple[str, Undo]:
    def lower(record: dict) -> None:
        lines = draw.choice(sorted(record["judged_by"]["thresholds"].items()))[1]
        lines["reject_below"] = (lines["reject_below"] or 0) - 1

    return edited(package / "data" / "provenance.json", lower)


def edited(path: Path, change: Callable[[dict], object]) -> tuple[str, Undo]:
    """The JSON of a file after `change`."""
    before = path.read_bytes()
    content = json.loads(before)
    change(content)
    path.write_text(json.dumps(content))
    return path.name, lambda: path.write_bytes(before)


def any_file(package: Path, draw: random.Random) -> Path:
    """A file: any folder as likely as any other, so that the few files beside data/ come often enough."""
    folders: dict[Path, list[Path]] = {}
    for path in sorted(package.rglob("*")):
        if path.is_file():
            folders.setdefault(path.parent, []).append(path)
    return draw.choice(folders[draw.choice(sorted(folders))])


KINDS = (flip, add, remove, rename, swap, edit_trait, lower_threshold)
