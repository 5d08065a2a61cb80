"""Where a batch lies and what it is made of.

data/batches/<name>/ holds batch.json (what the pictures depend on), plan.parquet, images/<slot>-<attempt>.png, then
scores, verdicts, report. The name carries a hash of plan, base and LoRA, so other arguments make another batch.
Slots from SLOTS_A_FOLDER on lie in subfolders: images/0001/02500-0.png. In batches of before they lie in images/ too.
"""

import json
import re
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, ValidationError

from eval.lot.record import (
    BatchConfigValues,
    BatchFacts,
    BatchRecord,
    DrawingSettings,
    ModelFamilyFacts,
    PlanFacts,
    SamplerTrial,
)
from stylegate import brandset, files
from stylegate.basename import base_name_for_drawing
from stylegate.config import Config, config_as_dict, run_or_batch_name
from stylegate.errors import ConfigError, DataError
from stylegate.records import Record, validation_problems
from stylegate.rundirectory import run_directory_name
from stylegate.watermark import watermark_weights_digest

RECORD = "batch.json"
PLAN = "plan.parquet"
SLOTS_A_FOLDER = 2500  # with 4 attempts at each, plan.max_attempts' default, a folder holds 10,000 pictures at most
NAMED = 5  # batches at most that an error message names
DAMAGED_PLAN = "restore it from a copy, or plan again under another batch= name."
COLUMNS = pa.schema(
    [
        ("slot", pa.int32()),
        ("prompt", pa.string()),
        ("negative_prompt", pa.string()),
        ("seed", pa.int64()),
        ("traits", pa.string()),
        ("name", pa.string()),
    ]
)


class PlanSlot(Record):
    """A row of plan.parquet: one wanted picture. Its attempts share prompt and traits; each has its own seed."""

    slot: Annotated[int, Field(ge=0)]
    """Its number in the plan, from 0."""
    prompt: str
    negative_prompt: str = ""
    """What guidance leads away from; empty for what the base's pipeline does by itself."""
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    """The seed that the seeds of the attempts are made from."""
    traits: dict[str, str]
    """The planned value of each trait; empty for a plan of prompts."""
    name: str = ""
    """What people call a one-of-one, which its metadata then does too; left out of plan.jsonl where there is none."""

    def picture_file_name(self, attempt: int) -> str:
        """The name of the picture's file for one attempt, such as 00012-0.png for slot 12."""
        return attempt_file_name(self.slot, attempt)

    def is_same_slot_but_for_name(self, other: "PlanSlot | None") -> bool:
        """Whether the pictures of the other slot are pictures of this one: all but the name is the same."""
        return other is not None and self == other.model_copy(update={"name": self.name})

    def seed_of_attempt(self, attempt: int) -> int:
        """32-bit seed of one attempt."""
        return int(np.random.SeedSequence([self.seed, attempt]).generate_state(1)[0])


def attempt_file_name(slot: int, attempt: int, in_subfolder: bool = True) -> str:
    """The name of an attempt's picture below images/."""
    folder, name = slot // SLOTS_A_FOLDER, f"{slot:05d}-{attempt}.png"
    return f"{folder:04d}/{name}" if folder and in_subfolder else name


def is_attempt_file_name(file: str) -> bool:
    """Whether a file's name below images/ is of an attempt; other files there are no pictures of the batch.

    Each attempt has one name in a folder: 000001-0.png and 00001-00.png are not what `attempt_file_name` gives.
    """
    found = re.fullmatch(r"([0-9]{4,}/)?([0-9]{5,})-([0-9]+)\.png", file)
    return found is not None and file == attempt_file_name(int(found[2]), int(found[3]), bool(found[1]))


def names_of_attempts_with_picture(images: Path) -> list[str]:
    """The names below images/ of the attempts that have a picture: first attempts first, each in the order of slots.

    Where the picture of an attempt lies in images/ and in its subfolder, the one in the subfolder counts.
    """
    places = [images, *(path for path in files.sorted_paths_matching_pattern(images, "[0-9]*") if path.is_dir())]
    paths = [path for place in places for path in files.sorted_paths_matching_pattern(place, "*.png")]
    names = [path.relative_to(images).as_posix() for path in paths]
    found = {attempt_and_slot(name): name for name in names if is_attempt_file_name(name)}
    return [found[key] for key in sorted(found)]


def has_picture_of_attempt(images: Path, slot: PlanSlot, attempt: int) -> bool:
    """Whether an attempt at a slot has a picture in images/, in its subfolder or beside it."""
    return any((images / attempt_file_name(slot.slot, attempt, place)).exists() for place in (True, False))


def attempt_and_slot(file: str) -> tuple[int, int]:
    """(attempt, slot) of a picture's file name, as a sort key: first attempts come first, in the order of the slots."""
    slot, _, attempt = Path(file).stem.partition("-")
    return int(attempt), int(slot)


