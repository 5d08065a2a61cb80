"""Sample grids: fixed prompts and seeds at chosen steps, the base in the first column."""

from pathlib import Path

import torch
from accelerate import Accelerator
from PIL import Image

from stylegate import files, hardware, pictures, sample
from stylegate.brandset import BrandSet
from stylegate.config import Config
from stylegate.families import Models


class SampleGrid:
    """samples/step-000100/0.png and so on, and samples/grid.png over all of them.

    The prompts are the first captions of validation/, the seeds 0, 1, 2. At step 0 the LoRA changes nothing, so its
    column is the base's.
    """

    def __init__(
        self,
        brand_set: BrandSet,
        models: Models,
        config: Config,
        directory: Path,
        accelerator: Accelerator,
        precision: str,
    ):
        held_out = brand_set.splits["validation"][: config.train.num_samples]
        self.prompts = [brand_set.brand.prompt(item.text) for item in held_out]
        self.models, self.config, self.accelerator, self.precision = models, config, accelerator, precision
        self.place = directory / "samples"

    @torch.no_grad()
    def draw(self, step: int) -> None:
        """Draw the column of `step` unless it is there, each process its share, and wait for all."""
        share = range(self.accelerator.process_index, len(self.prompts), self.accelerator.num_processes)
        paths = [self.place / f"step-{step:06d}" / f"{i}.png" for i in share]
        if not all(path.exists() for path in paths):
            resolution = sample.resolution_of(self.config, self.models)
            with hardware.autocast(self.models.pipeline.device, self.precision):
                prompts = [self.prompts[i] for i in share]
                drawn = sample.draw(self.models, prompts, list(share), self.config.generate, resolution)
            for path, image in zip(paths, drawn, strict=True):
                files.write(path, pictures.png(image))
        self.accelerator.wait_for_everyone()

    def page(self) -> Image.Image:
        """Write and return samples/grid.png: a row a prompt, a column a step."""
        columns = sorted(self.place.glob("step-*"))
        titles = ["base" if c.name.endswith("-000000") else f"step {int(c.name[5:])}" for c in columns]
        rows = [(p, [cell(c / f"{i}.png") for c in columns]) for i, p in enumerate(self.prompts)]
        page = pictures.table(titles, rows)
        files.write(self.place / "grid.png", pictures.png(page))
        return page


def cell(path: Path) -> Image.Image:
    """A sample, or an empty cell where there is none (the number of samples was raised later)."""
    try:
        return pictures.decode(path.read_bytes()).image
    except (OSError, pictures.PictureError):
        return Image.new("RGB", (pictures.SIDE, pictures.SIDE), pictures.PAPER)
