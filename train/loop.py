"""Train a brand LoRA: the whole story, top to bottom.

    stylegate train brand=neon                       one process
    accelerate launch -m train brand=neon            what your accelerate config says
    stylegate train brand=neon train.max_steps=50    a look in under a minute on a laptop

Reads the brand set and the base; writes checkpoints/<run>/: run.json, stats.jsonl, state/, samples/, selection.json,
lora/, and index.html, the page that shows them (docs/training.md). The same command resumes, bit for bit on a CPU. The
default is 300 steps of batch 8, with four evaluations by previews and one of what is handed out.
"""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.utils import broadcast_object_list
from torch import Tensor

from eval.measuring.encoder import keeping_encoder_loaded
from stylegate import files, hardware, progress
from stylegate.config import Config, config_as_dict
from stylegate.errors import ExitCode, SurroundingsError
from stylegate.rundirectory import run_directory_name
from stylegate.tracker import Tracker, make_tracker
from stylegate.wandbrun import EVALUATED
from stylegate.words import counted
from train import dryrun, optimizers, page, release, select, sharding, state
from train.choose import choose_checkpoint_and_lora_strength, read_final_evaluation_result
from train.evaluate import Evaluator
from train.prepare import prepare_training_run
from train.run import PATIENCE, LiveTrainingRun
from train.stats import StepStatsWriter, install_cache_read_timer
from train.step import losses_of_microbatch, training_picture_names_of_step

FLUSH_EVERY = 10  # steps; reading a loss waits for the device, so it is done seldom


class Preemption:
    """A context that records whether SIGTERM came, which schedulers send before they take a machine away."""

    def __init__(self) -> None:
        self.received = False
        self.before: Any = None

    def __enter__(self) -> "Preemption":
        self.before = signal.signal(signal.SIGTERM, lambda *_: setattr(self, "received", True))
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self.before)

    def any_process_received_sigterm(self, accelerator: Accelerator) -> bool:
        """Whether any process has received the signal. All processes must call this at the same step."""
        if accelerator.num_processes == 1:
            return self.received
        count = torch.tensor(float(self.received), device=accelerator.device)
        return bool(accelerator.reduce(count, "sum") > 0)  # type: ignore[operator]


class EvaluationTimeBudget:
    """Limits the time of evaluations during training to a share, in [0, 1], of the time that has passed.

    `evaluated` and `trained` are the seconds that evaluations and steps took before, those of earlier starts included.
    """

    def __init__(self, share: float, accelerator: Accelerator, evaluated: float = 0.0, trained: float = 0.0) -> None:
        self.share, self.accelerator = share, accelerator
        self.evaluated, self.trained = evaluated, trained
        self.began, self.spent = time.perf_counter(), 0.0  # seconds

    def allows_evaluation_now(self) -> bool:
        """Whether evaluations have cost no more than their share so far. The main process decides for all."""
        answer = [self.share_of_time_spent_evaluating() <= self.share]
        broadcast_object_list(answer)
        return answer[0]

    def share_of_time_spent_evaluating(self) -> float:
        """The share, in [0, 1], of the time so far that evaluations have cost."""
        passed = self.evaluated + self.trained + time.perf_counter() - self.began
        return (self.evaluated + self.spent) / passed

    @contextmanager
    def count_evaluation_time(self) -> Iterator[None]:
        """A context whose time is counted as time of evaluations."""
        before = time.perf_counter()
        yield
        self.spent += time.perf_counter() - before


