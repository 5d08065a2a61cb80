"""The report: one static page beside the verdicts, without scripts or network. The same verdicts give the same bytes.

report/index.html and report/pictures/. `gate` writes it; it reads files only and needs no model.
"""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from eval.policy import VERDICTS
from eval.scorers import SCORES
from eval.subject import Subject, comparison_of
from stylegate import files, pictures
from stylegate.config import Config

SHOWN = 120  # pictures a section; a page of thousands helps nobody
THUMBNAIL = 256  # pixels
WORDS = {"accept": "accepted", "review": "for review", "reject": "rejected", "error": "errors"}
SECTIONS = {
    "review": ("For review", "Nearest to a line first. A person decides; none of these is exported."),
    "reject": ("Rejected", "Furthest below the line first."),
    "error": ("Errors", "Could not be judged, hence not exported."),
    "accept": ("Accepted", "What an export packs."),
}


def write_report(subject: Subject, config: Config) -> Path:
    """Write report/ from verdicts.jsonl, gate.json and the scores; returns the page."""
    out, outcome = subject.out, files.read_json(subject.out / "gate.json", "the gate's record", "counts", "thresholds")
    verdicts = files.read_jsonl(out / "verdicts.jsonl")
    background = comparison_of(config, subject).background
    report = out / "report"
    fresh = out / ".report.partial"
    shutil.rmtree(fresh, ignore_errors=True)
    (fresh / "pictures").mkdir(parents=True)
    sheets = [section(kind, verdicts, subject, fresh, background) for kind in SECTIONS]
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True)
    page = environment.get_template("report.html.j2").render(
        title=out.name,
        subtitle=subtitle(outcome),
        counts=outcome["counts"],
        verdicts=VERDICTS,
        words=WORDS,
        why=[
            f"{WORDS[v]}: " + ", ".join(f"{c} {n}" for c, n in outcome["why"][v].items())
            for v in outcome["why"]
            if outcome["why"][v]
        ],
        notes=outcome["notes"] + [f"left out: {reason}" for reason in outcome["left_out"]],
        style=style_of(subject, fresh),
        plots=plots(out, outcome["thresholds"]),
        sheets=sheets,
        rendering="pixelated" if subject.record.get("size", THUMBNAIL) < THUMBNAIL else "auto",
        facts=facts_of(subject, outcome),
    )
    files.write(fresh / "index.html", page)
    shutil.rmtree(report, ignore_errors=True)
    fresh.rename(report)
    return report / "index.html"


def subtitle(outcome: dict) -> str:
    text = f"{outcome['counts']['accept']} of {outcome['counts']['in']} pictures pass and may leave the house."
    slots = outcome.get("slots")
    return text + (f" The plan wants {slots['wanted']}; {slots['accepted']} slots are filled." if slots else "")


def reasons(outcome: dict) -> list[str]:
    """A line for each verdict that has reasons: how many pictures each check speaks of."""
    return [
        f"{WORDS[verdict]}, by reason: " + ", ".join(f"{check} {count}" for check, count in causes.items())
        for verdict, causes in outcome["why"].items()
        if causes
    ]


def section(kind: str, verdicts: list[dict], subject: Subject, folder: Path, background: str) -> dict[str, Any]:
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
                "reasons": [{"check": r["check"], "text": in_words(r)} for r in verdict["reasons"]],
            }
        )
    title, text = SECTIONS[kind]
    return {"verdict": kind, "title": title, "text": text, "total": len(chosen), "pictures": shown}


def margin(verdict: dict) -> float:
    """The worst distance below a threshold, as a share of it."""
    gaps = [
        (r["score"] - r["threshold"]) / max(abs(r["threshold"]), 1e-6)
        for r in verdict["reasons"]
        if r["score"] is not None and r["threshold"] is not None
    ]
    return min(gaps, default=0.0)


def in_words(reason: dict) -> str:
    if reason.get("detail"):
        return reason["detail"]
    if reason["score"] is None:
        return "no score"
    return f"{reason['score']:.3g} < {reason['threshold']:.3g}"


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


def style_of(subject: Subject, folder: Path) -> dict[str, Any] | None:
    """Sample grid and loss curve of the run that trained the LoRA, where it is at hand."""
    run = subject.record.get("words", {}).get("run")
    grid = files.RUNS / run / "samples" / "grid.png" if run else None
    if not grid or not grid.exists():
        return None
    shutil.copyfile(grid, folder / "samples.png")
    rows = files.read_jsonl(grid.parent.parent / "stats.jsonl")
    return {"grid": "samples.png", "curve": curve([(row["step"], row["loss"]) for row in rows])}


