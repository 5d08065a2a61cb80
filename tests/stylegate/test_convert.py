"""`stylegate convert`: a plain LoRA of any LoRA file, as near as its rank allows, and what cannot be."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from stylegate import adapter, convert, lorafile, loranames
from stylegate.adapter import LoraOrDoraLayer
from stylegate.families import FAMILIES

Q = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
CONV, TEXT = "unet.conv_in", "text_encoder.encoder.layers.0.self_attn.q_proj"
NAMES = (Q, CONV, TEXT)
FLAT = {name: loranames.layer_name_in_kohya(name) for name in NAMES}


@pytest.fixture(scope="module")
def modules() -> dict[str, Any]:
    """Some layers of the miniature, as they are before any LoRA."""
    pipeline = FAMILIES["sd"].load("miniature", torch.device("cpu"), torch.float32).pipeline
    found = lorafile.adaptable_modules_of_pipeline(pipeline)
    return {name: found[name] for name in NAMES}


def lokr_of(modules: dict[str, Any], name: str, rank: int) -> dict[str, torch.Tensor]:
    """A LoKr of one layer; its change has the rank `rank` times 2."""
    shape = adapter.weight_shape_of(modules[name])
    inputs = modules[name].weight[0].numel()
    parts = {"lokr_w1": torch.randn(2, 2), "alpha": torch.tensor(rank / 2)}
    parts |= {"lokr_w2_a": torch.randn(shape[0] // 2, rank), "lokr_w2_b": torch.randn(rank, inputs // 2)}
    return {f"{FLAT[name]}.{part}": tensor for part, tensor in parts.items()}


def change_of_file(path: Path, modules: dict[str, Any]) -> dict[str, torch.Tensor]:
    """What a file changes of each weight when it is merged, fp64."""
    layers, problems = adapter.lora_layers_and_problems(*lorafile.load_tensors_and_metadata(path), modules)
    assert not problems
    return {name: convert.weight_change_on_base(layer, modules[name]) for name, layer in layers.items()}


@pytest.mark.parametrize("style", ["diffusers", "kohya", "comfyui"])
def test_a_lokr_becomes_a_lora_as_near_as_its_rank_allows(run_exactly, tmp_path: Path, modules, style: str) -> None:
    torch.manual_seed(0)
    plain = adapter.to_kohya(
        {CONV: LoraOrDoraLayer(torch.randn(3, *modules[CONV].weight.shape[1:]), torch.randn(64, 3, 1, 1), 6.0)}
    )
    save_file(
        lokr_of(modules, Q, 4) | plain, tmp_path / "x.safetensors", {"modelspec.title": "x", "ss_network_dim": "9"}
    )
    wanted = change_of_file(tmp_path / "x.safetensors", modules)
    words = ("convert", str(tmp_path / "x.safetensors"), f"to={style}", "base=miniature")
    for rank in (8, 4):  # the first is exact
        out = tmp_path / f"{style}-{rank}.safetensors"
        code, text = run_exactly(*words, f"rank={rank}", f"out={out}")
        found = change_of_file(out, modules)
        errors = {name: float((found[name] - wanted[name]).norm() / wanted[name].norm()) for name in wanted}
        values = torch.linalg.svdvals(wanted[Q])
        assert errors[CONV] <= 1e-6 and errors[Q] == pytest.approx(
            float(values[rank:].norm() / values.norm()), abs=1e-6
        )
        assert code == 0 and "2 layers (LoKr, LoRA), rank 3 to " in text
        assert f"at most {errors[Q]:.2g} ({Q})" in text
        header = lorafile.load_tensors_and_metadata(out)[1]
        assert header["modelspec.title"] == "x" and header["ss_network_dim"] == str(rank)
    alphas = [t for key, t in load_file(out).items() if key.endswith(".alpha")]
    assert sorted(map(float, alphas)) == ([] if style == "diffusers" else [3.0, 4.0]), "alpha = rank"
    before = out.read_bytes()
    out.unlink()
    assert run_exactly(*words, "rank=4", f"out={out}")[0] == 0 and out.read_bytes() == before, "the same bytes again"


def test_a_dora_and_a_text_encoder_are_converted_on_the_weights_of_the_base(
    run_exactly, tmp_path: Path, modules
) -> None:
    torch.manual_seed(0)
    tensors = adapter.to_kohya({Q: LoraOrDoraLayer(torch.randn(2, 64), torch.randn(64, 2), 2.0)}) | lokr_of(
        modules, TEXT, 1
    )
    save_file(tensors | {f"{FLAT[Q]}.dora_scale": torch.rand(64, 1) + 0.5}, tmp_path / "x.safetensors")
    code, text = run_exactly("convert", str(tmp_path / "x.safetensors"), "to=kohya", "base=miniature", "rank=64")
    assert code == 0 and "LoKr, LoRA with a DoRA's magnitudes" in text
    wanted, found = (change_of_file(tmp_path / name, modules) for name in ("x.safetensors", "x.kohya.safetensors"))
    assert found.keys() == {Q, TEXT}
    for name, change in wanted.items():
        assert float((found[name] - change).norm() / change.norm()) <= 1e-6, name


def test_the_largest_singular_values_of_a_large_layer_are_found() -> None:
    torch.manual_seed(0)
    change = torch.randn(200, 180).double() * torch.logspace(0, -3, 180)
    values = torch.linalg.svdvals(change)
    error = (adapter.weight_change(convert.nearest_lora(change, 8)) - change).norm() / change.norm()
    assert float(error) == pytest.approx(float(values[8:].norm() / values.norm()), rel=1e-4)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["to=kohya", "base=miniature"], "rank= is needed"),
        (["to=a1111", "base=miniature", "rank=4"], "to=a1111: one of diffusers, kohya, comfyui"),
        (["to=kohya", "rank=0", "steps=3"], "steps=: convert does not read it"),
        (["to=kohya", "base=miniature", "rank=4", "rank=8"], "rank=: given 2 times"),
        (["to=kohya", "rank=4"], "base= names the model"),
        (["to=kohya", "base=./nowhere", "rank=4"], "nowhere"),
        (["to=kohya", "base=miniature", "rank=4", "out=x.pt"], "not the name of a .safetensors file"),
        (["to=kohya", "base=miniature", "rank=4", "out={file}"], "exists: name a new file"),
        (["to=diffusers", "base=miniature", "rank=4"], "to=kohya or to=comfyui"),
    ],
)
def test_what_cannot_be_converted_is_one_error_and_no_file(
    run_exactly, tmp_path: Path, modules, words, says: str
) -> None:
    path = tmp_path / "x.safetensors"
    bias = {
        f"{FLAT[CONV]}.{part}": torch.ones_like(t)
        for part, t in (("diff", modules[CONV].weight), ("diff_b", modules[CONV].bias))
    }
    save_file(lokr_of(modules, Q, 2) | bias, path)
    before = path.read_bytes()
    code, text = run_exactly("convert", str(path), *(word.format(file=path) for word in words))
    assert code == 2 and says in text and "Traceback" not in text
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"] and path.read_bytes() == before


def test_differences_of_biases_stay_in_the_names_that_have_a_place_for_them(
    run_exactly, tmp_path: Path, modules
) -> None:
    torch.manual_seed(0)
    bias = torch.randn(64)
    save_file(
        {f"{FLAT[CONV]}.diff": torch.randn_like(modules[CONV].weight), f"{FLAT[CONV]}.diff_b": bias},
        tmp_path / "x.safetensors",
    )
    assert run_exactly("convert", str(tmp_path / "x.safetensors"), "to=comfyui", "base=miniature", "rank=4")[0] == 0
    layers, _ = adapter.lora_layers_and_problems(
        *lorafile.load_tensors_and_metadata(tmp_path / "x.comfyui.safetensors"), modules
    )
    assert torch.equal(layers[CONV].bias, bias)  # type: ignore[arg-type]
