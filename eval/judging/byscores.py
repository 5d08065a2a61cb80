"""Verdicts on pictures by their scores: rows of the score table in, verdicts out."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from eval.judging.verdicts import (
    Reason,
    Verdict,
    VerdictName,
    make_reason,
    reasons_sorted_worst_first,
    worst_verdict_of_reasons,
)
from eval.measuring.record import READ_BY_HEAD
from eval.measuring.scores import DIFFERING_TRAITS, UNKNOWN_TRAITS
from eval.policy.lines import ResolvedCheckLines
from eval.policy.model import LINES, TOO_FEW, UNKNOWN_VALUE, UNREADABLE, LearntFromDecisions, Policy
from eval.scorers import SCORES

TWINS = {"distinct": "twin", "novelty": "known"}  # check -> column of scores.parquet that names the other picture


def verdict_and_reasons(
    scores: Mapping[str, float | None], bounds: Iterable[ResolvedCheckLines]
) -> tuple[VerdictName, list[Reason]]:
    """Verdict and reasons of one picture by its scores. A score that is missing or NaN makes it an error.

    The worst consequence comes first; of equal ones, the score that lies most spreads below its line.
    """
    found: list[tuple[float, Reason]] = []  # spreads above the line (below 0, or minus infinity without a score)
    for bound in bounds:
        score, lines = scores.get(bound.score), bound.numeric_threshold_by_key()
        if score is None or not math.isfinite(score):
            if lines:
                matters = any(LINES[name] != "warn" for name in lines)
                threshold = next(iter(lines.values()))
                reason = make_reason(bound.score, "error" if matters else "warn", None, threshold)
                found.append((-math.inf, reason))
            continue
        for name, line in lines.items():
            if score < line:
                reason = make_reason(bound.score, LINES[name], score, line)
                reason.fails_batch = name == "fail_batch_below"
                found.append(((score - line) / bound.spread, reason))
                break
    reasons = reasons_sorted_worst_first([reason for _, reason in sorted(found, key=lambda pair: pair[0])])
    return worst_verdict_of_reasons(reasons), reasons


def depends_on_readable_style(bound: ResolvedCheckLines) -> bool:
    """Whether the score of a check is believed only where the style can be read."""
    return bound.score in SCORES and SCORES[bound.score].needs_readable_style


def smallest_margin_in_spreads(
    scores: Mapping[str, float | None], bounds: Iterable[ResolvedCheckLines]
) -> float | None:
    """The smallest distance of the picture's scores above a line that would hold it back, in spreads of the references.

    It is below 0 if a line holds the picture back, and None if no distance can be computed. Pictures are ordered by it,
    and the report's slider and `margin: calibrated` put a line on it.
    """
    distances = []
    for bound in bounds:
        score = scores.get(bound.score)
        if score is None or not math.isfinite(score):
            return None
        distances.append(bound.margin_above_line_in_spreads(score))
    return min((round(distance, 4) for distance in distances if distance is not None), default=None)


def verdicts_of_rows(
    rows: Sequence[dict[str, Any]],
    bounds: list[ResolvedCheckLines],
    policy: Policy,
    scores_without_references: list[str],
    unreadable_reason: str = "",
) -> list[Verdict]:
    """The verdict of each row of scores.parquet, in order; rows above every line are accepted together, which is fast.

    `scores_without_references` names the scores that have too few references. `unreadable_reason` says why the style
    cannot be read, "" if it can.
    """
    margins = (
        margins_of_rows_above_all_lines(rows, bounds)
        if not (scores_without_references or unreadable_reason)
        else [None] * len(rows)
    )
    return [
        verdict_of_row(row, bounds, policy, scores_without_references, unreadable_reason)
        if margin is None
        else make_accepted_verdict(row, policy, margin)
        for row, margin in zip(rows, margins, strict=True)
    ]


def margins_of_rows_above_all_lines(
    rows: Sequence[dict[str, Any]], bounds: list[ResolvedCheckLines]
) -> list[float | None]:
    """For each row of scores the margin in spreads if every score is at or above all its lines and no planned trait is
    unknown, else None.
    """
    highest = [(bound, max(bound.numeric_threshold_by_key().values(), default=-math.inf)) for bound in bounds]
    clear = np.array([row["error"] is None and bool(row["sha256"]) for row in rows], bool)
    if any(map(is_traits_check_that_holds_back, bounds)):
        clear &= np.array([not row.get(UNKNOWN_TRAITS) for row in rows], bool)
    nearest = np.full(len(rows), math.inf)
    for bound, line in highest:
        scores = np.array([row.get(bound.score) for row in rows], float)  # None becomes NaN
        clear &= np.isfinite(scores) & (scores >= line)
        holding = [line for name, line in bound.numeric_threshold_by_key().items() if LINES[name] != "warn"]
        if holding and SCORES[bound.score].graded:  # a score that is not graded, and holds, keeps no distance
            nearest = np.minimum(nearest, (scores - max(holding)) / bound.spread)
    clear &= np.isfinite(nearest)
    return [round(float(value), 4) if good else None for value, good in zip(nearest, clear, strict=True)]


def make_accepted_verdict(row: dict[str, Any], policy: Policy, margin: float) -> Verdict:
    """The verdict `accept` of a row of scores, without reasons; `margin` is the picture's margin in spreads."""
    return Verdict(
        file=row["file"],
        sha256=row["sha256"],
        verdict="accept",
        reasons=[],
        margin=margin,
        policy_sha256=policy.sha256,
    )


