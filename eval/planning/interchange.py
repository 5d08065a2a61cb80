"""What studios have, read into a traits file and written from a plan: HashLips layers, CSV, OpenSea's JSON.

    stylegate plan import=layers                       a folder: layer/value#weight.png
    stylegate plan import=items.csv                    a row an item, a column a trait
    stylegate plan import=metadata                     a folder of JSON, or one file with a list of them
    stylegate plan ... out=items.csv | out=DIR.json | out=DIR.layers

A column of several values in a cell, divided by " / ", ";" or "|", becomes as many traits as it takes: values that no
item has together share one.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.planning import picture, rarity
from eval.planning.traits import MAX_VALUES, NAME, NONE, value_name
from eval.planning.traitsfile import read_traits
from stylegate import files, tables
from stylegate.config import Config
from stylegate.errors import DataError

DIVIDERS = re.compile(r"\s+/\s+|\s*[;|]\s*")
IDS = ("id", "token_id", "tokenid", "token", "index", "slot", "edition", "#")  # columns that name an item
NOT_TRAITS = ("name", "description", "image", "image_url", "external_url", "dna", "rank", "score", "unique_values")
SHOWN = 8  # items or values that a line names
PIXEL = bytes.fromhex(  # a transparent PNG of one pixel, for layers that have no picture
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360000002000001e221bc330000000049454e44ae426082"
)
Cells = dict[str, list[str]]  # of an item: trait -> its values, none to several


def import_collection(config: Config) -> int:
    """Write a traits file of a collection or of layers; print what was found. Returns 0."""
    source = Path(config.import_file or "").expanduser()
    if not source.exists():
        raise DataError(f"import={config.import_file}: there is no such file or folder")
    name = config.name or re.sub(r"[^\w.-]+", "-", source.stem).strip("-.") or "collection"
    target = Path(config.out).expanduser() if config.out else files.TRAITS[0] / f"{name}.yaml"
    if source.is_dir() and not any(source.rglob("*.json")):
        found, notes, items = traits_of_layer_folder(source), [], []
    else:
        cells, notes = read_items(source)
        notes += notes_on_equal_items(cells)
        items, tally, more = one_value_per_trait(cells)
        notes += more
        found = file_of_counts(items, tally)
    text = traits_file_text(found, f"stylegate plan import={source.name}", len(items))
    for note in notes:
        print(f"note: {note}")
    if items:
        for line in picture.counts_and_rarity_in_words(items):
            print(line)
    if config.show:
        return 0
    if target.exists() and target.read_text(encoding="utf-8") != text:
        raise DataError(f"{files.display_path(target)} exists already", next_step="give another name= or out=.")
    fresh = not target.exists()
    files.write_atomically(target, text)
    try:
        read_traits(target)  # what is imported is a sound traits file, or it is not written
    except DataError:
        if fresh:
            target.unlink()
        raise
    if items:
        files.write_atomically(target.with_suffix(".rarity.csv"), rarity.as_csv(items))
        files.write_atomically(target.with_suffix(".png"), picture.counts_and_rarity_as_png(items))
    size = f" plan.num_images={len(items)}" if items else ""
    print(f"traits: {files.display_path(target)}; a plan of it: traits={files.display_path(target)}{size}")
    return 0


def read_items(source: Path) -> tuple[list[Cells], list[str]]:
    """The items of a collection in a table, a JSON file or a folder of JSON files (OpenSea's metadata).

    Returns for each item its values by trait, and notes for people. Raises DataError with the problems, at most 40.
    """
    if source.is_dir() or source.suffix.lower() == ".json":
        return items_of_json(source)
    table = tables.read_table(source)
    problems, notes = list(table.problems), []
    traits = [c for c in table.columns if c not in IDS and c not in NOT_TRAITS]
    left = [c for c in table.columns if c not in traits]
    if left:
        notes.append(f"columns that are no traits: {', '.join(left)}")
    if not traits or not table.rows:
        problems.append("needs a row an item and a column a trait")
    if problems:
        raise DataError(f"import={source}:", problems[:40])
    several = {c for c in traits if any(DIVIDERS.search(str(row.cells.get(c) or "")) for row in table.rows)}
    return [{c: cell_values(row.cells.get(c), c in several) for c in traits} for row in table.rows], notes


def cell_values(cell: Any, several: bool) -> list[str]:
    text = "" if cell is None else str(cell).strip()
    parts = DIVIDERS.split(text) if several else [text]
    return [part.strip() for part in parts if part.strip() and part.strip().lower() != NONE]


def items_of_json(source: Path) -> tuple[list[Cells], list[str]]:
    """OpenSea's metadata: `attributes` of `trait_type` and `value`, in a file an item, or all in a list."""
    paths = sorted(source.rglob("*.json"), key=lambda p: (len(p.name), p.name)) if source.is_dir() else [source]
    items, problems, notes, numeric = [], [], [], 0
    for path in paths:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError, OSError) as error:
            problems.append(f"{path.name}: {error}")
            continue
        many = content if isinstance(content, list) else [content]
        if source.is_dir() and isinstance(content, list) and len(paths) > 1:
            notes.append(f"{path.name} is a list of items beside files of one; it is left out")
            continue
        for number, item in enumerate(many):
            attributes = item.get("attributes") if isinstance(item, dict) else None
            sound = isinstance(attributes, list) and all(
                isinstance(a, dict) and isinstance(a.get("trait_type"), str) and "value" in a for a in attributes
            )
            if not sound or attributes is None:
                problems.append(f"{path.name}, item {number}: needs attributes of trait_type and value")
                continue
            cells: Cells = {}
            for attribute in attributes:
                if attribute.get("display_type"):
                    numeric += 1
                    continue
                cells.setdefault(attribute["trait_type"].strip(), []).extend(cell_values(attribute["value"], False))
            items.append(cells)
    if problems or not items:
        raise DataError(f"import={source}:", problems[:40] or ["holds no item"])
    if numeric:
        notes.append(f"attributes with a display_type are numbers, dates or boosts and no traits: {numeric}")
    traits = list(dict.fromkeys(trait for item in items for trait in item))
    return [{trait: item.get(trait, []) for trait in traits} for item in items], notes


