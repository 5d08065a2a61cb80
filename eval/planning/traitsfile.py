"""Read a traits file and report every problem of it at once."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from eval.planning.contradictions import problems_between_parts, template_problems
from eval.planning.traits import MAX_VALUES, TraitsFile, spec_of_value
from stylegate import files
from stylegate.errors import DataError
from stylegate.records import problems_of

MAX_BYTES = 1_000_000  # of a traits file: YAML is read slowly, and nobody writes a longer one
SHOWN_PROBLEMS = 40  # problems that one message lists


def read_traits(path: Path) -> TraitsFile:
    """Read and check a traits file. Raises DataError listing every problem."""
    if path.is_file() and path.stat().st_size > MAX_BYTES:
        raise DataError(f"{files.display_path(path)} has more than {MAX_BYTES // 1_000_000} MB: no traits file")
    data = with_numbers_named(files.read_yaml(path, "traits file", words=True))
    content, problems = validated(data)
    if isinstance(data.get("prompt"), str) and isinstance(data.get("traits"), dict):
        problems += template_problems(data["prompt"], {"trigger", *data["traits"]})
    if content:
        written = {trait: set(values) for trait, values in data["traits"].items() if isinstance(values, dict)}
        problems += problems_between_parts(content, written)
    if problems or content is None:
        more = [f"and {len(problems) - SHOWN_PROBLEMS} more"] if len(problems) > SHOWN_PROBLEMS else []
        raise DataError(
            f"{files.display_path(path)}:",
            problems[:SHOWN_PROBLEMS] + more,
            "docs/plan.md explains a file; data/traits/collectible.yaml is an example.",
        )
    return content


def with_numbers_named(data: dict[str, Any]) -> dict[str, Any]:
    """The content of a file in which every value is a mapping: `crown: 3` becomes weight or count 3, as it says."""
    key = "count" if data.get("numbers") == "counts" else "weight"
    traits = data.get("traits")
    if not isinstance(traits, dict):
        return data
    written = {
        trait: {value: with_number_under_key(spec_of_value(str(value), spec), key) for value, spec in values.items()}
        if isinstance(values, dict) and len(values) <= MAX_VALUES
        else values
        for trait, values in traits.items()
    }
    return data | {"traits": written}


def with_number_under_key(spec: dict[str, Any], key: str) -> dict[str, Any]:
    return {key if word == "number" else word: written for word, written in spec.items()}


def validated(data: dict[str, Any]) -> tuple[TraitsFile | None, list[str]]:
    """The file as far as it can be read, and its problems: what is wrong is taken out so that the rest is checked too.

    None where a part is missing or nothing is left.
    """
    try:
        return TraitsFile.model_validate(data), []
    except ValidationError as error:
        problems = problems_of(error)
        whole = [found["loc"] for found in error.errors(include_url=False)]
    for place in whole:
        data = without_entry(data, [part for part in place if part != "[key]"])
    try:
        return TraitsFile.model_validate(data), problems
    except ValidationError:
        return None, problems


def without_entry(data: Any, place: list[int | str]) -> Any:
    """A copy of nested data without the entry at `place`; an entry of a list is emptied, so that others keep theirs."""
    if not place or not isinstance(data, dict | list):
        return data
    first, rest = place[0], place[1:]
    if isinstance(data, list):
        return [item for i, item in enumerate(data) if i != first]
    if first not in data:
        return data
    if rest and isinstance(data[first], dict | list):
        return data | {first: without_entry(data[first], rest)}
    return {key: value for key, value in data.items() if key != first}
