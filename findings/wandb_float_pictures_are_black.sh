#!/bin/bash
# What one would guess: pictures with floats from 0 to 1, as diffusers gives them with output_type="np", can be handed to wandb.Image,
#   as they could for years.
# What is true: wandb 0.19.11 scales them to 0..255; wandb 0.31.0 only cuts fractions off. A picture from 0 to 1 becomes black, in place and
#   without a warning, and a float above 255 begins again at 0. Its docstring says that values "are expected to already be in the range
#   [0, 255]"; the argument `normalize` is gone.
# Date: 2026-11-30. Source: this run; wandb/sdk/data_types/image.py (`_convert_to_uint8`).
# Why it matters: after an upgrade the samples of a LoRA run in W&B are black, the LoRA is right, and people look for NaN in the VAE or in
#   half precision. Round (255 * x) to uint8, or hand over PIL pictures.
# Exits with 1 if the behaviour has changed.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
cat > "$place/look.py" <<'PYTHON'
import sys

import numpy as np
import wandb

as_diffusers_gives = np.linspace(0, 1, 8 * 8 * 3).reshape(8, 8, 3).astype(np.float32)
found = []
for given in (as_diffusers_gives, as_diffusers_gives + 255.5):
    shown = np.asarray(wandb.Image(given).image)
    found.append((int(shown.min()), int(shown.max())))
print(f"wandb {wandb.__version__}: floats 0..1 are shown as {found[0]}, 255.5..256.5 as {found[1]}")
scaled = sys.argv[1] == "scaled"
assert found[0] == ((0, 255) if scaled else (0, 1)), "the behaviour has changed"
PYTHON
for pinned in "0.19.11 scaled" "0.31.0 cut"; do
  set -- $pinned
  python3 -m venv "$place/$1"
  "$place/$1/bin/python" -m pip install -q wandb=="$1" numpy==2.4.6 pillow==11.3.0
  "$place/$1/bin/python" "$place/look.py" "$2"
  rm -rf "$place/$1"
done
