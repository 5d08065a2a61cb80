"""Aesthetic score: a linear head on the unit embedding.

LAION's improved predictor V2 is five linear layers without activations between them, hence one affine map; it is
folded to a vector and a bias (parity with the stack below 1e-6, tests/eval/test_scorers.py). It was trained on what
people like on average and rewards saturation: a feature, never the only gate.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from stylegate.errors import ModelError


def load_head(path: Path, dimensions: int) -> tuple[NDArray, float]:
    """Weight [d] and bias of the folded head. Raises ModelError if the layers do not chain from `dimensions` to 1."""
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"aesthetic head {path} cannot be read: {error}") from None
    names = sorted((n.removesuffix("weight") for n in tensors if n.endswith("weight")), key=layer_number)
    weight, bias = np.eye(dimensions), np.zeros(dimensions)
    for name in names:
        layer = np.atleast_2d(tensors[f"{name}weight"].astype(np.float64))
        if layer.shape[1] != weight.shape[0]:
            raise ModelError(f"aesthetic head {path} is for another encoder: {name}weight is {layer.shape}")
        weight, bias = layer @ weight, layer @ bias + tensors[f"{name}bias"].astype(np.float64)
    if not names or weight.shape[0] != 1:
        raise ModelError(f"aesthetic head {path} does not end in one number")
    return weight[0], float(bias[0])


def layer_number(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in name.split(".") if part.isdigit())


def score(embeddings: NDArray, head: tuple[NDArray, float]) -> NDArray[np.float32]:
    """[n]; LAION's scale is nominally 1 to 10, a head of ours is a log-odds of clean against degraded."""
    weight, bias = head
    return (embeddings @ weight + bias).astype(np.float32)
