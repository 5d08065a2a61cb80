#!/bin/bash
# What one would guess: a LoRA for Qwen-Image 2.1 under kohya's names (lora_unet_...) that diffusers loads without an error is loaded whole.
# What is true (diffusers 0.42.1): a third of its feed-forward layers is lost. The pipeline uses Qwen-Image's converter, which spells
#   `img_mlp_gate_layer` as `img_mlp.gate.layer`; there is no such module. diffusers logs "unexpected keys", and goes on with the rest.
# Date: 2026-11-29. Source: this run; diffusers/loaders/lora_conversion_utils.py (_convert_non_diffusers_qwen_lora_to_diffusers).
# Why it matters: the picture is another one than in ComfyUI or the trainer's samples, without an error. Save such LoRAs under
#   diffusers' own names (transformer.transformer_blocks.0.img_mlp.gate_layer.lora_A.weight).
# Exits with 1 if the behaviour has changed.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install -q torch==2.15.0 diffusers==0.42.1 peft==0.21.2 transformers==5.23.0
"$place/venv/bin/python" -W ignore - <<'PYTHON'
import diffusers
import peft
import torch
from diffusers import QwenImage21Transformer2DModel
from diffusers.loaders import QwenImageLoraLoaderMixin as Loader

print("diffusers", diffusers.__version__, "peft", peft.__version__, "torch", torch.__version__)
model = QwenImage21Transformer2DModel(
    in_channels=4, out_channels=4, num_layers=1, attention_head_dim=16, num_attention_heads=2, context_in_dim=16, axes_dims_rope=(4, 6, 6)
)
layers = ["attn.to_q", "img_mlp.proj", "img_mlp.gate_layer", "img_mlp.out"]
tensors = {}
for layer in layers:
    rows, columns = model.get_submodule(f"transformer_blocks.0.{layer}").weight.shape
    flat = f"lora_unet_transformer_blocks_0_{layer.replace('.', '_')}"
    tensors[f"{flat}.lora_down.weight"], tensors[f"{flat}.lora_up.weight"] = torch.randn(2, columns), torch.randn(rows, 2)
    tensors[f"{flat}.alpha"] = torch.tensor(2.0)
Loader.load_lora_into_transformer(Loader.lora_state_dict(tensors), model, adapter_name="x")
loaded = [layer for layer in layers if hasattr(model.get_submodule(f"transformer_blocks.0.{layer}"), "lora_A")]
print("in the file:", ", ".join(layers))
print("loaded:     ", ", ".join(loaded))
assert loaded == ["attn.to_q", "img_mlp.proj", "img_mlp.out"], "the behaviour has changed"
PYTHON
