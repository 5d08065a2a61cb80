"""The base's own pictures of a plan's prompts. A LoRA that has not learned its brand draws much as its base does.

The reader of the brand is shown them as a foreign set (eval/scorers/brand.py): they have the subjects of the batch, but
not its style. They lie in the batch's folder, in base/. Each is drawn once for a base and a prompt, and kept in the
cache. Few denoising steps are enough: a picture must show the hand, not be finished.
"""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.lot.batch import PlanSlot
from eval.lot.comparison import BASE, FEWEST_OF_BASE
from eval.lot.record import BatchFacts
from stylegate import files, pictures, progress, sample
from stylegate.cache import ArrayCache
from stylegate.config import GenerateConfig
from stylegate.families import LoadedBaseModel

PICTURES, STEPS = 32, 8  # at most
VERSION = "base-1"  # raise it when anything below changes the pictures


def draw_base_pictures(
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
    if len(slots) < FEWEST_OF_BASE:
        return
    told = replace(settings, num_inference_steps=min(STEPS, settings.num_inference_steps))
    chosen = slots[:: max(1, len(slots) // PICTURES)][:PICTURES]
    same = [VERSION, facts.base, facts.family.content(), told.num_inference_steps, told.guidance_scale, *drawn_as]
    same += [models.background] if models.draws_alpha else []
    keys, times = [], Counter[str]()
    for slot in chosen:
        keys.append(files.canonical_sha256([*same, slot.prompt, slot.negative_prompt, times[slot.prompt]]))
        times[slot.prompt] += 1

    def draw_pngs_at(some: list[int]) -> list[dict[str, NDArray]]:
        """Rows for the cache: the bytes of the PNG that is drawn of each prompt `chosen[i]`, for i in `some`."""
        prompts, negatives = [chosen[i].prompt for i in some], [chosen[i].negative_prompt for i in some]
        seeds = [int(keys[i][:8], 16) for i in some]
        drawn = sample.draw_pictures(models, prompts, seeds, told, drawn_as[0], negatives)
        return [{"png": np.frombuffer(pictures.png_bytes(image), np.uint8)} for image in drawn]

    with progress.progress_bar("base", len(keys)) as tick:
        kept = ArrayCache().get_or_compute(keys, settings.batch_size, draw_pngs_at, tick)
    contents = {f"{key[:16]}.png": row["png"].tobytes() for key, row in zip(keys, kept, strict=True) if row}
    for path in (folder / BASE).glob("*.png"):
        if path.name not in contents:
            path.unlink()
    for name, content in contents.items():
        if not (folder / BASE / name).exists():
            files.write_atomically(folder / BASE / name, content)
