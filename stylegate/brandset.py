"""Brand sets: make one from a folder of pictures, check it whole, read it for training and judging.

    stylegate brand name=acme images=DIR      a folder of pictures with captions becomes data/brands/acme/
    stylegate check brand=acme                everything wrong with it, at once

A brand set is a Hugging Face imagefolder with the splits train/ (learned from), validation/ (chooses) and test/ (the
gate's references), each with metadata.jsonl (file_name, text, optional traits), and brand.yaml.
"""

import csv
import hashlib
import io
import json
import shutil
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image, ImageColor

from stylegate import files, pictures
from stylegate.config import Config
from stylegate.errors import DataError

SPLITS = ("train", "validation", "test")
NOUNS = {"train": "learned from", "validation": "chooses", "test": "the gate's references"}


@dataclass(kw_only=True, slots=True)
class Brand:
    """brand.yaml."""

    name: str
    trigger: str  # the phrase that calls the style; put before captions that lack it
    style: str = ""  # words for the style, for people
    licence: str = "unknown"
    source: str = "unknown"
    background: str = "#ffffff"  # what alpha is laid on

    def prompt(self, text: str) -> str:
        """A caption as the model is shown it."""
        return text if self.trigger.lower() in text.lower() else f"{self.trigger}, {text}"


@dataclass(kw_only=True, slots=True)
class Item:
    """One picture of a brand set."""

    file: str  # relative to the brand set, such as "train/0000.png"
    text: str
    traits: dict[str, str]
    content: bytes
    sha256: str


@dataclass(kw_only=True, slots=True)
class BrandSet:
    folder: Path
    brand: Brand
    splits: dict[str, list[Item]]

    def digest(self) -> str:
        """sha256 over brand.yaml's meaning and every picture and caption."""
        items = [[i.file, i.sha256, i.text, i.traits] for split in SPLITS for i in self.splits[split]]
        return files.digest([self.brand.trigger, self.brand.background, items])


@dataclass(slots=True)
class Findings:
    """What a check found: problems refuse the set, remarks are said."""

    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    converted: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def all_remarks(self) -> list[str]:
        return self.remarks + [f"{kind}: {several(names)}, handled" for kind, names in sorted(self.converted.items())]


def several(names: list[str]) -> str:
    """'3 pictures (a.png, b.png, ...)'."""
    listed = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    return f"{len(names)} picture{'s' if len(names) != 1 else ''} ({listed})"


# The verbs.


def check(config: Config) -> int:
    """Say everything that is wrong with a brand set. Raises DataError listing it; returns 0 if there is nothing."""
    folder = locate(config.brand)
    findings = examine(folder)
    if not findings.problems:
        findings.remarks += cut_captions(read(folder), config)
    for remark in findings.all_remarks():
        print(f"note: {remark}")
    refuse(folder, findings)
    counts = ", ".join(f"{len(rows_of(folder / split))} {split}" for split in SPLITS)
    print(f"{files.shown(folder)}: {counts}; no problems")
    return 0


