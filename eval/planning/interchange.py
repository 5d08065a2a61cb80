"""What studios have, read into a traits file and written from a plan: HashLips layers, CSV, OpenSea's JSON.

    stylegate plan import=layers                       a folder: layer/value#weight.png
    stylegate plan import=items.csv                    a row an item, a column a trait
    stylegate plan import=metadata                     a folder of JSON, or one file with a list of them
    stylegate plan ... out=items.csv | out=DIR.json | out=DIR.layers

eval/planning/collection.py reads items, eval/planning/layers.py layers.
"""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.planning import picture, rarity
from eval.planning.collection import (
    items_with_one_value_per_trait,
    json_files_below,
    notes_on_equal_items,
    notes_on_values_like_none,
    read_collection,
)
from eval.planning.layers import traits_content_of_layers
from eval.planning.traits import MAX_VALUES, NONE, require_valid_value_name
from eval.planning.traitsfile import read_traits_file
from stylegate import brandset, files
from stylegate.config import Config
from stylegate.errors import ConfigError, DataError
from stylegate.words import counted

PIXEL = bytes.fromhex(  # a transparent PNG of one pixel, for layers that have no picture
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489"
    "0000000b4944415478da636000020000050001e9fadcd80000000049454e44ae426082"
)

CAPTIONS = 2  # of a brand, that are shown


def import_collection(config: Config) -> int:
    """Write a traits file of a collection or of layers, for a collection with rarity.csv and a chart beside it, and
    print what was found. With show=true nothing is written. Returns 0.
    """
    source = Path(config.import_file or "").expanduser()
    if not source.exists():
        raise DataError(f"import={config.import_file}: there is no such file or folder")
    name = config.name or re.sub(r"[^\w.-]+", "-", source.stem).strip("-.") or "collection"
    target = Path(config.out).expanduser() if config.out else files.TRAITS[0] / f"{name}.yaml"
    places: list[str] = []
    if source.is_dir() and not json_files_below(source):
        (found, notes), items = traits_content_of_layers(source), []
        if config.keep_items:
            raise ConfigError("keep_items= is for a table or metadata: a folder of layers holds no items")
    else:
        there = read_collection(source)
        places = there.places
        items, tally, more = items_with_one_value_per_trait(there)
        if config.keep_items:
            items, places = without_equal_items(items, places)
        found = traits_file_content_from_items(items, tally)
        notes = [*there.notes, *notes_on_equal_items(there), *more]
        notes += notes_on_values_like_none({trait: list(values) for trait, values in found["traits"].items()})
    command = f"stylegate plan import={source.name}{' keep_items=true' if config.keep_items else ''}"
    text = traits_file_text(found, command, len(items), items if config.keep_items else [])
    charts = [target.with_suffix(".rarity.csv"), target.with_suffix(".png")] if items else []
    same = target.exists() and target.read_text(encoding="utf-8") == text
    taken = [path for path in (target, *charts) if path.exists()] if not (config.show or same) else []
    if taken:
        listed, verb = " and ".join(map(files.display_path, taken)), "exists" if len(taken) == 1 else "exist"
        raise DataError(f"{listed} {verb} already", next_step="give another name= or out=.")
    for note in notes:
        print(f"note: {note}")
    if items:
        for line in picture.counts_and_rarity_in_words(
            items, lambda pair: is_pair_where_one_counts_other(pair, tally), places
        ):
            print(line)
        for line in whether_items_are_kept_in_words(source.name, places, config.keep_items):
            print(line)
    if config.show:
        return 0
    write_traits_file_if_valid(target, text, source)
    if items:
        files.write_atomically(target.with_suffix(".rarity.csv"), rarity.rarity_table_as_csv(items))
        files.write_atomically(target.with_suffix(".png"), picture.counts_and_rarity_as_png(items))
    print(f"written: {files.display_path(target)}, {counted(len(found['traits']), 'trait')}")
    print_next_step_after_import(target, len(items), config.brand)
    return 0


