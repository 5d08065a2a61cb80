"""A traits file: the values of each trait with their counts or weights, the rules, and how a prompt says it.

docs/plan.md explains a file line by line. Reading reports every problem at once.
"""

import re
import unicodedata
from collections import Counter
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from stylegate import files
from stylegate.errors import DataError
from stylegate.records import Record, problems_of

MAX_WEIGHT = 1e9
MAX_BYTES = 1_000_000  # of a traits file: YAML is read slowly, and nobody writes a longer one
MAX_VALUES = 10_000  # of one trait
MAX_TEXT = 200  # characters of a name
SHOWN_PROBLEMS = 40  # problems that one message lists
NUMBER = re.compile(r"(0|[1-9][0-9]*)(\.[0-9]*)?([eE][+-]?[0-9]{1,3})?|\.[0-9]+")
WHOLE = re.compile(r"0|[1-9][0-9]{0,6}")
NAME = re.compile(r"[^\W\d]\w*( \w+)*")  # of a trait
NONE = "none"  # the value of a trait that is absent: counted like any other, and without words in the prompt


def weight_of(written: Any) -> Any:
    """The number of a weight as it is written in a traits file, whose words all are text."""
    if isinstance(written, float):
        return written
    if not isinstance(written, str) or not NUMBER.fullmatch(written) or not 0 < float(written) <= MAX_WEIGHT:
        raise ValueError(f"{written} is not a number above 0, at most {MAX_WEIGHT:g} (leave out what never comes)")
    return float(written)


def whole_number(written: Any) -> Any:
    """The whole number of a count as it is written in a traits file."""
    if isinstance(written, int):
        return written
    if not isinstance(written, str) or not WHOLE.fullmatch(written):
        raise ValueError(f"{written} is not a whole number from 0 to 9999999")
    return int(written)


def trait_name(name: str) -> str:
    if not NAME.fullmatch(name) or name == "trigger" or len(name) > MAX_TEXT:
        raise ValueError("a trait's name is of letters, digits, _ and single spaces, and not `trigger`")
    return name


def value_name(name: str) -> str:
    if not name.strip() or name != name.strip() or len(name) > MAX_TEXT:
        raise ValueError(f"a value has 1 to {MAX_TEXT} characters, without spaces around them; `none` is for absence")
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name):
        raise ValueError("a value has no control characters in it")
    return name


def file_name(name: str) -> str:
    if not re.fullmatch(r"\w[\w. -]*", name) or ".." in name or len(name) > MAX_TEXT:
        raise ValueError("a name is of letters, digits, spaces, . _ and -, and begins with a letter or a digit")
    return name


def several_values(written: Any) -> Any:
    """The values of a condition: one word, or a list of them."""
    return [written] if isinstance(written, str) else written


def at_least_one(found: Any) -> Any:
    if not found:
        raise ValueError("is empty")
    return found


Weight = Annotated[float, BeforeValidator(weight_of, json_schema_input_type=float)]
Count = Annotated[int, BeforeValidator(whole_number, json_schema_input_type=int), Field(ge=0)]
Names = Annotated[
    list[str], BeforeValidator(several_values, json_schema_input_type=str | list[str]), AfterValidator(at_least_one)
]
Condition = Annotated[dict[str, Names], AfterValidator(at_least_one)]  # trait -> the values that count as meant


class Value(Record):
    """One value of a trait: how often it comes, and the words for it in the prompt."""

    weight: Weight | None = None
    """Above 0, at most 1e9. The slots that exact counts leave are shared among the values in proportion to weights."""
    count: Count | None = None
    """The exact number of slots."""
    tier: str | None = None
    """The name of a tier of the file, whose weight the value takes."""
    at_least: Count = 0
    """The fewest slots that a weight may come to."""
    at_most: Count | None = None
    """The most slots that a weight may come to."""
    phrase: str = ""
    """The words in the prompt where the trait's name stands; without them the value itself, and nothing for `none`."""


