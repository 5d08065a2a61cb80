"""The report: one static page beside the verdicts, without network. The same verdicts give the same bytes.

The page is report/index.html, its pictures are in report/pictures/. `gate` writes it; it reads files only and needs no
model. Its one script moves the slider (eval/report/slider.py computes what it shows); without scripts all else is
there. The page names folders, but no path of the machine.
"""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

from eval.judging.advice import (
    are_margins_believed,
    next_step_in_words,
    observe_only_note_in_words,
    scores_not_believed,
    warning_without_references,
)
from eval.judging.judged import JudgedLot
from eval.judging.record import GateRecord, PromiseState
from eval.learning import LEARNT
from eval.lot.cost import cost_in_words, read_compute_seconds_by_stage
from eval.lot.lot import Lot
from eval.lot.words import arguments_naming_lot
from eval.measuring.encodername import encoder_name_without_folders
from eval.policy.model import MARGIN, VERDICTS, Policy
from eval.promise.calibration import Calibration
from eval.report import slider
from eval.report.charts import score_histograms, slider_curve_svg
from eval.report.galleries import (
    SECTIONS,
    WORDS,
    copies_and_originals_data,
    reason_table_rows,
    reference_strip_data,
    verdict_gallery_data,
)
from eval.report.summaries import junit_xml, left_out_checks_in_words, lot_state_in_words, markdown_summary
from eval.report.thumbnails import SIDE, ReportThumbnails
from stylegate import files
from stylegate.charts import loss_chart, page_template
from stylegate.config import Config
from stylegate.words import confidence_percent_rounded_down, counted, percentage_rounded_up

PROMISES = {
    "none": "How many of the accepted pictures are bad is not proven",
    "valid": "The calibration is valid",
    "stale": "The calibration is stale: it promises nothing",
    "insufficient": "Not proven",
}


def write_reports(judged: JudgedLot, config: Config) -> Path:
    """Write junit.xml and summary.md for machines and report/ for people; returns the path of report/index.html."""
    lot, outcome, verdicts = judged.lot, judged.outcome, judged.verdicts
    shown = files.display_path(lot.out)
    typed_out = "" if Path(shown).is_absolute() else shown  # no path of the machine
    files.write_atomically(lot.out / "junit.xml", junit_xml(lot.out.name, outcome, verdicts))
    text = markdown_summary(name_of_judged_lot(config, lot), outcome, verdicts, typed_out or lot.out.name)
    files.write_atomically(lot.out / "summary.md", text)
    return write_report_page(judged, config)


def write_report_page(judged: JudgedLot, config: Config) -> Path:
    """Write report/index.html and its pictures, whole or not at all; returns the path of the page."""
    out = judged.lot.out
    report, new, old = out / "report", out / ".report.partial", out / ".report.old"
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    thumbnails = ReportThumbnails(new, report, judged.comparison.background)
    files.write_atomically(new / "index.html", report_html(judged, config, new, thumbnails))
    thumbnails.write_thumbnails_json()
    if report.exists():
        report.rename(old)
    new.rename(report)
    shutil.rmtree(old, ignore_errors=True)
    return report / "index.html"


def report_html(judged: JudgedLot, config: Config, folder: Path, thumbnails: ReportThumbnails) -> str:
    """The page as HTML; the pictures that it shows are written to `folder`."""
    lot, outcome, verdicts, compared = judged.lot, judged.outcome, judged.verdicts, judged.comparison
    not_believed = scores_not_believed(outcome)
    left_out, ranked = left_out_checks_in_words(outcome), are_margins_believed(outcome)
    slider_part = slider_section_data(judged, slider_threshold_pool_and_calibration(judged))
    last_positions = slider_part["last_positions"] if slider_part else {}
    return page_template(Path(__file__).parent, "report.html.j2").render(
        title=name_of_judged_lot(config, lot),
        subtitle=report_subtitle(outcome),
        counts=outcome.counts.model_dump(by_alias=True),
        verdicts=VERDICTS,
        words=WORDS,
        promise=promise_heading_and_text(outcome.promise, judged.policy),
        rules=outcome.batch,
        cost=cost_in_words(
            read_compute_seconds_by_stage(lot.out), outcome.counts.accept, config.hardware.price_per_hour
        ),
        next_step=next_step_in_words(outcome, verdicts, ""),
        review_command=review_command(config, lot),
        learnt=(lot.out / LEARNT / "report" / "index.html").is_file(),
        reasons=reason_table_rows(outcome.why, lot.record is not None),
        warning=warning_without_references(outcome),
        notes=outcome.notes + ([left_out] if left_out else []),
        slider=slider_part,
        training=training_samples_and_loss_curve_data(lot, folder),
        plots=score_histograms(judged.scores, outcome.thresholds, not_believed),
        not_charted=[name for name in not_believed if name in judged.scores.computed_score_names()],
        references=reference_strip_data(compared, thumbnails),
        readability=outcome.readability.readability_in_words() if outcome.readability else "",
        copies=copies_and_originals_data(verdicts, judged.scores.rows, lot, compared, thumbnails),
        galleries=[verdict_gallery_data(kind, verdicts, lot, thumbnails, last_positions, ranked) for kind in SECTIONS],
        rendering="pixelated" if lot.record and (lot.record.size or SIDE) < SIDE else "auto",
        facts=names_and_digests_behind_verdicts(lot, outcome),
    )