def make(config: Config) -> int:
    """Make a brand set from a folder of captioned pictures. Raises DataError listing every problem; writes whole."""
    if not config.name or not config.images:
        raise DataError("brand needs a name and a folder of pictures", next_step="stylegate brand name=acme images=DIR")
    source, target = Path(config.images).expanduser(), files.BRANDS[0] / config.name
    if config.out:
        target = Path(config.out).expanduser().resolve()
    if not source.is_dir():
        raise DataError(f"images={config.images} is not a folder", next_step="name the folder that holds the pictures.")
    if target.exists():
        raise DataError(f"{files.shown(target)} exists already", next_step="choose another name, or remove it first.")
    found = pictures.find(source)
    if not found:
        raise DataError(f"{source} holds no pictures", next_step=f"pictures end in {sorted(pictures.SUFFIXES)}.")

    findings = Findings()
    captions = captions_of(source, found, findings)
    brand = Brand(name=config.name, trigger=f"{config.name} style", source=source.resolve().name)
    decoded = look_at({p.relative_to(source).as_posix(): p for p in found}, brand.background, findings)
    for name in decoded:
        if name not in captions:
            findings.problems.append(f"{name}: no caption ({Path(name).stem}.txt beside it, a CSV or metadata.jsonl)")
        elif not captions[name][0].strip():
            findings.problems.append(f"{name}: its caption is empty")
    if len(found) < 3:
        findings.problems.append(f"{len(found)} pictures; at least 3, one for each split (30 to 60 work well)")
    refuse(source, findings)

    splits = split(decoded)
    near = sum(len(group) - 1 for group in alike(decoded))

    def build(partial: Path) -> None:
        for part, names in splits.items():
            (partial / part).mkdir()
            rows = []
            for name in names:
                flat = name.replace("/", "-")
                shutil.copyfile(source / name, partial / part / flat)
                text, traits = captions[name]
                rows.append({"file_name": flat, "text": text.strip()} | ({"traits": traits} if traits else {}))
            files.write_jsonl(partial / part / "metadata.jsonl", rows)
        described = {f.name: getattr(brand, f.name) for f in fields(Brand)}
        files.write(partial / "brand.yaml", yaml.safe_dump(described, sort_keys=False, allow_unicode=True))
        shown = [(f"{p}: {len(n)} pictures, {NOUNS[p]}", [decoded[x].image for x in n[:48]]) for p, n in splits.items()]
        files.write(partial / "contact-sheet.png", pictures.png(pictures.sheet(shown, columns=8)))

    files.whole_folder(target, build)
    for remark in findings.all_remarks():
        print(f"note: {remark}")
    if near:
        print(f"note: {near} near-duplicates stay together in one split")
    print(
        f"note: trigger phrase, licence and background stand in {files.shown(target / 'brand.yaml')}; edit them there"
    )
    counts = ", ".join(f"{len(names)} {part}" for part, names in splits.items())
    print(f"brand set {config.name}: {counts}; look at {files.shown(target / 'contact-sheet.png')}")
    return 0


# Reading.


def locate(name: str | None) -> Path:
    """The folder of a brand: shipped name, path, or hub:owner/name (copied into the cache once, through `datasets`)."""
    if not name:
        raise DataError("no brand given", next_step="brand=neon, or stylegate brand name=acme images=DIR to make one.")
    if name.startswith("hub:"):
        return from_hub(name.removeprefix("hub:"))
    folder = files.named(name, files.BRANDS, "brand")
    if not folder.is_dir():
        raise DataError(f"brand={name} is a file", next_step="name the folder of a brand set.")
    return folder


def from_hub(name: str) -> Path:
    """Materialise a hub data set as a brand set in the cache; a second call finds it there."""
    import datasets

    target = files.CACHE / "brands" / name.replace("/", "--")
    if target.exists():
        return target
    try:
        loaded: Any = datasets.load_dataset(name)
    except Exception as error:  # network, name, format: whatever the hub client raises
        raise DataError(f"brand=hub:{name} cannot be loaded: {error}", next_step="check name and network.") from None

    def build(partial: Path) -> None:
        for part in SPLITS:
            rows = []
            (partial / part).mkdir()
            for i, row in enumerate(loaded[part].cast_column("image", datasets.Image(decode=False))):
                image = row["image"]
                file = f"{i:05d}{Path(image['path'] or 'x.png').suffix}"
                files.write(partial / part / file, image["bytes"] or Path(image["path"]).read_bytes())
                rows.append({"file_name": file, "text": row["text"], "traits": row.get("traits") or {}})
            files.write_jsonl(partial / part / "metadata.jsonl", rows)
        word = name.rsplit("/", 1)[-1]
        files.write(partial / "brand.yaml", yaml.safe_dump({"name": word, "trigger": f"{word} style", "source": name}))

    missing = [part for part in SPLITS if part not in loaded]
    if missing:
        raise DataError(f"brand=hub:{name} has no split {', '.join(missing)}")
    files.whole_folder(target, build)
    return target


