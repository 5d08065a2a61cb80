"""`stylegate inspect`: what a file is, and who would ignore what of it."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from stylegate import adapter, files, loraheader, loranames
from stylegate.adapter import LoraOrDoraLayer
from stylegate.inspection import layer_kind_from_layer_name

ATTENTION = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
LAYERS = {
    ATTENTION: LoraOrDoraLayer(torch.zeros(4, 768), torch.zeros(320, 4), 2.0),
    "unet.conv_in": LoraOrDoraLayer(torch.zeros(4, 4, 3, 3), torch.zeros(320, 4, 1, 1), 2.0),
}


def test_our_own_files_are_described(run, trained: list[str]) -> None:
    (path,) = files.RUNS.glob("small-sd-*/lora/small.safetensors")
    code, text = run("inspect", str(path), str(path.with_name("small.kohya.safetensors")))
    assert code == 0 and text.count("Stable Diffusion 1.x (by modelspec.architecture)") == 2
    one, other = text.split("small.kohya.safetensors: ")
    assert "attention layers: their names are not kohya's" in one and "A1111      ignores" in one
    assert other.count("reads all of it") == 5 and "strength   1 " in other
    assert other.count(", and has no base so small") == 3, "ComfyUI, A1111 and InvokeAI do not have the miniature"
    card = path.with_name("README.md").read_text()
    assert "In the names of ComfyUI and A1111: small.kohya.safetensors. They have no base so small" in card
    assert "modelspec.trigger_phrase = 'small style'" in one


def test_header_is_whole_and_tells_no_secrets(trained: list[str]) -> None:
    """ModelSpec 1.0.1's MUST keys, the hash of the tensors, no path of this machine."""
    (place,) = files.RUNS.glob("small-sd-*/lora")
    for path in place.glob("*.safetensors"):
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])["__metadata__"]
        must = {"sai_model_spec", "architecture", "implementation", "title", "resolution"}
        assert {f"modelspec.{key}" for key in must} <= header.keys() and header["modelspec.sai_model_spec"] == "1.0.1"
        assert header["modelspec.hash_sha256"] == "0x" + hashlib.sha256(content[8 + length :]).hexdigest()
        assert (header["ss_network_dim"], header["ss_network_alpha"]) == ("16", "16")
        assert str(files.HOME) not in str(header) and str(files.ROOT) not in str(header)
    assert str(files.ROOT) not in (place / "README.md").read_text()


def test_a_picture_in_a_header_is_not_printed(run, tmp_path: Path) -> None:
    tensors, header = adapter.to_diffusers(LAYERS)
    save_file(
        tensors, tmp_path / "x.safetensors", header | {"modelspec.thumbnail": "data:image/jpeg;base64," + "A" * 999}
    )
    code, text = run("inspect", str(tmp_path / "x.safetensors"))
    assert code == 0 and "AAA" not in text
    assert "modelspec.thumbnail = 'data:image/jpeg;base64', 1022 characters that are not shown" in text


def test_alpha_and_family_without_a_header(run, tmp_path: Path) -> None:
    save_file(adapter.to_kohya(LAYERS), tmp_path / "kohya.safetensors")
    code, text = run("inspect", str(tmp_path / "kohya.safetensors"))
    assert code == 0 and "family     Stable Diffusion 1.x\n" in text
    assert "rank       4\n" in text and "strength   0.5 " in text and text.count("reads all of it") == 5
    tensors, header = adapter.to_diffusers(LAYERS)
    save_file(tensors, tmp_path / "diffusers.safetensors", header)
    code, text = run("inspect", str(tmp_path / "diffusers.safetensors"))
    assert "strength   0.5 " in text and "takes 2 layers at strength 1" in text and "ignores 1 attention layers" in text


