"""What a traits file holds: the values of each trait with their counts or weights, the rules, how a prompt says it.

docs/plan.md explains a file line by line; eval/planning/traitsfile.py reads one.
"""

import re
import unicodedata
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from stylegate.records import Record

MAX_WEIGHT = 1e9
MAX_VALUES = 10_000  # of one trait
MAX_TEXT = 200  # characters of a name
NUMBER = re.compile(r"(0|[1-9][0-9]*)(\.[0-9]*)?([eE][+-]?[0-9]{1,3})?|\.[0-9]+")
WHOLE = re.compile(r"0|[1-9][0-9]{0,6}")
NAME = re.compile(r"[^\W\d]\w*( \w+)*")  # of a trait
NONE = "none"  # the value of a trait that is absent: counted like any other, and without words in the prompt


def parse_weight(written: Any) -> Any:
    """The weight that a traits file writes as text, as a float above 0. Raises ValueError if it is none."""
    if isinstance(written, float):
        return written
    if not isinstance(written, str) or not NUMBER.fullmatch(written) or not 0 < float(written) <= MAX_WEIGHT:
        said = "nothing" if written == "" else written
        raise ValueError(f"{said} is not a number above 0, at most {MAX_WEIGHT:g} (leave out what never comes)")
    return float(written)


def parse_count(written: Any) -> Any:
    """The count that a traits file writes as text, as an int. Raises ValueError if it is none."""
    if isinstance(written, int):
        return written
    if not isinstance(written, str) or not WHOLE.fullmatch(written):
        raise ValueError(f"{'nothing' if written == '' else written} is not a whole number from 0 to 9999999")
    return int(written)


def require_valid_trait_name(name: str) -> str:
    """The name if a trait can have it. Raises ValueError otherwise."""
    if not NAME.fullmatch(name) or name == "trigger" or len(name) > MAX_TEXT:
        raise ValueError("a trait's name is of letters, digits, _ and single spaces, and not `trigger`")
    return name


def require_valid_value_name(name: str) -> str:
    """The name if a value can have it. Raises ValueError otherwise."""
    if not name.strip() or name != name.strip() or len(name) > MAX_TEXT:
        raise ValueError(f"a value has 1 to {MAX_TEXT} characters, without spaces around them; `none` is for absence")
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name):
        raise ValueError("a value has no control characters in it")
    return name


def require_valid_file_name(name: str) -> str:
    """The name if a file can have it on any machine. Raises ValueError otherwise."""
    if not re.fullmatch(r"\w[\w. -]*", name) or ".." in name or len(name) > MAX_TEXT:
        raise ValueError("a name is of letters, digits, spaces, . _ and -, and begins with a letter or a digit")
    return name


def values_as_list(written: Any) -> Any:
    """The values of a condition: one word, or a list of them."""
    return [written] if isinstance(written, str) else written


def require_some_entry(found: Any) -> Any:
    """The mapping or list if it has an entry. Raises ValueError otherwise."""
    if not found:
        raise ValueError("is empty")
    return found


Weight = Annotated[float, BeforeValidator(parse_weight, json_schema_input_type=float)]
Count = Annotated[int, BeforeValidator(parse_count, json_schema_input_type=int), Field(ge=0)]
Names = Annotated[
    list[str],
    BeforeValidator(values_as_list, json_schema_input_type=str | list[str]),
    AfterValidator(require_some_entry),
]
Condition = Annotated[dict[str, Names], AfterValidator(require_some_entry)]  # trait -> the values that count as meant


class TraitValue(Record):
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


def value_as_mapping(name: str, spec: Any) -> Any:
    """A value as a mapping: a file may write `value: number` for its weight (or its count, in a file of counts)."""
    return {"phrase": "" if name == NONE else name} | (spec if isinstance(spec, dict) else {"number": spec})


def require_value_mapping(values: Any) -> Any:
    """The mapping of a trait's values, unchanged. Raises ValueError for no mapping, an empty one, or one of more than
    MAX_VALUES.
    """
    if not isinstance(values, dict) or not values:
        raise ValueError("needs a mapping of values to weights")
    if len(values) > MAX_VALUES:
        raise ValueError(f"has {len(values)} values, at most {MAX_VALUES} are read")
    return values


Values = Annotated[
    dict[Annotated[str, AfterValidator(require_valid_value_name)], TraitValue],
    BeforeValidator(require_value_mapping, json_schema_input_type=dict[str, float | TraitValue]),
]


class IfThenTraitRule(Record):
    """What a slot must have where it has something else."""

    when: Condition
    """The traits and values that ask for it; all of them must be there."""
    then: Condition
    """The traits and values that must then be there, all of them."""


class CombinationCountLimit(Record):
    """A limit on how many slots may have a combination of values."""

    of: Condition
    """The combination: for each trait the values that count."""
    at_least: Count = 0
    """The fewest slots."""
    at_most: Count | None = None
    """The most slots."""


class TraitRules(Record):
    """The rules of a traits file: which values may and which must occur together, and how often."""

    forbid: list[Condition] = Field(default_factory=list)
    """Combinations of two or more traits that no slot has."""
    require: list[IfThenTraitRule] = Field(default_factory=list)
    """What must come with something else. Requirements do not run in a circle."""
    limit: list[CombinationCountLimit] = Field(default_factory=list)
    """Caps and floors of values and combinations."""
    tally: dict[str, list[str]] = Field(default_factory=dict)
    """A trait whose values are numbers -> the traits of which as many are not `none`."""


class OneOfOne(Record):
    """A slot that is designed by hand. What it does not name is chosen as for any slot."""

    traits: Annotated[dict[str, str], AfterValidator(require_some_entry)]
    """Its values; one that the trait does not list exists for the one-of-ones alone."""
    slot: Count | None = None
    """The slot that it takes, from 0; left out: one at random."""
    name: Annotated[str, AfterValidator(require_valid_file_name)] | None = None
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
    traits: Annotated[
        dict[Annotated[str, AfterValidator(require_valid_trait_name)], Values], AfterValidator(require_some_entry)
    ]
    """The values of each trait."""
    rules: TraitRules = Field(default_factory=TraitRules)
    """Combinations that are forbidden, required, capped."""
    one_of_ones: list[OneOfOne] = Field(default_factory=list)
    """Slots that are designed by hand."""

    def phrase_of_value_in_prompt(self, trait: str, value: str) -> str:
        """The words for a value in the prompt."""
        spec = self.traits[trait].get(value)
        return spec.phrase if spec else value
