#!/bin/bash
# What one would guess: `import torchvision`, or a scorer's `import open_clip`, loads models and transforms; torch's compiler is loaded
#   by the first torch.compile. torchvision/ops/roi_align.py even says so: "This avoids eagerly importing dynamo."
# What is true (torchvision 0.29.2, torch 2.15.0): the same file imports is_compile_supported from torch._dynamo.utils at its top, so
#   `import torchvision` loads 121 modules of torch._dynamo and torch._inductor, which `import torch` does not. They take most of the
#   processor time of the import: 1.7 s, and 0.1 s if they were loaded before.
# Date: 2026-11-30. Source: this run.
# Why it matters: each worker of Ray, of a Slurm array or of a launcher that scores pictures pays it at its start; where parts are
#   small and workers are retried, that is what a retry costs. open_clip and timm import torchvision wherever they are used.
# Exits with 1 if the behaviour has changed.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install -q torch==2.15.0 torchvision==0.29.2 numpy==2.4.6
cat > "$place/load.py" <<'PYTHON'
import sys
import time

import torch


def compiler_modules() -> int:
    return sum(name.startswith(("torch._dynamo", "torch._inductor")) for name in sys.modules)


before = compiler_modules()
if len(sys.argv) > 1:
    import torch._dynamo.utils
began = time.process_time()
import torchvision  # noqa: E402

print(before, compiler_modules(), time.process_time() - began)
if len(sys.argv) == 1:
    print("torch", torch.__version__, "torchvision", torchvision.__version__, file=sys.stderr)
PYTHON
cd "$place"
venv/bin/python load.py > cold; venv/bin/python load.py > cold; venv/bin/python load.py loaded > warm
read -r before after seconds < cold; read -r _ _ rest < warm
echo "compiler modules: $before after import torch, $after after import torchvision"
echo "import torchvision after torch: $seconds s of processor time, $rest s if the compiler was loaded before"
venv/bin/python - "$before" "$after" "$seconds" "$rest" <<'PYTHON'
import sys

before, after, seconds, rest = map(float, sys.argv[1:])
assert before == 0 and after > 100, "the behaviour has changed"
assert rest < 0.5 * seconds, "the compiler is no longer half of torchvision's import"
PYTHON
