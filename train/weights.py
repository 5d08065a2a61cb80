"""Weights that take the place of the trained ones for a while: averaged ones, and a LoRA merged into the base."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


@contextmanager
def with_averaged_weights(adapted: nn.Module, average: Sequence[Tensor]) -> Iterator[None]:
    """A context in which the averaged weights stand in place of the trained ones; it changes nothing if `average` is
    empty.
    """
    parameters = [p for p in adapted.parameters() if p.requires_grad] if average else []
    last = [p.detach().clone() for p in parameters]
    for parameter, mean in zip(parameters, average, strict=True):
        parameter.data.copy_(mean)
    try:
        yield
    finally:
        for parameter, before in zip(parameters, last, strict=True):
            parameter.data.copy_(before)


@contextmanager
def setting_lora_strength_temporarily(adapted: nn.Module, scale: float) -> Iterator[None]:
    """A context in which the LoRA has the strength `scale`, and 1 after it; at 0 its layers are not computed at all."""
    layers = lora_layers(adapted)
    for layer in layers:
        layer.set_scale("default", scale)
        layer.enable_adapters(scale != 0)
    try:
        yield
    finally:
        for layer in layers:
            layer.set_scale("default", 1.0)
            layer.enable_adapters(True)


@contextmanager
def merging_lora_on_cpu_temporarily(adapted: nn.Module) -> Iterator[None]:
    """A context in which the LoRA, at its present strength, is merged into copies of the base's weights; after it the
    base's own weights are back, bit for bit.

    A small base on a CPU draws a third faster so. On other devices nothing is done: the copies would take the memory of
    the card. Layers that are switched off, or whose weights are split among processes or no numbers of 16 or 32
    bits, stay as they are.
    """
    before: list[tuple[Any, Tensor]] = []
    try:
        for layer in lora_layers(adapted):
            weight: Any = layer.get_base_layer().weight  # type: ignore[operator]
            mergeable = weight.is_floating_point() and not isinstance(weight, DTensor)
            if weight.device.type == "cpu" and mergeable and not layer.disable_adapters:
                before.append((layer, weight.data))
                weight.data = weight.data.clone()
                layer.merge()  # type: ignore[operator]
        yield
    finally:
        for layer, own in before:
            layer.get_base_layer().weight.data = own
            layer.merged_adapters.clear()


@torch.no_grad()
def copy_lora_weights_to_other_base(adapted: nn.Module, copy: nn.Module) -> None:
    """Copy the trained LoRA weights of the modules `adapted` into `copy`, modules of another base with a LoRA of equal
    shape.

    Does nothing where both are the same object.
    """
    if copy is adapted:
        return
    trained = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    for name, parameter in copy.named_parameters():
        if parameter.requires_grad:
            parameter.copy_(trained[name])


def lora_layers(adapted: nn.Module) -> list[LoraLayer]:
    """All layers inside `adapted` that carry a LoRA."""
    return [module for module in adapted.modules() if isinstance(module, LoraLayer)]
