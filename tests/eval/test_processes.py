"""Scores are the same from one process and from two."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from stylegate import files


def test_two_processes_write_the_table_of_one(run, judged: Path, tmp_path: Path) -> None:
    """The launcher's `--cpu --num_processes 2` silently runs one process, hence torchrun (gloo)."""
    words = [f"images={judged}", "brand=neon", "hardware=cpu"]
    env = {"STYLEGATE_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "eval"]
    two = subprocess.run(
        [*launcher, *words, f"out={tmp_path / 'two'}"],
        cwd=files.ROOT,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert two.returncode == 0 and two.stdout.count("score: 32 pictures") == 1, two.stdout + two.stderr
    code, text = run("score", *words, f"out={tmp_path / 'one'}")
    assert code == 0, text
    a, b = (pq.read_table(tmp_path / name / "scores.parquet") for name in ("one", "two"))
    assert a.column_names == b.column_names and a["file"].equals(b["file"])
    assert all(a[name].equals(b[name]) for name in ("twin", "known"))
    for name in set(a.column_names[5:]) - {"twin", "known"}:
        x, y = (np.array(table[name].to_pylist(), float) for table in (a, b))
        assert np.allclose(x, y, atol=1e-4, equal_nan=True), name
