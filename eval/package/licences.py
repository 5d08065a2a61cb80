"""The chain of licences of the pictures that leave: of the base, the LoRA, and the pictures that it learned from."""

from pathlib import Path

from safetensors import safe_open

from eval.lot.lot import Lot
from eval.package.provenance import LicenceOfMaterial
from stylegate import brandset, files, licence
from stylegate.basename import local_base_folder_path, parse_hub_id
from stylegate.config import Config
from stylegate.errors import ConfigError, StylegateError

MATERIAL = {
    "base": "the base model",
    "training base": "the base model that the LoRA was trained on",
    "data": "the pictures that the LoRA learned from",
    "lora": "the LoRA",
}


def licence_chain(config: Config, lot: Lot) -> list[LicenceOfMaterial]:
    """The licences that the pictures of a planned batch depend on; none for pictures that were not drawn here.

    Raises ConfigError with every licence that is unknown or restricts commercial use, and is not accepted by name.
    """
    if lot.record is None:
        return []
    words, facts = lot.record.words, lot.record.facts
    found = {"base": licence_of_base(lot, words.base)}
    if words.training_base:
        found["training base"] = licence_of_base(lot, words.training_base)
    if facts.lora and words.run:
        found["data"] = licence_of_brand(words.brand)
    elif facts.lora:
        found["lora"] = licence_of_lora(config, facts.lora)
    unclear = {what: problem for what, named in found.items() if (problem := licence.reason_to_agree_to_licence(named))}
    if refused := [what for what in unclear if not licence.is_licence_accepted(config, found[what])]:
        named = {
            "base": words.base,
            "training base": words.training_base,
            "data": f"brand {words.brand}",
            "lora": config.lora_file or "lora_file= does not name it",
        }
        problems = [f"the licence of {MATERIAL[what]} ({named[what]}) {unclear[what]}" for what in refused]
        own = f"write the licence of your own pictures into brand.yaml of brand {words.brand}; "
        accepted = ",".join(dict.fromkeys(found[what] for what in unclear))
        raise ConfigError(
            "nothing was exported: what made the pictures has a licence that is not known or restricts their use:",
            problems,
            f"{own if 'data' in refused else ''}for licences that you have read and may work under, give "
            f"accept_licence={accepted}.",
        )
    return [LicenceOfMaterial(what=what, licence=found[what], accepted=what in unclear) for what in found]


def licence_of_base(lot: Lot, base: str) -> str:
    """The licence of a base of the batch, named as in its record; "unknown" where it is no longer at hand."""
    assert lot.record is not None
    folder = local_base_folder_path(base, lot.record.facts.family.name)
    try:
        return (
            licence.look_up_licence_of_base(base, folder) if folder.is_dir() or parse_hub_id(base) else licence.UNKNOWN
        )
    except StylegateError:
        return licence.UNKNOWN


def licence_of_brand(brand: str | None) -> str:
    """The licence that brand.yaml names; "unknown" where the brand set is no longer at hand."""
    try:
        return brandset.read_brand_file(brandset.brand_folder(brand)).licence
    except StylegateError:
        return "unknown"


def licence_of_lora(config: Config, sha256: str) -> str:
    """The licence in the header of the LoRA that `lora_file=` names, if it is the one that drew; else "unknown"."""
    path = Path(config.lora_file or "").expanduser()
    if not path.is_file() or files.sha256_of_file(path) != sha256:
        return licence.UNKNOWN
    with safe_open(path, framework="numpy") as file:  # it drew the pictures: it is whole
        return (file.metadata() or {}).get("modelspec.license", licence.UNKNOWN)
