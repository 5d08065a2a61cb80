"""Plan a batch: which pictures are wanted, with which traits, prompts and seeds.

    stylegate plan brand=neon traits=collectible            exact counts and rules of a traits file (docs/plan.md)
    stylegate plan brand=neon prompts=FILE                  one prompt a line
    stylegate plan brand=neon                               the captions of validation/
    stylegate plan brand=neon traits=collectible show=true  counts, rarity and pairs only
    stylegate plan import=FILE                              a collection or layers that exist -> a traits file
    stylegate plan brand=neon traits=collectible repair=all other traits for slots that no attempt has filled
    stylegate plan batch=NAME audit=true                    how sure it is that the stated traits are true

Writes data/batches/<batch>/plan.parquet, rarity.csv, plan.png and a commitment. Combinations are unique; those of the
training pictures are left out, so that what comes out is new. A plan made again keeps each slot that still fits.
"""

import re
from dataclasses import replace
from pathlib import Path

from eval.lot.again import config_with_arguments_of_batch
from eval.lot.attempts import (
    read_failed_attempts_and_filled_slots,
    repaired_slot_in_words,
    traits_seen_wrong_by_slot,
)
from eval.lot.batch import (
    PLAN,
    PlanSlot,
    attempt_and_slot,
    batch_folder_and_facts,
    names_of_attempts_with_picture,
    read_existing_batch_record,
    read_plan,
    write_batch_record,
    write_plan,
)
from eval.lot.drawn import remove_drawn_digests
from eval.lot.early import remove_preview_rows_of_slots
from eval.lot.record import BatchFacts
from eval.package import living
from eval.planning import commitment, interchange, picture, rarity
from eval.planning.asked import slots_from_config, training_combinations_to_exclude
from eval.planning.open_slots import RarityInterval, rarity_intervals
from eval.planning.problem import make_plan_constraints
from eval.planning.slots import notes_on_values_without_slot, plan_slots_with_some_traits_replaced
from eval.planning.traits import TraitsFile
from eval.planning.traitsfile import read_traits_file
from stylegate import brandcheck, brandset, files
from stylegate.brandset import BrandSet
from stylegate.config import Config, run_or_batch_name
from stylegate.errors import ConfigError, ModelError
from stylegate.words import counted, name_without_case_and_accents

NAMED = 5  # problems that a note names
EARLIER = "earlier"  # folder of a batch: pictures of slots that a later plan has changed


def plan(config: Config, with_next_step: bool = True) -> int:
    """Write the plan of a batch; or import, audit, show or repair one, as the config says. Returns 0; of an audit that
    proves nothing yet 13.
    """
    if config.import_file:
        return interchange.import_collection(config)
    if config.audit:
        from eval.plan_audit import audit_traits  # judging: a plan needs none of it

        return audit_traits(config)
    brand_set = brandcheck.read_checked_brand_set(brandset.brand_folder(config.brand))[0] if config.brand else None
    file = read_traits_file(traits_file_path(config)) if config.traits else None
    if config.show:
        return show_plan(config, brand_set, file)
    folder, facts = batch_folder_and_facts(config, replanned=file is not None)
    if config.repair:
        return replan_slots_with_other_traits(config, folder, facts, brand_set, file)
    with files.exclusive_lock(folder):
        earlier = read_earlier_slots(folder)
        slots = slots_from_config(config, brand_set, file, earlier, slots_with_a_drawn_picture(folder))
        write_plan_and_move_outdated_pictures(folder, facts, config, earlier, slots, file is not None)
    warn_if_declared_supply_exceeded(config, folder, slots)
    for note in notes_on_values_without_slot(file, slots):
        print(f"note: {note}")
    if config.out:
        items, called = [slot.traits for slot in slots], [slot.name for slot in slots]
        print(f"written: {interchange.export_items(Path(config.out), items, called)}")
    chosen = facts.generate
    if (chosen.num_inference_steps, chosen.guidance_scale) != (
        config.generate.num_inference_steps,
        config.generate.guidance_scale,
    ):
        print(f"note: a trial chose {chosen.num_inference_steps} steps and guidance {chosen.guidance_scale:g}")
    for note in notes_on_traits_unknown_to_brand(brand_set, file) if brand_set and file else []:
        print(f"note: {note}")
    prompts = len({slot.prompt for slot in slots})
    if prompts < len(slots):
        told = f"{counted(prompts, 'prompt')} for {len(slots)} slots"
        print(f"note: {told}: pictures of one prompt may be refused as duplicates;")
        if file:
            print("      slots differ in traits that the prompt does not name, or in values without words of their own")
        else:
            print("      traits=FILE, or prompts=FILE with as many lines, gives variety")
    if brand_set and (known := count_prompts_from_training(slots, brand_set)):
        one, more = "prompts is a caption of a training picture", "prompts are captions of training pictures"
        print(f"note: {known} of {len(slots)} {one if known == 1 else more}, word for word:")
        print("      what comes out as a copy is refused (novelty); other prompts draw new pictures")
    print(f"plan: {counted(len(slots), 'slot')}, numbered from 0, in {files.display_path(folder / PLAN)}")
    if with_next_step:
        print_next_step_after_planning(folder)
    return 0


