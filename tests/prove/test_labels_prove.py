"""Labels and SIGKILL: 30 kills while two processes write, 30 while older files are taken in; and 10,000 labels.

    python -m pytest -n 0 tests/prove/test_labels_prove.py        about two minutes

What a few kills hold in `make test` is in tests/eval/test_labels.py.
"""

import contextlib
import random
import signal
import sqlite3
import statistics
import subprocess
import sys
import time
from pathlib import Path

from eval.promise import labels, store
from eval.promise.label import StoredLabel
from eval.promise.older import OLDER_FILES
from stylegate import files
from tests.eval.test_labels import give_line, started

KILLS = 30
READER = """
import sys, pathlib
from eval.promise import labels, store
from eval.promise.label import StoredLabel
print("begun", flush=True)
store.read_all_label_store_rows(pathlib.Path(sys.argv[1]))
"""


def test_thirty_kills_lose_no_acknowledged_label(tmp_path: Path) -> None:
    """One of two writers is killed each time, at a random moment, and the store is read meanwhile."""
    chance, acknowledged = random.Random(0), []
    survivor = started(tmp_path, 10_000, "ben")
    for kill in range(KILLS):
        victim = started(tmp_path, 10_000, f"anna {kill}")
        assert victim.stdout is not None
        acknowledged.append(victim.stdout.readline().strip())
        time.sleep(chance.uniform(0, 0.3))
        victim.send_signal(signal.SIGKILL)
        acknowledged += [line.strip() for line in victim.stdout if line.endswith("\n")]
        victim.wait()
        assert set(acknowledged) <= {row.id for row in store.read_all_label_store_rows(tmp_path)}
    survivor.send_signal(signal.SIGKILL)
    assert survivor.stdout is not None
    of_survivor = [line.strip() for line in survivor.stdout if line.endswith("\n")]
    survivor.wait()
    rows = store.read_all_label_store_rows(tmp_path)
    assert set(acknowledged) | set(of_survivor) <= {row.id for row in rows}
    assert len(rows) - len(acknowledged) - len(of_survivor) <= KILLS + 1, "at most one was stored and not said"
    assert len(of_survivor) > KILLS


def test_thirty_kills_take_in_older_files_whole_or_not_at_all(tmp_path: Path) -> None:
    chance, count, seen = random.Random(0), 3000, set()
    for kill in range(KILLS):
        out = tmp_path / str(kill)
        out.mkdir()
        for name in OLDER_FILES.values():
            (out / name).write_text(files.json_lines_text([give_line("accept")] * count))
        process = subprocess.Popen(
            [sys.executable, "-c", READER, str(out)], stdout=subprocess.PIPE, text=True, cwd=files.ROOT
        )
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        time.sleep(chance.uniform(0, 1.5))
        process.send_signal(signal.SIGKILL)
        process.wait()
        left = sum((out / name).exists() for name in OLDER_FILES.values())
        stored = 0
        if (out / store.STORE).exists():
            with contextlib.closing(sqlite3.connect(out / store.STORE)) as connection:
                (stored,) = connection.execute("SELECT count(*) FROM row").fetchone()
        assert stored in (0, 3 * count) and (stored or left == 3)
        seen.add((stored, left))
        assert len(store.read_all_label_store_rows(out)) == 3 * count and not any(
            (out / name).exists() for name in OLDER_FILES.values()
        )
    assert len({stored for stored, _ in seen}) == 2, "kills before and after"


def test_ten_thousand_labels_are_read_within_three_tenths_of_a_second(tmp_path: Path) -> None:
    """Processor time; the chain of hashes is verified each time."""
    given = [StoredLabel.model_validate(give_line("accept") | {"checks": ["contrast"]})] * 10_000
    labels.append_labels(tmp_path, "review", given)
    spent = []
    for _ in range(5):
        begun = time.process_time()
        assert len(labels.read_stored_labels(tmp_path, "review")) == len(given)
        spent.append(time.process_time() - begun)
    assert statistics.median(spent) < 0.3, spent