def batch_folder_and_facts(
    config: Config, replanned: bool = False, plan_stays: bool = False
) -> tuple[Path, BatchFacts]:
    """The folder of the batch that these arguments name, which may not exist yet, and what its pictures depend on.

    With `replanned` the plan may be another than before; with `plan_stays` neither traits= nor prompts= need be given
    again. Raises ModelError if no LoRA has been trained by the same words, ConfigError if `batch=` names a folder that
    was made from other facts.
    """
    configured = batch_facts_from_config(config)
    facts = facts_with_trial_settings(config, configured)
    named = (
        config.batch or f"{run_or_batch_name(config)}-{files.canonical_sha256(facts.json_data_without_defaults())[:8]}"
    )
    folder = files.BATCHES / named
    if (folder / RECORD).exists():
        before = read_existing_batch_record(folder).facts
        facts = configured if before.generate == configured.generate else facts  # begun before the trial
        if plan_stays and config.batch and not config.traits and not config.prompts:
            facts = facts.model_copy(update={"plan": facts.plan.model_copy(update={"traits": before.plan.traits})})
        was = before.model_dump(mode="json")
        changed = [
            changed_fact_in_words(k, was[k], v)
            for k, v in facts.model_dump(mode="json").items()
            if was[k] != v and not (replanned and k == "plan")
        ]
        if changed:
            raise ConfigError(
                f"{files.display_path(folder)} was made from something else:",
                changed,
                "give the arguments that it was made with, or another batch= name. Where a file has changed (traits, "
                "prompts, a LoRA), plan a batch of another name.",
            )
    return folder, facts


def changed_fact_in_words(name: str, was: Any, now: Any) -> str:
    """What a batch was made from, and what the arguments name, for one of the BatchFacts in which they differ."""
    from stylegate.families.pipelines import digest_of_base_in_4_bits

    if name == "base" and was == digest_of_base_in_4_bits(now):
        return "base: it was in 4 bits, and hardware.nf4=true is not given"
    if name == "base" and now == digest_of_base_in_4_bits(was):
        return "base: it was not in 4 bits, and hardware.nf4=true is given"
    if isinstance(was, dict) and isinstance(now, dict):
        changed = [f"{key} was {was.get(key)}, is {value}" for key, value in now.items() if was.get(key) != value]
        return f"{name}: {'; '.join(changed)}"
    return f"{name}: was {was}, is {now}"


def batch_facts_from_config(config: Config) -> BatchFacts:
    """What the pictures of these arguments depend on, with steps and guidance as the configuration says, whatever a
    trial chose. Reads and hashes base and LoRA.

    Raises ModelError if no LoRA has been trained with the same arguments.
    """
    from stylegate import lorafile  # torch: not for verbs that name a batch by batch=
    from stylegate.families import FAMILIES, pipelines

    lora = lorafile.lora_file_for_drawing(config)
    family = FAMILIES[config.family.name]
    base = pipelines.weights_digest(family.base_folder(base_name_for_drawing(config)))
    settings = config_as_dict(config.generate)
    del settings["by_trial"]
    trained_on = pipelines.weights_digest(family.base_folder(config.base)) if config.draw_base else ""
    return BatchFacts(
        training_base=trained_on,
        brand=brandset.read_brand_set(brandset.brand_folder(config.brand)).sha256_of_training_content()
        if config.brand
        else None,
        base=pipelines.digest_of_base_in_4_bits(base) if config.hardware.nf4 else base,
        lora=lorafile.lora_file_digest(lora) if lora else None,
        family=ModelFamilyFacts(**config_as_dict(config.family)),
        plan=PlanFacts(
            exclude_training=config.plan.exclude_training,
            seed=config.plan.seed,
            traits=traits_or_prompts_digest(config),
        ),
        generate=DrawingSettings(**settings),
        watermark=watermark_weights_digest(config.watermark),
    )


def sampler_trial_path(configured: BatchFacts) -> Path:
    """The file of the trial (`stylegate trial`) of this base and LoRA, family, steps and guidance; it may not exist."""
    drawing = configured.generate.model_copy(update={"stop_early_at": None})  # a trial stops none
    on = [
        configured.base,
        configured.lora,
        configured.family.json_data_without_defaults(),
        drawing.json_data_without_defaults(),
    ]
    return files.BATCHES / "trials" / f"{files.canonical_sha256(on)[:16]}.json"


def facts_with_trial_settings(config: Config, configured: BatchFacts) -> BatchFacts:
    """`configured` with the steps and guidance that a trial chose; unchanged if there is no trial, or
    none is wanted.
    """
    path = sampler_trial_path(configured)
    if not config.generate.by_trial or not path.exists():
        return configured
    chosen = SamplerTrial.read_json_file(path, "the trial", "remove it; stylegate trial makes it anew.").chosen
    return configured.model_copy(
        update={"generate": configured.generate.model_copy(update=chosen.json_data_without_defaults())}
    )


