"""Policies for tests of what people decide, and people who fill in worksheets."""

import json
from collections.abc import Callable
from pathlib import Path

from eval.promise.labels import Label, LabelName
from stylegate import files
from tests.worksheets import fill_in

PROMISE = "promise: {alpha: 0.1, delta: 0.1, ladder: [1.0, 0.5]}\n"
ALL_IN_REVIEW = "version: 1\nchecks: {contrast: {review_below: 200}}\n"
ALL_PASS = "version: 1\nchecks: {contrast: {reject_below: 1}}\n" + PROMISE
CALIBRATED = "version: 1\nchecks: {contrast: {reject_below: 1}, sharpness: calibrated}\n" + PROMISE


def verdicts_of(out: Path) -> dict[str, dict]:
    rows = files.read_jsonl(out / "verdicts.jsonl")
    counts = json.loads((out / "gate.json").read_text())["counts"]
    assert counts["in"] == len(rows) == sum(counts[v] for v in ("accept", "review", "reject", "error"))
    return {row["file"]: row for row in rows}


def fill(sheet: Path, verdict: Callable[[int, dict], str], count: int | None = None) -> Path:
    """A worksheet with its first `count` rows filled in by anna."""
    return fill_in(sheet, lambda i, row: {"verdict": verdict(i, row), "who": "anna", "why": f"seen {i}"}, count)


def good(i: int, row: dict) -> str:
    return "accept"


def decisions(out: Path, wanted: dict[str, str], path: Path) -> str:
    rows = verdicts_of(out)
    lines = [f"{rows[name]['sha256']},{verdict},anna,looked" for name, verdict in wanted.items()]
    path.write_text("sha256,verdict,who,why\n" + "\n".join(lines) + "\n")
    return f"decisions={path}"


def label(sha256: str, verdict: LabelName = "accept", who: str = "anna", why: str = "") -> Label:
    return Label(sha256=sha256, verdict=verdict, who=who, why=why)
