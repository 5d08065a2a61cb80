"""A policy's thresholds as numbers, for one lot and its references."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from eval.policy.model import LINES, MARGIN, Policy, can_score_fall_below, score_spread
from eval.scorers import SCORES
from eval.scorers.entry import NEEDS, PATCHES, REFERENCES
from stylegate.errors import DataError

MIN_REFERENCES = 8  # relative thresholds need at least this many


@dataclass(frozen=True, slots=True)
class ResolvedCheckLines:
    """The lines of one check as numbers, for one lot and its references. None: the check has no such line."""

    score: str
    reject_below: float | None
    review_below: float | None
    relative: bool  # a line was computed from the references
    warn_below: float | None = None
    fail_batch_below: float | None = None
    spread: float = 1.0  # of the references; the score's resolution where there are none

    def numeric_threshold_by_key(self) -> dict[str, float]:
        """The lines that the check has, as key of the policy -> number, the worst consequence first."""
        return {name: line for name in LINES if (line := getattr(self, name)) is not None}

    def can_keep_from_acceptance(self) -> bool:
        """Whether a score can lie below a line that keeps a picture from being accepted. A warning does not."""
        lines = [line for name, line in self.numeric_threshold_by_key().items() if LINES[name] != "warn"]
        return any(can_score_fall_below(self.score, line) for line in lines)

    def margin_above_line_in_spreads(self, score: float) -> float | None:
        """How many spreads a score lies above the highest line that would hold a picture back; negative below it.

        None if there is no such line, and for a score that is only right or wrong (not graded) and is right.
        """
        lines = [line for name, line in self.numeric_threshold_by_key().items() if LINES[name] != "warn"]
        if not lines or (score >= max(lines) and not SCORES[self.score].graded):
            return None
        return (score - max(lines)) / self.spread


def resolve_check_lines(
    policy: Policy,
    columns: set[str],
    references: Mapping[str, np.ndarray],
    num_references: int,
    foreign: Mapping[str, Sequence[float]],
    copies: Mapping[str, Sequence[float]],
) -> tuple[list[ResolvedCheckLines], list[str], list[str]]:
    """A policy's lines as numbers for one lot; a sentence for each check that is left out; and the scores that have too
    few references.

    `columns` are the scores that were computed of the lot's pictures, `references` the references' own scores by
    score, `num_references` the number of references that were asked for, `foreign` and `copies` percentiles by score,
    as in Threshold.numeric_threshold_given_references. Only optional checks are left out. Raises DataError for a
    check that cannot be computed and is not optional, and if no check is left that can hold a picture back: such a
    policy would accept every picture.
    """
    bounds, left_out, lacking, impossible = [], [], [], []
    for score, check in policy.checks.items():
        if check.calibrated:
            if score != MARGIN and score not in columns:
                impossible.append(f"{score}: {SCORES[score].description}")
            continue
        own = references.get(score)
        enough = own if own is not None and len(own) >= MIN_REFERENCES else None
        known = foreign.get(score, ()), copies.get(score, ())
        values = {
            name: line.numeric_threshold_given_references(score, enough, *known)
            for name, line in check.threshold_by_key().items()
        }
        relative = any(line.is_relative_to_references for line in check.threshold_by_key().values())
        computed = score in columns and any(value is not None for value in values.values())
        if computed:
            width = score_spread(score, enough) if enough is not None else SCORES[score].resolution
            numbers = {"reject_below": None, "review_below": None} | values
            bounds.append(ResolvedCheckLines(score, relative=enough is not None and relative, spread=width, **numbers))
        if relative and num_references and enough is None and (score in columns or REFERENCES in SCORES[score].needs):
            lacking.append(score)
        elif not computed and not check.optional:
            impossible.append(f"{score}: {SCORES[score].description}")
        elif not computed:
            left_out.append(f"{score}: {why_check_is_left_out(score, score in columns, not num_references)}")
    if impossible:
        raise DataError(
            f"policy {policy.name} asks for what cannot be computed here:",
            impossible,
            "give brand= or references= (at least 8), an aesthetic head, or mark the check `optional: true`.",
        )
    if (
        not lacking
        and policy.calibrated_score_name is None
        and not any(bound.can_keep_from_acceptance() for bound in bounds)
    ):
        raise DataError(
            f"policy {policy.name} would accept every picture: no check that can be computed here holds one back",
            [*left_out, *sentences_on_given_ineffective_checks(bounds)],
            "give brand= or references= (at least 8), or a line that pictures can fall below.",
        )
    return bounds, left_out, lacking


def why_check_is_left_out(score: str, computed: bool, references_missing: bool) -> str:
    """What is missing for a check that cannot be asked, in words. `computed` says whether the pictures have its score:
    then only its line needs something.
    """
    needs = SCORES[score].needs
    others = needs - {REFERENCES}
    if references_missing and (computed or (REFERENCES in needs and not others - {PATCHES})):
        return NEEDS[REFERENCES]
    return next((words for need, words in NEEDS.items() if need in others), "could not be computed")


def sentences_on_given_ineffective_checks(bounds: list[ResolvedCheckLines]) -> list[str]:
    """For each of `bounds` a sentence that the check holds no picture back: it only warns, or no score can be below its
    lines. Nothing is tested: the caller gives such checks alone.
    """
    found = []
    for bound in bounds:
        lines = ", ".join(f"{name} {line:g}" for name, line in bound.numeric_threshold_by_key().items())
        found.append(
            f"{bound.score}: only warns, or no score is so low ({lines}; it begins at {SCORES[bound.score].lowest:g})"
        )
    return found