def notes_on_equal_items(items: Sequence[Cells]) -> list[str]:
    """A note for each group of items that are equal in every trait."""
    groups: dict[str, list[int]] = {}
    for number, item in enumerate(items):
        groups.setdefault(json.dumps({t: sorted(v) for t, v in item.items()}, sort_keys=True), []).append(number)
    same = [group for group in groups.values() if len(group) > 1]
    if not same:
        return []
    named = "; ".join(" and ".join(map(str, group)) for group in same[:SHOWN])
    more = "; ..." if len(same) > SHOWN else ""
    return [
        f"the same item stands more than once, rows from 0: {named}{more} ({len(same)} in all); a plan has each once"
    ]


def one_value_per_trait(items: Sequence[Cells]) -> tuple[list[dict[str, str]], dict[str, list[str]], list[str]]:
    """One value for each trait and item, `none` where there is none; the traits that count others; and notes for
    people.

    A column of numbers that is how many values another one has stays so: it becomes a tally.
    """
    rows: list[dict[str, str]] = [{} for _ in items]
    tally: dict[str, list[str]] = {}
    names, notes = list(items[0]), []
    known: dict[str, str] = {}
    for name in names:
        plain = " ".join(re.sub(r"[^\w]+", " ", name).split())
        plain = plain if NAME.fullmatch(plain) and plain != "trigger" else f"trait {plain}".strip()
        while plain in known.values():
            plain += " again"
        known[name] = plain
        if plain != name:
            notes.append(f"the trait {name!r} is called {plain!r}: a prompt has it in brackets")
    for name in names:
        values = [item[name] for item in items]
        if max(map(len, values)) <= 1:
            for row, there in zip(rows, values, strict=True):
                row[known[name]] = there[0] if there else NONE
            continue
        groups = group_values_that_never_meet(values)
        parts = [f"{known[name]} {i}" for i in range(1, len(groups) + 1)]
        notes.append(f"{name} has up to {max(map(len, values))} values: {len(parts)} traits, {parts[0]} to {parts[-1]}")
        part_of = {value: parts[i] for i, group in enumerate(groups) for value in group}
        for row, there in zip(rows, values, strict=True):
            row.update(dict.fromkeys(parts, NONE))
            row.update({part_of[value]: value for value in there})
        for other in names:
            if other != name and all(
                item[other] == [str(len(there))] for item, there in zip(items, values, strict=True)
            ):
                tally[known[other]] = parts
                notes.append(f"{other} is the number of values of {name}: a plan keeps that too")
    return rows, tally, notes


def group_values_that_never_meet(values: Sequence[Sequence[str]]) -> list[list[str]]:
    """The values of a column, put into groups so that no item has two values of one group: the values that meet most
    others first, each into the first group.
    """
    counts = Counter(value for there in values for value in set(there))
    meets: dict[str, set[str]] = {value: set() for value in counts}
    for there in values:
        if len(set(there)) < len(there):
            raise DataError(f"an item has the same value twice in a cell: {' / '.join(there)}")
        for value in there:
            meets[value] |= set(there) - {value}
    groups: list[list[str]] = []
    for value in sorted(counts, key=lambda value: (-len(meets[value]), -counts[value], value)):
        home = next((group for group in groups if not meets[value] & set(group)), None)
        if home is None:
            groups.append([value])
        else:
            home.append(value)
    return groups


