"""Each family's whole chain on a tiny random base of its true architecture: train, resume, hand out, draw, score."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
from diffusers.pipelines.qwenimage.pipeline_qwenimage import QwenImagePipeline
from PIL import Image
from safetensors.torch import save_file

from stylegate import adapter, brandcheck, convert, files, firststeps, lorafile, pictures, sample
from stylegate.config import Config
from stylegate.configgroups import GenerateConfig
from stylegate.embedded import install_cache_in_text_encoders
from stylegate.errors import ModelError
from stylegate.families import FAMILIES, LoadedBaseModel, pipelines
from stylegate.inspection import layer_kind_from_layer_name
from tests.conftest import FAST, FAST_ALL_LAYERS
from tests.tiny import BASES
from train import encoded, prepare

CPU = torch.device("cpu")
FILMS = ("qwenimage", "krea2", "qwenimage21")  # their autoencoder takes films
SMALL = ["family.resolution=64", "encoder=miniature"]  # pictures that the miniature's encoder knows


@pytest.fixture(scope="module", params=BASES)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The family's name and a base of it."""
    return request.param, BASES[request.param](tmp_path_factory.mktemp(request.param) / "base")


@pytest.fixture(scope="module")
def untouched(base: tuple[str, Path]) -> LoadedBaseModel:
    """That base, loaded in fp32; to be read only."""
    name, folder = base
    return FAMILIES[name].load(str(folder), CPU, torch.float32)


def test_the_chain_from_training_to_scores(
    run, base: tuple[str, Path], untouched: LoadedBaseModel, small_brand: Path
) -> None:
    family, folder = base
    words = [f"family={family}", f"base={folder}", "brand=small", f"name={family}", *FAST_ALL_LAYERS, *SMALL]
    words.append("train.checkpoint_every=1")
    code, text = run("train", *words, "dry_run=true")
    assert code == 0 and "dry run: no problems" in text
    assert run("train", *words, "train.max_steps=2")[0] == 0
    (adapter_of_two_steps,) = files.RUNS.glob(f"{family}-{family}-*/state/step-000002/adapter.safetensors")
    whole = adapter_of_two_steps.read_bytes()
    shutil.rmtree(adapter_of_two_steps.parent)  # as if the run had been killed after its first step
    shutil.rmtree(adapter_of_two_steps.parents[2] / "lora")
    code, text = run("train", *words, "train.max_steps=2")
    assert code == 0 and "resumed at step 1" in text
    assert adapter_of_two_steps.read_bytes() == whole

    (released,) = files.RUNS.glob(f"{family}-{family}-*/lora/{family}.safetensors")
    code, text = run("inspect", str(released))
    described = FAMILIES[family].lora_header_entries_about_base(untouched)
    assert code == 0 and described["modelspec.architecture"] in text
    before = untouched.denoiser.state_dict()
    both = sorted(released.parent.glob("*.safetensors"))
    assert len(both) == 2
    for path in both:
        layers, problems = adapter.lora_layers_and_problems(
            *lorafile.load_tensors_and_metadata(path), lorafile.adaptable_modules_of_pipeline(untouched.pipeline)
        )
        assert not problems and len(layers) > 10
        ours = FAMILIES[family].load(str(folder), CPU, torch.float32)
        lorafile.merge_lora_file_into_pipeline(ours, path)
        moved = {k: v for k, v in ours.denoiser.state_dict().items() if not v.equal(before[k])}
        assert len(moved) == len(layers), "each has been trained"
        if path.stem.endswith(".comfyui"):
            continue  # diffusers refuses alpha among its own names
        theirs = FAMILIES[family].load(str(folder), CPU, torch.float32)
        theirs.pipeline.load_lora_weights(str(path.parent), weight_name=path.name)
        theirs.pipeline.fuse_lora()
        theirs.pipeline.unload_lora_weights()
        other = theirs.denoiser.state_dict()
        assert all(torch.allclose(v, other[k], atol=1e-6) for k, v in moved.items())

    assert run("plan", *words, "plan.num_images=2", "train.max_steps=2")[0] == 0
    assert run("generate", *words, "plan.num_images=2", "train.max_steps=2")[0] == 0
    code, text = run("score", *words, "plan.num_images=2", "train.max_steps=2")
    assert code == 0 and "score: 2 pictures" in text
    (batch,) = files.BATCHES.glob(f"{family}-*")
    drawn = [Image.open(path) for path in (batch / "images").glob("*.png")]
    assert [(image.mode, image.size) for image in drawn] == [("RGB", (64, 64))] * 2


