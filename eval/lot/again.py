"""A batch that exists is named by batch= alone: what it was planned with stands in for arguments that are not given."""

from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from eval.lot.batch import RECORD, read_existing_batch_record
from eval.lot.record import BatchRecord
from stylegate import files
from stylegate.config import Config, config_as_dict
from stylegate.configgroups import FamilyConfig, GenerateConfig, PlanConfig
from stylegate.errors import ConfigError

Part = TypeVar("Part", PlanConfig, GenerateConfig)


def with_arguments_of_batch(config: Config) -> Config:
    """The config of `batch=NAME` alone, with brand, base, LoRA and drawing settings of the batch of that name.

    It is unchanged if no such batch is there, and if brand= or lora_file= is given: then all arguments are. Raises
    ConfigError for a batch that was planned with a file of which it knows no more than the digest.
    """
    folder = files.BATCHES / (config.batch or "")
    if not config.batch or config.brand or config.lora_file or not (folder / RECORD).exists():
        return config
    record = read_existing_batch_record(folder)
    facts, words, lora = record.facts, record.words, lora_of_batch(record)
    problems = []
    if facts.lora and not lora:
        problems.append(f"lora_file=: the LoRA with sha256 {facts.lora}")
    if facts.watermark and not config.watermark:
        problems.append(f"watermark=: the weights with sha256 {facts.watermark}")
    if problems:
        raise ConfigError(
            f"batch={config.batch} alone does not say where these files lie:",
            problems,
            "give them, with brand= and the other arguments of stylegate plan.",
        )
    drawn, planned = facts.generate.model_dump(), facts.plan.model_dump(include={"seed", "exclude_training"})
    planned |= {"max_attempts": record.max_attempts} if record.max_attempts else {}
    return replace(
        config,
        brand=words.brand,
        base=words.training_base or words.base,
        draw_base=words.base if words.training_base else None,
        family=FamilyConfig(name=facts.family.name, resolution=facts.family.resolution),
        lora_file=str(lora) if lora else "none",
        plan=filled_where_usual(config.plan, PlanConfig(), planned),
        generate=filled_where_usual(config.generate, GenerateConfig(), drawn),
    )


def filled_where_usual(given: Part, usual: Part, values: dict[str, Any]) -> Part:
    """The part of a config with these values, but for keys that were given another value than the usual one."""
    there, default = config_as_dict(given), config_as_dict(usual)
    return replace(given, **{key: value for key, value in values.items() if there[key] == default[key]})


def lora_of_batch(record: BatchRecord) -> Path | None:
    """The LoRA that the batch is drawn with, in the folder of the training run that made it; None if it is not there,
    or was named by lora_file=.
    """
    release = files.RUNS / record.words.run / "lora" if record.words.run else None
    paths = sorted(release.glob("*.safetensors")) if release else []
    return next((path for path in paths if files.sha256(path) == record.facts.lora), None)
