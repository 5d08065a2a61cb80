"""Names of LoRA layers: in and out of each style without loss, and as diffusers' own loaders read them."""

import json
import re
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
from transformers import CLIPTextConfig, CLIPTextModel

from stylegate import adapter, lorafile, loraheader, loranames
from stylegate.adapter import LoraOrDoraLayer
from stylegate.errors import ModelError
from stylegate.families import FAMILIES
from tests.bench import memory

CPU = torch.device("cpu")
SD = FAMILIES["sd"]
TO_Q = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


@pytest.fixture(scope="module")
def modules() -> dict[str, torch.nn.Module]:
    return lorafile.adaptable_modules_of_pipeline(SD.load("miniature", CPU, torch.float32).pipeline)


@pytest.fixture(scope="module")
def layers(modules: dict[str, torch.nn.Module]) -> dict[str, LoraOrDoraLayer]:
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
        made[name] = LoraOrDoraLayer(down, up, alpha=rank * (0.5 + i % 2))
    return made


def test_both_styles_are_read_back_without_loss(modules, layers: dict[str, LoraOrDoraLayer]) -> None:
    tensors, header = adapter.to_diffusers(layers)
    for read_back, problems in (
        adapter.lora_layers_and_problems(tensors, header, modules),
        adapter.lora_layers_and_problems(adapter.to_kohya(layers), {}, modules),
    ):
        assert not problems and adapter.largest_relative_difference_of_loras(layers, read_back) == 0
        assert {n: one.alpha for n, one in adapter.lora_and_dora_layers_by_name(read_back).items()} == {
            n: one.alpha for n, one in layers.items()
        }


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
        layers = {
            n: LoraOrDoraLayer(one.down[:2].contiguous(), one.up[:, :2].contiguous(), 1.5) for n, one in layers.items()
        }
    tensors, header = adapter.to_diffusers(layers) if style == "diffusers" else (adapter.to_kohya(layers), {})
    save_file({name: t.contiguous() for name, t in tensors.items()}, tmp_path / "x.safetensors", header)
    before = SD.load("miniature", CPU, torch.float32).pipeline.unet.state_dict()
    after = merged(lambda pipeline: pipeline.load_lora_weights(str(tmp_path), weight_name="x.safetensors"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"{name.removeprefix('unet.')}.weight" for name in layers}
    for name, layer in layers.items():
        found = after[f"{name[5:]}.weight"] - before[f"{name[5:]}.weight"]
        assert torch.allclose(found.double(), adapter.weight_change(layer), atol=1e-5), name


def test_what_kohya_and_comfyui_call_layers() -> None:
    """Literal names, as ComfyUI's and A1111's tables of keys have them."""
    one = LoraOrDoraLayer(torch.zeros(2, 3), torch.zeros(4, 2), 1.0)
    made = adapter.to_kohya({TO_Q: one, "unet.conv_in": one, "text_encoder.encoder.layers.0.self_attn.q_proj": one})
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
        own = loranames.original_unet_path(path)
        assert own, path
        flat = "lora_unet_" + own.replace(".", "_")
        file = {f"{flat}.lora_down.weight": torch.zeros(1), f"{flat}.lora_up.weight": torch.zeros(1)}
        read, _ = _convert_non_diffusers_lora_to_diffusers(_maybe_map_sgm_blocks_to_diffusers(file, sdxl.config))
        half = loranames.parse_lora_key(next(iter(read)))
        known = adapter.adaptable_modules({"unet": sdxl})
        assert half and loranames.canonical_layer_name(half, {}, known) == f"unet.{path}", (path, own, list(read))
        assert loranames.canonical_names_by_flat_name({f"unet.{path}": module})[flat] == f"unet.{path}"
        checked += 1
    assert checked > 100


def test_alphas_that_differ_by_layer_are_kept_when_we_merge(tmp_path: Path, layers) -> None:
    (tmp_path / "x.safetensors").write_bytes(lorafile.canonical_safetensors_bytes(adapter.to_kohya(layers), {}))
    models = SD.load("miniature", CPU, torch.float32)
    before = {k: v.clone() for k, v in models.denoiser.state_dict().items()}
    lorafile.merge_lora_file_into_pipeline(models, tmp_path / "x.safetensors")
    for name, layer in layers.items():
        found = models.denoiser.state_dict()[f"{name[5:]}.weight"] - before[f"{name[5:]}.weight"]
        assert torch.allclose(found.double(), adapter.weight_change(layer), atol=1e-5), name


def test_older_spellings_are_read(modules) -> None:
    weight = modules[TO_Q].weight
    down, up = torch.zeros(2, weight.shape[1]), torch.zeros(weight.shape[0], 2)
    old = TO_Q.replace(".to_q", ".processor.to_q_lora")
    read, problems = adapter.lora_layers_and_problems({f"{old}.down.weight": down, f"{old}.up.weight": up}, {}, modules)
    assert not problems and list(read) == [TO_Q]
    out = TO_Q.replace("to_q", "to_out")
    plain = {f"{out}.lora_linear_layer.down.weight": down, f"{out}.lora_linear_layer.up.weight": up}
    read, problems = adapter.lora_layers_and_problems(
        {k.removeprefix("unet."): v for k, v in plain.items()}, {}, modules
    )
    assert not problems and list(read) == [f"{out}.0"]
    peft = {f"base_model.model.{TO_Q[5:]}.lora_A.weight": down, f"base_model.model.{TO_Q[5:]}.lora_B.weight": up}
    assert "stands beside such a file" in adapter.lora_layers_and_problems(peft, {}, modules)[1][0], (
        "its alpha is not known"
    )
    header = {loraheader.ADAPTER_METADATA: '{"r": 2, "lora_alpha": 6}'}
    assert (
        adapter.lora_and_dora_layers_by_name(adapter.lora_layers_and_problems(peft, header, modules)[0])[TO_Q].alpha
        == 6
    )


def test_text_encoder_layers_of_other_files_are_merged(tmp_path: Path) -> None:
    name = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
    down, up = torch.randn(2, 128), torch.randn(128, 2)
    save_file({f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}, tmp_path / "x.safetensors")
    models = SD.load("miniature", CPU, torch.float32)
    (path,) = (n for n, _ in models.pipeline.text_encoder.named_modules() if n.endswith("layers.0.self_attn.q_proj"))
    layer = models.pipeline.text_encoder.get_submodule(path)
    before = layer.weight.clone()
    lorafile.merge_lora_file_into_pipeline(models, tmp_path / "x.safetensors")
    assert torch.allclose(layer.weight - before, up @ down, atol=1e-4)


@pytest.mark.parametrize(
    ("told", "alpha"),
    [
        ({"unet.lora_alpha": 8}, 8.0),
        ({"lora_alpha": 8}, 8.0),
        ({}, 4.0),
        ({"unet.r": 4}, 8.0),
        ({"text_encoder.lora_alpha": 2}, 4.0),
        ({"unet.lora_alpha": 8, "unet.alpha_pattern": {"to_q": 2}}, 2.0),
        ({"unet.lora_alpha": 8, "unet.alpha_pattern": {f"^{TO_Q[5:]}": 2}}, 2.0),
        ({"unet.lora_alpha": 8, "unet.alpha_pattern": {"to_k": 2}}, 8.0),
        ({"unet.lora_alpha": 8, "unet.alpha_pattern": {"attn1.to_q": 2, "to_q": 4}}, 2.0),
        ({"unet.lora_alpha": 8, "unet.alpha_pattern": {"^to_q": 2, "1.to_q": 2, "o_q": 2}}, 8.0),
        ({"unet.lora_alpha": 8, "unet.use_rslora": True}, 16.0),
    ],
)
def test_alpha_in_the_header_is_read_as_peft_reads_it(told: dict, alpha: float) -> None:
    assert (
        loraheader.StatedLoraSettings({loraheader.ADAPTER_METADATA: json.dumps(told)}).effective_lora_alpha_of_layer(
            TO_Q, 4
        )
        == alpha
    )


BROKEN_HEADERS = [
    "{",
    "[1]",
    "[" * 100_000,
    '{"unet.lora_alpha": null}',
    '{"unet.lora_alpha": NaN}',
    '{"unet.alpha_pattern": ["to_q"]}',
    '{"unet.alpha_pattern": {"(": 1}}',
    '{"unet.alpha_pattern": {"to_q": "1"}}',
    '{"unet.alpha_pattern": {"to_q|to_k": 1}}',
    '{"unet.alpha_pattern": {".*to_q": 1}}',
    '{"unet.rank_pattern": {"(x+x+)+y": 1}}',
    '{"alpha_pattern": {"": 1}}',
    '{"unet.lora_alpha": 1' + "0" * 400 + "}",
]


def test_a_pattern_from_outside_is_never_run(run, tmp_path: Path) -> None:
    """Neither by `inspect` nor on drawing: what is no name is refused, whatever a regular expression would match."""
    header = {loraheader.ADAPTER_METADATA: json.dumps({"unet.lora_alpha": 2, "unet.alpha_pattern": {"to_[qk]": 1}})}
    layers = {TO_Q: LoraOrDoraLayer(torch.ones(2, 64), torch.ones(64, 2), 2.0)}
    save_file(adapter.to_diffusers(layers)[0], tmp_path / "x.safetensors", header)
    text = run("inspect", str(tmp_path / "x.safetensors"))[1]
    assert "never done here" in text and "'to_[qk]'" in text
    with pytest.raises(ModelError, match="not the name of a layer") as error:
        lorafile.merge_lora_file_into_pipeline(SD.load("miniature", CPU, torch.float32), tmp_path / "x.safetensors")
    assert "base=" not in str(error.value)


@pytest.mark.parametrize("text", BROKEN_HEADERS, ids=range(len(BROKEN_HEADERS)))
def test_headers_that_are_not_understood_are_refused(text: str) -> None:
    assert loraheader.StatedLoraSettings({loraheader.ADAPTER_METADATA: text}).problems


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("lora_down.weight", torch.zeros(0, 64)),
        ("lora_down.weight", torch.full((2, 64), float("nan"))),
        ("lora_up.weight", torch.full((64, 2), float("inf"))),
        ("alpha", torch.zeros(2)),
        ("alpha", torch.tensor(float("nan"))),
        ("dora_scale", torch.ones(1, 63)),
        ("lora_magnitude_vector", torch.ones(1, 64)),
    ],
)
def test_tensors_that_mean_nothing_are_refused(modules, part: str, value: torch.Tensor) -> None:
    flat = loranames.layer_name_in_kohya(TO_Q)
    sound = {f"{flat}.lora_down.weight": torch.zeros(2, 64), f"{flat}.lora_up.weight": torch.zeros(64, 2)}
    assert not adapter.lora_layers_and_problems(sound, {}, modules)[1]
    assert adapter.lora_layers_and_problems(sound | {f"{flat}.{part}": value}, {}, modules)[1]


