"""The report's pictures: references, copies beside what they copy, and one gallery for each verdict."""

import heapq
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval.judging.advice import SAID_ONCE, fault_in_words
from eval.judging.byscores import TWINS
from eval.judging.certified import BEYOND, FOUND
from eval.judging.verdicts import BY_ANOTHER_RULE, NOT_ASKED, PERSON, UNSURE, Reason, Verdict
from eval.lot.comparison import ComparisonPictures
from eval.lot.lot import Lot
from eval.policy.model import MARGIN, TOO_FEW, UNKNOWN_VALUE, UNREADABLE
from eval.report.summaries import NOT_ACCEPTED, not_accepted_nearest_to_passing_first
from eval.report.thumbnails import ReportThumbnails
from eval.scorers import SCORES
from stylegate.digests import sha256_of_files

PICTURES_SHOWN = 120  # in one gallery: a page of thousands helps nobody
COPIES_SHOWN = 48
REFERENCES_SHOWN = 24
REASONS_SHOWN = 4  # below one picture; the others open by a click
WORDS = {"accept": "accepted", "review": "for review", "reject": "rejected", "error": "not judged", "warn": "warned of"}
SECTIONS = {
    "review": (
        "For review",
        "A person decides about these pictures; none of them is exported before that. To decide, run stylegate review "
        "with the arguments of the gate: it opens them one by one in the browser. Or open review.csv, which is beside "
        "the report's folder, write accept, reject or unsure into the column verdict and your name into who, and give "
        "the arguments of the gate again with decisions=PATH/review.csv.",
    ),
    "reject": ("Rejected", "These pictures are not exported."),
    "error": ("Errors", "These files could not be judged. Therefore they are not exported."),
    "accept": ("Accepted", "No check holds these pictures back, or a person accepted them."),
}
ORDERS = {
    "review": "Pictures that nearly pass come first.",
    "reject": "Those nearest to passing come first, so that near misses are found easily; the furthest stand last.",
}
PACKED_OF_SLOTS = (
    "An export packs one of each slot: the best one, or the one that an earlier version of the collection has."
)
NOT_RANKED = "They stand in the order of their names: the style cannot be read, so it is not known which are better."
OTHER_CHECKS = {  # what checks say that are no scores
    "decode": "The file could not be read as one whole picture.",
    MARGIN: "How far the picture stays above the nearest limit of all the other checks.",
    UNREADABLE: "The style cannot be read; the note above says why. So no check of style is used, and a person has to "
    "look.",
    UNKNOWN_VALUE: "A planned value has a name that no picture of the brand has, so it cannot be read. A person has to "
    "look.",
    TOO_FEW: "There are too few references for the checks that compare a picture with them. A person has to look.",
    PERSON: "A person looked at the picture and rejected it.",
    UNSURE: "The policy accepts the picture. A person looked at it and was unsure. A person has to decide.",
    BY_ANOTHER_RULE: "A person rejected the picture under another policy or guideline. A person has to look again.",
    NOT_ASKED: "The check whose line comes from labels is not asked in training. No other check objects.",
    FOUND: "A person rejected the picture in the audit of this lot.",
    BEYOND: "The certificate does not cover the picture. It is not exported, whatever a person decides.",
}


def description_of_check(check: str) -> str:
    """What a check looks at, in a sentence; "" for a check that is not known."""
    return SCORES[check].description if check in SCORES else OTHER_CHECKS.get(check, "")


def reason_table_rows(causes: Mapping[str, Mapping[str, int]], drawn: bool) -> list[dict[str, Any]]:
    """A row for each check that held pictures back or warned of them: its words, how many by consequence and, for
    pictures that were `drawn` here, what helps.

    `causes` has, by consequence (reject, review, error, warn), the number of pictures by check. A picture with two
    reasons counts in two rows. The check with most pictures comes first; of equal ones, the first in `causes`.
    """
    counts: dict[str, dict[str, int]] = {}
    for kind, by_check in causes.items():
        for check, count in by_check.items():
            counts.setdefault(check, {})[kind] = count
    order = sorted(counts, key=lambda check: -sum(counts[check].values()))
    return [
        {
            "check": check,
            "does": description_of_check(check),
            "helps": SCORES[check].remedies_in_words() if drawn and check in SCORES else "",
            "counts": counts[check],
        }
        for check in order
    ]


