"""Propose a plan for the next drop from what the last one told: sales, holdings, engagement.

    stylegate signals sales.csv traits=collectible package=data/exports/neon-v1    rows of items: id, then numbers
    stylegate signals clicks.csv traits=./acme.yaml out=./next.yaml                rows of values: trait, value, numbers

Prints a diff of the traits file with the reason for each change, and writes the proposal to out= alone. Only weights
change, to at most the double or the half. Exact counts, tiers, rules, at_least and at_most stay: they are the supply
that was promised, and `stylegate plan` keeps them exactly. A proposal that no plan of slots=N slots can keep (else as
many as the package was planned with) is refused. A person accepts the proposal by planning with it.
"""

import difflib
import json
import math
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from eval.package.layout import is_bag
from eval.package.living import traits_of_package, traits_of_plan
from eval.package.proof import package_problems
from eval.planning.problem import make_plan_constraints
from eval.planning.solve import require_feasible_and_return_spare_bits
from eval.planning.traits import MAX_WEIGHT, NUMBER
from eval.planning.traitsfile import read_traits_file
from stylegate import files, tables
from stylegate.errors import ConfigError, DataError

USAGE = "stylegate signals FILE.csv traits=FILE [package=data/exports/NAME-vN] [out=NEXT.yaml] [slots=N]"
SLOTS = "slots=N proposes for a plan of another size."
MOST = 2.0  # times its weight that a value gets at most; at least one over it
PRIOR = 5  # items with the mean of all that a value is thought to have besides its own: few items say little
STEP = 0.05  # changes of a weight below this share are left out
NAMED = 20  # problems of a table that one message lists

Pair = tuple[str, str]  # a trait and its value


class ColumnMeanRatioOfTraitValue(NamedTuple):
    """How far a column's mean over the rows of one trait value is above or below its mean over all rows of that trait:
    a ratio, drawn towards 1 where the rows are few.
    """

    column: str
    items: int
    """Rows of items (or of the value) that it was computed from."""
    ratio: float
    """The mean of these rows, drawn towards the mean of all by PRIOR rows, over the mean of all."""

    def reason_for_new_weight_in_words(self, trait: str) -> str:
        """The evidence as the reason for another weight of a value of `trait`."""
        rows = "1 row" if self.items == 1 else f"{self.items} rows"
        return f"{self.column} {self.ratio:.2f} of the mean of {trait} ({rows})"


def signals(words: Sequence[str]) -> int:
    """Print the proposal as a diff with reasons; write it if out= is given. Returns 0.

    Raises ConfigError for words of another kind, DataError for a table or a package that cannot be used.
    """
    table_path, told = parse_command_words(words)
    traits_path = files.resolve_name_or_path(told["traits"], files.TRAITS, "traits", ".yaml")
    file = read_traits_file(traits_path)
    rows = read_traits_and_metrics_by_row(table_path, told.get("package"))
    evidence = column_mean_ratios_by_trait_value(rows)
    written = files.read_yaml(traits_path, "traits file", words=True)
    proposed, reasons, kept = propose_trait_weights(written, file.numbers == "counts", evidence)
    if unknown := [f"{trait}: {value}" for trait, value in evidence if value not in written["traits"].get(trait, {})]:
        more = f" and {len(unknown) - NAMED} more" if len(unknown) > NAMED else ""
        kept.append(f"left out, since {traits_path.name} does not have it: {', '.join(unknown[:NAMED])}{more}")
    before, after = traits_file_as_yaml(written), traits_file_as_yaml(proposed)
    if reasons and (slots := num_slots_of_next_plan(told)):
        refuse_infeasible_traits(after, slots)
    elif reasons:
        kept.append("whether a plan can keep these weights was not looked at: slots=N says of how many slots")
    name = traits_path.name
    diff = difflib.unified_diff(before.splitlines(), after.splitlines(), name, f"{name} (proposed)", lineterm="", n=1)
    print("\n".join([*diff, *(f"  {reason}" for reason in reasons)] if reasons else ["nothing is to be changed"]))
    for line in kept:
        print(f"note: {line}")
    if "out" in told:
        files.write_atomically(Path(told["out"]).expanduser(), after)
        print(f"written: {told['out']}; stylegate plan traits={told['out']} keeps its counts and rules")
    return 0


