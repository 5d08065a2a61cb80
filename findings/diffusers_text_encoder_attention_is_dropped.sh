#!/bin/bash
# What one would guess: diffusers loads every text-encoder layer of a kohya LoRA file (lora_te_...), or raises an error.
# What is true (diffusers 0.42.1): q, k and v layers are loaded only if an out_proj layer is in the file. Without one, but with a
#   feed-forward layer, they are dropped without an error; only transformers' load report calls them UNEXPECTED. The format is guessed from the keys: `to_out_lora` means the
#   old names, `lora_linear_layer` the newer ones, and the newer table does not know `to_q_lora`.
# Date: 2026-11-28. Source: this run; diffusers/utils/state_dict_utils.py (convert_state_dict_to_peft).
# Why it matters: a file trained on some text-encoder layers (q, v and fc are common) learns words that diffusers never sees, while
#   ComfyUI draws them. Compare what was loaded with what is in the file.
# Exits with 1 if the behaviour has changed.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install -q torch==2.15.0 diffusers==0.42.1 peft==0.21.2 transformers==5.23.0
"$place/venv/bin/python" -W ignore - <<'PYTHON'
import diffusers
import peft
import torch
import transformers
from diffusers.loaders import StableDiffusionLoraLoaderMixin as Loader
from peft.tuners.lora import LoraLayer
from transformers import CLIPTextConfig, CLIPTextModel

print("diffusers", diffusers.__version__, "peft", peft.__version__, "transformers", transformers.__version__)


def loaded(names):
    config = CLIPTextConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, vocab_size=99)
    model, tensors = CLIPTextModel(config), {}
    sides = {"mlp_fc1": (64, 32)}
    for name in names:
        rows, columns = sides.get(name, (32, 32))
        flat = f"lora_te_text_model_encoder_layers_0_{name}"
        tensors[f"{flat}.lora_down.weight"] = torch.randn(2, columns)
        tensors[f"{flat}.lora_up.weight"] = torch.randn(rows, 2)
        tensors[f"{flat}.alpha"] = torch.tensor(2.0)
    state, alphas = Loader.lora_state_dict(tensors)
    Loader.load_lora_into_text_encoder(state, alphas, model, prefix="text_encoder", adapter_name="x")
    found = sorted(name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, LoraLayer))
    print("in the file:", sorted(names), "loaded:", found)
    return found


assert loaded(["self_attn_q_proj", "self_attn_out_proj", "mlp_fc1"]) == ["fc1", "out_proj", "q_proj"]
assert loaded(["self_attn_q_proj", "self_attn_v_proj", "mlp_fc1"]) == ["fc1"], "the behaviour has changed"
print("q and v are dropped without an error")
PYTHON