def test_what_the_trainer_predicts_is_what_the_pipeline_would(
    base: tuple[str, Path], untouched: LoadedBaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One denoising step of the pipeline's own, against `predict` on the same latents, level and prompt."""
    name, models = base[0], untouched
    family = FAMILIES[name]
    seen: dict[str, torch.Tensor] = {}
    forward = models.denoiser.forward

    def watched(*given, **named):
        result = forward(*given, **named)
        latents = given[0] if given else named["hidden_states"]
        seen["given"], seen["made"] = (t[0][:, 0][None] if isinstance(t, list) else t for t in (latents, result[0]))
        return result

    monkeypatch.setattr(models.denoiser, "forward", watched)
    told: dict[str, Any] = {"num_inference_steps": 1, models.guidance: models.no_guidance, "output_type": "latent"}
    models.pipeline(prompt="a red cat", height=64, width=64, **told)
    monkeypatch.undo()
    with torch.no_grad():
        shape = family.encode_to_latent_mean_and_deviation(models, plain_pixels(models))[0].shape
        given, made = (t if t.ndim == 4 else unpacked(name, t, shape) for t in (seen["given"], seen["made"]))
        level = models.pipeline.scheduler.timesteps[:1].long() - int(models.schedule.prediction == "flow")
        told = family.encode_prompts(models, ["a red cat"])
        made = -made if name == "zimage" else made  # the pipeline turns it round after the call
        assert torch.allclose(family.predict(models, models.denoiser, given, level, told), made, atol=1e-5)


def test_the_layers_that_a_family_trains_are_inspected_as_their_kind(base: tuple[str, Path]) -> None:
    """`stylegate inspect` counts layers by their names alone, as diffusers and as kohya write them."""
    name, folder = base
    family, models = FAMILIES[name], FAMILIES[name].load(str(folder), CPU, torch.float32)
    kinds = {"attention": "attention", "feed_forward": "feed-forward", "convolution": "convolution and projection"}
    for kind, said in kinds.items():
        endings = family.lora_targets([kind])
        layers = [path for path, _ in models.denoiser.named_modules() if f".{path}".endswith(dotted(endings))]
        assert bool(layers) == bool(endings)
        for path in layers:
            assert layer_kind_from_layer_name(f"{family.COMPONENT}.{path}") == said, path
            assert layer_kind_from_layer_name(f"lora_unet_{path.replace('.', '_')}") == said, path


def dotted(endings: list[str]) -> tuple[str, ...]:
    return tuple(f".{ending}" for ending in endings)


def plain_pixels(models: LoadedBaseModel) -> torch.Tensor:
    return torch.zeros(1, 4 if models.draws_alpha else 3, 64, 64)


def unpacked(name: str, tokens: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """A sequence of patches as a picture; FLUX.2's and Qwen-Image 2.1's latents are patches already."""
    if name == "qwenimage21":
        tokens = tokens[:, -shape[2] * shape[3] :]  # the words stand before them
    if name in ("flux2", "qwenimage21"):
        return tokens.transpose(1, 2).reshape(shape)
    (_, _, height, width), kind = shape, FluxPipeline if name == "flux" else QwenImagePipeline
    return kind._unpack_latents(tokens, 8 * height, 8 * width, 8).reshape(shape)


def test_prompts_that_are_read_one_by_one_are_read_alike(base: tuple[str, Path]) -> None:
    """As `generate` reads them: each once, whatever else is in its batch."""
    name, folder = base
    models = FAMILIES[name].load(str(folder), CPU, torch.float32)
    prompts = ["a red cat", "a blue dog that sits in the snow", "a"]
    with torch.no_grad():
        together = FAMILIES[name].encode_prompts(models, prompts)
        install_cache_in_text_encoders(models.pipeline)
        apart = FAMILIES[name].encode_prompts(models, prompts)
    assert all(torch.allclose(values, apart[key], atol=1e-5) for key, values in together.items())


def test_latents_decode_to_the_picture_that_they_were_made_of(
    base: tuple[str, Path], untouched: LoadedBaseModel
) -> None:
    """Through the pipeline's own way out, from the mean of the latents; compared with the autoencoder alone."""
    name, models = base[0], untouched
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(plain_pixels(models).shape, generator=generator) * 2 - 1
    with torch.no_grad():
        mean, deviation = FAMILIES[name].encode_to_latent_mean_and_deviation(models, pixels)
        film = pixels.unsqueeze(2) if name in FILMS else pixels
        latents = models.pipeline.vae.encode(film).latent_dist
        wanted = models.pipeline.vae.decode(latents.mean).sample
        if name in FILMS:
            config = models.pipeline.vae.config
            centre, spread = (torch.tensor(v).view(1, -1, 1, 1, 1) for v in (config.latents_mean, config.latents_std))
            out = mean.unsqueeze(2) * spread + centre
        elif name == "flux2":
            bn = models.pipeline.vae.bn
            spread = (bn.running_var.view(1, -1, 1, 1) + models.pipeline.vae.config.batch_norm_eps).sqrt()
            out = models.pipeline._unpatchify_latents(mean * spread + bn.running_mean.view(1, -1, 1, 1))
        else:
            out = mean / models.pipeline.vae.config.scaling_factor + (models.pipeline.vae.config.shift_factor or 0)
        assert torch.allclose(models.pipeline.vae.decode(out).sample, wanted, atol=1e-4)
    assert deviation.shape == mean.shape and bool((deviation > 0).all())


def test_a_picture_goes_on_from_its_preview_and_the_preview_after_all_steps_is_the_picture(
    base: tuple[str, Path],
) -> None:
    name, folder = base
    models = FAMILIES[name].load(str(folder), CPU, torch.float32)
    prompts, settings = ["a red cat", "a blue dog"], GenerateConfig(num_inference_steps=3, guidance_scale=3.0)
    forward, asked = models.denoiser.forward, []

    def draw(some: list[int]) -> list[Image.Image]:
        return sample.draw_pictures(models, [prompts[i] for i in some], some, settings, 64)

    def apart(one: list[Image.Image], other: list[Image.Image]) -> int:
        pairs = zip(one, other, strict=True)
        return max(int(np.abs(np.asarray(a, int) - np.asarray(b, int)).max()) for a, b in pairs)

    whole = draw([0, 1])
    assert apart(firststeps.draw_previews_by_first_steps(models, 2, 3, draw).previews, whole) <= 1
    models.denoiser.forward = lambda *given, **named: (asked.append(1), forward(*given, **named))[1]
    first = firststeps.draw_previews_by_first_steps(models, 2, 2, draw)
    of_two_steps = len(asked)
    asked.clear()
    assert apart(firststeps.finish_pictures_after_previews(models, first, [0, 1], draw), whole) == 0
    again = of_two_steps // 2 if name == "qwenimage21" else 0  # the first step fills its cache of words
    assert len(asked) == of_two_steps // 2 + again, "of three steps the third is computed, and no other one"
    assert apart(firststeps.finish_pictures_after_previews(models, first, [1], draw), whole[1:]) <= 1
    assert firststeps.finish_pictures_after_previews(models, first, [], draw) == []


def test_another_familys_base_is_refused_by_name(run, base: tuple[str, Path], small_brand: Path) -> None:
    family, folder = base
    code, text = run("train", "family=sd", f"base={folder}", "brand=small")
    assert code == 2 and "family=sd takes a StableDiffusionPipeline" in text and "give the family of this base" in text
    index = json.loads((folder / "model_index.json").read_text())
    assert index["_class_name"] in text
    code, text = run("train", f"family={family}", "base=miniature", "brand=small")
    assert code == 2 and "miniature" in text


@pytest.mark.parametrize("error", [AssertionError(), ValueError("a broken file\nand where")])
def test_a_tokenizer_that_cannot_be_loaded_is_said_with_what_to_do(tmp_path: Path, error: Exception) -> None:
    class BrokenTokenizer:
        @staticmethod
        def from_pretrained(folder: Path) -> None:
            raise error

    with pytest.raises(ModelError) as refused:
        pipelines.load_tokenizer(BrokenTokenizer, tmp_path / "base" / "tokenizer")
    assert (str(error).partition("\n")[0] or "AssertionError") in str(refused.value)
    assert pipelines.DOWNLOAD_AGAIN in str(refused.value)


def test_a_unet_that_names_no_size_is_refused_before_weights_are_read(tmp_path: Path) -> None:
    for part in ("unet", "vae"):
        (tmp_path / part).mkdir()
        config = json.loads((files.MODELS / "miniature" / "sd" / part / "config.json").read_text())
        (tmp_path / part / "config.json").write_text(json.dumps(config | {"sample_size": None}))
    with pytest.raises(ModelError, match="its unet names no sample_size"):
        FAMILIES["sd"].weightless_model(tmp_path)


def test_sdxl_empty_prompt_is_zeros_as_the_pipeline_draws_it(tmp_path: Path) -> None:
    models = FAMILIES["sdxl"].load(str(BASES["sdxl"](tmp_path / "base")), CPU, torch.float32)
    with torch.no_grad():
        told = FAMILIES["sdxl"].encode_prompts(models, ["", "a cat"])
    assert not told["words"][0].any() and not told["pooled"][0].any() and told["words"][1].any()
    assert told["words"].shape[2] == 64 and told["pooled"].shape == (2, 32)


def test_a_base_in_bf16_encodes_predicts_and_draws(base: tuple[str, Path]) -> None:
    """As on a card: denoiser and text encoders in bf16, the autoencoder in fp32, text encoders fetched to draw."""
    name, folder = base
    family = FAMILIES[name]
    models = family.load(str(folder), CPU, torch.bfloat16)
    assert models.denoiser.dtype == torch.bfloat16 and models.pipeline.vae.dtype == torch.float32
    prepare.add_lora(models, family, Config())
    assert {p.dtype for p in models.denoiser.parameters() if p.requires_grad} == {torch.float32}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        mean, _ = family.encode_to_latent_mean_and_deviation(models, plain_pixels(models))
        told = family.encode_prompts(models, ["a red cat"])
        predicted = family.predict(models, models.denoiser, mean.float(), torch.tensor([500]), told)
        few = GenerateConfig(num_inference_steps=2)
        seen = []
        models.pipeline.vae.decoder.register_forward_hook(lambda module, given, made: seen.append(made.dtype))
        (drawn,) = sample.draw_pictures(models, ["a red cat"], [0], few, 64)
        assert seen == [torch.float32], "decoded exactly"
    assert bool(torch.isfinite(predicted).all()) and drawn.size == (64, 64)


def test_text_encoders_are_fetched_to_read_prompts_and_put_back(base: tuple[str, Path]) -> None:
    """On the meta device in place of main memory: what is left there cannot compute."""
    name, folder = base
    models = FAMILIES[name].load(str(folder), CPU, torch.float32)
    moves = []
    for part in pipelines.text_encoders(models.pipeline):
        moved = part.to
        part.to = lambda place, moved=moved: moves.append(place) or moved("cpu")
        kind = type(part)
        part.__class__ = type(kind.__name__, (kind,), {"device": property(lambda self: torch.device("meta"))})
    with sample.moving_text_encoders_to_device(models):
        assert moves == [CPU] * len(pipelines.text_encoders(models.pipeline))
    assert moves[len(moves) // 2 :] == [torch.device("meta")] * (len(moves) // 2)


ORIGINAL: dict[str, dict[str, tuple[str, ...]]] = {  # layers of the original models, and those that they are fused of
    "flux": {
        "double_blocks.0.img_attn.qkv": tuple(f"transformer_blocks.0.attn.to_{k}" for k in "qkv"),
        "double_blocks.0.txt_attn.proj": ("transformer_blocks.0.attn.to_add_out",),
        "double_blocks.0.img_mlp.0": ("transformer_blocks.0.ff.net.0.proj",),
        "single_blocks.1.linear2": ("single_transformer_blocks.1.proj_out",),
    },
    "flux2": {
        "double_blocks.0.img_attn.qkv": tuple(f"transformer_blocks.0.attn.to_{k}" for k in "qkv"),
        "double_blocks.0.txt_attn.proj": ("transformer_blocks.0.attn.to_add_out",),
        "single_blocks.1.linear1": ("single_transformer_blocks.1.attn.to_qkv_mlp_proj",),
    },
    "zimage": {
        "layers.1.attention.to_q": ("layers.1.attention.to_q",),
        "layers.0.feed_forward.w1": ("layers.0.feed_forward.w1",),
    },
    "qwenimage": {
        "transformer_blocks.0.attn.to_q": ("transformer_blocks.0.attn.to_q",),
        "transformer_blocks.0.img_mlp.net.0.proj": ("transformer_blocks.0.img_mlp.net.0.proj",),
    },
    "qwenimage21": {
        "transformer_blocks.0.attn.to_q": ("transformer_blocks.0.attn.to_q",),
        "transformer_blocks.1.img_mlp.gate_layer": ("transformer_blocks.1.img_mlp.gate_layer",),
    },
    "krea2": {
        "blocks.1.attn.wq": ("transformer_blocks.1.attn.to_q",),
        "blocks.0.attn.gate": ("transformer_blocks.0.attn.to_gate",),
        "blocks.0.mlp.gate": ("transformer_blocks.0.ff.gate",),
        "txtfusion.refiner_blocks.0.attn.wo": ("text_fusion.refiner_blocks.0.attn.to_out.0",),
        "txtmlp.3": ("txt_in.linear_2",),
    },
}


# UNets: tests/stylegate/test_loranames.py; of SD 3.5 diffusers translates no other names.
@pytest.mark.parametrize("base", ORIGINAL, indirect=True)
@pytest.mark.parametrize("kind", ["comfyui", "kohya"])
def test_files_of_other_trainers_are_merged_at_their_strength(
    base: tuple[str, Path], untouched: LoadedBaseModel, tmp_path: Path, kind: str
) -> None:
    """The original models' names, ComfyUI's and kohya's, fused as they are there, alpha half the rank."""
    name, folder = base
    models = FAMILIES[name].load(str(folder), CPU, torch.float32)
    weights, unmoved = models.denoiser.state_dict(), untouched.denoiser.state_dict()
    tensors, wanted = {}, {}
    generator = torch.Generator().manual_seed(0)
    for original, parts in ORIGINAL[name].items():
        shapes = [weights[f"{part}.weight"].shape for part in parts]
        down = torch.randn(4, shapes[0][1], generator=generator)
        up = torch.randn(sum(shape[0] for shape in shapes), 4, generator=generator)
        if kind == "comfyui":
            key, halves = f"diffusion_model.{original}", ("lora_A", "lora_B")
        else:
            key, halves = f"lora_unet_{original.replace('.', '_')}", ("lora_down", "lora_up")
        tensors |= {
            f"{key}.{halves[0]}.weight": down,
            f"{key}.{halves[1]}.weight": up,
            f"{key}.alpha": torch.tensor(2.0),
        }
        rows = (0.5 * up @ down).split([shape[0] for shape in shapes])
        wanted |= dict(zip(parts, rows, strict=True))
    save_file(tensors, tmp_path / "other.safetensors")
    lorafile.merge_lora_file_into_pipeline(models, tmp_path / "other.safetensors")
    for path, change in wanted.items():
        moved = models.denoiser.state_dict()[f"{path}.weight"] - unmoved[f"{path}.weight"]
        assert torch.allclose(moved, change, atol=1e-5), path
    changed = {k for k, v in models.denoiser.state_dict().items() if not v.equal(unmoved[k])}
    assert changed == {f"{path}.weight" for path in wanted}

    given, out = tmp_path / "other.safetensors", tmp_path / "converted.safetensors"
    assert convert.convert([str(given), "to=comfyui", f"base={folder}", f"out={out}"]) == 0
    modules = lorafile.adaptable_modules_of_pipeline(untouched.pipeline)
    first, second = (lorafile.read_lora_layers(path, modules, untouched.pipeline) for path in (given, out))
    assert adapter.largest_relative_difference_of_loras(first, second) <= 1e-6

    down = f"{key}.{halves[0]}.weight"
    odd = {
        "extra": {f"{key}.lora_extra.weight": torch.zeros(1)},
        "rank": {down: torch.zeros(3, tensors[down].shape[1])},
        "axes": {down: torch.zeros(4)},
        "nothing": {down: torch.zeros(0, tensors[down].shape[1])},
        "alphas": {f"{key}.alpha": torch.ones(2)},
    }
    for what, changed in odd.items():
        save_file(tensors | changed, tmp_path / f"{what}.safetensors")
        with pytest.raises(ModelError, match=r"does not fit the base|cannot be used"):
            lorafile.merge_lora_file_into_pipeline(models, tmp_path / f"{what}.safetensors")


def test_text_encoders_of_sdxl_leave_in_files_that_diffusers_draws_the_same_with(
    run, tmp_path: Path, small_brand: Path
) -> None:
    words = [
        "brand=small",
        "name=both",
        "family=sdxl",
        f"base={BASES['sdxl'](tmp_path / 'base')}",
        *FAST_ALL_LAYERS,
        *SMALL,
    ]
    assert run("train", *words, "train.max_steps=2", "lora.text_encoder=true", "train.warmup_steps=0")[0] == 0
    (path,) = files.RUNS.glob("both-sdxl-*/lora/both.safetensors")
    tensors, _ = lorafile.load_tensors_and_metadata(path)
    for component, layers in (("text_encoder", 1), ("text_encoder_2", 2)):
        start = f"{component}.text_model.encoder.layers."  # as ComfyUI and older transformers call them
        own = {k: v for k, v in tensors.items() if k.startswith(start) and k.endswith("lora_B.weight")}
        assert len(own) == 4 * layers and all(bool(value.any()) for value in own.values())


def test_text_encoders_that_are_language_models_are_not_trained(run, base: tuple[str, Path], small_brand: Path) -> None:
    name, folder = base
    if name != "sdxl":
        words = [f"family={name}", f"base={folder}", "brand=small", *FAST_ALL_LAYERS, *SMALL]
        code, text = run("train", *words, "lora.text_encoder=true", "train.max_steps=1")
        assert code == 2 and f"family={name} does not train its text encoders" in text


def test_a_base_in_four_bits_is_trained_handed_out_and_drawn_with(
    run, base: tuple[str, Path], untouched: LoadedBaseModel, small_brand: Path
) -> None:
    """QLoRA (arXiv 2305.14314): only the LoRA is trained, its file is like any other, and `generate` uses it."""
    name, folder = base
    words = [
        f"family={name}",
        f"base={folder}",
        "brand=small",
        f"name={name}-nf4",
        *FAST_ALL_LAYERS,
        *SMALL,
        "hardware.nf4=true",
    ]
    words += ["train.max_steps=2", "train.checkpoint_every=1", "train.warmup_steps=0", "plan.num_images=1"]
    assert run("train", *words)[0] == 0
    (path,) = files.RUNS.glob(f"{name}-nf4-{name}-*/lora/{name}-nf4.safetensors")
    small = pipelines.quantise_to_four_bits(FAMILIES[name].load(str(folder), CPU, torch.float32), CPU)
    assert small.sha256 != untouched.sha256
    packed = {n for n, p in small.denoiser.named_parameters() if p.dtype == torch.uint8}
    assert len(packed) > 8 and all("block" in n or "layers" in n or "refiner" in n for n in packed)
    layers, problems = adapter.lora_layers_and_problems(
        *lorafile.load_tensors_and_metadata(path), lorafile.adaptable_modules_of_pipeline(untouched.pipeline)
    )
    assert not problems and any(bool(layer.up.any()) for layer in adapter.lora_and_dora_layers_by_name(layers).values())
    assert (
        adapter.lora_layers_and_problems(
            *lorafile.load_tensors_and_metadata(path), lorafile.adaptable_modules_of_pipeline(small.pipeline)
        )[1]
        == []
    )
    few = GenerateConfig(num_inference_steps=2)
    (before,) = sample.draw_pictures(small, ["a red cat"], [0], few, 64)
    lorafile.merge_lora_file_into_pipeline(small, path)
    quantised = next(path for path in (n.partition(".")[2] for n in layers) if f"{path}.weight" in packed)
    layer = small.denoiser.get_submodule(quantised)
    (after,) = sample.draw_pictures(small, ["a red cat"], [0], few, 64)
    assert layer.scaling["default_0"] == 1.0 and before.tobytes() != after.tobytes()  # type: ignore[index]
    for verb in ("plan", "generate"):
        assert run(verb, *words)[0] == 0


def test_a_distilled_base_is_said(run, tmp_path: Path, small_brand: Path) -> None:
    folder = BASES["flux2"](tmp_path / "base")
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace('"is_distilled": false', '"is_distilled": true'))
    words = [
        "family=flux2",
        f"base={folder}",
        "brand=small",
        "name=quick",
        *FAST_ALL_LAYERS,
        *SMALL,
        "train.max_steps=1",
    ]
    code, text = run("train", *words)
    assert code == 0 and "note: This base is distilled" in text


@pytest.fixture(scope="module")
def base_with_alpha(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return BASES["qwenimage21"](tmp_path_factory.mktemp("alpha") / "base")


def test_no_neighbour_moves_a_picture_of_qwen_image_2_1(base_with_alpha: Path) -> None:
    """Its transformer counts a picture's place from the words before it, padding included."""
    family = FAMILIES["qwenimage21"]
    models = family.load(str(base_with_alpha), CPU, torch.float32)
    prompts, few = ["a", "a blue dog that sits in the snow"], GenerateConfig(num_inference_steps=2)
    generator = torch.Generator().manual_seed(0)
    noisy, levels = torch.randn(2, 4, 4, 4, generator=generator), torch.tensor([500, 900])
    with torch.no_grad():
        together = family.predict(models, models.denoiser, noisy, levels, family.encode_prompts(models, prompts))
        for i in range(2):
            told = family.encode_prompts(models, prompts[i : i + 1])
            alone = family.predict(models, models.denoiser, noisy[i : i + 1], levels[i : i + 1], told)
            assert torch.allclose(together[i : i + 1], alone, atol=1e-5)
    drawn = sample.draw_pictures(models, prompts, [0, 1], few, 64)
    assert drawn[0].tobytes() == sample.draw_pictures(models, prompts[:1], [0], few, 64)[0].tobytes()


def test_steps_that_are_asked_for_are_drawn_though_the_base_brings_its_own(base_with_alpha: Path) -> None:
    models = FAMILIES["qwenimage21"].load(str(base_with_alpha), CPU, torch.float32)
    models.pipeline.register_to_config(sample_sigmas=[1.0, 0.6, 0.2])
    for steps, grid in ((2, [1.0, 0.5]), (3, [1.0, 0.6, 0.2])):
        sample.draw_pictures(models, ["a"], [0], GenerateConfig(num_inference_steps=steps), 64)
        shift = models.pipeline.scheduler.sigmas
        models.pipeline.scheduler.set_timesteps(sigmas=grid, mu=0.5 - 0.65 * 240 / 3840)  # for 16 tokens
        assert torch.allclose(shift, models.pipeline.scheduler.sigmas)


def test_alpha_is_learned_and_drawn_where_the_brand_keeps_it(
    run, base_with_alpha: Path, small_brand: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "ghosts"
    shutil.copytree(small_brand, folder)
    for path in folder.glob("*/*.png"):
        image = Image.open(path).convert("RGBA")
        image.putalpha(Image.linear_gradient("L").resize(image.size).point([max(0, v - 60) for v in range(256)]))
        image.save(path)
    told = (folder / "brand.yaml").read_text().replace("'#ffffff'", "'#102030'")
    (folder / "brand.yaml").write_text(told.replace("alpha: flatten", "alpha: keep"))
    brand_set, _ = brandcheck.read_checked_brand_set(folder)
    item, kept = brand_set.splits["train"][0], brand_set.brand
    opaque = kept.model_copy(update={"alpha": "flatten"})
    flat = encoded.autoencoder_input_pixels(item, opaque, True, 64, 64)
    assert flat[:, :3].equal(encoded.autoencoder_input_pixels(item, kept, False, 64, 64)) and bool(
        (flat[:, 3] == 1).all()
    )
    pixels = encoded.autoencoder_input_pixels(item, kept, True, 64, 64)
    hidden = (pixels[0, :, pixels[0, 3] == -1] + 1) * 127.5
    assert hidden.shape[1] > 64 and {tuple(p) for p in hidden[:3].T.round().int().tolist()} == {(16, 32, 48)}
    assert pixels[0, 3].max() > 0.5 and not pixels[:, :3].equal(flat[:, :3])

    words = ["family=qwenimage21", f"base={base_with_alpha}", f"brand={folder}", "name=ghosts", *SMALL]
    words += [*FAST, "train.max_steps=1", "plan.num_images=2"]
    for verb in ("train", "plan", "generate"):
        assert run(verb, *words)[0] == 0, verb
    (batch,) = files.BATCHES.glob("ghosts-*")
    drawn = [Image.open(path) for path in sorted((batch / "images").glob("*.png"))]
    assert [image.mode for image in drawn] == ["RGBA"] * 2
    for image in drawn:
        ours = pictures.drawn_picture_as_decoded(image, kept.background)
        theirs = pictures.decode_picture(pictures.png_bytes(image), kept.background)
        assert ours.image.tobytes() == theirs.image.tobytes() and ours.notes == theirs.notes == ("alpha",)
