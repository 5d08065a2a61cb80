"""Read the traits of HashLips' layers: a folder for each trait, a picture `value#weight.png` for each value."""

import re
from pathlib import Path
from typing import Any

from eval.planning.collection import SHOWN, notes_on_values_like_none, valid_trait_name_from
from eval.planning.traits import NONE
from stylegate import listing
from stylegate.errors import DataError

ORDER = re.compile(r"^\d+[\s._-]+")  # before a layer's name: which one lies on top


def traits_content_of_layers(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The content of a traits file with weights (1 where a name has none), and notes for people.

    Raises DataError with the problems, at most 40.
    """
    layers = sorted(path for path in folder.iterdir() if path.is_dir() and not listing.is_hidden(path.name))
    traits: dict[str, dict[str, Any]] = {}
    problems, others = [], []
    for layer, name in zip(layers, trait_names_of_layers([layer.name for layer in layers]), strict=True):
        values: dict[str, Any] = {}
        for path in sorted(path for path in layer.iterdir() if not listing.is_hidden(path.name)):
            if path.is_dir() or path.suffix.lower() not in listing.SUFFIXES:
                others.append(f"{layer.name}/{path.name}")
                continue
            stem, mark, weight = path.stem.rpartition("#")
            value, weight = (stem, weight) if mark else (path.stem, "1")
            value = value.partition("#")[0].strip()
            value = NONE if value.lower() == NONE else value
            if not re.fullmatch(r"\d+(\.\d+)?", weight) or float(weight) <= 0:
                problems.append(f"{layer.name}/{path.name}: {weight or 'nothing'} is no weight above 0")
            elif value in values:
                problems.append(f"{layer.name}/{path.name}: {value} stands twice")
            else:
                values[value] = int(weight) if weight.isdecimal() else float(weight)
        if not values and not any(text.startswith(f"{layer.name}/") for text in problems):
            problems.append(f"{layer.name}: holds no picture")
        traits[name] = values
    if problems or not traits:
        raise DataError(f"import={folder}:", problems[:40] or ["needs folders of pictures, or JSON files"])
    more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
    notes = [f"no pictures, so no values: {', '.join(others[:SHOWN])}{more}"] if others else []
    notes += notes_on_values_like_none({trait: list(values) for trait, values in traits.items()})
    return {"prompt": "{trigger}, " + ", ".join(f"{{{trait}}}" for trait in traits), "traits": traits}, notes


def trait_names_of_layers(layers: list[str]) -> list[str]:
    """The names of traits for folders of layers, without the numbers that order them: `01 Background`."""
    plain = [ORDER.sub("", name) for name in layers]
    names: list[str] = []
    for layer, name in zip(layers, plain, strict=True):
        names.append(valid_trait_name_from(name if plain.count(name) == 1 else layer, names))
    return names
