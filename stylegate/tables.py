"""One reader of the tables that people give: captions, labels, decisions, prompts. CSV and JSON Lines.

A value stays what is written: a cell of a CSV file is text, a value of JSON keeps its type. A table of which any row is
not sound is not read at all; every problem is reported, with its line.
"""

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
NAMES = ("file_name", "file", "filename", "image", "image_path", "path")  # columns that name a picture
TEXTS = ("text", "caption", "prompt", "description")  # columns that hold a caption


class TableFileRow(NamedTuple):
    """One row of a CSV file, or one object of a JSON Lines file."""

    line: int  # of the file, from 1: where the row begins
    cells: dict[str, Any]  # by column, in lower case; text in a CSV file, any JSON value in JSON Lines


class TableFileContent(NamedTuple):
    """The content of a CSV or JSON Lines file. Its rows are to be used only if `problems` is empty."""

    columns: list[str]  # of a CSV file its header, of JSON Lines all keys; in lower case
    rows: list[TableFileRow]
    problems: list[str]  # such as "line 3: 6 cells under 4 columns", or of the file as a whole
    headings: tuple[str, ...] = ()  # the columns, in their order, as the file writes them


def read_table(path: Path) -> TableFileContent:
    """Read a CSV file (commas, semicolons or tabs) or JSON Lines (`.jsonl`). Problems are returned, not raised."""
    try:
        text = decode_utf8(path.read_bytes())
    except OSError as error:
        return TableFileContent([], [], [f"cannot be read ({error.strerror})"])
    except ValueError as error:
        return TableFileContent([], [], [str(error)])
    return parse_json_lines(text) if path.suffix.lower() == ".jsonl" else parse_csv(text)


def decode_utf8(content: bytes) -> str:
    """The text of UTF-8 bytes, without a byte order mark. Raises ValueError for other bytes and for NUL characters."""
    try:
        text = content.decode("utf-8").lstrip("\ufeff")
    except UnicodeDecodeError:
        raise ValueError("not UTF-8 text; save it as UTF-8") from None
    if "\0" in text:  # UTF-16 without a mark reads as UTF-8 with a NUL at every other place
        raise ValueError("not UTF-8 text (it holds NUL characters); save it as UTF-8")
    return text


def parse_csv(text: str) -> TableFileContent:
    """Parse the text of a CSV file: a header, then a row for each picture. Empty rows are left out; quoted cells may
    hold line ends.
    """
    separator, text, skipped = csv_separator_and_rest(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    columns, headings, rows, problems = [], [], [], []
    start = 1 + skipped
    try:
        for cells in reader:
            line, start = start, reader.line_num + 1 + skipped
            if not any(cell.strip() for cell in cells):
                continue
            if not columns:
                headings = [cell.strip() for cell in cells]
                columns = [heading.lower() for heading in headings]
                problems += [
                    f"line {line}: the column {name} stands twice" for name in repeated_names(filter(None, columns))
                ]
                continue
            if any(cell.strip() for cell, name in zip(cells, columns, strict=False) if not name) or any(
                cell.strip() for cell in cells[len(columns) :]
            ):
                count = sum(map(bool, columns))
                problems.append(
                    f"line {line}: {len(cells)} cells under {count} columns; put a cell with {SEPARATORS[separator]} "
                    "in quotes"
                )
            padded = [*cells, *[""] * (len(columns) - len(cells))]
            rows.append(TableFileRow(line, {name: cell for name, cell in zip(columns, padded, strict=False) if name}))
    except csv.Error as error:
        problems.append(f"line {start}: not a row of a CSV table ({error})")
    return TableFileContent(list(filter(None, columns)), rows, problems, tuple(filter(None, headings)))


def csv_separator_and_rest(csv_text: str) -> tuple[str, str, int]:
    """The character that separates cells, the text to parse, and how many lines before it are skipped (0 or 1).

    The separator is what spreadsheets write into a first line `sep=;`, else what stands most often in the header.
    """
    first, _, rest = csv_text.partition("\n")
    stated = first.strip().lower().removeprefix("sep=")
    if len(first.strip()) == len("sep=") + 1 and stated in SEPARATORS:
        return stated, rest, 1
    header = next((line for line in csv_text.splitlines() if line.strip("".join(SEPARATORS) + " ")), "")
    return max(SEPARATORS, key=header.count), csv_text, 0


def parse_json_lines(text: str) -> TableFileContent:
    """A Table of the text of a JSON Lines file: a row for each object, its keys in lower case. Lines that are no
    object, and keys that stand twice in one, are listed in `problems`. Empty lines are left out.
    """
    columns, rows, problems = dict[str, str](), [], []  # columns: in lower case -> as first written
    for number, line in enumerate(text.split("\n"), start=1):  # not splitlines(): U+2028 in a caption ends no row
        if not line.strip():
            continue
        try:
            row = json.loads(
                line, object_pairs_hook=dict_without_repeated_keys, parse_constant=raise_for_nan_constant_in_json
            )
        except (ValueError, RecursionError) as error:
            problems.append(f"line {number}: not a JSON object ({error})")
            continue
        if not isinstance(row, dict):
            problems.append(f"line {number}: not a JSON object")
            continue
        lower = [key.strip().lower() for key in row]
        problems += [f"line {number}: the key {key} stands twice" for key in repeated_names(lower)]
        for name, key in zip(lower, row, strict=True):
            columns.setdefault(name, key.strip())
        rows.append(TableFileRow(number, dict(zip(lower, row.values(), strict=True))))
    return TableFileContent(list(columns), rows, problems, tuple(columns.values()))


def dict_without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The dict of a JSON object's (key, value) pairs. Raises ValueError for a key that stands twice."""
    if double := repeated_names(key for key, _ in pairs):
        raise ValueError(f"the key {double[0]} stands twice")
    return dict(pairs)


def raise_for_nan_constant_in_json(name: str) -> Any:
    """Raise ValueError for NaN, Infinity or -Infinity, which Python writes into JSON for numbers that are missing."""
    raise ValueError(f"{name} is no value of JSON; write null where there is none")


def repeated_names(names: Iterable[str]) -> list[str]:
    """The names that already stand earlier in `names`, in their order."""
    seen: set[str] = set()
    return [name for name in names if name in seen or seen.add(name)]


def value_in_one_of_columns(row: TableFileRow, columns: tuple[str, ...]) -> Any:
    """The value of a row in whichever of `columns` has one; None if none has. Spaces alone are none.

    Raises ValueError for two different values.
    """
    cells = {name: row.cells.get(name) for name in columns}
    found = {name: cell for name, cell in cells.items() if not (cell is None or str(cell).strip() == "")}
    if len({json.dumps(value) for value in found.values()}) > 1:
        raise ValueError(f"{' and '.join(found)} differ; keep one of these columns")
    return next(iter(found.values()), None)


def content_lines_and_comment_count(content: bytes) -> tuple[list[tuple[int, str]], int]:
    """The (number, text) of each line of a text file that holds anything but a comment; and how many lines are
    comments.

    A comment begins with #, as in kohya's sample prompts. Raises ValueError if it is not UTF-8 text.
    """
    numbered = [(n, line.strip()) for n, line in enumerate(decode_utf8(content).split("\n"), start=1) if line.strip()]
    kept = [(number, line) for number, line in numbered if not line.startswith("#")]
    return kept, len(numbered) - len(kept)