def test_what_readers_do_with_magnitudes(run, tmp_path: Path) -> None:
    layers = {ATTENTION: LAYERS[ATTENTION]}
    flat = loranames.layer_name_in_kohya(ATTENTION)
    save_file(adapter.to_kohya(layers) | {f"{flat}.dora_scale": torch.ones(320, 1)}, tmp_path / "kohya.safetensors")
    dotted = adapter.to_diffusers(layers)[0] | {f"{ATTENTION}.lora_magnitude_vector": torch.ones(320)}
    save_file(dotted, tmp_path / "diffusers.safetensors")
    _, text = run("inspect", str(tmp_path / "kohya.safetensors"))
    assert "so small" not in text
    assert "drops dora_scale" in text
    _, text = run("inspect", str(tmp_path / "diffusers.safetensors"))
    assert "ComfyUI    ignores lora_magnitude_vector" in text


@pytest.mark.parametrize(
    ("rename", "said"),
    [
        (lambda key: key.removeprefix("unet."), "diffusers  ignores 2 layers: their names lack the component"),
        (lambda key: key.replace(".to_k.", ".processor.to_k."), "ComfyUI    takes 2 layers at strength 1"),
        (lambda key: f"base_model.model.{key.removeprefix('unet.')}", "diffusers  ignores 2 layers"),
    ],
)
def test_spellings_that_some_ignore(run, tmp_path: Path, rename, said: str) -> None:
    tensors, header = adapter.to_diffusers(LAYERS)
    save_file({rename(key): value for key, value in tensors.items()}, tmp_path / "x.safetensors", header)
    code, text = run("inspect", str(tmp_path / "x.safetensors"))
    assert code == 0 and said in text


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        ("diffusion_model.layers.0.attention.qkv", "attention"),
        ("lora_unet_layers_0_attention_out", "attention"),
        ("lora_unet_layers_0_feed_forward_w1", "feed-forward"),
        ("diffusion_model.double_blocks.0.img_attn.qkv", "attention"),
        ("diffusion_model.double_blocks.0.img_mlp.0", "feed-forward"),
        ("diffusion_model.double_blocks.0.img_mod.lin", "convolution and projection"),
        ("diffusion_model.single_blocks.3.linear1", "attention"),
        ("lora_unet_single_blocks_3_linear1", "attention"),
        ("lora_unet_single_blocks_3_linear2", "feed-forward"),
        ("diffusion_model.blocks.0.attn.wq", "attention"),
        ("diffusion_model.txtmlp.3", "convolution and projection"),
        ("unet.down_blocks.1.attentions.0.proj_in", "convolution and projection"),
        ("lora_unet_down_blocks_1_attentions_0_proj_in", "convolution and projection"),
        ("lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q", "attention"),
        ("lora_te1_text_model_encoder_layers_0_self_attn_q_proj", "text encoder"),
        ("text_encoder_3.encoder.block.0.layer.0.SelfAttention.q", "text encoder"),
    ],
)
def test_layers_are_of_their_kind_also_by_other_programs_names(layer: str, kind: str) -> None:
    """Of the families' own names: tests/train/test_families.py."""
    assert layer_kind_from_layer_name(layer) == kind


def test_no_file_and_no_lora(run, tmp_path: Path) -> None:
    assert run("inspect")[0] == 2
    torch.save({}, tmp_path / "x.ckpt")
    code, text = run("inspect", str(tmp_path / "x.ckpt"))
    assert code == 2 and "safetensors only" in text
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    code, text = run("inspect", str(tmp_path / "other.safetensors"))
    assert code == 2 and "holds no LoRA layers" in text
    (tmp_path / "empty.safetensors").write_bytes(b"")
    (tmp_path / "torn.safetensors").write_bytes((tmp_path / "other.safetensors").read_bytes()[:20])
    save_file(adapter.to_kohya(LAYERS), tmp_path / "good.safetensors")
    code, text = run("inspect", *(str(tmp_path / f"{name}.safetensors") for name in ("empty", "good", "torn", "good")))
    assert code == 2 and text.count("good.safetensors: ") == 2 and "2 of 4 files" in text, "all are answered"
    broken = {loraheader.ADAPTER_METADATA: '{"unet.lora_alpha": [8]}'}
    save_file(adapter.to_diffusers(LAYERS)[0], tmp_path / "header.safetensors", broken)
    code, text = run("inspect", str(tmp_path / "header.safetensors"))
    assert code == 0 and "unet.lora_alpha is [8], not a number" in text
