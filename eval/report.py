"""The report: one static page beside the verdicts, without network. The same verdicts give the same bytes.

report/index.html and report/pictures/. `gate` writes it; it reads files only and needs no model. Its one script moves
the slider (eval/slider.py computes what it shows); without scripts all else is there.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from jinja2 import Environment, FileSystemLoader

from eval import gate, policyfile, slider
from eval.batch.place import existing
from eval.charts import curve, over_positions, plots
from eval.galleries import SECTIONS, THUMBNAIL, WORDS, pairs, section
from eval.policy import MARGIN, VERDICTS, Policy
from eval.promise import calibrate
from eval.subject import Comparison, Subject, comparison_of
from stylegate import files
from stylegate.config import Config

COST = "cost.json"  # seconds by stage; `stylegate run` writes it
PROMISES = {
    "none": "Nothing is certified of these pictures",
    "valid": "The calibration holds",
    "stale": "The calibration is stale: it promises nothing",
    "insufficient": "Not proven",
}


def write_report(subject: Subject, config: Config) -> Path:
    """Write report/ from verdicts.jsonl, gate.json and the scores; returns the page."""
    out, outcome = subject.out, files.read_json(subject.out / "gate.json", "the gate's record", "counts", "thresholds")
    verdicts, rows = files.read_jsonl(out / "verdicts.jsonl"), pq.read_table(out / "scores.parquet").to_pylist()
    compared, policy = comparison_of(config, subject), policyfile.read(config.policy)
    line = line_section(verdicts, rows, policy, evidence_of(config, subject, compared, policy, outcome["promise"]))
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
        style=style_of(subject, fresh),
        plots=plots(out, outcome["thresholds"]),
        pairs=pairs(verdicts, rows, subject, compared, fresh),
        sheets=[section(kind, verdicts, subject, fresh, compared.background, until) for kind in SECTIONS],
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


def cost_of(folder: Path) -> dict[str, float]:
    """Seconds of compute by stage that went into a batch; empty where nobody counted."""
    path = folder / COST
    found = files.read_json(path, "the batch's cost") if path.exists() else {}
    return {stage: float(seconds) for stage, seconds in found.items() if isinstance(seconds, int | float)}


def cost_in_words(seconds: Mapping[str, float], accepted: int, price: float | None) -> str:
    """What an accepted picture cost, in seconds and, with the price of an hour, in money; "" if nothing is known."""
    if not (total := sum(seconds.values())):
        return ""
    each, what = (total / accepted, "per accepted picture") if accepted else (total, "and no accepted picture")
    text = f"{each:.3g} s of compute {what}"
    if price is None:
        return text
    money = np.format_float_positional(price * each / 3600, precision=2, fractional=False, trim="-")
    return f"{text}, {money} in money at {price:g} an hour"


class Evidence(NamedTuple):
    """What is known of the line that the slider moves."""

    in_force: float | None  # where it lies; None where there is none yet
    pool: dict[str, float]  # sha256 -> score of what a calibrated line judges
    made: dict[str, Any] | None  # the calibration that may be used
    unproven: tuple[str, str]  # what is said without one: of the line in force, of others


def evidence_of(config: Config, subject: Subject, compared: Comparison, policy: Policy, promise: dict) -> Evidence:
    unproven = (slider.NO_LABELS, slider.NO_LABELS)
    if promise["state"] == "certified":
        unproven = (
            certified(promise, policy),
            "the certificate speaks of the lines in force: here nothing is certified",
        )
    if not policy.calibrated:
        return Evidence(0.0, {}, None, unproven)
    pool = gate.pool_of(config, subject, compared)
    line = calibrate.line_for(config, subject, compared, policy, pool)
    path = existing(config.calibration, "calibration") if config.calibration else subject.out / calibrate.CALIBRATION
    in_force = line.bound.review_below if line.bound else None
    if line.state == "stale" and promise["state"] != "certified":
        unproven = (slider.STALE, slider.STALE)
    made = calibrate.read(path) if path.exists() and line.state != "stale" else None
    return Evidence(in_force, pool, made, unproven)


def line_section(verdicts: list[dict], rows: list[dict], policy: Policy, known: Evidence) -> dict[str, Any] | None:
    """The slider: its data and charts, and by file the last position that accepts it; None if nothing can move."""
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