def spec_of_value(name: str, spec: Any) -> Any:
    """A value as a mapping: a file may write `value: number` for its weight (or its count, in a file of counts)."""
    return {"phrase": "" if name == NONE else name} | (spec if isinstance(spec, dict) else {"number": spec})


def values_of_trait(values: Any) -> Any:
    """The values of a trait as a file writes them. The word `number` becomes a weight or a count later."""
    if not isinstance(values, dict) or not values:
        raise ValueError("needs a mapping of values to weights")
    if len(values) > MAX_VALUES:
        raise ValueError(f"has {len(values)} values, at most {MAX_VALUES} are read")
    return values


Values = Annotated[
    dict[Annotated[str, AfterValidator(value_name)], Value],
    BeforeValidator(values_of_trait, json_schema_input_type=dict[str, float | Value]),
]


class Requirement(Record):
    """What a slot must have where it has something else."""

    when: Condition
    """The traits and values that ask for it; all of them must be there."""
    then: Condition
    """The traits and values that must then be there, all of them."""


class Limit(Record):
    """How many slots may have a combination, or one of several values."""

    of: Condition
    """The combination: for each trait the values that count."""
    at_least: Count = 0
    """The fewest slots."""
    at_most: Count | None = None
    """The most slots."""


class Rules(Record):
    """What may stand together."""

    forbid: list[Condition] = Field(default_factory=list)
    """Combinations of two or more traits that no slot has."""
    require: list[Requirement] = Field(default_factory=list)
    """What must come with something else. Requirements do not run in a circle."""
    limit: list[Limit] = Field(default_factory=list)
    """Caps and floors of values and combinations."""
    tally: dict[str, list[str]] = Field(default_factory=dict)
    """A trait whose values are numbers -> the traits of which as many are not `none`."""


class OneOfOne(Record):
    """A slot that is designed by hand. What it does not name is chosen as for any slot."""

    traits: Annotated[dict[str, str], AfterValidator(at_least_one)]
    """Its values; one that the trait does not list exists for the one-of-ones alone."""
    slot: Count | None = None
    """The slot that it takes, from 0; left out: one at random."""
    name: Annotated[str, AfterValidator(file_name)] | None = None
    """What people call it."""
    prompt: str | None = None
    """Its own prompt, in place of that of the file."""
    seed: Count | None = None
    """The seed that the seeds of its attempts are made from; left out: as for any slot."""


class TraitsFile(Record):
    """A traits file: what the pictures of a plan may show, and how a prompt says it."""

    prompt: str
    """The prompt of every picture. {trait} stands for the phrase of the value, {trigger} for the brand's trigger."""
    negative_prompt: str = ""
    """What guidance leads away from, in every picture."""
    numbers: Literal["weights", "counts"] = "weights"
    """What a number behind a value is: its weight, or its exact count."""
    tiers: dict[str, Weight] = Field(default_factory=dict)
    """Weights with a name, as `rare: 1` and `common: 10`, which values take by `tier`."""
    traits: Annotated[dict[Annotated[str, AfterValidator(trait_name)], Values], AfterValidator(at_least_one)]
    """The values of each trait."""
    rules: Rules = Field(default_factory=Rules)
    """Combinations that are forbidden, required, capped."""
    one_of_ones: list[OneOfOne] = Field(default_factory=list)
    """Slots that are designed by hand."""

    def phrase(self, trait: str, value: str) -> str:
        """The words for a value in the prompt."""
        spec = self.traits[trait].get(value)
        return spec.phrase if spec else value


def read_traits(path: Path) -> TraitsFile:
    """Read and check a traits file. Raises DataError listing every problem."""
    if path.is_file() and path.stat().st_size > MAX_BYTES:
        raise DataError(f"{files.display_path(path)} has more than {MAX_BYTES // 1_000_000} MB: no traits file")
    data = with_numbers_named(files.read_yaml(path, "traits file", words=True))
    content, problems = validated(data)
    if isinstance(data.get("prompt"), str) and isinstance(data.get("traits"), dict):
        problems += prompt_problems(data["prompt"], {"trigger", *data["traits"]})
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
        trait: {value: named(spec_of_value(str(value), spec), key) for value, spec in values.items()}
        if isinstance(values, dict) and len(values) <= MAX_VALUES
        else values
        for trait, values in traits.items()
    }
    return data | {"traits": written}


