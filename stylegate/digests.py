"""sha256 of many files, remembered from one command to the next: an unchanged folder is not read again.

What is trusted: a file whose device, inode, size, modification time (mtime) and change time (ctime) are those of the
time when its bytes were read still has these bytes. Editing, replacing and renaming a file change at least one of
them; who puts the modification time back changes the change time. docs/trust.md says what is not seen.

Where a picture leaves the house (export) and where a package is checked (verify) the bytes are always read: there
`files.sha256_of_file` is called, or `sha256_of_files(paths, remember=False)`.
"""

import contextlib
import hashlib
import os
import sqlite3
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from stylegate import files

STORE = "digests.sqlite"  # in files.CACHE
# A file that changed less than this before it was read may change again within one time stamp (FAT counts 2 s).
SETTLED_NS = 2_000_000_000
AT_ONCE = 500  # paths in one query; SQLite allowed at most 999 until 2020


class RememberedDigest(NamedTuple):
    """What is remembered of a file: its state when it was read, and the sha256 of its bytes."""

    state: str  # what the file system says of the file (`file_state`)
    sha256: str  # hex


def sha256_of_files(paths: Sequence[Path], remember: bool = True) -> list[str]:
    """The sha256 (hex) of each file, in the order of `paths`; "" for what cannot be read, such as a pipe or a device.

    With `remember`, files that did not change since they were last read are not read again. A store that cannot be
    used or is damaged costs time, and is no error.
    """
    if not remember:
        return [read_sha256_and_status(path)[0] for path in paths]
    keys = [os.fsencode(path.absolute()) for path in paths]
    known, fresh = read_remembered_digests(keys), {}
    found: list[str] = []
    for path, key in zip(paths, keys, strict=True):
        entry = known.get(key)
        if entry is None or entry.state != current_file_state(path):
            began_ns = time.time_ns()
            digest, status = read_sha256_and_status(path)
            entry = RememberedDigest(file_state(status) if status else "", digest)
            if status and max(status.st_mtime_ns, status.st_ctime_ns) < began_ns - SETTLED_NS:
                fresh[key] = entry
        found.append(entry.sha256)
    remember_digests(fresh)
    return found


def file_state(status: os.stat_result) -> str:
    """What a stat result says of a file's content, as text: device, inode, size, mtime and ctime in nanoseconds.

    If it is the same, the bytes are the same, unless they changed within one time stamp.
    """
    return f"{status.st_dev} {status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def current_file_state(path: Path) -> str:
    """The `file_state` of the file that stands at `path` now; "" if there is none."""
    try:
        return file_state(path.stat())
    except OSError:
        return ""


def read_sha256_and_status(path: Path) -> tuple[str, os.stat_result | None]:
    """(sha256, status) of a file that is read now; the status is None if the file changed meanwhile.

    ("", None) for anything that is not a regular file, or cannot be read. A pipe is opened without waiting.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123  (a descriptor has no path)
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                return "", None
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return digest, before if file_state(before) == file_state(os.fstat(descriptor)) else None
    except OSError:
        return "", None


@contextlib.contextmanager
def ignoring_digest_store_errors() -> Iterator[None]:
    """A context that suppresses errors of the digest store; a damaged store is removed, and files are read again."""
    try:
        yield
    except (sqlite3.OperationalError, OSError):  # locked, full or read-only
        pass
    except sqlite3.DatabaseError:
        (files.CACHE / STORE).unlink(missing_ok=True)


@contextlib.contextmanager
def open_digest_store() -> Iterator[sqlite3.Connection]:
    """The SQLite store of digests, made when it is first used, as a context. Raises sqlite3.Error and OSError."""
    files.CACHE.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(files.CACHE / STORE, timeout=10)) as connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS file (path BLOB PRIMARY KEY, state TEXT, sha256 TEXT) WITHOUT ROWID"
        )
        yield connection


def read_remembered_digests(keys: Sequence[bytes]) -> dict[bytes, RememberedDigest]:
    """The remembered entries of these paths (as bytes), by path; paths without an entry are left out."""
    found: dict[bytes, RememberedDigest] = {}
    with ignoring_digest_store_errors(), open_digest_store() as connection:
        for start in range(0, len(keys), AT_ONCE):
            part = keys[start : start + AT_ONCE]
            query = f"SELECT path, state, sha256 FROM file WHERE path IN ({', '.join('?' * len(part))})"
            found |= {path: RememberedDigest(state, sha256) for path, state, sha256 in connection.execute(query, part)}
    return found


def remember_digests(entries: Mapping[bytes, RememberedDigest]) -> None:
    """Write all `entries`, by path (as bytes), into the store of digests in one transaction: whole or not at all, also
    with several processes.
    """
    if entries:
        rows = [(path, entry.state, entry.sha256) for path, entry in entries.items()]
        with ignoring_digest_store_errors(), open_digest_store() as connection, connection:
            connection.executemany("INSERT OR REPLACE INTO file VALUES (?, ?, ?)", rows)
