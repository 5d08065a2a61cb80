"""The slots that the configuration asks for: from prompts, traits or an earlier plan."""

import re
from pathlib import Path

from eval.lot.batch import PlanSlot, require_file
from eval.lot.comparison import traits_spelled_as_planned
from eval.planning.slots import seed_of_slot, slots_from_traits, traits_of_slots_to_keep
from eval.planning.traits import TraitsFile
from stylegate import brandset, listing, tables
from stylegate.brandset import BrandSet
from stylegate.config import Config
from stylegate.errors import DataError

OPTION = re.compile(r"(^|\s)--[A-Za-z]")  # in a prompt


def training_combinations_to_exclude(config: Config, brand_set: BrandSet | None, file: TraitsFile) -> set[tuple]:
    """The combinations of traits of the training pictures, spelled as in the traits file, as sorted (trait, value)
    pairs; empty if they need not be left out.
    """
    learned = brand_set.splits["train"] if brand_set and config.plan.exclude_training else []
    known = {number: item.traits for number, item in enumerate(learned) if item.traits}
    written = [{trait: value} for trait, values in file.traits.items() for value in values]
    return {traits_as_sorted_pairs(traits) for traits in traits_spelled_as_planned(known, written).values()}


def slots_from_config(
    config: Config, brand_set: BrandSet | None, file: TraitsFile | None, earlier: list[PlanSlot], drawn: set[int]
) -> list[PlanSlot]:
    """The slots that the config asks for, from traits, prompts or captions. Of the `earlier` slots of traits those that
    still fit keep their traits, the `drawn` ones first.
    """
    brand = brand_set.brand if brand_set else brandset.NO_BRAND
    if file:
        excluded = training_combinations_to_exclude(config, brand_set, file)
        kept = traits_of_slots_to_keep(file, earlier, config.plan, excluded, drawn) if earlier else {}
        return with_seeds_of_equal_earlier_slots(
            slots_keeping_earlier_ones(config, file, brand, excluded, kept), earlier
        )
    if config.prompts:
        prompts = [
            (brand.prompt_with_trigger(text), {}) for text in read_prompts(require_file(config.prompts, "prompts"))
        ]
    elif brand_set:
        prompts = [(brand.prompt_with_trigger(item.text), item.traits) for item in brand_set.splits["validation"]]
    else:
        raise DataError("nothing to plan from", next_step="give traits=, prompts=FILE or brand=.")
    chosen = [prompts[i % len(prompts)] for i in range(config.plan.num_images)]
    return [
        PlanSlot(slot=i, prompt=text, seed=seed_of_slot(config.plan, i), traits=traits)
        for i, (text, traits) in enumerate(chosen)
    ]


def slots_keeping_earlier_ones(
    config: Config, file: TraitsFile, brand: brandset.Brand, excluded: set[tuple], kept: dict[int, dict[str, str]]
) -> list[PlanSlot]:
    """The slots of a plan of traits in which the slots `kept` (traits by slot number) keep theirs. Where that leaves no
    plan for the others, the last 1, 2, 4 ... of `kept` are planned anew too.
    """
    freed = 0
    while freed < len(kept):
        held = dict(list(kept.items())[: len(kept) - freed])
        try:
            return slots_from_traits(file, brand, config.plan, excluded, held)
        except DataError:  # if it is not because of what is kept, the last call says why
            freed = max(1, 2 * freed)
    return slots_from_traits(file, brand, config.plan, excluded)


def with_seeds_of_equal_earlier_slots(slots: list[PlanSlot], earlier: list[PlanSlot]) -> list[PlanSlot]:
    """The slots, where a slot that has the same traits as before keeps its seed, whatever plan.seed is now: its
    pictures stay what they are.
    """
    seeds = {(slot.slot, traits_as_sorted_pairs(slot.traits)): slot.seed for slot in earlier}
    return [s.model_copy(update={"seed": seeds.get((s.slot, traits_as_sorted_pairs(s.traits)), s.seed)}) for s in slots]


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
        prompts = (
            [(row.line, tables.value_in_one_of_columns(row, tables.TEXTS)) for row in table.rows]
            if not problems
            else []
        )
    elif suffix in (".json", ".toml", ".yaml", ".yml"):
        raise DataError(f"prompts={path} is no list of prompts", next_step="write one prompt a line into a .txt file.")
    else:
        try:
            prompts, comments = tables.content_lines_and_comment_count(path.read_bytes())
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


def traits_as_sorted_pairs(traits: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """Traits as (trait, value) pairs in the order of the alphabet, which can be members of a set."""
    return tuple(sorted(traits.items()))
