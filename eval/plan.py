"""Plan a batch: which pictures are wanted, with which traits, prompts and seeds.

    stylegate plan brand=neon traits=collectible            draws trait combinations by weight
    stylegate plan brand=neon prompts=FILE                  one prompt a line
    stylegate plan brand=neon                               the captions of validation/
    stylegate plan brand=neon traits=collectible show=true  counts only

Writes data/batches/<batch>/plan.parquet: slot, prompt, seed, traits (JSON). Combinations are unique; those of the
training pictures are left out, so that what comes out is new. A longer plan begins with the shorter one's slots.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any

import numpy as np

from eval.lot.batch import Slot, batch_folder, existing, write_plan, write_record
from stylegate import brandset, files
from stylegate.brandset import Brand, BrandSet
from stylegate.config import Config, PlanConfig
from stylegate.errors import DataError

MAX_WEIGHT = 1e9
TRIES_PER_SLOT = 1000  # draws of a combination until a new one comes; then the plan is too large for its traits


@dataclass(frozen=True, slots=True)
class Value:
    weight: float
    phrase: str


@dataclass(frozen=True, slots=True)
class Traits:
    """A traits file: a prompt template and, for each trait, its values with weight and phrase."""

    prompt: str
    values: dict[str, dict[str, Value]]


def plan(config: Config) -> int:
    """Write the plan, or show it. Returns 0."""
    folder, facts = batch_folder(config)
    brand_set = brandset.sound(brandset.locate(config.brand))[0] if config.brand else None
    slots = lay_out(config, brand_set)
    if config.show:
        for line in summary(slots):
            print(line)
        return 0
    with files.only_one(folder):
        write_record(folder, facts, config)
        write_plan(folder, slots)
    prompts = len({slot.prompt for slot in slots})
    if prompts < len(slots):
        print(f"note: {prompts} prompts for {len(slots)} slots: pictures of one prompt may be refused as duplicates;")
        print("      traits=FILE, or prompts=FILE with as many lines, gives variety")
    print(f"plan: {len(slots)} slots in {files.shown(folder / 'plan.parquet')}")
    return 0


def lay_out(config: Config, brand_set: BrandSet | None) -> list[Slot]:
    """The slots that the config asks for, from traits, prompts or captions."""
    brand = brand_set.brand if brand_set else Brand(name="", trigger="")
    if config.traits:
        path = files.named(config.traits, files.TRAITS, "traits", ".yaml")
        learned = brand_set.splits["train"] if brand_set and config.plan.exclude_training else []
        return from_traits(read_traits(path), brand, config.plan, {combination(i.traits) for i in learned if i.traits})
    if config.prompts:
        try:
            text = existing(config.prompts, "prompts").read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise DataError(f"prompts={config.prompts} is not UTF-8 text") from None
        prompts = [(brand.prompt(line.strip()), {}) for line in text.split("\n") if line.strip()]
        if not prompts:
            raise DataError(f"prompts={config.prompts} holds no line of text")
    elif brand_set:
        prompts = [(brand.prompt(item.text), item.traits) for item in brand_set.splits["validation"]]
    else:
        raise DataError("nothing to plan from", next_step="give traits=, prompts=FILE or brand=.")
    chosen = [prompts[i % len(prompts)] for i in range(config.plan.num_images)]
    return [Slot(i, text, slot_seed(config.plan, i), traits) for i, (text, traits) in enumerate(chosen)]


def slot_seed(plan: PlanConfig, slot: int) -> int:
    return int(np.random.SeedSequence([plan.seed, slot]).generate_state(1)[0])


def combination(traits: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(traits.items()))


def from_traits(traits: Traits, brand: Brand, plan: PlanConfig, excluded: set[tuple]) -> list[Slot]:
    """Draw each slot's combination by weight until it is new. Raises DataError if the traits do not give enough."""
    seen, slots = set(excluded), []
    for number in range(plan.num_images):
        random = np.random.default_rng([plan.seed, number])
        for _ in range(TRIES_PER_SLOT):
            drawn = {name: str(pick(random, values)) for name, values in traits.values.items()}
            if combination(drawn) not in seen:
                break
        else:
            raise DataError(
                f"only {number} of {plan.num_images} slots found a combination of their own",
                next_step="add values or traits, or lower plan.num_images.",
            )
        seen.add(combination(drawn))
        phrases = {name: traits.values[name][value].phrase for name, value in drawn.items()}
        text = traits.prompt.format(trigger=brand.trigger, **phrases)
        slots.append(Slot(number, brand.prompt(text), slot_seed(plan, number), drawn))
    return slots


