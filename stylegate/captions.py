"""The captions of a folder of pictures: text files beside them, and tables.

    cat.png with cat.txt, cat.caption, cat.png.txt or cat.json       a caption a line; in JSON the key text or caption
    any .csv, .tsv or .jsonl                                         columns file_name and text, paths from its folder
    any other .json                                                  kohya's metadata: {"cat": {"caption": ...}}

A picture may have several captions: several lines of a text file, or a list in JSON. Two files that say different
captions of one picture are refused: nobody can know which is meant.

Where tags alone are given (a column or key `tags`), they are the caption, with commas between them. Weights, as in
(red hat:1.2), are for prompts; training has no use for them, and they are left out.
"""

import json
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from stylegate import tables
from stylegate.brandset import FURTHER, CheckReport, parse_cell_of_further_captions, traits_without_nulls
from stylegate.captionfaults import picture_count_and_names
from stylegate.listing import CAPTIONS, TABLES
from stylegate.tables import NAMES, TEXTS, TableFileContent, TableFileRow

TAGS, TRAITS = "tags", "traits"
WEIGHT = re.compile(r"\(([^():]+):\s*\d+(?:\.\d+)?\)")  # a part of a prompt and its weight, as A1111 reads it
UNREADABLE = ("unreadable",)  # stands for captions that are a problem already
OWN = "original"  # a column of brand sets: what a picture was called before


class CaptionsAndTraits(NamedTuple):
    """What is said of one picture: its captions and its traits."""

    texts: tuple[str, ...]  # one and more; the first is an empty text where the file gives none
    traits: dict[str, str]
    where: str  # the file that says it, for people

    @property
    def first_caption(self) -> str:
        """The first caption, which evaluation uses."""
        return self.texts[0]


class FolderCaptions(NamedTuple):
    """All captions that were found in a folder."""

    by_picture: dict[str, CaptionsAndTraits]  # by name relative to the folder
    unused: list[Path]  # files beside the pictures that gave no caption
    whole: bool  # whether every table could be read


class FolderToReadCaptionsFrom(NamedTuple):
    """Where captions are read from: a folder, its pictures, and the other files in it."""

    folder: Path
    pictures: dict[str, Path]  # by name relative to the folder
    beside: list[Path]


def read_captions(sources: FolderToReadCaptionsFrom, findings: CheckReport) -> FolderCaptions:
    """Read all captions of a folder. Returns them by picture, with the files that gave none, and whether every table
    could be read.

    Everything that is wrong goes into `findings`.
    """
    found: dict[str, CaptionsAndTraits] = {}
    unused, whole = [], True
    owners = pictures_by_sidecar(sources)
    for path in sources.beside:
        where = path.relative_to(sources.folder).as_posix()
        table = None if owners.get(path) else kohya_caption_table_or_none(path)
        if table or path.suffix.lower() in TABLES:
            table = table or read_caption_table(path, where, findings)
            whole = whole and table is not None
            given = captions_from_table(table, path, where, sources, findings) if table else ()
        else:
            given = list(captions_from_sidecar(path, where, owners.get(path, []), findings))
            unused += [] if given else [path]
        for name, caption in given:
            add_caption_or_problem(found, name, caption, findings)
    if several := sorted(name for name, caption in found.items() if len(caption.texts) > 1):
        what = "each training step draws one of them, evaluation uses the first"
        findings.remarks.append(f"several captions: {picture_count_and_names(several)}; {what}")
    if weighted := sorted(name for name, caption in found.items() if any(map(WEIGHT.search, caption.texts))):
        findings.remarks.append(
            f"weights in captions are left out, as in (red hat:1.2): {picture_count_and_names(weighted)}"
        )
        for name in weighted:
            found[name] = found[name]._replace(texts=tuple(WEIGHT.sub(r"\1", text) for text in found[name].texts))
    return FolderCaptions(found, unused, whole)


