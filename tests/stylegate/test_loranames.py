"""Names of LoRA layers: in and out of each style without loss, and as diffusers' own loaders read them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders.lora_conversion_utils import (
    _convert_non_diffusers_lora_to_diffusers,
    _maybe_map_sgm_blocks_to_diffusers,
)
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from peft import LoraConfig
from safetensors.torch import save_file

from stylegate import lorafile, loranames
from stylegate.families import FAMILIES
from stylegate.loranames import Layer

CPU = torch.device("cpu")
SD = FAMILIES["sd"]
TO_Q = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


@pytest.fixture(scope="module")
def modules() -> dict[str, torch.nn.Module]:
    return lorafile.modules_of(SD.load("miniature", CPU, torch.float32).pipeline)


@pytest.fixture(scope="module")
def layers(modules: dict[str, torch.nn.Module]) -> dict[str, Layer]:
    """One adapter for each kind of module, ranks and alphas of their own."""
    torch.manual_seed(0)
    names = [TO_Q, TO_Q.replace("to_q", "to_out.0"), TO_Q.replace("attn1.to_q", "ff.net.0.proj")]
    names += ["unet.conv_in", "unet.mid_block.resnets.1.conv2", "unet.up_blocks.1.resnets.0.time_emb_proj"]
    names += ["unet.down_blocks.0.downsamplers.0.conv", "unet.up_blocks.1.attentions.1.proj_in"]
    made = {}
    for i, name in enumerate(names):
        weight: torch.Tensor = modules[name].weight  # type: ignore[assignment]
        rank = 2 + i % 3
        down, up = torch.randn(rank, *weight.shape[1:]), torch.randn(weight.shape[0], rank, *[1] * (weight.ndim - 2))
        made[name] = Layer(down, up, alpha=rank * (0.5 + i % 2))
    return made


def test_both_styles_are_read_back_without_loss(modules, layers: dict[str, Layer]) -> None:
    tensors, header = loranames.diffusers(layers)
    for read_back, problems in (
        loranames.read(tensors, header, modules),
        loranames.read(loranames.kohya(layers), {}, modules),
    ):
        assert not problems and loranames.apart(layers, read_back) == 0
        assert {n: one.alpha for n, one in read_back.items()} == {n: one.alpha for n, one in layers.items()}


def merged(load) -> dict[str, torch.Tensor]:
    """The UNet's weights after diffusers itself has loaded and merged what `load` gives it."""
    pipeline = SD.load("miniature", CPU, torch.float32).pipeline
    load(pipeline)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    return pipeline.unet.state_dict()


