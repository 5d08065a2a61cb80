"""Train a brand LoRA: the whole story, top to bottom.

    stylegate train brand=neon                       one process
    accelerate launch -m train brand=neon            what your accelerate config says
    stylegate train brand=neon train.max_steps=50    a look in under a minute on a laptop

Reads the brand set and the base; writes checkpoints/<run>/: run.json, stats.jsonl, state/, samples/, selection.json,
lora/ (docs/training.md). The same command resumes, bit for bit on a CPU. The default, 300 steps of batch 8 with four
evaluations, takes about two minutes on two cores.
"""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.utils import broadcast_object_list
from diffusers.training_utils import cast_training_params
from peft import LoraConfig
from torch import Tensor

from stylegate import __version__, brandset, files, hardware, licence, pictures, progress, sample
from stylegate.brandset import BrandSet
from stylegate.config import Config, as_dict, run_directory_name
from stylegate.errors import Exit, SurroundingsError
from stylegate.families import FAMILIES, Family, Models
from stylegate.tracker import Tracker, tracker_of
from train import batches, dryrun, encoded, losses, optimizers, release, select, state
from train.encoded import Encoded
from train.evaluate import Evaluation
from train.stats import Stats

FLUSH_EVERY = 10  # steps; reading a loss waits for the device, so it is done seldom
PATIENCE = timedelta(hours=2)  # of the other processes while one still encodes or draws its share


@dataclass(kw_only=True, slots=True)
class Run:
    """What a training run holds while it lasts."""

    config: Config
    directory: Path
    brand_set: BrandSet
    family: Family
    models: Models
    accelerator: Accelerator
    data: Encoded
    buckets: list[list[int]]  # numbers of the views of one shape
    precision: str  # of training
    drawing: str  # precision of evaluations
    facts: dict[str, Any]  # what the directory may never change: digests, processes, precision, threads, compile


class Preemption:
    """Whether the process was told to end (SIGTERM), as schedulers do before they take a machine away."""

    def __init__(self) -> None:
        self.asked = False
        self.before: Any = None

    def __enter__(self) -> "Preemption":
        self.before = signal.signal(signal.SIGTERM, lambda *_: setattr(self, "asked", True))
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self.before)

    def agreed(self, accelerator: Accelerator) -> bool:
        """Whether any process was told; all must ask at the same step."""
        told = torch.tensor(float(self.asked), device=accelerator.device)
        return bool(accelerator.reduce(told, "sum") > 0)  # type: ignore[operator]


class Budget:
    """Time for evaluations on the way: a share of what has passed; the main process decides for all."""

    def __init__(self, share: float, accelerator: Accelerator) -> None:
        self.share, self.accelerator = share, accelerator
        self.began, self.spent, self.longest = time.perf_counter(), 0.0, 0.0

    def allows(self) -> bool:
        passed = time.perf_counter() - self.began
        answer = [self.spent + self.longest <= self.share * passed]
        broadcast_object_list(answer)
        return answer[0]

    @contextmanager
    def spending(self) -> Iterator[None]:
        before = time.perf_counter()
        yield
        seconds = time.perf_counter() - before
        self.spent, self.longest = self.spent + seconds, max(self.longest, seconds)


def train(config: Config) -> int:
    """Train to `train.max_steps`, from the newest saved state if there is one. Returns the exit code."""
    if config.dry_run:
        return dryrun.report(config)
    device = hardware.device_of(config.hardware)
    accelerator = Accelerator(cpu=device.type == "cpu", kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)])
    main = accelerator.is_main_process
    directory = files.RUNS / run_directory_name(config)
    with files.only_one(directory) if main else nullcontext(), Preemption() as preemption:
        run = prepare(config, directory, accelerator)
        parameters = [p for p in run.models.denoiser.parameters() if p.requires_grad]
        optimizer = optimizers.build(config.train, parameters)
        average = [p.detach().clone() for p in parameters] if config.train.ema_decay else []
        first = state.restore(directory, run.models.denoiser, optimizer, average)
        if main and first:
            print(f"{'finished already' if first >= config.train.max_steps else 'resumed'} at step {first}")
        tracker = tracker_of(config.tracker, directory, "train", as_dict(config) | {"digests": run.facts}, main)
        evaluation = Evaluation(run, average)
        try:
            done = fit(run, optimizer, average, evaluation, first, tracker, preemption)
            stopped = done < config.train.max_steps
            selection = {} if stopped else chosen(run, evaluation, done)
        except torch.OutOfMemoryError:
            raise SurroundingsError(
                f"the {device.type} device has not enough memory for this run",
                next_step="a smaller train.batch_size with more train.accumulation, hardware.precision=bf16, "
                "hardware.gradient_checkpointing=true, a smaller family.resolution, or lora=attention.",
            ) from None
        if main and stopped:
            print(f"told to stop: saved at step {done}; the same command goes on from there")
            tracker.finish()
        elif main:
            finish(run, selection, tracker)
        accelerator.end_training()
    return Exit.PREEMPTED if stopped else Exit.PASS