def kohya_caption_table_or_none(path: Path) -> TableFileContent | None:
    """The captions that kohya's tools keep in one JSON file, an object by picture; None for any other file.

    Its keys are names of pictures, with or without their suffix. Entry n is row n, from 1.
    """
    if path.suffix.lower() != ".json":
        return None
    try:
        data = json.loads(tables.decode_utf8(path.read_bytes()), object_pairs_hook=tables.dict_without_repeated_keys)
    except (ValueError, OSError, RecursionError):
        return None
    entries = list(data.values()) if isinstance(data, dict) else []
    if not entries or not all(isinstance(entry, dict) and {*TEXTS, TAGS} & entry.keys() for entry in entries):
        return None
    rows = [TableFileRow(n, entry | {NAMES[0]: name}) for n, (name, entry) in enumerate(data.items(), 1)]
    return TableFileContent(list(dict.fromkeys(column for row in rows for column in row.cells)), rows, [])


def add_caption_or_problem(
    found: dict[str, CaptionsAndTraits], name: str, caption: CaptionsAndTraits, findings: CheckReport
) -> None:
    """Add the caption of picture `name` to `found`. A second caption of the same picture with another text or other
    traits becomes a problem.
    """
    before = found.setdefault(name, caption)
    if before.texts != caption.texts:
        what = f"{before.where} and {caption.where} say different captions"
        findings.problems.append(f"{name}: {what}; keep one, or put both on lines of one text file")
    elif before.traits and caption.traits and before.traits != caption.traits:
        findings.problems.append(f"{name}: traits of {before.where} and of {caption.where} differ; keep one")
    elif caption.traits:
        found[name] = caption


def pictures_by_sidecar(sources: FolderToReadCaptionsFrom) -> dict[Path, list[str]]:
    """For each text or JSON file the names of the pictures that it belongs to; an empty list if there are none.

    cat.png.txt belongs to cat.png; cat.txt to every picture in its folder that is called cat.
    """
    by_stem, by_name = defaultdict(list), {}
    for name, path in sources.pictures.items():
        by_stem[path.parent, path.stem].append(name)
        by_name[path.parent, path.name] = name
    owners = {}
    for path in sources.beside:
        if path.suffix.lower() in CAPTIONS | {".json"}:
            exact = by_name.get((path.parent, path.stem))
            owners[path] = [exact] if exact else by_stem.get((path.parent, path.stem), [])
    return owners


def captions_from_sidecar(
    path: Path, where: str, names: list[str], findings: CheckReport
) -> Iterator[tuple[str, CaptionsAndTraits]]:
    """Yield (name, caption) for each of the pictures `names`: what their text or JSON file says, the same of all.

    Nothing is yielded for JSON that is no caption. A file that cannot be read becomes a problem in `findings`.
    """
    if not names:
        return
    try:
        text = tables.decode_utf8(path.read_bytes())
        if path.suffix.lower() == ".json":
            data = json.loads(text, object_pairs_hook=tables.dict_without_repeated_keys)
            if not isinstance(data, dict) or not {*TEXTS, TAGS} & data.keys():
                return  # something else of the picture's
            caption = caption_from_row(TableFileRow(1, data), where)
        else:
            caption = CaptionsAndTraits(captions_from_lines(text), {}, where)
    except (ValueError, OSError, RecursionError) as error:
        findings.problems.append(f"{where}: {error}")
        caption = CaptionsAndTraits(UNREADABLE, {}, where)
    yield from ((name, caption) for name in names)


def captions_from_lines(text: str) -> tuple[str, ...]:
    """The lines of a text that hold anything, each once and with single spaces; one empty text if there is none."""
    lines = dict.fromkeys(" ".join(line.split()) for line in text.splitlines())
    return tuple(filter(None, lines)) or ("",)


def read_caption_table(path: Path, where: str, findings: CheckReport) -> TableFileContent | None:
    """Read the table of captions at `path`, which messages call `where`.

    Returns None if its rows are not valid or it lacks columns; then the problems are added to `findings`.
    """
    table = tables.read_table(path)
    columns = set(table.columns)
    if table.problems:
        findings.problems += [
            f"{where}, {problem}" if "line" in problem else f"{where}: {problem}" for problem in table.problems
        ]
        return None
    if not columns & set(NAMES) or not columns & {*TEXTS, TAGS}:
        findings.problems.append(f"{where}: needs columns file_name and text, has {', '.join(table.columns) or 'none'}")
        return None
    return table


