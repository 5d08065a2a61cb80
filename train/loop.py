"""Train a brand LoRA: the whole story, top to bottom.

    stylegate train brand=neon                       one process
    accelerate launch -m train brand=neon            what your accelerate config says
    stylegate train brand=neon train.max_steps=50    a look in under a minute on a laptop

Reads the brand set and the base; writes checkpoints/<run>/: run.json, stats.jsonl, state/, samples/, lora/. The
same command resumes, bit for bit on a CPU. The default, 300 steps of batch 8, takes about a minute on two cores.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from peft import LoraConfig
from PIL import Image
from torch import Tensor

from stylegate import __version__, brandset, files, hardware, pictures, progress, sample
from stylegate.brandset import BrandSet
from stylegate.cache import Cache
from stylegate.config import Config, as_dict, run_directory_name
from stylegate.errors import StylegateError
from stylegate.families import FAMILIES, Family, Models
from stylegate.tracker import tracker_of
from train import batches, release, state

LATENTS, PROMPTS = "latents-1", "prompts-1"  # versions of what is cached; raise one when its computation changes


def train(config: Config) -> int:
    """Train to `train.max_steps`, from the newest saved state if there is one. Returns 0."""
    settings, family = config.train, FAMILIES[config.family.name]
    device = hardware.device_of(config.hardware)
    accelerator = Accelerator(cpu=device.type == "cpu")
    rank, world, main = accelerator.process_index, accelerator.num_processes, accelerator.is_main_process

    # What is learned from, and what is trained.
    brand_set, findings = brandset.sound(brandset.locate(config.brand))
    models = family.load(config.base, accelerator.device, torch.float32)
    resolution = config.family.resolution or models.resolution
    add_lora(models, family, config)
    directory = files.RUNS / run_directory_name(config)
    with accelerator.main_process_first():
        latents, spread, conditions, empty = encoded(brand_set, models, family, resolution, main)

    # The run's record: the same directory never meets another data set, base, precision or number of processes.
    precision, threads = settled(config, directory, accelerator, models, family, latents, conditions)
    facts = {
        "data": brand_set.digest(),
        "base": models.sha256,
        "processes": world,
        "precision": precision,
        "threads": threads,
    }
    state.same_run(directory, facts)
    if main:
        record = {"stylegate": __version__, "facts": facts, "config": as_dict(config)}
        files.write_json(directory / "run.json", record | {"versions": versions()})
        for remark in findings.all_remarks() + brandset.cut_captions(brand_set, config):
            print(f"note: {remark}")
    accelerator.wait_for_everyone()

    # Optimizer and resume.
    parameters = [p for p in models.denoiser.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    first = state.restore(directory, models.denoiser, optimizer)
    denoiser: Any = accelerator.prepare_model(models.denoiser)
    tracker = tracker_of(config.tracker, directory, "train", as_dict(config) | {"digests": facts}, main)
    if main:
        kept = [row for row in files.read_jsonl(directory / "stats.jsonl", "step") if row["step"] <= first]
        files.write_jsonl(directory / "stats.jsonl", kept)
        if first:
            print(f"{'finished already' if first >= settings.max_steps else 'resumed'} at step {first}")

    # The steps.
    grid = SampleGrid(brand_set, models, config, directory, resolution, rank, world)
    grid.draw(first, precision)
    pending: list[tuple[int, Tensor, Tensor]] = []
    began = time.perf_counter()
    with progress.bar("train", settings.max_steps, first, visible=main) as tick:
        for step in range(first, settings.max_steps):
            items = batches.indices(len(latents), settings.batch_size, step, rank, world, settings.seed)
            draws = batches.draws(
                (len(items), *latents.shape[1:]),
                models.noise_scheduler.config.num_train_timesteps,
                settings.caption_dropout,
                step,
                rank,
                settings.seed,
            )
            draws = batches.Draws(*(d.to(accelerator.device) for d in draws))
            clean = latents[items] + spread[items] * draws.resample
            shown = torch.where(draws.dropped[:, None, None], empty, conditions[items])
            noisy = family.add_noise(models, clean, draws.noise, draws.timesteps)
            wanted = family.target(models, clean, draws.noise, draws.timesteps)

            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * min(1.0, (step + 1) / max(settings.warmup_steps, 1))
            with hardware.autocast(accelerator.device, precision):
                predicted = family.predict(models, denoiser, noisy, draws.timesteps, shown)
                loss = torch.nn.functional.mse_loss(predicted.float(), wanted.float())
                accelerator.backward(loss)
            norm = torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()

            done = step + 1
            pending.append((done, loss.detach(), norm))
            saving = done % settings.checkpoint_every == 0 or done == settings.max_steps
            if saving or len(pending) == 10:  # reading a loss waits for the device: do it seldom
                rate = (done - first) / (time.perf_counter() - began)
                loss_now = settle_stats(pending, optimizer, accelerator, directory, tracker, rate)
                tick(len(pending), f"loss {loss_now:.4f}")
                pending.clear()
            if saving and main:
                state.save_state(directory, done, models.denoiser, optimizer)
            if done % settings.sample_every == 0 or done == settings.max_steps:
                page = grid.draw(done, precision)
                accelerator.wait_for_everyone()
                if page and main:
                    tracker.picture("samples", grid.page(), step=done)

    # What leaves the room.
    accelerator.wait_for_everyone()
    if main:
        grid.page()
        lora = release.write(config, directory, models, family, brand_set, facts, max(first, settings.max_steps))
        tracker.artifact(f"brand-{brand_set.brand.name}", "brand-set", [brand_set.folder], {"sha256": facts["data"]})
        tracker.artifact(f"lora-{lora.stem}", "lora", [lora.parent], {"sha256": files.sha256(lora)})
        tracker.finish()
        print(f"LoRA: {files.shown(lora)}   samples: {files.shown(directory / 'samples' / 'grid.png')}")
    accelerator.end_training()
    return 0


def add_lora(models: Models, family: Family, config: Config) -> None:
    """Adapters on the parts asked for; A is random from the seed, B zero: at first the LoRA changes nothing."""
    adapter = LoraConfig(
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,  # type: ignore[arg-type]
        init_lora_weights="gaussian",
        target_modules=family.lora_targets(config.lora.targets),
    )
    with torch.random.fork_rng():
        torch.manual_seed(batches.generator(config.train.seed, batches.INIT).initial_seed())
        models.denoiser.add_adapter(adapter)  # type: ignore[operator]


def encoded(
    brand_set: BrandSet, models: Models, family: Family, resolution: int, main: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Latent mean and spread [n, c, h, w], conditions [n, tokens, d] of train/, and the empty prompt's [tokens, d]."""
    cache, device = Cache(), models.pipeline.device
    items, brand = brand_set.splits["train"], brand_set.brand
    prompts = [brand.prompt(item.text) for item in items] + [""]

    @torch.no_grad()
    def images(chosen: list[int]) -> list[dict[str, np.ndarray]]:
        squares = [pictures.square(brandset.decoded_image(items[i], brand), resolution) for i in chosen]
        pixels = (
            torch.from_numpy(np.stack([np.asarray(image) for image in squares])).permute(0, 3, 1, 2).float() / 127.5 - 1
        )
        mean, std = (t.float().cpu().numpy() for t in family.encode_images(models, pixels))
        if not np.isfinite(mean).all():
            raise StylegateError(
                f"the base's encoder gives values that are not finite, first for {items[chosen[0]].file}"
            )
        return [{"mean": m, "std": s} for m, s in zip(mean, std, strict=True)]

    @torch.no_grad()
    def texts(chosen: list[int]) -> list[dict[str, np.ndarray]]:
        values = family.encode_prompts(models, [prompts[i] for i in chosen]).float().cpu().numpy()
        return [{"condition": value} for value in values]

    picture_keys = [files.digest([LATENTS, models.sha256, resolution, brand.background, i.sha256]) for i in items]
    prompt_keys = [files.digest([PROMPTS, models.sha256, prompt]) for prompt in prompts]
    with progress.bar("encode", len(items) + len(prompts), visible=main) as tick:
        pixels = cache.fill(picture_keys, 8, images, tick)
        states = cache.fill(prompt_keys, 32, texts, tick)
    mean, std = (torch.from_numpy(np.stack([p[k] for p in pixels if p])).to(device) for k in ("mean", "std"))
    conditions = torch.from_numpy(np.stack([s["condition"] for s in states if s])).to(device)
    return mean, std, conditions[:-1], conditions[-1]


