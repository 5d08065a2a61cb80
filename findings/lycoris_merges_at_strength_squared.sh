#!/bin/bash
# What one would guess: LyCORIS merges an adapter into the weights as it was trained, at alpha / dim.
# What is true (lycoris-lora 4.1.3): the forward pass of LoHa and LoKr, and so training, applies alpha / dim once; merge_to applies
#   it twice: get_weight multiplies by the scale, get_diff_weight multiplies again. LoCon is right. With alpha = dim / 2 the merged
#   model carries half of the learned style, with rs_lora (a scale above 1) too much. A LoKr of two whole matrices has no rank: it
#   is trained at 1 and saved with alpha = dim; with rs_lora it is trained at sqrt(dim) and saved with alpha = dim ^ 1.5, so that
#   nobody who reads the file alone can know the strength.
# Date: 2026-11-29. Source: this run; lycoris/modules/loha.py, lokr.py (get_weight, get_diff_weight, forward).
# Why it matters: a checkpoint that was merged with the writer's own tool is no reference for the strength of its adapter; other
#   programs, which read alpha / dim, draw what was trained.
# Exits with 1 if the behaviour has changed.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install -q torch==2.15.0 numpy==2.4.6 lycoris-lora==4.1.3 einops==0.8.2
"$place/venv/bin/python" -W ignore - <<'PYTHON'
from importlib.metadata import version

import torch
from lycoris.modules.locon import LoConModule
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule

print("lycoris-lora", version("lycoris-lora"), "torch", torch.__version__)
torch.manual_seed(0)
KINDS = {
    "LoCon": (LoConModule, {}),
    "LoHa": (LohaModule, {}),
    "LoKr": (LokrModule, {"factor": 2}),
    "LoHa, rs_lora": (LohaModule, {"rs_lora": True, "alpha": 4.0}),
    "LoKr, both whole, rs_lora": (LokrModule, {"full_matrix": True, "rs_lora": True}),
}
found = {}
with torch.no_grad():
    for name, (kind, settings) in KINDS.items():
        layer = torch.nn.Linear(32, 32, bias=False)
        module = kind("layer", layer, **({"lora_dim": 4, "alpha": 2.0} | settings)).eval()
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        ones, before = torch.eye(32), layer.weight.clone()
        trained = (module(ones) - ones @ before.T).norm()
        module.merge_to()
        found[name] = round(float((layer.weight - before).norm() / trained), 3)
        print(f"{name}: scale {module.scale:g}, alpha in the file {float(module.alpha):g}; merged at {found[name]:g} of what was trained")
wanted = {"LoCon": 1.0, "LoHa": 0.5, "LoKr": 0.5, "LoHa, rs_lora": 2.0, "LoKr, both whole, rs_lora": 2.0}
assert found == wanted, "the behaviour has changed"
PYTHON
