"""LoRA files: the same bytes for the same tensors, the right strength, nothing skipped silently."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file

from stylegate import adapter, files, lorafile, loranames, sample
from stylegate.config import Config, config_as_dict
from stylegate.configgroups import FamilyConfig, GenerateConfig, LoraConfig
from stylegate.errors import ModelError
from stylegate.families import FAMILIES
from tests.conftest import FAST_ALL_LAYERS
from train.prepare import add_lora

CPU = torch.device("cpu")
SD = FAMILIES["sd"]
SETTINGS = GenerateConfig(num_inference_steps=2)


def with_lora(alpha: float = 16.0, rank: int = 4):
    models = SD.load("miniature", CPU, torch.float32)
    add_lora(models, SD, Config(lora=LoraConfig(rank=rank, alpha=alpha)))
    return models


def picture(models) -> np.ndarray:
    return np.asarray(sample.draw_pictures(models, ["neon style, red cat"], [3], SETTINGS, 64)[0], dtype=int)


def test_same_tensors_same_bytes() -> None:
    tensors = {f"t{i}": torch.full((3,), float(i)) for i in range(9)}
    facts = {f"key{i}": str(i) for i in range(9)}
    made = {
        lorafile.canonical_safetensors_bytes(tensors, dict(list(facts.items())[::step]))
        for step in (1, -1)
        for _ in range(10)
    }
    assert len(made) == 1


def test_canonical_file_loads(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(lorafile.canonical_safetensors_bytes({"a": torch.arange(5)}, {"k": "v"}))
    tensors, metadata = lorafile.load_tensors_and_metadata(tmp_path / "x.safetensors")
    assert torch.equal(tensors["a"], torch.arange(5)) and metadata == {"k": "v"}
    assert torch.equal(load_file(tmp_path / "x.safetensors")["a"], torch.arange(5))


def test_lora_at_init_changes_nothing() -> None:
    assert np.array_equal(picture(SD.load("miniature", CPU, torch.float32)), picture(with_lora()))


@pytest.mark.parametrize("alpha", [4.0, 1.0, 24.0])
def test_release_reloads_and_draws_the_same_picture(tmp_path: Path, alpha: float) -> None:
    """Also where alpha is not the rank: a lost alpha is the commonest way to the wrong strength."""
    models = with_lora(alpha=alpha)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in models.denoiser.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.05)
    wanted = picture(models)
    path = tmp_path / "x.safetensors"
    path.write_bytes(
        lorafile.published_lora_bytes(
            *adapter.to_diffusers(lorafile.adapters_as_plain_lora_layers({SD.COMPONENT: models.denoiser}))
        )
    )
    fresh = SD.load("miniature", CPU, torch.float32)
    plain = picture(fresh)
    lorafile.merge_lora_file_into_pipeline(fresh, path)
    drawn = picture(fresh)
    assert np.abs(drawn - wanted).max() <= 1  # merged into the weights: equal up to rounding of a level
    assert np.abs(plain - wanted).mean() > 1


def broken(tmp_path: Path, change) -> Path:
    tensors = {f"unet.{name}": value for name, value in lora_tensors().items()}
    change(tensors)
    save_file(tensors, tmp_path / "x.safetensors")
    return tmp_path / "x.safetensors"


def lora_tensors() -> dict[str, torch.Tensor]:
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    return {f"{name}.lora_A.weight": torch.zeros(4, 64), f"{name}.lora_B.weight": torch.zeros(64, 4)}


def rename(old: str, new: str):
    def change(tensors: dict) -> None:
        for key in list(tensors):
            tensors[key.replace(old, new)] = tensors.pop(key)

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (rename("down_blocks.0", "down_blocks.9"), "the base has no such layer"),
        (rename("unet.", "transformer."), "does not fit the base"),
        (lambda t: t.update({k: torch.zeros(4, 320) for k in t if "lora_A" in k}), "LoRA for 64 x 320"),
        (lambda t: [t.pop(k) for k in list(t) if "lora_B" in k], "its lora_B (lora_up) is missing"),
        (lambda t: [t.pop(k) for k in list(t) if "lora_A" in k], "its lora_A (lora_down) is missing"),
        (lambda t: t.update({k: torch.zeros(4) for k in t}), "1 and 1 axes"),
        (lambda t: t.update({k: v.long() for k, v in t.items()}), "torch.int64"),
        (
            lambda t: t.update({k: torch.zeros(8, 64) for k in t if "lora_A" in k}),
            "8 x 64 and 64 x 4: they do not share a rank",
        ),
        (lambda t: t.update({"unet.x.alpha": torch.zeros(1)}), "unet.x: the base has no such layer"),
        (lambda t: t.clear(), "holds no LoRA weights"),
        (lambda t: t.update({"unet.conv_in.oft_blocks": torch.zeros(2, 2)}), "it holds OFT, which is not read here"),
        (lambda t: t.update({"unet.conv_in.lokr_w1": torch.zeros(2, 2)}), "unet.conv_in: its lokr_w2 is missing"),
        (
            lambda t: t.update({k.replace("lora_A", "lora_mid"): v.clone() for k, v in t.items() if "lora_A" in k}),
            "its matrices are no Tucker",
        ),
        (lambda t: t.update({"unet.conv_in.\x1b[2J": torch.zeros(1)}), "'unet.conv_in.\\x1b[2J': not the key"),
    ],
)
def test_a_lora_that_does_not_fit_is_refused(tmp_path: Path, change, says: str) -> None:
    path = broken(tmp_path, change)
    with pytest.raises(ModelError) as error:
        lorafile.merge_lora_file_into_pipeline(SD.load("miniature", CPU, torch.float32), path)
    assert says in str(error.value)
    assert ("base=" in str(error.value)) == ("the base has" in str(error.value)), (
        "another base is advised where it helps"
    )


def test_advice_rests_on_what_is_wrong_and_not_on_its_words() -> None:
    """Whatever a file calls its layers and parts."""
    odd = {"unet.the base has it.alpha": torch.ones(1), "the base has it": torch.ones(1)}
    modules = {"unet.conv_in": torch.nn.Linear(4, 4)}
    _, (missing, no_key) = adapter.lora_layers_and_problems(odd, {}, modules)
    assert isinstance(missing, adapter.BaseMismatch) and not isinstance(no_key, adapter.BaseMismatch)
    assert lorafile.another_base_helps([missing]) and not lorafile.another_base_helps([missing, no_key])
    assert not lorafile.another_base_helps([no_key]) and "the base has" in no_key


def test_pickles_and_torn_files_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "x.pt")
    with pytest.raises(ModelError, match="safetensors only"):
        lorafile.load_tensors_and_metadata(tmp_path / "x.pt")
    (tmp_path / "torn.safetensors").write_bytes(lorafile.canonical_safetensors_bytes(lora_tensors(), {})[:-50])
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        lorafile.load_tensors_and_metadata(tmp_path / "torn.safetensors")
    with pytest.raises(ModelError, match="not found"):
        lorafile.load_tensors_and_metadata(tmp_path / "none.safetensors")


def test_base_that_is_none(tmp_path: Path) -> None:
    for base in ("unheard", str(tmp_path)):
        with pytest.raises(ModelError, match="not a diffusers pipeline"):
            SD.base_folder(base)
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(ModelError, match="is a FluxPipeline"):
        SD.base_folder(str(tmp_path))
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    with pytest.raises(ModelError, match="cannot be loaded"):
        SD.load(str(tmp_path), CPU, torch.float32)


def test_trained_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no LoRA has been trained with these arguments"):
        lorafile.lora_file_for_drawing(Config(brand="never"))
    assert lorafile.lora_file_for_drawing(replace(Config(brand="never"), lora_file="none")) is None


def test_a_missing_lora_names_the_newest_one_that_a_run_of_the_brand_made_for_this_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "RUNS", tmp_path)
    asked, others = Config(brand="acme"), {"brand": "other", "base": "./else", "family": FamilyConfig(name="sdxl")}
    made = {key: replace(asked, name=key, **{key: value}) for key, value in others.items()}
    made |= {name: replace(asked, name=name) for name in ("unfinished", "first", "second")}
    for age, (name, config) in enumerate(made.items()):
        path = tmp_path / f"{name}-sd" / "lora" / f"{name}.safetensors"
        path.parent.mkdir(parents=True)
        (path.parent.parent / "run.json").write_text(json.dumps({"config": config_as_dict(config)}))
        if name != "unfinished":
            path.write_bytes(b"")
            os.utime(path, (100 - age, 100 - age))
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "run.json").write_text("{")
    with pytest.raises(ModelError) as error:
        lorafile.lora_file_for_drawing(asked)
    assert f" makes it; lora_file={tmp_path}/first-sd/lora/first.safetensors draws with what" in str(error.value)
    with pytest.raises(ModelError) as error:
        lorafile.lora_file_for_drawing(replace(asked, brand="never"))
    assert "draws with what" not in str(error.value)


@pytest.mark.parametrize("lever", ["lora.rslora=true", "lora.dora=true"])
def test_rslora_and_dora_leave_in_files_that_change_the_base_alike(run, small_brand: Path, lever: str) -> None:
    """Each file merged by us, by hand as its reader does, and by PEFT: the same weights. The run has proven that
    diffusers draws the same picture with the first."""
    name = lever.removeprefix("lora.").removesuffix("=true")
    words = ["brand=small", f"name={name}", *FAST_ALL_LAYERS, "train.max_steps=3", "train.learning_rate=1e-2", lever]
    code, text = run("train", *words, "lora.alpha=8")
    assert code == 0 and ("note: this is a DoRA" in text) == ("dora" in lever)
    (place,) = files.RUNS.glob(f"{name}-sd-*/lora")
    plain, first, second = (SD.load("miniature", CPU, torch.float32) for _ in range(3))
    path, other = place / f"{name}.safetensors", place / f"{name}.kohya.safetensors"
    lorafile.merge_lora_file_into_pipeline(first, path)
    lorafile.merge_lora_file_into_pipeline(second, other)
    peft = SD.load("miniature", CPU, torch.float32)
    peft.pipeline.load_lora_weights(str(place), weight_name=path.name)
    peft.pipeline.fuse_lora()
    peft.pipeline.unload_lora_weights()
    tensors = load_file(other)
    modules = lorafile.adaptable_modules_of_pipeline(plain.pipeline)
    for canonical in ("unet.conv_in", "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"):
        flat = loranames.layer_name_in_kohya(canonical)
        down, up, alpha = (tensors[f"{flat}.{part}"] for part in ("lora_down.weight", "lora_up.weight", "alpha"))
        assert float(alpha) == 16, "the rank: InvokeAI 6.14.2 drops alpha beside lora_A, so no file rests on it"
        weight: torch.Tensor = modules[canonical].weight  # type: ignore[assignment]
        changed = weight + (float(alpha) / 16 * up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
        if f"{flat}.dora_scale" in tensors:
            lengths = changed.flatten(1).norm(dim=1).reshape(-1, *[1] * (weight.ndim - 1))
            changed = tensors[f"{flat}.dora_scale"] * changed / lengths
        assert not torch.allclose(changed, weight, atol=1e-4)
        for models in (first, second, peft):
            merged: torch.Tensor = lorafile.adaptable_modules_of_pipeline(models.pipeline)[canonical].weight  # type: ignore[assignment]
            assert torch.allclose(merged, changed, atol=1e-5), canonical


def test_a_dora_on_a_base_in_bf16_changes_nothing_at_first() -> None:
    """PEFT rounds the lengths to the base's precision; the trainer takes them in fp32."""
    models = SD.load("miniature", CPU, torch.bfloat16)
    add_lora(models, SD, Config(lora=LoraConfig(dora=True)))
    checked = 0
    for layer in models.denoiser.modules():
        if isinstance(layer, LoraLayer):
            lengths = layer.get_base_layer().weight.float().flatten(1).norm(dim=1)  # type: ignore[operator]
            kept = layer.lora_magnitude_vector["default"].weight.flatten()  # type: ignore[union-attr]
            assert kept.dtype == torch.float32 and torch.equal(kept, lengths)
            checked += 1
    assert checked > 20
