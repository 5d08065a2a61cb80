"""The report: one static page beside the verdicts, without network. The same verdicts give the same bytes.

report/index.html and report/pictures/. `gate` writes it; it reads files only and needs no model. Its one script moves
the slider (eval/report/slider.py computes what it shows); without scripts all else is there.
"""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader

from eval.judging.judged import Judged
from eval.lot.cost import cost_in_words, cost_of
from eval.lot.subject import Subject
from eval.policy.model import MARGIN, VERDICTS, Policy
from eval.report import slider
from eval.report.charts import curve, over_positions, plots
from eval.report.galleries import SECTIONS, THUMBNAIL, WORDS, pairs, section
from eval.report.summaries import junit, markdown
from stylegate import files
from stylegate.config import Config

PROMISES = {
    "none": "Nothing is certified of these pictures",
    "valid": "The calibration holds",
    "stale": "The calibration is stale: it promises nothing",
    "insufficient": "Not proven",
}


def write_reports(judged: Judged, config: Config) -> Path:
    """Write junit.xml and summary.md for machines and report/ for people; returns the page of the report."""
    lot, outcome, verdicts = judged.lot, judged.outcome, judged.verdicts
    files.write(lot.out / "junit.xml", junit(lot.out.name, outcome, verdicts))
    files.write(lot.out / "summary.md", markdown(lot.out.name, outcome, verdicts))
    return write_page(judged, config)


def write_page(judged: Judged, config: Config) -> Path:
    """Write report/index.html and its pictures; returns the page."""
    lot, outcome, verdicts, policy = judged.lot, judged.outcome, judged.verdicts, judged.policy
    out, compared, rows = lot.out, judged.comparison, judged.scores.rows
    line = line_section(judged, evidence_of(judged))
    report = out / "report"
    fresh = out / ".report.partial"
    shutil.rmtree(fresh, ignore_errors=True)
    (fresh / "pictures").mkdir(parents=True)
    until = line["until"] if line else {}
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True)
    page = environment.get_template("report.html.j2").render(
        title=out.name,
        subtitle=subtitle(outcome),
        counts=outcome["counts"],
        verdicts=VERDICTS,
        words=WORDS,
        promise=promise_in_words(outcome["promise"], policy),
        rules=outcome["batch"],
        cost=cost_in_words(cost_of(out), outcome["counts"]["accept"], config.hardware.price_per_hour),
        why=why(outcome),
        notes=outcome["notes"] + [f"left out: {reason}" for reason in outcome["left_out"]],
        line=line,
        style=style_of(lot, fresh),
        plots=plots(judged.scores, outcome["thresholds"]),
        pairs=pairs(verdicts, rows, lot, compared, fresh),
        sheets=[section(kind, verdicts, lot, fresh, compared.background, until) for kind in SECTIONS],
        rendering="pixelated" if lot.record.get("size", THUMBNAIL) < THUMBNAIL else "auto",
        facts=facts_of(lot, outcome),
    )
    files.write(fresh / "index.html", page)
    shutil.rmtree(report, ignore_errors=True)
    fresh.rename(report)
    return report / "index.html"


def subtitle(outcome: dict) -> str:
    text = f"{outcome['counts']['accept']} of {outcome['counts']['in']} pictures pass and may leave the house."
    slots = outcome.get("slots")
    return text + (f" The plan wants {slots['wanted']}; {slots['accepted']} slots are filled." if slots else "")


def promise_in_words(promise: dict, policy: Policy) -> dict[str, str]:
    """How the promise stands: state, a heading, a line below it."""
    if promise["state"] == "certified":
        heading = certified(promise, policy)
        return {"state": "certified", "heading": heading, "text": "certificate.json holds the proof."}
    says = promise["says"].removeprefix("STALE: ").removeprefix("not proven: ")
    if promise["state"] == "none":
        says = f"stylegate certify shows by labels whether {says}."
    return {"state": promise["state"], "heading": PROMISES[promise["state"]], "text": says}


def certified(promise: dict, policy: Policy) -> str:
    share, sure = f"{promise['bound']:.1%}", f"{100 * (1 - policy.promise.delta):.4g}%"
    return f"At most {share} of what is exported are rejects, with {sure} confidence: {promise['labels']} labels"


def why(outcome: dict) -> list[str]:
    """A line for each verdict that has reasons: how many pictures each check speaks of."""
    return [
        f"{WORDS[verdict]}: " + ", ".join(f"{check} {count}" for check, count in causes.items())
        for verdict, causes in outcome["why"].items()
        if causes
    ]


class Evidence(NamedTuple):
    """What is known of the line that the slider moves."""

    in_force: float | None  # where it lies; None where there is none yet
    pool: dict[str, float]  # sha256 -> score of what a calibrated line judges
    made: dict[str, Any] | None  # the calibration that may be used
    unproven: tuple[str, str]  # what is said without one: of the line in force, of others


def evidence_of(judged: Judged) -> Evidence:
    """What the labels, the calibration and the certificate say of the line that the slider moves."""
    promise, policy, line = judged.outcome["promise"], judged.policy, judged.line
    unproven = (slider.NO_LABELS, slider.NO_LABELS)
    if promise["state"] == "certified":
        unproven = (certified(promise, policy), slider.ELSEWHERE)
    if line is None:
        return Evidence(0.0, {}, None, unproven)
    if line.state == "stale" and promise["state"] != "certified":
        unproven = (slider.STALE, slider.STALE)
    return Evidence(line.bound.review_below if line.bound else None, judged.pool, line.made, unproven)


def line_section(judged: Judged, known: Evidence) -> dict[str, Any] | None:
    """The slider: its data and charts, and by file the last position that accepts it; None if nothing can move."""
    verdicts, rows, policy = judged.verdicts, judged.scores.rows, judged.policy
    score, promise, made = policy.calibrated, policy.promise, known.made
    values = [v["margin"] if score in (None, MARGIN) else row[score] for v, row in zip(verdicts, rows, strict=True)]
    found = slider.slider_of(verdicts, values, policy, known.in_force)
    if found is None:
        return None
    charts = [("yield", "100%", over_positions(found.accepted / found.total, 1.0, found.start, "accept", None))]
    bounds = None
    if made:
        moved = {v["sha256"] for v, i in zip(verdicts, found.until, strict=True) if 0 <= i < len(found.positions) - 1}
        bounds = slider.bounds_of(found, made, known.pool, moved, promise)
        top = min(3 * promise.alpha, 1.0)
        title = f"bound on rejects; across: the promise, {promise.alpha:.1%}"
        charts.append((title, f"{top:.0%}", over_positions(bounds, top, found.start, "reject", promise.alpha)))
    words = slider.words_of(found, bounds, len(made["labels"]) if made else 0, promise.delta, known.unproven)
    data = {
        "moves": found.moves,
        "start": found.start,
        "t": found.positions.tolist(),
        "accepted": found.accepted.tolist(),
        "bound": None if bounds is None else [round(float(bound), 6) for bound in bounds],
        "words": words,
    }
    return {
        "data": data,
        "now": words[found.start],
        "score": score,
        "charts": charts,
        "ends": [f"{found.positions[i]:.3g}" for i in (0, -1)],
        "until": {v["file"]: i for v, i in zip(verdicts, found.until, strict=True)},
    }


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
        ("certificate", outcome["promise"].get("certificate_sha256")),
        ("base", made.get("base")),
        ("LoRA", made.get("lora")),
        ("data", made.get("brand")),
    ]
    return [(name, value) for name, value in facts if value]