def show_plan(config: Config, brand_set: BrandSet | None, file: TraitsFile | None) -> int:
    """Print the plan, write a chart of its counts into the cache, and its items where out= says; the plan itself is not
    written. Returns 0.
    """
    folder = batch_folder_for_showing_plan(config)
    slots = slots_from_config(config, brand_set, file, read_earlier_slots(folder), slots_with_a_drawn_picture(folder))
    warn_if_declared_supply_exceeded(config, folder, slots)
    for note in notes_on_values_without_slot(file, slots):
        print(f"note: {note}")
    for note in notes_on_traits_unknown_to_brand(brand_set, file) if brand_set and file else []:
        print(f"note: {note}")
    print_plan_and_write_chart(slots, file, files.PLANS / f"{folder.name}.png")
    print_rarity_intervals(config, folder, slots)
    if config.out:
        items, called = [slot.traits for slot in slots], [slot.name for slot in slots]
        print(f"written: {interchange.export_items(Path(config.out), items, called)}")
    return 0


def batch_folder_for_showing_plan(config: Config) -> Path:
    """The folder of the batch that the arguments name. Before the LoRA is trained it has no name yet: the run's name
    stands for it.

    Raises ModelError where `lora_file` or the base cannot be read.
    """
    try:
        return batch_folder_and_facts(config, replanned=config.traits is not None)[0]
    except ModelError as error:
        from stylegate import lorafile  # torch

        if config.lora_file or lorafile.trained_lora_path(config).is_file():
            raise
        print(f"note: {error.summary}. A plan can be shown before that.")
        return files.BATCHES / (config.batch or run_or_batch_name(config))


def count_prompts_from_training(slots: list[PlanSlot], brand_set: BrandSet) -> int:
    """How many slots have a prompt that is the caption of a training picture; upper and lower case count as equal."""
    captions = [text for item in brand_set.splits["train"] for text in item.all_captions_of_picture()]
    learned = {brand_set.brand.prompt_with_trigger(text).lower() for text in captions}
    return sum(slot.prompt.lower() in learned for slot in slots)


def warn_if_declared_supply_exceeded(config: Config, folder: Path, slots: list[PlanSlot]) -> None:
    """Print a note if the plan has more of something than the first version of the collection declared: export would
    refuse it.
    """
    name = config.name or (run_or_batch_name(config) if config.brand else folder.name)
    versions = [package for package, _ in living.numbered_versions(files.EXPORTS / name)]
    if problems := living.problems_beyond_declared_supply(versions, {slot.slot: slot.traits for slot in slots}):
        print(
            f"note: more than the first version of {name} declared; as a version of {name} export refuses it: "
            f"{'; '.join(problems[:NAMED])}"
        )
        print("      plan within the supply, or give another collection another name= when you export")


