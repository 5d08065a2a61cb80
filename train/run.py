"""A training run while it lasts: what train/prepare.py makes, and what every part of the training is handed."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import Tensor, nn

from stylegate.brandset import BrandPicture, BrandSet
from stylegate.config import Config
from stylegate.families import Family, LoadedBaseModel
from train.encoded import EncodedTrainingSet

PATIENCE = timedelta(hours=2)  # how long processes wait for one that still encodes or draws its share


@dataclass(kw_only=True, slots=True)
class LiveTrainingRun:
    """One process's view of the run. All processes hold equal values but for the accelerator's rank and device."""

    config: Config
    directory: Path  # checkpoints/<run>/
    brand_set: BrandSet
    family: Family
    models: LoadedBaseModel  # that are trained on
    adapted: nn.ModuleDict  # the parts of the base that carry the LoRA, by component ("unet", "text_encoder", ...)
    drawing: LoadedBaseModel  # that draw: `models`, or with draw_base= another base of the same architecture
    drawing_adapted: nn.ModuleDict  # its parts that carry the LoRA: `adapted`, or copies that evaluations fill
    accelerator: Accelerator
    learned: list[BrandPicture]  # train/; with preferences the chosen pictures of all pairs, then the rejected ones
    data: EncodedTrainingSet  # latents and prompt encodings of `learned`
    buckets: list[list[int]]  # numbers of the views of one shape, a list for each shape; of pairs the chosen ones
    precision: str  # "fp32" or "bf16", of training and of drawing
    facts: dict[str, Any]  # what the directory may never change: digests, processes, precision, threads, compile
    reference: list[Tensor]  # with preferences: the trained parameters as they were at the beginning; else empty