def pick(random: np.random.Generator, values: dict[str, Value]) -> str:
    weights = np.array([value.weight for value in values.values()])
    return list(values)[random.choice(len(values), p=weights / weights.sum())]


def read_traits(path: Path) -> Traits:
    """Read and check a traits file. Raises DataError listing every problem."""
    data = files.read_yaml(path, "traits file")
    if not isinstance(data.get("traits"), dict) or not isinstance(data.get("prompt"), str):
        raise DataError(f"{files.shown(path)} needs `prompt` (text) and `traits` (a mapping)")
    problems = [f"{name}: unknown key" for name in data if name not in ("prompt", "traits")]
    values: dict[str, dict[str, Value]] = {}
    for name, listed in data["traits"].items():
        if not isinstance(name, str) or not name.isidentifier() or name == "trigger":
            problems.append(f"{name}: a trait's name is one word of letters, digits and _, and not `trigger`")
            continue
        values[name] = {}
        for value, spec in listed.items() if isinstance(listed, dict) else []:
            parsed = value_of(value, spec)
            if isinstance(parsed, str):
                problems.append(f"{name}.{value}: {parsed}")
            else:
                values[name][text_of(value)] = parsed
        if not values[name]:
            problems.append(f"{name}: needs a mapping of values to weights")
        elif sum(v.weight for v in values[name].values()) <= 0:
            problems.append(f"{name}: its weights sum to 0")
    problems += prompt_problems(data["prompt"], {"trigger", *values})
    if problems:
        raise DataError(f"{files.shown(path)}:", problems)
    return Traits(data["prompt"], values)


def prompt_problems(prompt: str, names: set[str]) -> list[str]:
    """A template may hold {name} and nothing else of str.format's language."""
    try:
        parts = list(Formatter().parse(prompt))
    except ValueError as error:
        return [f"prompt: {error}"]
    fields = [(field, spec, conversion) for _, field, spec, conversion in parts if field is not None]
    return [f"prompt: {{{f}}} names no trait" for f, s, c in fields if f not in names or s or c]


def text_of(value: Any) -> str:
    """YAML reads yes, no, on and off as booleans; a trait's value is text."""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def value_of(value: Any, spec: Any) -> Value | str:
    """A value's weight and phrase, or what is wrong with it."""
    weight, phrase = spec, text_of(value)
    if isinstance(spec, dict):
        if set(spec) - {"weight", "phrase"}:
            return f"unknown keys {sorted(set(spec) - {'weight', 'phrase'})}; weight and phrase are known"
        weight, phrase = spec.get("weight", 1), spec.get("phrase", phrase)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= MAX_WEIGHT:
        return f"weight {weight!r} is not a number of at least 0"
    return Value(float(weight), phrase) if isinstance(phrase, str) else f"phrase {phrase!r} is not text"


def summary(slots: list[Slot]) -> list[str]:
    """How often each value occurs, for people."""
    lines = [f"{len(slots)} slots; the first: {slots[0].prompt}"]
    for name in slots[0].traits:
        counts = Counter(slot.traits[name] for slot in slots)
        lines.append(f"  {name:<12}" + ", ".join(f"{v} {n} ({n / len(slots):.0%})" for v, n in counts.most_common()))
    return lines
