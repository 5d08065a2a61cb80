#!/bin/bash
# What one would guess: InvokeAI tells which base a LoRA file belongs to, or says that it does not know it.
# What is true (InvokeAI 6.14.2): it goes by the beginnings of names. Under diffusers' names `transformer.transformer_blocks.0...`
#   is the beginning of SD3's, of FLUX's double blocks and of Qwen-Image's layers. So a LoRA for Stable Diffusion 3, and one for
#   FLUX.1 that adapts double blocks alone, are imported as LoRAs for Qwen-Image; and a LoRA for Qwen-Image under ComfyUI's names
#   (`diffusion_model.transformer_blocks.0...`) is imported as unknown.
# Date: 2026-11-28. Source: this run; invokeai/backend/model_manager/configs/lora.py (LoRA_LyCORIS_QwenImage_Config).
# Why it matters: who hands out a LoRA in diffusers' names, or adapts some blocks only, is offered with the wrong base there. The
#   header of the file (modelspec.architecture) says which base is meant, and changes nothing.
# InvokeAI's wheel is installed without its own pins (no GPU libraries); what is run is its code that recognises files alone.
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
"$place/venv/bin/python" -W ignore - 2>/dev/null <<'PYTHON'
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import save_file
import invokeai.backend.model_manager.load  # noqa: F401  (the package's parts import each other in a circle; this order works)
from invokeai.backend.model_manager.configs.factory import ModelConfigFactory

print("invokeai", version("invokeai"))
FILES = {  # what the file is for: (prefix, layers as diffusers has them, ModelSpec's name of the architecture)
    "SD3": ("transformer.", ["attn.to_q", "attn.add_q_proj"], "stable-diffusion-3-medium/lora"),
    "FLUX.1, double blocks": ("transformer.", ["attn.to_q", "ff.net.0.proj"], "flux-1-dev/lora"),
    "Qwen-Image": ("transformer.", ["attn.to_q", "img_mlp.net.2"], "qwen-image/lora"),
    "Qwen-Image, ComfyUI's names": ("diffusion_model.", ["attn.to_q", "img_mlp.net.2"], "qwen-image/lora"),
}
found = {}
for name, (prefix, layers, architecture) in FILES.items():
    tensors = {}
    for layer in layers:
        tensors[f"{prefix}transformer_blocks.0.{layer}.lora_A.weight"] = torch.randn(4, 64)
        tensors[f"{prefix}transformer_blocks.0.{layer}.lora_B.weight"] = torch.randn(64, 4)
    path = Path(name.split(",")[0] + prefix.rstrip(".") + str(len(found)) + ".safetensors")
    save_file(tensors, path, {"modelspec.architecture": architecture})
    made = ModelConfigFactory.from_model_on_disk(path)
    found[name] = getattr(made, "config", made).base.value
    print(f"{name} ({architecture}): imported as {found[name]}")
wanted = dict.fromkeys(FILES, "qwen-image") | {"Qwen-Image, ComfyUI's names": "unknown"}
assert found == wanted, "the behaviour has changed"
print("the base is guessed from the beginning of names, whatever the header says")
PYTHON
