"""Plan a batch: which pictures are wanted, with which traits, prompts and seeds.

    stylegate plan brand=neon traits=collectible            draws trait combinations by weight
    stylegate plan brand=neon prompts=FILE                  one prompt a line
    stylegate plan brand=neon                               the captions of validation/
    stylegate plan brand=neon traits=collectible show=true  counts only

Writes data/batches/<batch>/plan.parquet: slot, prompt, seed, traits (JSON). Combinations are unique; those of the
training pictures are left out, so that what comes out is new. A longer plan begins with the shorter one's slots.
"""

import re
from collections import Counter
from pathlib import Path
from string import Formatter
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, BeforeValidator, ValidationError

from eval.lot.batch import Slot, batch_folder, existing_file, write_plan, write_record
from stylegate import brandset, files, listing, tables
from stylegate.brandset import Brand, BrandSet
from stylegate.config import Config, PlanConfig
from stylegate.errors import DataError
from stylegate.records import Record, problems_of

MAX_WEIGHT = 1e9
NUMBER = re.compile(r"(0|[1-9][0-9]*)(\.[0-9]*)?([eE][+-]?[0-9]{1,3})?|\.[0-9]+")
NAME = re.compile(r"[^\W\d]\w*( \w+)*")  # of a trait
OPTION = re.compile(r"(^|\s)--[A-Za-z]")  # in a prompt
TRIES_PER_SLOT = 1000  # draws of a combination until a new one comes; then the plan is too large for its traits


def weight_of(written: Any) -> Any:
    """The number of a weight as it is written in a traits file, whose words all are text."""
    if isinstance(written, float):
        return written
    if not isinstance(written, str) or not NUMBER.fullmatch(written) or float(written) > MAX_WEIGHT:
        raise ValueError(f"{written} is not a number from 0 to {MAX_WEIGHT:g}")
    return float(written)


def trait_name(name: str) -> str:
    if not NAME.fullmatch(name) or name == "trigger":
        raise ValueError("a trait's name is of letters, digits, _ and single spaces, and not `trigger`")
    return name


class Value(Record):
    """One value of a trait: how often it is drawn, and the words for it in the prompt."""

    weight: Annotated[float, BeforeValidator(weight_of, json_schema_input_type=float)] = 1.0
    """From 0 to 1e9. A value is drawn with its weight's share of the trait's weights."""
    phrase: str = ""
    """The words in the prompt where the trait's name stands; in a file, without them, the value itself."""


def values_with_weights(values: Any) -> Any:
    """A trait's values, each with weight and phrase: a file may write `value: weight`."""
    if not isinstance(values, dict) or not values:
        raise ValueError("needs a mapping of values to weights")
    specs = {value: spec if isinstance(spec, dict) else {"weight": spec} for value, spec in values.items()}
    return {value: {"phrase": value} | spec for value, spec in specs.items()}


def has_some_weight(values: dict[str, Value]) -> dict[str, Value]:
    if sum(value.weight for value in values.values()) <= 0:
        raise ValueError("its weights sum to 0")
    return values


Values = Annotated[
    dict[str, Value],
    BeforeValidator(values_with_weights, json_schema_input_type=dict[str, float | Value]),
    AfterValidator(has_some_weight),
]


class TraitsFile(Record):
    """A traits file: what the pictures of a plan may show, and how a prompt says it."""

    prompt: str
    """The prompt of every picture. {trait} stands for the phrase of the value, {trigger} for the brand's trigger."""
    traits: dict[Annotated[str, AfterValidator(trait_name)], Values]
    """The values of each trait."""


def plan(config: Config) -> int:
    """Write the plan, or show it. Returns 0."""
    folder, facts = batch_folder(config)
    brand_set = brandset.read_checked(brandset.brand_folder(config.brand))[0] if config.brand else None
    slots = make_slots(config, brand_set)
    if config.show:
        for line in plan_summary(slots):
            print(line)
        return 0
    with files.exclusive_lock(folder):
        write_record(folder, facts, config)
        write_plan(folder, slots)
    prompts = len({slot.prompt for slot in slots})
    if prompts < len(slots):
        print(f"note: {prompts} prompts for {len(slots)} slots: pictures of one prompt may be refused as duplicates;")
        print("      traits=FILE, or prompts=FILE with as many lines, gives variety")
    print(f"plan: {len(slots)} slots in {files.display_path(folder / 'plan.parquet')}")
    return 0


def make_slots(config: Config, brand_set: BrandSet | None) -> list[Slot]:
    """The slots that the config asks for, from traits, prompts or captions."""
    brand = brand_set.brand if brand_set else brandset.NO_BRAND
    if config.traits:
        path = files.resolve_name(config.traits, files.TRAITS, "traits", ".yaml")
        learned = brand_set.splits["train"] if brand_set and config.plan.exclude_training else []
        return slots_from_traits(
            read_traits(path), brand, config.plan, {sorted_traits(i.traits) for i in learned if i.traits}
        )
    if config.prompts:
        prompts = [(brand.prompt(text), {}) for text in read_prompts(existing_file(config.prompts, "prompts"))]
    elif brand_set:
        prompts = [(brand.prompt(item.text), item.traits) for item in brand_set.splits["validation"]]
    else:
        raise DataError("nothing to plan from", next_step="give traits=, prompts=FILE or brand=.")
    chosen = [prompts[i % len(prompts)] for i in range(config.plan.num_images)]
    return [
        Slot(slot=i, prompt=text, seed=slot_seed(config.plan, i), traits=traits)
        for i, (text, traits) in enumerate(chosen)
    ]


