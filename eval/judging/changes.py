"""What waivers, people's decisions and labels change about verdicts, in place."""

import datetime
from collections.abc import Iterable, Mapping, Sequence

from eval.judging.byscores import verdict_and_reasons
from eval.judging.verdicts import (
    BY_ANOTHER_RULE,
    NO_LINE_YET,
    NOT_ASKED,
    PERSON,
    UNSURE,
    AcceptingDecision,
    Verdict,
    WaivedReason,
    add_reason,
    make_reason,
    planned_traits_with_corrections,
    worst_verdict_of_reasons,
)
from eval.policy.lines import ResolvedCheckLines
from eval.policy.model import Waiver
from eval.promise.labels import StoredLabel
from eval.promise.statements import metadata_trait_statements_of_picture
from stylegate.words import counted


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
                verdict.verdict = worst_verdict_of_reasons(verdict.reasons)
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
                add_reason(verdict, make_reason(UNSURE, "review", detail=decision.reviewer_and_reason_in_words()))
            continue
        if verdict.verdict == "review" and decision.verdict == "accept":
            asked = [r for r in verdict.reasons if r.verdict == "review"]
            if not {r.check for r in asked} <= set(decision.checks):
                partly += 1
                continue
            verdict.settled = AcceptingDecision.model_construct(who=decision.who, why=decision.why, reasons=asked)
            verdict.reasons = [r for r in verdict.reasons if r.verdict != "review"]
            verdict.verdict = worst_verdict_of_reasons(verdict.reasons)
        elif verdict.verdict in ("review", "accept") and decision.verdict == "reject":
            add_reason(verdict, make_reason(PERSON, "reject", detail=decision.reviewer_and_reason_in_words()))
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


def correct_audited_traits_in_verdicts(
    verdicts: Iterable[Verdict], planned: Mapping[str, Mapping[str, str]], found: Mapping[str, StoredLabel]
) -> None:
    """Take statements of traits that an audit found wrong out of the verdicts, in place, or correct them.

    `planned` holds the traits of each picture by file name, `found` the labels by digest of the statement. A trait that
    was found wrong is stated as what the person saw; where nobody says what that is, it is not stated.
    """
    wrong = {sha256: label for sha256, label in found.items() if label.is_reject}
    for verdict in verdicts if wrong else ():
        traits = planned_traits_with_corrections(planned.get(verdict.file, {}), verdict.shown_traits)
        for statement in (
            metadata_trait_statements_of_picture(verdict.file, verdict.sha256, traits) if verdict.sha256 else ()
        ):
            if label := wrong.get(statement.digest_of_picture_trait_and_value):
                verdict.shown_traits[statement.trait] = label.shown_traits.get(statement.trait, "")


def send_formerly_rejected_to_review(verdicts: Iterable[Verdict], rejects: Mapping[str, StoredLabel]) -> None:
    """Send to review, in place, what somebody rejected under another policy or guideline (`rejects`, by sha256)."""
    for verdict in verdicts:
        if verdict.verdict in ("accept", "review") and (label := rejects.get(verdict.sha256)):
            what = f"rejected under another policy or guideline by {label.reviewer_and_reason_in_words()}; look afresh"
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
