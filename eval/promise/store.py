"""labels.sqlite in the folder of a lot: what people said about its pictures, one row after the other.

Rows are only ever added, and each one holds the hash of the row before it: whoever changes a row, or takes one out,
breaks the chain, and reading says where. Whoever writes the whole file anew can make a chain that holds; therefore the
gate's record and the package name the hash of the last row (`last_row_hash_by_purpose`).

A row is there whole once `append_label_store_rows` returns, and stays whatever happens to the process or the machine
(SQLite, write-ahead log, synchronous=FULL). Any number of processes may read and append at the same time.
"""

import contextlib
import hashlib
import itertools
import json
import os
import sqlite3
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, get_args

import rfc8785

from eval.promise.label import Purpose
from eval.promise.older import OLDER_FILES, NewLabelStoreRow, rows_of_older_label_files
from stylegate import files
from stylegate.errors import DataError, SurroundingsError

STORE = "labels.sqlite"
WAIT_S = 60  # for another process that is writing; one row takes milliseconds
COLUMNS = "number, id, time, purpose, kind, content, previous, hash"
SCHEMA = (
    "CREATE TABLE row (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, time TEXT NOT NULL, "
    "purpose TEXT NOT NULL, kind TEXT NOT NULL, content TEXT NOT NULL, previous TEXT NOT NULL, hash TEXT NOT NULL)",
    "CREATE TRIGGER no_update BEFORE UPDATE ON row BEGIN SELECT RAISE(ABORT, 'rows are only ever added'); END",
    "CREATE TRIGGER no_delete BEFORE DELETE ON row BEGIN SELECT RAISE(ABORT, 'rows are only ever added'); END",
)
_ROWS_OF_ONE_MOMENT: ContextVar[dict[Path, list["LabelStoreRow"]] | None] = ContextVar(
    "rows of one moment", default=None
)
RESTORE = "restore the file from a copy, or move it away: labels that are in a CSV file can be given again."


