"""Work in parts: a folder that says what is to be done, what was done, and what killed the worker that did it.

    <part>.json           the rows of a part, made once; its name is the digest of its rows
    <part>.safetensors    what the part's rows became: the part is finished, and never done twice
    <part>.begun          a byte for each worker that began the part and did not end it
    <part>.<row>...       the same two files of a piece of the part that begins with this row
    error.json            why a worker stopped, where it was no death but something to mend

A worker that dies (killed, out of memory) leaves a byte. After MAX_DEATHS of them the part is done in pieces, and a
piece in pieces again, down to single rows. So the row that kills its worker is found; it is left out with a reason, and
the other rows go on. What was done of other pieces is kept, however often workers die. Every file appears whole, so
that any number of workers and a second start of the same command see the same.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

from stylegate import files
from stylegate.errors import DataError, StylegateError

MAX_DEATHS = 2  # of a part, of a piece, of a row
PIECES = 32  # that a part is done in after them
SETTINGS, ERROR = "settings.json", "error.json"

Row = dict[str, NDArray]  # what became of one row: named arrays
Stage = Callable[[Sequence[dict[str, Any]]], Mapping[str, Row]]  # from rows to what became of each, by its `id`


def write_parts(folder: Path, settings: Mapping[str, Any], rows: Sequence[dict[str, Any]], size: int) -> list[str]:
    """Write the settings of the stage and the rows, `size` to a part, into the folder; returns the parts' names.

    Each row has an `id`, a text that no other row has. Parts of an earlier start whose rows are the same have the same
    names and are kept; others are removed.
    """
    files.write_json(folder / SETTINGS, dict(settings))
    (folder / ERROR).unlink(missing_ok=True)
    names = []
    for start in range(0, len(rows), size):
        part = list(rows[start : start + size])
        names.append(files.canonical_sha256([settings, part])[:24])
        if not (folder / f"{names[-1]}.json").exists():
            files.write_json(folder / f"{names[-1]}.json", {"rows": part})
    for path in folder.glob("*.json"):
        if path.name != SETTINGS and path.stem not in names:
            path.unlink()
    return names


def unfinished_parts(folder: Path, names: Iterable[str]) -> list[str]:
    """The names of those parts that have no result yet, in their order."""
    return [name for name in names if not (folder / f"{name}.safetensors").exists()]


def deaths(folder: Path) -> int:
    """How many workers began a part or a row that is unfinished, and did not end it. While no worker runs, all of these
    died.
    """
    return sum(path.stat().st_size for path in folder.glob("*.begun"))


def do_parts(folder: Path, names: Iterable[str], load_stage: Callable[[Mapping[str, Any]], Stage]) -> None:
    """Do each unfinished part of `names` with one stage, which is loaded for the first of them.

    An error that a person can mend is written to error.json, and the function returns.
    """
    stage = None
    try:
        for name in unfinished_parts(folder, names):
            if (folder / ERROR).exists():
                return
            if stage is None:
                stage = load_stage(files.read_json(folder / SETTINGS, "the settings of the work"))
            do_part(folder, name, stage)
    except StylegateError as error:
        told = {"summary": error.summary, "problems": list(error.problems), "next_step": error.next_step}
        files.write_json(folder / ERROR, told)


def do_part(folder: Path, name: str, stage: Stage) -> None:
    """Do one part of the work and write its result."""
    do_rows(folder, name, read_rows(folder, name), stage)


def do_rows(folder: Path, name: str, rows: list[dict[str, Any]], stage: Stage) -> None:
    """Run the stage on rows and write what it returns as the result `name`.

    After MAX_DEATHS workers have died the rows are done piece by piece, each with a result of its own, so that what was
    done between two of them is kept. A single row that killed so many workers is recorded as dead.
    """
    begun = folder / f"{name}.begun"
    died = begun.stat().st_size if begun.exists() else 0
    if died < MAX_DEATHS:
        with one_byte_while_it_lasts(begun):
            write_result(folder, name, stage(rows), [])
    elif len(rows) == 1:
        write_result(folder, name, {}, [rows[0]["id"]])
    else:
        size = -(-len(rows) // PIECES)
        pieces = {f"{name}.{start}": rows[start : start + size] for start in range(0, len(rows), size)}
        for piece in unfinished_parts(folder, pieces):
            do_rows(folder, piece, pieces[piece], stage)
        results = [read_part(folder, piece) for piece in pieces]
        found = {row: one for part, _ in results for row, one in part.items()}
        write_result(folder, name, found, [row for _, dead in results for row in dead])
        for piece in pieces:
            (folder / f"{piece}.safetensors").unlink()
    begun.unlink(missing_ok=True)


def write_result(folder: Path, name: str, found: Mapping[str, Row], dead: list[str]) -> None:
    """Write what became of rows, by id, and the ids of those that killed their workers; whole or not at all."""
    arrays = {f"{row}/{column}": np.asarray(a, order="C") for row, one in found.items() for column, a in one.items()}
    files.write_atomically(folder / f"{name}.safetensors", save(arrays, {"dead": json.dumps(dead)}))


def read_rows(folder: Path, name: str) -> list[dict[str, Any]]:
    """The rows of a part. Raises DataError if they, or the settings, are not those that the part was made of."""
    rows = files.read_json(folder / f"{name}.json", "a part of the work", "rows")["rows"]
    settings = files.read_json(folder / SETTINGS, "the settings of the work")
    if files.canonical_sha256([settings, rows])[:24] != name:
        raise DataError(
            f"{files.display_path(folder / f'{name}.json')} was changed after it was made",
            next_step="remove the folder; the same command makes the parts again.",
        )
    return rows


class one_byte_while_it_lasts:  # noqa: N801  a context, used as a function is
    """A context in which the file `path` is a byte longer; the byte stays only if the process dies inside."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        with self.path.open("ab") as file:
            file.write(b".")
            file.flush()
            os.fsync(file.fileno())

    def __exit__(self, *_: object) -> None:
        if self.path.exists():
            os.truncate(self.path, max(self.path.stat().st_size - 1, 0))


def read_part(folder: Path, name: str) -> tuple[dict[str, Row], list[str]]:
    """What became of a finished part's rows, by id, and the ids of those that killed their workers.

    Raises DataError if the file is no whole result.
    """
    found: dict[str, Row] = {}
    try:
        with safe_open(folder / f"{name}.safetensors", "numpy") as opened:
            for key in opened.keys():  # noqa: SIM118  safe_open has no iterator
                row, _, column = key.rpartition("/")
                found.setdefault(row, {})[column] = opened.get_tensor(key)
            return found, json.loads((opened.metadata() or {})["dead"])
    except Exception as error:  # a file that was cut, or is another one
        raise DataError(
            f"{files.display_path(folder / f'{name}.safetensors')} is no whole result of a part",
            next_step="remove it; the same command does that part again.",
        ) from error


def raise_error_of_workers(folder: Path) -> None:
    """Raises DataError with the content of error.json, which a worker wrote, if there is one."""
    if (folder / ERROR).exists():
        told = files.read_json(folder / ERROR, "the workers' error")
        raise DataError(told["summary"], told["problems"], told["next_step"])
