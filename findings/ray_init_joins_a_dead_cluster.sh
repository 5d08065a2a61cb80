#!/bin/bash
# What one would guess: ray.init(num_cpus=1) without an address begins a Ray on this machine, as it does on a fresh one.
# What is true (Ray 2.60.0): it first takes the address that the last `ray start --head` of this machine wrote to a file of the
#   temporary folder. The file outlives a cluster that was killed, so num_cpus= is refused as if the cluster were there.
#   ray.init(address="local", num_cpus=1) begins a new one.
# Date: 2026-11-29. Source: this run.
# Why it matters: an embedding or generation job that ran yesterday on the same machine ends at once after a crash or an
#   out-of-memory kill of the cluster, with a message about a cluster that nobody named; it is seen on no fresh CI machine.
# Exits with 1 if the behaviour has changed.
set -euo pipefail
place=$(mktemp -d /tmp/rXXXX) # short: sockets lie below it
trap 'pkill -9 -f "$place" || true; rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install -q ray==2.60.0
export RAY_TMPDIR="$place" RAY_USAGE_STATS_ENABLED=0 RAY_DEDUP_LOGS=0 HOME="$place"
unset RAY_ADDRESS
cd "$place"
begins() {  # what ray.init says when it is called so
    "$place/venv/bin/python" - "$1" 2>/dev/null <<'PYTHON'
import sys

import ray

told = {"num_cpus": 1} | ({"address": sys.argv[1]} if sys.argv[1] else {})
try:
    ray.init(include_dashboard=False, log_to_driver=False, **told)
except Exception as error:
    print(type(error).__name__, str(error).splitlines()[0])
else:
    print("begins with", int(ray.cluster_resources()["CPU"]), "CPU")
    ray.shutdown()
PYTHON
}
fresh=$(begins "")
"$place/venv/bin/ray" start --head --num-cpus=1 --include-dashboard=false >/dev/null 2>&1
pkill -9 -f "$place/venv/lib.*ray/core" || true
sleep 3
after=$(begins "") named=$(begins local)
"$place/venv/bin/python" -c 'import ray; print("ray", ray.__version__)'
printf '%s\n' "on a fresh machine:                  $fresh" "after a cluster that was killed:     $after" "the same with address=\"local\":       $named"
[[ $fresh == "begins with 1 CPU" && $after == "ValueError When connecting to an existing cluster"* && $named == "begins with 1 CPU" ]]