def is_pair_where_one_counts_other(pair: Mapping[str, str], tally: Mapping[str, Sequence[str]]) -> bool:
    """Whether one trait of the pair is the number of some traits of which the other is one."""
    return any(trait in pair and pair.keys() & set(parts) for trait, parts in tally.items())


def without_equal_items(
    items: Sequence[dict[str, str]], places: Sequence[str]
) -> tuple[list[dict[str, str]], list[str]]:
    """The items and their places, of items that are equal in every trait only the first: a plan has each once."""
    first: dict[tuple, int] = {}
    for number, item in enumerate(items):
        first.setdefault(tuple(sorted(item.items())), number)
    return [items[number] for number in first.values()], [places[number] for number in first.values()]


def whether_items_are_kept_in_words(source: str, places: Sequence[str], keep_items: bool) -> list[str]:
    """Lines that say which item of a collection becomes which slot, or that a plan makes other items of its values."""
    if keep_items:
        return [f"note: each item keeps its values: {places[0]} is slot 0, and {places[-1]} is slot {len(places) - 1}"]
    return [
        "note: a plan keeps how often each value comes, but combines the values anew: its slots are not the items of",
        f"      {source}. With keep_items=true out=./kept.yaml each item stays as it is, in the order of the file.",
    ]


def write_traits_file_if_valid(target: Path, text: str, source: Path) -> None:
    """Write `text`, the traits file of the collection `source`, to `target`.

    Raises DataError with its problems, and leaves no new file, if it cannot be read again.
    """
    fresh = not target.exists()
    files.write_atomically(target, text)
    try:
        read_traits_file(target)
    except DataError as error:
        if fresh:
            target.unlink()
        step = "mend them in the collection; nothing was written."
        raise DataError(
            f"import={source}: a traits file of it would have problems:", error.problems or [error.summary], step
        ) from None