def facts_of(subject: Subject, outcome: dict) -> list[tuple[str, str]]:
    """Digests and names under the page's last heading; no path of a machine, no time."""
    made = subject.record.get("facts", {})
    facts = [
        ("policy", f"{outcome['policy']['name']} {outcome['policy']['sha256']}"),
        ("encoder", f"{outcome['encoder']} {outcome['encoder_sha256']}"),
        ("references", f"{outcome['references']['count']} of {outcome['references']['from'] or 'none'}"),
        ("base", made.get("base")),
        ("LoRA", made.get("lora")),
        ("data", made.get("brand")),
    ]
    return [(name, value) for name, value in facts if value]


# Charts, as SVG text.


def plots(out: Path, thresholds: dict[str, dict]) -> list[dict[str, Any]]:
    """A histogram for each score that was computed, gated ones first."""
    table, own = pq.read_table(out / "scores.parquet"), pq.read_table(out / "references.parquet")
    drawn = []
    for name in sorted(
        set(table.column_names) & set(SCORES), key=lambda n: (n not in thresholds, list(SCORES).index(n))
    ):
        values = table[name].drop_null().to_numpy()
        references = own[name].drop_null().to_numpy() if name in own.column_names else np.zeros(0)
        if len(values):
            svg = histogram(values, references, thresholds.get(name, {}))
            drawn.append({"name": name, "does": SCORES[name].does, "svg": svg})
    return drawn


def histogram(values: np.ndarray, references: np.ndarray, lines: dict[str, float | None], bins: int = 32) -> Markup:
    """Shares by bin: pictures filled, references outlined, thresholds as lines; what lies beyond is in the last bar."""
    marks = [x for x in lines.values() if x is not None]
    every = np.concatenate([values, references])
    low, high = np.quantile(every, [0.01, 0.99])
    low, high = min(low, *marks, high) if marks else low, max(high, *marks, low) if marks else high
    pad = (high - low) * 0.05 or max(abs(high), 1.0) * 0.05
    edges = np.linspace(low - pad, high + pad, bins + 1)
    width, height, foot = 240, 96, 14

    def heights(data: np.ndarray) -> np.ndarray:
        counts = np.histogram(data.clip(edges[0], edges[-1]), edges)[0]
        return counts / max(counts.max(), 1) * (height - 8)

    def x(value: float) -> float:
        return (value - edges[0]) / (edges[-1] - edges[0]) * width

    step = width / bins
    filled = "".join(
        f"M{i * step:.1f} {height}v{-h:.1f}h{step - 0.6:.1f}V{height}z" for i, h in enumerate(heights(values)) if h
    )
    parts = [f'<path d="{filled}" fill="var(--accept)" opacity=".75"/>']
    if len(references):
        outline = "".join(f"L{i * step:.1f} {height - h:.1f}h{step:.1f}" for i, h in enumerate(heights(references)))
        parts.append(f'<path d="M0 {height}{outline}" fill="none" stroke="var(--reference)" stroke-width="1.4"/>')
    for name, colour in (("reject_below", "reject"), ("review_below", "review")):
        if (value := lines.get(name)) is not None:
            parts.append(f'<path d="M{x(value):.1f} 0V{height}" stroke="var(--{colour})" stroke-width="1.6"/>')
    parts.append(f'<text x="0" y="{height + 11}">{edges[0]:.3g}</text>')
    parts.append(f'<text x="{width}" y="{height + 11}" text-anchor="end">{edges[-1]:.3g}</text>')
    return Markup(f'<svg viewBox="0 0 {width} {height + foot}" role="img">{"".join(parts)}</svg>')


def curve(points: Sequence[tuple[int, float]]) -> Markup:
    """Loss over steps, log scale: each step faint, an exponential mean over about 20 steps strong."""
    width, height, foot = 420, 230, 14
    steps, losses = np.array([p[0] for p in points]), np.array([p[1] for p in points])
    smooth = losses.copy()
    for i in range(1, len(smooth)):
        smooth[i] = 0.95 * smooth[i - 1] + 0.05 * losses[i]
    low, high = math.log(max(losses.min(), 1e-9)), math.log(max(losses.max(), 1e-9))
    xs = (steps - steps[0]) / max(steps[-1] - steps[0], 1) * width

    def line(values: np.ndarray) -> str:
        ys = height - 6 - (np.log(np.maximum(values, 1e-9)) - low) / max(high - low, 1e-9) * (height - 12)
        thin = max(1, len(xs) // 600)
        return "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in zip(xs[::thin], ys[::thin], strict=True))

    return Markup(
        f'<svg viewBox="0 0 {width} {height + foot}" role="img">'
        f'<path d="{line(losses)}" fill="none" stroke="var(--reference)" stroke-width="1" opacity=".5"/>'
        f'<path d="{line(smooth)}" fill="none" stroke="var(--accept)" stroke-width="2.2"/>'
        f'<text x="0" y="9">{losses.max():.2f}</text><text x="0" y="{height - 2}">{losses.min():.2f}</text>'
        f'<text x="{width}" y="{height + 11}" text-anchor="end">step {steps[-1]}</text></svg>'
    )
