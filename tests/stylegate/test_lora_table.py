"""The table of LoRA files in docs/lora-files.md: each row is read right, or refused with the true reason.

The changes that are meant are computed here number by number, as the writers' sources have them (lycoris-lora 4.1.3,
OneTrainer 23df383, ai-toolkit 27a03a9, musubi-tuner 30c658c); of PEFT's files PEFT itself computes them.
tests/bench/lora_files.py holds the same against lycoris-lora itself.
"""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from diffusers import Flux2KleinPipeline, FluxPipeline, ZImagePipeline  # type: ignore[attr-defined]
from peft import LoHaConfig, LoKrConfig, LoraConfig, get_peft_model
from torch import Tensor, nn

from stylegate import adapter, files, fusednames, lorafile, loraheader
from stylegate.adapter import LoraOrDoraLayer
from stylegate.errors import ModelError

Tensors = dict[str, Tensor]
Q = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
CONV, POINT = "unet.down_blocks.0.resnets.0.conv1", "unet.down_blocks.0.attentions.0.proj_in"
TEXT, TEXT_2 = (f"text_encoder{n}.encoder.layers.0.self_attn.q_proj" for n in ("", "_2"))
T5 = "text_encoder_2.encoder.block.0.layer.0.SelfAttention.q"
FLUX = [f"transformer.transformer_blocks.0.attn.{n}" for n in ("to_q", "to_k", "to_v")]
ZIMAGE = [f"transformer.layers.0.attention.{n}" for n in ("to_q", "to_k", "to_v", "to_out.0")]
FLAT = {
    Q: "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q",
    CONV: "lora_unet_down_blocks_0_resnets_0_conv1",
    POINT: "lora_unet_down_blocks_0_attentions_0_proj_in",
}
MAKE: dict[str, Callable[[], nn.Module]] = {
    Q: lambda: nn.Linear(12, 12, bias=False),
    CONV: lambda: nn.Conv2d(8, 12, 3),
    POINT: lambda: nn.Conv2d(8, 12, 1),
    **{name: lambda: nn.Linear(12, 12) for name in (TEXT, TEXT_2, T5, *FLUX, *ZIMAGE)},
}


class File(NamedTuple):
    """A LoRA file, and what it must do: the change of each module's weight; or why it is refused."""

    tensors: Tensors
    changes: dict[str, np.ndarray] = {}  # noqa: RUF012  (never changed)
    magnitudes: dict[str, Tensor] = {}  # noqa: RUF012
    biases: dict[str, Tensor] = {}  # noqa: RUF012
    metadata: dict[str, str] = {}  # noqa: RUF012
    names: tuple[str, ...] = (Q, CONV, POINT)  # the base's modules
    translated_by: Any = None  # the pipeline of diffusers that knows the original model's names
    refusal: str = ""


ROWS: dict[tuple[str, str], Callable[[], File]] = {}


def row(writer: str, holds: str) -> Callable[[Callable[[], File]], Callable[[], File]]:
    """Register a row of the table."""

    def register(make: Callable[[], File]) -> Callable[[], File]:
        ROWS[writer, holds] = make
        return make

    return register


def random(*shape: int) -> Tensor:
    return torch.randn(*shape)


def product(up: Tensor, down: Tensor) -> np.ndarray:
    """A low-rank product, one rank after the other: [out, in, ...]."""
    parts = [np.multiply.outer(up.double().numpy()[:, r].ravel(), down.double().numpy()[r]) for r in range(len(down))]
    return np.sum(parts, axis=0)


def tucker(core: Tensor, outputs: Tensor, inputs: Tensor) -> np.ndarray:
    """Each kernel of the core [i, j, ...] between row i of `outputs` and row j of `inputs`."""
    core_, outputs_, inputs_ = (t.double().numpy() for t in (core, outputs, inputs))
    total = np.zeros((outputs_.shape[1], inputs_.shape[1], *core_.shape[2:]))
    for i, j in itertools.product(range(core_.shape[0]), range(core_.shape[1])):
        total += np.multiply.outer(np.multiply.outer(outputs_[i], inputs_[j]), core_[i, j])
    return total


