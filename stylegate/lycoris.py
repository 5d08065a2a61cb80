"""Layers of LoRA files that are more than a pair of matrices: LoHa, LoKr, LoCon with a Tucker core, whole differences.

Each kind has one function that computes what its tensors, by the part of the key that names them, add to a weight
before alpha / rank is applied: `hada_w1_a`, `lokr_w1`, ... as LyCORIS names them (arXiv 2309.14859). The formulas and
the strength are those that the writers train with (lycoris-lora 4.1.3, peft 0.21.2, OneTrainer, ai-toolkit,
musubi-tuner); tests/bench/lora_files.py holds them against the libraries.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

Parts = Mapping[str, Tensor]  # the tensors of one layer, by part


class LycorisLayer(NamedTuple):
    """One adapted module whose weight changes by `strength` times what `kind` makes of the tensors in `parts`."""

    kind: str  # of CHANGES
    parts: Parts
    shape: tuple[int, ...]  # of the module's weight: [out, in] or [out, in, kernel height, kernel width]
    strength: float
    magnitude: Tensor | None = None  # DoRA's, as in stylegate/adapter.py
    bias: Tensor | None = None  # [out], added to the module's bias
    rows: Tensor | None = None  # indices of the outputs that are the module's; None: all (stylegate/fusednames.py)
    columns: Tensor | None = None  # indices of the inputs that are the module's; None: all


def weight_change(layer: LycorisLayer, device: Any, dtype: torch.dtype) -> Tensor:
    """The tensor that a layer adds to its module's weight: [out, in, ...], in `dtype`."""
    parts = {part: tensor.detach().to(device, dtype) for part, tensor in layer.parts.items()}
    whole = layer.strength * CHANGES[layer.kind](parts)
    if layer.rows is not None and layer.columns is not None:
        whole = whole[layer.rows.to(device)][:, layer.columns.to(device)]
    return whole.reshape(layer.shape)


def change_of_lora(parts: Parts) -> Tensor:
    """The change of a plain LoRA, up @ down, as [out, in x kernel]."""
    return parts["up"].flatten(1) @ parts["down"].flatten(1)


def change_of_tucker_lora(parts: Parts) -> Tensor:
    """The change of LoCon's convolution in three steps: one pixel in, `mid` with the kernel, one pixel out: [out, in,
    kernel].
    """
    return tucker_product(parts["mid"], parts["up"].flatten(1).T, parts["down"].flatten(1))


def change_of_loha(parts: Parts) -> Tensor:
    """The elementwise product of two low-rank matrices: [out, in x kernel], or [out, in, kernel] with Tucker cores.

    Raises ValueError if they differ in shape.
    """
    first, second = (whole_or_low_rank_matrix(parts, f"hada_w{i}", f"hada_t{i}") for i in (1, 2))
    if first.shape != second.shape:
        raise ValueError("its two products differ in shape")
    return first * second


def change_of_lokr(parts: Parts) -> Tensor:
    """The Kronecker product of two matrices, each whole or a low-rank product, as [out, in x kernel].

    Raises ValueError if the first one is no matrix.
    """
    first, second = (whole_or_low_rank_matrix(parts, f"lokr_w{i}", f"lokr_t{i}") for i in (1, 2))
    if first.ndim != 2:
        raise ValueError(f"its lokr_w1 has {first.ndim} axes")
    return torch.kron(first, second.flatten(1))


def change_stored_whole(parts: Parts) -> Tensor:
    """The change that a layer stores whole, as it is: [out, in, ...]."""
    return parts["diff"]


def whole_or_low_rank_matrix(parts: Parts, name: str, core: str) -> Tensor:
    """A matrix of a layer, multiplied out: stored whole (`name`), as a product (`name`_a, `name`_b), or with a Tucker
    `core`.
    """
    if name in parts:
        return parts[name]
    one, other = parts[f"{name}_a"], parts[f"{name}_b"]
    return tucker_product(parts[core], one, other) if core in parts else one.flatten(1) @ other.flatten(1)