def prepare(config: Config, directory: Path, accelerator: Accelerator) -> Run:
    """Check the data, load the base, attach the LoRA, encode, and hold the directory to what it was begun with."""
    family, main = FAMILIES[config.family.name], accelerator.is_main_process
    brand_set, findings = brandset.sound(brandset.locate(config.brand))
    licence.agreed(config, family.locate(config.base))
    models = family.load(config.base, accelerator.device, torch.float32)
    add_lora(models, family, config)
    resolutions = config.train.resolutions or [sample.resolution_of(config, models)]
    data = encoded.encode(brand_set, models, family, config.train, resolutions, accelerator)
    run = Run(
        config=config,
        directory=directory,
        brand_set=brand_set,
        family=family,
        models=models,
        accelerator=accelerator,
        data=data,
        buckets=batches.bucketed(data.views),
        precision="fp32",
        drawing="fp32",
        facts={"data": brand_set.digest(), "base": models.sha256, "processes": accelerator.num_processes},
    )
    settle(run)
    state.same_run(directory, run.facts)
    accelerator.wait_for_everyone()
    if main:
        record = {"stylegate": __version__, "facts": run.facts, "config": as_dict(config), "versions": versions()}
        files.write_json(directory / "run.json", record | {"drawing": run.drawing})
        for remark in findings.all_remarks() + brandset.cut_captions(brand_set, config) + remarks(run, resolutions):
            print(f"note: {remark}")
    return run


def fit(
    run: Run,
    optimizer: torch.optim.Optimizer,
    average: list[Tensor],
    evaluation: Evaluation,
    first: int,
    tracker: Tracker,
    preemption: Preemption,
) -> int:
    """The steps from `first` to the last, with saved states and evaluations on the way; returns the last one done."""
    settings, accelerator, main = run.config.train, run.accelerator, run.accelerator.is_main_process
    parameters = optimizer.param_groups[0]["params"]
    denoiser: Any = accelerator.prepare_model(run.models.denoiser)
    stats = Stats(run.directory, accelerator, tracker, first, lambda step, rank: pictures_of(run, step - 1, rank))
    evaluation.take(0)
    if first and (first == settings.max_steps or first % settings.evaluate_every == 0):
        evaluation.take(first)  # a run that was killed between saving and evaluating
    budget = Budget(settings.evaluation_share, accelerator)
    with progress.bar("train", settings.max_steps, first, visible=main) as tick:
        for step in range(first, settings.max_steps):
            for group in optimizer.param_groups:
                group["lr"] = optimizers.rate(settings, step)
            found = []
            for part in range(settings.accumulation):
                whole = part == settings.accumulation - 1
                with nullcontext() if whole else accelerator.no_sync(denoiser):
                    each = losses_of(run, denoiser, step * settings.accumulation + part)
                    accelerator.backward(each.mean() / settings.accumulation)
                found.append(each.detach())
            norm = torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
            if average:
                optimizers.follow(average, parameters, settings.ema_decay, step)

            done = step + 1
            stats.add(done, torch.cat(found), norm, optimizer.param_groups[0]["lr"])
            last, look = done == settings.max_steps, done % settings.evaluate_every == 0
            save, told = last or look or done % settings.checkpoint_every == 0, False
            if save or len(stats.rows) == FLUSH_EVERY:
                tick(len(stats.rows), f"loss {stats.flush():.4f}")
                told = preemption.agreed(accelerator)
            if main and (save or told):
                best = select.worth_keeping(evaluation.all_results(), settings.selection_margin, settings.keep_best)
                state.save_state(
                    run.directory, done, run.models.denoiser, optimizer, average, settings.keep_newest, best
                )
            if told and not last:
                return done
            if last or (look and budget.allows()):
                with budget.spending():
                    evaluation.take(done)
                if main and (result := evaluation.result(done)):
                    tracker.log(select.values_of(result), step=done)
                    tracker.picture("samples", evaluation.page(), step=done)
    return max(first, settings.max_steps)


