"""Files with a schema: pydantic models, and one message with every problem of a file that does not fit its model.

`python -m eval.schemas` writes the JSON Schema of each file to docs/schemas/.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from stylegate import files
from stylegate.errors import DataError

# Looking for plugins of pydantic, of which none is used here, opens a file of every installed package (10 ms).
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


class Record(BaseModel):
    """A JSON object with known fields: unknown ones, wrong types, NaN and Inf are refused.

    Validators are built when a record is first used, since most commands use few of the records. The texts below the
    fields are read by `python -m eval.schemas` alone: reading the sources costs each command 70 ms.
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, populate_by_name=True, defer_build=True)

    @classmethod
    def from_json_text(cls, content: bytes | str, what: str, next_step: str = "") -> Self:
        """The object that a JSON text holds. Raises DataError that starts with `what` and lists every problem."""
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            raise DataError(f"{what} is not as stylegate writes it:", validation_problems(error), next_step) from None

    @classmethod
    def from_table_row(cls, row: Mapping[str, Any], what: str, next_step: str = "") -> Self:
        """The object that a row of JSON Lines holds. Raises DataError that starts with `what`, with every problem."""
        try:
            return cls.model_validate(row)
        except ValidationError as error:
            raise DataError(f"{what} is not as stylegate writes it:", validation_problems(error), next_step) from None

    @classmethod
    def read_json_file(cls, path: Path, what: str, next_step: str = "") -> Self:
        """The object that a JSON file holds. Raises DataError if it is missing, or with every problem that it has."""
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise DataError(f"{what} is missing: {files.display_path(path)}", next_step=next_step) from None
        return cls.from_json_text(content, f"{what} {files.display_path(path)}", next_step)

    def json_data_without_defaults(self) -> dict[str, Any]:
        """The record as JSON data. A field that has a default and holds it is left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)

    def write_json_file(self, path: Path) -> None:
        """Write the record as a JSON file, whole or not at all."""
        files.write_atomically(
            path, json.dumps(self.json_data_without_defaults(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        )


def validation_problems(error: ValidationError) -> list[str]:
    """The problems that pydantic found, a text each: the place in the file, then what is wrong there."""
    return [
        f"{field_path_as_message_prefix(found['loc'])}{validation_error_in_words(found)}"
        for found in error.errors(include_url=False)
    ]


def field_path_as_message_prefix(location: tuple[int | str, ...]) -> str:
    """The place in a file, as the start of a message: "checks.style: " for ("checks", "style"), "" for the whole file.

    pydantic's mark "[key]" is left out: a bad key of a mapping has the place of its entry.
    """
    parts = [part for part in location if part != "[key]"]
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).removeprefix(".")
    return f"{text}: " if text else ""


MESSAGES = {  # type of a pydantic error -> our words
    "extra_forbidden": "unknown key",
    "missing": "missing",
    "bool_type": "must be true or false",
    "date_type": "must be a day, as 2027-01-31",
    "dict_type": "must be a mapping",
    "float_type": "must be a number",
    "list_type": "must be a list",
    "model_type": "must be a mapping",
    "string_type": "must be text",
    "tuple_type": "must be a list",
}


def validation_error_in_words(found: Any) -> str:
    """The message of one of pydantic's errors in plain words; those of our own validators are kept unchanged."""
    if found["type"] in MESSAGES:
        return MESSAGES[found["type"]]
    if found["type"] == "value_error":
        return str(found["ctx"]["error"])
    return found["msg"][:1].lower() + found["msg"][1:]