def test_norms_and_containers_have_no_adapter(modules) -> None:
    for layer in ("unet.conv_norm_out", "unet.down_blocks.0"):
        tensors = {f"{layer}.lora_A.weight": torch.zeros(2, 64), f"{layer}.lora_B.weight": torch.zeros(64, 2)}
        assert "the base has no such layer" in adapter.lora_layers_and_problems(tensors, {}, modules)[1][0]


def test_a_layer_twice_is_refused(modules) -> None:
    down, up = torch.zeros(2, 64), torch.zeros(64, 2)
    dotted = {f"{TO_Q}.lora_A.weight": down, f"{TO_Q}.lora_B.weight": up}
    _, problems = adapter.lora_layers_and_problems(
        dotted | adapter.to_kohya({TO_Q: LoraOrDoraLayer(down, up, 2.0)}), {}, modules
    )
    assert any("in the file twice" in p for p in problems)


def test_a_dora_of_peft_is_merged_as_peft_merges_it(modules) -> None:
    models = SD.load("miniature", CPU, torch.float32)
    models.denoiser.add_adapter(LoraConfig(r=2, lora_alpha=3, use_dora=True, target_modules=["to_q", "conv_in"]))  # type: ignore[operator]
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in models.denoiser.named_parameters():
            if "lora_B" in name or "magnitude" in name:
                parameter.add_(0.05 * torch.randn_like(parameter))
    layers = lorafile.adapters_as_plain_lora_layers({"unet": models.denoiser})
    assert all(one.magnitude is not None and one.alpha == 3 for one in layers.values())
    models.pipeline.fuse_lora()
    for name in (TO_Q, "unet.conv_in"):
        fused = models.denoiser.get_submodule(name[5:]).get_base_layer().weight  # type: ignore[operator]
        assert torch.allclose(adapter.merged_weight(modules[name].weight, layers[name]), fused, atol=1e-5), name
        assert not torch.allclose(modules[name].weight, fused, atol=1e-3)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("name", [TO_Q, "unet.conv_in", "unet.mid_block.resnets.1.conv2", f"{TO_Q[:-10]}ff.net.0.proj"])
