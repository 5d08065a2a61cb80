"""The report's pictures: one gallery a verdict, and copies beside their twins."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eval.lot.comparison import Comparison
from eval.lot.subject import Subject
from stylegate import files, pictures

SHOWN = 120  # pictures a section; a page of thousands helps nobody
PAIRS = 48  # copies beside their twins
THUMBNAIL = 256  # pixels
TWINS = {"distinct": "twin", "novelty": "known"}  # check -> column of scores.parquet that names the other picture
WORDS = {"accept": "accepted", "review": "for review", "reject": "rejected", "error": "errors", "warn": "warned of"}
SECTIONS = {
    "review": ("For review", "Nearest to a line first. A person decides; none of these is exported."),
    "reject": ("Rejected", "Furthest below the line first."),
    "error": ("Errors", "Could not be judged, hence not exported."),
    "accept": ("Accepted", "What an export packs."),
}


def section(
    kind: str, verdicts: list[dict], subject: Subject, folder: Path, background: str, until: Mapping[str, int]
) -> dict[str, Any]:
    """One gallery: its pictures with their reasons, those nearest to or furthest from the line first."""
    chosen = [v for v in verdicts if v["verdict"] == kind]
    if kind in ("review", "reject"):
        chosen.sort(key=lambda v: (margin(v), v["file"]), reverse=kind == "review")
    paths = dict(subject.named)
    shown = []
    for verdict in chosen[:SHOWN]:
        slot = (subject.slots or {}).get(verdict["file"])
        shown.append(
            {
                "file": verdict["file"],
                "src": thumbnail(paths[verdict["file"]], verdict["sha256"], folder, background),
                "prompt": slot.prompt if slot else "",
                "lines": captions(verdict),
                "until": until.get(verdict["file"]) if kind != "error" else None,
            }
        )
    title, text = SECTIONS[kind]
    return {"verdict": kind, "title": title, "text": text, "total": len(chosen), "pictures": shown}


def margin(verdict: dict) -> float:
    """Spreads above the nearest line, to sort by."""
    return verdict["margin"] or 0.0


def captions(verdict: dict) -> list[tuple[str, str]]:
    """What is said below a picture: reasons, what was waived, who settled it."""
    said = [(found["check"], in_words(found)) for found in verdict["reasons"]]
    for found in verdict.get("waived", []):
        said.append((f"waived: {found['check']}", f"{found['owner']}, until {found['expires']}: {found['why']}"))
    if by := verdict.get("settled"):
        checks = ", ".join(found["check"] for found in by["reasons"])
        said.append((f"settled: {checks}", f"{by['who']}{': ' if by['why'] else ''}{by['why']}"))
    return said


def in_words(reason: dict) -> str:
    if reason.get("detail"):
        return reason["detail"]
    if reason["score"] is None:
        return "no score"
    return f"{number(reason['score'])}\u00a0<\u00a0{number(reason['threshold'])}"


def number(value: float) -> str:
    return f"{value if abs(value) > 1e-9 else 0:.3g}"  # a blank picture's contrast is 7e-15


def pairs(
    verdicts: list[dict], rows: list[dict], subject: Subject, compared: Comparison, folder: Path
) -> dict[str, Any] | None:
    """Pictures that were refused as copies, each beside its twin, the most alike first; None if there are none."""
    refused = [
        (found["score"], verdict["file"], found, verdict, row)
        for verdict, row in zip(verdicts, rows, strict=True)
        for found in verdict["reasons"]
        if found["check"] in TWINS and found["verdict"] != "warn" and row.get(TWINS[found["check"]])
    ]
    refused.sort(key=lambda item: (item[0], item[1], item[2]["check"]))
    by_name = {verdict["file"]: verdict["verdict"] for verdict in verdicts}
    own, before, training = dict(subject.named), dict(compared.exported), dict(compared.training)
    shown = []
    for score, file, found, verdict, row in refused[:PAIRS]:
        twin, kind = row[TWINS[found["check"]]], ""
        if found["check"] == "novelty":
            path, what = training[twin], "training picture"
        elif twin in own:
            path, kind = own[twin], by_name[twin]
            what = f"of these pictures, {WORDS[kind]}"
        else:
            path, what = before[twin], "exported before"
        shown.append(
            {
                "says": f"{found['check']}: likeness {likeness(score)}, refused above {likeness(found['threshold'])}",
                "file": file,
                "verdict": verdict["verdict"],
                "src": thumbnail(own[file], verdict["sha256"], folder, compared.background),
                "twin": twin,
                "what": what,
                "twin_verdict": kind,
                "twin_src": thumbnail(path, files.sha256(path), folder, compared.background),
            }
        )
    return {"total": len(refused), "shown": shown} if shown else None


def likeness(score: float) -> str:
    """Of a log distance (eval/scorers/duplicates.py)."""
    return f"{1 - np.exp(score):.3f}"


def thumbnail(path: Path, sha256: str, folder: Path, background: str) -> str | None:
    """Write the picture, at most 256 pixels a side, under its content's name; None if it does not decode."""
    name = f"pictures/{sha256[:16]}.png"
    if not (folder / name).exists():
        try:
            image = pictures.decode(pictures.read(path), background).image
        except (pictures.PictureError, OSError):
            return None
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        (folder / name).write_bytes(pictures.png(image))
    return name
