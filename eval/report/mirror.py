"""What W&B shows of a gate: rates, reasons, scores against references, the promise, pictures and verdicts; alerts.

It is handed what was judged; the tracker can never hurt (stylegate/tracker.py).
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from eval.judging.judged import Judged
from eval.lot.cost import cost_of
from eval.lot.subject import Subject
from eval.measuring.scores import Scores
from eval.policy.model import VERDICTS
from eval.promise.calibration import CALIBRATION
from eval.promise.certificate import CERTIFICATE
from eval.scorers import SCORES
from stylegate import brandset, files, lineage, pictures
from stylegate.config import Config, as_dict
from stylegate.errors import DataError
from stylegate.tracker import Tracker, tracker_of

ROWS = 500  # W&B's tables grow slow beyond a few hundred pictures
NOTHING: dict[str, float] = {}
NONE = np.zeros(0)
DROP = 0.1  # of the acceptance rate, against the median of earlier lots by the same policy and references


def mirror(config: Config, judged: Judged, beside: Mapping[str, float] = NOTHING) -> None:
    """Everything of this gate, once; `beside` are figures of the experiment around it. No error leaves it."""
    try:
        tracker = tracker_of(config.tracker, judged.lot.out, "gate", as_dict(config))
        if config.tracker.name != "none":
            show(tracker, judged, beside)
        chain(tracker, judged.lot, judged.outcome)
        tracker.finish()
    except Exception as error:
        print(
            f"note: what mirrors the gate failed ({type(error).__name__}: {error}); the verdicts stand", file=sys.stderr
        )


def show(tracker: Tracker, judged: Judged, beside: Mapping[str, float]) -> None:
    """The dashboards: figures, promise, histograms, pictures with their verdicts, alerts."""
    lot, outcome = judged.lot, judged.outcome
    tracker.log({k: v for k, v in (figures(lot, outcome) | dict(beside)).items() if np.isfinite(v)})
    tracker.summary({"promise/state": outcome["promise"]["state"], "promise/says": outcome["promise"]["says"]})
    histograms(tracker, judged.scores)
    columns = ["file", "picture", "verdict", "reasons", "margin", "prompt"]
    tracker.table("gate/verdicts", columns, rows(lot, judged.verdicts, judged.comparison.background))
    for title, text in alerts(lot, outcome):
        tracker.alert(title, text)


def chain(tracker: Tracker, subject: Subject, outcome: dict[str, Any]) -> None:
    """Brand set and LoRA that the lot was made from; the lot; its calibration and certificate."""
    facts, words, out = subject.record.get("facts", {}), subject.record.get("words", {}), subject.out
    if facts.get("brand"):
        folder = brandset.locate(words["brand"])
        name = brandset.brand_of(folder).name
        tracker.use(f"brand-{name}", "brand-set", [folder], {"sha256": facts["brand"]})
    for lora in sorted((files.RUNS / (words.get("run") or "none") / "lora").glob("*.safetensors")):
        if files.sha256(lora) == facts.get("lora"):
            tracker.use(f"lora-{lora.stem}", "lora", [lora.parent], {"sha256": facts["lora"]})
    judged = {
        "verdicts": outcome["verdicts_sha256"],
        "scores": outcome["scores"],
        "policy": outcome["policy"]["sha256"],
    }
    places = [out / name for name in ("verdicts.jsonl", "gate.json", "scores.parquet", "junit.xml", "summary.md")]
    tracker.artifact(f"batch-{out.name}", "batch", [subject.images, *filter(Path.exists, places)], judged)
    for kind, path in (("calibration", out / CALIBRATION), ("certificate", out / CERTIFICATE)):
        if path.exists():
            tracker.artifact(f"{kind}-{out.name}", kind, [path], {"sha256": files.sha256(path)})
    for row in files.read_jsonl(out / lineage.LEDGER, *lineage.ROW):
        package = [out / path for path in row["paths"]]
        if row["type"] == "package" and all(path.exists() for path in package):
            tracker.artifact(row["artifact"], "package", package, {"sha256": row["sha256"]})


def figures(subject: Subject, outcome: dict[str, Any]) -> dict[str, float]:
    """Numbers that W&B plots over the gates of a batch."""
    counts = outcome["counts"]
    found = {f"gate/{verdict}": counts[verdict] / counts["in"] for verdict in VERDICTS}
    for kind in ("reject", "review", "error", "warn"):
        found |= {f"reasons/{check}": float(count) for check, count in outcome["why"][kind].items()}
    found |= {f"batch/{rule['measure']}": rule["value"] for rule in outcome["batch"] if rule["value"] is not None}
    if slots := outcome.get("slots"):
        found["gate/yield"] = slots["accepted"] / slots["wanted"]
    if "bound" in outcome["promise"]:
        found["promise/bound"], found["promise/labels"] = outcome["promise"]["bound"], outcome["promise"]["labels"]
    if counts["accept"] and (seconds := cost_of(subject.out)):
        found["cost/seconds_per_accepted"] = sum(seconds.values()) / counts["accept"]
    return found


def histograms(tracker: Tracker, scores: Scores) -> None:
    """Each score's, and the references' own beside it."""
    for name in SCORES:
        for title, values in (("scores", scores.column(name)), ("references", scores.references.get(name, NONE))):
            if len(values):
                tracker.histogram(f"{title}/{name}", values.tolist())


def rows(subject: Subject, verdicts: list[dict], background: str) -> list[list[Any]]:
    """At most ROWS, each with the picture as it was judged, transparency laid on `background`.

    A third the worst, a third nearest to a line on either side, the rest at random; no errors.
    """
    known = [v for v in verdicts if v["verdict"] != "error"]
    by_margin = sorted(known, key=lambda v: (v["margin"] if v["margin"] is not None else 0.0, v["file"]))
    borderline = sorted(by_margin, key=lambda v: abs(v["margin"] or 0.0))
    chosen = {v["file"]: v for v in [*by_margin[: ROWS // 3], *borderline[: ROWS // 3]]}
    for i in np.random.default_rng(0).permutation(len(known)):
        if len(chosen) >= ROWS:
            break
        chosen.setdefault(known[i]["file"], known[i])
    paths, found = dict(subject.named), []
    for verdict in chosen.values():
        slot = (subject.slots or {}).get(verdict["file"])
        why = ", ".join(reason["check"] for reason in verdict["reasons"])
        picture = pictures.decode(pictures.read(paths[verdict["file"]]), background).image  # as it was judged
        found.append(
            [verdict["file"], picture, verdict["verdict"], why, verdict["margin"], slot.prompt if slot else ""]
        )
    return found


def alerts(subject: Subject, outcome: dict[str, Any]) -> list[tuple[str, str]]:
    """What somebody should hear of: a stale calibration, a promise that is not proven, broken rules, fewer accepted."""
    name, promise = subject.out.name, outcome["promise"]
    found = []
    if promise["state"] in ("stale", "insufficient"):
        found.append((f"{name}: promise {promise['state']}", promise["says"]))
    found += [(f"{name}: {rule['measure']}", rule["says"]) for rule in outcome["batch"] if rule["state"] != "pass"]
    rate, before = acceptance(outcome), earlier_rates(subject.out, outcome)
    if before and rate < median(before) - DROP:
        text = f"{rate:.0%} accepted; {len(before)} other lots by the same policy and references: {median(before):.0%}"
        found.append((f"{name}: fewer accepted", text))
    return found


def acceptance(outcome: dict[str, Any]) -> float:
    return outcome["counts"]["accept"] / outcome["counts"]["in"]


def earlier_rates(out: Path, outcome: dict[str, Any]) -> list[float]:
    """Acceptance rates of the other lots in data/batches/ that were judged by the same policy and references."""
    rates = []
    for path in sorted(files.BATCHES.glob("*/gate.json")):
        try:
            other = files.read_json(path, "the gate's record", "counts", "policy", "references")
            same = other["policy"] == outcome["policy"] and other["references"] == outcome["references"]
            if same and path.parent != out:
                rates.append(acceptance(other))
        except (DataError, KeyError, TypeError, ZeroDivisionError):
            continue  # of another version, or torn: it says nothing
    return rates