def named(spec: dict[str, Any], key: str) -> dict[str, Any]:
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
        data = without(data, [part for part in place if part != "[key]"])
    try:
        return TraitsFile.model_validate(data), problems
    except ValidationError:
        return None, problems


def without(data: Any, place: list[int | str]) -> Any:
    """A copy of nested data without the entry at `place`; an entry of a list is emptied, so that others keep theirs."""
    if not place or not isinstance(data, dict | list):
        return data
    first, rest = place[0], place[1:]
    if isinstance(data, list):
        return [item for i, item in enumerate(data) if i != first]
    if first not in data:
        return data
    if rest and isinstance(data[first], dict | list):
        return data | {first: without(data[first], rest)}
    return {key: value for key, value in data.items() if key != first}


def prompt_problems(prompt: str, names: set[str], where: str = "prompt") -> list[str]:
    """A template may hold {name} and nothing else of str.format's language."""
    try:
        parts = list(Formatter().parse(prompt))
    except ValueError as error:
        return [f"{where}: {error}"]
    fields = [(field, spec, conversion) for _, field, spec, conversion in parts if field is not None]
    return [f"{where}: {{{f}}} names no trait" for f, s, c in fields if f not in names or s or c]


def problems_between_parts(file: TraitsFile, written: dict[str, set[str]]) -> list[str]:
    """What is wrong between parts that are sound by themselves. `written`: the values as the file has them."""
    problems = look_alikes("traits", file.traits)
    for trait, values in file.traits.items():
        problems += look_alikes(f"traits.{trait}", values)
        problems += [f"traits.{trait}.{name}{text}" for name, value in values.items() for text in faults(value, file)]
    for place, condition in conditions(file.rules):
        for trait, names in condition.items():
            known = written.get(trait)
            own = {one.traits.get(trait) for one in file.one_of_ones}
            if known is None:
                problems.append(f"{place}: there is no trait {trait}")
            problems += [f"{place}.{trait}: {trait} has no value {n}" for n in names if known and n not in known | own]
    problems += [
        f"rules.forbid[{i}]: names one trait; it takes two (a value that never comes is left out of the file)"
        for i, condition in enumerate(file.rules.forbid)
        if len(condition) == 1
    ]
    problems += [
        f"rules.limit[{i}]: at_least {limit.at_least} is above at_most {limit.at_most}"
        for i, limit in enumerate(file.rules.limit)
        if limit.at_most is not None and limit.at_least > limit.at_most
    ]
    return problems + circle_problems(file.rules) + tally_problems(file) + one_of_one_problems(file)


def faults(value: Value, file: TraitsFile) -> list[str]:
    told = [word for word in ("count", "weight", "tier") if getattr(value, word) is not None]
    problems = [f": has {' and '.join(told)}; one of them says how often it comes"] if len(told) > 1 else []
    if value.tier is not None and value.tier not in file.tiers:
        problems.append(f".tier: {value.tier} is no tier of the file")
    if value.at_most is not None and value.at_least > value.at_most:
        problems.append(f": at_least {value.at_least} is above at_most {value.at_most}")
    return problems


def look_alikes(place: str, names: Any) -> list[str]:
    """Names that differ by case, width, combining marks or spaces only: people would take them for one."""
    groups: dict[str, list[str]] = {}
    for name in names:
        plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", name).casefold())
        plain = " ".join("".join(letter for letter in plain if not unicodedata.combining(letter)).split())
        groups.setdefault(plain, []).append(name)
    return [f"{place}: {' and '.join(same)} look alike; use one name" for same in groups.values() if len(same) > 1]


