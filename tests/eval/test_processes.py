"""Pictures and scores are the same from one process and from two."""

import contextlib
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from stylegate import files
from tests.conftest import exit_code, forks


def forget_features_of(folder: Path) -> None:
    """Take the features of the folder's pictures out of the cache, so that they are encoded again."""
    keys = [(f"%:{files.sha256_of_file(path)}",) for path in folder.iterdir()]
    with contextlib.closing(sqlite3.connect(files.CACHE / "features.sqlite")) as cache, cache:
        assert cache.executemany("DELETE FROM entry WHERE key LIKE ?", keys).rowcount >= len(keys)


def test_two_processes_write_the_table_of_one(run, judged: Path, tmp_path: Path) -> None:
    """The two are forks of this process: two of their own would import for eight seconds each."""
    words = [f"images={judged}", "brand=neon", "hardware=cpu"]
    code, text = run("score", *words, f"out={tmp_path / 'one'}")
    assert code == 0, text
    forget_features_of(judged)
    both = forks("score", *words, f"out={tmp_path / 'two'}", count=2, output=tmp_path / "printed")
    printed = [exit_code(pid) for pid in both], (tmp_path / "printed").read_text()
    assert printed[0] == [0, 0] and printed[1].count("score: 32 pictures") == 1, printed
    a, b = (pq.read_table(tmp_path / name / "scores.parquet") for name in ("one", "two"))
    assert a.column_names == b.column_names and a["file"].equals(b["file"])
    assert all(a[name].equals(b[name]) for name in ("twin", "known"))
    for name in set(a.column_names[5:]) - {"twin", "known"}:
        x, y = (np.array(table[name].to_pylist(), float) for table in (a, b))
        assert np.allclose(x, y, atol=1e-4, equal_nan=True), name


def test_two_processes_draw_the_pictures_of_one(run, tmp_path: Path) -> None:
    words = ["hardware=cpu", "hardware.threads=1", "lora_file=none", f"prompts={tmp_path / 'p.txt'}"]
    words += ["batch=together", "generate.batch_size=2", "generate.num_inference_steps=1"]
    (tmp_path / "p.txt").write_text("a red cat\n")
    assert run("plan", *words, "plan.num_images=3")[0] == 0
    both = forks("generate", *words, count=2, output=tmp_path / "printed")
    printed = [exit_code(pid) for pid in both], (tmp_path / "printed").read_text()
    assert printed[0] == [0, 0], printed
    images = files.BATCHES / "together" / "images"
    two = {path.name: path.read_bytes() for path in images.iterdir()}
    assert printed[1].count("generate: 3 drawn, 3 in") == 1 and len(set(two.values())) == 3
    shutil.rmtree(images)
    assert run("generate", *words)[0] == 0
    assert {path.name: path.read_bytes() for path in images.iterdir()} == two
