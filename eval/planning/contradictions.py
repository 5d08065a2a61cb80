"""What is wrong between the parts of a traits file that are sound by themselves: a sentence for each problem."""

from collections import Counter
from string import Formatter
from typing import Any

from eval.planning.traits import WHOLE, TraitRules, TraitsFile, TraitValue, require_valid_value_name
from stylegate.words import name_without_case_and_accents


def contradictions_between_traits_file_parts(file: TraitsFile, written: dict[str, set[str]]) -> list[str]:
    """Every contradiction between parts of a traits file that are each valid by themselves, a sentence each.
    `written`: the values as the file has them.
    """
    problems = problems_of_names_that_look_alike("traits", file.traits)
    for trait, values in file.traits.items():
        problems += problems_of_names_that_look_alike(f"traits.{trait}", values)
        problems += [
            f"traits.{trait}.{name}{text}"
            for name, value in values.items()
            for text in problems_of_trait_value(value, file)
        ]
    for place, condition in conditions_of_all_rules(file.rules):
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
    return problems + circular_requirement_problems(file.rules) + tally_rule_problems(file) + one_of_one_problems(file)


def problems_of_trait_value(value: TraitValue, file: TraitsFile) -> list[str]:
    """Problems of how often one value comes; each text follows the place of the value, "traits.hat.crown"."""
    told = [word for word in ("count", "weight", "tier") if getattr(value, word) is not None]
    problems = [f": has {' and '.join(told)}; one of them says how often it comes"] if len(told) > 1 else []
    if value.tier is not None and value.tier not in file.tiers:
        problems.append(f".tier: {value.tier} is no tier of the file")
    if value.at_most is not None and value.at_least > value.at_most:
        problems.append(f": at_least {value.at_least} is above at_most {value.at_most}")
    return problems


def problems_of_names_that_look_alike(place: str, names: Any) -> list[str]:
    """A problem for each group of names that differ by case, width, combining marks or spaces only: people would take
    them for one.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name_without_case_and_accents(name), []).append(name)
    return [f"{place}: {' and '.join(same)} look alike; use one name" for same in groups.values() if len(same) > 1]


def conditions_of_all_rules(rules: TraitRules) -> list[tuple[str, dict[str, list[str]]]]:
    """(place in the file, condition) of every condition of the rules, such as ("rules.forbid[0]",
    {"hat": ["crown"]}).
    """
    found = [(f"rules.forbid[{i}]", condition) for i, condition in enumerate(rules.forbid)]
    for i, rule in enumerate(rules.require):
        found += [(f"rules.require[{i}].when", rule.when), (f"rules.require[{i}].then", rule.then)]
    return found + [(f"rules.limit[{i}].of", limit.of) for i, limit in enumerate(rules.limit)]


def circular_requirement_problems(rules: TraitRules) -> list[str]:
    """A problem for each chain of requirements that leads back to where it began."""
    leads: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for rule in rules.require:
        then = {(trait, name) for trait, names in rule.then.items() for name in names}
        for start in [(trait, name) for trait, names in rule.when.items() for name in names]:
            leads.setdefault(start, set()).update(then)

    def requirement_cycle_from(start: tuple[str, str]) -> list[tuple[str, str]] | None:
        """The values (trait, value) from `start` to the last one before it comes again; None if there is no cycle."""
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
        if start not in done and (path := requirement_cycle_from(start)):
            done |= set(path)
            words = " -> ".join(f"{trait}: {name}" for trait, name in [*path, start])
            problems.append(f"rules.require: runs in a circle: {words}")
    return problems


def tally_rule_problems(file: TraitsFile) -> list[str]:
    """A problem for each entry of rules.tally that names unknown traits, or a trait with a value that is no number,
    also of a one-of-one.
    """
    problems = []
    for trait, counted in file.rules.tally.items():
        unknown = [name for name in [trait, *counted] if name not in file.traits]
        problems += [f"rules.tally.{trait}: there is no trait {name}" for name in unknown]
        if not unknown:
            own = [one.traits[trait] for one in file.one_of_ones if trait in one.traits]
            odd = [name for name in dict.fromkeys([*file.traits[trait], *own]) if not WHOLE.fullmatch(name)]
            problems += [f"rules.tally.{trait}: its value {name} is no number" for name in odd]
        if not counted or trait in counted or len(set(counted)) < len(counted):
            problems.append(f"rules.tally.{trait}: needs a list of other traits, each once")
    return problems


def one_of_one_problems(file: TraitsFile) -> list[str]:
    """A problem for each one-of-one that breaks a rule, stands twice, or names a trait or value that does not exist."""
    problems = []
    for i, one in enumerate(file.one_of_ones):
        place = f"one_of_ones[{i}]"
        for trait, value in one.traits.items():
            if trait not in file.traits:
                problems.append(f"{place}: there is no trait {trait}")
                continue
            try:
                require_valid_value_name(value)
            except ValueError as error:
                problems.append(f"{place}.traits.{trait}: {error}")
            if value not in file.traits[trait]:
                twins = problems_of_names_that_look_alike(f"{place}.traits.{trait}", [*file.traits[trait], value])
                problems += [text for text in twins if value in text]
        if one.prompt is not None:
            problems += prompt_template_problems(one.prompt, {"trigger", *file.traits}, f"{place}.prompt")
        problems += [f"{place}: breaks rules.{rule}" for rule in broken_rules(file.rules, one.traits)]
    for what, told in (
        ("slot", [str(one.slot) for one in file.one_of_ones if one.slot is not None]),
        ("name", [one.name for one in file.one_of_ones if one.name]),
    ):
        problems += [f"one_of_ones: {what} {word} is taken twice" for word, n in Counter(told).items() if n > 1]
    full = Counter(tuple(sorted(o.traits.items())) for o in file.one_of_ones if set(o.traits) >= set(file.traits))
    same = [dict(traits) for traits, n in full.items() if n > 1]
    return problems + [f"one_of_ones: {traits} stands twice" for traits in same]


def broken_rules(rules: TraitRules, traits: dict[str, str]) -> list[str]:
    """The rules that these traits break whatever the other traits are, by name, such as "forbid[0]"."""

    def traits_meet_condition(condition: dict[str, list[str]]) -> bool:
        """Whether each trait of the condition has one of its values."""
        return all(traits.get(trait) in names for trait, names in condition.items())

    broken = [f"forbid[{i}]" for i, condition in enumerate(rules.forbid) if traits_meet_condition(condition)]
    return broken + [
        f"require[{i}]"
        for i, rule in enumerate(rules.require)
        if traits_meet_condition(rule.when)
        and any(traits.get(t) not in (*names, None) for t, names in rule.then.items())
    ]


def prompt_template_problems(prompt: str, names: set[str], where: str = "prompt") -> list[str]:
    """Problems of a prompt template, which may hold {name} of one of `names` and nothing else of
    str.format's language.
    """
    try:
        parts = list(Formatter().parse(prompt))
    except ValueError as error:
        return [f"{where}: {error}"]
    fields = [(field, spec, conversion) for _, field, spec, conversion in parts if field is not None]
    extra = [f"{where}: {{{f}}} has more than a name in its brackets (! or :)" for f, s, c in fields if s or c]
    return extra + [f"{where}: {{{f}}} names no trait" for f, _, _ in fields if f not in names]