def conditions(rules: Rules) -> list[tuple[str, dict[str, list[str]]]]:
    """Every condition of the rules, with its place in the file."""
    found = [(f"rules.forbid[{i}]", condition) for i, condition in enumerate(rules.forbid)]
    for i, rule in enumerate(rules.require):
        found += [(f"rules.require[{i}].when", rule.when), (f"rules.require[{i}].then", rule.then)]
    return found + [(f"rules.limit[{i}].of", limit.of) for i, limit in enumerate(rules.limit)]


def circle_problems(rules: Rules) -> list[str]:
    """Requirements that lead back to where they began."""
    leads: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for rule in rules.require:
        then = {(trait, name) for trait, names in rule.then.items() for name in names}
        for start in [(trait, name) for trait, names in rule.when.items() for name in names]:
            leads.setdefault(start, set()).update(then)

    def way_back(start: tuple[str, str]) -> list[tuple[str, str]] | None:
        open_, seen = [[start]], set()
        while open_:
            path = open_.pop()
            for after in leads.get(path[-1], ()):
                if after == start:
                    return path
                if after not in seen:
                    seen.add(after)
                    open_.append([*path, after])
        return None

    done: set[tuple[str, str]] = set()
    problems = []
    for start in leads:
        if start not in done and (path := way_back(start)):
            done |= set(path)
            words = " -> ".join(f"{trait}: {name}" for trait, name in [*path, start])
            problems.append(f"rules.require: runs in a circle: {words}")
    return problems


def tally_problems(file: TraitsFile) -> list[str]:
    problems = []
    for trait, counted in file.rules.tally.items():
        unknown = [name for name in [trait, *counted] if name not in file.traits]
        problems += [f"rules.tally.{trait}: there is no trait {name}" for name in unknown]
        if not unknown:
            odd = [name for name in file.traits[trait] if not WHOLE.fullmatch(name)]
            problems += [f"rules.tally.{trait}: its value {name} is no number" for name in odd]
        if not counted or trait in counted or len(set(counted)) < len(counted):
            problems.append(f"rules.tally.{trait}: needs a list of other traits, each once")
    return problems


def one_of_one_problems(file: TraitsFile) -> list[str]:
    """One-of-ones that break a rule, stand twice or name what does not exist."""
    problems = []
    for i, one in enumerate(file.one_of_ones):
        place = f"one_of_ones[{i}]"
        for trait, value in one.traits.items():
            if trait not in file.traits:
                problems.append(f"{place}: there is no trait {trait}")
                continue
            try:
                value_name(value)
            except ValueError as error:
                problems.append(f"{place}.traits.{trait}: {error}")
            if value not in file.traits[trait]:
                twins = look_alikes(f"{place}.traits.{trait}", [*file.traits[trait], value])
                problems += [text for text in twins if value in text]
        if one.prompt is not None:
            problems += prompt_problems(one.prompt, {"trigger", *file.traits}, f"{place}.prompt")
        problems += [f"{place}: breaks rules.{rule}" for rule in broken_rules(file.rules, one.traits)]
    for what, told in (
        ("slot", [str(one.slot) for one in file.one_of_ones if one.slot is not None]),
        ("name", [one.name for one in file.one_of_ones if one.name]),
    ):
        problems += [f"one_of_ones: {what} {word} is taken twice" for word, n in Counter(told).items() if n > 1]
    full = Counter(tuple(sorted(o.traits.items())) for o in file.one_of_ones if set(o.traits) >= set(file.traits))
    same = [dict(traits) for traits, n in full.items() if n > 1]
    return problems + [f"one_of_ones: {traits} stands twice" for traits in same]


def broken_rules(rules: Rules, traits: dict[str, str]) -> list[str]:
    """The rules that these traits break, whatever the traits that they do not name are."""

    def holds(condition: dict[str, list[str]]) -> bool:
        return all(traits.get(trait) in names for trait, names in condition.items())

    broken = [f"forbid[{i}]" for i, condition in enumerate(rules.forbid) if holds(condition)]
    return broken + [
        f"require[{i}]"
        for i, rule in enumerate(rules.require)
        if holds(rule.when) and any(traits.get(t) not in (*names, None) for t, names in rule.then.items())
    ]
