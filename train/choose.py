"""What a finished run hands out: a checkpoint and its strength, chosen by their pictures (train/select.py)."""

from typing import Any

from eval.measuring.columns import rough_thresholds_in_words
from eval.measuring.encodername import encoder_name
from eval.policy.model import UNREADABLE
from stylegate import files
from stylegate.words import counted
from train import select, state
from train.basegap import base_gap_in_words, compare_checkpoints_on_both_bases
from train.evaluate import Evaluator
from train.run import LiveTrainingRun


def choose_checkpoint_and_lora_strength(run: LiveTrainingRun, evaluation: Evaluator, steps_done: int) -> dict[str, Any]:
    """Choose the checkpoint and the strength of the LoRA that the run hands out, load these weights, write
    selection.json and return its content.

    Every process calls this, after step `steps_done`. Where no checkpoint can be preferred, the last one is handed out.
    """
    settings, main = run.config.train, run.accelerator.is_main_process
    run.accelerator.wait_for_everyone()  # rank 0 may still be writing the last state
    saved = {state.step_of_state(path): path for path in state.saved_states(run.directory)}
    for step, path in saved.items():  # what was drawn or judged with other settings is drawn or judged again
        if evaluation.folder_of_evaluation(step).exists() and not evaluation.read_evaluation_result_or_none(step):
            state.load_saved_lora_weights(path, run.adapted)
            Evaluator(run, []).evaluate(step)
    results = [
        r
        for r in evaluation.finished_results()
        if r["step"] in saved and select.pass_flag_of_each_prompt(r) is not None
    ]
    checkpoints = (
        select.choose_and_compare_evaluations(results, settings.selection_margin)
        if selection_rule_in_words(results)
        else None
    )
    step = results[checkpoints["chosen"]]["step"] if checkpoints else steps_done
    state.load_saved_lora_weights(saved[step], run.adapted)
    scale, strengths, result = 1.0, None, evaluation.read_evaluation_result_or_none(step)
    if checkpoints:
        evaluation = Evaluator(run, [])  # the weights are in place, averaged or not
        try_others = select.another_could_be_better(results[checkpoints["chosen"]], settings.selection_margin)
        for strength in settings.scales if try_others else []:
            evaluation.evaluate(step, strength)
        nearest_first = sorted({1.0, *settings.scales}, key=lambda s: (abs(s - 1), s))
        tried = [r for s in nearest_first if (r := evaluation.read_evaluation_result_or_none(step, s))]
        strengths = select.choose_and_compare_evaluations(tried, settings.selection_margin)
        scale = tried[strengths["chosen"]]["scale"]
        evaluator_with_generate_settings(run).evaluate(step, scale)
        result = read_final_evaluation_result(run, step, scale)
    handed_out = [result] if result else []
    gap = (
        compare_checkpoints_on_both_bases(run, [r["step"] for r in results], saved, step)
        if checkpoints and run.config.draw_base
        else None
    )
    passing = any(any(r["passed"] or []) for r in [*results, *handed_out])
    flags = select.pass_flag_of_each_prompt(result) if result else None
    selection = {
        "step": step,
        "scale": scale,
        "pass_rate": select.pass_rate(result) if result and passing else None,
        "interval": [round(v, 4) for v in select.wilson_interval(flags)] if flags and passing else None,
        "num_prompts": len(evaluation.items),
        "margin": settings.selection_margin,
        "confidence": select.CONFIDENCE,
        "checkpoints": checkpoints,
        "scales": strengths,
        "policy": run.config.policy,
        "encoder": encoder_name(run.config),
        "bases": gap,
        "preview_steps": evaluation.drawn_with.num_inference_steps,
        "evaluation_seconds": evaluation.seconds_of_all_evaluations(),
    }
    if main:
        files.write_json(run.directory / "selection.json", selection)
        for text in selection_remarks(run, evaluation, results, steps_done):
            print(f"note: {text}")
        if gap:
            print(base_gap_in_words(gap))
    run.accelerator.wait_for_everyone()
    return selection


def evaluator_with_generate_settings(run: LiveTrainingRun) -> Evaluator:
    """The evaluation by pictures that are drawn with the settings of `generate`. Where previews are drawn with these
    settings too, it is their evaluation, so that no picture is drawn twice.
    """
    previews = Evaluator(run, [])
    return previews if previews.drawn_with == run.config.generate else Evaluator(run, [], final=True)


def read_final_evaluation_result(run: LiveTrainingRun, step: int, scale: float) -> dict[str, Any] | None:
    """The content of result.json (train/evaluate.py) for pictures of this checkpoint and strength that were drawn with
    the settings of `generate`; None where there are none.
    """
    return evaluator_with_generate_settings(run).read_evaluation_result_or_none(step, scale)


def selection_rule_in_words(results: list[dict[str, Any]]) -> str | None:
    """The rule by which the evaluations `results` are compared, in words; None if nothing tells them apart."""
    if any(any(r["passed"] or []) for r in results):
        return "the pass rate chooses the checkpoint"
    if any(any(r.get("undecided") or []) for r in results):
        return "the share of pictures that every other check accepts chooses the checkpoint"
    # Where the style cannot be read, the checks of pixels still refuse pictures: melted ones come early in training.
    if results and all(
        set(causes) <= {UNREADABLE, "coherence", "palette"} for r in results for causes in r["why"].values()
    ):
        return "the style score alone chooses the checkpoint, which is weak evidence"
    return None


def selection_remarks(
    run: LiveTrainingRun, evaluation: Evaluator, results: list[dict[str, Any]], steps_done: int
) -> list[str]:
    """Sentences on how the checkpoint was chosen, where a person should know it: that few references judged, why no
    picture passed, and which steps were not evaluated.
    """
    found = []
    if evaluation.items and (rough := rough_thresholds_in_words(len(evaluation.references))):
        more = len(run.brand_set.splits["test"])
        gate = f"gate compares with the {more} pictures of test/, and may accept more of the same pictures."
        found.append(f"{rough}. {gate}" if more > len(evaluation.references) else f"{rough}.")
    if evaluation.items and not any(any(r["passed"] or []) for r in results):
        counts = select.counts_of_failing_checks(evaluation.finished_results())
        why = select.check_counts_in_words(counts) or "nothing was evaluated"
        how = selection_rule_in_words(results) or "the last checkpoint is handed out"
        unread = (
            f"By the {counted(len(evaluation.references), 'reference')} of an evaluation the style cannot be told "
            "surely from others, which is no fault of the pictures. A set made again with `stylegate brand ... "
            "validation=16` may show it; `gate` compares with test/, and may read it too (docs/scores.md)."
            if UNREADABLE in counts
            else ""
        )
        said = [f"no picture of an evaluation passed ({why}); {how}.", select.remedies_in_words(counts), unread]
        found.append(" ".join(filter(None, said)))
    every = run.config.train.evaluate_every
    missing = [
        n
        for n in range(every, steps_done + 1, every)
        if evaluation.items and not evaluation.read_evaluation_result_or_none(n)
    ]
    if missing:
        steps = ", ".join(map(str, missing))
        found.append(f"these steps were not evaluated, to keep to train.evaluation_share: {steps}.")
    return found