def kronecker(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Each number of `first` times all of `second` [c, d, ...], block beside block."""
    (a, b), (c, d) = first.shape, second.shape[:2]
    total = np.zeros((a * c, b * d, *second.shape[2:]))
    for i, j in itertools.product(range(a), range(b)):
        total[i * c : (i + 1) * c, j * d : (j + 1) * d] = first[i, j] * second
    return total


def keyed(layer: str, **tensors: Tensor) -> Tensors:
    return {f"{layer}.{part.replace('__', '.')}": tensor for part, tensor in tensors.items()}


def lora(name: str, layer: str, rank: int = 2, alpha: float | None = 1.0, halves: str = "down up") -> File:
    """A plain LoRA of one layer; alpha None: not in the file, and the rank is meant."""
    shape = adapter.weight_shape_of(MAKE[name]())
    down, up = random(rank, *shape[1:]), random(shape[0], rank, *[1] * (len(shape) - 2))
    one, other = halves.split()
    tensors = {f"{layer}.lora_{one}.weight": down, f"{layer}.lora_{other}.weight": up}
    tensors |= {} if alpha is None else {f"{layer}.alpha": torch.tensor(alpha)}
    return File(tensors, {name: (1 if alpha is None else alpha / rank) * product(up, down)})


@row("kohya, LyCORIS", "LoRA, alpha half the rank")
def _():
    return lora(Q, FLAT[Q])


@row("kohya, LyCORIS", "LoCon of a 3 x 3 and a 1 x 1 convolution, rank and alpha by layer")
def _():
    made = [lora(CONV, FLAT[CONV], 3, 1.5), lora(POINT, FLAT[POINT], 2, 4.0)]
    return File(made[0].tensors | made[1].tensors, made[0].changes | made[1].changes)


@row("LyCORIS", "LoCon with a Tucker core (lora_mid)")
def _():
    up, down, mid = random(12, 3, 1, 1), random(3, 8, 1, 1), random(3, 3, 3, 3)
    tensors = keyed(
        FLAT[CONV], lora_up__weight=up, lora_down__weight=down, lora_mid__weight=mid, alpha=torch.tensor(1.0)
    )
    return File(tensors, {CONV: tucker(mid, up.flatten(1).T, down.flatten(1)) / 3})


@row("LyCORIS", "LoRA with rs_lora: alpha is saved times sqrt(rank)")
def _():
    return lora(Q, FLAT[Q], 4, 2.0 * 2)


def loha(name: str, layer: str, alpha: float = 1.0, rank: int = 2) -> File:
    shape = adapter.weight_shape_of(MAKE[name]())
    w1_a, w2_a = random(shape[0], rank), random(shape[0], rank)
    w1_b, w2_b = (random(rank, int(np.prod(shape[1:]))) for _ in "12")
    parts = {"hada_w1_a": w1_a, "hada_w1_b": w1_b, "hada_w2_a": w2_a, "hada_w2_b": w2_b}
    change = alpha / rank * product(w1_a, w1_b) * product(w2_a, w2_b)
    return File(keyed(layer, **parts, alpha=torch.tensor(alpha)), {name: change.reshape(shape)})


@row("LyCORIS", "LoHa: trained at alpha / rank (the library's own merge squares it)")
def _():
    return loha(Q, FLAT[Q])


@row("LyCORIS", "LoHa of a convolution")
def _():
    return loha(CONV, FLAT[CONV], 3.0)


@row("LyCORIS", "LoHa of a convolution with Tucker cores")
def _():
    t1, t2 = random(2, 2, 3, 3), random(2, 2, 3, 3)
    w1_a, w2_a, w1_b, w2_b = random(2, 12), random(2, 12), random(2, 8), random(2, 8)
    parts = {"hada_t1": t1, "hada_t2": t2, "hada_w1_a": w1_a, "hada_w1_b": w1_b, "hada_w2_a": w2_a, "hada_w2_b": w2_b}
    change = tucker(t1, w1_a, w1_b) * tucker(t2, w2_a, w2_b) / 2
    return File(keyed(FLAT[CONV], **parts, alpha=torch.tensor(1.0)), {CONV: change})


@row("OneTrainer", "LoHa of a convolution, its matrices with the kernel's axes")
def _():
    made = loha(CONV, FLAT[CONV])
    shaped = {k: t.reshape(2, 8, 3, 3) if k.endswith("_b") else t for k, t in made.tensors.items()}
    shaped = {k: t.reshape(12, 2, 1, 1) if k.endswith("_a") else t for k, t in shaped.items()}
    return made._replace(tensors=shaped)


def lokr(name: str, layer: str, first: int, second: int, alpha: float | None, sizes: tuple[int, int] = (3, 2)) -> File:
    """LoKr; `first` and `second` are the ranks of its matrices (0: stored whole), `sizes` the shape of lokr_w1."""
    shape = adapter.weight_shape_of(MAKE[name]())
    parts, wholes = {}, []
    for number, rank, (rows, columns) in (
        ("1", first, sizes),
        ("2", second, (shape[0] // sizes[0], shape[1] // sizes[1] * int(np.prod(shape[2:])))),
    ):
        a, b, whole = random(rows, rank), random(rank, columns), random(rows, columns)
        parts |= {f"lokr_w{number}_a": a, f"lokr_w{number}_b": b} if rank else {f"lokr_w{number}": whole}
        wholes.append(product(a, b) if rank else whole.double().numpy())
    second_ = wholes[1].reshape(len(wholes[1]), -1, *shape[2:])
    parts |= {} if alpha is None else {"alpha": torch.tensor(alpha)}
    if not second and len(shape) == 4:
        parts["lokr_w2"] = parts["lokr_w2"].reshape(second_.shape)
    strength = alpha / (first or second) if alpha is not None and (first or second) else 1.0
    return File(keyed(layer, **parts), {name: strength * kronecker(wholes[0], second_)})


@row("LyCORIS, OneTrainer, musubi", "LoKr, one matrix low-rank: trained at alpha / rank")
def _():
    return lokr(Q, FLAT[Q], 0, 2, 6.0)


@row("LyCORIS", "LoKr, both matrices low-rank (decompose_both)")
def _():
    return lokr(Q, FLAT[Q], 2, 2, 1.0)


@row("LyCORIS", "LoKr, the first matrix low-rank, the second whole")
def _():
    return lokr(Q, FLAT[Q], 2, 0, 1.0)


@row("LyCORIS, OneTrainer, ai-toolkit, musubi", "LoKr, both matrices whole: trained at 1, whatever alpha is saved")
def _():
    return lokr(Q, FLAT[Q], 0, 0, 16.0)


@row("LyCORIS", "LoKr, both matrices whole, with rs_lora (in kohya's header): trained at sqrt(rank), the cube is saved")
def _():
    made = lokr(Q, FLAT[Q], 0, 0, 8.0)
    told = {"ss_network_args": json.dumps({"algo": "lokr", "rs_lora": "True"})}
    return made._replace(changes={Q: 2 * made.changes[Q]}, metadata=told)


@row("LyCORIS", "DyLoRA (in kohya's header): trained at alpha / number of blocks, alpha is saved")
def _():
    made = lora(Q, FLAT[Q], 6, 1.0)
    told = {"ss_network_module": "lycoris.kohya", "ss_network_args": json.dumps({"algo": "dylora", "block_size": "2"})}
    return made._replace(changes={Q: 2 * made.changes[Q]}, metadata=told)


@row("LyCORIS", "LoKr, unbalanced: the first matrix is the larger one")
def _():
    return lokr(Q, FLAT[Q], 0, 1, 3.0, (6, 2))


@row("LyCORIS", "LoKr of a convolution, low-rank")
def _():
    return lokr(CONV, FLAT[CONV], 0, 2, 1.0)


@row("LyCORIS", "LoKr of a convolution, whole")
def _():
    return lokr(CONV, FLAT[CONV], 0, 0, 1.0)


@row("LyCORIS, OneTrainer", "LoKr of a convolution with a Tucker core")
def _():
    w1, core, a, b = random(3, 2), random(2, 2, 3, 3), random(2, 4), random(2, 4)
    parts = {"lokr_w1": w1, "lokr_t2": core, "lokr_w2_a": a, "lokr_w2_b": b, "alpha": torch.tensor(1.0)}
    return File(keyed(FLAT[CONV], **parts), {CONV: kronecker(w1.double().numpy(), tucker(core, a, b)) / 2})


@row("LyCORIS, ai-toolkit", "whole differences of weights and biases (diff, diff_b)")
def _():
    diff, bias = random(12, 8, 3, 3), random(12)
    tensors = keyed(FLAT[CONV], diff=diff, diff_b=bias)
    return File(tensors, {CONV: diff.double().numpy()}, biases={CONV: bias})


def with_magnitudes(made: File, name: str, layer: str, axis: int) -> File:
    shape = adapter.weight_shape_of(MAKE[name]())
    scale = torch.rand([count if i == axis else 1 for i, count in enumerate(shape)]) + 0.5
    return made._replace(tensors=made.tensors | {f"{layer}.dora_scale": scale}, magnitudes={name: scale})


for axis, channels in enumerate(("outputs", "inputs")):
    for kind, maker in (("LoRA", lora), ("LoHa", loha), ("LoKr", lambda name, layer: lokr(name, layer, 0, 2, 1.0))):
        for name, what in ((Q, "linear"), (CONV, "convolution")):

            def _(maker=maker, name=name, axis=axis):
                return with_magnitudes(maker(name, FLAT[name]), name, FLAT[name], axis)

            row("LyCORIS, OneTrainer", f"{kind} with a DoRA's magnitudes of the {channels}, {what}")(_)


@row("LyCORIS", "LoRA, LoHa and LoKr in one file (algo by module)")
def _():
    made = [lora(POINT, FLAT[POINT]), loha(CONV, FLAT[CONV]), lokr(Q, FLAT[Q], 0, 2, 1.0)]
    return File(
        {k: t for one in made for k, t in one.tensors.items()}, {k: c for m in made for k, c in m.changes.items()}
    )


@row("LyCORIS, SimpleTuner", "LoKr with the prefix lycoris_")
def _():
    return lokr(Q, FLAT[Q].replace("lora_unet_", "lycoris_"), 0, 2, 1.0)


@row("kohya, SDXL", "LoHa by the original UNet's names")
def _():
    return loha(Q, "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q")


@row("kohya, SDXL", "LoKr and LoRA of both text encoders (lora_te1_, lora_te2_)")
def _():
    made = [
        lokr(TEXT, "lora_te1_text_model_encoder_layers_0_self_attn_q_proj", 0, 2, 1.0),
        lora(TEXT_2, "lora_te2_text_model_encoder_layers_0_self_attn_q_proj"),
    ]
    return File(made[0].tensors | made[1].tensors, made[0].changes | made[1].changes, names=(TEXT, TEXT_2))


@row("kohya, FLUX.1", "LoRA of the T5 text encoder (lora_te3_)")
def _():
    made = lora(T5, "lora_te3_encoder_block_0_layer_0_SelfAttention_q")
    return made._replace(names=(T5,))


for dtype, called in ((torch.bfloat16, "BF16"), (torch.float8_e4m3fn, "FP8 (e4m3)"), (torch.float8_e5m2, "FP8 (e5m2)")):

    def _(dtype=dtype):
        made = lora(Q, FLAT[Q])
        stored = {key: tensor.to(dtype) for key, tensor in made.tensors.items()}
        up, down = stored[f"{FLAT[Q]}.lora_up.weight"].float(), stored[f"{FLAT[Q]}.lora_down.weight"].float()
        return File(stored, {Q: product(up, down) / 2})

    row("any", f"LoRA stored in {called}")(_)


@row("OneTrainer", "FLUX.1, LoRA by its older names (lora_transformer_)")
def _():
    made = lora(FLUX[0], "lora_transformer_transformer_blocks_0_attn_to_q")
    return made._replace(names=tuple(FLUX))


def fused(made: File, names: list[str], pipeline: Any) -> File:
    """A file whose one layer is q, k and v of an original model: [3 x 12, 12]."""
    (change,) = made.changes.values()
    parts = np.split(change, 3)
    return made._replace(changes=dict(zip(names, parts, strict=True)), names=tuple(names), translated_by=pipeline)


def fused_lokr(layer: str, rank: int, alpha: float | None, dtype: torch.dtype = torch.float32) -> File:
    w1, a, b, w2 = random(6, 3), random(6, rank), random(rank, 4), random(6, 4)
    parts = {"lokr_w2_a": a, "lokr_w2_b": b} if rank else {"lokr_w2": w2}
    parts = {"lokr_w1": w1, **parts} | ({} if alpha is None else {"alpha": torch.tensor(alpha)})
    stored = {part: tensor.to(dtype) for part, tensor in parts.items()}
    w1, second = stored["lokr_w1"].double().numpy(), product(a, b) if rank else stored["lokr_w2"].double().numpy()
    strength = alpha / rank if rank and alpha is not None else 1.0
    return File(keyed(layer, **stored), {"fused": strength * kronecker(w1, second)})


@row("ai-toolkit, FLUX.2", "LoKr of full rank, fused, FP16: its alpha is infinite there, and does not count")
def _():
    made = fused_lokr("diffusion_model.double_blocks.0.img_attn.qkv", 0, 9999999999.0, torch.float16)
    return fused(made, FLUX, Flux2KleinPipeline)


@row("ai-toolkit, FLUX.2", "LoKr of diffusers' layers (lycoris_transformer_blocks_)")
def _():
    return lokr(FLUX[0], "lycoris_transformer_blocks_0_attn_to_q", 0, 2, 1.0)._replace(names=tuple(FLUX))


@row("kohya, FLUX.1", "LoKr, fused: split as diffusers splits the names")
def _():
    return fused(fused_lokr("lora_unet_double_blocks_0_img_attn_qkv", 2, 1.0), FLUX, FluxPipeline)


@row("kohya, FLUX.1", "DoRA of the outputs, fused")
def _():
    layer = "lora_unet_double_blocks_0_img_attn_qkv"
    down, up, scale = random(2, 12), random(36, 2), torch.rand(36, 1) + 0.5
    tensors = keyed(layer, lora_down__weight=down, lora_up__weight=up, dora_scale=scale, alpha=torch.tensor(1.0))
    made = fused(File(tensors, {"fused": product(up, down) / 2}), FLUX, FluxPipeline)
    return made._replace(magnitudes=dict(zip(FLUX, scale.split(12), strict=True)))


@row("musubi, Z-Image", "LoHa, LoKr and LoRA in kohya's spelling")
def _():
    layers = [f"lora_unet_layers_0_attention_{n}" for n in ("to_q", "to_k", "to_v")]
    made = [loha(ZIMAGE[0], layers[0]), lokr(ZIMAGE[1], layers[1], 0, 0, 4.0), lora(ZIMAGE[2], layers[2])]
    changes = {k: c for one in made for k, c in one.changes.items()}
    return File({k: t for one in made for k, t in one.tensors.items()}, changes, names=tuple(ZIMAGE))


@row("ComfyUI, Z-Image", "LoRA of the fused layer (attention.qkv)")
def _():
    down, up = random(2, 12), random(36, 2)
    tensors = keyed("diffusion_model.layers.0.attention.qkv", lora_A__weight=down, lora_B__weight=up)
    made = fused(File(tensors, {"fused": product(up, down)}), ZIMAGE[:3], ZImagePipeline)
    return made._replace(names=tuple(ZIMAGE))


@row("kohya, FLUX.1", "DoRA of the inputs, fused")
def _():
    layer = "lora_unet_double_blocks_0_img_attn_qkv"
    tensors = keyed(layer, lora_down__weight=random(2, 12), lora_up__weight=random(36, 2), dora_scale=torch.ones(1, 12))
    return File(tensors, names=tuple(FLUX), translated_by=FluxPipeline, refusal="a DoRA by channels of a fused layer")


@row("diffusers", "LoRA, alpha and rank by layer in the header")
def _():
    tensors, header = adapter.to_diffusers({Q: LoraOrDoraLayer(random(2, 12), random(12, 2), 3.0)})
    up, down = tensors[f"{Q}.lora_B.weight"], tensors[f"{Q}.lora_A.weight"]
    return File(tensors, {Q: 1.5 * product(up, down)}, metadata=header)


def refused(because: str, made: File, **changed: Tensor) -> File:
    """A file with changed keys that must be refused."""
    return made._replace(tensors=made.tensors | keyed(FLAT[Q], **changed), refusal=because)


@row("broken", "half a LoKr: its second matrix is missing")
def _():
    made = lokr(Q, FLAT[Q], 0, 0, 1.0)
    return File({k: t for k, t in made.tensors.items() if "w2" not in k}, refusal="its lokr_w2 is missing")


@row("broken", "one layer that is half LoRA and half LoKr")
def _():
    return refused("it is half LoRA and half LoKr", lora(Q, FLAT[Q]), lokr_w1=random(2, 2))


@row("broken", "LoKr whose products have two ranks")
def _():
    made = lokr(Q, FLAT[Q], 2, 2, 1.0)
    return refused("its products have the ranks 1 and 2", made, lokr_w1_a=random(3, 1), lokr_w1_b=random(1, 2))


@row("broken", "LoHa for another base")
def _():
    made = loha(Q, FLAT[Q])
    other = {"hada_w1_a": random(10, 2), "hada_w2_a": random(10, 2)}
    return refused("LoHa for 10 x 12, the base has 12 x 12", made, **other)


@row("broken", "LoHa whose two products differ in shape")
def _():
    return refused("its two products differ in shape", loha(Q, FLAT[Q]), hada_w1_a=random(1, 2))


@row("broken", "a number that is not finite")
def _():
    return refused("not finite", lokr(Q, FLAT[Q], 0, 0, 1.0), lokr_w1=torch.full((3, 2), float("nan")))


@row("broken", "whole numbers (INT8)")
def _():
    return refused("torch.int8, not floating-point", lora(Q, FLAT[Q]), lora_up__weight=torch.ones(12, 2).to(torch.int8))


@row("ComfyUI", "FP8 with scales of its own (scale_weight)")
def _():
    return refused("scale_weight: not the key of a LoRA layer", lora(Q, FLAT[Q]), scale_weight=torch.ones(1))


@row("any", "a difference of a bias that the base does not have")
def _():
    return refused("the base has no bias there", File({}), diff=random(12, 12), diff_b=random(12))


for writer, holds, key, kind in (
    ("OneTrainer", "OFT", "oft_R.weight", "OFT"),
    ("LyCORIS", "diagonal OFT, BOFT", "oft_blocks", "OFT"),
    ("LyCORIS", "GLoRA", "a1.weight", "GLoRA"),
    ("LyCORIS", "IA3", "on_input", "IA3"),
    ("LyCORIS", "differences of norms (train_norm)", "w_norm", "norm difference"),
    ("ComfyUI", "whole weights (set_weight)", "set_weight", "whole weight"),
    ("PEFT", "lora_bias", "lora_B.bias", "low-rank bias"),
):

    def _(key=key, kind=kind):
        made = lora(Q, FLAT[Q])
        return made._replace(
            tensors=made.tensors | {f"{FLAT[Q]}.{key}": torch.ones(2)},
            refusal=f"not the key of a LoRA layer but of {kind}",
        )

    row(writer, holds)(_)


@row("OneTrainer", "LoRA with a bundled embedding (bundle_emb)")
def _():
    made = lora(Q, FLAT[Q])
    return made._replace(tensors=made.tensors | {"bundle_emb.acme.clip_l": random(2, 8)}, refusal="bundled embedding")


@pytest.mark.parametrize(("writer", "holds"), ROWS)
def test_each_file_is_read_right_or_refused_with_the_true_reason(writer: str, holds: str) -> None:
    torch.manual_seed(0)
    file = ROWS[writer, holds]()
    modules: dict[str, Any] = {name: MAKE[name]() for name in file.names}
    layers, problems = adapter.lora_layers_and_problems(file.tensors, file.metadata, modules)
    if file.translated_by and problems:
        read = fusednames.lora_layers_and_problems_through_diffusers(
            file.translated_by, file.tensors, file.metadata, modules
        )
        assert read is not None, "diffusers knows these names"
        layers, problems = read
    if file.refusal:
        assert any(file.refusal in problem for problem in problems), problems
        return
    assert not problems and layers.keys() == file.changes.keys()
    for name, change in file.changes.items():
        before = modules[name].weight.detach().double()
        wanted = before + torch.from_numpy(change).reshape(before.shape)
        if name in file.magnitudes:
            lengths = file.magnitudes[name].double()
            others = [axis for axis, count in enumerate(lengths.shape) if count == 1]
            wanted = wanted * lengths / (wanted**2).sum(others, keepdim=True).sqrt()
        merged = adapter.merged_weight(modules[name].weight, layers[name]).double()
        assert float((merged - wanted).norm() / (wanted - before).norm()) <= 1e-6, name
        assert file.biases.get(name) is layers[name].bias


def test_every_malformed_layer_of_a_fused_file_is_named() -> None:
    torch.manual_seed(0)
    names = [f"lora_unet_layers_0_attention_{part}" for part in ("qkv", "out")]
    tensors = {f"{name}.hada_{part}": torch.ones(2, 3) for name in names for part in ("w1_a", "w1_b", "w2_a")}
    read = fusednames.lora_layers_and_problems_through_diffusers(ZImagePipeline, tensors, {}, {})
    assert read is not None and [line.partition(":")[0] for line in read[1]] == names, read


class Net(nn.Module):
    """Two layers that are called as in Z-Image."""

    def __init__(self) -> None:
        super().__init__()
        attention = nn.ModuleDict({"to_q": nn.Linear(12, 12), "to_k": nn.Linear(12, 20)})
        self.layers = nn.ModuleList([nn.ModuleDict({"attention": attention})])

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError


TARGETS: dict[str, Any] = {"target_modules": ["to_q", "to_k"]}
PEFT: dict[str, Any] = {
    "LoRA, rank and alpha by layer (rank_pattern, alpha_pattern)": LoraConfig(
        r=2, lora_alpha=3, rank_pattern={"to_k": 4}, alpha_pattern={"layers.0.attention.to_k": 1}, **TARGETS
    ),
    "LoRA with use_rslora": LoraConfig(r=4, lora_alpha=3, use_rslora=True, **TARGETS),
    "LoRA with use_dora": LoraConfig(r=2, lora_alpha=3, use_dora=True, **TARGETS),
    "LoHa": LoHaConfig(r=2, alpha=3, alpha_pattern={"to_q": 1}, **TARGETS),
    "LoKr: alpha / r also where both matrices are whole": LoKrConfig(r=8, alpha=3, **TARGETS),
    "LoKr, both matrices low-rank": LoKrConfig(r=1, alpha=3, decompose_both=True, decompose_factor=4, **TARGETS),
}


def saved_by_peft(config: Any, folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A folder that PEFT has saved; the base's modules, and the weights that PEFT itself has merged, by name."""
    torch.manual_seed(0)
    net = Net()
    modules = {f"transformer.{n}": m for n, m in net.named_modules() if isinstance(m, nn.Linear)}
    before = {name: module.weight.detach().clone() for name, module in modules.items()}
    adapted: Any = get_peft_model(net, config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if parameter.requires_grad:
                parameter.add_((0.1 if "magnitude" in name else 0.5) * torch.randn_like(parameter))
    adapted.save_pretrained(str(folder))
    adapted.merge_and_unload()
    after = {f"transformer.{n}": m.weight.detach() for n, m in net.named_modules() if isinstance(m, nn.Linear)}
    bases = {name: nn.Linear(weight.shape[1], weight.shape[0]) for name, weight in before.items()}
    for name, weight in before.items():
        bases[name].weight.data = weight
    return bases, after


@pytest.mark.parametrize("holds", PEFT)
def test_each_folder_of_peft_is_merged_as_peft_merges_it(tmp_path: Path, holds: str) -> None:
    modules, after = saved_by_peft(PEFT[holds], tmp_path)
    layers, problems = adapter.lora_layers_and_problems(*lorafile.load_tensors_and_metadata(tmp_path), modules)
    assert not problems and layers.keys() == modules.keys()
    for name, layer in layers.items():
        before = modules[name].weight.detach()
        error = (adapter.merged_weight(before, layer) - after[name]).norm() / (after[name] - before).norm()
        assert float(error) <= 1e-6, name


def settings_changed(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / loraheader.PEFT_CONFIG
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


PEFT_REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "adapter_config.json of another rank than the tensors": (settings_changed(r=4), "its adapter_config.json says 4"),
    "adapter_config.json with a regular expression": (settings_changed(alpha_pattern={".*to_q": 1}), "never done here"),
    "adapter_config.json that is no JSON": (
        lambda f: (f / loraheader.PEFT_CONFIG).write_text("{"),
        "not a JSON object",
    ),
    "no adapter_config.json": (lambda f: (f / loraheader.PEFT_CONFIG).unlink(), "alpha stands beside such a file"),
}


@pytest.mark.parametrize("holds", PEFT_REFUSED)
@pytest.mark.parametrize("config", [LoraConfig(r=2, **TARGETS), LoKrConfig(r=2, decompose_factor=2, **TARGETS)])
def test_each_folder_whose_strength_is_not_known_is_refused(tmp_path: Path, holds: str, config: Any) -> None:
    change, because = PEFT_REFUSED[holds]
    modules, _ = saved_by_peft(config, tmp_path)
    change(tmp_path)
    _, problems = adapter.lora_layers_and_problems(*lorafile.load_tensors_and_metadata(tmp_path), modules)
    assert any(because in problem for problem in problems), problems


def test_a_folder_without_a_lora_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"folder without adapter_model\.safetensors\nNext"):
        lorafile.load_tensors_and_metadata(tmp_path)
    for part in ("unet", "text_encoder"):
        saved_by_peft(LoraConfig(r=2, **TARGETS), tmp_path / part)
    with pytest.raises(ModelError, match="but text_encoder and unet in it have one each: name one of them"):
        lorafile.load_tensors_and_metadata(tmp_path)


@pytest.mark.parametrize("own", ["layers.0", "text_model.layers.0"])
def test_peft_does_not_say_which_text_encoder_it_saved(tmp_path: Path, own: str) -> None:
    """PEFT's keys begin within the part that it has adapted. One text encoder is told by its layers, of two none."""
    modules, after = saved_by_peft(LoraConfig(r=2, lora_alpha=3, **TARGETS), tmp_path)
    tensors, metadata = lorafile.load_tensors_and_metadata(tmp_path)
    tensors = {key.replace("layers.0", own): tensor for key, tensor in tensors.items()}
    one = {name.replace("transformer.", "text_encoder."): module for name, module in modules.items()}
    layers, problems = adapter.lora_layers_and_problems(tensors, metadata, one)
    assert not problems and layers.keys() == one.keys()
    for name, layer in layers.items():
        wanted = after[name.replace("text_encoder.", "transformer.")]
        torch.testing.assert_close(adapter.merged_weight(one[name].weight.detach(), layer), wanted)
    two = one | {name.replace("text_encoder", "text_encoder_2"): module for name, module in one.items()}
    layers, problems = adapter.lora_layers_and_problems(tensors, metadata, two)
    assert not layers and all("text_encoder and text_encoder_2 have such a layer" in each for each in problems)


def table() -> str:
    """The rows as docs/lora-files.md has them."""
    rows = [(writer, holds, ROWS[writer, holds]().refusal) for writer, holds in ROWS]
    rows += [("PEFT, a folder", holds, "") for holds in PEFT]
    rows += [("PEFT, a folder", holds, because) for holds, (_, because) in PEFT_REFUSED.items()]
    told = [
        f"| {writer} | {holds} | {f'refused: {because}' if because else 'right'} |" for writer, holds, because in rows
    ]
    return "\n".join(["| written by | holds | here |", "|---|---|---|", *told])


def test_the_table_in_the_docs_is_this_one() -> None:
    """`python -m tests.stylegate.test_lora_table` prints it."""
    assert len(ROWS) + len(PEFT) + len(PEFT_REFUSED) >= 40
    assert table() in (files.ROOT / "docs" / "lora-files.md").read_text()


if __name__ == "__main__":
    print(table())
