"""Files that survive a kill: atomic writes, append-only JSON Lines, strict readers, digests, locks, shipped names."""

import datetime
import difflib
import errno
import fnmatch
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import rfc8785
import yaml
from filelock import FileLock, Timeout

from stylegate.errors import ConfigError, DataError, InUseError

ROOT = Path(__file__).resolve().parent.parent  # the checkout: what is shipped
HOME = Path(os.environ.get("STYLEGATE_HOME") or ROOT).resolve()  # what is made; elsewhere for a read-only checkout
BRANDS = [HOME / "data" / "brands", ROOT / "data" / "brands"]
POLICIES = [HOME / "data" / "policies", ROOT / "data" / "policies"]
HEADS = [HOME / "data" / "heads", ROOT / "data" / "heads"]
TRAITS = [HOME / "data" / "traits", ROOT / "data" / "traits"]
FOREIGN = ROOT / "data" / "foreign" / "foreign.parquet"
MODELS = ROOT / "checkpoints"
RUNS = HOME / "checkpoints"
BATCHES = HOME / "data" / "batches"
PLANS = HOME / "data" / "plans"  # pictures and tables of plans that were only shown
EXPORTS = HOME / "data" / "exports"
CACHE = HOME / ".cache"


def display_path(path: Path) -> str:
    """The path as a person would type it: relative to the working directory if it lies below it, else absolute."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def is_path(value: str, suffix: str = "") -> bool:
    """Whether a word has the form of a path: it has a /, begins with ~ or a dot, or ends in the `suffix` of its kind.

    Any other word is a name. A name never means a file that happens to lie in the working directory: whoever can put
    a file there (a pull request, say) could otherwise replace what is shipped.
    """
    return "/" in value or value.startswith(("~", ".")) or (suffix != "" and value.endswith(suffix))


def advice_to_write_dot_slash(value: str, suffix: str = "") -> str:
    """If a file or folder named `value` exists, with or without `suffix`, the advice to write ./VALUE, for an error
    about an unknown name; else "".
    """
    there = [name for name in (value, f"{value}{suffix}") if value and Path(name).exists()]
    return f"write ./{there[0]} for the one in the working directory" if there else ""


def advice_on_missing_path(value: str) -> str:
    """What to do about a path that leads to nothing: it names what lies in the same folder under a similar name, if
    anything does.
    """
    folder, slash, name = value.rpartition("/")
    place = Path(folder + slash).expanduser()
    beside = sorted(path.name for path in place.iterdir()) if place.is_dir() else []
    near = difflib.get_close_matches(name, beside, n=2)
    return f"did you mean {' or '.join(f'{folder}{slash}{there}' for there in near)}?" if near else "check the path."


def resolve_name_or_path(value: str, places: list[Path], what: str, suffix: str = "") -> Path:
    """The file or folder that `value` means: a path if it has the form of one, else the name of something in `places`.

    `what` is the key of the configuration, for messages. `suffix` is left out in names ("default" is default.yaml).
    Raises ConfigError if there is nothing, and if two of `places` have something of that name.
    """
    if is_path(value, suffix):
        path = Path(value).expanduser()
        if not path.exists():
            raise ConfigError(
                f"{what}={value}: there is no such file or folder", next_step=advice_on_missing_path(value)
            )
        return path.resolve()
    found = list(dict.fromkeys(path.resolve() for place in places if (path := place / f"{value}{suffix}").exists()))
    if value and len(found) == 1:
        return found[0]
    if value and found:
        raise ConfigError(
            f"{what}={value} has two meanings: {' and '.join(display_path(path) for path in found)}",
            next_step="rename your own, or write its path instead of its name.",
        )
    there = {p.name.removesuffix(suffix) for place in places for p in place.glob(f"*{suffix}")}
    names = ", ".join(sorted(name for name in there if not name.startswith(".")))
    steps = (advice_to_write_dot_slash(value, suffix), f"choose one of {names}" if names else "", "give a path")
    raise ConfigError(
        f"{what}={value}: neither a name in {display_path(places[0])} nor a path (a path has a / in it, as ./NAME)",
        next_step=", or ".join(filter(None, steps)) + ".",
    )


def canonical_sha256(value: Any) -> str:
    """sha256 (hex) of JSON data in canonical form (RFC 8785). NaN and Inf raise rfc8785.FloatDomainError."""
    return hashlib.sha256(rfc8785.dumps(value)).hexdigest()


def sha256_of_file(path: Path) -> str:
    """The sha256 (hex) of a file's bytes."""
    with path.open("rb", buffering=0) as file:  # file_digest has a buffer of its own
        return hashlib.file_digest(file, "sha256").hexdigest()


