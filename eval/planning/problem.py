"""A plan as numbers: exact counts of every value, combinations that are forbidden or limited, cells that are given."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from eval.planning.traits import NONE, TraitsFile, TraitValue
from stylegate.errors import DataError

OPEN = -1  # a cell of a given row that the plan is free to choose


@dataclass(kw_only=True, slots=True, frozen=True)
class CombinationLimit:
    """A combination of values, and how many slots may have it: between `low` and `high`; `high` 0 forbids it."""

    text: str
    """In words, for people."""
    place: str
    """Where it stands in the traits file."""
    masks: dict[int, np.ndarray]
    """Trait -> bool by value: whether it counts."""
    low: int = 0
    high: int = 0

    def mask_of_rows_with_combination(self, rows: np.ndarray) -> np.ndarray:
        """[n] Whether each of `rows` [n, traits] has the combination; a row with an open cell in one of its traits
        has not.
        """
        found = np.ones(len(rows), bool)
        for trait, mask in self.masks.items():
            found &= mask[rows[:, trait]] & (rows[:, trait] != OPEN)
        return found


@dataclass(kw_only=True, slots=True, frozen=True)
class TraitCountsOtherTraitsRule:
    """A trait whose value is the number of some traits that are not `none`."""

    place: str
    trait: int
    numbers: np.ndarray
    """By value of the trait: the number that it says."""
    counted: dict[int, np.ndarray]
    """Trait -> bool by value: whether it is not `none`."""

    def rows_distance_from_rule(self, rows: np.ndarray) -> np.ndarray:
        """[n] For each row of `rows` [n, traits] how far the number that this trait's value names is from the number
        of counted traits that are not `none`. 0 means that the rule holds.
        """
        there = sum(mask[rows[:, trait]].astype(np.int64) for trait, mask in self.counted.items())
        return np.abs(there - self.numbers[rows[:, self.trait]])


@dataclass(kw_only=True, slots=True)
class PlanConstraints:
    """What the slots of a plan must be. Rows are (slots, traits) arrays of numbers of values."""

    size: int
    traits: list[str]
    values: list[list[str]]
    """The names of the values of each trait."""
    counts: list[np.ndarray]
    """The exact number of slots of each value of each trait."""
    forbidden: list[CombinationLimit]
    limits: list[CombinationLimit]
    tally_rules: list[TraitCountsOtherTraitsRule]
    given: np.ndarray
    """(slots, traits): the value that a slot must have, or OPEN. All are open before one-of-ones are placed."""
    excluded: np.ndarray
    """(n, traits): combinations that no slot may have."""

    def value_numbers_of_traits(self, traits: Mapping[str, str]) -> list[int]:
        """[traits] the numbers of the values of `traits` (trait -> value); OPEN for a trait or value
        that is not there.
        """
        return [
            values.index(traits[trait]) if traits.get(trait) in values else OPEN
            for trait, values in zip(self.traits, self.values, strict=True)
        ]

    def forbids_traits_together(self, traits: Mapping[str, str]) -> bool:
        """Whether a rule alone says that no slot has these `traits` (trait -> value) together: they are forbidden, or
        one is the number of values among which another counts.
        """
        row = np.array([self.value_numbers_of_traits(traits)])
        never = [*self.forbidden, *(limit for limit in self.limits if limit.high == 0)]
        there = {self.traits.index(trait) for trait in traits}
        tallied = any(rule.trait in there and there & rule.counted.keys() for rule in self.tally_rules)
        return tallied or any(rule.mask_of_rows_with_combination(row)[0] for rule in never)

    def traits_of_row(self, row: np.ndarray) -> dict[str, str]:
        """The traits (trait -> value) of a row [traits] of numbers."""
        return {trait: self.values[t][row[t]] for t, trait in enumerate(self.traits)}


def make_plan_constraints(file: TraitsFile, size: int, excluded: Iterable[Mapping[str, str]] = ()) -> PlanConstraints:
    """The constraints of a traits file for `size` slots. Raises DataError if counts do not add up or slots do not
    exist.
    """
    problems = [
        f"one_of_ones[{i}].slot: {one.slot} is beyond the {size} slots of the plan"
        for i, one in enumerate(file.one_of_ones)
        if one.slot is not None and one.slot >= size
    ]
    if len(file.one_of_ones) > size:
        problems.append(f"one_of_ones: {len(file.one_of_ones)} for {size} slots")
    names, counts = [], []
    for trait, written in file.traits.items():
        values = {name: value_with_tier_weight(value, file) for name, value in written.items()}
        given = [one.traits[trait] for one in file.one_of_ones if trait in one.traits]
        own = list(dict.fromkeys(value for value in given if value not in values))  # of one-of-ones alone
        shared, found = exact_counts_and_problems(trait, values, size - sum(value in own for value in given))
        problems += found or [
            f"traits.{trait}.{value}: {count} slots, but one-of-ones have it {given.count(value)} times"
            for value, count in zip(values, shared, strict=True)
            if count < given.count(value)
        ]
        names.append([*values, *own])
        counts.append(np.array([*shared, *(given.count(value) for value in own)], np.int64))
    if problems:
        step = "change plan.num_images or the counts"
        if file.numbers == "counts" and len(file.one_of_ones) <= size:
            step += (
                ', or remove "numbers: counts": the numbers are then weights for any number of slots '
                "(write weight: for count: where there is a phrase)"
            )
        raise DataError(f"a plan of {size} slots cannot be made:", problems, f"{step}.")
    problem = PlanConstraints(
        size=size,
        traits=list(file.traits),
        values=names,
        counts=counts,
        forbidden=forbidden_combinations(file, names),
        limits=[
            make_combination_limit(file, names, f"limit[{i}]", limit.of, limit.at_least, limit.at_most, size)
            for i, limit in enumerate(file.rules.limit)
        ],
        tally_rules=trait_counting_rules_of_file(file, names),
        given=np.full((size, len(names)), OPEN, np.int32),
        excluded=np.zeros((0, len(names)), np.int32),
    )
    rows = [problem.value_numbers_of_traits(traits) for traits in excluded]
    problem.excluded = np.array([row for row in rows if OPEN not in row], np.int32).reshape(-1, len(names))
    return problem


def value_with_tier_weight(value: TraitValue, file: TraitsFile) -> TraitValue:
    """The value with the weight of the tier that it names; unchanged if it names none."""
    return value.model_copy(update={"weight": file.tiers[value.tier]}) if value.tier is not None else value


def exact_counts_and_problems(trait: str, values: dict[str, TraitValue], size: int) -> tuple[list[int], list[str]]:
    """(the number of slots of each value, problems): the numbers sum to `size` if there are no problems.

    Exact counts first; the rest is shared by weight within at_least and at_most, by largest remainder.
    """
    counts = {name: value.count for name, value in values.items() if value.count is not None}
    rest = size - sum(counts.values())
    weighted = {name: value for name, value in values.items() if name not in counts}
    if rest < 0 or (rest and not weighted):
        return [], [f"traits.{trait}: its counts sum to {sum(counts.values())}, for {size} slots"]
    low = sum(value.at_least for value in weighted.values())
    high = sum(rest if value.at_most is None else value.at_most for value in weighted.values())
    if not low <= rest <= high and weighted:
        bound = f"at_least sums to {low}" if rest < low else f"at_most sums to {high}"
        return [], [f"traits.{trait}: {bound}, for {rest} slots"]
    counts |= slot_counts_by_weight(weighted, rest)
    return [counts[name] for name in values], []


def slot_counts_by_weight(values: dict[str, TraitValue], size: int) -> dict[str, int]:
    """`size` slots shared by weight; a share outside at_least and at_most is set to the bound, others share the rest.

    Of equal remainders the value that stands first gets the slot.
    """
    weights = {name: Fraction(1.0 if value.weight is None else value.weight) for name, value in values.items()}
    bounds = {n: (v.at_least, size if v.at_most is None else v.at_most) for n, v in values.items()}
    settled: dict[str, int] = {}
    while True:
        open_ = {name: weight for name, weight in weights.items() if name not in settled}
        if not open_:
            return settled
        rest, total = size - sum(settled.values()), sum(open_.values())
        shares = {name: rest * weight / total for name, weight in open_.items()}
        below = {name: bounds[name][0] for name, share in shares.items() if share < bounds[name][0]}
        above = {name: bounds[name][1] for name, share in shares.items() if share > bounds[name][1]}
        lacking = sum(bound - shares[name] for name, bound in below.items())
        beyond = sum(shares[name] - bound for name, bound in above.items())
        if not below and not above:
            whole = {name: int(share) for name, share in shares.items()}
            order = sorted(open_, key=lambda name: whole[name] - shares[name])  # sorted() keeps the order of equals
            for name in order[: rest - sum(whole.values())]:
                whole[name] += 1
            return settled | whole
        settled |= below if lacking >= beyond else above


def make_combination_limit(
    file: TraitsFile,
    names: list[list[str]],
    place: str,
    condition: Mapping[str, list[str]],
    low: int,
    high: int | None,
    size: int,
) -> CombinationLimit:
    """The limit of a traits file, at `place` of its rules: a `condition` that from `low` to `high` of `size` slots
    meet.
    """
    traits = list(file.traits)
    masks = {traits.index(t): np.isin(names[traits.index(t)], told) for t, told in condition.items()}
    text = " with ".join(f"{trait}: {' or '.join(told)}" for trait, told in condition.items())
    bounds = [f"at least {low}"] * (low > 0) + [f"at most {high}"] * (high is not None)
    return CombinationLimit(
        text=f"{' and '.join(bounds)} of {text}",
        place=f"rules.{place}",
        masks=masks,
        low=low,
        high=size if high is None else high,
    )


def forbidden_combinations(file: TraitsFile, names: list[list[str]]) -> list[CombinationLimit]:
    """The forbidden combinations, and for each trait that a requirement asks for: all other values are forbidden."""
    traits, found = list(file.traits), []
    for i, condition in enumerate(file.rules.forbid):
        masks = {traits.index(t): np.isin(names[traits.index(t)], told) for t, told in condition.items()}
        text = " with ".join(f"{trait}: {' or '.join(told)}" for trait, told in condition.items())
        found.append(CombinationLimit(text=f"never {text}", place=f"rules.forbid[{i}]", masks=masks))
    for i, rule in enumerate(file.rules.require):
        when = {traits.index(t): np.isin(names[traits.index(t)], told) for t, told in rule.when.items()}
        for trait, told in rule.then.items():
            t = traits.index(trait)
            others = ~np.isin(names[t], told)
            masks = when | {t: others & when[t] if t in when else others}
            words = " with ".join(f"{name}: {' or '.join(given)}" for name, given in rule.when.items())
            text = f"{words} only with {trait}: {' or '.join(told)}"
            found.append(CombinationLimit(text=text, place=f"rules.require[{i}]", masks=masks))
    return found


def trait_counting_rules_of_file(file: TraitsFile, names: list[list[str]]) -> list[TraitCountsOtherTraitsRule]:
    """The rules.tally of a traits file; `names` are the values of each trait, those of one-of-ones among them."""
    traits = list(file.traits)
    return [
        TraitCountsOtherTraitsRule(
            place=f"rules.tally.{trait}",
            trait=traits.index(trait),
            numbers=np.array([int(value) for value in names[traits.index(trait)]], np.int64),
            counted={traits.index(t): np.array(names[traits.index(t)]) != NONE for t in counted},
        )
        for trait, counted in file.rules.tally.items()
    ]