def settled(
    config: Config,
    directory: Path,
    accelerator: Accelerator,
    models: Models,
    family: Family,
    latents: Tensor,
    c: Tensor,
) -> tuple[str, int]:
    """Precision and threads: the run's own if it has begun, else as configured or probed by the main process."""
    chosen: list[Any] = [config.hardware.precision, config.hardware.threads or torch.get_num_threads()]
    if (directory / "run.json").exists():
        facts = files.read_json(directory / "run.json", "the run's record", "facts")["facts"]
        chosen[0] = facts["precision"] if chosen[0] == "auto" else chosen[0]
        chosen[1] = config.hardware.threads or facts["threads"]

    def step() -> None:
        size = config.train.batch_size
        times = torch.zeros(size, dtype=torch.long, device=latents.device)
        picked = [i % len(latents) for i in range(size)]
        family.predict(models, models.denoiser, latents[picked], times, c[picked]).float().sum().backward()
        models.denoiser.zero_grad()

    if accelerator.is_main_process:
        chosen[0] = hardware.choose_precision(chosen[0], latents.device, step)
    broadcast_object_list(chosen)
    torch.set_num_threads(chosen[1])
    return chosen[0], chosen[1]


def settle_stats(pending, optimizer, accelerator: Accelerator, directory: Path, tracker, rate: float) -> float:
    """Write the steps since the last call; returns their mean loss. A loss that is not finite stops the run."""
    losses = torch.stack([loss for _, loss, _ in pending])
    losses = accelerator.reduce(losses, "mean")
    values = losses.tolist()  # type: ignore[union-attr]
    for (step, _, norm), loss in zip(pending, values, strict=True):
        if not np.isfinite(loss):
            raise StylegateError(
                f"the loss is not finite at step {step}",
                next_step="lower train.learning_rate; the last saved state is good and the same words go on from it.",
            )
        if accelerator.is_main_process:
            row = {
                "step": step,
                "loss": loss,
                "grad_norm": norm.item(),
                "learning_rate": optimizer.param_groups[0]["lr"],
            }
            files.append_jsonl(directory / "stats.jsonl", row)
            tracker.log({k: v for k, v in row.items() if k != "step"} | {"steps_per_s": rate}, step=step)
    return float(np.mean(values))