def sorted_paths_matching_pattern(folder: Path, pattern: str) -> list[Path]:
    """What lies in a folder under names that match `pattern`, sorted; nothing where there is no such folder.

    Raises OSError for a folder that cannot be read: Path.glob takes it for an empty one.
    """
    paths = folder.iterdir() if folder.exists() else ()
    return sorted(path for path in paths if fnmatch.fnmatchcase(path.name, pattern))


def folder_digest(folder: Path, pattern: str = "**/*") -> str:
    """sha256 over names and contents of the files below `folder` that match; independent of order and location.

    Raises OSError if the folder itself cannot be read.
    """
    sorted_paths_matching_pattern(folder, "*")
    files = sorted(p for p in folder.glob(pattern) if p.is_file())
    return canonical_sha256([[p.relative_to(folder).as_posix(), sha256_of_file(p)] for p in files])


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file whole or not at all: temporary file beside the target, fsync, rename."""
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
    """Write a JSON file for people, whole or not at all: indented, keys in the order given. NaN raises ValueError."""
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, what: str, *keys: str) -> Any:
    """Read a JSON object that has `keys`. Raises DataError naming `what` if the file is missing, torn or of another
    form.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{what} is missing: {display_path(path)}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{what} cannot be read: {display_path(path)}: {error}") from None
    missing = [key for key in keys if key not in data] if isinstance(data, dict) else ["an object"]
    if missing:
        raise DataError(f"{what} is not as stylegate writes it: {display_path(path)} lacks {', '.join(missing)}")
    return data


def read_yaml(path: Path, what: str, words: bool = False) -> dict[str, Any]:
    """Read a YAML mapping by the safe loader, each key once. Raises DataError naming `what`.

    With `words` every value is text as it is written (010, on, 1e3, null), and None where nothing is written.
    """
    try:
        data = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=_TextOnlyLoader if words else _UniqueKeyLoader)
    except (yaml.YAMLError, ValueError, RecursionError, IsADirectoryError) as error:
        raise DataError(f"{what} {display_path(path)} is not YAML: {error}") from None
    if not isinstance(data, dict):
        raise DataError(f"{what} {display_path(path)} must be a mapping")
    return data


class _UniqueKeyLoader(yaml.SafeLoader):
    """A safe YAML loader that refuses keys which stand twice, or are no text, number or truth value. It reads numbers
    as JSON writes them (also .inf and .nan); what YAML 1.1 takes for numbers besides (010, 1_000, 12:30) stays text.
    """


def _mapping_without_duplicate_keys(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]  # type: ignore[no-untyped-call]
    seen = set()
    for key, (place, _) in zip(keys, node.value, strict=True):
        if not isinstance(key, str | int | float | bool) or key in seen:
            raise yaml.YAMLError(f"line {place.start_mark.line + 1}: key {key!r} stands twice or is no word")
        seen.add(key)
    return dict(zip(keys, (loader.construct_object(v, deep=True) for _, v in node.value), strict=True))  # type: ignore[no-untyped-call]


class _TextOnlyLoader(_UniqueKeyLoader):
    """Reads no word as a number, truth value or date; only an empty value is null."""

    yaml_implicit_resolvers: ClassVar = {"": [("tag:yaml.org,2002:null", re.compile("^$"))]}


# YAML 1.1, which PyYAML reads, takes 010 for 8, 12:30 for 750 and 1_000 for 1000, and 5e-2 for text. Here a number is
# what JSON writes, or .inf and .nan; whatever else looks like one stays text, which the reader of the file refuses.
_NUMBERS = {
    "tag:yaml.org,2002:int": re.compile(r"[-+]?(0|[1-9][0-9]*)$"),
    "tag:yaml.org,2002:float": re.compile(
        r"[-+]?(((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?|\.(inf|Inf|INF))$|\.(nan|NaN|NAN)$"
    ),
}
_UniqueKeyLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag not in _NUMBERS]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern in _NUMBERS.items():
    _UniqueKeyLoader.add_implicit_resolver(_tag, _pattern, list("-+.0123456789"))