def write_plan_and_move_outdated_pictures(
    folder: Path, facts: BatchFacts, config: Config, earlier: list[PlanSlot], slots: list[PlanSlot], of_traits: bool
) -> None:
    """Write the plan, the batch's record, and with `of_traits` rarity, picture and commitment. Pictures of slots whose
    traits, prompt or seed are other ones now are moved away.
    """
    for line in move_outdated_pictures_aside(folder, earlier, slots):
        print(line)
    write_batch_record(folder, facts, config)
    write_plan(folder, slots)
    if of_traits:
        items, called = [slot.traits for slot in slots], [slot.name for slot in slots]
        intervals = rarity_interval_of_each_slot(config, folder, slots)
        files.write_atomically(folder / "rarity.csv", rarity.rarity_table_as_csv(items, intervals, called))
        files.write_atomically(folder / "plan.png", picture.counts_and_rarity_as_png(items, called))
        commitment.write_plan_text_and_commitment(folder, slots)


def replan_slots_with_other_traits(
    config: Config, folder: Path, facts: BatchFacts, brand_set: BrandSet | None, file: TraitsFile | None
) -> int:
    """Give the slots of repair= other traits, with exact counts and the fewest other slots changed. Returns 0."""
    if file is None:
        raise ConfigError("repair= is for a plan of traits", next_step="give traits=, or another line in the prompts.")
    with files.exclusive_lock(folder):
        earlier, record = read_plan(folder), read_existing_batch_record(folder)
        states = read_failed_attempts_and_filled_slots(folder)
        exhausted = states.exhausted_slots(record.max_attempts or config.plan.max_attempts)
        broken = parse_slot_numbers_to_repair(config.repair or "", len(earlier), exhausted)
        require_slots_not_accepted_or_pending(folder, broken)
        if not broken:
            print(f"plan: no slot of {files.display_path(folder)} has used all its attempts; nothing is changed")
            return 0
        brand = brand_set.brand if brand_set else brandset.NO_BRAND
        excluded = training_combinations_to_exclude(config, brand_set, file)
        wrong = traits_seen_wrong_by_slot(files.read_jsonl(folder / "verdicts.jsonl", "file", "verdict"), earlier)
        slots = plan_slots_with_some_traits_replaced(
            file, brand, config.plan, excluded, earlier, broken, states.accepted_or_in_review, wrong
        )
        of_before = replace(config.plan, num_images=len(earlier), num_wanted=record.wanted)
        write_plan_and_move_outdated_pictures(
            folder, facts, replace(config, plan=of_before), earlier, slots, of_traits=True
        )
    changed = [new.slot for old, new in zip(earlier, slots, strict=True) if not old.is_same_slot_but_for_name(new)]
    others = [number for number in changed if number not in broken]
    lost = [number for number in others if number in states.accepted_or_in_review]
    print(
        f"plan: {counted(len(broken), 'slot')} repaired; all counts are as before; "
        f"{counted(len(others), 'other slot')} changed, of which {len(lost)} had an accepted picture or one in review"
    )
    for number in broken[:NAMED]:
        print(f"  {repaired_slot_in_words(earlier[number], slots[number], wrong.get(number, {}))}")
    if len(broken) > NAMED:
        print(f"  and {len(broken) - NAMED} more")
    print_next_step_after_planning(folder)
    return 0


def require_slots_not_accepted_or_pending(folder: Path, numbers: list[int]) -> None:
    """Raise ConfigError, naming them, for slots that have an accepted picture or one in review: a repair would take it
    away.
    """
    rows = files.read_jsonl(folder / "verdicts.jsonl", "file", "verdict")
    there = {attempt_and_slot(row["file"])[1]: row for row in rows if row["verdict"] in ("accept", "review")}
    words = {"accept": "an accepted picture", "review": "a picture in review"}
    held = [f"slot {n} has {words[there[n]['verdict']]}, {there[n]['file']}" for n in numbers if n in there]
    if held:
        raise ConfigError(
            "repair= is for slots that no attempt has filled:",
            held,
            "to change one all the same, reject its picture first: gate decisions=FILE.csv with file,verdict,who.",
        )


