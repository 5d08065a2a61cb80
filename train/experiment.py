"""One experiment from end to end: train, plan, then generate, score and gate until the plan is filled, then export.

    stylegate run experiment=demo      (stylegate demo is this)

Every stage reads and writes what its own verb does, so the same command goes on with a stopped run. Ends with a table:
the style before and after, the verdicts, accepted pictures per minute, what one of them cost, seconds per stage.
"""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from eval import export, gate, generate, plan, trial
from eval.judging.advice import next_step_in_words
from eval.judging.judged import JudgedLot
from eval.lot import cost
from eval.lot.batch import batch_facts_from_config, batch_folder_and_facts, sampler_trial_path
from eval.lot.compared import comparison_pictures_with_decided_ones
from eval.lot.lot import Lot, sha256_by_name
from eval.lot.rounds import read_batch_progress
from eval.policy.model import VERDICTS
from eval.report.mirror import mirror_to_wandb
from stylegate import files, hardware
from stylegate.config import Config
from stylegate.errors import DataError, ExitCode, keeping_exit_code_of_verdict, most_important_exit_code
from stylegate.rundirectory import run_directory_name
from train import loop


def run_experiment(config: Config) -> int:
    """Train, plan, draw, judge and export. Returns the exit code of training if that stopped, else that of the gate and
    the export.

    Raises DataError without a brand.
    """
    if not config.brand:
        raise DataError("an experiment needs a brand", next_step="stylegate run experiment=demo, or brand=neon.")
    export.signing_key_and_requested_marks(config)  # what cannot sign is said now, not after hours of training
    folder: Path | None = None  # of the batch; it has no name before the LoRA is trained
    judged: JudgedLot | None = None
    unrecorded: dict[str, float] = {}  # seconds by stage that cost.json does not have yet

    def run_gate_and_return_exit_code(config: Config) -> int:
        nonlocal judged
        judged = gate.judge_and_report(config, with_next_step=False)
        return gate.exit_code_unless_observed(judged)

    def run_stage(name: str, work: Callable[[Config], int]) -> int:
        began = time.perf_counter()
        code = work(config)
        unrecorded[name] = unrecorded.get(name, 0.0) + time.perf_counter() - began
        if folder:
            add_seconds_to_cost_file(folder, unrecorded)
            unrecorded.clear()
        return code

    if stopped := run_stage("train", loop.train):
        return stopped
    if config.generate.by_trial and config.plan.num_images >= trial.LARGE and not is_sampler_trial_done(config):
        run_stage("trial", lambda given: trial.trial(replace(given, batch=None)))  # each setting has a batch of its own
    run_stage("plan", lambda given: plan.plan(given, with_next_step=False))
    folder, _ = batch_folder_and_facts(config)
    code = (
        most_important_exit_code(run_stage("gate", run_gate_and_return_exit_code))
        if (folder / "gate.json").exists()
        else ExitCode.REJECTED
    )
    while code != ExitCode.PASS and read_batch_progress(folder, config.plan.max_attempts).due:
        run_stage("draw", generate.generate)
        code = most_important_exit_code(run_stage("gate", run_gate_and_return_exit_code))
    assert judged, "a batch has at least one attempt"
    with keeping_exit_code_of_verdict(code):
        if judged.outcome.counts.accept and not config.observe:
            code = most_important_exit_code(code, run_stage("export", export.export))
        print_and_track_results(config, judged)
        if advice := next_step_in_words(judged.outcome, judged.verdicts, files.display_path(folder)):
            print(f"Next: {advice}")
    return code


def is_sampler_trial_done(config: Config) -> bool:
    """Whether the steps and guidance that are configured were tried for this base and LoRA (`stylegate trial`).

    Raises ModelError if no LoRA was trained with the same arguments.
    """
    return sampler_trial_path(batch_facts_from_config(config)).exists()


def add_seconds_to_cost_file(folder: Path, seconds: dict[str, float]) -> None:
    """Add seconds, by name of the stage, to the batch's cost.json, which the report reads."""
    before = cost.read_compute_seconds_by_stage(folder)
    total = {name: round(before.get(name, 0.0) + seconds.get(name, 0.0), 1) for name in before | seconds}
    files.write_json(folder / cost.COST, total)


def print_and_track_results(config: Config, judged: JudgedLot) -> None:
    """Send the results of the experiment to the tracker; print their table and the path of the report."""
    lot, counts = judged.lot, judged.outcome.counts
    before, after, real = mean_style_of_base_batch_references(config, lot)
    mirror_to_wandb(config, judged, {"style/base": before, "style/lora": after, "style/references": real})
    seconds = cost.read_compute_seconds_by_stage(lot.out)
    total = sum(seconds.values())
    table = Table(title=files.display_path(lot.out), title_justify="left", show_header=False, title_style="bold")
    table.add_row("style: base → LoRA (references)", f"{before:.2f} → {after:.2f} ({real:.2f})")
    table.add_row("accept / review / reject / error", " / ".join(str(getattr(counts, v)) for v in VERDICTS))
    table.add_row("accepted per minute of compute", f"{counts.accept / (max(total, 0.1) / 60):.0f}")
    if (price := config.hardware.price_per_hour) is not None:
        table.add_row("cost", cost.cost_in_words(seconds, counts.accept, price))
    stages = ", ".join(f"{name} {value:.0f}" for name, value in seconds.items() if value >= 0.5)
    table.add_row("seconds per stage", stages)
    Console().print(table)
    print(f"report: {files.display_path(lot.out / 'report' / 'index.html')}")


def mean_style_of_base_batch_references(config: Config, lot: Lot) -> tuple[float, float, float]:
    """The mean style score of the base's pictures, of the batch, and of the references (leave-one-out), in this order;
    NaN for all three if there are too few references, or no pictures of the base.
    """
    from eval.measuring import encoder as encoding
    from eval.measuring import encodername
    from eval.measuring.features import cached_features_of_files
    from eval.scorers import style

    encoder = encoding.load_encoder(
        encodername.encoder_name(config), hardware.set_threads_and_choose_device(config.hardware)
    )
    compared = comparison_pictures_with_decided_ones(config, lot)
    base = names_and_paths_of_base_pictures(files.RUNS / run_directory_name(config))
    found = [
        cached_features_of_files(
            named, sha256_by_name(named), encoder, compared.background, config.score.batch_size, ""
        )[0].embeddings
        for named in (base, lot.files, compared.references)
    ]
    before, after, references = found
    if len(references) < style.MIN_REFERENCES or not len(before):
        return math.nan, math.nan, math.nan
    return (
        float(style.score(before, references).mean()),
        float(style.score(after, references).mean()),
        float(style.leave_one_out(references).mean()),
    )


def names_and_paths_of_base_pictures(run: Path) -> list[tuple[str, Path]]:
    """(name, path) of the pictures that the base drew before the training of a run."""
    return [(p.name, p) for p in sorted((run / "samples" / "step-000000" / "with").glob("*.png"))]