def num_slots_of_next_plan(told: Mapping[str, str]) -> int:
    """The number of slots of the next plan: slots=, else that of the plan of package=; 0 where nothing says it."""
    if "slots" in told:
        return int(told["slots"])
    return len(traits_of_plan(Path(told["package"]))) if "package" in told else 0


def refuse_infeasible_traits(text: str, slots: int) -> None:
    """Raises DataError if it is certain that no plan of `slots` slots has the counts and keeps the rules of a traits
    file; `text` is the file's content.
    """
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "proposed.yaml")
        path.write_text(text)
        try:
            require_feasible_and_return_spare_bits(make_plan_constraints(read_traits_file(path), slots))
        except DataError as error:
            raise DataError(
                f"no proposal: {error.summary}",
                error.problems,
                f"{error.next_step} {SLOTS}",
            ) from None


def parse_command_words(words: Sequence[str]) -> tuple[Path, dict[str, str]]:
    """The path of the table, and the values of traits=, package=, out= and slots= by name. Raises ConfigError for
    anything else.
    """
    plain = [word for word in words if "=" not in word]
    told = dict(word.split("=", 1) for word in words if "=" in word)
    if len(plain) != 1 or "traits" not in told or told.keys() - {"traits", "package", "out", "slots"}:
        raise ConfigError("signals takes one table and the traits file of the last plan", next_step=USAGE)
    if not re.fullmatch("[1-9][0-9]{0,6}", told.get("slots", "1")):
        raise ConfigError(f"slots={told['slots']} is no number of slots", next_step=USAGE)
    if "out" in told and Path(told["out"]).expanduser().exists():
        raise ConfigError(f"{told['out']} exists", next_step="give a new file.")
    if "out" in told and not files.is_path(told["out"]):
        raise ConfigError(f"out={told['out']} is no path", next_step=f"out=./{told['out']}")
    return Path(plain[0]).expanduser(), told


class DumperWithUnquotedNumbers(yaml.SafeDumper):
    """Writes texts that are numbers without quotes: in a traits file every word is text."""