def file_of_counts(items: Sequence[Mapping[str, str]], tally: dict[str, list[str]]) -> dict[str, Any]:
    """The content of a traits file with the exact number of items of each value.

    `tally` names the traits whose value is a number, and for each the traits that it counts; they become rules.tally
    and are not put into the prompt. Raises DataError for a trait with more than MAX_VALUES values, and for values that
    cannot be names.
    """
    traits: dict[str, Any] = {}
    problems = []
    for trait, counts in picture.value_counts(items).items():
        if len(counts) > MAX_VALUES:
            problems.append(f"{trait} has {len(counts)} values, at most {MAX_VALUES} are read")
        for value, _ in counts[: MAX_VALUES + 1]:
            try:
                value_name(value)
            except ValueError as error:
                problems.append(f"{trait}: {value[:40]!r}: {error}")
        traits[trait] = dict(counts)
    if problems:
        raise DataError("the collection cannot become a traits file:", problems[:40])
    prompt = "{trigger}, " + ", ".join(f"{{{trait}}}" for trait in traits if trait not in tally)
    return {"prompt": prompt, "numbers": "counts", "traits": traits} | ({"rules": {"tally": tally}} if tally else {})


def traits_of_layer_folder(folder: Path) -> dict[str, Any]:
    """The content of a traits file for HashLips' layers: a folder for each trait, a picture for each value, with its
    `#weight` at the end of its name (1 where there is none).
    """
    traits: dict[str, dict[str, Any]] = {}
    problems = []
    for layer in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        name = " ".join(re.sub(r"[^\w]+", " ", layer.name).split())
        name = name if NAME.fullmatch(name) and name != "trigger" else f"trait {name}".strip()
        values: dict[str, Any] = {}
        for path in sorted(p for p in layer.iterdir() if p.is_file() and not p.name.startswith(".")):
            stem, mark, weight = path.stem.rpartition("#")
            value, weight = (stem, weight) if mark else (path.stem, "1")
            value = value.partition("#")[0].strip()
            if not re.fullmatch(r"\d+(\.\d+)?", weight) or float(weight) <= 0:
                problems.append(f"{layer.name}/{path.name}: {weight or 'nothing'} is no weight above 0")
            elif value in values:
                problems.append(f"{layer.name}/{path.name}: {value} stands twice")
            else:
                values[NONE if value.lower() == NONE else value] = float(weight)
        if not values and not problems:
            problems.append(f"{layer.name}: holds no picture")
        if name in traits:
            problems.append(f"{layer.name}: reads like another layer, {name}")
        traits[name] = values
    if problems or not traits:
        raise DataError(f"import={folder}:", problems[:40] or ["needs folders of pictures, or JSON files"])
    return {"prompt": "{trigger}, " + ", ".join(f"{{{trait}}}" for trait in traits), "traits": traits}


def traits_file_text(content: dict[str, Any], command: str, size: int) -> str:
    """The text of a traits file. Every word stands in quotes: names of values may look like anything."""

    def quoted(text: str) -> str:
        return json.dumps(text, ensure_ascii=False)

    lines = [f"# {command}", f"# {size} items; numbers are exact counts." if size else "# Numbers are weights."]
    lines.append(f"prompt: {quoted(content['prompt'])}")
    lines += [f"numbers: {content['numbers']}"] if "numbers" in content else []
    lines.append("traits:")
    for trait, values in content["traits"].items():
        lines.append(f"  {quoted(trait)}:")
        lines += [f"    {quoted(value)}: {number:g}" for value, number in values.items()]
    if tally := content.get("rules", {}).get("tally"):
        lines += ["rules:", "  tally:"]
        lines += [f"    {quoted(trait)}: [{', '.join(map(quoted, counted))}]" for trait, counted in tally.items()]
    return "\n".join(lines) + "\n"


def export_items(target: Path, items: Sequence[Mapping[str, str]]) -> str:
    """Write items as CSV, as a folder of OpenSea's JSON (NAME.json), or of HashLips' layers (NAME.layers)."""
    if not any(items):
        raise DataError("out= writes traits, and this plan has none", next_step="plan with traits=.")
    if target.suffix not in (".csv", ".json", ".layers"):
        raise DataError(f"out={target}: ends in none of .csv, .json, .layers", next_step="choose one of them.")
    if target.exists():
        raise DataError(f"out={target} exists already", next_step="give another out=.")
    if target.suffix == ".csv":
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["id", *items[0]])
        table.writerows([number, *item.values()] for number, item in enumerate(items))
        files.write_atomically(target, text.getvalue())
    elif target.suffix == ".json":
        files.write_folder_atomically(target, lambda folder: write_json_items(folder, items))
    else:
        files.write_folder_atomically(target, lambda folder: write_layers(folder, items))
    return files.display_path(target)


def write_json_items(folder: Path, items: Sequence[Mapping[str, str]]) -> None:
    for number, item in enumerate(items):
        attributes = [{"trait_type": trait, "value": value} for trait, value in item.items() if value != NONE]
        content = {"name": f"#{number}", "image": f"{number}.png", "attributes": attributes}
        (folder / f"{number}.json").write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")


def write_layers(folder: Path, items: Sequence[Mapping[str, str]]) -> None:
    for trait, counts in picture.value_counts(items).items():
        (folder / trait).mkdir()
        for value, count in counts:
            if re.search(r"[/\\#\0]", value) or value.startswith("."):
                raise DataError(f"{trait}: {value} cannot be the name of a layer's file")
            (folder / trait / f"{value}#{count}.png").write_bytes(PIXEL)
