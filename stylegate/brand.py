"""Make a brand set from a folder of captioned pictures.

    stylegate brand name=acme images=DIR      data/brands/acme/, or out=

Captions are kohya's .txt beside each picture, a CSV, or metadata.jsonl. Pictures are copied as they are, under numbers,
and split by content: the same pictures give the same split, and near-duplicates stay together in train/.
"""

import csv
import io
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from stylegate import files, pictures
from stylegate.brandset import SPLITS, Brand, Findings, Seen, alike, look_at, refuse, rows_of
from stylegate.config import Config
from stylegate.errors import DataError

SHOWN = 96  # pictures of a split on the contact sheet
CELL = 256  # pixels a side at most, kept of each
MIN_PICTURES = 3  # one for each split
NOUNS = {"train": "learned from", "validation": "chooses", "test": "the gate's references"}


def make(config: Config) -> int:
    """Make a brand set from a folder of captioned pictures. Raises DataError listing every problem; writes whole."""
    if not config.name or not config.images:
        raise DataError("brand needs a name and a folder of pictures", next_step="stylegate brand name=acme images=DIR")
    source, target = Path(config.images).expanduser(), files.BRANDS[0] / config.name
    if config.out:
        target = Path(config.out).expanduser().resolve()
    if not source.is_dir():
        raise DataError(f"images={config.images} is not a folder", next_step="name the folder that holds the pictures.")
    shipped = files.ROOT / "data" / "brands" / config.name
    for existing in (target, *([] if config.out else [shipped])):  # two brands of one name could not be told apart
        if existing.exists():
            step = "choose another name, or remove it first."
            raise DataError(f"{files.shown(existing)} exists already", next_step=step)
    found = pictures.find(source)
    if not found:
        raise DataError(f"{source} holds no pictures", next_step=f"pictures end in {sorted(pictures.SUFFIXES)}.")

    findings = Findings()
    captions = captions_of(source, found, findings)
    brand = Brand(name=config.name, trigger=f"{config.name} style", source=source.resolve().name)
    inside = {}
    for path in found:
        name = path.relative_to(source).as_posix()
        if path.resolve().is_relative_to(source.resolve()):
            inside[name] = path
        else:
            findings.problems.append(f"{name}: a link that leads outside the folder; copy the picture instead")
    seen = look_at(inside, brand.background, findings)
    for name in inside:
        if name not in captions:
            findings.problems.append(f"{name}: no caption ({Path(name).stem}.txt beside it, a CSV or metadata.jsonl)")
        elif not captions[name][0].strip():
            findings.problems.append(f"{name}: its caption is empty")
    if len(found) < MIN_PICTURES:
        findings.problems.append(f"{len(found)} pictures; at least {MIN_PICTURES} (30 to 60 work well)")
    refuse(source, findings)

    splits = split(seen)
    near = sum(len(group) - 1 for group in alike(seen))

    def build(partial: Path) -> None:
        """Pictures get numbers for names: no name of a stranger's has to be safe, or to mean nothing to a loader."""
        numbers = {name: number for number, name in enumerate(sorted(seen))}
        for part, names in splits.items():
            rows = []
            for name in names:
                file = f"{numbers[name]:04d}{Path(name).suffix.lower()}"
                files.write(partial / part / file, inside[name].read_bytes())
                text, traits = captions[name]
                row = {"file_name": file, "text": text.strip(), "original": name}
                rows.append(row | ({"traits": traits} if traits else {}))
            files.write_jsonl(partial / part / "metadata.jsonl", rows)
        described = {f.name: getattr(brand, f.name) for f in fields(Brand)}
        files.write(partial / "brand.yaml", yaml.safe_dump(described, sort_keys=False, allow_unicode=True))
        shown = [
            (f"{part}: {heading(len(names))}, {NOUNS[part]}", [image_of(inside[name], brand) for name in names[:SHOWN]])
            for part, names in splits.items()
        ]
        files.write(partial / "contact-sheet.png", pictures.png(pictures.sheet(shown, columns=8)))

    with files.only_one(target):
        files.whole_folder(target, build)
    for remark in findings.all_remarks():
        print(f"note: {remark}")
    if near:
        print(f"note: {near} near-duplicates stay together in one split")
    if len(splits["test"]) < 8:
        print(f"note: {len(splits['test'])} pictures in test/; the gate judges style from 8 references up")
    print(f"note: trigger phrase, licence, background: edit {files.shown(target / 'brand.yaml')}")
    counts = ", ".join(f"{len(names)} {part}" for part, names in splits.items())
    print(f"brand set {config.name}: {counts}; look at {files.shown(target / 'contact-sheet.png')}")
    return 0