def read(folder: Path) -> BrandSet:
    """Read a brand set that `examine` found sound, through `datasets`' imagefolder (streamed: nothing stale)."""
    import datasets

    datasets.disable_progress_bars()
    splits: dict[str, list[Item]] = {}
    for part in SPLITS:
        rows = datasets.load_dataset("imagefolder", data_dir=str(folder / part), split="train", streaming=True)
        rows = rows.cast_column("image", datasets.Image(decode=False))
        splits[part] = sorted((item_of(folder, part, row) for row in rows), key=lambda item: item.file)
    return BrandSet(folder=folder, brand=brand_of(folder), splits=splits)


def item_of(folder: Path, part: str, row: dict) -> Item:
    path = Path(row["image"]["path"])
    content = row["image"]["bytes"] or path.read_bytes()
    file = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else f"{part}/{path.name}"
    traits = {k: v for k, v in (row.get("traits") or {}).items() if v is not None}
    return Item(file=file, text=row["text"], traits=traits, content=content, sha256=hashlib.sha256(content).hexdigest())


def brand_of(folder: Path) -> Brand:
    """brand.yaml, schema-checked. Raises DataError listing every problem."""
    path = folder / "brand.yaml"
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"{files.shown(folder)} is not a brand set: brand.yaml is missing",
            next_step="stylegate brand name=acme images=DIR makes a brand set from a folder of pictures.",
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{files.shown(path)} is not YAML: {error}") from None
    if not isinstance(data, dict):
        raise DataError(f"{files.shown(path)} must be a mapping of name, trigger, ...")
    known = {f.name for f in fields(Brand)}
    problems = [f"{k}: unknown key" for k in data if k not in known]
    problems += [f"{k}: must be text" for k, v in data.items() if k in known and not isinstance(v, str)]
    problems += [f"{k}: missing" for k in ("name", "trigger") if not data.get(k)]
    try:
        ImageColor.getrgb(str(data.get("background", "#ffffff")))
    except ValueError:
        problems.append(f"background: {data['background']!r} is no colour (such as #ffffff)")
    if problems:
        raise DataError(f"{files.shown(path)}:", problems, f"keys are {sorted(known)}.")
    return Brand(**data)


def sound(folder: Path) -> tuple[BrandSet, Findings]:
    """Examine and read. Raises DataError with every problem; what `train` and the gate call first."""
    findings = examine(folder)
    refuse(folder, findings)
    return read(folder), findings


def refuse(folder: Path, findings: Findings) -> None:
    if findings.problems:
        count = f"{len(findings.problems)} problem{'s' if len(findings.problems) > 1 else ''}"
        raise DataError(f"{files.shown(folder)} has {count}:", findings.problems, "mend them and run this again.")


# Checking.


def examine(folder: Path) -> Findings:
    """Every problem of a brand set, and what is worth saying; reads the raw files, trusts none of them."""
    findings = Findings()
    try:
        brand = brand_of(folder)
    except DataError as error:
        findings.problems += error.problems or [error.summary]
        brand = Brand(name="", trigger="")
    decoded: dict[str, pictures.Picture] = {}
    by_hash: dict[str, list[str]] = defaultdict(list)
    for part in SPLITS:
        decoded |= examine_split(folder, part, brand, findings, by_hash)
    for same in by_hash.values():
        if len(same) > 1:
            findings.problems.append(f"{', '.join(same)}: the same picture {len(same)} times; keep one")
    twins = {name for same in by_hash.values() for name in same[1:]}
    for group in alike({n: p for n, p in decoded.items() if n not in twins}):
        if len({name.split("/")[0] for name in group}) > 1:
            findings.problems.append(f"{', '.join(group)}: near-duplicates across splits; move them into one")
        else:
            findings.remarks.append(f"{', '.join(group)}: near-duplicates")
    return findings