def chosen(run: Run, evaluation: Evaluation, done: int) -> dict[str, Any]:
    """Load the checkpoint to hand out, try its strengths, write selection.json and return it; every process."""
    settings, main = run.config.train, run.accelerator.is_main_process
    run.accelerator.wait_for_everyone()  # rank 0 may still be writing the last state
    kept = {state.step_of(path): path for path in state.states(run.directory)}
    results = [r for r in evaluation.all_results() if r["step"] in kept and r["passed"]]
    passing = any(any(r["passed"]) for r in results)
    checkpoints = select.choose(results, settings.selection_margin) if passing else None
    step = results[checkpoints["chosen"]]["step"] if checkpoints else done
    state.weights(kept[step], run.models.denoiser)
    scale, strengths, result = 1.0, None, evaluation.result(step)
    if checkpoints:
        evaluation = Evaluation(run, [])  # the weights are in place, averaged or not
        for strength in settings.scales:
            evaluation.take(step, strength)
        near = sorted({1.0, *settings.scales}, key=lambda s: (abs(s - 1), s))
        tried = [r for s in near if (r := evaluation.result(step, s))]
        strengths = select.choose(tried, settings.selection_margin)
        result = tried[strengths["chosen"]]
        scale = result["scale"]
    selection = {
        "step": step,
        "scale": scale,
        "pass_rate": select.rate(result) if result and passing else None,
        "num_prompts": len(evaluation.items),
        "margin": settings.selection_margin,
        "confidence": select.CONFIDENCE,
        "checkpoints": checkpoints,
        "scales": strengths,
        "policy": run.config.policy,
        "encoder": run.config.encoder,
        "evaluation_seconds": evaluation.seconds(),
    }
    if main:
        files.write_json(run.directory / "selection.json", selection)
        if evaluation.items and not passing:
            why = select.causes(evaluation.all_results())
            print(f"note: no picture of an evaluation passed ({why}); the last checkpoint is taken")
    run.accelerator.wait_for_everyone()
    return selection


def losses_of(run: Run, denoiser: Any, step: int) -> Tensor:
    """The weighted losses [batch] of one pass on this process."""
    settings, schedule, rank = run.config.train, run.models.schedule, run.accelerator.process_index
    chosen = chosen_views(run, step, rank)
    mean, deviation = run.data.latents(chosen)
    draws = batches.draws(tuple(mean.shape), settings.caption_dropout, step, rank, settings.seed)
    words = run.data.conditions([run.data.views[i].item for i in chosen], step)
    levels = losses.levels(schedule, settings.loss, draws.uniform, draws.normal)
    noise = losses.offset(draws.noise, settings.loss.noise_offset, draws.constant)
    shown = torch.where(draws.dropped[:, None, None], run.data.empty(), words)
    device = run.accelerator.device
    clean, noise, levels, shown = (t.to(device) for t in (mean + deviation * draws.resample, noise, levels, shown))
    with hardware.autocast(device, run.precision):
        noisy = losses.noised(schedule, clean, noise, levels)
        predicted = run.family.predict(run.models, denoiser, noisy, levels, shown)
    wanted = losses.target(schedule, clean, noise, levels)
    each = losses.loss(predicted.float(), wanted, settings.loss.huber_delta)
    return each * losses.weights(schedule, settings.loss.min_snr_gamma, levels)


def chosen_views(run: Run, step: int, rank: int) -> list[int]:
    settings, world = run.config.train, run.accelerator.num_processes
    return batches.chosen(run.buckets, settings.batch_size, step, rank, world, settings.seed)