def verdict_gallery_data(
    verdict_kind: str,
    verdicts: Sequence[Verdict],
    lot: Lot,
    thumbnails: ReportThumbnails,
    last_positions: Mapping[str, int],
    ranked: bool = True,
) -> dict[str, Any]:
    """The page's gallery of one verdict, whose thumbnails are written: pictures with their reasons, those for review
    and rejects from the nearest to passing down; all by name where they cannot be `ranked`, since their margins are of
    a style that cannot be read.

    `last_positions` gives, by file, the last position of the slider that accepts the picture.
    """
    chosen = [verdict for verdict in verdicts if verdict.verdict == verdict_kind]
    title, text = SECTIONS[verdict_kind]
    if verdict_kind in NOT_ACCEPTED:
        chosen = not_accepted_nearest_to_passing_first(chosen, ranked)
    if order := ORDERS.get(verdict_kind):
        text += f" {order if ranked else NOT_RANKED}"
    if verdict_kind == "accept":
        text += f" {PACKED_OF_SLOTS if lot.record else 'An export packs them.'}"
    paths = dict(lot.files)
    shown, figures = chosen[:PICTURES_SHOWN], []
    addresses = thumbnails.add_thumbnails([(paths[verdict.file], verdict.sha256) for verdict in shown])
    for verdict, address in zip(shown, addresses, strict=True):
        slot = (lot.slots or {}).get(verdict.file)
        figures.append(
            {
                "file": verdict.file,
                "src": address,
                "prompt": slot.prompt if slot else "",
                "lines": verdict_caption_lines(verdict),
                "more": [reason_caption_line(reason) for reason in verdict.reasons[REASONS_SHOWN:]],
                "last_position": last_positions.get(verdict.file) if verdict_kind != "error" else None,
            }
        )
    return {"verdict": verdict_kind, "title": title, "text": text, "total": len(chosen), "pictures": figures}


def verdict_caption_lines(verdict: Verdict) -> list[tuple[str, str, str]]:
    """(consequence, heading, text) of each line below a picture of the report: reasons, what was waived, what a person
    decided. The consequence gives the heading its colour: what a reason leads to by itself, else the verdict.

    Reasons beyond REASONS_SHOWN are not among them; a verdict has its worst reasons first.
    """
    lines = [reason_caption_line(reason) for reason in verdict.reasons[:REASONS_SHOWN]]
    for reason in verdict.waived:
        text = f"{reason.owner}, until {reason.expires}: {reason.why}"
        lines.append((verdict.verdict, f"waived: {reason.check}", text))
    if decision := verdict.settled:
        checks = ", ".join(reason.check for reason in decision.reasons)
        text = f"{decision.who}{': ' if decision.why else ''}{decision.why}"
        lines.append((verdict.verdict, f"settled: {checks}", text))
    return lines


def reason_caption_line(reason: Reason) -> tuple[str, str, str]:
    """(consequence, check, text) of a reason, a line below a picture of the report."""
    return reason.verdict, reason.check, reason_in_words(reason)


def reason_in_words(reason: Reason) -> str:
    """The text of a reason under a picture: "score < threshold" (or its fault in words), its detail or both, else
    "could not be computed".

    Empty for the checks in SAID_ONCE, which the report's table of reasons explains once.
    """
    if reason.check in SAID_ONCE:
        return ""
    if reason.score is None or reason.threshold is None:
        return reason.detail or "could not be computed"
    score, threshold = score_and_threshold_texts_that_differ(reason.score, reason.threshold)
    numbers = fault_in_words(reason) or f"{score}\u00a0<\u00a0{threshold}"
    return numbers + (f", {reason.detail}" if reason.detail else "")


