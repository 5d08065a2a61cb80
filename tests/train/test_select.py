"""Choosing a checkpoint: bounds against slow references, the rule by examples that can be reasoned out."""

from statistics import NormalDist

import numpy as np
import pytest

from eval.policy.model import UNREADABLE
from train import select


def result(step: int, passed: list[int], styles: list[float] | None = None) -> dict:
    found = {"step": step, "scale": 1.0, "passed": [bool(p) for p in passed], "why": {}, "style": None}
    return found | {"styles": styles, "style_spread": 0.01}


def test_bound_equals_counting_the_four_cells() -> None:
    one, other = [1, 1, 1, 0, 0, 1, 0, 1], [1, 0, 1, 1, 1, 1, 0, 1]
    cells = {(a, b): 0.5 for a in (0, 1) for b in (0, 1)}
    for pair in zip(one, other, strict=True):
        cells[pair] += 1
    n = sum(cells.values())
    p10, p01 = cells[1, 0] / n, cells[0, 1] / n
    wanted = p10 - p01 - NormalDist().inv_cdf(0.95) * ((p10 + p01 - (p10 - p01) ** 2) / n) ** 0.5
    assert select.pass_rate_difference_lower_bound([bool(v) for v in one], [bool(v) for v in other]) == pytest.approx(
        wanted
    )


def test_bound_covers() -> None:
    """Over 2,000 draws of 24 pairs the truth lies below the bound in at most about 5 % of them."""
    random = np.random.default_rng(1)
    below = []
    for _ in range(2000):
        both = random.random(24)
        one, other = both < 0.8, np.where(random.random(24) < 0.2, random.random(24) < 0.9, both < 0.8)
        truth = 0.8 - (0.8 * 0.8 + 0.2 * 0.9)
        below.append(select.pass_rate_difference_lower_bound(one.tolist(), other.tolist()) > truth)
    assert np.mean(below) < 0.065


def test_wilson_equals_scipy() -> None:
    from scipy.stats import binomtest

    for k, n in ((0, 8), (5, 16), (16, 16)):
        interval = binomtest(k, n).proportion_ci(0.95, "wilson")
        assert select.wilson_interval([True] * k + [False] * (n - k)) == pytest.approx(
            (interval.low, interval.high), abs=1e-9
        )


def test_the_earliest_that_cannot_be_told_from_the_best() -> None:
    good, worse = [1] * 30 + [0] * 2, [1] * 15 + [0] * 17
    results = [result(100, worse), result(200, good), result(300, good[::-1]), result(400, [1] * 31 + [0])]
    found = select.choose_and_compare_evaluations(results, margin=0.15)
    assert found["chosen"] == 1
    assert [row["pass_rate"] for row in found["compared"]] == [15 / 32, 30 / 32, 30 / 32, 31 / 32]
    assert select.choose_and_compare_evaluations(results, margin=0.0)["chosen"] == 3, (
        "nothing but the best is within no margin at all"
    )
    assert select.choose_and_compare_evaluations([result(1, [0, 0]), result(2, [0, 0])], 0.1)["chosen"] == 0


def test_where_few_pass_the_best_is_handed_out() -> None:
    """Of 16 pictures none, none and one passes: by chance alone the three are equal, but pictures still get better."""
    styles = [[0.93] * 16, [0.948] * 16, [0.955] * 16]
    results = [result(100 * (i + 1), [0] * 15 + [i == 2], styles[i]) for i in range(3)]
    found = select.choose_and_compare_evaluations(results, 0.2)
    assert found["chosen"] == found["best"] == 2
    assert select.choose_and_compare_evaluations(results[:2], 0.2)["chosen"] == 1, "none passes: the style decides"
    falling = [result(100, [1] * 6 + [0] * 10, styles[0]), result(200, [1] * 5 + [0] * 11, styles[1])]
    assert select.choose_and_compare_evaluations(falling, 0.2)["chosen"] == 0


def test_among_equals_the_style_decides() -> None:
    """All pass; the second is three spreads better than the first, the third only a little better than the second."""
    random = np.random.default_rng(5)
    all_pass, noise = [1] * 16, 0.004 * random.normal(size=(3, 16))
    means = [0.93, 0.96, 0.962]
    results = [result(100 * (i + 1), all_pass, list(m + noise[i])) for i, m in enumerate(means)]
    found = select.choose_and_compare_evaluations(results, 0.2)
    assert found["chosen"] == 1 and found["best"] == 2
    words = "of the steps 100, 200, 300 it is the earliest that is statistically as good as the best (step 300)"
    assert select.reason_for_choice_in_words(found) == words
    assert select.reason_for_choice_in_words(found | {"chosen": 2}) == "it is the best of the steps 100, 200, 300"
    alone = select.choose_and_compare_evaluations(results[:1], 0.2)
    assert select.reason_for_choice_in_words(alone) == "it is the only one that was compared"
    assert found["compared"][0]["style_below_best_at_most_spreads"] > 3
    lucky = [result(100, all_pass, list(0.93 + noise[0])), result(300, [1] * 15 + [0], list(0.96 + noise[1]))]
    assert select.choose_and_compare_evaluations(lucky, 0.2)["chosen"] == 1, (
        "one picture more is luck, three spreads of style are not"
    )