@contextmanager
def explain_out_of_memory(device: torch.device) -> Iterator[None]:
    """A context that turns torch's out-of-memory error into a SurroundingsError naming the settings that need less
    memory.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "MPS backend out of memory" not in str(error):
            raise
        raise SurroundingsError(
            f"the {device.type} device does not have enough memory for this run",
            next_step="a smaller train.batch_size with more train.accumulation, hardware.precision=bf16, "
            "hardware.gradient_checkpointing=true, a smaller family.resolution, or lora=attention; with several cards "
            "hardware.shard=true.",
        ) from None


def train(config: Config) -> int:
    """Train to `train.max_steps`, from the newest saved state if there is one; with dry_run=true only print what that
    would need.

    Returns 0, or 143 if SIGTERM stopped the run after it was saved.
    """
    if config.dry_run:
        return dryrun.print_dry_run_report(config)
    device = hardware.set_threads_and_choose_device(config.hardware)
    sharding.require_supported_accelerate_config()
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="no",  # hardware.precision decides, and hardware.compile: not the config of accelerate
        dynamo_backend="no",
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )
    sharding.require_several_processes_if_sharded(config, accelerator)
    main = accelerator.is_main_process
    directory = files.RUNS / run_directory_name(config)
    with (
        files.exclusive_lock(directory) if main else nullcontext(),
        Preemption() as preemption,
        keeping_encoder_loaded(),
    ):
        with explain_out_of_memory(device):
            run = prepare_training_run(config, directory, accelerator)
        parameters = [p for p in run.adapted.parameters() if p.requires_grad]
        optimizer = optimizers.build_optimizer(config.train, parameters)
        average = [p.detach().clone() for p in parameters] if config.train.ema_decay else []
        first = state.restore_weights_and_optimizer(directory, run.adapted, optimizer, average)
        if main and first:
            all_done = first >= config.train.max_steps
            print(
                f"All {first} steps were done before; what is missing after them is done now."
                if all_done
                else f"The run is resumed at step {first}."
            )
        tracker = make_tracker(
            config.tracker, directory, "train", config_as_dict(config) | {"digests": run.facts}, main
        )
        brand_set, data = run.brand_set, {"sha256": run.facts["data"]}
        tracker.record_input_artifact(f"brand-{brand_set.brand.name}", "brand-set", [brand_set.folder], data)
        if config.draw_base:
            for key in ("base", "draw_base"):
                name = release.base_name_for_publication(getattr(config, key))
                tracker.record_input_artifact(f"base-{name}", "base", [], {"sha256": run.facts[key]})
        evaluation = Evaluator(run, average)
        with explain_out_of_memory(device):
            done = train_steps(run, optimizer, average, evaluation, first, tracker, preemption)
            stopped = done < config.train.max_steps
            selection = {} if stopped else choose_checkpoint_and_lora_strength(run, evaluation, done)
        if main and stopped:
            print(
                f"The run was stopped (SIGTERM) and saved at step {done}.\nNext: the same command goes on from there."
            )
            page.write_run_page(run.directory)
            tracker.finish_tracking()
        elif main:
            write_lora_and_print_results(run, selection, tracker)
        # The signal may also come while samples are drawn.
        stopped = stopped or preemption.any_process_received_sigterm(accelerator)
        accelerator.end_training()
    return ExitCode.PREEMPTED if stopped else ExitCode.PASS


def train_steps(
    run: LiveTrainingRun,
    optimizer: torch.optim.Optimizer,
    average: list[Tensor],
    evaluation: Evaluator,
    first: int,
    tracker: Tracker,
    preemption: Preemption,
) -> int:
    """Train from step `first` to train.max_steps; save states and evaluate on the way. Returns the number of the last
    step done, which is smaller than train.max_steps if SIGTERM came.

    `average` are the averaged weights, one tensor for each trained parameter, or empty; they are updated in place.
    """
    settings, accelerator, main = run.config.train, run.accelerator, run.accelerator.is_main_process
    parameters = optimizer.param_groups[0]["params"]
    base, sharded = run.models.denoiser, sharding.is_sharded_among_processes(run.models.denoiser)
    denoiser: Any = base if sharded else accelerator.prepare_model(base)
    averaged_by_ddp = set() if sharded else {id(parameter) for parameter in base.parameters()}
    not_averaged = [p for p in parameters if id(p) not in averaged_by_ddp]  # of text encoders and of a sharded base
    if main:
        page.record_prompts_and_git_commit(run.directory, first, evaluation.prompts)
        print(f"page, renewed while it trains: {files.display_path(page.page_path(run.directory))}", flush=True)
    evaluation.evaluate(0)
    if first and (first == settings.max_steps or first % settings.evaluate_every == 0):
        evaluation.evaluate(first)  # a run that was killed between saving and evaluating
    pictures_at, timed = (
        (lambda step, rank: training_picture_names_of_step(run, step - 1, rank)),
        install_cache_read_timer(run),
    )
    stats = StepStatsWriter(run.directory, accelerator, tracker, first, pictures_at, timed)
    if main and stats.send_missing_to_tracker(evaluation.finished_results()):
        tracker.log_picture("samples", evaluation.write_sample_grid(), step=first)
    renewal = page.PageRenewal(run.directory)
    trained = sum(row["seconds"] for row in files.read_jsonl(stats.clock, "seconds"))
    budget = EvaluationTimeBudget(
        settings.evaluation_share, accelerator, evaluation.seconds_of_all_evaluations(), trained
    )
    with progress.progress_bar("train", settings.max_steps, first, visible=main) as tick:
        for step in range(first, settings.max_steps):
            for group in optimizer.param_groups:
                group["lr"] = optimizers.learning_rate_at(settings, step)
            each_loss, measured = [], []
            for part in range(settings.accumulation):
                last_pass = part == settings.accumulation - 1
                with nullcontext() if last_pass else accelerator.no_sync(denoiser):
                    each, measures = losses_of_microbatch(run, denoiser, step * settings.accumulation + part)
                    accelerator.backward(each.mean() / settings.accumulation)
                each_loss.append(each.detach())
                measured.append(measures)
            if not_averaged and accelerator.num_processes > 1:
                sharding.average_gradients(not_averaged, accelerator)
            norm = torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
            if average:
                optimizers.update_weight_average(average, parameters, settings.ema_decay, step)

            done = step + 1
            joined = {name: torch.cat([measures[name] for measures in measured]) for name in measured[0]}
            stats.collect_step_values(done, torch.cat(each_loss), norm, optimizer.param_groups[0]["lr"], joined)
            last, due = done == settings.max_steps, done % settings.evaluate_every == 0
            save = last or due or done % settings.checkpoint_every == 0
            together = save or len(stats.rows) == FLUSH_EVERY  # where several processes wait for each other anyway
            stop = (
                preemption.any_process_received_sigterm(accelerator)
                if together or accelerator.num_processes == 1
                else False
            )
            if together or stop:
                tick(len(stats.rows), f"loss {stats.write_collected_steps(budget.spent):.4f}")
                if main:
                    renewal.write_page_if_due()
            if main and (save or stop):
                best = select.steps_of_states_to_keep(
                    evaluation.finished_results(), settings.selection_margin, settings.keep_best
                )
                state.save_state(run.directory, done, run.adapted, optimizer, average, settings.keep_newest, best)
            if stop and not last:
                return done
            if last or (due and budget.allows_evaluation_now()):
                with budget.count_evaluation_time():
                    evaluation.evaluate(done)
                    if main:
                        page.write_run_page(run.directory)
                if main and (result := evaluation.read_evaluation_result_or_none(done)):
                    grid = evaluation.write_sample_grid()
                    if done > tracker.highest_value_wandb_had_at_start(EVALUATED):
                        share = {"evaluation/share": budget.share_of_time_spent_evaluating()}
                        tracker.log_values(select.tracked_evaluation_values(result) | share, step=done)
                        tracker.log_picture("samples", grid, step=done)
    return max(first, settings.max_steps)


def write_lora_and_print_results(run: LiveTrainingRun, selection: dict[str, Any], tracker: Tracker) -> None:
    """Write the LoRA files of a finished run and tell the tracker about them. Print where they are, and what to do if
    few pictures pass the gate. `selection` is the content of selection.json.
    """
    lora, other = release.write_release(
        run.config, run.directory, run.models, run.adapted, run.family, run.brand_set, run.facts, selection
    )
    tracker.set_summary_values({"chosen/step": selection["step"], "chosen/strength": selection["scale"]})
    tracker.log_artifact(f"lora-{lora.stem}", "lora", [lora.parent], {"sha256": files.sha256_of_file(lora)})
    tracker.finish_tracking()
    if selection["checkpoints"]:
        passing = ""
        if interval := selection["interval"]:
            low, high = interval
            share = f"{selection['pass_rate']:.0%} of {counted(selection['num_prompts'], 'picture')}"
            passing = f"; {share} pass the gate, 95% interval [{low:.0%}, {high:.0%}]"
        print(
            f"chosen: step {selection['step']} at strength {selection['scale']:g}{passing} "
            f"(evaluations took {selection['evaluation_seconds']:.0f} s)"
        )
        print(f"        {select.reason_for_choice_in_words(selection['checkpoints'])}")
    if run.config.lora.dora:
        print(
            f"note: this is a DoRA. diffusers reads {lora.name}; ComfyUI and A1111 read {other.name} by other formulas."
        )
    handed_out = read_final_evaluation_result(run, selection["step"], selection["scale"])
    if advice := select.advice_if_few_pass(handed_out, selection["checkpoints"]):
        print(f"Next: {advice}")
    print(f"page: {files.display_path(page.write_run_page(run.directory))}")
    grid = run.directory / "samples" / "grid.png"
    if grid.is_file():
        print(f"samples: {files.display_path(grid)}")
    print(release.other_programs_in_words(run.models, files.display_path(other)))
    workflow = lora.with_name(f"{lora.stem}.comfyui.json")
    if workflow.is_file():
        print(f"workflow for ComfyUI, for a base that it has: {files.display_path(workflow)}")
    print(f"LoRA: {files.display_path(lora)}")
