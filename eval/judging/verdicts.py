"""Verdicts on pictures: by scores, waivers and people. Functions without files: rows in, verdicts out.

Nothing here turns an error into anything else: what could not be judged is not exported.
"""

import datetime
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from pydantic import Field

from eval.lot.batch import attempt_and_slot
from eval.measuring.record import READ_BY_HEAD
from eval.measuring.scores import DIFFERING_TRAITS, UNKNOWN_TRAITS
from eval.policy.lines import ResolvedCheckLines
from eval.policy.model import CALIBRATED, LINES, TOO_FEW, UNKNOWN_VALUE, UNREADABLE, Learnt, Policy, Waiver
from eval.promise.labels import StoredLabel
from eval.promise.statements import statements_of
from eval.scorers import SCORES
from eval.scorers.entry import REFERENCES
from stylegate import files
from stylegate.errors import DataError
from stylegate.records import Record
from stylegate.words import counted

PERSON = "person"  # somebody looked and rejected it
UNSURE = "unsure"  # somebody looked at a picture that the policy accepts, and would not decide
BY_ANOTHER_RULE = "rejected-by-another-rule"  # somebody looked and rejected it under another policy or guideline
NO_LINE_YET = f"no line yet: {CALIBRATED} wants labels"
NOT_ASKED = "calibrated-check-not-asked"  # in training: every other check accepts the picture
ORDER = ("error", "reject", "review", "warn")  # of consequences, worst first
TWINS = {"distinct": "twin", "novelty": "known"}  # check -> column of scores.parquet that names the other picture
VerdictName = Literal["accept", "review", "reject", "error"]


class Reason(Record):
    """Why a picture is not accepted, or is warned of."""

    check: str
    """A score of the policy, or another check by its name (decode, person, audit, ...)."""
    score: float | None
    """The picture's score, in the score's own unit; None where there is none."""
    threshold: float | None
    """The line that the score lies below; None where there is none."""
    verdict: Literal["error", "reject", "review", "warn"]
    """What the reason leads to. A warning leads nowhere."""
    fails_batch: bool = False
    """The line fails the whole lot."""
    detail: str = ""
    """Words for people: what no number says, the picture that this one is like (`distinct`, `novelty`), or the traits
    that are seen otherwise than planned (`traits`)."""


class WaivedReason(Reason):
    """A reason that does not count until a day, because a person answers for it."""

    owner: str
    why: str
    expires: str
    """The last day on which the waiver counts, in UTC: YYYY-MM-DD."""


class AcceptingDecision(Record):
    """Who accepted a picture that stood in review, and the reasons that this settled."""

    who: str
    why: str
    reasons: list[Reason]


class Verdict(Record):
    """A line of verdicts.jsonl: the verdict on one picture, with its reasons. Only pictures with `accept` are
    exported.
    """

    file: str
    """The name of the picture, relative to the folder that is judged."""
    sha256: str
    """sha256 of the file's bytes, 64 hex digits; empty for a file that cannot be read."""
    verdict: VerdictName
    reasons: list[Reason]
    """The worst consequence first; of equal ones, the score that lies most spreads below its line."""
    margin: float | None
    """Spreads above the nearest line that would keep the picture from being accepted; None where it cannot be said."""
    policy_sha256: str
    waived: list[WaivedReason] = Field(default_factory=list)
    settled: AcceptingDecision | None = None
    shown_traits: dict[str, str] = Field(default_factory=dict)
    """Traits that a person found other than planned: the value that the picture shows; empty for a trait that is not
    stated, since a person found it wrong and nobody said what the picture shows.
    """


def planned_traits_with_corrections(planned: Mapping[str, str], shown: Mapping[str, str]) -> dict[str, str]:
    """The traits that are stated of a picture: the planned ones, but for what a person found (`Verdict.shown_traits`).
    A trait that is found wrong without another value is left out.
    """
    return {trait: value for trait, value in {**planned, **shown}.items() if value and trait in planned}


def read_verdicts(path: Path) -> list[Verdict]:
    """Read verdicts.jsonl, in the lot's order. Raises DataError that names every line which is not a verdict."""
    found, problems = [], []
    for number, line in enumerate(filter(None, path.read_bytes().split(b"\n")), start=1):
        try:
            found.append(Verdict.of_json(line, f"line {number}"))
        except DataError as error:
            problems += [f"line {number}: {problem}" for problem in error.problems]
    if problems:
        raise DataError(f"{files.display_path(path)} is not as stylegate writes it:", problems, "stylegate gate again.")
    return found


