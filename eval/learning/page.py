"""The page on what learning changes: areas before and after, and every picture whose verdict flips."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.judging.judge import VerdictsBeforePeople
from eval.judging.verdicts import ORDER, Verdict
from eval.learning.gains import RankingGainByLearning
from eval.lot.comparison import ComparisonPictures
from eval.lot.lot import Lot
from eval.report.galleries import PICTURES_SHOWN, WORDS
from eval.report.thumbnails import SIDE, ReportThumbnails
from stylegate import files
from stylegate.charts import page_template

STRICTNESS = (*ORDER[:3], "accept")  # verdicts, the strictest first


def write_learning_report_page(
    report: Path,
    lot: Lot,
    compared: ComparisonPictures,
    results: tuple[VerdictsBeforePeople, VerdictsBeforePeople],
    gains: Sequence[RankingGainByLearning],
    advice: Sequence[str],
) -> Path:
    """Write the page and its pictures into the folder `report`, in place of an older one. Returns the path of
    index.html.

    `results` are the verdicts by scores alone under the policy before, and under the one that learned.
    """
    new = report.with_name(f".{report.name}.partial")
    shutil.rmtree(new, ignore_errors=True)
    thumbnails = ReportThumbnails(new, report, compared.background)
    before, after = results
    pairs = list(zip(before.verdicts, after.verdicts, after.scores.rows, strict=True))
    kinds = sorted({(old.verdict, now.verdict) for old, now, _ in pairs if old.verdict != now.verdict}, key=str)
    text = page_template(Path(__file__).parent, "learnt.html.j2").render(
        title=f"{lot.out.name}: what learning changes",
        recommended=gains[0].is_measurably_better,
        gains=[gain.ranking_gain_in_words() for gain in gains],
        advice=advice,
        sections=[template_data_of_flipped_verdicts(lot, pairs, kind, thumbnails) for kind in kinds],
        rendering="pixelated" if lot.record and (lot.record.size or SIDE) < SIDE else "auto",
    )
    files.write_atomically(new / "index.html", text)
    thumbnails.write_thumbnails_json()
    shutil.rmtree(report, ignore_errors=True)
    new.rename(report)
    return report / "index.html"


def template_data_of_flipped_verdicts(
    lot: Lot, pairs: list[tuple[Verdict, Verdict, dict[str, Any]]], kind: tuple[str, str], thumbnails: ReportThumbnails
) -> dict[str, Any]:
    """A section of the page, as its template takes it: the pictures whose verdict changes from the first of `kind` to
    the second; those come first whose aesthetic score, in the new verdict's sense, is clearest.
    """
    chosen = [pair for pair in pairs if (pair[0].verdict, pair[1].verdict) == kind]
    chosen.sort(key=lambda pair: pair[2].get("aesthetic") or 0.0, reverse=kind[1] == "accept")
    paths, old, new = dict(lot.files), *kind
    pictures = [
        {
            "file": now.file,
            "src": thumbnails.add_thumbnail(paths[now.file], now.sha256),
            "why": ", ".join(reason.check for reason in (before if new == "accept" else now).reasons),
            "says": "" if (value := row.get("aesthetic")) is None else f"{value:+.1f}",
        }
        for before, now, row in chosen[:PICTURES_SHOWN]
    ]
    return {
        "verdict": new,
        "title": f"{WORDS[old]}, now {WORDS[new]}",
        "total": len(chosen),
        "pictures": pictures,
    }
