"""Each family's whole chain on a tiny random base of its true architecture: train, resume, hand out, draw, score."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from stylegate import adapter, files, lorafile
from stylegate.families import FAMILIES
from tests.conftest import FAST
from tests.tiny import BASES

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=BASES)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The family's name and a base of it."""
    return request.param, BASES[request.param](tmp_path_factory.mktemp(request.param) / "base")


def test_the_chain_from_training_to_scores(run, base: tuple[str, Path], small_brand: Path) -> None:
    family, folder = base
    words = [f"family={family}", f"base={folder}", "brand=small", f"name={family}", *FAST, "family.resolution=64"]
    words.append("train.checkpoint_every=1")
    code, text = run("train", *words, "dry_run=true")
    assert code == 0 and "dry run: no problems" in text
    assert run("train", *words, "train.max_steps=1")[0] == 0
    code, text = run("train", *words, "train.max_steps=2")
    assert code == 0 and "resumed at step 1" in text
    whole = [word.replace(f"name={family}", f"name={family}-whole") for word in words]
    assert run("train", *whole, "train.max_steps=2")[0] == 0
    (one,), (other,) = (
        list(files.RUNS.glob(f"{name}-{family}-*/state/step-000002/adapter.safetensors"))
        for name in (family, f"{family}-whole")
    )
    assert one.read_bytes() == other.read_bytes()

    (released,) = files.RUNS.glob(f"{family}-{family}-*/lora/{family}.safetensors")
    code, text = run("inspect", str(released))
    models = FAMILIES[family].load(str(folder), CPU, torch.float32)
    assert code == 0 and FAMILIES[family].spec(models)["modelspec.architecture"] in text
    both = sorted(released.parent.glob("*.safetensors"))
    assert len(both) == 2
    for path in both:
        layers, problems = adapter.read(*lorafile.load(path), lorafile.modules_of(models.pipeline))
        assert not problems and len(layers) > 10
        ours, theirs = (FAMILIES[family].load(str(folder), CPU, torch.float32) for _ in range(2))
        lorafile.attach(ours, path)
        before = models.denoiser.state_dict()
        moved = {k: v for k, v in ours.denoiser.state_dict().items() if not v.equal(before[k])}
        assert len(moved) == len(layers)
        if path.stem.endswith(".comfyui"):
            continue  # diffusers refuses alpha among its own names
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
    drawn = [Image.open(path).size for path in (batch / "images").glob("*.png")]
    assert drawn == [(64, 64)] * 2


def test_what_the_trainer_predicts_is_what_the_pipeline_would(base: tuple[str, Path]) -> None:
    """One denoising step of the pipeline's own, against `predict` on the same latents, level and prompt."""
    name, folder = base
    family = FAMILIES[name]
    models = family.load(str(folder), CPU, torch.float32)
    seen: dict[str, torch.Tensor] = {}
    forward = models.denoiser.forward

    def watched(*given, **named):
        result = forward(*given, **named)
        latents = given[0] if given else named["hidden_states"]
        seen["given"], seen["made"] = (t[0][:, 0][None] if isinstance(t, list) else t for t in (latents, result[0]))
        return result

    models.denoiser.forward = watched
    models.pipeline(
        prompt="a red cat", num_inference_steps=1, guidance_scale=0.0, height=64, width=64, output_type="latent"
    )
    models.denoiser.forward = forward
    with torch.no_grad():
        shape = family.encode_images(models, torch.zeros(1, 3, 64, 64))[0].shape
        given, made = (t if t.ndim == 4 else t.transpose(1, 2).reshape(shape) for t in (seen["given"], seen["made"]))
        level = models.pipeline.scheduler.timesteps[:1].long() - int(models.schedule.prediction == "flow")
        told = family.encode_prompts(models, ["a red cat"])
        made = -made if name == "zimage" else made  # the pipeline turns it round after the call
        assert torch.allclose(family.predict(models, models.denoiser, given, level, told), made, atol=1e-5)


def test_latents_decode_to_the_picture_that_they_were_made_of(base: tuple[str, Path]) -> None:
    """Through the pipeline's own way out, from `encode_images`' mean; compared with the autoencoder alone."""
    name, folder = base
    models = FAMILIES[name].load(str(folder), CPU, torch.float32)
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        mean, deviation = FAMILIES[name].encode_images(models, pixels)
        latents = models.pipeline.vae.encode(pixels).latent_dist
        wanted = models.pipeline.vae.decode(latents.mean).sample
        if name == "flux2":
            bn = models.pipeline.vae.bn
            spread = (bn.running_var.view(1, -1, 1, 1) + models.pipeline.vae.config.batch_norm_eps).sqrt()
            out = models.pipeline._unpatchify_latents(mean * spread + bn.running_mean.view(1, -1, 1, 1))
        else:
            out = mean / models.pipeline.vae.config.scaling_factor + (models.pipeline.vae.config.shift_factor or 0)
        assert torch.allclose(models.pipeline.vae.decode(out).sample, wanted, atol=1e-4)
    assert deviation.shape == mean.shape and bool((deviation > 0).all())


def test_another_familys_base_is_refused_by_name(run, base: tuple[str, Path]) -> None:
    family, folder = base
    code, text = run("train", "family=sd", f"base={folder}", "brand=neon")
    assert code == 2 and "family=sd takes a StableDiffusionPipeline" in text
    index = json.loads((folder / "model_index.json").read_text())
    assert index["_class_name"] in text
    code, text = run("train", f"family={family}", "base=miniature", "brand=neon")
    assert code == 2 and "miniature" in text


def test_sdxl_empty_prompt_is_zeros_as_the_pipeline_draws_it(tmp_path: Path) -> None:
    models = FAMILIES["sdxl"].load(str(BASES["sdxl"](tmp_path / "base")), CPU, torch.float32)
    with torch.no_grad():
        told = FAMILIES["sdxl"].encode_prompts(models, ["", "a cat"])
    assert not told["words"][0].any() and not told["pooled"][0].any() and told["words"][1].any()
    assert told["words"].shape[2] == 64 and told["pooled"].shape == (2, 32)
