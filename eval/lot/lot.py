"""What is judged: a planned batch or any folder of pictures."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.lot.batch import (
    PlanSlot,
    attempt_and_slot,
    batch_folder_and_facts,
    names_of_attempts_with_picture,
    read_batch_record_or_name_others,
    read_plan,
)
from eval.lot.drawn import read_drawn_digests
from eval.lot.early import names_of_stopped_attempts
from eval.lot.record import BatchRecord
from stylegate import files
from stylegate.config import Config
from stylegate.digests import sha256_of_files
from stylegate.errors import DataError
from stylegate.listing import FolderListing, list_folder
from stylegate.words import counted

NAMED = 10  # files that a note lists


@dataclass(frozen=True, slots=True)
class Lot:
    """The pictures that one gate judges, a planned batch or a folder, and the folder of its results."""

    images: Path
    out: Path
    files: list[tuple[str, Path]]  # name relative to `images`, in the order in which duplicates are decided
    sha256: dict[str, str]  # by name; an unreadable file has ""
    slots: dict[str, PlanSlot] | None  # by name; None for a foreign folder
    record: BatchRecord | None  # batch.json; None for a foreign folder
    notes: tuple[str, ...] = ()  # on the files of the folder that are not judged
    drawn: dict[str, set[str]] | None = None  # by name the sha256 of what was drawn; None where nobody wrote it down
    stopped: tuple[str, ...] = ()  # attempts that were stopped early, by the name that a picture of them would have
    plan: tuple[PlanSlot, ...] = ()  # every slot of the plan, with or without a picture; empty for a foreign folder
    groups: Mapping[str, int] | None = None  # of a folder, by name (0, 1, ...): those of one group may look alike

    def planned_traits_by_name(self) -> dict[str, dict[str, str]]:
        """The planned traits of each picture, by name; {} for a foreign folder."""
        return {name: slot.traits for name, slot in (self.slots or {}).items()}

    def is_retouched(self, name: str, sha256: str) -> bool:
        """Whether a picture of a planned batch is not as it was drawn: a person changed it, or put it there."""
        return self.drawn is not None and sha256 not in self.drawn.get(name, ())

    def digest_of_names_and_contents(self) -> str:
        """sha256 (hex) over the names and contents of all files, in their order."""
        return digest_of_names_and_digests(self.files, self.sha256)


@contextmanager
def locked_lot(config: Config, remember: bool = True, only: set[Path] | None = None) -> Iterator[Lot]:
    """Lock the folder of the lot that the config names, read the lot, and yield it; the lock ends with the context.

    Where the folder's name follows from the content of foreign pictures, they are read first, since the lock needs it.
    Raises SurroundingsError if another command is at work on the folder, and whatever `read_lot` raises.
    """
    is_foreign = bool(config.images and not config.batch)
    if is_foreign and not config.out:
        lot = lot_of_folder(config, remember)
        with files.exclusive_lock(lot.out):
            yield lot
    elif is_foreign:
        with files.exclusive_lock(Path(config.out or "").expanduser().resolve()):
            yield lot_of_folder(config, remember, only)
    else:
        folder = named_batch_folder(config)
        with files.exclusive_lock(folder):
            yield lot_of_batch(folder, remember)


def read_lot(config: Config, remember: bool = True) -> Lot:
    """The lot of pictures that the config names: a planned batch or a folder. Raises DataError if it has no pictures.

    Without `remember` the bytes of every picture are read now (stylegate/digests.py).
    """
    if config.images and not config.batch:
        return lot_of_folder(config, remember)
    return lot_of_batch(named_batch_folder(config), remember)


def named_batch_folder(config: Config) -> Path:
    """The folder of the planned batch that the arguments name, whether it exists or not."""
    return files.BATCHES / config.batch if config.batch else batch_folder_and_facts(config)[0]


def lot_of_batch(folder: Path, remember: bool = True) -> Lot:
    """The lot of the planned batch in a folder: a picture for each attempt that was drawn. Raises DataError if there
    are none, or no such batch.
    """
    record = read_batch_record_or_name_others(folder)
    images = folder / "images"
    found = names_of_attempts_with_picture(images)
    if not found:
        raise DataError(
            f"{files.display_path(folder)} has no pictures", next_step="stylegate generate with the same arguments."
        )
    plan = tuple(read_plan(folder))
    by_number = {slot.slot: slot for slot in plan}
    slots = {name: by_number[slot] for name in found if (slot := attempt_and_slot(name)[1]) in by_number}
    named = [(name, images / name) for name in found if name in slots]
    if not named:
        raise DataError(
            f"no picture in {files.display_path(images)} is of the plan", next_step="stylegate generate first."
        )
    known = {path for _, path in named}
    listing = list_folder(images)
    others = [path for path in (*listing.pictures, *listing.beside) if path not in known]
    notes = (
        (f"not judged, as no pictures of the plan: {file_count_and_names_in_words(images, others)}",) if others else ()
    )
    digests = sha256_by_name(named, remember)
    stopped = tuple(name for name in names_of_stopped_attempts(folder) if attempt_and_slot(name)[1] in by_number)
    return Lot(images, folder, named, digests, slots, record, notes, read_drawn_digests(folder), stopped, plan)


def lot_of_folder(config: Config, remember: bool, only: set[Path] | None = None) -> Lot:
    """The lot of a folder of pictures by anyone; of those in `only`, where it is given. Results are written into
    another folder. Raises DataError for no pictures.
    """
    images = Path(config.images or "").expanduser().resolve()
    if not images.is_dir():
        raise DataError(f"images={config.images} is not a folder", next_step="name a folder of pictures.")
    listing = list_folder(images)
    waiting = [path for path in listing.pictures if only is not None and path not in only]
    ready = (path for path in listing.pictures if only is None or path in only)
    named = [(relative_name(images, path), path) for path in ready]
    if not named:
        raise DataError(f"images={config.images} holds no pictures", next_step="name the folder that holds them.")
    digests = sha256_by_name(named, remember)
    content = digest_of_names_and_digests(named, digests)
    out = Path(config.out).expanduser().resolve() if config.out else files.BATCHES / f"{images.name}-{content[:8]}"
    if out == images or out.is_relative_to(images):
        raise DataError(f"out={config.out} lies in the folder that is judged", next_step="give another out=.")
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or (out / "score.json").exists())):
        raise DataError(f"out={config.out} holds something else", next_step="give an empty or new folder.")
    notes = notes_on_skipped_files(images, "not judged", listing)
    if waiting:
        notes += (f"not judged yet, as they were being written: {file_count_and_names_in_words(images, waiting)}",)
    return Lot(images, out, named, digests, None, None, notes)


def notes_on_skipped_files(
    folder: Path, what: str, listing: FolderListing, masks: Sequence[Path] = ()
) -> tuple[str, ...]:
    """A text for each cause for which files of the folder are not used (no pictures; hidden or of the operating system;
    masks of others): how many there are, and the first names.

    Each note begins with `what`, such as "not judged".
    """
    kinds = (
        ("no pictures", listing.beside),
        ("hidden or of the operating system", listing.hidden),
        ("masks of others", masks),
    )
    return tuple(f"{what}, as {kind}: {file_count_and_names_in_words(folder, paths)}" for kind, paths in kinds if paths)


def file_count_and_names_in_words(folder: Path, paths: Sequence[Path]) -> str:
    """The number of files and the first of their names below the folder, as text: "2 files (a.txt, b.txt)"."""
    names = ", ".join(relative_name(folder, path) for path in paths[:NAMED])
    more = ", …" if len(paths) > NAMED else ""
    return f"{counted(len(paths), 'file')} ({names}{more})"


def digest_of_names_and_digests(named: list[tuple[str, Path]], digests: Mapping[str, str]) -> str:
    """sha256 (hex) of [[name, sha256], ...] in canonical JSON; `digests` has the sha256 of each picture by its name.

    It equals `files.canonical_sha256` of that list, and is ten times as fast.

    Of lists of texts, which are all UTF-8 here, the canonical form (RFC 8785) is what `json` writes without spaces.
    """
    pairs = [[name, digests[name]] for name, _ in named]
    return hashlib.sha256(json.dumps(pairs, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()


def relative_name(folder: Path, path: Path) -> str:
    r"""The name of a file below `folder`, as UTF-8 text with / between its parts.

    A byte that is no UTF-8 is written as \xff (its two hex digits), so that one odd name does not block a lot. Where
    a name has such a text already, its backslash is written as \x5c: two files never get one name.
    """
    text = str(path).removeprefix(str(folder)).lstrip("/")  # Path.relative_to takes five times as long
    if text.isascii() and "\\" not in text:
        return text
    text = re.sub(r"\\(?=x[0-9a-f]{2})", r"\\x5c", text)
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def sha256_by_name(named: list[tuple[str, Path]], remember: bool = True) -> dict[str, str]:
    """The sha256 of each picture by its name; "" for a file that cannot be read, which then gets the verdict error."""
    found = sha256_of_files([path for _, path in named], remember)
    return {name: digest for (name, _), digest in zip(named, found, strict=True)}


def origin_digests_of_lot(lot: Lot) -> dict[str, Any]:
    """Digests and settings that say where the pictures come from, by name, for provenance; None for what does not
    apply.

    For a batch: base, LoRA, brand set, plan and drawing settings. For any other folder: its names and contents.
    """
    facts, plan = lot.record.facts if lot.record else None, lot.out / "plan.parquet"
    return {
        "base_sha256": facts.base if facts else None,
        "training_base_sha256": facts.training_base or None if facts else None,
        "lora_sha256": facts.lora if facts else None,
        "data_sha256": facts.brand if facts else None,
        "plan_sha256": files.sha256_of_file(plan) if plan.exists() else None,
        "generate": facts.generate.json_data_without_defaults() if facts else None,
        "watermark_sha256": facts.watermark or None if facts else None,
        "precision": lot.record.precision if lot.record else None,
        "folder_sha256": None if lot.slots else lot.digest_of_names_and_contents(),
    }
