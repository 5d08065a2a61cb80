#!/bin/bash
# What one would guess: a DyLoRA is trained with a rank by lot at each step; in eval() it applies the whole adapter, at alpha / dim,
#   which is what its file (lora_up, lora_down, alpha) says.
# What is true (lycoris-lora 4.1.3): eval() changes nothing. Each forward pass and each merge draws one of the dim / block_size ranks by
#   lot, so the same model and picture give as many results. The whole adapter is trained at alpha / (number of blocks), not alpha / dim:
#   readers of the file, which see an ordinary LoRA, draw it block_size times too weak. load_state_dict takes a file and loads nothing.
# Date: 2026-11-29. Source: this run; lycoris/modules/dylora.py (get_random_rank_weight, get_weight, load_state_dict).
# Why it matters: samples drawn on the way, from the training modules, are of ranks drawn by lot, so that checkpoints cannot be ordered by
#   them; the file looks like any kohya LoRA, and nothing in it says that its strength must be multiplied.
# Exits with 1 if the behaviour has changed.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install -q torch==2.15.0 numpy==2.4.6 lycoris-lora==4.1.3 einops==0.8.2
"$place/venv/bin/python" -W ignore - <<'PYTHON'
from importlib.metadata import version

import torch
from lycoris.modules.dylora import DyLoraModule

print("lycoris-lora", version("lycoris-lora"), "torch", torch.__version__)
torch.manual_seed(0)
DIM, BLOCK, ALPHA = 8, 2, 4.0
layer = torch.nn.Linear(32, 32, bias=False)
module = DyLoraModule("layer", layer, lora_dim=DIM, alpha=ALPHA, block_size=BLOCK).eval()
with torch.no_grad():
    for parameter in module.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    ones = torch.eye(32)
    results = {tuple(module(ones).flatten().tolist()) for _ in range(100)}
    print("results of 100 equal passes in eval():", len(results))
    file = module.custom_state_dict()
    of_file = file["lora_up.weight"] @ file["lora_down.weight"] * (float(file["alpha"]) / DIM)
    down, up, scale = module.get_weight(DIM - BLOCK)  # the highest rank that a pass can draw: all blocks
    strength = float((up @ down * scale).norm() / of_file.norm())
    print(f"whole adapter: trained at {scale:g}, its file says {float(file['alpha']) / DIM:g}: {strength:.3f} times as strong")
    other = DyLoraModule("layer", torch.nn.Linear(32, 32, bias=False), lora_dim=DIM, alpha=ALPHA, block_size=BLOCK)
    before = [parameter.clone() for parameter in other.up_list]
    other.load_state_dict(file)
    unchanged = all(torch.equal(a, b) for a, b in zip(before, other.up_list))
    print("weights after load_state_dict are those before:", unchanged)
assert (len(results), round(strength, 3), unchanged) == (DIM // BLOCK, float(BLOCK), True), "the behaviour has changed"
PYTHON
