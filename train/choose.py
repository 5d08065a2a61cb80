"""What a finished run hands out: a checkpoint and its strength, by what they were seen to do (train/select.py)."""

from typing import Any

from eval.policy.model import OUTSIDE
from stylegate import files
from train import select, state
from train.evaluate import Evaluation
from train.run import Run


def chosen(run: Run, evaluation: Evaluation, done: int) -> dict[str, Any]:
    """Load the checkpoint to hand out, try its strengths, write selection.json and return it; every process."""
    settings, main = run.config.train, run.accelerator.is_main_process
    run.accelerator.wait_for_everyone()  # rank 0 may still be writing the last state
    kept = {state.step_of(path): path for path in state.states(run.directory)}
    for step, path in kept.items():  # drawn, but judged by another policy or encoder than now
        if evaluation.folder(step).exists() and not evaluation.result(step):
            state.weights(path, run.adapted)
            Evaluation(run, []).take(step)
    results = [r for r in evaluation.all_results() if r["step"] in kept and r["passed"] is not None]
    passing = any(any(r["passed"]) for r in results)
    by_style = not passing and all(set(causes) <= {OUTSIDE} for r in results for causes in r["why"].values())
    checkpoints = select.choose(results, settings.selection_margin) if results and (passing or by_style) else None
    step = results[checkpoints["chosen"]]["step"] if checkpoints else done
    state.weights(kept[step], run.adapted)
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
            how = "the style score alone chooses, a weak witness" if checkpoints else "the last checkpoint is taken"
            print(f"note: no picture of an evaluation passed ({why}); {how}")
        every = settings.evaluate_every
        if left := [n for n in range(every, done + 1, every) if evaluation.items and not evaluation.result(n)]:
            print(f"note: not evaluated, to keep to train.evaluation_share: steps {', '.join(map(str, left))}")
    run.accelerator.wait_for_everyone()
    return selection
