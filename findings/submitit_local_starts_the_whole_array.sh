#!/bin/bash
# What one would guess: slurm_array_parallelism=1 lets one task of a job array run at a time, on the cluster and in a trial with
#   cluster="local", which runs the same program on one machine.
# What is true (submitit 1.5.4): the local executor takes the setting and does not use it. Each task of the array is a process at once:
#   four tasks of a job that allows one run side by side.
# Date: 2026-11-29. Source: this run.
# Why it matters: a trial of a job that encodes or draws pictures loads the model once for each task. An array of 200 parts, of which
#   Slurm would run 8 at a time, starts 200 copies of the model on the machine where it is tried.
# Exits with 1 if the behaviour has changed.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install -q submitit==1.5.4
cat > "$place/tasks.py" <<'PYTHON'
import sys
import time
from pathlib import Path

import submitit


def task(number: int) -> tuple[float, float]:
    began = time.time()
    time.sleep(4)
    return began, time.time()


executor = submitit.AutoExecutor(folder=Path(sys.argv[1]), cluster="local")
executor.update_parameters(slurm_array_parallelism=1, timeout_min=2)
spans = [job.result() for job in executor.map_array(task, range(4))]
together = sum(began < spans[0][1] and ended > spans[0][0] for began, ended in spans)
print("submitit", submitit.__version__, "slurm_array_parallelism=1, cluster=local: tasks that ran beside the first one:", together - 1)
assert together > 1, "the behaviour has changed"
PYTHON
cd "$place" && "$place/venv/bin/python" tasks.py "$place/log"
