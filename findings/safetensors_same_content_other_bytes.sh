#!/bin/bash
# What one would guess: the same tensors and the same metadata, saved twice by safetensors, are the same file.
# What is true (safetensors 0.8.0): with two or more metadata entries nearly every save has other bytes, also within one process.
#   Tensors are sorted, but `__metadata__` is written in the order of a Rust HashMap, which is seeded anew for each one.
# Date: 2026-11-29. Source: this run; safetensors/src/tensor.rs (metadata is a HashMap<String, String>).
# Why it matters: a LoRA is known by the sha256 of its file (registries, caches, signatures, reproducible training). Two runs that
#   agree in every bit of every weight hand out files with other digests. Sort the header yourself, or compare digests of tensors.
# Exits with 1 if the behaviour has changed.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install -q safetensors==0.8.0 numpy==2.4.0
"$place/venv/bin/python" - <<'PYTHON'
import hashlib
import json

import numpy
import safetensors
from safetensors.numpy import load, save

print("safetensors", safetensors.__version__)
tensors = {f"lora_unet_{name}.lora_down.weight": numpy.zeros((2, 4), numpy.float32) for name in ("b", "a", "c")}
metadata = {f"ss_key_{i}": str(i) for i in range(8)}
files = [save(tensors, metadata=metadata) for _ in range(20)]
headers = [json.loads(file[8 : 8 + int.from_bytes(file[:8], "little")]) for file in files]
digests = {hashlib.sha256(file).hexdigest() for file in files}
print(f"{len(files)} saves of the same content: {len(digests)} digests")
print("the first three orders of the metadata:", *(" ".join(header["__metadata__"])[:47] for header in headers[:3]), sep="\n  ")
assert all(header == headers[0] for header in headers), "the content differs, not its order alone"
assert all((load(file)[name] == tensor).all() for file in files for name, tensor in tensors.items())
assert len(digests) > 1, "the behaviour has changed"
alone = {hashlib.sha256(save(tensors, metadata={"one": "1"})).hexdigest() for _ in range(20)}
assert len(alone) == 1
print("with one entry, or none, the bytes are the same")
PYTHON
