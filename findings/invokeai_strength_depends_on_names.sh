#!/bin/bash
# What one would guess: InvokeAI draws a Z-Image or Qwen-Image LoRA at alpha / rank wherever the file states alpha for each layer.
# What is true (InvokeAI 6.14.2): that depends on the names of the matrices. Beside lora_down / lora_up the layer's `.alpha` counts.
#   Beside lora_A / lora_B (the names of PEFT and diffusers) it is dropped without a word, and the strength is 1. One and the same
#   training, saved under either names, draws at half and at full strength.
# Date: 2026-11-28. Source: this run; invokeai/backend/patches/lora_conversions (z_image, qwen_image: _get_lora_layer_values).
# Why it matters: alpha = rank / 2 is a common setting, and ComfyUI and diffusers honour it. Who wants one strength in every
#   program scales the matrices themselves, so that alpha equals the rank.
# InvokeAI's wheel is installed without its own pins (no GPU libraries); what is run is its code for LoRA files alone.
# Exits with 1 if the behaviour has changed.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
pip() { "$place/venv/bin/python" -m pip install -q "$@"; }
pip torch==2.15.0 torchvision==0.29.2 diffusers==0.42.1 transformers==5.23.0 accelerate==1.15.0 numpy==2.4.6 pillow==13.0.0 \
    psutil==7.2.2 protobuf==7.36.2 pydantic-settings==2.16.3
pip --no-deps invokeai==6.14.2 blake3==1.0.11 compel==2.5.1 deprecated==1.3.1 einops==0.8.2 gguf==0.19.0 ml-dtypes==0.6.0 \
    onnx==1.23.2 onnxruntime==1.32.0 opencv-python-headless==5.0.0.93 picklescan==1.0.5 pyparsing==3.3.3 spandrel==0.4.2 wrapt==2.5.2
cd "$place"
"$place/venv/bin/python" -W ignore - <<'PYTHON'
from importlib.metadata import version

import torch
import invokeai.backend.model_manager.load  # noqa: F401  (the package's parts import each other in a circle; this order works)
from invokeai.backend.patches.lora_conversions.qwen_image_lora_conversion_utils import lora_model_from_qwen_image_state_dict
from invokeai.backend.patches.lora_conversions.z_image_lora_conversion_utils import lora_model_from_z_image_state_dict

print("invokeai", version("invokeai"))
RANK, ALPHA = 8, 4.0
LAYERS = {
    "Z-Image": ("diffusion_model.layers.0.attention.to_q", lora_model_from_z_image_state_dict),
    "Qwen-Image": ("transformer.transformer_blocks.0.attn.to_q", lora_model_from_qwen_image_state_dict),
}
down, up = torch.randn(RANK, 16), torch.randn(16, RANK)
found = {}
for family, (layer, read) in LAYERS.items():
    for names in (("lora_down", "lora_up"), ("lora_A", "lora_B")):
        tensors = {f"{layer}.{names[0]}.weight": down, f"{layer}.{names[1]}.weight": up, f"{layer}.alpha": torch.tensor(ALPHA)}
        (patch,) = read(tensors).layers.values()
        weight = {"weight": torch.zeros(16, 16)}
        change = patch.get_parameters(weight, weight=1.0)["weight"]
        found[family, names[0]] = round(float(change.norm() / (up @ down).norm()), 3)
        print(f"{family}, {names[0]} / {names[1]}: alpha {ALPHA:g}, rank {RANK}; strength {found[family, names[0]]:g}")
wanted = {(family, name): strength for family in LAYERS for name, strength in (("lora_down", 0.5), ("lora_A", 1.0))}
assert found == wanted, "the behaviour has changed"
print("the same file is drawn twice as strongly under PEFT's names")
PYTHON
