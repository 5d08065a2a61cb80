"""What `base=` names: a shipped model, a folder, or a model on the hub.

Without torch, for commands that draw nothing.
"""

from pathlib import Path

from stylegate import files
from stylegate.config import Config
from stylegate.errors import ModelError


def parse_hub_id(base: str) -> tuple[str, str | None] | None:
    """Name and revision of `owner/name` or `owner/name@revision` on the hub; None for a folder or a shipped name.

    Raises ModelError if a folder of that name exists too: it must not be taken for what the hub has.
    """
    name, _, revision = base.partition("@")
    if name.count("/") != 1 or name.startswith((".", "~", "/")) or name.endswith("/"):
        return None
    if Path(base).exists():
        raise ModelError(
            f"base={base} is a folder here, and a model on the hub may have that name",
            next_step=f"write ./{base} for the folder, or {name}@REVISION for the hub's (@main is the newest).",
        )
    return name, revision or None


def base_name_for_drawing(config: Config) -> str:
    """The base that pictures are drawn with: `draw_base=`, else the one that is trained on."""
    return config.draw_base or config.base


def local_base_folder_path(base: str, family: str) -> Path:
    """The folder that `base` means, a path or the name of a shipped model, whether it exists or not."""
    return Path(base).expanduser() if files.is_path(base) else files.MODELS / base / family