def name_of_judged_lot(config: Config, lot: Lot) -> str:
    """What was judged, for headings: the batch's name, or the folder images= as it was typed; of a path of this machine
    its last part.
    """
    typed = config.images or ""
    if lot.record or not typed or typed.startswith(("/", "~")) or not Path(typed).name:
        return lot.out.name if lot.record else lot.images.name
    return typed


def review_command(config: Config, lot: Lot) -> str:
    """The command that opens the pictures in review in a browser; "" where it would name a path of this machine."""
    words = arguments_naming_lot(config, lot)
    has_path = any(word.partition("=")[2].lstrip("'").startswith(("/", "~")) for word in words.split())
    return "" if has_path else f"stylegate review {words}"


def report_subtitle(outcome: GateRecord) -> str:
    """The state of the lot, how many pictures may be exported, how many slots of a plan they fill, of those wanted."""
    counts, slots = outcome.counts, outcome.slots
    text = f"State of the lot: {lot_state_in_words(outcome)}. " if not outcome.observe else ""
    text += f"{counts.accept} of {counted(counts.judged, 'picture')} passed"
    if not outcome.observe:
        text += "; an export packs the best one of each slot" if slots else " and may be exported"
    text += "."
    text += f" The verdicts are {observed}." if (observed := observe_only_note_in_words(outcome)) else ""
    filled = f" {counted(slots.accepted, 'slot is', 'slots are')} filled, {slots.wanted} are wanted." if slots else ""
    return text + filled


def promise_heading_and_text(promise: PromiseState, policy: Policy) -> dict[str, Any]:
    """The state of the promise, a heading for it, a sentence below the heading, and whether it was asked for, by the
    names that the page uses.
    """
    if promise.state == "certified":
        heading = certified_promise_in_words(promise, policy)
        return {"state": "certified", "heading": heading, "text": "The proof is in certificate.json.", "asked": True}
    text = promise.says.removeprefix("STALE: ").removeprefix("not proven: ")
    if promise.state == "none":
        text = f"With labels from people, stylegate certify can show whether {policy.promise.promise_sentence_part()}."
        if promise.was_asked_for():
            text = f"A proof was {promise.says}. {text}"
    return {"state": promise.state, "heading": PROMISES[promise.state], "text": text, "asked": promise.was_asked_for()}


def certified_promise_in_words(promise: PromiseState, policy: Policy) -> str:
    """What a certificate proves: the largest share of rejects, the confidence, the number of labels.

    Where every picture was looked at there is no share to estimate, and the sentence says so.
    """
    if promise.labels == promise.size:
        return f"All {promise.size} pictures were looked at, and the rejects among them are not exported"
    share, confidence = (
        percentage_rounded_up(promise.bound or 0.0),
        f"{confidence_percent_rounded_down(policy.promise.delta):g}%",
    )
    by = f"{confidence} confidence, {counted(promise.labels, 'label')}"
    return f"At most {share} of the exported pictures are rejects ({by})"


class SliderThresholdPoolAndCalibration(NamedTuple):
    """What is known about the threshold that the slider moves."""

    in_force: float | None  # where it lies; None where there is none yet
    pool: dict[str, float]  # sha256 -> score of the pictures that a calibrated threshold judges
    calibration: Calibration | None  # the calibration, if it may be used
    without_bound: tuple[str, str]  # texts where no bound is known: at the threshold in force, and elsewhere