def examine_split(
    folder: Path, part: str, brand: Brand, findings: Findings, by_hash: dict[str, list[str]]
) -> dict[str, pictures.Picture]:
    """Rows against files, captions, pictures of one split; the decoded pictures by name."""
    place = folder / part
    if not (place / "metadata.jsonl").is_file():
        findings.problems.append(f"{part}/metadata.jsonl is missing")
        return {}
    rows = rows_of(place, findings.problems)
    listed: dict[str, Path] = {}
    for name, row in rows:
        path = place / name
        if not path.resolve().is_relative_to(folder.resolve()):
            findings.problems.append(f"{part}/metadata.jsonl: {name} lies outside the brand set")
        elif not path.is_file():
            findings.problems.append(f"{part}/{name}: listed in metadata.jsonl, but there is no such file")
        elif f"{part}/{name}" in listed:
            findings.problems.append(f"{part}/{name}: listed twice")
        else:
            listed[f"{part}/{name}"] = path
        if not str(row.get("text") or "").strip():
            findings.problems.append(f"{part}/{name}: its caption is empty")
        traits = row.get("traits") or {}
        if not isinstance(traits, dict) or not all(isinstance(v, str) for v in traits.values()):
            findings.problems.append(f"{part}/{name}: traits must map names to text")
    for path in pictures.find(place):
        if f"{part}/{path.relative_to(place).as_posix()}" not in listed:
            findings.problems.append(f"{part}/{path.relative_to(place).as_posix()}: no caption in metadata.jsonl")
    if not rows:
        findings.problems.append(f"{part}/metadata.jsonl lists no pictures")
    lacking = sum(brand.trigger.lower() not in str(row.get("text")).lower() for _, row in rows)
    if brand.trigger and lacking:
        findings.remarks.append(f'{part}: "{brand.trigger}" is put before {lacking} of {len(rows)} captions')
    return look_at(listed, brand.background, findings, by_hash)


