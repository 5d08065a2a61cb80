"""Train a brand LoRA: the whole story, top to bottom.

    stylegate train brand=neon                       one process
    accelerate launch -m train brand=neon            what your accelerate config says
    stylegate train brand=neon train.max_steps=50    a look in under a minute on a laptop

Reads the brand set and the base; writes checkpoints/<run>/: run.json, stats.jsonl, state/, samples/, lora/. The
same command resumes, bit for bit on a CPU. The default, 300 steps of batch 8, takes about 80 seconds on two cores.
"""

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from peft import LoraConfig
from torch import Tensor

from stylegate import __version__, brandset, files, hardware, pictures, progress, sample
from stylegate.brandset import BrandSet
from stylegate.cache import Cache
from stylegate.config import Config, as_dict, run_directory_name
from stylegate.errors import StylegateError
from stylegate.families import FAMILIES, Family, Models
from stylegate.tracker import Tracker, tracker_of
from train import batches, release, state
from train.samples import SampleGrid
from train.stats import Stats

LATENTS, PROMPTS = "latents-1", "prompts-1"  # versions of what is cached; raise one when its computation changes
FLUSH_EVERY = 10  # steps; reading a loss waits for the device, so it is done seldom


@dataclass(kw_only=True, slots=True)
class Run:
    """What a training run holds while it lasts."""

    config: Config
    directory: Path
    brand_set: BrandSet
    family: Family
    models: Models
    accelerator: Accelerator
    latents: Tensor  # [n, c, h, w] scaled latents of train/
    spread: Tensor  # [n, c, h, w] their standard deviation in the encoder's view
    conditions: Tensor  # [n, tokens, d] encoded captions
    empty: Tensor  # [tokens, d] the encoded empty caption
    precision: str
    facts: dict[str, Any]  # what the directory may never change: digests, processes, precision, threads


def train(config: Config) -> int:
    """Train to `train.max_steps`, from the newest saved state if there is one. Returns 0."""
    device = hardware.device_of(config.hardware)
    accelerator = Accelerator(cpu=device.type == "cpu")
    main = accelerator.is_main_process
    directory = files.RUNS / run_directory_name(config)
    with files.only_one(directory) if main else nullcontext():
        run = prepare(config, directory, accelerator)
        optimizer = torch.optim.AdamW(
            [p for p in run.models.denoiser.parameters() if p.requires_grad],
            lr=config.train.learning_rate,
            weight_decay=config.train.weight_decay,
        )
        first = state.restore(directory, run.models.denoiser, optimizer)
        if main and first:
            print(f"{'finished already' if first >= config.train.max_steps else 'resumed'} at step {first}")
        tracker = tracker_of(config.tracker, directory, "train", as_dict(config) | {"digests": run.facts}, main)
        fit(run, optimizer, first, tracker)
        if main:
            finish(run, max(first, config.train.max_steps), tracker)
        accelerator.end_training()
    return 0


def prepare(config: Config, directory: Path, accelerator: Accelerator) -> Run:
    """Check the data, load the base, attach the LoRA, encode, and hold the directory to what it was begun with."""
    family, main = FAMILIES[config.family.name], accelerator.is_main_process
    brand_set, findings = brandset.sound(brandset.locate(config.brand))
    models = family.load(config.base, accelerator.device, torch.float32)
    add_lora(models, family, config)
    resolution = sample.resolution_of(config, models)
    with accelerator.main_process_first():
        latents, spread, conditions, empty = encoded(brand_set, models, family, resolution, main)
    precision, threads = settled(config, directory, accelerator, models, family, latents, conditions)
    facts = {
        "data": brand_set.digest(),
        "base": models.sha256,
        "processes": accelerator.num_processes,
        "precision": precision,
        "threads": threads,
    }
    state.same_run(directory, facts)
    accelerator.wait_for_everyone()
    if main:
        record = {"stylegate": __version__, "facts": facts, "config": as_dict(config), "versions": versions()}
        files.write_json(directory / "run.json", record)
        remarks = findings.all_remarks() + brandset.cut_captions(brand_set, config)
        for remark in remarks + scaled(brand_set, resolution):
            print(f"note: {remark}")
    return Run(
        config=config,
        directory=directory,
        brand_set=brand_set,
        family=family,
        models=models,
        accelerator=accelerator,
        latents=latents,
        spread=spread,
        conditions=conditions,
        empty=empty,
        precision=precision,
        facts=facts,
    )


