"""What a finished run hands out: the LoRA in the names of diffusers and of kohya, proven, and its model card."""

import base64
import io
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import torch
import yaml
from peft.tuners.lora import LoraLayer
from torch import nn

from stylegate import adapter, files, lorafile, pictures, sample
from stylegate.adapter import LoraOrDoraLayer
from stylegate.basename import base_name_for_drawing
from stylegate.brandset import Brand, BrandSet
from stylegate.config import Config, run_or_batch_name
from stylegate.configgroups import GenerateConfig
from stylegate.families import Family, LoadedBaseModel
from stylegate.readers import SMALLEST_WIDTH
from train.comfyui import ONE_FILE, WorkflowSettings, comfyui_workflow
from train.evaluate import folder_of_final_or_preview_pictures
from train.sharding import is_sharded_among_processes
from train.weights import setting_lora_strength_temporarily

SAME_CHANGE = 1e-6  # relative difference of a layer's change, fp32
THUMBNAIL = 256  # pixels a side at most
OTHERS = {
    "unet": ("kohya", adapter.to_kohya),
    "transformer": ("comfyui", adapter.to_comfyui),
}  # styles for other programs

CARD = """---
{front}---
# {name}

A LoRA for the style of {brand}: {style}. Put "{trigger}" into the prompt.

- Learned from {num_pictures} pictures{then}; source: {source}; licence of the pictures: {licence}.
- {steps} steps of batch {batch}, rank {rank}, on {targets}. The matrices hold the strength: {scale:g}.
- {bases}
- {passed}
- Digests (sha256): this file {lora_sha256}, data {data}, base {base_sha256}{draw_base}.

```python
pipeline.load_lora_weights(".", weight_name={file!r})
```

{others}

Made by stylegate. It knows only what its pictures show; judge what it draws with `stylegate gate`.
"""


def model_card_text(front: dict[str, Any], **facts: Any) -> str:
    """The text of a model card: front matter as YAML, then `CARD` with each fact that is text escaped for Markdown."""
    shown = {
        name: escape_markdown(fact) if isinstance(fact, str) and name != "file" else fact
        for name, fact in facts.items()
    }
    dumped = yaml.safe_dump(front, allow_unicode=True, sort_keys=False, width=math.inf)
    return CARD.format(front=dumped, **shown)


def escape_markdown(text: str) -> str:
    """The text on one line, with a backslash before each character of markup, so that Markdown, and HTML in it, shows
    it as it is written.
    """
    return re.sub(r"([\\`*_\[\]<>&#|~])", r"\\\1", " ".join(text.split()))