def image_of(path: Path, brand: Brand) -> Image.Image:
    """Small, for the contact sheet."""
    image = pictures.decode(path.read_bytes(), brand.background).image
    image.thumbnail((CELL, CELL))
    return image


def heading(count: int) -> str:
    return f"{count} pictures" + (f" (the first {SHOWN} are shown)" if count > SHOWN else "")


def captions_of(source: Path, found: list[Path], findings: Findings) -> dict[str, tuple[str, dict[str, str]]]:
    """Caption and traits by relative name: kohya's .txt beside the picture, any CSV, or metadata.jsonl."""
    captions: dict[str, tuple[str, dict[str, str]]] = {}
    for table in sorted(source.rglob("metadata.jsonl")) + sorted(source.rglob("*.csv")):
        where = table.relative_to(source).as_posix()
        for name, text, traits in table_rows(table, where, findings):
            path = table.parent / name
            try:
                inside, there = path.resolve().is_relative_to(source.resolve()), path.is_file()
            except (OSError, ValueError) as error:
                findings.problems.append(f"{where}: {name!r} cannot be a file ({error})")
                continue
            if not inside:
                findings.problems.append(f"{where}: {name} lies outside the folder")
            elif not there:
                findings.problems.append(f"{where}: there is no file {name}")
            else:
                captions[path.relative_to(source).as_posix()] = (text, traits)
    for path in found:
        beside = path.with_suffix(".txt")
        if beside.is_file():
            text = text_of(beside, beside.relative_to(source).as_posix(), findings)
            captions[path.relative_to(source).as_posix()] = (" ".join(text.split()), {})
    return captions


def text_of(path: Path, name: str, findings: Findings) -> str:
    """A text file, strictly UTF-8; what is not becomes a problem and reads as a placeholder."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        findings.problems.append(f"{name}: not UTF-8 text; save it as UTF-8")
        return "unreadable"


def table_rows(table: Path, where: str, findings: Findings) -> Iterable[tuple[str, str, dict[str, str]]]:
    """(file, caption, traits) of a CSV or JSON Lines table; the columns may be called as people call them."""
    raw: list[dict[str, Any]]
    if table.suffix == ".jsonl":
        raw = rows_of(table, findings.problems)
    else:
        try:
            raw = list(csv.DictReader(io.StringIO(text_of(table, where, findings), newline="")))
        except csv.Error as error:
            findings.problems.append(f"{where}: not a CSV table ({error})")
            return
    for row in raw:
        lower = {str(k).strip().lower(): v for k, v in row.items()}
        name = next((lower[k] for k in ("file_name", "file", "filename", "image", "path") if lower.get(k)), None)
        text = next((lower[k] for k in ("text", "caption", "prompt", "description") if k in lower), None)
        if name is None or text is None:
            findings.problems.append(f"{where}: needs columns file_name and text, has {', '.join(sorted(lower))}")
            return
        traits = lower.get("traits") if isinstance(lower.get("traits"), dict) else {}
        yield str(name), str(text or ""), {str(k): str(v) for k, v in (traits or {}).items()}


def split(seen: dict[str, Seen]) -> dict[str, list[str]]:
    """Names by split: a fifth to test (at least 8 where a third allows it), a tenth to validation, the rest to train.

    The order is by content, so the same pictures give the same split; near-duplicates go to train together.
    """
    together = {name for group in alike(seen) for name in group}
    free = sorted((n for n in seen if n not in together), key=lambda n: seen[n].content)
    total = len(seen)
    tests = min(max(8, total // 5), max(1, total // 3), max(1, len(free) - 1))
    checks = min(max(4, total // 10), max(1, total // 6), max(1, len(free) - tests))
    if len(free) < 2:
        raise DataError("nearly all pictures are near-duplicates of each other: there is nothing to hold out")
    parts = {"test": free[:tests], "validation": free[tests : tests + checks]}
    parts["train"] = free[tests + checks :] + sorted(together)
    if not parts["train"]:
        raise DataError("too few pictures to hold some out", next_step="give at least 3 that differ.")
    return {part: sorted(parts[part]) for part in SPLITS}
