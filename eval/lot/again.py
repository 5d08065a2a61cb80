"""A batch that exists is named by batch= alone: what it was planned with stands in for arguments that are not given."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from eval.lot.batch import RECORD, read_existing_batch_record
from eval.lot.record import BatchRecord
from stylegate import files
from stylegate.config import Config
from stylegate.errors import ConfigError

Part = TypeVar("Part")


def config_with_arguments_of_batch(config: Config, typed: Collection[str] = ()) -> Config:
    """The config of `batch=NAME` alone, with brand, base, LoRA and drawing settings of the batch of that name.

    Keys that are typed, and those that have another than their usual value, stay as they are: what is not of the batch
    is refused where the batch is read. It is unchanged if no such batch is there, if brand= is given (then all
    arguments are), and for what needs none of them: audit= and import=. Raises ConfigError for a batch that was planned
    with a file of which it knows no more than the digest, and which is not given.
    """
    folder = files.BATCHES / (config.batch or "")
    if not config.batch or config.audit or config.import_file or not (folder / RECORD).exists():
        return config
    if config.brand:
        return config
    record = read_existing_batch_record(folder)
    facts, words, lora = record.facts, record.words, lora_of_batch(record)
    problems = []
    if facts.lora and not lora and not config.lora_file:
        problems.append(f"lora_file=: the LoRA with sha256 {facts.lora}")
    if facts.watermark and not config.watermark:
        problems.append(f"watermark=: the weights with sha256 {facts.watermark}")
    if problems:
        raise ConfigError(
            f"batch={config.batch} alone does not say where these files lie:",
            problems,
            "give them beside batch=; the batch says the rest.",
        )
    planned = facts.plan.model_dump(include={"seed", "exclude_training"})
    planned |= {"max_attempts": record.max_attempts} if record.max_attempts else {}
    of_batch = {
        "brand": words.brand,
        "base": words.training_base or words.base,
        "draw_base": words.base if words.training_base else None,
        "family": facts.family.model_dump(),
        "lora_file": str(lora) if lora else "none",
        "plan": planned,
        "generate": facts.generate.model_dump(),
        "hardware": {"nf4": words.nf4},
    }
    named = {"family.name" if key == "family" else key for key in typed}  # family=sdxl
    return config_with_unset_values_filled(config, Config(), of_batch, named)


def config_with_unset_values_filled(
    given: Part, usual: Part, values: Mapping[str, Any], typed: Collection[str]
) -> Part:
    """A config, or a part of one, with these values by name, but for keys that are typed or have another value than the
    usual one. `typed` are dotted names, as in this part.
    """
    changes: dict[str, Any] = {}
    for name, value in values.items():
        now, default = getattr(given, name), getattr(usual, name)
        if isinstance(value, Mapping):
            inside = {key.removeprefix(f"{name}.") for key in typed if key.startswith(f"{name}.")}
            changes[name] = config_with_unset_values_filled(now, default, value, inside)
        elif now == default and name not in typed:
            changes[name] = value
    return replace(given, **changes)  # type: ignore[type-var]


def lora_of_batch(record: BatchRecord) -> Path | None:
    """The LoRA that the batch is drawn with, in the folder of the training run that made it; None if it is not there,
    or was named by lora_file=.
    """
    release = files.RUNS / record.words.run / "lora" if record.words.run else None
    paths = sorted(release.glob("*.safetensors")) if release else []
    return next((path for path in paths if files.sha256_of_file(path) == record.facts.lora), None)