def write_release(
    config: Config,
    directory: Path,
    models: LoadedBaseModel,
    adapted: nn.ModuleDict,
    family: Family,
    brand_set: BrandSet,
    facts: dict,
    selection: dict,
) -> list[Path]:
    """Write the LoRA in both styles of names, its model card, and for some families a workflow for ComfyUI; each LoRA
    file is read back and proven before it appears.

    Returns lora/<name>.safetensors (diffusers) and the file for other programs: lora/<name>.kohya.safetensors (ComfyUI,
    A1111), of a transformer lora/<name>.comfyui.safetensors.
    """
    brand, name, scale = brand_set.brand, run_or_batch_name(config), selection["scale"]
    layers = lorafile.adapters_as_plain_lora_layers(dict(adapted.items()), scale)
    described = family.lora_header_entries_about_base(models) | lora_metadata(config, brand, models, facts)
    if picture := sample_thumbnail(directory, selection, brand.background):
        described["modelspec.thumbnail"] = f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"
    folder = directory / "lora"
    style, write_other = OTHERS[family.COMPONENT]
    path, other = folder / f"{name}.safetensors", folder / f"{name}.{style}.safetensors"
    rate = selection["pass_rate"]
    passed = "While it was trained, its pictures were not judged, or none passed the gate."
    if rate is not None:
        passed = f"{rate:.0%} of {selection['num_prompts']} pictures of held-out captions passed the gate."
    front = {
        "library_name": "diffusers",
        "tags": ["lora", "text-to-image"],
        "base_model": base_name_for_publication(base_name_for_drawing(config)),
        "instance_prompt": brand.trigger,
        "license": brand.licence,
    }
    facts_of_card = {
        "name": name,
        "brand": brand.name,
        "style": brand.style or "see its pictures",
        "trigger": brand.trigger,
        "licence": brand.licence,
        "source": brand.source,
        "num_pictures": len(brand_set.splits["train"]),
        "then": f", then from pairs of better and worse ones ({facts['preferences']})" if config.preferences else "",
        "steps": selection["step"],
        "scale": next(iter(layers.values())).alpha / config.lora.rank,
        "passed": passed,
        "bases": f"For {bases_in_words(config)}.",
        "batch": config.train.batch_size * facts["processes"],
        "rank": config.lora.rank,
        "targets": ", ".join(config.lora.targets),
        "data": facts["data"],
        "base_sha256": facts["base"],
        "draw_base": f", base that draws {facts['draw_base']}" if config.draw_base else "",
        "file": path.name,
        "others": other_programs_in_words(models, other.name),
    }

    def write_release_files(partial: Path) -> None:
        # Not every program reads alpha from where it stands (docs/lora-files.md); a matrix none of them passes over.
        written = {name: adapter.with_alpha_equal_to_rank(layer) for name, layer in layers.items()}
        tensors, alphas = adapter.to_diffusers(written)
        files.write_atomically(partial / path.name, lorafile.published_lora_bytes(tensors, described | alphas))
        files.write_atomically(partial / other.name, lorafile.published_lora_bytes(write_other(written), described))
        digest = files.sha256_of_file(partial / path.name)
        files.write_atomically(partial / "README.md", model_card_text(front, lora_sha256=digest, **facts_of_card))
        side = sample.drawing_resolution(config, models)
        if config.family.name in ONE_FILE:
            zero_snr = bool(models.pipeline.scheduler.config.get("rescale_betas_zero_snr"))
            said = WorkflowSettings(
                other.name, brand.trigger, side, name, models.schedule.prediction == "v", zero_snr=zero_snr
            )
            files.write_json(partial / f"{name}.comfyui.json", comfyui_workflow(said, config.generate))
        check_written_lora_files(
            models, adapted, brand.trigger, side, layers, scale, partial / path.name, partial / other.name
        )
        shutil.rmtree(folder, ignore_errors=True)  # of fewer steps; a kill here leaves none, the same command makes it

    files.write_folder_atomically(folder, write_release_files)
    return [path, other]


def other_programs_in_words(models: LoadedBaseModel, file: str) -> str:
    """A sentence on the LoRA file for other programs: which ones read it, or that none has a base as small as this."""
    programs = "ComfyUI and A1111" if file.endswith(".kohya.safetensors") else "ComfyUI"
    unet = getattr(models.pipeline, "unet", None)
    if unet is not None and unet.config.cross_attention_dim < SMALLEST_WIDTH:
        reason = "They have no base so small: only stylegate and diffusers draw with it."
        return f"In the names of {programs}: {file}. {reason}"
    return f"For {programs}: {file}, strength 1."


def lora_metadata(config: Config, brand: Brand, models: LoadedBaseModel, facts: dict) -> dict[str, str]:
    """The metadata of a LoRA file that its family does not give, key to text: ModelSpec 1.0.1, the few keys of kohya's
    (ss_...) that readers need, and stylegate's own (stylegate....).

    It holds no path and no caption, and no date: the same run gives the same file.
    """
    rank = str(config.lora.rank)
    prediction = models.schedule.prediction
    side = sample.drawing_resolution(config, models)
    return {
        **({"modelspec.prediction_type": prediction} if prediction in ("epsilon", "v") else {}),
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.title": run_or_batch_name(config),
        "modelspec.description": f"The style of {brand.name}, for {bases_in_words(config)}",
        "modelspec.resolution": f"{side}x{side}",
        "modelspec.license": brand.licence,
        "modelspec.trigger_phrase": brand.trigger,
        "modelspec.usage_hint": f'put "{brand.trigger}" into the prompt; strength 1',
        "ss_network_module": "networks.lora",
        "ss_network_dim": rank,
        "ss_network_alpha": rank,
        "ss_network_args": json.dumps({"conv_dim": rank, "conv_alpha": rank}),
        "stylegate.data": facts["data"],
        "stylegate.base": facts["base"],
        **({"stylegate.draw_base": facts["draw_base"]} if config.draw_base else {}),
        **preference_metadata(config, facts),
    }


