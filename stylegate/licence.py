"""What a base model may be used for: its licence, as its card says, and whether somebody has to agree to it first."""

import re
from pathlib import Path

import yaml

from stylegate import files, hub
from stylegate.basename import parse_hub_id
from stylegate.config import Config
from stylegate.errors import ConfigError

UNKNOWN = "unknown"
UNCLEAR = {UNKNOWN, "other"}
RESTRICTED = re.compile(r"(^|[-_ ])(nc|non-?commercial|research)([-_ ]|$)", re.IGNORECASE)


def look_up_licence_of_base(base: str, folder: Path) -> str:
    """The licence that the card beside the weights in `folder` names, else that of the hub's card, else "unknown".

    The card of shipped bases stands in the folder above. Above any other folder a README is of something else.
    """
    above = [folder.parent / "README.md"] if folder.is_relative_to(files.MODELS) else []
    for card in (folder / "README.md", *above):
        head = re.match(r"---\n(.*?)\n---", card.read_text(errors="replace"), re.DOTALL) if card.is_file() else None
        try:
            named = yaml.safe_load(head[1]) if head else None
        except yaml.YAMLError:
            named = None
        if isinstance(named, dict) and isinstance(named.get("license"), str):
            return named["license"]
    if named := parse_hub_id(base):
        from huggingface_hub import ModelCard, hf_hub_download

        hub.go_offline_if_hub_unreachable()
        try:
            card = hf_hub_download(named[0], "README.md", revision=named[1])
            return str(ModelCard.load(card).data.get("license") or UNKNOWN)
        except Exception:  # network, name, no card: whatever the hub client raises
            return UNKNOWN
    return UNKNOWN


def reason_to_agree_to_licence(licence: str) -> str:
    """Why somebody has to agree to a licence first, in words that follow "the licence"; "" where nobody has to."""
    if licence in UNCLEAR:
        return "is not known"
    return f"is {licence}, which forbids or restricts commercial use" if RESTRICTED.search(licence) else ""


def is_licence_accepted(config: Config, licence: str) -> bool:
    """Whether `accept_licence=` names the licence; several names are separated by commas."""
    return licence in [named.strip() for named in (config.accept_licence or "").split(",")]


def require_licence_agreement(config: Config, folder: Path, key: str = "base") -> str:
    """The licence of the base in `folder`; the config's `key`, base or draw_base, names this base.

    Raises ConfigError if it is unclear or restricted, and not accepted by name in the config.
    """
    base = getattr(config, key)
    licence = look_up_licence_of_base(base, folder)
    if (what := reason_to_agree_to_licence(licence)) and not is_licence_accepted(config, licence):
        raise ConfigError(
            f"the licence of {key}={base} {what}",
            next_step=f"read it; if your use is allowed, say accept_licence={licence}.",
        )
    return licence
