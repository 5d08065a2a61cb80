"""Work in parts: a place that says what is to be done, what was done, and what killed the worker that did it.

    parts.json            the names of the parts, settings.json what the stage needs
    <part>.json           the rows of a part, made once; its name is the digest of its rows and the settings
    <part>.tar            the pictures of the rows, where workers do not see the disk that they lie on
    <part>.safetensors    what the part's rows became: the part is finished, and never done twice
    <part>.begun0, 1      left by a worker that began the part and died
    <part>.<row>...       the same files of a piece of the part that begins with this row
    error.json            why a worker stopped, where it was no death but something to mend

A worker that dies (killed, out of memory) leaves a mark. After MAX_DEATHS of them the part is done in pieces, and a
piece in pieces again, down to single rows. So the row that kills its worker is found; it is left out with a reason, and
the other rows go on. What was done of other pieces is kept, however often workers die. Every file appears whole, so
that any number of workers and a second start of the same command see the same. No clock is read.
"""

import hashlib
import io
import json
import tarfile
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from eval.engines.place import Place
from stylegate import files
from stylegate.errors import DataError, StylegateError, error_for_user

MAX_DEATHS = 2  # of a part, of a piece, of a row
PIECES = 32  # that a part is done in after them
SETTINGS, NAMES, ERROR = "settings.json", "parts.json", "error.json"
AGAIN = "remove it; the same command makes it again."

Row = dict[str, NDArray]  # what became of one row: named arrays
Stage = Callable[[Sequence[dict[str, Any]]], Mapping[str, Row]]  # from rows to what became of each, by its `id`


def write_rows_to_do_in_parts(
    place: Place, settings: Mapping[str, Any], rows: Sequence[dict[str, Any]], size: int
) -> list[str]:
    """Write the settings of the stage and the rows, `size` to a part, into the place; returns the parts' names.

    Each row has an `id`, a text that no other row has. Parts of an earlier start whose rows are the same have the same
    names and are kept. To a place that is far the file at a row's `path` goes too.
    """
    place.write_or_remove_file(SETTINGS, json_file_bytes(dict(settings)))
    place.write_or_remove_file(ERROR, b"")
    there, names = place.file_sizes_in_bytes_by_name(), []
    for start in range(0, len(rows), size):
        part = list(rows[start : start + size])
        names.append(name := files.canonical_sha256([settings, part])[:24])
        if place.is_far and any("path" in row for row in part) and not there.get(f"{name}.tar"):
            place.write_or_remove_file(f"{name}.tar", tar_bytes_of_row_pictures(part))
        if not there.get(f"{name}.json"):
            place.write_or_remove_file(f"{name}.json", json_file_bytes({"rows": part}))
    place.write_or_remove_file(NAMES, json_file_bytes(names))
    return names