def verdict_and_reasons(
    scores: Mapping[str, float | None], bounds: Iterable[ResolvedCheckLines]
) -> tuple[VerdictName, list[Reason]]:
    """Verdict and reasons of one picture by its scores. A score that is missing or NaN makes it an error.

    The worst consequence comes first; of equal ones, the score that lies most spreads below its line.
    """
    found: list[tuple[float, Reason]] = []  # spreads above the line (below 0, or minus infinity without a score)
    for bound in bounds:
        score, lines = scores.get(bound.score), bound.lines()
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
    reasons = sorted_worst_first([reason for _, reason in sorted(found, key=lambda pair: pair[0])])
    return worst_verdict(reasons), reasons


def depends_on_readable_style(bound: ResolvedCheckLines) -> bool:
    """Whether a check compares a picture with the references by the encoder, so that it needs a style that can be
    read.
    """
    score = SCORES.get(bound.score)
    return score is not None and score.kind == "encoder" and REFERENCES in score.needs


def make_reason(
    check: str, verdict: str, score: float | None = None, threshold: float | None = None, detail: str = ""
) -> Reason:
    """A reason that is not validated again, which is fast; verdicts are made by the thousand."""
    return Reason.model_construct(check=check, score=score, threshold=threshold, verdict=verdict, detail=detail)


def worst_verdict(reasons: Iterable[Reason]) -> VerdictName:
    """The worst verdict among the reasons; "accept" if there are no reasons, or only warnings."""
    kinds = {found.verdict for found in reasons}
    return cast(VerdictName, next((verdict for verdict in ORDER[:-1] if verdict in kinds), "accept"))


def sorted_worst_first(reasons: list[Reason]) -> list[Reason]:
    """The reasons by their consequence, the worst one first; reasons of equal consequence keep their order."""
    return sorted(reasons, key=lambda found: ORDER.index(found.verdict))


def margin_in_spreads(scores: Mapping[str, float | None], bounds: Iterable[ResolvedCheckLines]) -> float | None:
    """The smallest distance of the picture's scores above a line that would hold it back, in spreads of the references.

    It is below 0 if a line holds the picture back, and None if no distance can be computed. Pictures are ordered by it,
    and the report's slider and `margin: calibrated` put a line on it.
    """
    distances = []
    for bound in bounds:
        score = scores.get(bound.score)
        if score is None or not math.isfinite(score):
            return None
        distances.append(bound.distance_in_spreads(score))
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
    highest = [(bound, max(bound.lines().values(), default=-math.inf)) for bound in bounds]
    clear = np.array([row["error"] is None and bool(row["sha256"]) for row in rows], bool)
    if any(map(holds_by_traits, bounds)):
        clear &= np.array([not row.get(UNKNOWN_TRAITS) for row in rows], bool)
    nearest = np.full(len(rows), math.inf)
    for bound, line in highest:
        scores = np.array([row.get(bound.score) for row in rows], float)  # None becomes NaN
        clear &= np.isfinite(scores) & (scores >= line)
        holding = [line for name, line in bound.lines().items() if LINES[name] != "warn"]
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
        kept = margin_in_spreads(row, bounds)
        asked = [bound for bound in bounds if not (unreadable_reason and depends_on_readable_style(bound))]
        judging = [without_review_line(bound) for bound in asked] if policy.calibrated_score == "margin" else asked
        reasons = reasons_answered_by_head(verdict_and_reasons(row, judging)[1], row.get("aesthetic"), policy.learnt)
        add_details_to_reasons(reasons, row)
        if scores_without_references:
            reasons.append(
                make_reason(TOO_FEW, "review", detail=f"{', '.join(scores_without_references)} cannot be judged")
            )
        if unreadable_reason:
            reasons.append(make_reason(UNREADABLE, "review", detail=unreadable_reason))
        if row.get(UNKNOWN_TRAITS) and any(map(holds_by_traits, asked)):
            reasons.append(
                make_reason(UNKNOWN_VALUE, "review", detail=f"no picture of the brand shows {row[UNKNOWN_TRAITS]}")
            )
    return Verdict.model_construct(
        file=row["file"],
        sha256=row["sha256"],
        verdict=worst_verdict(reasons),
        reasons=sorted_worst_first(reasons),
        margin=kept,
        policy_sha256=policy.sha256,
        waived=[],
    )


def reasons_answered_by_head(reasons: list[Reason], value: float | None, learnt: Learnt | None) -> list[Reason]:
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
    return sorted_worst_first(
        [
            make_reason(one.check, answer, one.score, one.threshold, detail)
            if one.verdict == "review" and one.check in READ_BY_HEAD
            else one
            for one in reasons
        ]
    )


def holds_by_traits(bound: ResolvedCheckLines) -> bool:
    """Whether a check asks for planned traits, and a picture without them is held back."""
    return bound.score == "traits" and any(LINES[name] != "warn" for name in bound.lines())


