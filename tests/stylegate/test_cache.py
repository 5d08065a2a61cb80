"""The cache: computed once, stored batch by batch, never half-read."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from stylegate.cache import ArrayCache


def test_fill_computes_each_key_once(tmp_path: Path) -> None:
    calls: list[list[int]] = []

    def compute(indices: list[int]):
        calls.append(indices)
        return [{"v": np.full(3, i, np.float32)} for i in indices]

    cache = ArrayCache(tmp_path / "c.sqlite")
    assert [row["v"][0] for row in cache.get_or_compute(["a", "b", "c"], 2, compute) if row] == [0, 1, 2]
    assert [r["v"][0] for r in ArrayCache(tmp_path / "c.sqlite").get_or_compute(["c", "a", "d"], 2, compute) if r] == [
        2,
        0,
        2,
    ]
    assert calls == [[0, 1], [2], [2]]


def test_ensure_holds_a_batch_at_a_time(tmp_path: Path) -> None:
    """40 values of 1 MB each, 4 at once."""
    cache, asked = ArrayCache(tmp_path / "c.sqlite"), []

    def compute(indices: list[int]):
        asked.extend(indices)
        return [{"v": np.full(2**18, i, np.float32)} for i in indices]

    keys = [str(i) for i in range(40)]
    cache.compute_missing(keys[5:6], 4, lambda some: compute([5]))
    tracemalloc.start()
    cache.compute_missing(keys, 4, compute)
    assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    tracemalloc.stop()
    assert sorted(asked) == list(range(40)), "each once"
    value = cache.read_arrays_of_key("37")
    assert value is not None and (value["v"] == 37).all()


def test_finished_batches_outlive_a_failure(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path / "c.sqlite")

    def compute(indices: list[int]):
        if 2 in indices:
            raise KeyboardInterrupt
        return [{"v": np.zeros(1)} for _ in indices]

    with pytest.raises(KeyboardInterrupt):
        cache.get_or_compute(["a", "b", "c"], 2, compute)
    assert cache.read_arrays_of_key("a") is not None and cache.read_arrays_of_key("c") is None


def test_a_file_that_is_no_cache_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "c.sqlite").write_bytes(b"something else entirely, not a database" * 100)
    cache = ArrayCache(tmp_path / "c.sqlite")
    cache.store_arrays_by_key({"a": {"v": np.ones(1)}})
    assert cache.read_arrays_of_key("a") is not None and (tmp_path / "c.broken").exists()


def test_a_damaged_value_is_computed_again(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path / "c.sqlite")
    cache.store_arrays_by_key({"a": {"v": np.ones(1)}})
    with cache.database:
        cache.database.execute("UPDATE entry SET value = ?", (b"\x05",))
    assert cache.read_arrays_of_key("a") is None