def print_next_step_after_import(target: Path, size: int, brand: str | None) -> None:
    """Print what to do with a new traits file of `size` items (0 for layers, which do not say how many), and captions
    of the brand, if one is named, that show how its prompts read.
    """
    shown = files.display_path(target)
    path = shown if "/" in shown else f"./{shown}"
    named = target.stem if target.parent == files.TRAITS[0] else path
    folder = brandset.brand_folder(brand) if brand else None
    place = f"{files.display_path(folder) if folder else 'the brand set'}/train/metadata.jsonl"
    print(f"Next: write the prompt in {shown} as the captions in {place} read (docs/plan.md). Then")
    print(f"      stylegate plan brand={brand or 'NAME'} traits={named} plan.num_images={size or 'N'} show=true")
    if folder:
        learned = brandset.read_brand_set(folder).splits["train"]
        print("captions that the LoRA learns from:")
        for item in learned[:: max(1, len(learned) // CAPTIONS)][:CAPTIONS]:
            print(f"      {item.text}")


def traits_file_content_from_items(items: Sequence[Mapping[str, str]], tally: dict[str, list[str]]) -> dict[str, Any]:
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
                require_valid_value_name(value)
            except ValueError as error:
                problems.append(f"{trait}: {value[:40]!r}: {error}")
        traits[trait] = dict(counts)
    if problems:
        raise DataError("the collection cannot become a traits file:", problems[:40])
    prompt = "{trigger}, " + ", ".join(f"{{{trait}}}" for trait in traits if trait not in tally)
    return {"prompt": prompt, "numbers": "counts", "traits": traits} | ({"rules": {"tally": tally}} if tally else {})


def traits_file_text(content: dict[str, Any], command: str, size: int, kept: Sequence[Mapping[str, str]] = ()) -> str:
    """The text of a traits file. Every word stands in quotes: names of values may look like anything.

    `size` is the number of items, 0 for layers. `kept` are items that a plan leaves as they are; the first is slot 0.
    """

    def in_double_quotes(text: str) -> str:
        """A text as YAML writes it in double quotes."""
        return json.dumps(text, ensure_ascii=False)

    def number_and_phrase_as_yaml(value: str, number: float) -> str:
        """What stands behind a value: its number, and words for the prompt where an underscore stands for a space."""
        words = " ".join(value.replace("_", " ").split())
        return f"{{{key}: {number}, phrase: {in_double_quotes(words)}}}" if "_" in value and words else str(number)

    key = "count" if size else "weight"
    lines = [f"# {command}", f"# {size} items; numbers are exact counts." if size else "# Numbers are weights."]
    lines.append("# The prompt of every picture: write it as your captions read. {trait} stands for the value,")
    lines.append("# or for words of its own that you give it, as in")
    lines.append(f'#     "Crown": {{{key}: 3, phrase: "a golden crown"}}')
    lines.append(f"prompt: {in_double_quotes(content['prompt'])}")
    lines += [f"numbers: {content['numbers']}"] if "numbers" in content else []
    lines.append("traits:")
    for trait, values in content["traits"].items():
        lines.append(f"  {in_double_quotes(trait)}:")
        lines += [
            f"    {in_double_quotes(value)}: {number_and_phrase_as_yaml(value, number)}"
            for value, number in values.items()
        ]
    if tally := content.get("rules", {}).get("tally"):
        lines += ["rules:", "  tally:"]
        lines += [
            f"    {in_double_quotes(trait)}: [{', '.join(map(in_double_quotes, parts))}]"
            for trait, parts in tally.items()
        ]
    lines += ["one_of_ones:"] if kept else []
    for slot, item in enumerate(kept):
        values = ", ".join(f"{in_double_quotes(trait)}: {in_double_quotes(value)}" for trait, value in item.items())
        lines.append(f"  - {{slot: {slot}, traits: {{{values}}}}}")
    return "\n".join(lines) + "\n"


def export_items(target: Path, items: Sequence[Mapping[str, str]], called: Sequence[str] = ()) -> str:
    """Write items as CSV, as a folder of OpenSea's JSON (NAME.json), or of HashLips' layers (NAME.layers). Returns the
    path as it is shown to people. Raises DataError if `target` exists or has another ending.

    `called` is the name of each item, "" for its number. A table has a column of names if any item has one.
    """
    if not any(items):
        raise DataError("out= writes traits, and this plan has none", next_step="plan with traits=.")
    if target.suffix not in (".csv", ".json", ".layers"):
        raise DataError(f"out={target}: ends in none of .csv, .json, .layers", next_step="choose one of them.")
    if target.exists():
        raise DataError(f"out={target} exists already", next_step="give another out=.")
    if target.suffix == ".csv":
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        names = list(dict.fromkeys(name for item in items for name in item))
        named = ["name"] if any(called) and "name" not in names else []
        table.writerow(["id", *named, *names])
        for number, item in enumerate(items):
            table.writerow([number, *(called[number] for _ in named), *(item.get(name, "") for name in names)])
        files.write_atomically(target, text.getvalue())
    elif target.suffix == ".json":
        files.write_folder_atomically(target, lambda folder: write_opensea_items(folder, items, called))
    else:
        files.write_folder_atomically(target, lambda folder: write_hashlips_layers(folder, items))
    return files.display_path(target)


def write_opensea_items(folder: Path, items: Sequence[Mapping[str, str]], called: Sequence[str]) -> None:
    """Write OpenSea's metadata of each item into `folder`: 0.json, 1.json and so on."""
    for number, (item, name) in enumerate(zip(items, called or [""] * len(items), strict=True)):
        attributes = [{"trait_type": trait, "value": value} for trait, value in item.items() if value != NONE]
        content = {"name": name or f"#{number}", "image": f"{number}.png", "attributes": attributes}
        (folder / f"{number}.json").write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")


def write_hashlips_layers(folder: Path, items: Sequence[Mapping[str, str]]) -> None:
    """Write a folder for each trait into `folder`, with an empty picture VALUE#COUNT.png for each value. Raises
    DataError for a value that cannot be a file's name.
    """
    for trait, counts in picture.value_counts(items).items():
        (folder / trait).mkdir()
        for value, count in counts:
            if re.search(r"[/\\#\0]", value) or value.startswith("."):
                raise DataError(f"{trait}: {value} cannot be the name of a layer's file")
            (folder / trait / f"{value}#{count}.png").write_bytes(PIXEL)