def read_existing_batch_record(folder: Path) -> BatchRecord:
    """batch.json of a batch that exists. Raises DataError with every problem of the file."""
    return BatchRecord.read_json_file(folder / RECORD, "the batch's record", "plan again under another batch= name.")


def read_batch_record_or_name_others(folder: Path) -> BatchRecord:
    """batch.json of a batch. Raises DataError if there is no such batch, naming those that exist, newest first."""
    if not (folder / RECORD).exists():
        found = sorted(files.BATCHES.glob(f"*/{RECORD}"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        names = [path.parent.name for path in found[:NAMED]]
        more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
        step = "run stylegate plan first, with the same arguments"
        if names:
            step = (
                f"name one: batch={' or batch='.join(names)}{more}; or {step}. If you did, give all of its arguments "
            )
            step += "again (brand, traits, prompts, lora_file ...)"
        raise DataError(f"there is no batch {folder.name} in {files.display_path(folder.parent)}", next_step=f"{step}.")
    return read_existing_batch_record(folder)


def write_batch_record(folder: Path, facts: BatchFacts, config: Config) -> None:
    """Write batch.json. If pictures have been drawn, their recorded precision and size stay unchanged."""
    before = read_existing_batch_record(folder) if (folder / RECORD).exists() else None
    run = None if config.lora_file else run_directory_name(config)
    if before and before.facts.lora == facts.lora:
        run = run or before.words.run  # batch=NAME alone, or the run's LoRA by its path
    BatchRecord(
        facts=facts,
        words=BatchConfigValues(
            brand=config.brand,
            base=base_name_for_drawing(config),
            training_base=config.base if config.draw_base else "",
            run=run,
            traits=config.traits or "",
            nf4=config.hardware.nf4,
        ),
        wanted=config.plan.num_wanted or config.plan.num_images,
        max_attempts=config.plan.max_attempts,
        precision=before.precision if before else None,
        size=before.size if before else None,
    ).write_json_file(folder / RECORD)


def traits_or_prompts_digest(config: Config) -> str | None:
    """Digest of the traits file or the prompts file; None for captions of the brand (its digest covers them)."""
    if config.traits:
        return files.sha256_of_file(files.resolve_name_or_path(config.traits, files.TRAITS, "traits", ".yaml"))
    if config.prompts:
        return files.sha256_of_file(require_file(config.prompts, "prompts"))
    return None


def require_file(path: str, what: str) -> Path:
    """The path, with ~ resolved. Raises DataError if there is no such file; `what` is the key that names it."""
    found = Path(path).expanduser()
    if not found.is_file():
        raise DataError(f"{what}={path} is not a file", next_step=files.advice_on_missing_path(path))
    return found


def write_plan(folder: Path, slots: list[PlanSlot]) -> None:
    """Write plan.parquet into the batch's folder: a row for each slot, in this order."""
    rows = {
        "slot": [s.slot for s in slots],
        "prompt": [s.prompt for s in slots],
        "negative_prompt": [s.negative_prompt for s in slots],
        "seed": [s.seed for s in slots],
        "traits": [json.dumps(s.traits, sort_keys=True) for s in slots],
        "name": [s.name for s in slots],
    }
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(rows, schema=COLUMNS), sink)
    files.write_atomically(folder / PLAN, sink.getvalue().to_pybytes())


def read_plan(folder: Path) -> list[PlanSlot]:
    """The slots in plan.parquet of the batch in a folder, in order. Raises DataError if there is no plan or it is
    damaged.
    """
    path = folder / PLAN
    if not path.exists():
        read_batch_record_or_name_others(folder)
        raise DataError(f"{files.display_path(folder)} has no plan", next_step="stylegate plan, same arguments.")
    try:
        table = files.read_parquet_as_arrow_table(path)
        for column in {"negative_prompt", "name"} - {*table.column_names}:  # a plan of before there were any
            table = table.append_column(column, pa.array([""] * len(table), pa.string()))
        rows = table.select(COLUMNS.names).cast(COLUMNS).to_pylist()
        return [PlanSlot.model_validate(row | {"traits": json.loads(row["traits"])}) for row in rows]
    except ValidationError as error:
        raise DataError(
            f"{files.display_path(path)} is not as stylegate writes it:", validation_problems(error), DAMAGED_PLAN
        ) from None
    except (pa.ArrowException, ValueError, OSError, TypeError) as error:
        raise DataError(f"{files.display_path(path)} cannot be read: {error}", next_step=DAMAGED_PLAN) from None