def add_details_to_reasons(reasons: Iterable[Reason], row: Mapping[str, Any]) -> None:
    """Add to the reasons, in place, the name of the picture that this one is like (`distinct`, `novelty`), and the
    traits that are seen otherwise than planned (`traits`).

    `row` is the picture's row of scores.parquet.
    """
    for reason in reasons:
        if not reason.detail and (other := row.get(TWINS.get(reason.check, ""))):
            reason.detail = f"like {other}"
        if not reason.detail and reason.check == "traits":
            reason.detail = row.get(DIFFERING_TRAITS) or ""


def without_review_line(bound: ResolvedCheckLines) -> ResolvedCheckLines:
    """The bounds of a check without its line for review: with a calibrated margin, labels set that line instead."""
    return ResolvedCheckLines(
        bound.score, bound.reject_below, None, bound.relative, bound.warn_below, bound.fail_batch_below, bound.spread
    )


def add_reason(verdict: Verdict, found: Reason) -> None:
    """Add a reason to a verdict, and set the verdict to the worst that its reasons ask for. Changes `verdict` in
    place.
    """
    verdict.reasons = sorted_worst_first([*verdict.reasons, found])
    verdict.verdict = worst_verdict(verdict.reasons)


def apply_waivers(verdicts: list[Verdict], waivers: Sequence[Waiver], today: datetime.date) -> list[str]:
    """Remove the reasons that a waiver in force covers, in place; errors are never waived.

    Returns a sentence for each waiver of a picture in the lot: used, of no effect, or expired.
    """
    said = []
    by_content: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        by_content.setdefault(verdict.sha256, []).append(verdict)
    for waiver in waivers:
        for verdict in by_content.get(waiver.sha256, []):
            meant = [r for r in verdict.reasons if r.check == waiver.check and r.verdict != "error"]
            what = f"{waiver.check} of {verdict.file} by {waiver.owner}"
            if waiver.expires < today:
                said.append(f"the waiver of {what} ended on {waiver.expires}: it counts for nothing")
            elif meant:
                verdict.reasons = [r for r in verdict.reasons if r not in meant]
                verdict.verdict = worst_verdict(verdict.reasons)
                day = waiver.expires.isoformat()
                verdict.waived = [
                    *verdict.waived,
                    *(
                        WaivedReason(**r.model_dump(), owner=waiver.owner, why=waiver.reason, expires=day)
                        for r in meant
                    ),
                ]
                said.append(f"waived until {waiver.expires}: {what}: {waiver.reason}")
            else:
                said.append(f"the waiver of {what} lifts nothing: {waiver.check} gives no reason that can be waived")
    return said


def apply_decisions(verdicts: list[Verdict], decisions: Mapping[str, StoredLabel]) -> list[str]:
    """Apply what people decided to the verdicts, in place. Returns notes on decisions that had no effect.

    `decisions`, by sha256, are those under the policy of the verdicts. A picture in review is accepted or rejected; an
    accepted one can only fall: it is rejected, or goes to review where somebody is unsure. A decision to accept settles
    the reasons that it was asked about; a picture that is in review for any other reason stays there.
    """
    idle = partly = 0
    for verdict in verdicts:
        decision = decisions.get(verdict.sha256)
        if decision is None:
            continue
        verdict.shown_traits = dict(decision.shown_traits)
        if decision.verdict == "unsure":
            if verdict.verdict == "accept":
                add_reason(verdict, make_reason(UNSURE, "review", detail=decision.who_and_why()))
            continue
        if verdict.verdict == "review" and decision.verdict == "accept":
            asked = [r for r in verdict.reasons if r.verdict == "review"]
            if not {r.check for r in asked} <= set(decision.checks):
                partly += 1
                continue
            verdict.settled = AcceptingDecision.model_construct(who=decision.who, why=decision.why, reasons=asked)
            verdict.reasons = [r for r in verdict.reasons if r.verdict != "review"]
            verdict.verdict = worst_verdict(verdict.reasons)
        elif verdict.verdict in ("review", "accept") and decision.verdict == "reject":
            add_reason(verdict, make_reason(PERSON, "reject", detail=decision.who_and_why()))
        else:
            idle += verdict.verdict != decision.verdict
    notes = []
    if idle:
        notes.append(
            f"{counted(idle, 'decision is', 'decisions are')} about pictures that the policy rejects or could not "
            "judge: only a waiver in the policy lifts a check"
        )
    if partly:
        notes.append(
            f"{counted(partly, 'decision was', 'decisions were')} given for other reasons than the pictures are in "
            "review for: look afresh"
        )
    return notes