def pictures_of(run: Run, step: int, rank: int) -> list[str]:
    """Files that a process sees at an optimizer step, in order."""
    passes = range(step * run.config.train.accumulation, (step + 1) * run.config.train.accumulation)
    items = run.brand_set.splits["train"]
    return [items[run.data.views[i].item].file for n in passes for i in chosen_views(run, n, rank)]


def finish(run: Run, selection: dict[str, Any], tracker: Tracker) -> None:
    """Hand out the LoRA, mirror what belongs together, say where it is."""
    lora, other = release.write(run.config, run.directory, run.models, run.family, run.brand_set, run.facts, selection)
    data = {"sha256": run.facts["data"]}
    tracker.artifact(f"brand-{run.brand_set.brand.name}", "brand-set", [run.brand_set.folder], data)
    tracker.artifact(f"lora-{lora.stem}", "lora", [lora.parent], {"sha256": files.sha256(lora)})
    tracker.finish()
    if selection["pass_rate"] is not None:
        print(
            f"chosen: step {selection['step']} at strength {selection['scale']:g}; {selection['pass_rate']:.0%} of "
            f"{selection['num_prompts']} pictures pass the gate against validation/ "
            f"(evaluations took {selection['evaluation_seconds']:.0f} s)"
        )
    print(f"samples: {files.shown(run.directory / 'samples' / 'grid.png')}   for ComfyUI and A1111: {other.name}")
    print(f"LoRA: {files.shown(lora)}")


def remarks(run: Run, resolutions: list[int]) -> list[str]:
    """What a person should know of sizes, buckets and wording before the first step."""
    items, settings = run.brand_set.splits["train"], run.config.train
    largest, said = max(min(pictures.size_of(item.content)) for item in items), []
    if largest >= 1.5 * max(resolutions):
        said.append(
            f"pictures of up to {largest} pixels are scaled to {max(resolutions)}; "
            "give base=<a real Stable Diffusion, hub id or folder> and family.resolution for more"
        )
    batch = settings.batch_size * run.accelerator.num_processes
    for bucket in run.buckets if len(run.buckets) > 1 else []:
        view = run.data.views[bucket[0]]
        few = "; a batch shows them more than once: add pictures of this shape, or train.buckets=false"
        shape = f"bucket {view.width} x {view.height}: {len(bucket)} pictures, none is left out"
        said.append(shape + (few if len(bucket) < batch else ""))
    return said


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


def settle(run: Run) -> None:
    """Precision, threads and compilation: the run's own if it has begun, else as configured or probed by rank 0."""
    wanted, directory, denoiser = run.config.hardware, run.directory, run.models.denoiser
    chosen: list[Any] = [wanted.precision, wanted.precision, wanted.threads or torch.get_num_threads()]
    if (directory / "run.json").exists():
        record = files.read_json(directory / "run.json", "the run's record", "facts", "drawing")
        before = [record["facts"]["precision"], record["drawing"]]
        chosen[:2] = [old if new == "auto" else new for old, new in zip(before, chosen[:2], strict=True)]
        chosen[2] = wanted.threads or record["facts"]["threads"]

    def step() -> None:
        losses_of(run, denoiser, 0).sum().backward()
        denoiser.zero_grad()

    def draw() -> None:
        some = replace(run.config.generate, num_inference_steps=2)
        seeds = range(min(some.batch_size, max(run.config.train.num_samples, 1)))
        sample.draw(run.models, ["a"] * len(seeds), seeds, some, sample.resolution_of(run.config, run.models))

    if run.accelerator.is_main_process:
        device = run.accelerator.device
        chosen[0] = hardware.choose_precision(chosen[0], device, step)
        chosen[1] = hardware.choose_precision(chosen[1], device, draw)
    broadcast_object_list(chosen)
    run.precision, run.drawing, threads = chosen
    torch.set_num_threads(threads)
    if run.precision == "bf16" and run.accelerator.device.type == "cuda":
        denoiser.to(torch.bfloat16)
        cast_training_params(denoiser, torch.float32)  # what is trained stays exact
    if wanted.gradient_checkpointing:
        denoiser.enable_gradient_checkpointing()  # type: ignore[operator]
    if wanted.compile:
        denoiser.compile_repeated_blocks()  # type: ignore[operator]
    run.facts |= {"precision": run.precision, "threads": threads, "compile": wanted.compile}


def versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "diffusers", "peft", "accelerate", "transformers")}