def verdict_of_row(
    row: dict[str, Any],
    bounds: list[ResolvedCheckLines],
    policy: Policy,
    scores_without_references: list[str],
    unreadable_reason: str,
) -> Verdict:
    """The verdict of one row of scores.parquet.

    Where scores have too few references (`scores_without_references`), or the style cannot be read (`unreadable_reason`
    says why, else ""), the picture goes to review at best. If the style cannot be read, checks that compare the style
    are not applied.
    """
    if row["error"] is not None or not row["sha256"]:
        reasons, kept = [make_reason("decode", "error", detail=row["error"] or "cannot be read")], None
    else:
        kept = smallest_margin_in_spreads(row, bounds)
        asked = [bound for bound in bounds if not (unreadable_reason and depends_on_readable_style(bound))]
        judging = (
            [copy_check_lines_without_review_line(bound) for bound in asked]
            if policy.calibrated_score_name == "margin"
            else asked
        )
        reasons = settle_review_reasons_by_aesthetic_score(
            verdict_and_reasons(row, judging)[1], row.get("aesthetic"), policy.learnt
        )
        add_twin_or_traits_to_reasons(reasons, row)
        if scores_without_references:
            reasons.append(
                make_reason(TOO_FEW, "review", detail=f"{', '.join(scores_without_references)} cannot be judged")
            )
        if unreadable_reason:
            reasons.append(make_reason(UNREADABLE, "review", detail=unreadable_reason))
        if row.get(UNKNOWN_TRAITS) and any(map(is_traits_check_that_holds_back, asked)):
            reasons.append(
                make_reason(UNKNOWN_VALUE, "review", detail=f"no picture of the brand shows {row[UNKNOWN_TRAITS]}")
            )
    return Verdict.model_construct(
        file=row["file"],
        sha256=row["sha256"],
        verdict=worst_verdict_of_reasons(reasons),
        reasons=reasons_sorted_worst_first(reasons),
        margin=kept,
        policy_sha256=policy.sha256,
        waived=[],
    )


def settle_review_reasons_by_aesthetic_score(
    reasons: list[Reason], value: float | None, learnt: LearntFromDecisions | None
) -> list[Reason]:
    """The reasons of a picture. Those for review become `warn` where its aesthetic score, `value`, reaches
    `learnt.accept_from`, and `reject` where it is below `learnt.reject_below`.

    The score is that of a head that people's decisions taught. Only reasons of scores that the head reads change;
    between the two lines, without them and without a finite score a person is still asked.
    """
    if learnt is None or value is None or not math.isfinite(value):
        return reasons
    if learnt.accept_from is not None and value >= learnt.accept_from:
        answer = "warn"
    elif learnt.reject_below is not None and value < learnt.reject_below:
        answer = "reject"
    else:
        return reasons
    detail = f"answered by what people decided before: aesthetic {value:.3g}"
    return reasons_sorted_worst_first(
        [
            make_reason(one.check, answer, one.score, one.threshold, detail)
            if one.verdict == "review" and one.check in READ_BY_HEAD
            else one
            for one in reasons
        ]
    )


def is_traits_check_that_holds_back(bound: ResolvedCheckLines) -> bool:
    """Whether a check asks for planned traits, and a picture without them is held back."""
    return bound.score == "traits" and any(LINES[name] != "warn" for name in bound.numeric_threshold_by_key())


def add_twin_or_traits_to_reasons(reasons: Iterable[Reason], row: Mapping[str, Any]) -> None:
    """Add to the reasons, in place, the name of the picture that this one is like (`distinct`, `novelty`), and the
    traits that are seen otherwise than planned (`traits`).

    `row` is the picture's row of scores.parquet.
    """
    for reason in reasons:
        if not reason.detail and (other := row.get(TWINS.get(reason.check, ""))):
            reason.detail = f"like {other}"
        if not reason.detail and reason.check == "traits":
            reason.detail = row.get(DIFFERING_TRAITS) or ""


def copy_check_lines_without_review_line(bound: ResolvedCheckLines) -> ResolvedCheckLines:
    """The bounds of a check without its line for review: with a calibrated margin, labels set that line instead."""
    return ResolvedCheckLines(
        bound.score, bound.reject_below, None, bound.relative, bound.warn_below, bound.fail_batch_below, bound.spread
    )