def captions_from_table(
    table: TableFileContent, path: Path, where: str, sources: FolderToReadCaptionsFrom, findings: CheckReport
) -> Iterator[tuple[str, CaptionsAndTraits]]:
    """Yield the picture's name and its caption for each row of `table`, which was read from `path`.

    Rows that are at fault, and names of no picture, become problems in `findings`.
    """
    columns = set(table.columns)
    if aside := sorted(columns - {*NAMES, *TEXTS, TAGS, TRAITS, OWN, FURTHER}):
        findings.remarks.append(f"{where}: columns that are not used: {', '.join(aside)}")
    if TAGS in columns and columns & set(TEXTS):
        findings.remarks.append(f"{where}: tags are not used where there is a caption")
    by_name = {composed_unicode(name): name for name in sources.pictures}
    is_json = path.suffix.lower() == ".json"
    if is_json:
        by_name = {composed_unicode(str(Path(name).with_suffix(""))): name for name in sources.pictures} | by_name
    kind, kinds = ("entry", "entries") if is_json else ("line", "lines")
    missing: dict[int, str] = {}  # names of files by line or entry
    for row in table.rows:
        line = f"{where}, {kind} {row.line}"
        name = None
        try:
            name = picture_name_from_table_cell(tables.value_in_one_of_columns(row, NAMES), path, sources, by_name)
            yield name, caption_from_row(row, line)
        except FileNotFoundError as error:
            missing[row.line] = str(error)
        except (ValueError, OSError) as error:
            findings.problems.append(f"{line}: {error}")
            if name is not None:
                yield name, CaptionsAndTraits(UNREADABLE, {}, line)
    if missing:
        rows, names = kind if len(missing) == 1 else kinds, ", ".join(missing.values())
        what = f"there is no file {names}; remove the {rows}, or put back what is missing"
        findings.problems.append(f"{where}, {rows} {', '.join(map(str, missing))}: {what}")


def picture_name_from_table_cell(
    value: Any, table: Path, sources: FolderToReadCaptionsFrom, by_name: dict[str, str]
) -> str:
    """The name of the picture that a table's cell means, relative to the folder.

    Raises ValueError if it means none, and FileNotFoundError, with what the cell says, if there is no such file.
    """
    if not isinstance(value, str):
        raise ValueError(f"file_name is {value!r}, not text")
    path, folder = Path(os.path.normpath(table.parent / value.strip())), Path(os.path.normpath(sources.folder))
    if not path.resolve().is_relative_to(sources.folder.resolve()):
        raise ValueError(f"{value} lies outside the folder")
    for place, root in ((path, folder), (path.resolve(), folder.resolve())):  # an absolute path may lead through links
        name = by_name.get(composed_unicode(place.relative_to(root).as_posix())) if place.is_relative_to(root) else None
        if name is not None:
            return name
    if not path.is_file():
        raise FileNotFoundError(value)
    raise ValueError(f"{value} is not used as a picture")


def composed_unicode(name: str) -> str:
    """A name in Unicode's composed form: macOS writes é as two characters, others as one."""
    return unicodedata.normalize("NFC", name)


def caption_from_row(row: TableFileRow, where: str) -> CaptionsAndTraits:
    """The captions and traits of a row of a table or of a JSON file. Raises ValueError if they are no text."""
    text = tables.value_in_one_of_columns(row, TEXTS)
    if text is None and (tags := row.cells.get(TAGS)):
        text = ", ".join(tags) if isinstance(tags, list) and all(isinstance(tag, str) for tag in tags) else tags
        if isinstance(tags, dict) and all(isinstance(sure, int | float) for sure in tags.values()):  # as taggers write
            text = ", ".join(tags)
    texts = text if isinstance(text, list) else ["" if text is None else text]
    for other in texts:
        if not isinstance(other, str):
            raise ValueError(f"the caption is {other!r}, not text")
    if isinstance(text, list):
        texts = [" ".join(other.split()) for other in texts]
        if not all(texts):
            raise ValueError("one of its captions is empty")
    every = dict.fromkeys(other.strip() for other in (*texts, *parse_cell_of_further_captions(row.cells.get(FURTHER))))
    return CaptionsAndTraits(tuple(every) or ("",), traits_without_nulls(row.cells.get(TRAITS)), where)
