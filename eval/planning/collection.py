"""Read the items of a collection that exists: a table, or the metadata that OpenSea shows.

A column of several values in a cell, divided by " / ", ";" or "|", becomes as many traits as it takes: values that no
item has together share one.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eval.planning.traits import NAME, NONE
from stylegate import listing, tables
from stylegate.errors import DataError

DIVIDERS = re.compile(r"\s+/\s+|\s*[;|]\s*")
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://\S*", re.IGNORECASE)
# Columns that are no traits, in lower case without spaces and signs. Those of the second line are none where they hold
# numbers alone, as in our own rarity.csv: a rank may be "Captain" too.
NOT_TRAITS = ("id", "itemid", "tokenid", "token", "index", "slot", "edition", "", "name", "description", "image")
NOT_TRAITS += ("imageurl", "externalurl", "animationurl", "dna", "filename", "uniquevalues")
NO_TRAITS_IN_NUMBERS = ("rank", "score", "rarityrank", "rarityscore")
ALL_DIFFERENT = 20  # items from which on a column whose values all differ names them, and is no trait
MANY_VALUES = 0.5  # values for each item above which a note asks whether a column is a trait
LIKE_ABSENCE = ("n/a", "na", "-", "--", "null", "nan", "nil", "no", "nothing", "empty", "blank", "missing")
SHOWN = 8  # items, files or values that a line names
Cells = dict[str, list[str]]  # of an item: trait -> its values, none to several


class CollectionItems(NamedTuple):
    """The items of a collection, as they were found."""

    items: list[Cells]  # for each item its values by trait; all items have the same traits
    places: list[str]  # where each item stands, as "line 4" or "17.json"
    notes: list[str]  # for people: what was left out, and what may be a mistake


def read_collection(source: Path) -> CollectionItems:
    """Read a table (CSV or JSON Lines), a JSON file with a list of items, or a folder of JSON files.

    Raises DataError with the problems, at most 40.
    """
    if source.is_dir() or source.suffix.lower() == ".json":
        return read_opensea_collection(source)
    table = tables.read_table(source)
    headings = dict(zip(table.columns, table.headings, strict=True))
    traits, notes = trait_columns_and_notes(table)
    problems = list(table.problems)
    if not traits or not table.rows:
        problems.append("needs a row an item and a column a trait")
    if problems:
        raise DataError(f"import={source}:", problems[:40])
    several = {c for c in traits if any(DIVIDERS.search(str(row.cells.get(c) or "")) for row in table.rows)}
    items = [{headings[c]: values_in_cell(row.cells.get(c), c in several) for c in traits} for row in table.rows]
    return CollectionItems(items, [f"line {row.line}" for row in table.rows], notes)


def trait_columns_and_notes(table: tables.TableFileContent) -> tuple[list[str], list[str]]:
    """The columns of a table that are traits, and notes for people about those that are none or may be none."""
    traits: list[str] = []
    left: list[str] = []
    notes: list[str] = []
    for column, heading in zip(table.columns, table.headings, strict=True):
        cells = [str(value).strip() for row in table.rows if (value := row.cells.get(column)) not in (None, "")]
        different = len(set(cells)) if len(table.rows) >= ALL_DIFFERENT else 0
        if is_no_trait_column(column, cells):
            left.append(heading)
        elif different == len(table.rows):
            left.append(f"{heading} (it is different for each item)")
        else:
            traits.append(column)
            if different > MANY_VALUES * len(table.rows) and not any(map(DIVIDERS.search, cells)):
                notes.append(f"{heading} has {different} values in {len(table.rows)} items: a trait? Else delete it")
    return traits, [*([f"columns that are no traits: {', '.join(left)}"] if left else []), *notes]


def is_no_trait_column(column: str, cells: Sequence[str]) -> bool:
    """Whether a column is no trait, such as a number, a name or a picture: by its heading, or since its cells are
    addresses.
    """
    plain = re.sub(r"[\W_]+", "", column)
    numbers = all(re.fullmatch(r"[0-9.,]+", cell) for cell in cells)
    addresses = bool(cells) and all(ADDRESS.fullmatch(cell) for cell in cells)
    return plain in NOT_TRAITS or addresses or (plain in NO_TRAITS_IN_NUMBERS and numbers)


def values_in_cell(cell: Any, several: bool) -> list[str]:
    """The values in a cell, without `none`: one at most, or with `several` those between DIVIDERS."""
    text = "" if cell is None else str(cell).strip()
    parts = DIVIDERS.split(text) if several else [text]
    return [part.strip() for part in parts if part.strip() and part.strip().lower() != NONE]


def json_files_below(folder: Path) -> list[Path]:
    """The JSON files below a folder, 2.json before 10.json. Hidden ones are left out, such as macOS's ._2.json.

    Raises OSError for a folder that cannot be read: its items would be passed over.
    """
    found = listing.list_folder(folder)
    paths = [path for path in (*found.pictures, *found.beside) if path.suffix.lower() == ".json"]
    return sorted(paths, key=lambda path: (len(path.name), path.name))


def read_opensea_collection(source: Path) -> CollectionItems:
    """Read OpenSea's metadata, `attributes` of `trait_type` and `value`: a folder with a JSON file an item, or one file
    with a list. Raises DataError with the problems, at most 40.
    """
    paths = json_files_below(source) if source.is_dir() else [source]
    items, places, problems, notes, numeric = [], [], [], [], 0
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
            place = f"{path.name}, item {number}" if isinstance(content, list) else path.name
            attributes = item.get("attributes") if isinstance(item, dict) else None
            sound = isinstance(attributes, list) and all(
                isinstance(a, dict) and isinstance(a.get("trait_type"), str) and "value" in a for a in attributes
            )
            if not sound or attributes is None:
                problems.append(f"{place}: needs attributes of trait_type and value")
                continue
            cells: Cells = {}
            for attribute in attributes:
                if attribute.get("display_type"):
                    numeric += 1
                    continue
                cells.setdefault(attribute["trait_type"].strip(), []).extend(values_in_cell(attribute["value"], False))
            items.append(cells)
            places.append(place)
    if problems or not items:
        raise DataError(f"import={source}:", problems[:40] or ["holds no item"])
    if numeric:
        notes.append(f"attributes with a display_type are numbers, dates or boosts and no traits: {numeric}")
    traits = list(dict.fromkeys(trait for item in items for trait in item))
    return CollectionItems([{trait: item.get(trait, []) for trait in traits} for item in items], places, notes)


def notes_on_equal_items(found: CollectionItems) -> list[str]:
    """A note that names the items that are equal in every trait; none where all differ."""
    groups: dict[str, list[str]] = {}
    for item, place in zip(found.items, found.places, strict=True):
        groups.setdefault(json.dumps({t: sorted(v) for t, v in item.items()}, sort_keys=True), []).append(place)
    same = [group for group in groups.values() if len(group) > 1]
    if not same:
        return []
    named = "; ".join(" and ".join(group[:SHOWN]) for group in same[:SHOWN])
    more = "; ..." if len(same) > SHOWN else ""
    return [f"the same item stands more than once: {named}{more} ({len(same)} in all); a plan has each once"]


def notes_on_values_like_none(values: dict[str, list[str]]) -> list[str]:
    """A note that names the values, by trait, that read like absence and are not `none`: a prompt would say them."""
    found = [f"{trait}: {value}" for trait, names in values.items() for value in names if value.lower() in LIKE_ABSENCE]
    if not found:
        return []
    return [f"values that read like absence, which is `none` or an empty cell: {'; '.join(found[:SHOWN])}"]


def valid_trait_name_from(text: str, taken: Sequence[str] = ()) -> str:
    """A name for a trait that a prompt can have in brackets: letters, digits, _ and single spaces; unlike `taken`."""
    plain = " ".join(re.sub(r"[^\w]+", " ", text).split())
    plain = plain if NAME.fullmatch(plain) and plain != "trigger" else f"trait {plain}".strip()
    while plain in taken:
        plain += " again"
    return plain


def items_with_one_value_per_trait(
    found: CollectionItems,
) -> tuple[list[dict[str, str]], dict[str, list[str]], list[str]]:
    """(for each item one value of each trait, `none` where it has none; tallies, trait -> traits that it counts; notes
    for people).

    A trait with several values in one item is split into several traits, "hat 1", "hat 2" and so on. A column of
    numbers that says how many values another one has becomes a tally. Raises DataError with the items, at most 40, that
    have the same value of a trait twice.
    """
    items = found.items
    twice = [
        f"{place}, {trait}: {' / '.join(values)}"
        for item, place in zip(items, found.places, strict=True)
        for trait, values in item.items()
        if len(set(values)) < len(values)
    ]
    if twice:
        raise DataError("items that have a value twice:", twice[:40])
    rows: list[dict[str, str]] = [{} for _ in items]
    tally: dict[str, list[str]] = {}
    names, notes = list(items[0]), []
    known: dict[str, str] = {}
    for name in names:
        known[name] = valid_trait_name_from(name, list(known.values()))
        if known[name] != name:
            notes.append(f"the trait {name!r} is called {known[name]!r}: a prompt has it in brackets")
    taken = list(known.values())
    for name in names:
        values = [item[name] for item in items]
        if max(map(len, values)) <= 1:
            for row, there in zip(rows, values, strict=True):
                row[known[name]] = there[0] if there else NONE
            continue
        groups = group_values_that_never_meet(values)
        parts: list[str] = []
        for i in range(1, len(groups) + 1):
            parts.append(valid_trait_name_from(f"{known[name]} {i}", taken))
            taken.append(parts[-1])
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
    """The values of a column, put into groups so that no item has two values of one group.

    `values` holds the values of each item. Those that meet most others come first, each into the first group it fits.
    """
    counts = Counter(value for there in values for value in set(there))
    meets: dict[str, set[str]] = {value: set() for value in counts}
    for there in values:
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