def test_a_dora_is_merged_by_the_axis_of_its_magnitudes(tmp_path: Path, modules, name: str, axis: int) -> None:
    """LyCORIS' formula, written out channel by channel; to_q and conv2 are square: the shape tells the axis."""
    torch.manual_seed(0)
    weight: torch.Tensor = modules[name].weight.detach()  # type: ignore[assignment]
    rank = 2
    down, up = torch.randn(rank, *weight.shape[1:]), torch.randn(weight.shape[0], rank, *[1] * (weight.ndim - 2))
    scale = torch.rand([count if i == axis else 1 for i, count in enumerate(weight.shape)]) + 0.5
    flat = loranames.layer_name_in_kohya(name)
    tensors = adapter.to_kohya({name: LoraOrDoraLayer(down, up, 1.0)}) | {f"{flat}.dora_scale": scale}
    (tmp_path / "x.safetensors").write_bytes(lorafile.canonical_safetensors_bytes(tensors, {}))
    models = SD.load("miniature", CPU, torch.float32)
    lorafile.merge_lora_file_into_pipeline(models, tmp_path / "x.safetensors")
    wanted = weight + 0.5 * (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
    for i in range(weight.shape[axis]):
        channel = wanted.select(axis, i)
        channel *= scale.flatten()[i] / channel.norm()
    merged: torch.Tensor = models.denoiser.get_submodule(name.removeprefix("unet.")).weight  # type: ignore[assignment]
    assert torch.allclose(merged, wanted, atol=1e-5)


def test_wrapped_and_original_names_are_read(modules) -> None:
    """torch.compile's `_orig_mod.`, PEFT's prefix, and the original UNet's names with dots."""
    down, up = torch.zeros(2, 64), torch.zeros(64, 2)
    original = loranames.original_unet_path(TO_Q.removeprefix("unet."))
    flat = loranames.layer_name_in_kohya(TO_Q).removeprefix("lora_unet_")
    for layer in (
        TO_Q.replace("unet.", "unet._orig_mod."),
        f"_orig_mod.{TO_Q}",
        TO_Q.replace("unet.", "unet.base_model.model."),
        f"lora_unet__orig_mod_{flat}",
        f"unet.{original}",
        f"diffusion_model.{original}",
        f"model.diffusion_model._orig_mod.{original}",
    ):
        layers, problems = adapter.lora_layers_and_problems(
            {f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}, {}, modules
        )
        assert not problems and list(layers) == [TO_Q], layer


TITLES = {
    "sd": "Stable Diffusion 1.5",
    "sdxl": "SDXL",
    "sd3": "Stable Diffusion 3.5 medium",
    "flux": "FLUX.1 dev",
    "flux2": "FLUX.2 klein 4B",
    "zimage": "Z-Image",
    "qwenimage": "Qwen-Image",
    "krea2": "Krea 2",
    "qwenimage21": "Qwen-Image 2.1",
}


@pytest.mark.parametrize("family", TITLES)
def test_names_are_those_that_comfyui_and_a1111_look_up(tmp_path: Path, family: str) -> None:
    """Against a list of facts, on the released models' own shapes (without weights): read, and as we write them."""
    rows = [row.split() for row in (Path(__file__).parents[1] / "golden" / "reader_keys.txt").read_text().splitlines()]
    named = {key: canonical for kind, _, key, canonical in (r for r in rows if r[0] != "#") if kind == family}
    sketch = FAMILIES[memory.write_configs(TITLES[family], tmp_path)].weightless_model(tmp_path)
    component = FAMILIES[family].COMPONENT
    with torch.device("meta"):
        large = CLIPTextConfig(hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20)
        texts = {"text_encoder": CLIPTextModel(CLIPTextConfig()), "text_encoder_2": CLIPTextModel(large)}
    modules = adapter.adaptable_modules({component: sketch.denoiser, **texts})
    flat = loranames.canonical_names_by_flat_name(modules)
    assert named
    for key, canonical in named.items():
        half = loranames.parse_lora_key(f"{key}.{'lora_down' if component == 'unet' else 'lora_A'}.weight")
        assert half and loranames.canonical_layer_name(half, flat, modules) == canonical
    layer = LoraOrDoraLayer(torch.zeros(1, 1), torch.zeros(1, 1), 1.0)
    write = adapter.to_kohya if component == "unet" else adapter.to_comfyui
    written = {loranames.parse_lora_key(key).layer for key in write(dict.fromkeys(named.values(), layer))}  # type: ignore[union-attr]
    originals = r"(input|middle|output)_block|_out_2$|time_embed_|label_emb|lora_te_"
    known = {key for key in named if not re.search(originals, key)}
    assert known <= written


@pytest.mark.parametrize(
    "ending",
    ["oft_blocks", "a1.weight", "on_input", "set_weight", "lora_B.bias", "w_norm"],
)
def test_kinds_that_are_not_read_are_refused_by_key(modules, ending: str) -> None:
    """OFT, GLoRA, IA3, whole weights, norms: never left out in silence."""
    flat = loranames.layer_name_in_kohya(TO_Q)
    sound = {f"{flat}.lora_down.weight": torch.zeros(2, 64), f"{flat}.lora_up.weight": torch.zeros(64, 2)}
    for layer in (flat, TO_Q):
        (problem,) = adapter.lora_layers_and_problems(sound | {f"{layer}.{ending}": torch.zeros(1)}, {}, modules)[1]
        assert problem.startswith(f"{layer}.{ending}: not the key of a LoRA layer but of ")


@pytest.mark.parametrize(
    ("prefix", "canonical"),
    [
        ("lora_unet_", TO_Q),
        ("lycoris_", TO_Q),
        ("lora_te_text_model_", "text_encoder.encoder.layers.0.self_attn.q_proj"),
        ("lora_te1_text_model_", "text_encoder.encoder.layers.0.self_attn.q_proj"),
    ],
)
def test_prefixes_of_other_trainers_are_read(modules, prefix: str, canonical: str) -> None:
    weight: torch.Tensor = modules[canonical].weight  # type: ignore[assignment]
    flat = prefix + canonical.partition(".")[2].replace(".", "_")
    tensors = {
        f"{flat}.lora_down.weight": torch.zeros(2, weight.shape[1]),
        f"{flat}.lora_up.weight": torch.zeros(weight.shape[0], 2),
    }
    layers, problems = adapter.lora_layers_and_problems(tensors, {}, modules)
    assert not problems and list(layers) == [canonical]


def test_the_header_holds_only_what_older_readers_know(layers: dict[str, LoraOrDoraLayer]) -> None:
    """diffusers makes a LoraConfig of it: a key that an older PEFT does not know is a TypeError there."""
    told = json.loads(adapter.to_diffusers(layers)[1][loraheader.ADAPTER_METADATA])
    known = {"r", "lora_alpha", "rank_pattern", "alpha_pattern", "target_modules", "use_dora"}
    assert {key.removeprefix("unet.") for key in told} <= known
