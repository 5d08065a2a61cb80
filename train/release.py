"""What a finished run hands out: the LoRA in the names of diffusers and of kohya, proven, and its model card."""

import base64
import io
import json
from pathlib import Path

import torch
from peft.tuners.lora import LoraLayer

from stylegate import files, lorafile, loranames, pictures, sample
from stylegate.brandset import Brand, BrandSet
from stylegate.config import Config, GenerateConfig, run_name
from stylegate.families import Family, Models
from stylegate.loranames import Layer

SAME_CHANGE = 1e-6  # relative difference of a layer's change, fp32
THUMBNAIL = 256  # pixels a side at most

CARD = """---
library_name: diffusers
tags: [lora, text-to-image]
base_model: {base}
instance_prompt: "{trigger}"
license: "{licence}"
---
# {name}

A LoRA for the style of {brand}: {style}. Put "{trigger}" into the prompt.

- Learned from {num_pictures} pictures; source: {source}; licence of the pictures: {licence}.
- {steps} steps of batch {batch}, rank {rank}, alpha {alpha:g} (strength {scale:g} is folded into it), on {targets}.
- {passed}
- Digests (sha256): this file {lora_sha256}, data {data}, base {base_sha256}.

```python
pipeline.load_lora_weights(".", weight_name="{file}")
```

For ComfyUI and A1111: {kohya}, strength 1.

Made by stylegate. It knows only what its pictures show; judge what it draws with `stylegate gate`.
"""


def write(
    config: Config, directory: Path, models: Models, family: Family, brand_set: BrandSet, facts: dict, selection: dict
) -> list[Path]:
    """The weights as they are loaded, in both styles of names, and a card; each file is read back and proven.

    Returns lora/<name>.safetensors (diffusers) and lora/<name>.kohya.safetensors (ComfyUI, A1111).
    """
    brand, name, scale = brand_set.brand, run_name(config), selection["scale"]
    layers = lorafile.layers_of(models.denoiser, family.COMPONENT, scale)
    tensors, adapter = loranames.diffusers(layers)
    described = header(config, brand, family, models, facts, selection)
    if picture := first_sample(directory, selection):
        described["modelspec.thumbnail"] = f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"
    path, other = (directory / "lora" / f"{name}{ending}.safetensors" for ending in ("", ".kohya"))
    files.write(path, lorafile.released(tensors, described | adapter))
    files.write(other, lorafile.released(loranames.kohya(layers), described))
    prove(models, brand.trigger, layers, scale, path, other)
    rate = selection["pass_rate"]
    passed = "Its pictures were not judged while it was trained."
    if rate is not None:
        passed = f"{rate:.0%} of {selection['num_prompts']} pictures of held-out captions passed the gate."
    card = CARD.format(
        name=name,
        brand=brand.name,
        style=brand.style or "see its pictures",
        trigger=brand.trigger,
        licence=brand.licence,
        source=brand.source,
        base=public(config.base),
        num_pictures=len(brand_set.splits["train"]),
        steps=selection["step"],
        scale=scale,
        passed=passed,
        batch=config.train.batch_size * facts["processes"],
        rank=config.lora.rank,
        alpha=config.lora.alpha * scale,
        targets=", ".join(config.lora.targets),
        lora_sha256=files.sha256(path),
        data=facts["data"],
        base_sha256=facts["base"],
        file=path.name,
        kohya=other.name,
    )
    files.write(path.parent / "README.md", card)
    return [path, other]


def header(
    config: Config, brand: Brand, family: Family, models: Models, facts: dict, selection: dict
) -> dict[str, str]:
    """ModelSpec 1.0.1 and the least of kohya's ss_ keys. No path, no folder's name, no caption; no date, so that the
    same weights give the same file.
    """
    rank, alpha = str(config.lora.rank), f"{config.lora.alpha * selection['scale']:g}"
    prediction = {"epsilon": "epsilon", "v": "v"}.get(models.schedule.prediction)
    side = sample.resolution_of(config, models)
    return {
        **family.SPEC,
        **({"modelspec.prediction_type": prediction} if prediction else {}),
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.title": run_name(config),
        "modelspec.description": f"The style of {brand.name}, for {public(config.base)}",
        "modelspec.resolution": f"{side}x{side}",
        "modelspec.license": brand.licence,
        "modelspec.trigger_phrase": brand.trigger,
        "modelspec.usage_hint": f'put "{brand.trigger}" into the prompt; strength 1',
        "ss_network_module": "networks.lora",
        "ss_network_dim": rank,
        "ss_network_alpha": alpha,
        "ss_network_args": json.dumps({"conv_dim": rank, "conv_alpha": alpha}),
        "stylegate.data": facts["data"],
        "stylegate.base": facts["base"],
    }


def public(base: str) -> str:
    """A base as a stranger may read it: a shipped name or a hub id as it is, of a path its last part."""
    return Path(base).name if Path(base).expanduser().exists() else base


def first_sample(directory: Path, selection: dict) -> bytes | None:
    """The chosen checkpoint's first picture as a small JPEG, if there is one."""
    scale = "" if selection["scale"] == 1 else f"-scale-{selection['scale']:g}"
    path = directory / "samples" / f"step-{selection['step']:06d}{scale}" / "with" / "0.png"
    if not path.is_file():
        return None
    image = pictures.decode(path.read_bytes()).image
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


@torch.no_grad()
def prove(models: Models, prompt: str, layers: dict[str, Layer], scale: float, path: Path, other: Path) -> None:
    """Read both files back: the same tensors, the same change of every layer; on CPUs, where arithmetic repeats itself,
    also the same picture when diffusers loads the first. The trained adapter leaves the pipeline for that.

    Raises AssertionError: a file that fails has never been right.
    """
    modules = lorafile.modules_of(models.pipeline)
    for file in (path, other):
        read_back, problems = loranames.read(*lorafile.load(file), modules)
        assert not problems and loranames.apart(layers, read_back) <= SAME_CHANGE, (file, problems)
        assert all(one.down.equal(read_back[name].down) for name, one in layers.items()), file
    if models.pipeline.device.type != "cpu":
        return
    for module in models.denoiser.modules():
        if isinstance(module, LoraLayer):
            module.set_scale("default", scale)
    few = GenerateConfig(num_inference_steps=2)
    wanted = sample.draw(models, [prompt], [0], few, models.resolution)[0]
    models.pipeline.unload_lora_weights()
    models.pipeline.load_lora_weights(str(path.parent), weight_name=path.name)
    drawn = sample.draw(models, [prompt], [0], few, models.resolution)[0]
    assert wanted.tobytes() == drawn.tobytes(), f"{path} draws another picture than the weights it was made of"