def tucker_product(core: Tensor, outputs: Tensor, inputs: Tensor) -> Tensor:
    """[out, in, kernel...] the product of `core` [rank, rank, kernel...] with `outputs` [rank, out] on its first axis
    and `inputs` [rank, in] on its second.
    """
    return torch.einsum("ij...,io,jn->on...", core, outputs, inputs)


CHANGES: dict[str, Callable[[Parts], Tensor]] = {
    "LoRA": change_of_lora,
    "Tucker": change_of_tucker_lora,
    "LoHa": change_of_loha,
    "LoKr": change_of_lokr,
    "difference": change_stored_whole,
}


PAIRS_OF = {
    "lokr_w1": ({"lokr_w1"}, {"lokr_w1_a", "lokr_w1_b"}),
    "lokr_w2": ({"lokr_w2"}, {"lokr_w2_a", "lokr_w2_b"}, {"lokr_w2_a", "lokr_w2_b", "lokr_t2"}),
}
LOHA = {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}
FORMS: list[tuple[str, set[str]]] = [  # each kind's parts, in every form that a writer gives it
    ("LoRA", {"down", "up"}),
    ("Tucker", {"down", "up", "mid"}),
    ("LoHa", LOHA),
    ("LoHa", LOHA | {"hada_t1", "hada_t2"}),
    *(("LoKr", first | second) for first in PAIRS_OF["lokr_w1"] for second in PAIRS_OF["lokr_w2"]),
    ("difference", {"diff"}),
]
BESIDE = {"alpha", "magnitude", "dora_scale", "bias"}  # parts that a layer may have besides, whatever its kind
WRITTEN = {"down": "lora_A (lora_down)", "up": "lora_B (lora_up)", "mid": "lora_mid"}  # parts as files name them


def adapter_kind_of_parts(parts: Parts) -> str:
    """The kind (of CHANGES) of a layer with these parts.

    Raises ValueError for a layer that has parts of two kinds, or not all parts of its kind; the text says which.
    """
    names = parts.keys() - BESIDE
    kinds = list(dict.fromkeys(kind for kind, form in FORMS if form & names and kind != "Tucker"))
    if len(kinds) > 1:
        raise ValueError(f"it is half {' and half '.join(kinds)}: one layer has tensors of both kinds")
    kind, form = min((each for each in FORMS if names or each[0] == "LoRA"), key=lambda each: len(each[1] ^ names))
    if missing := sorted(form - names):
        raise ValueError(f"its {WRITTEN.get(missing[0], missing[0])} is missing")
    if extra := sorted(names - form):
        raise ValueError(f"it has {WRITTEN.get(extra[0], extra[0])} besides a whole {kind}")
    return kind


def shape_of_change(parts: Parts) -> tuple[int, ...]:
    """The shape of what a layer's tensors add to a weight: [out, in] or [out, in x kernel], or with the kernel's axes.

    Raises ValueError, with the reason, for parts that are not of one kind or do not fit each other.
    """
    kind = adapter_kind_of_parts(parts)
    axes = {tensor.ndim for part, tensor in parts.items() if part not in BESIDE}
    if axes & {0, 1}:
        raise ValueError(f"a tensor of this {kind} has {min(axes)} axes")
    try:
        return tuple(CHANGES[kind]({part: tensor.to("meta", torch.float32) for part, tensor in parts.items()}).shape)
    except (RuntimeError, IndexError):
        raise ValueError(f"its matrices are no {kind}: they do not fit each other") from None


def rank_of_parts(parts: Parts) -> int | None:
    """The rank of a layer's low-rank products; None if all of its matrices are whole. Its parts are of one kind.

    Raises ValueError for two products of different ranks, since alpha / rank then has no meaning.
    """
    ends = ("down", "hada_w1_b", "hada_w2_b", "lokr_w1_b", "lokr_w2_b")
    ranks = {parts[part].shape[0] for part in ends if part in parts}
    if len(ranks) > 1:
        raise ValueError(f"its products have the ranks {' and '.join(map(str, sorted(ranks)))}")
    if 0 in ranks:
        raise ValueError("its rank is 0")
    return next(iter(ranks), None)
