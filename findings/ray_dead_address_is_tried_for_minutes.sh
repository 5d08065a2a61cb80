#!/bin/bash
# What one would guess: ray.init(address=HOST:PORT) where nothing listens fails at once ("connection refused" comes in a millisecond), or after
#   a timeout of some seconds; and the error names the address that was given.
# What is true (ray 2.60.0): it is tried NUM_REDIS_GET_RETRIES = 20 times, 41 s each: nearly 14 minutes without a word to the program, whether
#   or not the port refuses. RAY_NUM_REDIS_GET_RETRIES (a name of a time when Ray had a Redis) sets the number. The ConnectionError at
#   the end names the machine's own address instead of the loopback address that was given.
# Date: 2026-11-30. Source: this run; ray/_private/ray_constants.py.
# Why it matters: a scoring or drawing job that is sent to a cluster that has ended (a mistyped head, a machine that was given back) holds
#   its place, its lock and its card for a quarter of an hour before anybody learns of it. A TCP connection before ray.init tells at once.
# Exits with 1 if the behaviour has changed.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install -q ray==2.60.0
cat > "$place/ask.py" <<'PYTHON'
import socket
import time

import ray
from ray._private.ray_constants import NUM_REDIS_GET_RETRIES

with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]
began = time.monotonic()  # nothing listens there any more
try:
    ray.init(address=f"127.0.0.1:{port}", log_to_driver=False)
    raise SystemExit("it has joined something")
except ConnectionError as error:
    print(NUM_REDIS_GET_RETRIES, round(time.monotonic() - began), str(error).splitlines()[0].replace(str(port), "PORT"))
PYTHON
cd "$place"
export RAY_USAGE_STATS_ENABLED=0 RAY_BACKEND_LOG_LEVEL=fatal
RAY_NUM_REDIS_GET_RETRIES=1 venv/bin/python ask.py 2> /dev/null > one
RAY_NUM_REDIS_GET_RETRIES=2 venv/bin/python ask.py 2> /dev/null > two
usual=$(venv/bin/python -c "from ray._private.ray_constants import NUM_REDIS_GET_RETRIES as n; print(n)" 2> /dev/null | tail -1)
read -r _ first said < one; read -r _ second _ < two
echo "tries, seconds: 1, $first; 2, $second; by default $usual tries: some $(( (second - first) * usual )) s"
echo "$said"
[ "$usual" = 20 ] && [ "$first" -ge 20 ] && [ $((second - first)) -ge 20 ] || { echo "the behaviour has changed"; exit 1; }