class SampleGrid:
    """Fixed prompts and seeds, drawn at chosen steps; step 0 is the base, the first column."""

    def __init__(
        self,
        brand_set: BrandSet,
        models: Models,
        config: Config,
        directory: Path,
        resolution: int,
        rank: int,
        world: int,
    ):
        held_out = brand_set.splits["validation"][: config.train.num_samples]
        self.prompts = [brand_set.brand.prompt(item.text) for item in held_out]
        self.models, self.config, self.resolution = models, config, resolution
        self.place = directory / "samples"
        self.mine = range(rank, len(self.prompts), world)

    @torch.no_grad()
    def draw(self, step: int, precision: str) -> bool:
        """Draw this process's share of the column of `step`, unless it is there; False if there is nothing to draw."""
        paths = {i: self.place / f"step-{step:06d}" / f"{i}.png" for i in self.mine}
        if not all(path.exists() for path in paths.values()):
            with hardware.autocast(self.models.pipeline.device, precision):
                prompts = [self.prompts[i] for i in self.mine]
                drawn = sample.draw(self.models, prompts, list(self.mine), self.config.generate, self.resolution)
            for path, image in zip(paths.values(), drawn, strict=True):
                files.write(path, pictures.png(image))
        return bool(self.prompts)

    def page(self) -> Image.Image:
        """samples/grid.png: a row a prompt, a column a step."""
        columns = sorted(self.place.glob("step-*"))
        titles = ["base" if c.name.endswith("000000") else f"step {int(c.name[5:])}" for c in columns]
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


def versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "diffusers", "peft", "accelerate", "transformers")}
