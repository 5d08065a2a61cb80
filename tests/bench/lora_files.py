"""Weight changes as stylegate reads them from LoRA files, against the libraries that write the files.

    pip install --no-deps --target .venv/readers -r tests/bench/readers.txt      as make prove does
    PYTHONPATH=.:.venv/readers python -m tests.bench.lora_files

Small layers of every kind get random tensors. What the library's own forward pass does with a layer, in fp32, is what
was trained; its saved tensors are read here and merged. The worst relative error of a kind must be at most 1e-6 of the
change. Where the library's own merge differs from what it trains with, the factor is told. A few seconds on one CPU.
"""

import json
import math
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from stylegate import adapter

WORST = 1e-6  # relative error of a change, fp32
RANK, ALPHA = 4, 6.0
FLAT, NAME = "lora_unet_mid_block_proj", "unet.mid_block.proj"
LAYERS: dict[str, Callable[[], Any]] = {
    "linear": lambda: nn.Linear(24, 40),
    "square": lambda: nn.Linear(32, 32, bias=False),
    "3 x 3": lambda: nn.Conv2d(16, 24, 3, padding=1),
    "1 x 1": lambda: nn.Conv2d(16, 24, 1),
}
LYCORIS: dict[str, tuple[str, dict[str, Any]]] = {
    "LoCon": ("lora", {}),
    "LoCon, Tucker": ("lora", {"use_tucker": True}),
    "LoCon, rs_lora": ("lora", {"rs_lora": True}),
    "LoHa": ("loha", {}),
    "LoHa, Tucker": ("loha", {"use_tucker": True}),
    "LoHa, rs_lora": ("loha", {"rs_lora": True}),
    "LoKr": ("lokr", {"factor": 2}),
    "LoKr, Tucker": ("lokr", {"factor": 2, "use_tucker": True}),
    "LoKr, both low-rank": ("lokr", {"factor": 8, "decompose_both": True, "lora_dim": 1}),
    "LoKr, whole": ("lokr", {"full_matrix": True}),
    "LoKr, whole, rs_lora": ("lokr", {"full_matrix": True, "rs_lora": True}),
    "LoKr, rs_lora": ("lokr", {"factor": 2, "rs_lora": True}),
    "LoKr, unbalanced": ("lokr", {"factor": 4, "unbalanced_factorization": True, "lora_dim": 1}),
    "LoKr, scalar": ("lokr", {"factor": 2, "use_scalar": True}),
    "full": ("full", {}),
    "DyLoRA": ("dylora", {"lora_dim": 6, "block_size": 2}),
    **{
        f"{algo}, DoRA of the {'outputs' if on_out else 'inputs'}": (
            algo.lower().replace("locon", "lora"),
            {"weight_decompose": True, "wd_on_out": on_out, **({"factor": 2} if algo == "LoKr" else {})},
        )
        for algo in ("LoCon", "LoHa", "LoKr")
        for on_out in (True, False)
    },
}


def weight_by_forward(forward: Callable[[Tensor], Tensor], layer: Any) -> Tensor:
    """The weight and bias [out, in x kernel + 1] that a forward pass amounts to: its answers to single ones."""
    count = layer.weight[0].numel()
    ones = torch.eye(count)
    if layer.weight.ndim == 4:
        ones = ones.reshape(count, *layer.weight.shape[1:])
        nothing, middle = torch.zeros_like(ones[:1]), tuple(side // 2 for side in layer.weight.shape[2:])
        answers = [forward(x)[:, :, *middle] for x in (nothing, ones)]
    else:
        answers = [forward(x) for x in (torch.zeros(1, count), ones)]
    return torch.cat([answers[1] - answers[0], answers[0]]).T


def read_and_merged(layer: Any, tensors: dict[str, Tensor], metadata: dict[str, str]) -> Tensor:
    """The layer's weight and bias, as `weight_by_forward` returns them, after stylegate has merged a file."""
    layers, problems = adapter.lora_layers_and_problems(tensors, metadata, {NAME: layer})
    assert not problems, problems
    weight = adapter.merged_weight(layer.weight, layers[NAME]).detach().flatten(1)
    bias = torch.zeros(len(weight)) if layer.bias is None else layer.bias.detach()
    change = layers[NAME].bias
    return torch.cat([weight, (bias if change is None else bias + change)[:, None]], dim=1)


def relative_error(found: Tensor, wanted: Tensor, before: Tensor) -> float:
    """The Frobenius norm of the error, as a share of the change."""
    return float((found - wanted).norm() / (wanted - before).norm())


@torch.no_grad()
def of_lycoris(kind: str, make: Callable[[], Any]) -> tuple[float, float | None]:
    """The relative error of a kind on one layer; and the factor by which the library's own merge is off, if it is."""
    from lycoris import modules  # type: ignore[import-not-found]  (not among this project's packages)

    algo, settings = LYCORIS[kind]
    layer = make()
    before = weight_by_forward(layer.forward, layer)
    names = {"lora": "LoConModule", "loha": "LohaModule", "lokr": "LokrModule", "full": "FullModule"}
    names |= {"dylora": "DyLoraModule"}
    module = getattr(modules, names[algo])(FLAT, layer, **({"lora_dim": RANK, "alpha": ALPHA} | settings)).eval()
    for parameter in module.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    saved = module.state_dict() if algo != "full" else {"diff": module.weight, "diff_b": module.bias}
    tensors = {f"{FLAT}.{key}": tensor.detach().clone() for key, tensor in saved.items() if tensor is not None}
    if algo == "full":
        merged, bias = module.get_merged_weight()
        wanted = torch.cat([merged.flatten(1), before[:, -1:] if bias is None else bias[:, None]], dim=1)
        return relative_error(read_and_merged(layer, tensors, {}), wanted, before), None
    args = {"algo": algo, "rs_lora": str(settings.get("rs_lora", False)), "block_size": str(settings.get("block_size"))}
    told = {"ss_network_module": "lycoris.kohya", "ss_network_args": json.dumps(args)}
    if algo == "dylora":  # its forward pass takes a random rank each time; here all blocks
        change = module.get_diff_weight(rank=module.lora_dim - module.block_size)[0]
        wanted = before + nn.functional.pad(change.flatten(1), (0, 1))
        return relative_error(read_and_merged(layer, tensors, told), wanted, before), None
    wanted = weight_by_forward(module.forward, layer)
    error = relative_error(read_and_merged(layer, tensors, told), wanted, before)
    by_merge = module.get_merged_weight(shape=layer.weight.shape)[0].flatten(1) - before[:, :-1]
    factor = float(by_merge.norm() / (wanted - before).norm())
    return error, None if math.isclose(factor, 1, rel_tol=1e-3) else factor


def main() -> int:
    """Print the worst error of each kind; 1 if one is above WORST."""
    torch.manual_seed(0)
    print("lycoris-lora", version("lycoris-lora"))
    worst = 0.0
    for kind in LYCORIS:
        found = [of_lycoris(kind, make) for make in LAYERS.values()]
        error = max(error for error, _ in found)
        factors = ", ".join(f"{factor:.3g}" for _, factor in found if factor is not None)
        print(f"  {kind:28} {error:.1e}{f'   its own merge is off by {factors}' if factors else ''}")
        worst = max(worst, error)
    print(f"worst relative error: {worst:.1e} (at most {WORST:g})")
    return int(worst > WORST)


if __name__ == "__main__":
    sys.exit(main())
