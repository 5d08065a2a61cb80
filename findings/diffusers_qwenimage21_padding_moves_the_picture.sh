#!/bin/bash
# What one would guess: in a batch, a prompt that is padded to the length of a longer one, with the mask that hides its padding,
#   is computed as it is alone. So it is for Krea 2, whose transformer gives words no positions.
# What is true (diffusers 0.42.1): not for Qwen-Image 2.1. The mask takes padding out of attention, but the picture's rotary position
#   is counted from all tokens before it, padding included. Beside a longer prompt a picture stands farther from its own words, and
#   another picture is drawn. QwenImage21Pipeline pads so for a list of prompts, and the example training script for its batches.
# Date: 2026-11-29. Source: this run; diffusers/models/transformers/transformer_qwenimage21.py (QwenImage21Rope.forward).
# Why it matters: the same prompt and seed give different pictures with different neighbours, and a LoRA that was trained in batches
#   has seen positions that it never meets when one prompt is drawn. Compute prompts of one length together, or one by one.
# Exits with 1 if the behaviour has changed.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install -q torch==2.15.0 diffusers==0.42.1 transformers==5.23.0
"$place/venv/bin/python" -W ignore - <<'PYTHON'
import diffusers
import torch
from diffusers import QwenImage21Transformer2DModel

print("diffusers", diffusers.__version__, "torch", torch.__version__)
torch.manual_seed(0)
model = QwenImage21Transformer2DModel(
    in_channels=4, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2, context_in_dim=16, axes_dims_rope=(4, 6, 6)
).eval()
for weight in model.parameters():  # of a size at which attention is not the same for all tokens
    torch.nn.init.normal_(weight, std=0.3)
noise, words, picture = torch.randn(1, 16, 4), torch.randn(1, 5, 16), torch.ones(1, 4, dtype=torch.bool)


def velocity(padding: int) -> torch.Tensor:
    """What the model predicts for the picture, with `padding` tokens after the words, all hidden by the mask."""
    told = torch.cat([words, torch.zeros(1, padding, 16)], 1)
    length = told.shape[1]
    with torch.no_grad():
        found = model(
            hidden_states=noise,
            encoder_hidden_states=told,
            encoder_hidden_states_mask=torch.arange(length)[None] < 5,
            timestep=torch.tensor([0.5]),
            img_shapes=[[(1, 4, 4)]],
            img_mask=torch.cat([torch.zeros(1, length, dtype=torch.bool), picture], 1),
            return_dict=False,
        )[0]
    return found[:, -16:]


alone = velocity(0)
for padding in (0, 1, 20, 200):
    print(f"{padding:3d} hidden tokens: the prediction changes by {float((velocity(padding) - alone).norm() / alone.norm()):.2%}")
assert torch.allclose(velocity(0), alone, atol=1e-6)
assert (velocity(20) - alone).norm() > 1e-3 * alone.norm(), "the behaviour has changed"
print("padding that no token may look at moves the picture")
PYTHON
