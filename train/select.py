"""The choice of a checkpoint and a strength: the earliest checkpoint that is not measurably worse than the best.

The highest pass rate among a few checkpoints is partly luck. Each is therefore compared with the best one on the
same prompts and seeds: those whose pass rate is, with 95 % confidence, no more than a margin below the best one's
count as equal. A pass rate says little once nearly all pass, so among equals the style score decides: of those that
are, with the same confidence, no more than one spread of the references below the highest mean, the earliest is handed
out (it has seen the brand's pictures least often). Where even the best passes fewer than half, the best is handed out:
training has not come far enough for its end to be feared. The LoRA's strength is chosen in the same way, the one
nearest to 1; others are not even drawn where none of them could be measurably better.
selection.json records what was compared. Where a calibrated check was not asked, or the style cannot be read and every
picture waits for a person, the share of pictures that every other check accepts takes the place of the pass rate
(train/evaluate.py: `undecided`).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import norm, t

from eval.lot.paired import paired_difference_interval
from eval.policy.model import UNREADABLE
from eval.scorers import SCORES
from stylegate.words import counted

CONFIDENCE = 0.95
STYLE_MARGIN = 1.0  # spreads of the references
FEW = 0.5  # share of pictures that pass, of the best evaluation, below which the best one itself is chosen
MOST = 3  # checks whose remedies are said


def pass_rate_difference_lower_bound(passed: Sequence[bool], best: Sequence[bool]) -> float:
    """The lower confidence bound of the difference in pass rate, `passed` less `best`, on the same prompts.

    One-sided, in [-1, 1]: the lower end of the two-sided interval of twice the error.
    """
    return paired_difference_interval(passed, best, 2 * CONFIDENCE - 1)[0]


def wilson_interval(passed: Sequence[bool]) -> tuple[float, float]:
    """The two-sided confidence interval (low, high) of a pass rate (Wilson 1927)."""
    n, rate, z = len(passed), float(np.mean(passed)), norm.ppf((1 + CONFIDENCE) / 2)
    centre, half = rate + z**2 / (2 * n), z * np.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    return float((centre - half) / (1 + z**2 / n)), float((centre + half) / (1 + z**2 / n))


def style_difference_lower_bound(styles: Sequence[float], best: Sequence[float], spread: float) -> float:
    """The lower confidence bound of the mean difference in style, `styles` less `best`, in units of `spread`.

    One-sided, by the paired t-test; minus infinity for a single prompt.
    """
    differences = (np.asarray(styles) - np.asarray(best)) / spread
    n = len(differences)
    if n < 2:
        return -np.inf
    return float(differences.mean() - t.ppf(CONFIDENCE, n - 1) * differences.std(ddof=1) / np.sqrt(n))


def pass_flag_of_each_prompt(result: dict[str, Any]) -> list[bool] | None:
    """[prompts] whether each prompt's picture passed every check that was asked; None if nothing was judged.

    With a calibrated policy, and where the style cannot be read, whether only that check is undecided and no other one
    failed. `result` is the content of an evaluation's result.json.
    """
    return result["passed"] if result.get("undecided") is None else result["undecided"]


def choose_and_compare_evaluations(results: Sequence[dict[str, Any]], margin: float) -> dict[str, Any]:
    """Choose the first evaluation that is not measurably worse than the best; `results` are in order of preference.
    Where fewer than FEW pass in the best one, it is chosen itself: of those that count as equal the one of the highest
    pass rate, and of these of the best style.

    `margin`, in [0, 1], is the difference of pass rates that is ignored. Returns a mapping: `chosen` and `best`
    (indices of `results`), and `compared`, a row of numbers for each evaluation.
    """
    each = [pass_flag_of_each_prompt(r) or [] for r in results]
    rates = [pass_rate(r) for r in results]
    highest = int(np.argmax(rates))
    bounds = [pass_rate_difference_lower_bound(one, each[highest]) for one in each]
    equal = [i for i, bound in enumerate(bounds) if i == highest or bound >= -margin]
    best, styles = equal[0], [0.0] * len(results)
    if all(results[i]["styles"] for i in equal):
        best = max(equal, key=lambda i: float(np.mean(results[i]["styles"])))
        one, spread = results[best]["styles"], results[best]["style_spread"]
        styles = [style_difference_lower_bound(r["styles"], one, spread) if r["styles"] else -np.inf for r in results]
    if rates[highest] < FEW:
        mean_styles = [float(np.mean(r["styles"])) if r["styles"] else -np.inf for r in results]
        chosen = best = max(equal, key=lambda i: (rates[i], mean_styles[i]))
    else:
        chosen = next(i for i in equal if i == best or styles[i] >= -STYLE_MARGIN)
    compared = [
        {
            "step": r["step"],
            "scale": r["scale"],
            "pass_rate" if r.get("undecided") is None else "undecided_rate": rates[i],
            "interval": [round(v, 4) for v in wilson_interval(each[i])],
            "pass_rate_below_best_at_most": round(-bounds[i], 4),
            "style": r["style"],
            "style_below_best_at_most_spreads": None if not np.isfinite(styles[i]) else round(-styles[i], 3),
        }
        for i, r in enumerate(results)
    ]
    return {"chosen": chosen, "best": best, "compared": compared}


def another_could_be_better(result: dict[str, Any], margin: float) -> bool:
    """Whether another evaluation of the same prompts could be chosen in place of this one.

    It cannot where this one counts as equal, by the rules of `choose_and_compare_evaluations`, to one in which every
    picture passes and is as much in style as the references are in the mean.
    """
    flags, style = pass_flag_of_each_prompt(result) or [], result.get("style_of_references")
    if not flags or style is None or not result["styles"]:
        return True
    below_perfect = pass_rate_difference_lower_bound(flags, [True] * len(flags))
    below_references = style_difference_lower_bound(result["styles"], [style] * len(flags), result["style_spread"])
    return below_perfect < -margin or below_references < -STYLE_MARGIN


def reason_for_choice_in_words(found: dict[str, Any]) -> str:
    """Why a step was chosen, as the end of a sentence; `found` is the answer of `choose_and_compare_evaluations`."""
    steps = [row["step"] for row in found["compared"]]
    if len(steps) == 1:
        return "it is the only one that was compared"
    listing = f"of the steps {', '.join(map(str, steps))}"
    if found["chosen"] == found["best"]:
        return f"it is the best {listing}"
    return f"{listing} it is the earliest that is statistically as good as the best (step {steps[found['best']]})"


def pass_rate(result: dict[str, Any]) -> float:
    """The share of prompts whose pictures passed, or stayed undecided where that is compared, in [0, 1]; 0 if none was
    judged.
    """
    return float(np.mean(pass_flag_of_each_prompt(result) or [False]))


def steps_of_states_to_keep(results: Sequence[dict[str, Any]], margin: float, count: int) -> set[int]:
    """The steps of at most `count` saved states to keep: the one that would be chosen now, then those of the highest
    pass rates.
    """
    after = [r for r in results if r["step"] and pass_flag_of_each_prompt(r)]
    if not after:
        return set()
    first = after[choose_and_compare_evaluations(after, margin)["chosen"]]
    ranked = sorted((r for r in after if r is not first), key=lambda r: (-pass_rate(r), r["step"]))
    return {r["step"] for r in [first, *ranked][:count]}


def counts_of_failing_checks(results: Sequence[dict[str, Any]]) -> dict[str, int]:
    """How many pictures of the last of these evaluations each check held back, by check, the most frequent first."""
    counts: dict[str, int] = {}
    for verdict in ("reject", "review", "error") if results else ():
        for check, count in results[-1]["why"].get(verdict, {}).items():
            counts[check] = counts.get(check, 0) + count
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def check_counts_in_words(counts: dict[str, int]) -> str:
    """Counts of pictures by check as text, such as "style 3, coherence 1"."""
    return ", ".join(f"{check} {count}" for check, count in counts.items())


def remedies_in_words(counts: dict[str, int], train_longer: bool = True) -> str:
    """A sentence on what helps against the checks that held back most pictures; "" where nothing is known. `counts` are
    pictures by check; without `train_longer` it is not said that training longer helps.
    """
    words = {check: SCORES[check].remedies_in_words(train_longer) for check in counts if check in SCORES}
    known = [f"{check}: {helps}" for check, helps in words.items() if helps]
    return f"What helps: {'; '.join(known[:MOST])}." if known else ""


def pass_rates_that_do_not_rise_in_words(found: dict[str, Any] | None) -> str:
    """The shares of pictures that pass at the chosen step and at those after it, such as "50% at step 100, 6% at step
    200", where there are later steps and the last one has no more than the chosen one; else "". Where the style cannot
    be read, the shares are of pictures that every other check accepts. `found` is what `choose_and_compare_evaluations`
    answers.
    """
    rows = found["compared"][found["chosen"] :] if found else []
    rates = [(row["step"], row.get("pass_rate", row.get("undecided_rate", 0.0))) for row in rows]
    if len(rates) < 2 or rates[-1][1] > rates[0][1]:
        return ""
    return ", ".join(f"{rate:.0%} at step {step}" for step, rate in rates)


def advice_if_few_pass(result: dict[str, Any] | None, checkpoints: dict[str, Any] | None) -> str:
    """What to do next, in sentences, where fewer than half of the pictures of an evaluation pass; else "".

    `checkpoints` is how the step was chosen, the answer of `choose_and_compare_evaluations`. Where later steps passed
    no more, copies of training pictures are what fails most, or only the style that cannot be read holds pictures back,
    nobody is told to train longer.
    """
    passed = (result or {}).get("passed") or []
    if not result or 2 * sum(passed) >= len(passed):
        return ""
    counts, level = counts_of_failing_checks([result]), pass_rates_that_do_not_rise_in_words(checkpoints)
    if set(counts) == {UNREADABLE}:
        return (
            f"{len(passed) - sum(passed)} of {counted(len(passed), 'picture')} wait for a person, since the style "
            "cannot be read here; no other check holds them back. Plan a batch with the same arguments and draw it: "
            "the gate has more references."
        )
    others = max((count for check, count in counts.items() if check not in ("novelty", UNREADABLE)), default=0)
    longer = not level and counts.get("novelty", 0) <= others
    sentences = [
        f"{len(passed) - sum(passed)} of {len(passed)} pictures were not accepted ({check_counts_in_words(counts)}).",
        f"Later steps passed no more ({level}): look at samples/grid.png; training longer is not likely to help. More "
        "or cleaner training pictures, or a lower train.learning_rate, can."
        if level
        else "",
        remedies_in_words(counts, train_longer=longer),
        "The same command with a larger train.max_steps goes on from the last step." if longer else "",
        "Or plan a batch with the same arguments: generate draws each rejected slot again with another seed."
        if any(passed)
        else "",
    ]
    return " ".join(filter(None, sentences))


def tracked_evaluation_values(result: dict[str, Any]) -> dict[str, float]:
    """The values of an evaluation that a tracker plots, by their names in the tracker. `result` is the content of
    result.json.
    """
    names = ("step", "style", "style_without_trigger", "drift", "nearest_training", "eval_loss")
    found = {f"evaluation/{name}": result[name] for name in names if result[name] is not None}
    for share, loss in (result.get("eval_losses") or {}).items():  # in percent: W&B reads a point as a part of a name
        found[f"evaluation/eval_loss/{100 * float(share):g}"] = loss
    if result["passed"]:
        low, high = wilson_interval(result["passed"])
        found |= {"evaluation/pass_rate": pass_rate(result)}
        found |= {"evaluation/pass_rate_low": low, "evaluation/pass_rate_high": high}
    return found
