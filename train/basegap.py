"""The gap between the base that is trained on and the base that draws: do they order checkpoints alike, do as many
pictures pass?

With `draw_base=` every checkpoint is chosen by pictures of the base that draws. For the gap the saved checkpoints are
drawn on the training base too: the first NUM_PROMPTS prompts from the same seeds, with the default steps and guidance,
since those of `generate` are the other base's. training-base/ in the run's directory holds them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from eval.lot.paired import paired_difference_interval
from stylegate.configgroups import GenerateConfig
from train import select, state
from train.evaluate import Evaluator
from train.run import LiveTrainingRun

NUM_PROMPTS, RESAMPLES = 8, 1000
FOLDER = "training-base"


def compare_checkpoints_on_both_bases(
    run: LiveTrainingRun, steps: Sequence[int], saved: Mapping[int, Path], chosen: int
) -> dict[str, Any] | None:
    """Draw the checkpoints of `steps` on the training base and compare with the previews of the base that draws.

    Every process calls this. The weights of the step `chosen` are loaded at the end, as they were before. Returns
    None where nothing can be compared; else by name: the number of prompts, the steps, the pass rates on both bases,
    `chosen` and the difference of the pass rate there with its interval, and the rank correlation of the steps'
    styles with its interval.
    """
    on_training_base = evaluator_on_training_base(run)
    for step in steps:
        state.load_saved_lora_weights(saved[step], run.adapted)
        on_training_base.evaluate(step)
    state.load_saved_lora_weights(saved[chosen], run.adapted)
    if not run.accelerator.is_main_process:
        return None
    ours = [on_training_base.read_evaluation_result_or_none(step) for step in steps]
    theirs = [Evaluator(run, []).read_evaluation_result_or_none(step) for step in steps]
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a and b]
    count = len(on_training_base.items)
    flags = [[(select.pass_flag_of_each_prompt(result) or [])[:count] for result in pair] for pair in pairs]
    styles = [[(result["styles"] or [])[:count] for result in pair] for pair in pairs]
    if len(pairs) != len(steps) or not all(len(part) == count for pair in [*flags, *styles] for part in pair):
        return None
    trained, drawn = flags[list(steps).index(chosen)]
    low, high = paired_difference_interval(drawn, trained, select.CONFIDENCE)
    return {
        "num_prompts": count,
        "steps": list(steps),
        "pass_rates_training_base": [float(np.mean(pair[0])) for pair in flags],
        "pass_rates_draw_base": [float(np.mean(pair[1])) for pair in flags],
        "chosen": chosen,
        "pass_rate_difference": float(np.mean(drawn) - np.mean(trained)),
        "pass_rate_difference_interval": [round(low, 4), round(high, 4)],
        **checkpoint_rank_correlation_and_interval(np.array(styles, np.float64)),
    }


def evaluator_on_training_base(run: LiveTrainingRun) -> Evaluator:
    """An evaluator that draws NUM_PROMPTS prompts at most on the base that is trained on, in a folder of its own."""
    settings = replace(run.config.generate, **default_denoising_steps_and_guidance())
    training = replace(run.config.train, num_samples=min(NUM_PROMPTS, run.config.train.num_samples))
    training.preview_steps = settings.num_inference_steps
    config = replace(run.config, draw_base=None, generate=settings, train=training)
    directory = run.directory / FOLDER
    alone = replace(run, config=config, directory=directory, drawing=run.models, drawing_adapted=run.adapted)
    found = Evaluator(alone, [])
    found.prompts = {"with": found.prompts["with"]}
    found.base_folder = Evaluator(run, []).base_folder  # both are judged with the same foreign pictures
    return found


def default_denoising_steps_and_guidance() -> dict[str, Any]:
    """The default denoising steps and guidance, as fields of GenerateConfig."""
    usual = GenerateConfig()
    return {"num_inference_steps": usual.num_inference_steps, "guidance_scale": usual.guidance_scale}


def checkpoint_rank_correlation_and_interval(styles: np.ndarray) -> dict[str, Any]:
    """Whether both bases order the checkpoints alike: Spearman's rank correlation of the checkpoints' mean styles on
    both, and its 95 % interval, by name; None both of fewer than three checkpoints.

    `styles` is [checkpoints, 2, prompts]: the style of each picture on the training base, then on the base that draws.
    The interval is a bootstrap's over the prompts, which are drawn again together for both bases.
    """
    if len(styles) < 3:
        return {"rank_correlation": None, "rank_correlation_interval": None}
    generator = np.random.default_rng(0)
    drawn = generator.integers(styles.shape[2], size=(RESAMPLES, styles.shape[2]))
    resampled = [rank_correlation(styles[:, :, own].mean(2)) for own in drawn]
    tail = (1 - select.CONFIDENCE) / 2
    interval = [round(float(value), 4) for value in np.quantile(resampled, [tail, 1 - tail])]
    return {"rank_correlation": rank_correlation(styles.mean(2)), "rank_correlation_interval": interval}


def rank_correlation(pairs: np.ndarray) -> float:
    """Spearman's rank correlation of two columns, [n, 2], in [-1, 1]; 0 where all of a column are equal."""
    one, other = (rankdata(column) - (len(pairs) + 1) / 2 for column in pairs.T)
    length = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return round(float((one * other).sum() / length), 4) if length else 0.0


def base_gap_in_words(gap: Mapping[str, Any]) -> str:
    """The result of `compare_checkpoints_on_both_bases`, as one line of text: pass rates on both bases, the interval of
    their difference, and the rank correlation of the checkpoints.
    """
    at = list(gap["steps"]).index(gap["chosen"])
    trained, drawn = gap["pass_rates_training_base"][at], gap["pass_rates_draw_base"][at]
    low, high = gap["pass_rate_difference_interval"]
    text = (
        f"training base and base that draws, {gap['num_prompts']} prompts at step {gap['chosen']}: {trained:.0%} and "
        f"{drawn:.0%} pass, difference {gap['pass_rate_difference']:+.0%} [{low:+.0%}, {high:+.0%}]"
    )
    if gap["rank_correlation"] is None:
        return f"{text}; fewer than three checkpoints, so nothing is said of their order"
    low, high = gap["rank_correlation_interval"]
    return (
        f"{text}; rank correlation of {len(gap['steps'])} checkpoints by style {gap['rank_correlation']:.2f} "
        f"[{low:.2f}, {high:.2f}]"
    )