def fit(run: Run, optimizer: torch.optim.Optimizer, first: int, tracker: Tracker) -> None:
    """The steps from `first` to the last, with saved states, samples and stats on the way."""
    settings, accelerator, main = run.config.train, run.accelerator, run.accelerator.is_main_process
    parameters = optimizer.param_groups[0]["params"]
    denoiser: Any = accelerator.prepare_model(run.models.denoiser)
    stats = Stats(run.directory, accelerator, tracker, first)
    grid = SampleGrid(run.brand_set, run.models, run.config, run.directory, accelerator, run.precision)
    grid.draw(first)
    with progress.bar("train", settings.max_steps, first, visible=main) as tick:
        for step in range(first, settings.max_steps):
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * min(1.0, (step + 1) / max(settings.warmup_steps, 1))
            loss = loss_of(run, denoiser, step)
            accelerator.backward(loss)
            norm = torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()

            done = step + 1
            last = done == settings.max_steps
            stats.add(done, loss.detach(), norm, optimizer.param_groups[0]["lr"])
            if last or done % settings.checkpoint_every == 0 or len(stats.rows) == FLUSH_EVERY:
                tick(len(stats.rows), f"loss {stats.flush():.4f}")
            if main and (last or done % settings.checkpoint_every == 0):
                state.save_state(run.directory, done, run.models.denoiser, optimizer)
            if last or done % settings.sample_every == 0:
                grid.draw(done)
                if main and grid.prompts:
                    tracker.picture("samples", grid.page(), step=done)


def loss_of(run: Run, denoiser: Any, step: int) -> Tensor:
    """The loss of one step on this process: mean squared error of the prediction against noise or velocity."""
    settings, family, models, rank = run.config.train, run.family, run.models, run.accelerator.process_index
    items = batches.indices(
        len(run.latents), settings.batch_size, step, rank, run.accelerator.num_processes, settings.seed
    )
    draws = batches.draws(
        (len(items), *run.latents.shape[1:]),
        models.noise_scheduler.config.num_train_timesteps,
        settings.caption_dropout,
        step,
        rank,
        settings.seed,
    )
    draws = batches.Draws(*(drawn.to(run.accelerator.device) for drawn in draws))
    clean = run.latents[items] + run.spread[items] * draws.resample
    shown = torch.where(draws.dropped[:, None, None], run.empty, run.conditions[items])
    noisy = family.add_noise(models, clean, draws.noise, draws.timesteps)
    wanted = family.target(models, clean, draws.noise, draws.timesteps)
    with hardware.autocast(run.accelerator.device, run.precision):
        predicted = family.predict(models, denoiser, noisy, draws.timesteps, shown)
    return torch.nn.functional.mse_loss(predicted.float(), wanted.float())


def finish(run: Run, steps: int, tracker: Tracker) -> None:
    """Hand out the LoRA, mirror what belongs together, say where it is."""
    lora = release.write(run.config, run.directory, run.models, run.family, run.brand_set, run.facts, steps)
    data = {"sha256": run.facts["data"]}
    tracker.artifact(f"brand-{run.brand_set.brand.name}", "brand-set", [run.brand_set.folder], data)
    tracker.artifact(f"lora-{lora.stem}", "lora", [lora.parent], {"sha256": files.sha256(lora)})
    tracker.finish()
    print(f"LoRA: {files.shown(lora)}   samples: {files.shown(run.directory / 'samples' / 'grid.png')}")


def scaled(brand_set: BrandSet, resolution: int) -> list[str]:
    """A remark if pictures are much larger than what the base draws."""
    sides = [min(brandset.decoded_image(item, brand_set.brand).size) for item in brand_set.splits["train"]]
    if max(sides) < 1.5 * resolution:
        return []
    return [
        f"pictures of up to {max(sides)} pixels are scaled to the base's {resolution}; "
        "give base=<a real Stable Diffusion, hub id or folder> and family.resolution for more"
    ]


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


def versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "diffusers", "peft", "accelerate", "transformers")}
