"""Train a brand LoRA: the whole story, top to bottom.

    stylegate train brand=neon                       one process
    accelerate launch -m train brand=neon            what your accelerate config says
    stylegate train brand=neon train.max_steps=50    a look in under a minute on a laptop

Reads the brand set and the base; writes checkpoints/<run>/: run.json, stats.jsonl, state/, samples/, selection.json,
lora/, and index.html, the page that shows them (docs/training.md). The same command resumes, bit for bit on a CPU. The
default, 300 steps of batch 8 with four evaluations, takes about two minutes on two cores.
"""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.utils import broadcast_object_list
from torch import Tensor

from stylegate import files, hardware, progress
from stylegate.config import Config, as_dict
from stylegate.errors import Exit, SurroundingsError
from stylegate.rundirectory import run_directory_name
from stylegate.tracker import Tracker, tracker_of
from stylegate.wandbrun import EVALUATED
from train import dryrun, optimizers, page, release, select, state
from train.choose import chosen
from train.evaluate import Evaluation
from train.prepare import prepare
from train.run import Run
from train.stats import Stats, clocked
from train.step import losses_of, pictures_of

FLUSH_EVERY = 10  # steps; reading a loss waits for the device, so it is done seldom
PATIENCE = timedelta(hours=2)  # of the other processes while one still encodes or draws its share


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
        if accelerator.num_processes == 1:
            return self.asked
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

    def taken(self) -> float:
        """The share that evaluations have taken so far."""
        return self.spent / (time.perf_counter() - self.began)

    @contextmanager
    def spending(self) -> Iterator[None]:
        before = time.perf_counter()
        yield
        seconds = time.perf_counter() - before
        self.spent, self.longest = self.spent + seconds, max(self.longest, seconds)


@contextmanager
def enough_memory(device: torch.device) -> Iterator[None]:
    """Raises SurroundingsError, naming the levers, where the device's memory does not suffice."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise SurroundingsError(
            f"the {device.type} device has not enough memory for this run",
            next_step="a smaller train.batch_size with more train.accumulation, hardware.precision=bf16, "
            "hardware.gradient_checkpointing=true, a smaller family.resolution, or lora=attention.",
        ) from None


def train(config: Config) -> int:
    """Train to `train.max_steps`, from the newest saved state if there is one. Returns the exit code."""
    if config.dry_run:
        return dryrun.report(config)
    device = hardware.device_of(config.hardware)
    accelerator = Accelerator(cpu=device.type == "cpu", kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)])
    main = accelerator.is_main_process
    directory = files.RUNS / run_directory_name(config)
    with files.only_one(directory) if main else nullcontext(), Preemption() as preemption:
        with enough_memory(device):
            run = prepare(config, directory, accelerator)
        parameters = [p for p in run.adapted.parameters() if p.requires_grad]
        optimizer = optimizers.build(config.train, parameters)
        average = [p.detach().clone() for p in parameters] if config.train.ema_decay else []
        first = state.restore(directory, run.adapted, optimizer, average)
        if main and first:
            print(f"{'finished already' if first >= config.train.max_steps else 'resumed'} at step {first}")
        tracker = tracker_of(config.tracker, directory, "train", as_dict(config) | {"digests": run.facts}, main)
        brand_set, data = run.brand_set, {"sha256": run.facts["data"]}
        tracker.use(f"brand-{brand_set.brand.name}", "brand-set", [brand_set.folder], data)
        evaluation = Evaluation(run, average)
        with enough_memory(device):
            done = fit(run, optimizer, average, evaluation, first, tracker, preemption)
            stopped = done < config.train.max_steps
            selection = {} if stopped else chosen(run, evaluation, done)
        if main and stopped:
            print(f"told to stop: saved at step {done}; the same command goes on from there")
            page.write(run.directory)
            tracker.finish()
        elif main:
            finish(run, selection, tracker)
        stopped = stopped or preemption.agreed(accelerator)  # also told while it was drawing: nothing further begins
        accelerator.end_training()
    return Exit.PREEMPTED if stopped else Exit.PASS


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
    shared = {id(parameter) for parameter in run.models.denoiser.parameters()}
    alone = [p for p in parameters if id(p) not in shared]  # of text encoders, whose gradients nobody averages
    evaluation.take(0)
    if first and (first == settings.max_steps or first % settings.evaluate_every == 0):
        evaluation.take(first)  # a run that was killed between saving and evaluating
    named, reading = (lambda step, rank: pictures_of(run, step - 1, rank)), clocked(run)
    stats = Stats(run.directory, accelerator, tracker, first, named, reading)
    if main and stats.catch_up(evaluation.all_results()):
        tracker.picture("samples", evaluation.page(), step=first)
    if main:
        page.begin(run.directory, first, evaluation.prompts)
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
            for parameter in alone if accelerator.num_processes > 1 else []:
                parameter.grad = accelerator.reduce(parameter.grad, "mean")  # type: ignore[arg-type]
            norm = torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
            if average:
                optimizers.follow(average, parameters, settings.ema_decay, step)

            done = step + 1
            stats.add(done, torch.cat(found), norm, optimizer.param_groups[0]["lr"])
            last, look = done == settings.max_steps, done % settings.evaluate_every == 0
            save = last or look or done % settings.checkpoint_every == 0
            together = save or len(stats.rows) == FLUSH_EVERY  # where several processes wait for each other anyway
            told = preemption.agreed(accelerator) if together or accelerator.num_processes == 1 else False
            if together or told:
                tick(len(stats.rows), f"loss {stats.flush(budget.spent):.4f}")
            if main and (save or told):
                best = select.worth_keeping(evaluation.all_results(), settings.selection_margin, settings.keep_best)
                state.save_state(run.directory, done, run.adapted, optimizer, average, settings.keep_newest, best)
            if told and not last:
                return done
            if last or (look and budget.allows()):
                with budget.spending():
                    evaluation.take(done)
                    if main:
                        page.write(run.directory)
                if main and (result := evaluation.result(done)):
                    page_of_all = evaluation.page()
                    if done > tracker.last(EVALUATED):
                        share = {"evaluation/share": budget.taken()}
                        tracker.log(select.values_of(result) | share, step=done)
                        tracker.picture("samples", page_of_all, step=done)
    return max(first, settings.max_steps)


def finish(run: Run, selection: dict[str, Any], tracker: Tracker) -> None:
    """Hand out the LoRA, mirror what belongs together, say where it is."""
    lora, other = release.write(
        run.config, run.directory, run.models, run.adapted, run.family, run.brand_set, run.facts, selection
    )
    tracker.summary({"chosen/step": selection["step"], "chosen/strength": selection["scale"]})
    tracker.artifact(f"lora-{lora.stem}", "lora", [lora.parent], {"sha256": files.sha256(lora)})
    tracker.finish()
    if selection["checkpoints"]:
        rate = selection["pass_rate"]
        passing = "" if rate is None else f"; {rate:.0%} of {selection['num_prompts']} pictures pass the gate"
        print(
            f"chosen: step {selection['step']} at strength {selection['scale']:g}{passing} "
            f"(evaluations took {selection['evaluation_seconds']:.0f} s)"
        )
    if run.config.lora.dora:
        print(f"note: a DoRA: diffusers reads {lora.name}, ComfyUI {other.name}, A1111 gives it another strength")
    print(f"page: {files.shown(page.write(run.directory))}")
    print(f"samples: {files.shown(run.directory / 'samples' / 'grid.png')}   for ComfyUI and the like: {other.name}")
    print(f"LoRA: {files.shown(lora)}")