def test_only_what_could_be_better_is_worth_drawing() -> None:
    """Of 16 pictures one may fail by chance, two are more than a margin of .2 allows; style counts beside them."""
    in_style, below = [0.96] * 16, [0.94] * 16  # a spread is .01
    for passed, styles, wanted in (
        ([1] * 16, in_style, False),
        ([1] * 15 + [0], in_style, False),
        ([1] * 14 + [0] * 2, in_style, True),
        ([1] * 16, below, True),
        ([1] * 7, in_style[:7], False),
        ([1] * 6, in_style[:6], True),
    ):
        found = result(100, passed, styles) | {"style_of_references": 0.965}
        assert select.another_could_be_better(found, 0.2) is wanted, (passed, styles)
    assert select.another_could_be_better(result(100, [1] * 16, in_style), 0.2), "an evaluation of an earlier version"


def test_style_bound_equals_scipy() -> None:
    from scipy.stats import ttest_rel

    one, other = np.random.default_rng(2).normal(0.9, 0.01, (2, 12))
    interval = ttest_rel(one, other).confidence_interval(0.90)  # two-sided 90 % has the one-sided 95 % bound
    assert select.style_difference_lower_bound(list(one), list(other), 0.02) == pytest.approx(interval.low / 0.02)


def test_states_worth_keeping_hold_the_one_that_would_be_chosen() -> None:
    good = [1] * 30 + [0] * 2
    results = [result(0, [0] * 32), result(100, [0] * 32), result(200, good), result(300, [1] * 32)]
    assert select.steps_of_states_to_keep(results, 0.2, 1) == {200}
    assert select.steps_of_states_to_keep(results, 0.2, 2) == {200, 300}
    assert select.steps_of_states_to_keep(results[:1], 0.2, 2) == set()


def test_where_the_style_cannot_be_read_the_pictures_that_nothing_else_holds_back_count() -> None:
    """Early pictures melt, which is seen without the style; by style alone the early step would count as equal."""
    styles, none = [0.96] * 8, [0] * 8
    results = [
        result(step, none, styles) | {"undecided": [bool(fine)] * 8} for step, fine in ((100, 0), (200, 1), (300, 1))
    ]
    found = select.choose_and_compare_evaluations(results, 0.2)
    assert results[found["chosen"]]["step"] == 200
    assert [row["undecided_rate"] for row in found["compared"]] == [0, 1, 1] and "pass_rate" not in found["compared"][0]
    assert select.steps_of_states_to_keep(results, 0.2, 1) == {200}


def test_where_few_pass_it_is_said_what_helps() -> None:
    few = {"passed": [True, False, False, False], "why": {"reject": {"style": 2}, "review": {"novelty": 1}}}
    said = select.advice_if_few_pass(few, None)
    assert said.startswith("3 of 4 pictures were not accepted (style 2, novelty 1). What helps: style: train longer")
    assert "train.max_steps goes on" in said and "generate draws" in said
    copies = {"passed": [False] * 9, "why": {"reject": {"novelty": 4, "palette": 1}, "review": {UNREADABLE: 4}}}
    assert "max_steps" not in select.advice_if_few_pass(copies, None), "longer training copies more"
    none = select.advice_if_few_pass(few | {"passed": [False] * 4}, None)
    assert "train longer" in none and "generate draws" not in none, "other seeds do not help where nothing passes"
    assert not select.advice_if_few_pass(few | {"passed": [True, True, False, False]}, None)
    assert not select.advice_if_few_pass(None, None)
    assert not select.advice_if_few_pass({"passed": None, "why": {}}, None)


def test_who_waits_for_people_alone_is_not_told_to_train_longer() -> None:
    waiting = {"passed": [False] * 8, "why": {"review": {UNREADABLE: 8}}}
    said = select.advice_if_few_pass(waiting, None)
    assert said.startswith("8 of 8 pictures wait for a person") and "Plan a batch" in said and "max_steps" not in said
    melted = waiting | {"why": {"review": {UNREADABLE: 8}, "reject": {"coherence": 3}}}
    assert "max_steps" in select.advice_if_few_pass(melted, None), "what melts early is better later"


def test_nobody_is_told_to_train_longer_where_later_steps_passed_less() -> None:
    few = {"passed": [True] * 5 + [False] * 11, "why": {"reject": {"coherence": 10, "style": 3, "brand": 1}}}
    falling = [result(100, [1] * 8 + [0] * 8), result(200, [1] * 6 + [0] * 10), result(300, [1] + [0] * 15)]
    found = select.choose_and_compare_evaluations(falling, 0.2)
    assert found["chosen"] == 0
    said = select.advice_if_few_pass(few, found)
    assert (
        "Later steps passed no more (50% at step 100, 38% at step 200, 6% at step 300): look at samples/grid.png"
        in said
    )
    assert "What helps: coherence: ask for less in one prompt. Or plan a batch" in said
    assert "train longer" not in said and "max_steps" not in said and "train.learning_rate" in said
    rising = select.choose_and_compare_evaluations([result(1, [0] * 16), result(2, [1] * 5 + [0] * 11)], 0.2)
    assert "train longer" in select.advice_if_few_pass(few, rising), "the last step is the chosen one"
    level = select.choose_and_compare_evaluations([result(1, [1] * 9 + [0] * 7), result(2, [1] * 9 + [0] * 7)], 0.2)
    assert level["chosen"] == 0 and "train longer" not in select.advice_if_few_pass(few, level)
    melted = [result(step, [0] * 16) | {"undecided": [True] * k + [False] * (16 - k)} for step, k in ((2, 12), (3, 10))]
    waiting = {"passed": [False] * 16, "why": {"review": {UNREADABLE: 11}, "reject": {"coherence": 5}}}
    said = select.advice_if_few_pass(waiting, select.choose_and_compare_evaluations(melted, 0.2))
    assert "passed no more (75% at step 2, 62% at step 3)" in said and "max_steps" not in said