_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_duplicate_keys)


def append_jsonl(path: Path, row: dict) -> None:
    """Append a row to a JSON Lines file and flush it to the kernel: it survives a kill of this process.

    A torn last line, of a kill while appending, is cut off first: nobody was told that it is there. A last line that is
    whole but for its line end (an editor may leave that away) was read all the time, and stays.
    """
    ending = ""
    if path.exists() and not ends_with_newline(path):
        held = path.read_bytes()
        start = held.rfind(b"\n") + 1
        if is_valid_json(held[start:]):
            ending = "\n"
        else:
            os.truncate(path, start)
    with path.open("a", encoding="utf-8") as file:
        file.write(ending + json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


def ends_with_newline(path: Path) -> bool:
    """Whether the last byte of a file is a line end; True for an empty file. Only this byte is read."""
    with path.open("rb") as file:
        return file.seek(0, os.SEEK_END) == 0 or (file.seek(-1, os.SEEK_END), file.read(1))[1] == b"\n"


def is_valid_json(content: bytes) -> bool:
    """Whether the bytes are one whole JSON value."""
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        return False
    return True


def read_jsonl(path: Path, *keys: str) -> list[dict]:
    """Rows of a JSON Lines file that we wrote, each with `keys`; a torn last line (a kill while appending) is left out.

    Raises DataError for any other line that is not such a row.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")  # not splitlines(): U+2028 in a caption ends no row
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or not all(key in row for key in keys):
                raise ValueError(f"not an object with {', '.join(keys)}")
            rows.append(row)
        except (ValueError, RecursionError) as error:
            if number < len(lines):
                raise DataError(f"{display_path(path)}, line {number}: {error}") from None
    return rows


def json_lines_text(rows: Iterable[dict]) -> str:
    """Rows as the text of a JSON Lines file; NaN and Inf raise ValueError."""
    encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
    return "".join(encode(row) + "\n" for row in rows)


def write_jsonl(path: Path, rows: Iterable[dict]) -> None:
    """Write a JSON Lines file, whole or not at all. NaN and Inf raise ValueError."""
    write_atomically(path, json_lines_text(rows))


def append_in_one_write(path: Path, text: str) -> None:
    """Append text to a file in one call of the system, so that rows of two processes do not mix.

    Raises OSError where the disk takes only a part of it.
    """
    place, content = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666), text.encode()
    try:
        if os.write(place, content) < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    finally:
        os.close(place)


def today_in_utc() -> datetime.date:
    """The day in UTC, by which waivers end."""
    return datetime.datetime.now(datetime.UTC).date()


def read_parquet_as_arrow_table(path: Path) -> Any:
    """Read one Parquet file as a pyarrow.Table. Raises OSError and pyarrow.ArrowInvalid.

    pyarrow.parquet.read_table is not used, since it imports pandas, which takes longer than to judge a lot. Callers
    should avoid Table.to_numpy and pyarrow.array for the same reason.
    """
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        return file.read()


def write_folder_atomically(target: Path, build: Callable[[Path], object]) -> None:
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


@contextmanager
def exclusive_lock(target: Path) -> Iterator[None]:
    """Lock `target` for this process, without waiting: two commands never write to one place at the same time.

    The lock is the kernel's (flock) and ends with the process, however that ends. Raises InUseError if another
    process, or another call in this one, has locked `target`.
    """
    lock = CACHE / "locks" / hashlib.sha256(str(target).encode(errors="replace")).hexdigest()[:16]
    lock.parent.mkdir(parents=True, exist_ok=True)
    # Without flock, filelock would fall back to a marker file, which stays behind when the process is killed.
    kernel_lock = FileLock(lock, blocking=False, fallback_to_soft=False)
    try:
        kernel_lock.acquire()
    except Timeout:
        raise InUseError(
            f"another stylegate is at work on {display_path(target)}", next_step="wait until it has ended, or stop it."
        ) from None
    try:
        yield
    finally:
        kernel_lock.release()
