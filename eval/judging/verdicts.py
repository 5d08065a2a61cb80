"""Verdicts on pictures: by scores, waivers and people. Functions without files: rows in, verdicts out.

Nothing here turns an error into anything else: what could not be judged is not exported.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Literal, cast

from pydantic import Field

from eval.lot.batch import attempt_and_slot
from eval.policy.model import CALIBRATED
from stylegate import files
from stylegate.errors import DataError
from stylegate.records import Record

PERSON = "person"  # somebody looked and rejected it
UNSURE = "unsure"  # somebody looked at a picture that the policy accepts, and would not decide
BY_ANOTHER_RULE = "rejected-by-another-rule"  # somebody looked and rejected it under another policy or guideline
NO_LINE_YET = f"no line yet: {CALIBRATED} wants labels"
NOT_ASKED = "calibrated-check-not-asked"  # in training: every other check accepts the picture
ORDER = ("error", "reject", "review", "warn")  # of consequences, worst first
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
    """A reason of a picture's verdict that does not count until a day: a waiver of the policy covers it, and a person
    answers for it.
    """

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
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line:
            continue
        try:
            found.append(Verdict.from_json_text(line, f"line {number}"))
        except DataError as error:
            problems += [f"line {number}: {problem}" for problem in error.problems]
    if problems:
        raise DataError(f"{files.display_path(path)} is not as stylegate writes it:", problems, "stylegate gate again.")
    return found


def make_reason(
    check: str, verdict: str, score: float | None = None, threshold: float | None = None, detail: str = ""
) -> Reason:
    """A reason that is not validated again, which is fast; verdicts are made by the thousand."""
    return Reason.model_construct(check=check, score=score, threshold=threshold, verdict=verdict, detail=detail)


def worst_verdict_of_reasons(reasons: Iterable[Reason]) -> VerdictName:
    """The worst verdict among the reasons; "accept" if there are no reasons, or only warnings."""
    kinds = {found.verdict for found in reasons}
    return cast(VerdictName, next((verdict for verdict in ORDER[:-1] if verdict in kinds), "accept"))


def reasons_sorted_worst_first(reasons: list[Reason]) -> list[Reason]:
    """The reasons by their consequence, the worst one first; reasons of equal consequence keep their order."""
    return sorted(reasons, key=lambda found: ORDER.index(found.verdict))


def add_reason(verdict: Verdict, found: Reason) -> None:
    """Add a reason to a verdict, and set the verdict to the worst that its reasons ask for. Changes `verdict` in
    place.
    """
    verdict.reasons = reasons_sorted_worst_first([*verdict.reasons, found])
    verdict.verdict = worst_verdict_of_reasons(verdict.reasons)


def exportable_verdicts(
    verdicts: Iterable[Verdict], is_planned_batch: bool, kept: Collection[str] = ()
) -> list[Verdict]:
    """The accepted pictures that may be exported, in the order given: of a planned batch, one at most for each slot.

    Of several accepted attempts at a slot it is the one whose sha256 is in `kept`, else the one with the best margin,
    of equal ones the earliest.
    """
    accepted = [verdict for verdict in verdicts if verdict.verdict == "accept"]
    if not is_planned_batch:
        return accepted
    best: dict[int, Verdict] = {}
    ranked = sorted(
        accepted, key=lambda v: (v.sha256 not in kept, -margin_or_minus_infinity(v), attempt_and_slot(v.file))
    )
    for verdict in ranked:
        best.setdefault(attempt_and_slot(verdict.file)[1], verdict)
    return [verdict for verdict in accepted if best[attempt_and_slot(verdict.file)[1]] is verdict]


def margin_or_minus_infinity(verdict: Verdict) -> float:
    """`verdict.margin`, the spreads by which the picture lies above its nearest line, as a number to sort by: minus
    infinity where it is None.
    """
    return -math.inf if verdict.margin is None else verdict.margin


def exportable_digests(verdicts: Iterable[Verdict], is_planned_batch: bool) -> list[str]:
    """The sha256 of the pictures that may be exported, best margin first; a certificate is about this list."""
    going = sorted(
        exportable_verdicts(verdicts, is_planned_batch), key=lambda v: (-margin_or_minus_infinity(v), v.sha256)
    )
    return [v.sha256 for v in going]


def slot_numbers_with_verdict(verdicts: list[Verdict], wanted_verdict: str) -> set[int]:
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
