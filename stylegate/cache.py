"""A content-addressed store of arrays in one SQLite file: what was encoded once is not encoded again.

A key says everything that the value depends on (bytes of the picture or text, transform, model, dtype), so an entry
can be missing but never stale; SQLite's transactions make it whole or absent, also with several processes.
"""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from stylegate import files

AT_ONCE = 500  # keys a query; SQLite took 999 at most until 2020


class ArrayCache:
    """Named arrays by key, in an SQLite file at `path`, which is made where it is missing. A file that is no cache is
    renamed to end in .broken.
    """

    def __init__(self, path: Path = files.CACHE / "features.sqlite"):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.database = sqlite3.connect(path, timeout=60)
        try:
            self._create_table_if_missing()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):  # locked or unwritable, not broken
                raise
            self.database.close()
            path.replace(path.with_suffix(".broken"))
            self.database = sqlite3.connect(path, timeout=60)
            self._create_table_if_missing()

    def _create_table_if_missing(self) -> None:
        self.database.execute("PRAGMA page_size = 16384")  # of a new file; values are tens of KB, and more
        self.database.execute("CREATE TABLE IF NOT EXISTS entry (key TEXT PRIMARY KEY, value BLOB)")

    def read_arrays_of_key(self, key: str) -> dict[str, NDArray] | None:
        """The arrays stored under `key`, by name; None if there are none."""
        return next(self.read_arrays_of_keys([key]))

    def read_arrays_of_keys(self, keys: Sequence[str]) -> Iterator[dict[str, NDArray] | None]:
        """Yield the arrays of each key, in the order of `keys`, None for a missing key; those of AT_ONCE keys at most
        are in memory at once.
        """
        for start in range(0, len(keys), AT_ONCE):
            found: dict[str, dict[str, NDArray]] = {}
            some = keys[start : start + AT_ONCE]
            query = f"SELECT key, value FROM entry WHERE key IN ({', '.join('?' * len(some))})"
            for key, value in self.database.execute(query, some):
                with contextlib.suppress(SafetensorError):
                    found[key] = load(value)
            yield from (found.get(key) for key in some)

    def store_arrays_by_key(self, entries: Mapping[str, Mapping[str, NDArray]], instead_of: Sequence[str] = ()) -> None:
        """Store all `entries` and delete the keys `instead_of`, in one transaction."""
        rows = [
            (key, save({n: np.asarray(a, order="C") for n, a in arrays.items()})) for key, arrays in entries.items()
        ]
        with self.database:
            self.database.executemany("INSERT OR REPLACE INTO entry VALUES (?, ?)", rows)
            self.database.executemany("DELETE FROM entry WHERE key = ?", [(key,) for key in instead_of])

    def get_or_compute(
        self,
        keys: Sequence[str],
        batch_size: int,
        compute: Callable[[list[int]], Sequence[dict[str, NDArray] | None]],
        on_progress: Callable[[int], None] = lambda n: None,
    ) -> list[dict[str, NDArray] | None]:
        """The arrays of each key, in order. Missing ones are computed by `compute(indices)`, a batch at a time, and
        stored.

        Each batch is stored before the next one starts. A None from `compute` is returned, but not stored.
        `on_progress(n)` is called whenever n more values are ready.
        """
        values = list(self.read_arrays_of_keys(keys))
        missing = [i for i, value in enumerate(values) if value is None]
        on_progress(len(keys) - len(missing))
        for start in range(0, len(missing), batch_size):
            indices = missing[start : start + batch_size]
            made = compute(indices)
            self.store_arrays_by_key(
                {keys[i]: value for i, value in zip(indices, made, strict=True) if value is not None}
            )
            for i, value in zip(indices, made, strict=True):
                values[i] = value
            on_progress(len(indices))
        return values

    def compute_missing(
        self,
        keys: Sequence[str],
        batch_size: int,
        compute: Callable[[list[int]], Sequence[dict[str, NDArray] | None]],
        on_progress: Callable[[int], None] = lambda n: None,
    ) -> None:
        """Compute and store the missing keys as `get_or_compute` does, but return nothing and keep nothing in
        memory.
        """
        for start in range(0, len(keys), batch_size):

            def compute_at_shifted_indices(
                positions: list[int], start: int = start
            ) -> Sequence[dict[str, NDArray] | None]:
                return compute([start + i for i in positions])

            self.get_or_compute(keys[start : start + batch_size], batch_size, compute_at_shifted_indices, on_progress)