def rows_of(place: Path, problems: list[str] | None = None) -> list[tuple[str, dict]]:
    """(file_name, row) of a split's metadata.jsonl; lines that are none are named in `problems`."""
    rows = []
    text = (place / "metadata.jsonl").read_bytes().decode("utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            rows.append((str(row["file_name"]), row))
        except (json.JSONDecodeError, KeyError, TypeError):
            if problems is not None:
                problems.append(f"{place.name}/metadata.jsonl, line {number}: not a JSON object with file_name")
    return rows


def look_at(
    named: dict[str, Path], background: str, findings: Findings, by_hash: dict[str, list[str]] | None = None
) -> dict[str, pictures.Picture]:
    """Decode each picture; broken ones and exact duplicates become problems, conversions remarks."""
    decoded: dict[str, pictures.Picture] = {}
    seen = defaultdict(list) if by_hash is None else by_hash
    for name, path in named.items():
        try:
            picture = pictures.decode(path.read_bytes(), background)
        except pictures.PictureError as error:
            findings.problems.append(f"{name}: {error}")
            continue
        decoded[name] = picture
        seen[hashlib.sha256(picture.image.tobytes() + str(picture.image.size).encode()).hexdigest()].append(name)
        for note in picture.notes:
            findings.converted[note].append(name)
    if by_hash is None:
        same = [names for names in seen.values() if len(names) > 1]
        findings.problems += [f"{', '.join(n)}: the same picture {len(n)} times; keep one" for n in same]
    return decoded


def alike(decoded: dict[str, pictures.Picture]) -> list[list[str]]:
    """Groups of near-duplicates (likeness above pictures.NEAR), each with at least two names."""
    names = list(decoded)
    if not names:
        return []
    found, partner = pictures.nearest(np.stack([pictures.signature(decoded[n].image) for n in names]))
    leader = list(range(len(names)))
    for i in range(len(names)):
        if found[i] >= pictures.NEAR:
            leader[i] = leader[partner[i]]
    groups: dict[int, list[str]] = defaultdict(list)
    for i, name in enumerate(names):
        groups[leader[i]].append(name)
    return [group for group in groups.values() if len(group) > 1]


def cut_captions(brand_set: BrandSet, config: Config) -> list[str]:
    """A remark if the text encoder of the base would cut captions."""
    from stylegate.families import FAMILIES

    limit, lengths = FAMILIES[config.family.name].caption_lengths(
        config.base, [brand_set.brand.prompt(item.text) for item in brand_set.splits["train"]]
    )
    cut = [i.file for i, n in zip(brand_set.splits["train"], lengths, strict=True) if n > limit]
    return [f"captions longer than the text encoder's {limit} tokens, their end is cut: {several(cut)}"] if cut else []


# Making.


def captions_of(source: Path, found: list[Path], findings: Findings) -> dict[str, tuple[str, dict[str, str]]]:
    """Caption and traits by relative name: kohya's .txt beside the picture, any CSV, or metadata.jsonl."""
    captions: dict[str, tuple[str, dict[str, str]]] = {}
    for table in sorted(source.rglob("metadata.jsonl")) + sorted(source.rglob("*.csv")):
        for name, text, traits in table_rows(table, findings):
            path = table.parent / name
            if not path.resolve().is_relative_to(source.resolve()):
                findings.problems.append(f"{table.relative_to(source)}: {name} lies outside the folder")
            elif not path.is_file():
                findings.problems.append(f"{table.relative_to(source)}: there is no file {name}")
            else:
                captions[path.relative_to(source).as_posix()] = (text, traits)
    for path in found:
        beside = path.with_suffix(".txt")
        if beside.is_file():
            text = beside.read_bytes().decode("utf-8", errors="replace")
            captions[path.relative_to(source).as_posix()] = (" ".join(text.split()), {})
    return captions


def table_rows(table: Path, findings: Findings) -> Iterable[tuple[str, str, dict[str, str]]]:
    """(file, caption, traits) of a CSV or JSON Lines table; the columns may be called as people call them."""
    if table.suffix == ".jsonl":
        raw: list[dict[str, Any]] = [row for _, row in rows_of(table.parent, findings.problems)]
    else:
        raw = list(csv.DictReader(io.StringIO(table.read_bytes().decode("utf-8-sig", errors="replace"))))
    for row in raw:
        lower = {str(k).strip().lower(): v for k, v in row.items()}
        name = next((lower[k] for k in ("file_name", "file", "filename", "image", "path") if lower.get(k)), None)
        text = next((lower[k] for k in ("text", "caption", "prompt", "description") if k in lower), None)
        if name is None or text is None:
            findings.problems.append(f"{table.name}: needs columns file_name and text, has {sorted(lower)}")
            return
        traits = lower.get("traits") if isinstance(lower.get("traits"), dict) else {}
        yield str(name), str(text or ""), {str(k): str(v) for k, v in (traits or {}).items()}


def split(decoded: dict[str, pictures.Picture]) -> dict[str, list[str]]:
    """Names by split: a fifth to test (at least 8 where a third allows it), a tenth to validation, the rest to train.

    The order is by content, so the same pictures give the same split; near-duplicates go to train together.
    """
    content = {n: hashlib.sha256(p.image.tobytes()).hexdigest() for n, p in decoded.items()}
    together = {name for group in alike(decoded) for name in group}
    free = sorted((n for n in decoded if n not in together), key=lambda n: content[n])
    total = len(decoded)
    tests = min(max(8, total // 5), max(1, total // 3), max(1, len(free) - 1))
    checks = min(max(4, total // 10), max(1, total // 6), max(1, len(free) - tests))
    if len(free) < 2:
        raise DataError("nearly all pictures are near-duplicates of each other: there is nothing to hold out")
    parts = {"test": free[:tests], "validation": free[tests : tests + checks]}
    parts["train"] = free[tests + checks :] + sorted(together)
    if not parts["train"]:
        raise DataError("too few pictures to hold some out", next_step="give at least 3 that differ.")
    return {part: sorted(parts[part]) for part in SPLITS}


def decoded_image(item: Item, brand: Brand) -> Image.Image:
    return pictures.decode(item.content, brand.background).image