def score_and_threshold_texts_that_differ(score: float, threshold: float) -> tuple[str, str]:
    """Score and threshold as text, with as few digits as show that they differ, but three at least."""
    pair = [value if abs(value) > 1e-4 else 0.0 for value in (score, threshold)]  # a blank picture's contrast is 7e-15
    texts = ("", "")
    for digits in range(3, 9):
        texts = (f"{pair[0]:.{digits}g}", f"{pair[1]:.{digits}g}")
        if texts[0] != texts[1]:
            break
    return texts


def reference_strip_data(compared: ComparisonPictures, thumbnails: ReportThumbnails) -> dict[str, Any] | None:
    """The page's strip of references, whose thumbnails are written: up to REFERENCES_SHOWN, evenly chosen from all;
    None if there are none.
    """
    references = compared.references
    if not references:
        return None
    chosen = sorted({round(i) for i in np.linspace(0, len(references) - 1, REFERENCES_SHOWN)})
    digests = sha256_of_files([references[i][1] for i in chosen])
    addresses = thumbnails.add_thumbnails(
        [(references[i][1], sha256) for i, sha256 in zip(chosen, digests, strict=True)]
    )
    figures = [
        {"file": references[i][0], "src": src} for i, src in zip(chosen, addresses, strict=True) if src is not None
    ]
    return {"total": len(references), "pictures": figures} if figures else None


def copies_and_originals_data(
    verdicts: Sequence[Verdict],
    rows: Sequence[dict],
    lot: Lot,
    compared: ComparisonPictures,
    thumbnails: ReportThumbnails,
) -> dict[str, Any] | None:
    """The page's pairs of pictures that were refused as copies and what they copy, the most alike first; their
    thumbnails are written. None if there are none.

    `rows` are the scores, in the order of `verdicts`.
    """
    refused = [
        (reason.score, verdict.file, reason, verdict, row)
        for verdict, row in zip(verdicts, rows, strict=True)
        for reason in verdict.reasons
        if reason.check in TWINS and reason.verdict != "warn" and row.get(TWINS[reason.check])
    ]
    chosen = heapq.nsmallest(COPIES_SHOWN, refused, key=lambda item: (item[0], item[1], item[2].check))
    own, kinds = dict(lot.files), {verdict.file: verdict.verdict for verdict in verdicts}
    twins = [
        path_origin_and_verdict_of_original(reason.check, row[TWINS[reason.check]], own, kinds, compared)
        for *_, reason, _, row in chosen
    ]
    digests = sha256_of_files([path for path, _, _ in twins])
    figures = []
    for (_, file, reason, verdict, row), (path, origin, kind), sha256 in zip(chosen, twins, digests, strict=True):
        likeness, limit = (
            likeness_text_from_log_distance(reason.score or 0.0),
            likeness_text_from_log_distance(reason.threshold or 0.0),
        )
        figures.append(
            {
                "text": f"{reason.check}: likeness {likeness}, refused above {limit}",
                "file": file,
                "verdict": verdict.verdict,
                "src": thumbnails.add_thumbnail(own[file], verdict.sha256),
                "twin": row[TWINS[reason.check]],
                "origin": origin,
                "twin_verdict": kind,
                "twin_src": thumbnails.add_thumbnail(path, sha256),
            }
        )
    return {"total": len(refused), "pictures": figures} if figures else None


def path_origin_and_verdict_of_original(
    check: str, name: str, own: Mapping[str, Path], kinds: Mapping[str, str], compared: ComparisonPictures
) -> tuple[Path, str, str]:
    """(path, origin in words, verdict) of the original `name`, which a picture copies; "" if it was not judged."""
    if check == "novelty":
        return dict(compared.training)[name], "training picture", ""
    if name in own:
        return own[name], f"of these pictures, {WORDS[kinds[name]]}", kinds[name]
    return dict(compared.exported)[name], "exported before", ""


def likeness_text_from_log_distance(score: float) -> str:
    """The likeness of two pictures as text with three decimals, such as "0.982".

    `score` is the log of their distance (eval/scorers/duplicates.py); the likeness is 1 less the distance.
    """
    return f"{1 - np.exp(score):.3f}"