@pytest.mark.parametrize("style", ["diffusers", "kohya"])
def test_diffusers_own_loader_changes_every_layer_as_meant(tmp_path: Path, layers, style: str) -> None:
    """kohya's with one rank and alpha, as we write it: diffusers 0.42 misplaces alphas that differ by layer."""
    if style == "kohya":
        layers = {n: Layer(one.down[:2].contiguous(), one.up[:, :2].contiguous(), 1.5) for n, one in layers.items()}
    tensors, header = loranames.diffusers(layers) if style == "diffusers" else (loranames.kohya(layers), {})
    save_file({name: t.contiguous() for name, t in tensors.items()}, tmp_path / "x.safetensors", header)
    before = SD.load("miniature", CPU, torch.float32).pipeline.unet.state_dict()
    after = merged(lambda pipeline: pipeline.load_lora_weights(str(tmp_path), weight_name="x.safetensors"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"{name.removeprefix('unet.')}.weight" for name in layers}
    for name, layer in layers.items():
        found = after[f"{name[5:]}.weight"] - before[f"{name[5:]}.weight"]
        assert torch.allclose(found.double(), loranames.change(layer), atol=1e-5), name


def test_what_kohya_and_comfyui_call_layers() -> None:
    """Literal names, as ComfyUI's and A1111's tables of keys have them."""
    one = Layer(torch.zeros(2, 3), torch.zeros(4, 2), 1.0)
    made = loranames.kohya({TO_Q: one, "unet.conv_in": one, "text_encoder.encoder.layers.0.self_attn.q_proj": one})
    assert set(made) == {
        f"{layer}.{part}"
        for layer in (
            "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q",
            "lora_unet_conv_in",
            "lora_te1_text_model_encoder_layers_0_self_attn_q_proj",
        )
        for part in ("lora_down.weight", "lora_up.weight", "alpha")
    }


@pytest.fixture(scope="module")
def sdxl() -> UNet2DConditionModel:
    """The true block structure of SDXL's UNet, narrow, without memory."""
    levels = ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D")
    settings: dict[str, Any] = {
        "block_out_channels": (32, 64, 64),
        "down_block_types": levels,
        "up_block_types": tuple(name.replace("Down", "Up") for name in reversed(levels)),
        "transformer_layers_per_block": (1, 2, 3),
        "attention_head_dim": (1, 2, 2),
        "cross_attention_dim": 32,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 64,
    }
    with torch.device("meta"):
        return UNet2DConditionModel(**settings)


def test_names_of_the_original_unet_are_those_that_diffusers_knows(sdxl: UNet2DConditionModel) -> None:
    """Every layer that an adapter can have: kohya's SDXL name, read by diffusers' converter, is the module again."""
    checked = 0
    for path, module in sdxl.named_modules():
        if not isinstance(module, torch.nn.Linear | torch.nn.Conv2d) or path.startswith(
            ("time_emb", "add_emb", "conv_")
        ):
            continue
        own = loranames.original(path)
        assert own, path
        flat = "lora_unet_" + own.replace(".", "_")
        file = {f"{flat}.lora_down.weight": torch.zeros(1), f"{flat}.lora_up.weight": torch.zeros(1)}
        read, _ = _convert_non_diffusers_lora_to_diffusers(_maybe_map_sgm_blocks_to_diffusers(file, sdxl.config))
        half = loranames.half_of(next(iter(read)))
        known = {f"unet.{p}": m for p, m in sdxl.named_modules()}
        assert half and loranames.canonical(half, {}, known) == f"unet.{path}", (path, own, list(read))
        assert loranames.flattened({f"unet.{path}": module})[flat] == f"unet.{path}"
        checked += 1
    assert checked > 100


def test_alphas_that_differ_by_layer_are_kept_when_we_merge(tmp_path: Path, layers) -> None:
    (tmp_path / "x.safetensors").write_bytes(lorafile.canonical_bytes(loranames.kohya(layers), {}))
    models = SD.load("miniature", CPU, torch.float32)
    before = {k: v.clone() for k, v in models.denoiser.state_dict().items()}
    lorafile.attach(models, tmp_path / "x.safetensors")
    for name, layer in layers.items():
        found = models.denoiser.state_dict()[f"{name[5:]}.weight"] - before[f"{name[5:]}.weight"]
        assert torch.allclose(found.double(), loranames.change(layer), atol=1e-5), name


def test_older_spellings_are_read(modules) -> None:
    weight = modules[TO_Q].weight
    down, up = torch.zeros(2, weight.shape[1]), torch.zeros(weight.shape[0], 2)
    old = TO_Q.replace(".to_q", ".processor.to_q_lora")
    read, problems = loranames.read({f"{old}.down.weight": down, f"{old}.up.weight": up}, {}, modules)
    assert not problems and list(read) == [TO_Q]
    out = TO_Q.replace("to_q", "to_out")
    plain = {f"{out}.lora_linear_layer.down.weight": down, f"{out}.lora_linear_layer.up.weight": up}
    read, problems = loranames.read({k.removeprefix("unet."): v for k, v in plain.items()}, {}, modules)
    assert not problems and list(read) == [f"{out}.0"]


def test_text_encoder_layers_of_other_files_are_placed(modules) -> None:
    name = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
    tensors = {f"{name}.lora_down.weight": torch.zeros(2, 128), f"{name}.lora_up.weight": torch.zeros(128, 2)}
    read, problems = loranames.read(tensors, {}, modules)
    assert not problems and [n.split(".")[0] for n in read] == ["text_encoder"]


def test_a_layer_twice_is_refused(modules) -> None:
    down, up = torch.zeros(2, 64), torch.zeros(64, 2)
    dotted = {f"{TO_Q}.lora_A.weight": down, f"{TO_Q}.lora_B.weight": up}
    _, problems = loranames.read(dotted | loranames.kohya({TO_Q: Layer(down, up, 2.0)}), {}, modules)
    assert any("in the file twice" in p for p in problems)


def test_magnitudes_keep_their_shape_in_both_styles(modules) -> None:
    """As PEFT makes them: its own tensors in, the same tensors out; kohya's dora_scale is a column."""
    models = SD.load("miniature", CPU, torch.float32)
    models.denoiser.add_adapter(LoraConfig(r=2, lora_alpha=3, use_dora=True, target_modules=["to_q", "conv_in"]))  # type: ignore[operator]
    layers = lorafile.layers_of(models.denoiser, "unet")
    assert all(one.magnitude is not None and one.alpha == 3 for one in layers.values())
    tensors, header = loranames.diffusers(layers)
    raw = {f"unet.{k}": v.shape for k, v in lorafile.get_peft_model_state_dict(models.denoiser).items()}
    assert {k: v.shape for k, v in tensors.items()} == raw
    assert json.loads(header["lora_adapter_metadata"])["unet.use_dora"] is True
    renamed = loranames.kohya(layers)
    assert renamed["lora_unet_conv_in.dora_scale"].shape == (64, 1, 1, 1)
    for read_back, problems in (loranames.read(tensors, header, modules), loranames.read(renamed, {}, modules)):
        assert not problems and loranames.apart(layers, read_back) == 0
