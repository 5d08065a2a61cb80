"""Read a traits file and report every problem of it at once."""

import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from eval.planning.contradictions import contradictions_between_traits_file_parts, prompt_template_problems
from eval.planning.traits import MAX_VALUES, TraitsFile, value_as_mapping
from stylegate import files
from stylegate.errors import DataError
from stylegate.records import validation_problems

MAX_BYTES = 1_000_000  # of a traits file: YAML is read slowly, and nobody writes a longer one
SHOWN_PROBLEMS = 40  # problems that one message lists


def read_traits_file(path: Path) -> TraitsFile:
    """Read and check a traits file. Raises DataError listing every problem."""
    if path.is_file() and path.stat().st_size > MAX_BYTES:
        raise DataError(f"{files.display_path(path)} has more than {MAX_BYTES // 1_000_000} MB: no traits file")
    data = with_numbers_as_weights_or_counts(files.read_yaml(path, "traits file", words=True))
    content, problems, left = valid_traits_part_and_problems(data)
    if isinstance(data.get("prompt"), str) and isinstance(data.get("traits"), dict):
        problems += prompt_template_problems(data["prompt"], {"trigger", *data["traits"]})
    if content:
        written = {trait: set(values) for trait, values in data["traits"].items() if isinstance(values, dict)}
        problems += [
            renumber_entries_in_problem_text(problem, left)
            for problem in contradictions_between_traits_file_parts(content, written)
        ]
    if problems or content is None:
        more = [f"and {len(problems) - SHOWN_PROBLEMS} more"] if len(problems) > SHOWN_PROBLEMS else []
        raise DataError(
            f"{files.display_path(path)}:",
            problems[:SHOWN_PROBLEMS] + more,
            "docs/plan.md explains a file; data/traits/collectible.yaml is an example.",
        )
    return content


def with_numbers_as_weights_or_counts(data: dict[str, Any]) -> dict[str, Any]:
    """The content of a file in which every value is a mapping: `crown: 3` becomes weight or count 3, as it says."""
    key = "count" if data.get("numbers") == "counts" else "weight"
    traits = data.get("traits")
    if not isinstance(traits, dict):
        return data
    written = {
        trait: {
            value: rename_number_to_weight_or_count(value_as_mapping(str(value), spec), key)
            for value, spec in values.items()
        }
        if isinstance(values, dict) and len(values) <= MAX_VALUES
        else values
        for trait, values in traits.items()
    }
    return data | {"traits": written}


def rename_number_to_weight_or_count(spec: dict[str, Any], key: str) -> dict[str, Any]:
    """A value's mapping in which the key `number` is called `key`, weight or count; what is None becomes ""."""
    named = {key if word == "number" else word: written for word, written in spec.items()}
    return {word: "" if written is None else written for word, written in named.items()}  # `crown: ` is no weight


def valid_traits_part_and_problems(data: dict[str, Any]) -> tuple[TraitsFile | None, list[str], dict[str, list[int]]]:
    """The traits file as far as it is valid, and its problems: what is wrong is taken out so that the rest is checked
    too.

    None where a part is missing or nothing is left. The third value says for each list from which entries were taken
    out ("rules.forbid") which entries of the file are left, by their numbers there.
    """
    try:
        return TraitsFile.model_validate(data), [], {}
    except ValidationError as error:
        problems = validation_problems(error)
        faulty = {
            path_cut_after_list_index([part for part in found["loc"] if part != "[key]"]) for found in error.errors()
        }
    left: dict[str, list[int]] = {}
    for place in sorted(faulty, key=lambda place: [(isinstance(part, int), part) for part in place], reverse=True):
        if isinstance(whole := value_at_path_in_nested_data(data, place[:-1]), list) and isinstance(place[-1], int):
            name = ".".join(map(str, place[:-1]))
            left.setdefault(name, list(range(len(whole)))).remove(place[-1])
        data = without_entry(data, place)
    try:
        return TraitsFile.model_validate(data), problems, left
    except ValidationError:
        return None, problems, left


def path_cut_after_list_index(place: list[int | str]) -> tuple[int | str, ...]:
    """The place of the entry to take out: of a list the whole entry, else what stands at the place itself."""
    return tuple(place[: next((i for i, part in enumerate(place) if isinstance(part, int)), len(place)) + 1])


def value_at_path_in_nested_data(data: Any, place: tuple[int | str, ...]) -> Any:
    """What stands at a place (keys and numbers of entries) of nested data; None where nothing does."""
    for part in place:
        if isinstance(data, dict):
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int):
            data = data[part]
        else:
            return None
    return data


def without_entry(data: Any, place: tuple[int | str, ...]) -> Any:
    """A copy of nested data without the entry at `place` (keys, and for a list the number of its entry at the end).

    Later entries of the list move up. The data is returned unchanged where nothing stands at the place.
    """
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


def renumber_entries_in_problem_text(problem: str, left: dict[str, list[int]]) -> str:
    """A problem in which the entries of lists have the numbers that they have in the file."""
    for name, numbers in left.items():
        pattern = rf"\b{re.escape(name)}\[(\d+)\]"
        problem = re.sub(pattern, lambda found, n=numbers, name=name: f"{name}[{n[int(found[1])]}]", problem)
    return problem
