"""May checkpoints be compared by previews, pictures of few denoising steps? Their order, held against full pictures.

    python -m tests.bench.previews [brand ...]        about 6 minutes of CPU time a brand; exit 1 if a line is missed

Trains by the default config with a saved state every EVERY steps. The pictures of an evaluation are drawn for each
state in each number of denoising steps; FULL is what `generate` draws with. Printed for each number of steps: the rank
correlation (Spearman) of the states' mean styles and pass rates with those of FULL, the step that is chosen, how much
style (in spreads of the references) and pass rate it lacks, at FULL, to the step that FULL chooses, the seconds of CPU
time of all states; and how many verdicts on FULL's pictures change where the base's pictures, which are a foreign style
for the gate, are previews too. A line is missed where the previews of the default config order styles otherwise
(correlation below ORDER), or their choice lacks more than train.selection_margin or one spread of style.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from accelerate import Accelerator
from scipy.stats import rankdata

from stylegate import files
from stylegate.cli import main as stylegate
from stylegate.config import Config
from stylegate.configgroups import GenerateConfig, TrainConfig
from stylegate.rundirectory import run_directory_name
from train import select, state
from train.evaluate import Evaluator
from train.prepare import prepare_training_run
from train.run import LiveTrainingRun

BRANDS, EVERY, STEPS, FULL = ("neon", "pixel", "riso"), 50, (4, 6, 8, 12), GenerateConfig().num_inference_steps
ORDER = 0.8  # of six states: at most a few neighbours change places


def trained(brand: str) -> LiveTrainingRun:
    """A run of the default config with all its states; trained where it is not at hand."""
    words = [f"brand={brand}", "train.num_samples=0", f"train.checkpoint_every={EVERY}", "train.keep_newest=1000"]
    directory = files.RUNS / run_directory_name(Config(brand=brand))
    if not (directory / "state").exists():
        assert stylegate(["train", *words]) == 0
    return prepare_training_run(Config(brand=brand), directory, Accelerator(cpu=True))


def with_steps(run: LiveTrainingRun, steps: int) -> LiveTrainingRun:
    """The run, drawing evaluations in so many denoising steps, in a directory of their own."""
    config = replace(
        run.config,
        generate=replace(run.config.generate, num_inference_steps=steps),
        train=replace(run.config.train, preview_steps=steps),
    )
    return replace(run, config=config, directory=run.directory / f"steps-{steps}")


def evaluated(run: LiveTrainingRun, states: dict[int, Path]) -> tuple[list[dict[str, Any]], float]:
    """The evaluations of the base and of all states, and the seconds of CPU time of the states'."""
    Evaluator(run, []).evaluate(0)
    began = time.process_time()
    for step, path in states.items():
        state.load_saved_lora_weights(path, run.adapted)
        Evaluator(run, []).evaluate(step)
    found = [result for result in Evaluator(run, []).finished_results() if result["step"] in states]
    return found, time.process_time() - began


def verdicts_that_change(full: LiveTrainingRun, previews: LiveTrainingRun, results: list[dict[str, Any]]) -> int:
    """How many of the verdicts on full pictures differ where the base's previews are the foreign style."""
    evaluation = Evaluator(full, [])
    evaluation.base_folder = Evaluator(previews, []).base_folder
    changed = 0
    for result in results:
        again = evaluation.make_evaluation_result(evaluation.folder_of_evaluation(result["step"]))["verdicts"]
        changed += sum(one != other for one, other in zip(again, result["verdicts"], strict=True))
    return changed


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's rank correlation of two lists of the same things, in [-1, 1]; NaN where all of one are equal."""
    return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])


def measure(brand: str) -> list[str]:
    """Print the table of one brand. Returns what was missed."""
    run = trained(brand)
    states = {state.step_of_state(path): path for path in state.saved_states(run.directory)}
    states = {step: path for step, path in sorted(states.items()) if step % EVERY == 0}
    margin, default, missed = run.config.train.selection_margin, TrainConfig().preview_steps, []
    full, seconds = evaluated(with_steps(run, FULL), states)
    rates, styles = [select.pass_rate(r) for r in full], [r["style"] for r in full]
    best, spread = select.choose_and_compare_evaluations(full, margin)["chosen"], full[0]["style_spread"]
    print(f"\n{brand}: steps {list(states)}; pass rates {rates}; styles {styles}; spread {spread:.4f}")
    print(f"  {FULL} steps: {seconds:.0f} s of CPU time, chosen {full[best]['step']}")
    for steps in STEPS:
        previewed = with_steps(run, steps)
        found, own = evaluated(previewed, states)
        of_style = rank_correlation([r["style"] for r in found], styles)
        of_rate = rank_correlation([select.pass_rate(r) for r in found], rates)
        chosen = select.choose_and_compare_evaluations(found, margin)["chosen"]
        lacks, rate_lacks = (styles[best] - styles[chosen]) / spread, rates[best] - rates[chosen]
        judged = sum(len(r["verdicts"]) for r in full)
        changed = verdicts_that_change(with_steps(run, FULL), previewed, full)
        print(
            f"  {steps:>2} steps: {own:.0f} s, order of styles {of_style:.2f}, of pass rates {of_rate:.2f}; chosen "
            f"{found[chosen]['step']}, lacks {lacks:.2f} spreads and {rate_lacks:.2f} of the pass rate; pass rate "
            f"{mean(map(select.pass_rate, found)):.2f} ({mean(rates):.2f}); {changed} of {judged} "
            "verdicts change by the base's previews",
            flush=True,
        )
        if steps == default and (of_style < ORDER or lacks > select.STYLE_MARGIN or rate_lacks > margin):
            missed.append(f"{brand}: {steps} steps")
    return missed


if __name__ == "__main__":
    missed = [line for brand in sys.argv[1:] or BRANDS for line in measure(brand)]
    print("\n".join(["missed:", *missed]) if missed else "every line holds")
    raise SystemExit(1 if missed else 0)