def json_file_bytes(value: Any) -> bytes:
    """A value as the bytes of a JSON file."""
    return (json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n").encode()


def tar_bytes_of_row_pictures(rows: Sequence[dict[str, Any]]) -> bytes:
    """A tar of the files at the rows' paths, each named by the row's id. A file that is gone is left out."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for row in rows:
            try:
                content = Path(row["path"]).read_bytes()
            except OSError:
                continue
            entry = tarfile.TarInfo(row["id"])
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


@contextmanager
def rows_with_local_picture_paths(
    place: Place, name: str, rows: list[dict[str, Any]]
) -> Iterator[list[dict[str, Any]]]:
    """The rows of a part; while the context lasts, their paths are of files that this machine sees.

    Whether such a file holds what its row is of, the stage checks by the row's id, its sha256.
    """
    if not (place.is_far and any("path" in row for row in rows)):
        yield rows
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        tarfile.open(fileobj=io.BytesIO(place.read_file_bytes(f"{name}.tar"))) as tar,
    ):
        tar.extractall(folder, filter="data")
        yield [row | {"path": str(Path(folder) / row["id"])} for row in rows]


def names_of_finished_parts(place: Place) -> set[str]:
    """The names of the parts, and of their pieces, that have a result."""
    return {
        name.removesuffix(".safetensors")
        for name, size in place.file_sizes_in_bytes_by_name().items()
        if size and is_name_of_part_result(name)
    }


def is_name_of_part_result(name: str) -> bool:
    """Whether a file of this name is the result of a part or piece."""
    return name.endswith(".safetensors")


def number_of_worker_deaths(place: Place) -> int:
    """How many workers began a part or a piece that is unfinished, and did not end it. While no worker runs, all of
    these died.
    """
    return sum(1 for name, size in place.file_sizes_in_bytes_by_name().items() if size and ".begun" in name)


def run_unfinished_parts(place: Place, names: Iterable[str], load_stage: Callable[[Mapping[str, Any]], Stage]) -> None:
    """Do each unfinished part of `names` with one stage, which is loaded for the first of them.

    An exception is written to error.json, and the function returns.
    """
    stage = None
    try:
        for name in names:
            if place.has_nonempty_file(f"{name}.safetensors"):
                continue
            if place.has_nonempty_file(ERROR):
                return
            if stage is None:
                stage = load_stage(read_json(place, SETTINGS))
            with rows_with_local_picture_paths(place, name, read_rows_to_do_in_part(place, name)) as rows:
                run_stage_and_write_result(place, name, rows, stage)
    except Exception as error:
        told = error if isinstance(error, StylegateError) else error_for_user(error)
        kind = {"summary": told.summary, "problems": list(told.problems), "next_step": told.next_step} if told else {}
        place.write_or_remove_file(ERROR, json_file_bytes(kind or {"bug": traceback.format_exc()}))


def run_stage_and_write_result(place: Place, name: str, rows: list[dict[str, Any]], stage: Stage) -> None:
    """Run the stage on rows and write what it returns as the result `name`.

    After MAX_DEATHS workers have died the rows are done piece by piece, each with a result of its own, so that what was
    done between two of them is kept. A single row that killed so many workers is recorded as dead.
    """
    marks = [f"{name}.begun{i}" for i in range(MAX_DEATHS)]
    left = next((mark for mark in marks if not place.has_nonempty_file(mark)), None)
    if left is not None:
        with keep_mark_file_during_context(place, left):
            write_part_result(place, name, stage(rows), [])
    elif len(rows) == 1:
        write_part_result(place, name, {}, [rows[0]["id"]])
    else:
        size = -(-len(rows) // PIECES)
        pieces = {f"{name}.{start}": rows[start : start + size] for start in range(0, len(rows), size)}
        for piece, some in pieces.items():
            if not place.has_nonempty_file(f"{piece}.safetensors"):
                run_stage_and_write_result(place, piece, some, stage)
        results = [read_part_result(place, piece) for piece in pieces]
        found = {row: one for part, _ in results for row, one in part.items()}
        write_part_result(place, name, found, [row for _, dead in results for row in dead])
        for piece in pieces:
            place.write_or_remove_file(f"{piece}.safetensors", b"")
    for mark in marks:
        if place.has_nonempty_file(mark):
            place.write_or_remove_file(mark, b"")


@contextmanager
def keep_mark_file_during_context(place: Place, mark: str) -> Iterator[None]:
    """A context: it writes the file `mark`, and removes it at its end, so that it stays only if the process dies
    inside.
    """
    place.write_or_remove_file(mark, b".")
    try:
        yield
    finally:
        place.write_or_remove_file(mark, b"")


def write_part_result(place: Place, name: str, found: Mapping[str, Row], dead: list[str]) -> None:
    """Write what became of rows, by id, and the ids of those that killed their workers; whole or not at all."""
    arrays = {f"{row}/{column}": np.asarray(a, order="C") for row, one in found.items() for column, a in one.items()}
    told = {"part": name, "dead": json.dumps(dead)}
    place.write_or_remove_file(f"{name}.safetensors", save(arrays, told | {"sha256": digest_of_result(arrays, told)}))


def digest_of_result(arrays: Mapping[str, NDArray], told: Mapping[str, str]) -> str:
    """sha256 (hex) over a result: part, dead rows, and name, type, shape and bytes of each array."""
    digest = hashlib.sha256(json.dumps([told["part"], told["dead"]]).encode())
    for name in sorted(arrays):
        digest.update(json.dumps([name, arrays[name].dtype.str, arrays[name].shape]).encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()


def read_json(place: Place, name: str) -> Any:
    """The value in a JSON file of the place. Raises DataError if the file is missing or torn."""
    try:
        return json.loads(place.read_file_bytes(name))
    except (FileNotFoundError, ValueError) as error:
        raise DataError(f"{place.display_path_of_file(name)} cannot be read: {error}", next_step=AGAIN) from None


def read_rows_to_do_in_part(place: Place, name: str) -> list[dict[str, Any]]:
    """The rows that a worker is to do as this part. Raises DataError if they, or the settings, are not those that the
    part was made of.
    """
    rows = read_json(place, f"{name}.json")["rows"]
    if files.canonical_sha256([read_json(place, SETTINGS), rows])[:24] != name:
        raise DataError(f"{place.display_path_of_file(f'{name}.json')} was changed after it was made", next_step=AGAIN)
    return rows


def read_part_result(place: Place, name: str) -> tuple[dict[str, Row], list[str]]:
    """What became of a finished part's rows, by id, and the ids of those that killed their workers.

    Raises DataError if the file is no whole result, of another part, or not as the worker wrote it.
    """
    found: dict[str, Row] = {}
    try:
        content = place.read_file_bytes(f"{name}.safetensors")
        arrays = load(content)
        told = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
        if told["part"] != name or told["sha256"] != digest_of_result(arrays, told):
            raise ValueError("another digest")
        for key, array in arrays.items():
            row, _, column = key.rpartition("/")
            found.setdefault(row, {})[column] = array
        return found, json.loads(told["dead"])
    except StylegateError:
        raise
    except Exception as error:  # a file that was cut or changed, or is another one
        raise DataError(
            f"{place.display_path_of_file(f'{name}.safetensors')} is no whole result of a part", next_step=AGAIN
        ) from error


def raise_error_of_workers(place: Place) -> None:
    """Raises the error that a worker wrote, if one did: DataError for what a person can mend, else RuntimeError."""
    if place.has_nonempty_file(ERROR):
        told = read_json(place, ERROR)
        if "bug" in told:
            raise RuntimeError(f"a worker failed:\n{told['bug']}")
        raise DataError(told["summary"], told["problems"], told["next_step"])