def print_next_step_after_planning(folder: Path) -> None:
    """Print the command that draws the batch in a folder."""
    try:
        config_with_arguments_of_batch(Config(batch=folder.name))
    except ConfigError:  # it knows the LoRA or the watermark by digest alone
        print("Next: stylegate generate with the same arguments, then gate.")
    else:
        print(f"Next: stylegate generate batch={folder.name}, then gate; or both with the same arguments.")


def parse_slot_numbers_to_repair(written: str, size: int, exhausted: list[int]) -> list[int]:
    """The numbers of the slots that repair= names; `all` are those whose attempts are all used.

    Raises ConfigError with every word that is no number of a slot.
    """
    if written == "all":
        return exhausted
    words = [word.strip() for word in written.split(",")]
    odd = [word for word in words if not re.fullmatch("[0-9]{1,9}", word) or int(word) >= size]
    if odd:
        what = [f"{word or 'nothing'}: no slot of the plan, which has 0 to {size - 1}" for word in odd]
        raise ConfigError(f"repair={written}:", what, "numbers with commas between, or all.")
    return sorted({int(word) for word in words})


def notes_on_traits_unknown_to_brand(brand_set: BrandSet, file: TraitsFile) -> list[str]:
    """A sentence about the traits of the file that no picture of the brand is known to have, and one about each trait
    with values that none shows.
    """
    items = [item for items in brand_set.splits.values() for item in items]
    known: dict[str, dict[str, str]] = {}  # by plain spelling of trait and value: how the brand spells the value
    for item in items:
        for trait, value in item.traits.items():
            known.setdefault(name_without_case_and_accents(trait), {})[name_without_case_and_accents(value)] = value
    never = [trait for trait in file.traits if name_without_case_and_accents(trait) not in known]
    notes = []
    if never:
        notes.append(f"the gate will not look for {', '.join(never)}: no picture of the brand has a trait of that name")
    for trait, values in file.traits.items():
        shown = known.get(name_without_case_and_accents(trait), {})
        planned = dict.fromkeys([*values, *(one.traits[trait] for one in file.one_of_ones if trait in one.traits)])
        unknown = [value for value in planned if name_without_case_and_accents(value) not in shown]
        if shown and unknown:
            notes.append(
                f"no picture of the brand shows {trait}: {', '.join(unknown)}; the gate cannot read that, and a person "
                f"will have to look. The brand's pictures show {', '.join(sorted(shown.values()))}"
            )
    return notes


def traits_file_path(config: Config) -> Path:
    """The path of the traits file that traits= names. Raises ConfigError if there is none."""
    return files.resolve_name_or_path(config.traits or "", files.TRAITS, "traits", ".yaml")


def print_plan_and_write_chart(slots: list[PlanSlot], file: TraitsFile | None, path: Path) -> None:
    """Print how many slots the plan has, its one-of-ones and its counts of traits; write the counts as a picture to
    `path` if the plan has traits.
    """
    print(f"{counted(len(slots), 'slot')}; the first: {slots[0].prompt}")
    items, called = [slot.traits for slot in slots], [slot.name for slot in slots]
    if any(items):
        problem = make_plan_constraints(file, len(slots)) if file else None
        named = [f"slot {slot.slot}" + f", the one-of-one {slot.name}" * bool(slot.name) for slot in slots]
        rules_out = problem.forbids_traits_together if problem else lambda pair: False
        for line in [
            *picture.one_of_ones_in_words(called),
            *(picture.rules_in_words(file.rules, items) if file else []),
            *picture.counts_and_rarity_in_words(items, rules_out, named),
        ]:
            print(line)
        files.write_atomically(path, picture.counts_and_rarity_as_png(items, called))
        print(f"as a picture: {files.display_path(path)}")


