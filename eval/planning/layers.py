"""Read the traits of HashLips' layers: a folder for each trait, a picture `value#weight.png` for each value."""

import math
import re
from pathlib import Path
from typing import Any

from eval.planning.collection import SHOWN, notes_on_values_like_none, valid_trait_name_from
from eval.planning.contradictions import problems_of_names_that_look_alike
from eval.planning.traits import NONE
from stylegate import listing, pictures
from stylegate.errors import DataError

NUMBER = re.compile(r"\d+")
ORDER = re.compile(r"^\d+[\s._-]+")  # before a layer's name: which one lies on top


def traits_content_of_layers(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The content of a traits file with weights (1 where a name has none), and notes for people.

    Every file is opened: what is no picture is no value, whatever its name. Raises DataError with the problems, at most
    40.
    """
    found = [path for path in folder.iterdir() if path.is_dir() and not listing.is_hidden(path.name)]
    layers = sorted(found, key=lambda path: sort_key_of_layer_folder(path.name))
    traits: dict[str, dict[str, Any]] = {}
    problems, others, unreadable = [], [], []
    for layer, name in zip(layers, trait_names_of_layers([layer.name for layer in layers]), strict=True):
        values: dict[str, Any] = {}
        said = len(problems)
        for path in sorted(path for path in layer.iterdir() if not listing.is_hidden(path.name)):
            shown = f"{layer.name}/{path.name}"
            if path.is_dir() or path.suffix.lower() not in listing.SUFFIXES:
                others.append(shown)
                continue
            if path.suffix.lower() == ".psd":  # Pillow would read it, and it is what a PNG beside it was saved from
                unreadable.append(f"{shown} (a working file of Photoshop: the layer is the PNG that is saved from it)")
                continue
            try:
                pictures.require_picture_file(path)
            except (pictures.PictureError, OSError) as error:
                unreadable.append(f"{shown} ({error})")
                continue
            value, weight = value_and_weight_in_file_name(path.stem)
            if not re.fullmatch(r"\d+(\.\d+)?", weight) or float(weight) <= 0:
                problems.append(f"{shown}: {weight or 'nothing'} is no weight above 0")
            elif value in values:
                problems.append(f"{shown}: {value} stands twice")
            else:
                values[value] = int(weight) if weight.isdecimal() else float(weight)
        problems += problems_of_names_that_look_alike(layer.name, values)
        if not values and len(problems) == said:
            unread = [text for text in unreadable if text.startswith(f"{layer.name}/")]
            problems.append(f"{layer.name}: holds no picture that can be read{': ' * bool(unread)}{', '.join(unread)}")
        traits[name] = values
    if problems or not traits:
        raise DataError(
            f"import={folder}:",
            problems[:40] or ["needs folders of pictures, or JSON files"],
            "a folder for each layer, a picture VALUE#WEIGHT.png for each value; take out of it what never comes.",
        )
    notes = [
        f"{what}, so no values: {', '.join(names[:SHOWN])}" + f" and {len(names) - SHOWN} more" * (len(names) > SHOWN)
        for what, names in (("cannot be read as pictures", unreadable), ("no pictures", others))
        if names
    ]
    notes += notes_on_values_like_none({trait: list(values) for trait, values in traits.items()})
    return {"prompt": "{trigger}, " + ", ".join(f"{{{trait}}}" for trait in traits), "traits": traits}, notes


def sort_key_of_layer_folder(name: str) -> tuple[float, str]:
    """A sort key for folders of layers: by the number in front (`2 Body` before `10 Hat`), those without one last."""
    number = NUMBER.match(name)
    return (int(number[0]) if number else math.inf, name)


def value_and_weight_in_file_name(stem: str) -> tuple[str, str]:
    """The value and its weight, as text, in the name of a layer's picture without its suffix; a weight of 1 may be left
    out.
    """
    before, mark, weight = stem.rpartition("#")
    value = (before if mark else stem).partition("#")[0].strip()
    return (NONE if value.lower() == NONE else value), weight if mark else "1"


def trait_names_of_layers(layers: list[str]) -> list[str]:
    """The names of traits for folders of layers, without the numbers that order them: `01 Background`."""
    plain = [ORDER.sub("", name) for name in layers]
    names: list[str] = []
    for layer, name in zip(layers, plain, strict=True):
        names.append(valid_trait_name_from(name if plain.count(name) == 1 else layer, names))
    return names