def preference_metadata(config: Config, facts: dict) -> dict[str, str]:
    """The metadata of a LoRA file that is about preferences: the objective, their digest, and the LoRA that training
    began with.

    It is empty for a LoRA that learned a brand's pictures alone.
    """
    if config.preferences is None:
        return {}
    said = {"objective": config.objective.name, "preferences": facts["preferences"], "start": facts["start"] or "none"}
    return {f"stylegate.{name}": value for name, value in said.items()}


def bases_in_words(config: Config) -> str:
    """The name of the base that draws, and of the one that the LoRA was trained on where it is another."""
    draws = base_name_for_publication(base_name_for_drawing(config))
    return f"{draws}; trained on {base_name_for_publication(config.base)}" if config.draw_base else draws


def base_name_for_publication(base: str) -> str:
    """The name of a base for publication: a shipped name or a hub id; for a path of this machine "a local base"."""
    return "a local base" if files.is_path(base) and Path(base).expanduser().exists() else base


def sample_thumbnail(directory: Path, selection: dict, background: str) -> bytes | None:
    """The first picture of the chosen checkpoint and strength, as the bytes of a JPEG of at most THUMBNAIL pixels a
    side; None if there is none.

    Transparent parts show `background`.
    """
    path = folder_of_final_or_preview_pictures(directory, selection["step"], selection["scale"]) / "with" / "0.png"
    if not path.is_file():
        return None
    image = pictures.decode_picture(path.read_bytes(), background).image
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


@torch.no_grad()
def check_written_lora_files(
    models: LoadedBaseModel,
    adapted: nn.ModuleDict,
    prompt: str,
    side: int,
    layers: dict[str, LoraOrDoraLayer],
    scale: float,
    path: Path,
    other: Path,
) -> None:
    """Read the two LoRA files `path` and `other` back and check that each layer changes its weight as the trained layer
    does.

    On CPUs, where arithmetic repeats itself, diffusers must also draw the same picture with the first file, unless the
    base is split among processes. The trained adapter is then unloaded from the pipeline. Raises AssertionError, since
    a file that fails is a bug of this program.
    """
    modules = lorafile.adaptable_modules_of_pipeline(models.pipeline)
    for file in (path, other):
        read_back, problems = adapter.lora_layers_and_problems(*lorafile.load_tensors_and_metadata(file), modules)
        assert not problems and adapter.largest_relative_difference_of_loras(layers, read_back) <= SAME_CHANGE, (
            file,
            problems,
        )
    if models.pipeline.vae.device.type != "cpu" or is_sharded_among_processes(
        models.denoiser
    ):  # one process alone draws nothing there
        return
    few = GenerateConfig(num_inference_steps=2)
    with setting_lora_strength_temporarily(
        adapted, scale
    ):  # and then as in the files, so that both pictures round alike
        fold_strength_into_matrices(adapted)
        wanted = sample.draw_pictures(models, [prompt], [0], few, side)[0]
    models.pipeline.unload_lora_weights()
    models.pipeline.load_lora_weights(str(path.parent), weight_name=path.name)
    drawn = sample.draw_pictures(models, [prompt], [0], few, side)[0]
    assert wanted.tobytes() == drawn.tobytes(), f"{path} draws another picture than the weights it was made of"


def fold_strength_into_matrices(adapted: nn.Module) -> None:
    """Multiply the strength of each LoRA layer into its second matrix, in place: the layer's change stays the same."""
    for layer in adapted.modules():
        if isinstance(layer, LoraLayer):
            weight: torch.Tensor = layer.lora_B["default"].weight  # type: ignore[assignment]
            weight.mul_(layer.scaling["default"])
            layer.scaling["default"] = 1.0
