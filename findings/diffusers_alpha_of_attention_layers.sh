#!/bin/bash
# What one would guess: diffusers gives every layer of a kohya LoRA file its own strength, alpha / rank, as the file says.
# What is true (diffusers 0.42.1): where alphas differ, attention layers get the most frequent alpha of the file, not their own.
#   The converter writes an attention layer's alpha under `...attn1.processor.to_q_lora.down.weight`, which names no module; PEFT
#   ignores the entry (a RuntimeWarning) and takes the default. Feed-forward and convolution layers are right. Text encoders
#   suffer alike, all their layers with transformers 5, which no longer has the `text_model.` of the entry.
# Date: 2026-11-28. Source: this run; diffusers/loaders/lora_conversion_utils.py (_get_alpha_name), utils/peft_utils.py.
# Why it matters: LoRAs with alphas or ranks by layer (LoCon, block-wise training, resized files) draw another picture in
#   diffusers than in ComfyUI, without an error. Convert such files, or fold alpha into lora_up, before loading.
# Exits with 1 if the behaviour has changed.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install -q torch==2.15.0 diffusers==0.42.1 peft==0.21.2 transformers==5.23.0
"$place/venv/bin/python" -W ignore - <<'PYTHON'
import diffusers
import peft
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders import StableDiffusionLoraLoaderMixin as Loader

print("diffusers", diffusers.__version__, "peft", peft.__version__, "torch", torch.__version__)
unet = UNet2DConditionModel(
    sample_size=8, block_out_channels=(32,), down_block_types=("CrossAttnDownBlock2D",), layers_per_block=1,
    up_block_types=("CrossAttnUpBlock2D",), cross_attention_dim=32, attention_head_dim=8,
)
block = "down_blocks.0.attentions.0.transformer_blocks.0."
alphas = {"attn1.to_q": 8.0, "attn1.to_k": 2.0, "attn1.to_v": 2.0, "ff.net.0.proj": 6.0}
tensors = {}
for name, alpha in alphas.items():
    rows, columns = unet.get_submodule(block + name).weight.shape
    flat = "lora_unet_" + (block + name).replace(".", "_")
    tensors[f"{flat}.lora_down.weight"] = torch.randn(2, columns)
    tensors[f"{flat}.lora_up.weight"] = torch.randn(rows, 2)
    tensors[f"{flat}.alpha"] = torch.tensor(alpha)
state, network_alphas = Loader.lora_state_dict(dict(tensors))
Loader.load_lora_into_unet(state, network_alphas, unet, adapter_name="x")
found = {}
for name, alpha in alphas.items():
    flat = "lora_unet_" + (block + name).replace(".", "_")
    change = tensors[f"{flat}.lora_up.weight"] @ tensors[f"{flat}.lora_down.weight"]
    found[name] = round(float(unet.get_submodule(block + name).get_delta_weight("x").norm() / change.norm()), 3)
    print(f"{name}: alpha {alpha:g}, rank 2, strength meant {alpha / 2:g}, loaded {found[name]:g}")
assert found == {"attn1.to_q": 1.0, "attn1.to_k": 1.0, "attn1.to_v": 1.0, "ff.net.0.proj": 3.0}, "the behaviour has changed"
print("to_q is loaded at a quarter of its strength, without an error")
PYTHON
