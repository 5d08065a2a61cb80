"""The stage that draws, in this process and on workers of an engine: from rows with prompts and seeds to pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from eval.engines.parts import Row
from eval.lot.base import draw_base_pictures_as_png, keys_of_base_pictures, settings_with_few_steps
from eval.lot.record import BatchRecord
from stylegate import brandset, hardware, lorafile, pictures, sample
from stylegate.basename import base_name_for_drawing
from stylegate.config import Config, config_as_dict
from stylegate.configgroups import FamilyConfig, GenerateConfig
from stylegate.embedded import install_cache_in_text_encoders
from stylegate.errors import ModelError
from stylegate.families import FAMILIES, LoadedBaseModel, pipelines
from stylegate.files import is_path
from stylegate.watermark import load_watermark, watermark_bit_string, watermark_weights_digest


def arguments_for_picture_drawing_stage(
    config: Config, record: BatchRecord, generate: GenerateConfig
) -> dict[str, Any]:
    """The arguments of `PictureDrawingStage` as JSON data.

    Paths are absolute, since a worker may start in another folder.
    """
    base, facts = base_name_for_drawing(config), record.facts
    brand = brandset.read_brand_file(brandset.brand_folder(config.brand)) if config.brand else None
    lora = lorafile.lora_file_for_drawing(config)
    return {
        "family": facts.family.json_data_without_defaults(),
        "base": str(Path(base).expanduser().resolve()) if is_path(base) and Path(base).expanduser().exists() else base,
        "base_sha256": facts.base,
        "lora": str(lora) if lora else None,
        "lora_sha256": facts.lora,
        "background": brand.background_for_drawn_pictures() if brand else None,
        "watermark": str(Path(config.watermark).expanduser().resolve()) if config.watermark else None,
        "watermark_sha256": facts.watermark,
        "precision": record.precision
        or hardware.choose_fp32_or_bf16(config.hardware),  # a batch keeps what it began in
        "nf4": config.hardware.nf4,
        "device": hardware.device_type(config.hardware),
        "threads": config.hardware.threads,
        "generate": config_as_dict(generate),
    }


class PictureDrawingStage:
    """Draws pictures of prompts and seeds, by a base that is loaded once; an engine calls it with rows.

    Raises ModelError if base, LoRA or watermark have other weights here than the batch was begun with.
    """

    def __init__(
        self,
        *,
        family: dict[str, Any],
        base: str,
        base_sha256: str,
        lora: str | None,
        lora_sha256: str | None,
        background: str | None,
        watermark: str | None,
        watermark_sha256: str,
        precision: str,
        nf4: bool,
        device: str,
        threads: int | None,
        generate: dict[str, Any],
    ) -> None:
        self.family, self.base, self.base_sha256 = family, base, base_sha256
        self.lora, self.lora_sha256, self.background = lora, lora_sha256, background
        self.precision, self.nf4, self.generate = precision, nf4, GenerateConfig(**generate)
        if threads:
            torch.set_num_threads(threads)
        self.device = torch.device(device)
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise ModelError("a worker sees no CUDA device", next_step="give workers a GPU, or hardware.device=cpu.")
        if lora and not Path(lora).is_file():
            raise ModelError(
                f"the LoRA {lora} is missing on the worker's machine", next_step="copy it to all machines."
            )
        if lora and lorafile.lora_file_digest(Path(lora)) != lora_sha256:
            raise ModelError(f"the LoRA {lora} is another one on the worker's machine", next_step="copy it anew.")
        if watermark_weights_digest(watermark) != watermark_sha256:
            raise ModelError(f"watermark={watermark} has other weights on the worker's machine", next_step="copy it.")
        self.mark = load_watermark(watermark) if watermark else None
        self.has_lora, self.models = False, self._load_base_without_lora()

    def _load_base_without_lora(self) -> LoadedBaseModel:
        """Load the base model without the LoRA onto the device, set `self.resolution` and return the model. Raises
        ModelError if the sha256 of its weights is not `base_sha256`, that of the base the batch was begun with.
        """
        dtype = hardware.weights_dtype(self.precision, self.device)
        models = FAMILIES[self.family["name"]].load(self.base, torch.device("cpu"), dtype)
        if self.nf4:
            models = pipelines.quantise_to_four_bits(models, self.device)
        if models.sha256 != self.base_sha256:
            raise ModelError(
                f"base={self.base} has other weights here than the batch was begun with",
                next_step="give all machines the same files of the base.",
            )
        models = models._replace(background=self.background)
        models.pipeline.to(self.device)
        told = Config(base=self.base, family=FamilyConfig(**self.family))
        self.resolution = sample.drawing_resolution(told, models)
        return models

    def merge_or_remove_lora(self, wanted: bool) -> LoadedBaseModel:
        """The base with its LoRA merged in if `wanted`, else without it. To be rid of a merged LoRA the base is loaded
        again.
        """
        if self.has_lora and not wanted:
            self.has_lora, self.models = False, self._load_base_without_lora()
        if wanted and not self.has_lora:
            if self.lora:
                lorafile.merge_lora_file_into_pipeline(self.models, Path(self.lora))
            install_cache_in_text_encoders(self.models.pipeline)
            self.has_lora = True
        return self.models

    def draw_with_lora_and_watermark(
        self, prompts: Sequence[str], negatives: Sequence[str], seeds: Sequence[int]
    ) -> list[Image.Image]:
        """Draw a picture of each prompt and seed, with LoRA and watermark. How many are drawn at once can change last
        bits.
        """
        models = self.merge_or_remove_lora(True)
        with hardware.autocast_to_bf16(self.device, self.precision):
            drawn = sample.draw_pictures(models, prompts, seeds, self.generate, self.resolution, negatives)
        if not self.mark:
            return drawn
        bits = [watermark_bit_string(self.base_sha256, self.lora_sha256, seed) for seed in seeds]
        return [self.mark.embed_bits(image, some) for image, some in zip(drawn, bits, strict=True)]

    def draw_base_pngs_by_key(self, prompts: Sequence[tuple[str, str]]) -> dict[str, bytes]:
        """By key (eval/lot/base.py) the bytes of a PNG file: what the base draws without the LoRA, in few steps, of
        each (prompt, negative prompt).
        """
        models, told = self.merge_or_remove_lora(False), settings_with_few_steps(self.generate)
        drawn_as, size = (self.resolution, self.precision), self.generate.batch_size
        keys = keys_of_base_pictures(models, self.base_sha256, self.family, told, drawn_as, prompts)
        found: list[bytes] = []
        with hardware.autocast_to_bf16(self.device, self.precision):
            for i in range(0, len(keys), size):
                some = slice(i, i + size)
                found += draw_base_pictures_as_png(models, told, self.resolution, prompts[some], keys[some])
        return dict(zip(keys, found, strict=True))

    def __call__(self, rows: Sequence[dict[str, Any]]) -> Mapping[str, Row]:
        """Draw the rows: by a row's id the bytes of PNG files, those of `pictures` by their place in the row, those of
        `base` by their keys.

        A row is drawn whole. Of `pictures` each has prompt, negative prompt and seed; `base` are prompts and negatives.
        """
        made = {}
        for row in rows:
            if "base" in row:
                drawn = self.draw_base_pngs_by_key([(prompt, negative) for prompt, negative in row["base"]])
            else:
                prompts, negatives, seeds = zip(*row["pictures"], strict=True)
                drawn = {
                    str(i): pictures.png_bytes(one)
                    for i, one in enumerate(self.draw_with_lora_and_watermark(prompts, negatives, seeds))
                }
            made[row["id"]] = {name: np.frombuffer(content, np.uint8) for name, content in drawn.items()}
        return made