def correct_traits_found_wrong(
    verdicts: Iterable[Verdict], planned: Mapping[str, Mapping[str, str]], found: Mapping[str, StoredLabel]
) -> None:
    """Take statements of traits that an audit found wrong out of the verdicts, in place, or correct them.

    `planned` holds the traits of each picture by file name, `found` the labels by digest of the statement. A trait that
    was found wrong is stated as what the person saw; where nobody says what that is, it is not stated.
    """
    wrong = {sha256: label for sha256, label in found.items() if label.is_reject}
    for verdict in verdicts if wrong else ():
        traits = planned_traits_with_corrections(planned.get(verdict.file, {}), verdict.shown_traits)
        for statement in statements_of(verdict.file, verdict.sha256, traits) if verdict.sha256 else ():
            if label := wrong.get(statement.sha256):
                verdict.shown_traits[statement.trait] = label.shown_traits.get(statement.trait, "")


def review_rejects_of_other_policies(verdicts: Iterable[Verdict], rejects: Mapping[str, StoredLabel]) -> None:
    """Send to review, in place, what somebody rejected under another policy or guideline (`rejects`, by sha256)."""
    for verdict in verdicts:
        if verdict.verdict in ("accept", "review") and (label := rejects.get(verdict.sha256)):
            what = f"rejected under another policy or guideline by {label.who_and_why()}; look afresh"
            add_reason(verdict, make_reason(BY_ANOTHER_RULE, "review", detail=what))


def send_accepted_to_review(verdicts: Iterable[Verdict]) -> None:
    """Send every accepted picture to review, in place. In training there are no labels for the calibrated check."""
    for verdict in verdicts:
        if verdict.verdict == "accept":
            what = "the calibrated check is not asked in training: its line comes from labels of a finished batch"
            add_reason(verdict, make_reason(NOT_ASKED, "review", detail=what))


def apply_calibrated_check(
    verdicts: list[Verdict],
    score: str,
    bound: ResolvedCheckLines | None,
    scores: Mapping[str, float],
    rejects: set[str],
) -> None:
    """Apply the calibrated check, in place, to the pictures that every other check accepts.

    `scores` are their calibrated scores by sha256, `rejects` the sha256 of pictures that a person labelled a reject:
    these are rejected. Without a line (`bound` is None) all others go to review.
    """
    for verdict in verdicts:
        sha256 = verdict.sha256
        if verdict.verdict != "accept":
            continue
        if sha256 in rejects:
            add_reason(verdict, make_reason(PERSON, "reject", detail="labelled a reject in the calibration"))
        elif bound is None:
            add_reason(
                verdict,
                make_reason(score, "review", scores.get(sha256), None, NO_LINE_YET),
            )
        else:
            for found in verdict_and_reasons({score: scores.get(sha256)}, [bound])[1]:
                add_reason(verdict, found)


def exportable_verdicts(verdicts: Iterable[Verdict], is_planned_batch: bool) -> list[Verdict]:
    """The accepted pictures that may be exported, in the order given: of a planned batch, one at most for each slot.

    Of several accepted attempts at a slot it is the one with the best margin, of equal ones the earliest.
    """
    accepted = [verdict for verdict in verdicts if verdict.verdict == "accept"]
    if not is_planned_batch:
        return accepted
    best: dict[int, Verdict] = {}
    for verdict in sorted(accepted, key=lambda v: (-margin_or_minus_infinity(v), attempt_and_slot(v.file))):
        best.setdefault(attempt_and_slot(verdict.file)[1], verdict)
    return [verdict for verdict in accepted if best[attempt_and_slot(verdict.file)[1]] is verdict]


def margin_or_minus_infinity(verdict: Verdict) -> float:
    """The margin in spreads; minus infinity where it cannot be said."""
    return -math.inf if verdict.margin is None else verdict.margin


def exportable_digests(verdicts: Iterable[Verdict], is_planned_batch: bool) -> list[str]:
    """The sha256 of the pictures that may be exported, best margin first; a certificate is about this list."""
    going = sorted(
        exportable_verdicts(verdicts, is_planned_batch), key=lambda v: (-margin_or_minus_infinity(v), v.sha256)
    )
    return [v.sha256 for v in going]


def slots_with_verdict(verdicts: list[Verdict], wanted_verdict: str) -> set[int]:
    """The numbers of the slots of a batch that have a picture with this verdict."""
    return {attempt_and_slot(v.file)[1] for v in verdicts if v.verdict == wanted_verdict}


def picture_counts_by_check(verdicts: list[Verdict], verdict_kind: str) -> dict[str, int]:
    """For each check the number of pictures of one verdict that it brought there, the highest number first.

    With `verdict_kind` "warn": the number of pictures that each check warns of.
    """
    counts = Counter(
        found.check
        for verdict in verdicts
        if verdict_kind in ("warn", verdict.verdict)
        for found in verdict.reasons
        if found.verdict == verdict_kind
    )
    return dict(counts.most_common())