def node_with_numbers_unquoted(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """The YAML node of a text: a text that is a number is written without quotes."""
    if NUMBER.fullmatch(text):
        return dumper.represent_scalar(dumper.resolve(yaml.ScalarNode, text, (True, False)), text)
    return dumper.represent_str(text)


DumperWithUnquotedNumbers.add_representer(str, node_with_numbers_unquoted)


def traits_file_as_yaml(content: Mapping[str, Any]) -> str:
    """The content of a traits file as YAML text, its keys in the order given."""
    return yaml.dump(content, Dumper=DumperWithUnquotedNumbers, sort_keys=False, allow_unicode=True, width=120)


def read_traits_and_metrics_by_row(path: Path, package: str | None) -> list[tuple[list[Pair], dict[str, float]]]:
    """For each row of the table the (trait, value) pairs that it is about, and its numbers by column.

    Raises DataError listing what is wrong with the table.
    """
    table = tables.read_table(path)
    if table.problems:
        raise DataError(f"{path}:", table.problems)
    of_items, of_values = "id" in table.columns, {"trait", "value"} <= set(table.columns)
    if of_items == of_values:
        raise DataError(f"{path} has neither a column id nor columns trait and value", next_step=USAGE)
    if of_items and package is None:
        raise DataError(f"{path} names items by id: which traits do they have?", next_step=USAGE)
    traits = traits_of_verified_package(Path(package or "")) if of_items else {}
    problems, rows = [], []
    for row in table.rows:
        try:
            pairs = (
                trait_value_pairs_of_item(row.cells.get("id"), traits)
                if of_items
                else [trait_and_value_named_in_row(row.cells)]
            )
            cells = {name: cell for name, cell in row.cells.items() if name not in ("id", "trait", "value")}
            numbers = {name: float(cell) for name, cell in cells.items() if cell not in ("", None)}
            if not all(0 <= number < math.inf for number in numbers.values()):
                raise ValueError("numbers below 0, or none")
            rows.append((pairs, numbers))
        except (TypeError, ValueError) as error:
            problems.append(f"line {row.line}: {error}")
    if problems or not rows:
        raise DataError(
            f"{path}:", problems[:NAMED] or ["it has no rows"], "an id or trait and value, then numbers from 0."
        )
    return rows


def trait_and_value_named_in_row(cells: Mapping[str, Any]) -> Pair:
    """The (trait, value) that a row of the table names. Raises ValueError unless both are text."""
    trait, value = cells.get("trait"), cells.get("value")
    if not (isinstance(trait, str) and isinstance(value, str)):
        raise ValueError(f"trait is {json.dumps(trait)} and value is {json.dumps(value)}; both must be text")
    return trait, value


def trait_value_pairs_of_item(written: Any, traits: Mapping[int, Mapping[str, str]]) -> list[Pair]:
    """The (trait, value) pairs of the item whose id a row of the table names, from the traits of each item by id.

    Raises ValueError if it is no id of an item.
    """
    item = int(written) if re.fullmatch(r"\s*[0-9]+\s*", str(written)) else -1
    if item not in traits:
        raise ValueError(f"the package has no item with the id {json.dumps(written, ensure_ascii=False)}")
    return list(traits[item].items())


def traits_of_verified_package(package: Path) -> dict[int, dict[str, str]]:
    """The traits of each item of a package, by id of the item. Raises DataError for a package that does not hold."""
    if problems := package_problems(package) if is_bag(package) else [f"{package} is no bag"]:
        raise DataError(f"{package} does not hold:", problems[:NAMED])
    return traits_of_package(package)


def column_mean_ratios_by_trait_value(
    rows: Sequence[tuple[list[Pair], dict[str, float]]],
) -> dict[Pair, list[ColumnMeanRatioOfTraitValue]]:
    """What each column says of each (trait, value), compared with all rows that name the trait; `rows` are those of
    `read_traits_and_metrics_by_row`.
    """
    found: dict[Pair, list[ColumnMeanRatioOfTraitValue]] = {}
    for column in dict.fromkeys(name for _, numbers in rows for name in numbers):
        by_value: dict[Pair, list[float]] = {}
        for pairs, numbers in rows:
            for pair in pairs if column in numbers else ():
                by_value.setdefault(pair, []).append(numbers[column])
        for trait in dict.fromkeys(trait for trait, _ in by_value):
            every = [number for (name, _), numbers in by_value.items() if name == trait for number in numbers]
            if not (mean := sum(every) / len(every)):
                continue
            for (name, value), numbers in by_value.items():
                if name == trait:
                    ratio = (sum(numbers) + PRIOR * mean) / (len(numbers) + PRIOR) / mean
                    found.setdefault((trait, value), []).append(
                        ColumnMeanRatioOfTraitValue(column, len(numbers), ratio)
                    )
    return found


def propose_trait_weights(
    written: Mapping[str, Any], plain_is_count: bool, evidence: Mapping[Pair, list[ColumnMeanRatioOfTraitValue]]
) -> tuple[dict[str, Any], list[str], list[str]]:
    """The content of the traits file with other weights, a sentence for each change, and one for each value that had to
    stay.

    `written` is the content now; `plain_is_count` says that a bare number in it is a count and not a weight.
    """
    traits: dict[str, Any] = {}
    reasons, kept = [], []
    for trait, values in written["traits"].items():
        traits[trait] = dict(values)
        for value, spec in values.items():
            said = evidence.get((trait, value))
            if not said:
                continue
            factor = math.prod(found.ratio for found in said) ** (1 / len(said))
            factor = min(max(factor, 1 / MOST), MOST)
            in_words = ", ".join(found.reason_for_new_weight_in_words(trait) for found in said)
            if abs(factor - 1) < STEP:
                continue
            fixed = plain_is_count if not isinstance(spec, dict) else "count" in spec or "tier" in spec
            fixed |= isinstance(spec, dict) and "number" in spec and plain_is_count
            if fixed:
                kept.append(f"{trait}: {value} stays as it is, its count or tier was promised ({in_words})")
                continue
            weight = float(spec.get("weight", 1) if isinstance(spec, dict) else spec)
            new = f"{min(weight * factor, MAX_WEIGHT):.3g}"
            traits[trait][value] = spec | {"weight": new} if isinstance(spec, dict) else new
            reasons.append(f"{trait}: {value} {weight:g} -> {new}: {in_words}")
    return dict(written) | {"traits": traits}, reasons, kept
