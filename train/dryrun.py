"""`stylegate train dry_run=true`: everything that can be known before the first step, without an accelerator.

Checks the brand set, the base and its licence, the disk; says what would be trained, on how many views, and about how
much memory and arithmetic a step takes. The model is built without weights (on torch's meta device) and run once on
shapes alone.
"""

import shutil
from pathlib import Path

import torch
from peft import LoraConfig
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from stylegate import brandset, files, licence, pictures
from stylegate.config import Config, run_directory_name
from stylegate.errors import Exit, SurroundingsError
from stylegate.families import FAMILIES
from train import batches

BYTES = {"fp32": 4, "bf16": 2, "auto": 4}
STATE_BYTES = 12  # of a trained number: itself and AdamW's two moments, fp32
BACKWARD = 2  # a backward pass costs about twice a forward one
RATES = {
    "two CPU cores": 0.15,
    "a 24 GB card": 25.0,
    "an 80 GB card": 150.0,
}  # sustained TFLOP/s, assumed: for an order of size


def report(config: Config) -> int:
    """Print what would happen. Raises every error that the run itself would, and for a disk that is too small."""
    family = FAMILIES[config.family.name]
    brand_set, findings = brandset.sound(brandset.locate(config.brand))
    folder = family.locate(config.base)
    terms = licence.agreed(config, folder)
    remarks = findings.all_remarks() + brandset.cut_captions(brand_set, config)

    sketch = family.sketch(folder)
    resolutions = config.train.resolutions or [config.family.resolution or sketch.resolution]
    sizes = [pictures.size_of(item.content) for item in brand_set.splits["train"]]
    views = batches.views(sizes, resolutions, sketch.multiple, config.train.buckets)
    largest = max(views, key=lambda v: v.width * v.height)
    frozen = sum(p.numel() for p in sketch.denoiser.parameters())
    sketch.denoiser.add_adapter(LoraConfig(r=config.lora.rank, target_modules=family.lora_targets(config.lora.targets)))
    trained = sum(p.numel() for p in sketch.denoiser.parameters() if p.requires_grad)
    inputs = sketch.inputs(config.train.batch_size, largest.height, largest.width)
    forward, kept = cost(sketch.denoiser, inputs)
    if config.hardware.gradient_checkpointing:
        kept //= 4  # assumed, not measured: the inputs of blocks alone are kept
    width = BYTES[config.hardware.precision]
    memory = frozen * (2 if config.hardware.precision == "bf16" else 4) + trained * (STATE_BYTES + 4) + kept * width
    total = forward * (1 + BACKWARD) * config.train.accumulation * config.train.max_steps

    states = config.train.keep_newest + config.train.keep_best + 1
    latent = sum(sketch.latent_numbers * v.width * v.height for v in views) * 8
    disk = states * trained * STATE_BYTES + latent
    room(files.RUNS, disk)

    for remark in remarks:
        print(f"note: {remark}")
    shapes = sorted({(v.width, v.height) for v in views})
    seen = config.train.max_steps * config.train.batch_size * config.train.accumulation / len(views)
    print(f"run       {files.shown(files.RUNS / run_directory_name(config))}")
    print(f"base      {config.base}: {frozen / 1e6:.1f} M parameters, licence {terms}")
    print(f"data      {len(sizes)} pictures, {len(views)} views in {len(shapes)} shapes; each seen {seen:.0f} times")
    print(f"LoRA      {trained / 1e6:.2f} M parameters, {trained * 4 / 1e6:.1f} MB")
    print(f"memory    about {memory / 1e9:.2f} GB for the denoiser at {largest.width} x {largest.height}")
    print(f"disk      about {disk / 1e9:.2f} GB")
    times = ", ".join(f"{total / 1e12 / rate / 60:.0f} min on {what}" for what, rate in RATES.items())
    print(f"time      {total / 1e12:,.0f} TFLOP: of the order of {times}")
    print("dry run: no problems; nothing was written")
    return Exit.PASS


def cost(denoiser: nn.Module, inputs: dict) -> tuple[int, int]:
    """Operations of one forward pass, and numbers that are kept for the backward one (what every layer puts out)."""
    kept = 0

    def count(module: nn.Module, given: object, made: object) -> None:
        nonlocal kept
        if isinstance(made, torch.Tensor) and not list(module.children()):
            kept += made.numel()

    handles = [module.register_forward_hook(count) for module in denoiser.modules()]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        denoiser(**inputs)
    for handle in handles:
        handle.remove()
    return counter.get_total_flops(), kept


def room(place: Path, needed: float) -> None:
    """Raises SurroundingsError where the disk has less than that."""
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        raise SurroundingsError(
            f"the disk of {files.shown(place)} has {free / 1e9:.1f} GB free, the run needs about {needed / 1e9:.1f} GB",
            next_step="make room, or lower train.keep_newest and train.keep_best.",
        )
