"""Files that survive a kill: atomic writes, append-only JSON Lines, digests, shipped names."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import rfc8785

from stylegate.errors import ConfigError, DataError

ROOT = Path(__file__).resolve().parent.parent  # the checkout: what is shipped
HOME = Path(os.environ.get("STYLEGATE_HOME") or ROOT).resolve()  # what is made; elsewhere for a read-only checkout
BRANDS = [HOME / "data" / "brands", ROOT / "data" / "brands"]
POLICIES = [HOME / "data" / "policies", ROOT / "data" / "policies"]
TRAITS = [HOME / "data" / "traits", ROOT / "data" / "traits"]
MODELS = ROOT / "checkpoints"
RUNS = HOME / "checkpoints"
BATCHES = HOME / "data" / "batches"
EXPORTS = HOME / "data" / "exports"
CACHE = HOME / ".cache"


def shown(path: Path) -> str:
    """The path as a person would type it: relative to the working directory where it lies below it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def named(value: str, places: list[Path], what: str, suffix: str = "") -> Path:
    """Resolve a path, or the name of something in `places`. A path wins if it exists. Raises ConfigError."""
    candidates = [Path(value).expanduser(), *(place / f"{value}{suffix}" for place in places)]
    for candidate in candidates:
        if value and candidate.exists():
            return candidate.resolve()
    found = {p.name.removesuffix(suffix) for place in places for p in place.glob(f"*{suffix}")}
    names = sorted(name for name in found if not name.startswith("."))
    raise ConfigError(
        f"{what}={value}: neither a path that exists nor a name in {shown(places[0])}",
        next_step=f"one of {', '.join(names)}, or a path." if names else "give a path.",
    )


def digest(value: Any) -> str:
    """sha256 (hex) of JSON data in canonical form (RFC 8785). NaN and Inf raise rfc8785.FloatDomainError."""
    return hashlib.sha256(rfc8785.dumps(value)).hexdigest()


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_digest(folder: Path, pattern: str = "**/*") -> str:
    """sha256 over names and contents of the files below `folder` that match; independent of order and location."""
    files = sorted(p for p in folder.glob(pattern) if p.is_file())
    return digest([[p.relative_to(folder).as_posix(), sha256(p)] for p in files])


def write(path: Path, content: bytes | str) -> None:
    """Write whole or not at all: temporary file beside the target, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """JSON for people: indented, keys in the order given, no NaN."""
    write(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, what: str) -> Any:
    """Parsed JSON. Raises DataError naming `what` if the file is missing or torn."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{what} is missing: {shown(path)}") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{what} cannot be read: {shown(path)}: {error}") from None


def append_jsonl(path: Path, row: dict) -> None:
    """Append one line and flush it to the kernel: it survives a kill of this process."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


def read_jsonl(path: Path) -> list[dict]:
    """Rows of a JSON Lines file that we wrote; a torn last line (a kill while appending) is left out."""
    if not path.exists():
        return []
    rows, lines = [], path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines, start=1):
        try:
            rows += [json.loads(line)] if line.strip() else []
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise DataError(f"{shown(path)}, line {number} is not JSON: {error}") from None
    return rows


def write_jsonl(path: Path, rows: Iterable[dict]) -> None:
    write(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


def whole_folder(target: Path, build) -> None:
    """Build a folder whole or not at all: `build(partial)` fills a hidden sibling, which is then renamed to `target`.

    What a killed earlier try left is removed first; `target` must not exist.
    """
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        build(partial)
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
