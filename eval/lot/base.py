"""The base's own pictures of a plan's prompts. A LoRA that has not learned its brand draws much as its base does.

The reader of the brand is shown them as a foreign set (eval/scorers/brand.py): they have the subjects of the batch, but
not its style. They lie in the batch's folder, in base/. Each is drawn once for a base and a prompt, and kept in the
cache. Few denoising steps are enough: a picture must show the hand, not be finished.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.lot.batch import PlanSlot
from eval.lot.comparison import BASE, FEWEST_OF_BASE
from eval.lot.record import BatchFacts
from stylegate import files, pictures, progress, sample
from stylegate.cache import ArrayCache
from stylegate.configgroups import GenerateConfig
from stylegate.families import LoadedBaseModel

PICTURES, STEPS = 32, 8  # at most
VERSION = "base-1"  # raise it when anything below changes the pictures


def prompts_for_base_pictures(slots: list[PlanSlot]) -> list[tuple[str, str]]:
    """(prompt, negative prompt) of at most PICTURES slots, spread over the plan, which the base draws without the LoRA;
    [] for a plan of fewer than FEWEST_OF_BASE slots.
    """
    if len(slots) < FEWEST_OF_BASE:
        return []
    count = min(PICTURES, len(slots))
    spread = [slots[i * len(slots) // count] for i in range(count)]
    return [(slot.prompt, slot.negative_prompt) for slot in spread]


def settings_with_few_steps(settings: GenerateConfig) -> GenerateConfig:
    """The settings with STEPS denoising steps at most."""
    return replace(settings, num_inference_steps=min(STEPS, settings.num_inference_steps))


def keys_of_base_pictures(
    models: LoadedBaseModel,
    base: str,
    family: dict[str, Any],
    told: GenerateConfig,
    drawn_as: tuple[int, str],
    prompts: Sequence[tuple[str, str]],
) -> list[str]:
    """For each picture of the base a digest of all that it depends on: weights, settings, size, prompt. Its seed is
    made of it.
    """
    same = [VERSION, base, family, told.num_inference_steps, told.guidance_scale, *drawn_as]
    same += [models.background] if models.draws_alpha else []
    keys, times = [], Counter[str]()
    for prompt, negative in prompts:
        keys.append(files.canonical_sha256([*same, prompt, negative, times[prompt]]))
        times[prompt] += 1
    return keys


def draw_base_pictures_as_png(
    models: LoadedBaseModel,
    told: GenerateConfig,
    resolution: int,
    prompts: Sequence[tuple[str, str]],
    keys: Sequence[str],
) -> list[bytes]:
    """Draw a picture of each prompt by `models`, the base without the LoRA: the bytes of PNG files, in that order."""
    seeds = [int(key[:8], 16) for key in keys]
    drawn = sample.draw_pictures(models, [p for p, _ in prompts], seeds, told, resolution, [n for _, n in prompts])
    return [pictures.png_bytes(image) for image in drawn]


def draw_and_write_base_pictures(
    models: LoadedBaseModel,
    facts: BatchFacts,
    slots: list[PlanSlot],
    folder: Path,
    settings: GenerateConfig,
    drawn_as: tuple[int, str],
) -> None:
    """Write base/ in the batch's `folder`: a PNG for each of at most PICTURES slots, drawn by `models` from its prompt.

    `models` is the base without the LoRA, `drawn_as` the side in pixels and the precision. Nothing is written of a plan
    of fewer than FEWEST_OF_BASE slots. Pictures of a plan that has changed meanwhile are removed.
    """
    if not (prompts := prompts_for_base_pictures(slots)):
        write_base_pictures(folder, {})
        return
    told = settings_with_few_steps(settings)
    keys = keys_of_base_pictures(models, facts.base, facts.family.json_data_without_defaults(), told, drawn_as, prompts)

    def draw_pngs_of_prompt_indexes(some: list[int]) -> list[dict[str, NDArray]]:
        """Rows for the cache: the bytes of the PNG that is drawn of each prompt `prompts[i]`, for i in `some`."""
        drawn = draw_base_pictures_as_png(
            models, told, drawn_as[0], [prompts[i] for i in some], [keys[i] for i in some]
        )
        return [{"png": np.frombuffer(content, np.uint8)} for content in drawn]

    with progress.progress_bar("base", len(keys)) as tick:
        kept = ArrayCache().get_or_compute(keys, settings.batch_size, draw_pngs_of_prompt_indexes, tick)
    write_base_pictures(folder, {key: row["png"].tobytes() for key, row in zip(keys, kept, strict=True) if row})


def write_base_pictures(folder: Path, by_key: Mapping[str, bytes]) -> None:
    """Write PNG files by their keys into base/ of a batch's folder; others there are removed."""
    contents = {f"{key[:16]}.png": content for key, content in by_key.items()}
    for path in (folder / BASE).glob("*.png"):
        if path.name not in contents:
            path.unlink()
    for name, content in contents.items():
        if not (folder / BASE / name).exists():
            files.write_atomically(folder / BASE / name, content)
