"""Labels of older versions: decisions.jsonl, calibration.jsonl and audit.jsonl, one JSON row a line."""

import uuid
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import rfc8785
from pydantic import ValidationError

from eval.promise.label import Purpose, StoredLabel, Undo
from stylegate import files
from stylegate.errors import DataError
from stylegate.records import validation_problems

OLDER_FILES: dict[Purpose, str] = {
    "review": "decisions.jsonl",
    "calibrate": "calibration.jsonl",
    "audit": "audit.jsonl",
}


class NewLabelStoreRow(NamedTuple):
    """The content of a row that is to be added to labels.sqlite; time, number and hash are added when it is stored."""

    purpose: Purpose
    kind: str  # label, undo or terms
    content: dict[str, Any]  # JSON data
    id: str = ""  # a UUID; empty for one that the store chooses


def rows_of_older_label_files(out: Path) -> list[NewLabelStoreRow]:
    """The rows that the files of older versions in the folder `out` hold, in order.

    The id of each follows from the file's name, the line and its number. Raises DataError with every problem of a
    damaged file.
    """
    return [entry for purpose, name in OLDER_FILES.items() for entry in rows_of_older_label_file(out / name, purpose)]


def rows_of_older_label_file(path: Path, purpose: Purpose) -> list[NewLabelStoreRow]:
    """The rows of one file. A line that says `withdrawn` becomes an undo of each label of that picture before it."""
    found: list[NewLabelStoreRow] = []
    counting: dict[tuple[str, str, str], list[str]] = defaultdict(list)  # ids of the labels that count, of a picture
    problems = []
    try:
        rows = files.read_jsonl(path)
    except FileNotFoundError:  # another process has taken it in meanwhile
        return []
    for number, row in enumerate(rows, start=1):
        try:
            own_id = uuid_from_content(path.name, number, row)
        except rfc8785.CanonicalizationError as error:  # NaN, or a number that JSON cannot hold exactly
            problems.append(f"row {number}: {error}")
            continue
        if "sha256" not in row:
            found.append(NewLabelStoreRow(purpose, "terms", row, own_id))
            continue
        try:
            label = StoredLabel.model_validate({"why": ""} | row)
        except ValidationError as error:
            problems += [f"row {number}: {problem}" for problem in validation_problems(error)]
            continue
        same_picture = counting[label.sha256, label.policy_sha256, label.under]
        if label.withdrawn:
            for taken in same_picture:
                undo = Undo(takes_back=taken, who=label.who)
                found.append(
                    NewLabelStoreRow(
                        purpose, "undo", undo.json_data_without_defaults(), uuid_from_content(own_id, number, taken)
                    )
                )
            same_picture.clear()
        else:
            found.append(NewLabelStoreRow(purpose, "label", label_content(label), own_id))
            same_picture.append(own_id)
    if problems:
        raise DataError(
            f"{files.display_path(path)} is not as stylegate writes it:",
            problems,
            "remove it; labels that are in a CSV file can be given again.",
        )
    return found


def label_content(label: StoredLabel) -> dict[str, Any]:
    """The content of a label's row: what was said. Its id and its time are columns of their own."""
    return {"why": label.why} | label.content_without_id_and_time()


def uuid_from_content(*parts: object) -> str:
    """A UUID computed from JSON data: the same for the same data."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, files.canonical_sha256(list(parts))))
