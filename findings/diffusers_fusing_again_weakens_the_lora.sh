#!/bin/bash
# What one would guess: pipe.unfuse_lora() "reverses the effect of pipe.fuse_lora()", as its documentation says: the LoRA then draws as
#   before, a second fuse_lora(lora_scale=.5) draws as the first did, and the base is the base again when the LoRA is unloaded.
# What is true (diffusers 0.42.1, peft 0.21.2), without a word:
#   - the scale stays: fuse_lora multiplies the strength of the adapter by lora_scale, and unfuse_lora does not divide it. After fusing
#     and unfusing at .5 it draws at .5, fused at .5 again at .25, then at .125;
#   - set_adapters while fused changes nothing in the picture, but it changes what unfuse_lora takes away: the new strength, not the one
#     that was added. The base keeps the rest of the LoRA, also after unload_lora_weights.
# Date: 2026-11-30. Source: this run; diffusers/loaders/peft.py (_fuse_lora_apply, _unfuse_lora_apply), peft's LoraLayer.scale_layer.
# Why it matters: a loop over strengths (fuse, draw, unfuse) draws the first as asked and the others too weak, so the best strength
#   is read from the wrong picture; a server that serves brands in turn serves the next brand on a base that is no longer clean.
#   Call set_adapters with the strength wanted before each fuse_lora(), leave lora_scale alone, and change nothing while fused.
# Exits with 1 if the behaviour has changed.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install -q torch==2.15.0 diffusers==0.42.1 transformers==5.23.0 peft==0.21.2 accelerate==1.15.0 numpy==2.4.6
export HF_HOME="$place/cache" HF_HUB_OFFLINE=1 CUDA_VISIBLE_DEVICES=
"$place/venv/bin/python" -W ignore - 2> "$place/log" <<'PYTHON' || { tail -5 "$place/log"; exit 1; }
import diffusers
import peft
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

print("diffusers", diffusers.__version__, "peft", peft.__version__)
torch.manual_seed(0)
down, up = ("CrossAttnDownBlock2D", "DownBlock2D"), ("UpBlock2D", "CrossAttnUpBlock2D")
unet = UNet2DConditionModel(
    block_out_channels=(32, 64), down_block_types=down, up_block_types=up, layers_per_block=1, cross_attention_dim=32, attention_head_dim=8
)
vae = AutoencoderKL(block_out_channels=(32,), latent_channels=4)
words = CLIPTextConfig(hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=4, vocab_size=99)
parts = {"vae": vae, "text_encoder": CLIPTextModel(words), "tokenizer": None, "unet": unet, "scheduler": DDIMScheduler()}
pipe = StableDiffusionPipeline(**parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False)
layer = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
base = unet.get_submodule(layer).weight.detach().clone()
lora = {f"unet.{layer}.lora_A.weight": torch.randn(4, 32), f"unet.{layer}.lora_B.weight": torch.randn(32, 4)}
learned = lora[f"unet.{layer}.lora_B.weight"] @ lora[f"unet.{layer}.lora_A.weight"]
pipe.load_lora_weights(dict(lora), adapter_name="style")


def strength():
    """How much of the LoRA the layer adds to what the base does: 1 is all of it, 0 is none."""
    with torch.no_grad():
        added = unet.get_submodule(layer)(torch.eye(32)).T - base
    assert (added - (part := (added * learned).sum() / learned.square().sum()) * learned).norm() < 1e-3  # nothing else
    return round(float(part), 3)


found = [strength()]
print("loaded:", found[0])
for _ in range(3):
    pipe.fuse_lora(lora_scale=0.5)
    fused = strength()
    pipe.unfuse_lora()
    found += [fused, strength()]
    print(f"fuse_lora(lora_scale=.5): {found[-2]}; unfuse_lora(): {found[-1]}")
pipe.set_adapters("style", 1.0)
found.append(strength())
print(f"set_adapters('style', 1.0): {found[-1]}")
pipe.fuse_lora()
pipe.set_adapters("style", 0.25)
found.append(strength())
pipe.unfuse_lora()
pipe.unload_lora_weights()
found.append(strength())
print(f"fuse_lora() and set_adapters('style', .25): {found[-2]}; unfuse_lora() and unload_lora_weights(): {found[-1]} left in the base")
base = unet.get_submodule(layer).weight.detach().clone()
pipe.load_lora_weights(dict(lora), adapter_name="style")
for wanted in (0.5, 0.8):
    pipe.set_adapters("style", wanted)
    pipe.fuse_lora()
    found.append(strength())
    pipe.unfuse_lora()
print(f"set_adapters before each fuse_lora(), at .5 and .8: {found[-2]}, {found[-1]}")
assert found == [1.0, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125, 1.0, 1.0, 0.75, 0.5, 0.8], "the behaviour has changed"
PYTHON