def rarity_interval_of_each_slot(config: Config, folder: Path, slots: list[PlanSlot]) -> list[RarityInterval] | None:
    """For each slot the interval in which its rarity may end, by the verdicts so far; None where no slot is open.

    Verdicts about slots that `slots` has otherwise than the folder's plan do not count: their pictures will be moved.
    """
    before = {slot.slot: slot for slot in read_earlier_slots(folder)}
    same = {slot.slot for slot in slots if slot.is_same_slot_but_for_name(before.get(slot.slot))}
    rows = files.read_jsonl(folder / "verdicts.jsonl", "file", "verdict")
    filled = same & {attempt_and_slot(row["file"])[1] for row in rows if row["verdict"] == "accept"}
    exhausted = (
        same & set(read_failed_attempts_and_filled_slots(folder).exhausted_slots(config.plan.max_attempts)) - filled
    )
    wanted = config.plan.num_wanted or len(slots)
    return rarity_intervals([slot.traits for slot in slots], filled, exhausted, wanted)


def print_rarity_intervals(config: Config, folder: Path, slots: list[PlanSlot]) -> None:
    """Print how far each slot's rarity can still move while slots are open, and write the table of it into the cache;
    nothing where no slot is open.
    """
    items = [slot.traits for slot in slots]
    found = rarity_interval_of_each_slot(config, folder, slots) if any(items) else None
    if not found:
        return
    planned = rarity.rarity_of_each_item(items)
    scores = max(max(p.score - f.lowest_score, f.highest_score - p.score) for p, f in zip(planned, found, strict=True))
    ranks = max(max(p.rank - f.best_rank, f.worst_rank - p.rank) for p, f in zip(planned, found, strict=True))
    path = files.PLANS / f"{folder.name}.rarity.csv"
    called = [slot.name for slot in slots]
    files.write_atomically(path, rarity.rarity_table_as_csv(items, found, called))
    print("slots are open: if some get no picture, in 95 of 100 simulated ends of the batch a slot's score moves by at")
    print(f"most {scores:.2f} and its rank by at most {ranks}; slot by slot: {files.display_path(path)}")


def read_earlier_slots(folder: Path) -> list[PlanSlot]:
    """The slots of the plan in the folder of a batch; [] if there is none."""
    return read_plan(folder) if (folder / PLAN).exists() else []


def slots_with_a_drawn_picture(folder: Path) -> set[int]:
    """The numbers of the slots of which any attempt is drawn."""
    return {attempt_and_slot(name)[1] for name in names_of_attempts_with_picture(folder / "images")}


def move_outdated_pictures_aside(folder: Path, earlier: list[PlanSlot], slots: list[PlanSlot]) -> list[str]:
    """Move the pictures of slots that are no longer as they were drawn into a folder of the batch, and forget their
    verdicts. Returns lines to print: which slots lost theirs and why.
    """
    now, drawn = {slot.slot: slot for slot in slots}, slots_with_a_drawn_picture(folder)
    remove_preview_rows_of_slots(
        folder, {slot.slot for slot in earlier if not slot.is_same_slot_but_for_name(now.get(slot.slot))}
    )
    lost: dict[int, str] = {}
    for slot in earlier:
        after = now.get(slot.slot)
        if not slot.is_same_slot_but_for_name(after) and slot.slot in drawn:
            changed = [
                f"{t}: {v} -> {after.traits.get(t)}"
                for t, v in slot.traits.items()
                if after and after.traits.get(t) != v
            ]
            lost[slot.slot] = "is gone" if after is None else ", ".join(changed) or "has another prompt"
    if not lost:
        return []
    aside = folder / EARLIER / files.sha256_of_file(folder / PLAN)[:8]
    moved = {name for name in names_of_attempts_with_picture(folder / "images") if attempt_and_slot(name)[1] in lost}
    for name in moved:
        (aside / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "images" / name).rename(aside / name)
    rows = files.read_jsonl(folder / "verdicts.jsonl", "file")
    if rows:
        files.write_jsonl(
            folder / "verdicts.jsonl", [row for row in rows if attempt_and_slot(row["file"])[1] not in lost]
        )
    remove_drawn_digests(folder, moved)
    lines = [f"  slot {number}: {why}" for number, why in sorted(lost.items())]
    kept = counted(len(slots_with_a_drawn_picture(folder)), "slot")
    return [f"kept: the pictures of {kept}; lost, now in {files.display_path(aside)}: {len(lost)}", *lines]
