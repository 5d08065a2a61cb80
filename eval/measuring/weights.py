"""What stands for an encoder in keys and records: a digest of its weights, known without loading it.

Of a folder it is the digest of the folder. Of open_clip's MODEL:PRETRAINED it is the digest of the checkpoint file that
the name led to when the encoder was last loaded here: a name may lead to other weights later. Where that is written is
files.CACHE / RECORD. A name that was never loaded here has no weights yet, hence no scores at hand.
"""

import contextlib
import uuid
from pathlib import Path
from typing import Any

from stylegate import files
from stylegate.digests import sha256_of_files
from stylegate.errors import DataError, ModelError

RECORD = "encoders.json"  # name -> path of the checkpoint

located: dict[str, Path] = {}  # checkpoints of the encoders that this process has loaded, by name


def checkpoint_digest_or_unique_text(name: str) -> str:
    """A digest of the name MODEL:PRETRAINED and of the checkpoint file that it led to when it was last loaded here.

    Where that file is not known, it is a text that equals no other.
    """
    path = located.get(name) or read_checkpoint_locations().get(name)
    digest = sha256_of_files([Path(path)])[0] if path else ""
    return files.canonical_sha256([name, digest]) if digest else f"{name} without weights {uuid.uuid4()}"


def read_checkpoint_locations() -> dict[str, Any]:
    """The recorded paths of checkpoint files by encoder name, MODEL:PRETRAINED; {} if the record is missing or
    damaged.
    """
    path = files.CACHE / RECORD
    try:
        return files.read_json(path, "the record of encoders") if path.is_file() else {}
    except DataError:
        return {}


def find_or_download_checkpoint(name: str, settings: dict[str, Any]) -> Path:
    """The checkpoint file of MODEL:PRETRAINED, downloaded if it is not here yet.

    `settings` is open_clip's entry for these weights. Raises ModelError if there is no file.
    """
    from open_clip.pretrained import download_pretrained

    path = Path(download_pretrained(settings) or "").expanduser().absolute()
    if not path.is_file():
        raise ModelError(f"encoder={name}: its weights are not at {path}", next_step="check the name, or the network.")
    return path


def record_checkpoint_location(name: str, path: Path) -> None:
    """Record in the cache which checkpoint file was loaded for the encoder `name`. A cache that cannot be written costs
    time later, and is no error.
    """
    located[name] = path
    with contextlib.suppress(OSError):
        files.write_json(files.CACHE / RECORD, read_checkpoint_locations() | {name: str(path)})