def read_prompts(path: Path) -> list[str]:
    """The prompts of a text file, one a line, or of the column `prompt` (or text, caption) of a table.

    Lines of a text file that begin with # are comments. Options after a prompt, as `--n lowres` in kohya's sample
    prompts, are refused: they would be drawn as words. Raises DataError listing every problem.
    """
    suffix, problems = path.suffix.lower(), []
    if suffix in listing.TABLES:
        table = tables.read_table(path)
        problems += table.problems
        if not problems and not set(table.columns) & set(tables.TEXTS):
            problems.append(f"needs a column prompt, has {', '.join(table.columns) or 'none'}")
        prompts = [(row.line, tables.value_under(row, tables.TEXTS)) for row in table.rows] if not problems else []
    elif suffix in (".json", ".toml", ".yaml", ".yml"):
        raise DataError(f"prompts={path} is no list of prompts", next_step="write one prompt a line into a .txt file.")
    else:
        try:
            prompts, comments = tables.content_lines(path.read_bytes())
        except ValueError as error:
            raise DataError(f"prompts={path}: {error}") from None
        if comments:
            print(f"note: comments of {path.name} (lines that begin with #) are left out: {comments}")
    problems += [
        f"line {n}: {'no text' if not isinstance(t, str) else 'options after -- are not read; take them out'}"
        for n, t in prompts
        if not isinstance(t, str) or OPTION.search(t)
    ]
    if problems:
        raise DataError(f"prompts={path}:", problems)
    if not prompts:
        raise DataError(f"prompts={path} holds no line of text")
    return [text.strip() for _, text in prompts]


def slot_seed(plan: PlanConfig, slot: int) -> int:
    return int(np.random.SeedSequence([plan.seed, slot]).generate_state(1)[0])


def sorted_traits(traits: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(traits.items()))


def slots_from_traits(traits: TraitsFile, brand: Brand, plan: PlanConfig, excluded: set[tuple]) -> list[Slot]:
    """Draw each slot's combination by weight until it is new. Raises DataError if the traits do not give enough."""
    seen, slots = set(excluded), []
    for number in range(plan.num_images):
        random = np.random.default_rng([plan.seed, number])
        for _ in range(TRIES_PER_SLOT):
            drawn = {name: str(weighted_choice(random, values)) for name, values in traits.traits.items()}
            if sorted_traits(drawn) not in seen:
                break
        else:
            raise DataError(
                f"only {number} of {plan.num_images} slots found a combination of their own",
                next_step="add values or traits, or lower plan.num_images.",
            )
        seen.add(sorted_traits(drawn))
        phrases = {name: traits.traits[name][value].phrase for name, value in drawn.items()}
        text = traits.prompt.format(trigger=brand.trigger, **phrases)
        slots.append(Slot(slot=number, prompt=brand.prompt(text), seed=slot_seed(plan, number), traits=drawn))
    return slots


def weighted_choice(random: np.random.Generator, values: dict[str, Value]) -> str:
    weights = np.array([value.weight for value in values.values()])
    return list(values)[random.choice(len(values), p=weights / weights.sum())]


def read_traits(path: Path) -> TraitsFile:
    """Read and check a traits file. Raises DataError listing every problem."""
    data = files.read_yaml(path, "traits file", words=True)
    problems, content = [], None
    try:
        content = TraitsFile.model_validate(data)
    except ValidationError as error:
        problems = problems_of(error)
    if isinstance(data.get("prompt"), str) and isinstance(data.get("traits"), dict):
        problems += prompt_problems(data["prompt"], {"trigger", *data["traits"]})
    if problems or content is None:
        raise DataError(f"{files.display_path(path)}:", problems, "data/traits/collectible.yaml is an example.")
    return content


def prompt_problems(prompt: str, names: set[str]) -> list[str]:
    """A template may hold {name} and nothing else of str.format's language."""
    try:
        parts = list(Formatter().parse(prompt))
    except ValueError as error:
        return [f"prompt: {error}"]
    fields = [(field, spec, conversion) for _, field, spec, conversion in parts if field is not None]
    return [f"prompt: {{{f}}} names no trait" for f, s, c in fields if f not in names or s or c]


def plan_summary(slots: list[Slot]) -> list[str]:
    """How often each value occurs, for people."""
    lines = [f"{len(slots)} slots; the first: {slots[0].prompt}"]
    for name in slots[0].traits:
        counts = Counter(slot.traits[name] for slot in slots)
        lines.append(f"  {name:<12}" + ", ".join(f"{v} {n} ({n / len(slots):.0%})" for v, n in counts.most_common()))
    return lines