def slider_threshold_pool_and_calibration(judged: JudgedLot) -> SliderThresholdPoolAndCalibration:
    """What the labels, the calibration and the certificate say about the threshold that the slider moves."""
    promise, policy, line = judged.outcome.promise, judged.policy, judged.line
    texts = (slider.NO_LABELS, slider.NO_LABELS)
    if promise.state == "certified":
        texts = (f"{certified_promise_in_words(promise, policy)}.", slider.ELSEWHERE)
    if line is None:
        return SliderThresholdPoolAndCalibration(0.0, {}, None, texts)
    if line.state == "stale" and promise.state != "certified":
        texts = (slider.STALE, slider.STALE)
    return SliderThresholdPoolAndCalibration(
        line.bound.review_below if line.bound else None, judged.pool, line.made, texts
    )


def slider_section_data(judged: JudgedLot, evidence: SliderThresholdPoolAndCalibration) -> dict[str, Any] | None:
    """The slider: its data and charts, and by file the last position that accepts it; None if there is no slider."""
    verdicts, rows, policy = judged.verdicts, judged.scores.rows, judged.policy
    score, promise, calibration = policy.calibrated_score_name, policy.promise, evidence.calibration
    values = [v.margin if score in (None, MARGIN) else row[score] for v, row in zip(verdicts, rows, strict=True)]
    found = slider.make_slider(verdicts, values, policy, evidence.in_force)
    if found is None:
        return None
    charts = [("accepted pictures", "100%", slider_curve_svg(found.accepted / found.total, 1.0, found.start, "accept"))]
    bounds = None
    if calibration:
        beyond = len(found.positions) - 1
        leaving = {v.sha256 for v, i in zip(verdicts, found.last_accepting, strict=True) if 0 <= i < beyond}
        bounds = slider.reject_share_bounds_by_position(found, calibration, evidence.pool, leaving, promise)
        top = min(3 * promise.alpha, 1.0)
        title = (
            f"largest possible share of rejects; the dotted line is the promise, {percentage_rounded_up(promise.alpha)}"
        )
        charts.append((title, f"{top:.0%}", slider_curve_svg(bounds, top, found.start, "reject", promise.alpha)))
    num_labels = len(calibration.labels) if calibration else 0
    texts = slider.slider_position_texts(found, bounds, num_labels, promise.delta, evidence.without_bound)
    data = {
        "score": found.score,
        "start": found.start,
        "positions": found.positions.tolist(),
        "accepted": found.accepted.tolist(),
        "bound": None if bounds is None else [round(float(bound), 6) for bound in bounds],
        "texts": texts,
    }
    return {
        "data": data,
        "texts": texts[found.start],
        "score": score,
        "charts": charts,
        "ends": [f"{found.positions[i]:.3g}" for i in (0, -1)],
        "last_positions": {v.file: i for v, i in zip(verdicts, found.last_accepting, strict=True)},
    }


def training_samples_and_loss_curve_data(lot: Lot, folder: Path) -> dict[str, Any] | None:
    """Sample grid and loss curve of the run that trained the LoRA; None where the run is not on this machine."""
    run = lot.record.words.run if lot.record else None
    grid = files.RUNS / run / "samples" / "grid.png" if run else None
    if not grid or not grid.exists():
        return None
    shutil.copyfile(grid, folder / "samples.png")
    stats = files.read_jsonl(grid.parent.parent / "stats.jsonl", "step", "loss")
    curve = loss_chart([(row["step"], row["loss"]) for row in stats]) if stats else None
    return {"grid": "samples.png", "curve": curve}


def names_and_digests_behind_verdicts(lot: Lot, outcome: GateRecord) -> list[tuple[str, str]]:
    """The rows under the page's last heading: what the verdicts rest on. No path of the machine, no time."""
    made, references = lot.record.facts if lot.record else None, outcome.references
    facts = [
        ("policy", f"{last_part_of_path(outcome.policy.name)} {outcome.policy.sha256}"),
        ("encoder", f"{encoder_name_without_folders(outcome.encoder)} {outcome.encoder_sha256}"),
        ("references", f"{references.count} of {last_part_of_path(references.name or 'none')}"),
        ("certificate", outcome.promise.certificate_sha256),
        ("base", made.base if made else None),
        ("base that the LoRA was trained on", made.training_base if made else None),
        ("LoRA", made.lora if made else None),
        ("data", made.brand if made else None),
    ]
    return [(name, value) for name, value in facts if value]


def last_part_of_path(name: str) -> str:
    """The last part of a path to a folder; any other name as it is."""
    trimmed = name.rstrip("/")
    return trimmed.rpartition("/")[2] if "/" in trimmed else name
