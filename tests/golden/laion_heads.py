"""Folds LAION's aesthetic predictors into data/heads/. From files that a person has fetched; nothing is unpickled.

python -m tests.golden.laion_heads sa_0_4_vit_l_14_linear.pth ... v2_sac_logos_ava1_l14_linearMSE.safetensors
"""

import hashlib
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from eval.scorers.aesthetic import load_aesthetic_head
from stylegate import files

V1, V2 = "github.com/LAION-AI/aesthetic-predictor", "github.com/christophschuhmann/improved-aesthetic-predictor"
HEADS = {  # name: the file, its encoder, source, licence
    "laion-v1": ("sa_0_4_vit_l_14_linear", "ViT-L-14-quickgelu:openai", V1, "MIT"),
    "laion-v1-b-32": ("sa_0_4_vit_b_32_linear", "ViT-B-32-quickgelu:openai", V1, "MIT"),
    "laion-v1-b-16": ("sa_0_4_vit_b_16_linear", "ViT-B-16-quickgelu:openai", V1, "MIT"),
    "laion-v2": ("v2_sac_logos_ava1_l14_linearMSE", "ViT-L-14-quickgelu:openai", V2, "Apache-2.0"),
}


def folded(path: Path) -> dict[str, np.ndarray]:
    """weight [1, d] and bias [1] in float64."""
    if path.suffix == ".safetensors":
        dimensions = load_file(path)["layers.0.weight"].shape[1]
        weight, bias = load_aesthetic_head(path, dimensions)
        return {"weight": weight[None], "bias": np.array([bias])}
    return {key: value.double().numpy() for key, value in torch.load(path, weights_only=True).items()}


if __name__ == "__main__":
    given = {Path(name).stem: Path(name) for name in sys.argv[1:]}
    for name, (stem, encoder, source, licence) in HEADS.items():
        sha256 = hashlib.sha256(given[stem].read_bytes()).hexdigest()
        about = {"encoder": encoder, "source": f"https://{source}", "licence": licence, "sha256_of_source": sha256}
        save_file(folded(given[stem]), files.ROOT / "data" / "heads" / f"{name}.safetensors", about)
        print(name, sha256)
