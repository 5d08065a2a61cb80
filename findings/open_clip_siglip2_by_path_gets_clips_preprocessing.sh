#!/bin/bash
# What one would guess: the name of an open_clip architecture settles how pictures are prepared for it. SigLIP 2 was trained on pictures
#   that are squashed to a square and scaled by mean .5 and deviation .5, so its weights are shown such pictures wherever they lie.
# What is true (open_clip 3.3.0): these values belong to the names of the published weights, not to the architecture. The same weights
#   given as a file are shown pictures whose sides are cut off, scaled by CLIP's mean and deviation. Nothing warns; similarities stay
#   plausible and are those of other pictures.
# Date: 2026-11-29. Source: this run; open_clip/factory.py (create_model_and_transforms), open_clip/pretrained.py (_slpcfg).
# Why it matters: studios that keep encoders as files (offline machines, weights of their own) score style, traits and duplicates with
#   an encoder that never sees the left and right of a wide picture. Read the values of the architecture's published weights
#   (get_pretrained_cfg) and give them (image_mean, image_std, image_resize_mode).
# Exits with 1 if the behaviour has changed. Needs 4 GB of memory.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install -q open_clip_torch==3.3.0 torch==2.15.0 torchvision==0.29.2 timm==1.0.31 transformers==5.23.0
cd "$place"
HF_HUB_OFFLINE=1 "$place/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file

NAME = "ViT-B-32-SigLIP2-256"
model = open_clip.create_model(NAME, precision="bf16")  # random weights of the true shapes
save_file({k: v.contiguous() for k, v in model.state_dict().items()}, "weights.safetensors")
del model
published = open_clip.get_pretrained_cfg(NAME, "webli")
given = open_clip.create_model_and_transforms(NAME, pretrained="weights.safetensors", precision="bf16")[2]
print("open_clip", version("open_clip_torch"))
print("published:", {k: published[k] for k in ("mean", "std", "resize_mode")})
print("by path:  ", *(type(step).__name__ for step in given.transforms), given.transforms[-1].mean)
wide = Image.new("RGB", (768, 256), "red")  # a third red, a third green, a third blue
wide.paste("lime", (256, 0, 512, 256))
wide.paste("blue", (512, 0, 768, 256))
seen = given(wide) * torch.tensor(given.transforms[-1].std)[:, None, None] + torch.tensor(given.transforms[-1].mean)[:, None, None]
shares = [round(float(channel.mean()), 2) for channel in seen]
print("share of red, green and blue in what the encoder is shown:", shares)
as_found = published["resize_mode"] == "squash" and published["mean"] == (0.5, 0.5, 0.5)
as_found = as_found and shares == [0.0, 1.0, 0.0] and round(given.transforms[-1].mean[0], 3) == 0.481
raise SystemExit(not as_found)
PYTHON
