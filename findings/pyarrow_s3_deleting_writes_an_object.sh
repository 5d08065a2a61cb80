#!/bin/bash
# What one would guess: pyarrow's S3FileSystem.delete_file removes an object with one request, and no more.
# What is true (pyarrow 26.0.1): it then writes an empty object whose name is that of the parent and ends in "/", also where nobody asked for
#   folders and other objects lie beside the removed one. So deleting needs the right to write, costs a PUT, and fails on servers that keep
#   objects as files and refuse such names (localbucket 1.2.1).
# Date: 2026-11-29. Source: this run; the requests are those that the server logs.
# Why it matters: a ledger in a bucket of which a finished mark is deleted pays a request more for each part, and leaves an object that
#   nothing wrote. To overwrite with an empty object, and to count that as none, is one request.
# Exits with 1 if the behaviour has changed.
set -euo pipefail
place=$(mktemp -d); trap 'kill "$server" 2>/dev/null || true; rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install -q pyarrow==26.0.1 localbucket==1.2.1
mkdir -p "$place/data/acme"
"$place/venv/bin/python" -m localbucket --port 9377 "$place/data" > "$place/log" 2>&1 & server=$!
for _ in $(seq 60); do (exec 3<>/dev/tcp/127.0.0.1/9377) 2>/dev/null && break; sleep 0.5; done
cat > "$place/delete.py" <<'PYTHON'
import pyarrow
from pyarrow import fs

store = fs.S3FileSystem(access_key="any", secret_key="any", endpoint_override="127.0.0.1:9377", scheme="http", region="us-east-1")
for name in ("a", "b"):
    with store.open_output_stream(f"acme/parts/{name}") as stream:
        stream.write(b"x")
try:
    store.delete_file("acme/parts/a")
except OSError as error:
    print("pyarrow", pyarrow.__version__, "delete_file:", str(error)[:120])
print("left:", [info.path for info in store.get_file_info(fs.FileSelector("acme/parts"))])
PYTHON
"$place/venv/bin/python" "$place/delete.py"
grep -E '"(DELETE|PUT) /acme/parts/ ?[^ ]* HTTP' "$place/log" | grep -v partNumber
grep -q '"PUT /acme/parts/ HTTP' "$place/log" || { echo "the behaviour has changed"; exit 1; }
