"""Is a configuration right? Every problem of its keys and values at once."""

import difflib
import re
from dataclasses import fields, is_dataclass
from typing import Any

from stylegate.config import CONF, GROUPS, Config, config_fields_by_key, spell_import_file_as_import
from stylegate.configgroups import TEXT_TRAINED
from stylegate.errors import ConfigError


def config_value_problems(config: Config) -> list[str]:
    """A message, with the key named, for every value that is out of its range or choices, or does not go with another
    one.
    """
    problems = []
    for dotted, entry in config_fields_by_key().items():
        value: Any = config
        for part in dotted.split("."):
            value = getattr(value, part)
        low, high, choices = entry.metadata["low"], entry.metadata["high"], entry.metadata["choices"]
        if value is None or isinstance(value, bool):
            continue
        if choices and not set(value if isinstance(value, list) else [value]) <= set(choices):
            problems.append(
                f"{dotted}={value}: must be {'among' if isinstance(value, list) else 'one of'} {list(choices)}"
            )
        if isinstance(value, list) and not value:
            problems.append(f"{dotted}=[]: must not be empty")
        if entry.metadata["multiple"] and value % entry.metadata["multiple"]:
            problems.append(f"{dotted}={value}: must be a multiple of {entry.metadata['multiple']}")
        numbers = value if isinstance(value, list) else [value]
        if low is not None and not all(low <= number <= high for number in numbers):  # NaN fails this too
            problems.append(f"{dotted}={value}: must lie in [{low:g}, {high:g}]")
    for dotted, value in (("name", config.name), ("batch", config.batch)):
        if value is not None and not re.fullmatch(r"\w[\w.-]*", value):
            problems.append(f"{dotted}={value}: letters, digits, . _ - only; it names a folder")
    for name in ("credentials", "credentials_key", "credentials_command"):
        if getattr(config, name) is not None and (config.marks != "all" or config.credentials is None):
            problems.append(f"{name}: read with marks=all alone, and with credentials=FILE")
    if config.lora.text_encoder and config.family.name not in TEXT_TRAINED:
        problems.append(f"lora.text_encoder=true: family={config.family.name} does not train its text encoders")
    if config.preferences is not None and config.objective.name != "dpo":
        problems.append("preferences: read with objective=dpo alone")
    if config.lora.text_encoder and config.objective.name == "dpo":
        problems.append("lora.text_encoder=true: objective=dpo trains no text encoder")
    if config.lora.dora and config.hardware.nf4:
        problems.append("lora.dora=true: not on a base in 4 bits (hardware.nf4), whose lengths are rounded")
    if config.hardware.shard:
        problems += [
            f"hardware.shard=true: not with hardware.{name}=true"
            for name in ("nf4", "compile")
            if getattr(config.hardware, name)
        ]
    if config.plan.num_wanted and config.plan.num_wanted > config.plan.num_images:
        problems.append(
            f"plan.num_wanted={config.plan.num_wanted}: more than plan.num_images={config.plan.num_images}; give both, "
            "since a file of experiment= sets both"
        )
    return problems


def is_text_valued_config_key(name: str) -> bool:
    """Whether the value of this dotted key is one text: it is used as it is written, whatever it looks like."""
    entry = config_fields_by_key().get(name)
    return entry is not None and entry.type in (str, str | None)


def nearest_key(name: str) -> str:
    """The key that was probably meant by an unknown one, as max_steps for train.max_steps, refs for references; "" if
    none is near.
    """
    keys = [spell_import_file_as_import(key) for key in config_fields_by_key()]
    last = {key.rpartition(".")[2]: key for key in reversed(keys)}
    near = difflib.get_close_matches(name, keys, n=1)
    near += [last[word] for word in difflib.get_close_matches(name, last, n=1)]
    shortened = [key for key in keys if len(name) > 2 and key[0] == name[0] and is_subsequence(name, key)]
    return next(iter([*near, *sorted(shortened, key=len)]), "")


def is_subsequence(part: str, text: str) -> bool:
    """Whether the letters of `part` stand in `text` in their order."""
    rest = iter(text)
    return all(letter in rest for letter in part)


def override_problem(override, schema) -> str | None:
    """What is wrong with one parsed override of Hydra's, or None. `schema` is OmegaConf.structured(Config)."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    name, text = override.key_or_group, override.input_line
    if override.is_delete():
        return f"{text}: keys cannot be deleted"
    if name in GROUPS:
        options = sorted(path.stem for path in (CONF / name).glob("*.yaml"))
        value = None if override.is_sweep_override() else override.value()
        return None if value is None or value in options else f"{text}: {name} must be one of {options}"
    if name not in config_fields_by_key():
        near = nearest_key(name)
        return f"{name}: unknown key" + (f"; did you mean {near}?" if near else "")
    if override.is_sweep_override():
        return None
    try:
        OmegaConf.update(schema, name, override.value())
    except OmegaConfBaseException as error:
        return f"{text}: {str(error).splitlines()[0]}"
    return None


def unknown_key_problems(cfg, path: str = "") -> list[str]:
    """A message for each key of a composed config that the schema does not declare, including those of YAML files."""
    from omegaconf import DictConfig, OmegaConf

    schema = OmegaConf.get_type(cfg)
    known = {f.name for f in fields(schema)} if is_dataclass(schema) else None
    found = []
    for name in cfg:
        if known is not None and name not in known:
            found.append(f"{path}{name}: unknown key")
        elif isinstance(node := cfg._get_node(name), DictConfig) and not node._is_none():
            found += unknown_key_problems(node, f"{path}{name}.")
    return found


VERBS_OF_ONE_LOT = ("score", "gate", "review", "learn", "calibrate", "certify", "export")


def checked_config(cfg, problems: list[str], verb: str = "COMMAND") -> Config:
    """The composed config of a verb as dataclasses. Raises ConfigError with every problem at once, `problems`
    included.
    """
    from omegaconf import OmegaConf

    problems = problems + unknown_key_problems(cfg)
    problems += [f"{name}=???: a value is needed" for name in OmegaConf.missing_keys(cfg)]
    if not problems:
        config = OmegaConf.to_object(cfg)
        assert isinstance(config, Config)
        problems = config_value_problems(config)
        if verb in VERBS_OF_ONE_LOT and config.out and not config.watch and (config.batch or not config.images):
            problems.append(
                f"out={config.out}: {verb} reads it with images= alone. The results of a batch lie in the batch's "
                "folder, and its package in data/exports/"
            )
        if not problems:
            return config
    else:  # ranges are still worth reporting where the known part can be read
        known = {k: cfg[k] for k in cfg if k in Config.__slots__ and not OmegaConf.is_missing(cfg, k)}
        readable = OmegaConf.merge(OmegaConf.structured(Config), known)
        problems = problems + config_value_problems(OmegaConf.to_object(readable))  # type: ignore[arg-type]
    raise config_error_listing_problems(problems, verb)


def config_error_listing_problems(problems: list[str], verb: str) -> ConfigError:
    """The ConfigError, for the caller to raise, that lists every problem of the configuration of a verb."""
    return ConfigError("the configuration has problems:", problems, f"stylegate {verb} --help lists its keys.")
