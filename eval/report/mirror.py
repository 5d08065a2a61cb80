"""What W&B shows of a gate: rates, reasons, scores beside the references', the promise, pictures and verdicts; alerts.

It is handed what was judged and judges nothing itself. An error of the tracker never changes a verdict or an exit code.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from eval.judging.judged import JudgedLot
from eval.judging.record import GateRecord
from eval.judging.verdicts import Verdict
from eval.lot.cost import cost_per_accepted, read_compute_seconds_by_stage
from eval.lot.lot import Lot
from eval.lot.record import BatchRecord
from eval.measuring.scores import LotScores
from eval.policy.model import VERDICTS
from eval.promise.calibration import CALIBRATION
from eval.promise.certificate import CERTIFICATE
from eval.report.thumbnails import small_judged_picture
from eval.scorers import SCORES
from stylegate import brandset, files, lineage
from stylegate.config import Config, config_as_dict
from stylegate.errors import DataError
from stylegate.tracker import Tracker, make_tracker

MAX_ROWS = 500  # W&B's tables become slow beyond a few hundred pictures
NO_METRICS: dict[str, float] = {}
NO_VALUES = np.zeros(0)
DROP = 0.1  # alert if the acceptance rate is this much below the median of other lots with this policy and references


def mirror_to_wandb(config: Config, judged: JudgedLot, more_metrics: Mapping[str, float] = NO_METRICS) -> None:
    """Log one gate to the tracker, with the metrics of the experiment around it. No error leaves this function."""
    try:
        tracker = make_tracker(config.tracker, judged.lot.out, "gate", config_as_dict(config))
        if config.tracker.name != "none":
            log_gate_to_tracker(tracker, judged, more_metrics, config.hardware.price_per_hour)
        record_lineage_of_lot(tracker, judged.lot, judged.outcome)
        tracker.finish_tracking()
    except Exception as error:
        print(
            f"note: the gate could not be logged to the tracker ({type(error).__name__}: {error}); the verdicts stand",
            file=sys.stderr,
        )


def log_gate_to_tracker(
    tracker: Tracker, judged: JudgedLot, more_metrics: Mapping[str, float], price: float | None = None
) -> None:
    """Log what the dashboards show: metrics, promise, histograms, pictures with their verdicts, alerts."""
    lot, outcome = judged.lot, judged.outcome
    values = gate_metrics(lot, outcome, price) | dict(more_metrics)
    tracker.log_values({name: value for name, value in values.items() if np.isfinite(value)})
    tracker.set_summary_values({"promise/state": outcome.promise.state, "promise/says": outcome.promise.says})
    log_score_histograms_to_tracker(tracker, judged.scores)
    columns = ["file", "picture", "verdict", "reasons", "margin", "prompt"]
    tracker.log_table("gate/verdicts", columns, verdict_table_rows(lot, judged.verdicts, judged.comparison.background))
    for title, text in gate_alerts(lot, outcome):
        tracker.send_alert(title, text)


def record_lineage_of_lot(tracker: Tracker, lot: Lot, outcome: GateRecord) -> None:
    """Record what the lot was made from (brand set, LoRA), and itself with its calibration, certificate, packages."""
    out = lot.out
    if lot.record:
        record_brand_set_and_lora(tracker, lot.record)
    digests = {
        "verdicts": outcome.verdicts_sha256,
        "scores": outcome.scores,
        "policy": outcome.policy.sha256,
    }
    paths = [out / name for name in ("verdicts.jsonl", "gate.json", "scores.parquet", "junit.xml", "summary.md")]
    tracker.log_artifact(f"batch-{out.name}", "batch", [lot.images, *filter(Path.exists, paths)], digests)
    for kind, path in (("calibration", out / CALIBRATION), ("certificate", out / CERTIFICATE)):
        if path.exists():
            tracker.log_artifact(f"{kind}-{out.name}", kind, [path], {"sha256": files.sha256_of_file(path)})
    for row in files.read_jsonl(out / lineage.LEDGER, *lineage.ROW):
        package = [out / path for path in row["paths"]]
        if row["type"] == "package" and all(path.exists() for path in package):
            tracker.log_artifact(row["artifact"], "package", package, {"sha256": row["sha256"]})


def record_brand_set_and_lora(tracker: Tracker, record: BatchRecord) -> None:
    """Record the brand set and the LoRA that a planned batch was drawn with."""
    facts, words = record.facts, record.words
    if facts.brand and words.brand:
        folder = brandset.brand_folder(words.brand)
        name = brandset.read_brand_file(folder).name
        tracker.record_input_artifact(f"brand-{name}", "brand-set", [folder], {"sha256": facts.brand})
    for lora in sorted((files.RUNS / words.run / "lora").glob("*.safetensors")) if words.run else ():
        if files.sha256_of_file(lora) == facts.lora:
            tracker.record_input_artifact(f"lora-{lora.stem}", "lora", [lora.parent], {"sha256": facts.lora})


def gate_metrics(lot: Lot, outcome: GateRecord, price: float | None = None) -> dict[str, float]:
    """The numbers that W&B plots over the gates of a batch, by name. `price` is that of an hour, in money."""
    counts = outcome.counts
    found = {f"gate/{verdict}": getattr(counts, verdict) / counts.judged for verdict in VERDICTS}
    for kind in ("reject", "review", "error", "warn"):
        found |= {f"reasons/{check}": float(count) for check, count in outcome.why[kind].items()}
    found |= {f"batch/{rule.measure}": rule.value for rule in outcome.batch if rule.value is not None}
    if slots := outcome.slots:
        found["gate/yield"] = slots.accepted / slots.wanted
    if outcome.promise.bound is not None:
        found["promise/bound"], found["promise/labels"] = outcome.promise.bound, float(outcome.promise.labels)
    if counts.accept and (seconds := read_compute_seconds_by_stage(lot.out)):
        found["cost/seconds_per_accepted"] = sum(seconds.values()) / counts.accept
        cost = cost_per_accepted(seconds, counts.accept, price)
        found |= {f"cost/{stage}_seconds_per_accepted": spent for stage, spent in cost.seconds_per_accepted.items()}
        if price is not None:
            found["cost/money_per_accepted"] = sum(cost.money_per_accepted.values())
    return found


def log_score_histograms_to_tracker(tracker: Tracker, scores: LotScores) -> None:
    """Log the distribution of each score over the pictures, and over the references."""
    for name in SCORES:
        for title, values in (
            ("scores", scores.computed_values_of_score(name)),
            ("references", scores.references.get(name, NO_VALUES)),
        ):
            if len(values):
                tracker.log_histogram(f"{title}/{name}", values.tolist())


def verdict_table_rows(lot: Lot, verdicts: Sequence[Verdict], background: str) -> list[list[Any]]:
    """Rows of the table of verdicts: file, picture as it was judged, verdict, reasons, margin, prompt.

    Files that are no pictures, or have changed since, are left out.
    """
    paths, rows = dict(lot.files), []
    for verdict in worst_borderline_and_random_verdicts(verdicts):
        picture = small_judged_picture(paths[verdict.file], verdict.sha256, background)
        if picture is None:
            continue
        slot = (lot.slots or {}).get(verdict.file)
        reasons = ", ".join(reason.check for reason in verdict.reasons)
        prompt = slot.prompt if slot else ""
        rows.append([verdict.file, picture, verdict.verdict, reasons, verdict.margin, prompt])
    return rows


def worst_borderline_and_random_verdicts(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """At most MAX_ROWS verdicts without the errors: a third the worst, a third nearest to a limit, others at random."""
    judged = [verdict for verdict in verdicts if verdict.verdict != "error"]
    by_margin = sorted(judged, key=lambda v: (v.margin if v.margin is not None else 0.0, v.file))
    borderline = sorted(by_margin, key=lambda v: abs(v.margin or 0.0))
    chosen = {v.file: v for v in [*by_margin[: MAX_ROWS // 3], *borderline[: MAX_ROWS // 3]]}
    for i in np.random.default_rng(0).permutation(len(judged)):
        if len(chosen) >= MAX_ROWS:
            break
        chosen.setdefault(judged[i].file, judged[i])
    return list(chosen.values())


def gate_alerts(lot: Lot, outcome: GateRecord) -> list[tuple[str, str]]:
    """(title, text) of each alert: a stale or unproven promise, broken rules of the lot, a lower acceptance rate."""
    name, promise = lot.out.name, outcome.promise
    found = []
    if promise.state in ("stale", "insufficient"):
        found.append((f"{name}: promise {promise.state}", promise.says))
    found += [(f"{name}: {rule.measure}", rule.says) for rule in outcome.batch if rule.state != "pass"]
    rate, others = acceptance_rate(outcome), acceptance_rates_of_similar_lots(lot.out, outcome)
    if others and rate < median(others) - DROP:
        text = (
            f"{rate:.0%} accepted; the median of {len(others)} other lots with the same policy and references is "
            f"{median(others):.0%}"
        )
        found.append((f"{name}: fewer accepted", text))
    return found


def acceptance_rate(outcome: GateRecord) -> float:
    """Share of the judged pictures that were accepted, from the content of gate.json."""
    return outcome.counts.accept / outcome.counts.judged


def acceptance_rates_of_similar_lots(out: Path, outcome: GateRecord) -> list[float]:
    """Acceptance rates of the other lots in data/batches/ that were judged by the same policy and references."""
    rates = []
    for path in sorted(files.BATCHES.glob("*/gate.json")):
        try:
            other = GateRecord.read_json_file(path, "the gate's record")
            same = other.policy == outcome.policy and other.references == outcome.references
            if same and path.parent != out:
                rates.append(acceptance_rate(other))
        except (DataError, ZeroDivisionError):
            continue  # a file of another version or a torn one says nothing
    return rates