class LabelStoreRow(NamedTuple):
    """A row of labels.sqlite: a label, an undo, or the terms of an audit or calibration; chained to the row before by
    its hash.
    """

    number: int  # 1, 2, 3, ...
    id: str  # a UUID
    time: str  # UTC, as 2027-01-31T12:00:00.000Z
    purpose: str  # review, calibrate, audit, traits or rejected
    kind: str  # label, undo or terms
    content: str  # canonical JSON (RFC 8785)
    previous: str  # hash of the row before; empty for the first
    hash: str  # sha256 of all of the above

    def computed_hash(self) -> str:
        """What `hash` must be: sha256 over the canonical JSON of the other columns."""
        columns = dict(zip(self._fields[:-1], self, strict=False))
        text = json.dumps(columns, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def read_all_label_store_rows(out: Path) -> list[LabelStoreRow]:
    """Every row about the pictures of the lot in the folder `out`, in the order given. Writes nothing, but for what
    files of older versions hold, which are taken in first where the folder can be written to.

    Raises DataError for a file that is damaged or was changed, naming the row.
    """
    held = _ROWS_OF_ONE_MOMENT.get()
    if held is not None and out in held:
        return held[out]
    rows: list[LabelStoreRow] = []
    if (out / STORE).exists() or has_older_label_files(out):
        with open_label_store(out) as connection, transaction(connection, "DEFERRED"):
            rows = verified_label_store_rows(connection, out)
    if held is not None:
        held[out] = rows
    return rows


def num_label_store_rows(out: Path) -> int:
    """How many rows the store has: it has changed since it was last read if there are more."""
    if not (out / STORE).exists():
        return 0
    with open_label_store(out) as connection:
        return connection.execute("SELECT coalesce(max(number), 0) FROM row").fetchone()[0]


@contextlib.contextmanager
def frozen_label_store_reads() -> Iterator[None]:
    """Inside, every `read_all_label_store_rows` of a folder in this thread gives the rows that the first one gave,
    unless this thread adds some: what is judged by them, and the hash that names them, are of one moment, whoever adds
    rows.
    """
    token = _ROWS_OF_ONE_MOMENT.set({})
    try:
        yield
    finally:
        _ROWS_OF_ONE_MOMENT.reset(token)


def last_row_hash_by_purpose(out: Path) -> dict[Purpose, str | None]:
    """For each purpose the hash of its last row; None for no row. It changes with every row of that purpose, and with
    no row of another one; it vouches for all rows before it.
    """
    last = {row.purpose: row.hash for row in read_all_label_store_rows(out)}
    return {purpose: last.get(purpose) for purpose in get_args(Purpose)}


def gate_evidence_key_for_label_purpose(purpose: Purpose) -> str:
    """The key under which gate.json's `evidence` has the last row's hash of the labels for a purpose."""
    return f"{purpose} labels"


def append_label_store_rows(
    out: Path, entries: Sequence[NewLabelStoreRow], check: Callable[[list[LabelStoreRow]], None] | None = None
) -> list[LabelStoreRow]:
    """Add rows, all or none; they are on the disk when this returns. Returns them as they are stored.

    An entry whose id is there already with the same content is the same row and is not added again. `check` is called
    with the rows that are there of the first entry's purpose, unless all entries are there; it may raise, and then
    nothing is added. Raises DataError for an id that is another row's, or for a damaged file. The chain of hashes is
    verified by whoever reads, not here.
    """
    if not entries:
        return []
    if (held := _ROWS_OF_ONE_MOMENT.get()) is not None:
        held.pop(out, None)
    with open_label_store(out, to_write=True) as connection, transaction(connection, "IMMEDIATE"):
        if check is not None and any(find_label_store_row_by_id(connection, entry.id) is None for entry in entries):
            query = f"SELECT {COLUMNS} FROM row WHERE purpose = ? ORDER BY number"
            check([LabelStoreRow._make(row) for row in connection.execute(query, (entries[0].purpose,))])
        return [append_label_store_row(connection, entry) for entry in entries]


def append_label_store_row(connection: sqlite3.Connection, entry: NewLabelStoreRow) -> LabelStoreRow:
    """The row of an entry, added in the transaction that is open unless its id is there already."""
    content = rfc8785.dumps(entry.content).decode()
    if (same := find_label_store_row_by_id(connection, entry.id)) is not None:
        if (same.purpose, same.kind, same.content) != (entry.purpose, entry.kind, content):
            raise DataError(f"the id {entry.id} is of row {same.number}, which says something else")
        return same
    last = connection.execute("SELECT number, hash FROM row ORDER BY number DESC LIMIT 1").fetchone() or (0, "")
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    row_id = entry.id or str(uuid.uuid4())
    row = LabelStoreRow(last[0] + 1, row_id, now, entry.purpose, entry.kind, content, last[1], "")
    row = row._replace(hash=row.computed_hash())
    connection.execute(f"INSERT INTO row ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
    return row


def find_label_store_row_by_id(connection: sqlite3.Connection, row_id: str) -> LabelStoreRow | None:
    """The row that has this id; None if there is none, and for an empty id."""
    found = connection.execute(f"SELECT {COLUMNS} FROM row WHERE id = ?", (row_id,)).fetchone() if row_id else None
    return LabelStoreRow._make(found) if found else None


def verified_label_store_rows(connection: sqlite3.Connection, out: Path) -> list[LabelStoreRow]:
    """Every row, in order. Raises DataError naming the first row that is not as it was written, or not in its place."""
    rows = [LabelStoreRow._make(row) for row in connection.execute(f"SELECT {COLUMNS} FROM row ORDER BY number")]
    previous, problem = "", ""
    for number, row in enumerate(rows, start=1):
        if row.number != number or row.previous != previous:
            problem = f"row {number} is missing, or is not the one that was written"
        elif row.hash != row.computed_hash():
            problem = f"row {number} was changed after it was written"
        if problem:
            break
        previous = row.hash
    (written,) = connection.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'row'").fetchone()
    if not problem and written != len(rows):
        problem = f"row {len(rows) + 1} is missing"
    if problem:
        raise DataError(f"{files.display_path(out / STORE)} does not hold: {problem}", next_step=RESTORE)
    return rows


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection, kind: str) -> Iterator[None]:
    """A context: all that is done inside is stored, or nothing. kind: DEFERRED to read one state,
    IMMEDIATE to write.
    """
    connection.execute(f"BEGIN {kind}")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


@contextlib.contextmanager
def open_label_store(out: Path, to_write: bool = False) -> Iterator[sqlite3.Connection]:
    """A context with a connection to labels.sqlite of the folder `out`, which is made where there is none.

    What files of older versions hold is taken in. In a folder that cannot be written to, the connection is to a copy in
    memory, unless it is opened to write. Raises DataError for a file that is no store, and SurroundingsError where the
    system refuses.
    """
    path = out / STORE
    try:
        if not to_write and not os.access(out, os.W_OK):
            connection = connection_to_in_memory_copy(path)
        else:
            if not path.exists():
                make_label_store(path)
            connection = connect_to_existing_file(path)
        with contextlib.closing(connection):
            found = {
                sql for (sql,) in connection.execute("SELECT sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'")
            }
            if found != set(SCHEMA):
                raise DataError(
                    f"{files.display_path(path)} has not the tables that it was made with", next_step=RESTORE
                )
            if has_older_label_files(out):
                import_older_label_files(out, connection)
            yield connection
    except sqlite3.OperationalError as error:
        step = "make room, or change the permission; then run the same command again: what was stored is kept."
        raise SurroundingsError(f"{files.display_path(path)} cannot be used: {error}", next_step=step) from None
    except sqlite3.DatabaseError as error:
        raise DataError(f"{files.display_path(path)} is damaged: {error}", next_step=RESTORE) from None


def connect_to_existing_file(path: Path) -> sqlite3.Connection:
    """A connection that reads and writes a file that exists; none is made."""
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", timeout=WAIT_S, isolation_level=None, uri=True)
    connection.execute("PRAGMA trusted_schema=OFF")  # the file may be from outside
    connection.execute("PRAGMA synchronous=FULL")
    return connection


def make_label_store(path: Path) -> None:
    """Make an empty store, whole or not at all; one that another process has made meanwhile stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        made = Path(folder) / STORE
        with contextlib.closing(sqlite3.connect(made, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            for statement in SCHEMA:
                connection.execute(statement)
        with contextlib.suppress(FileExistsError):
            os.link(made, path)


def connection_to_in_memory_copy(path: Path) -> sqlite3.Connection:
    """A connection to a copy, in memory, of a store in a folder that cannot be written to; to an empty one if there is
    none.

    A write-ahead log beside the store, which a killed process left, is part of it: SQLite can read it only where it may
    write, so both are copied.
    """
    memory = sqlite3.connect(":memory:", isolation_level=None)
    if not path.exists():
        for statement in SCHEMA:
            memory.execute(statement)
        return memory
    with tempfile.TemporaryDirectory() as folder:
        for name in (STORE, f"{STORE}-wal"):
            if (part := path.with_name(name)).exists():
                (Path(folder) / name).write_bytes(part.read_bytes())
        with contextlib.closing(connect_to_existing_file(Path(folder) / STORE)) as copy:
            copy.backup(memory)
    return memory


def has_older_label_files(out: Path) -> bool:
    """Whether the folder has files of labels as older versions wrote them."""
    return any((out / name).exists() for name in OLDER_FILES.values())


def import_older_label_files(out: Path, connection: sqlite3.Connection) -> None:
    """Take in the rows of decisions.jsonl, calibration.jsonl and audit.jsonl, all or none, then rename the files.

    Their rows have ids that follow from the file, so that after a kill before the renaming none is taken in twice.
    In a folder that cannot be written to the files stay.
    """
    with transaction(connection, "IMMEDIATE"):
        for entry in rows_of_older_label_files(out):
            append_label_store_row(connection, entry)
    if not os.access(out, os.W_OK):
        return
    for name in OLDER_FILES.values():
        endings = itertools.chain(["imported"], (f"imported-{number}" for number in itertools.count(1)))
        free = next(path for ending in endings if not (path := out / f"{name}.{ending}").exists())
        with contextlib.suppress(FileNotFoundError):  # not there, or another process renamed it
            (out / name).rename(free)
