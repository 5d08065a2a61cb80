"""The gate: accept, review or reject each picture by a policy; what cannot be judged is an error, never a pass.

    stylegate gate images=DIR references=DIR        any folder; exit 0 pass, 10 rejected, 11 review
    stylegate gate brand=neon traits=collectible    the batch of these words
    stylegate gate explain=true policy=default      print the policy and its hash
    stylegate gate images=DIR observe=true          verdicts, but exit 0; export refuses them

Reads scores.parquet (makes it if it is missing or of other pictures), writes verdicts.jsonl, gate.json and report/.
in = accept + review + reject + error, always. With scores at hand it needs no torch and encodes nothing.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from eval import policy as policies
from eval.batch.place import split_name
from eval.policy import VERDICTS, Bounds, Policy
from eval.scorers import SCORES
from eval.subject import Comparison, Subject, comparison_of, scores_at_hand, scores_key, subject_of
from stylegate import files
from stylegate.config import Config
from stylegate.errors import DataError, Exit, after_verdict

OUTSIDE = "encoder-out-of-domain"
TOO_FEW = "too-few-references"
REAL_CLIP = (
    "the default encoder knows 64-pixel collectibles only; for other art give encoder=ViT-L-14-quickgelu:openai "
    "(a real CLIP) and base=<a real Stable Diffusion, hub id or folder>"
)


def gate(config: Config) -> int:
    """Judge, write, report; the exit code is the verdict on the whole."""
    if config.explain:
        print("\n".join(explained(policies.read(config.policy))))
        return 0
    subject = subject_of(config)
    with files.only_one(subject.out):
        outcome = judge(config, subject)
        with after_verdict(outcome["exit_code"]):
            from eval.report import write_report

            page = write_report(subject, config)
    for line in outcome["summary"]:
        print(line)
    for line in outcome["left_out"] + outcome["notes"]:
        print(f"note: {line}")
    for verdict, causes in outcome["why"].items():
        if causes:
            print(f"{verdict}, by reason: {', '.join(f'{check} {count}' for check, count in causes.items())}")
    if slots := outcome.get("slots"):
        print(f"slots: {slots['accepted']} have an accepted picture, {slots['wanted']} are wanted")
    counts = outcome["counts"]
    total = " + ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS)
    print(f"gate: {counts['in']} in = {total}   report: {files.shown(page)}")
    print(files.shown(subject.out))
    return Exit.PASS if config.observe else outcome["exit_code"]


def judge(config: Config, subject: Subject, compared: Comparison | None = None, quiet: bool = False) -> dict[str, Any]:
    """Score if needed, decide each picture, write verdicts.jsonl and gate.json; returns gate.json's content.

    `compared` is what the pictures are held against, by default what the config names; `quiet` shows no progress.
    """
    policy = policies.read(config.policy)
    compared = compared or comparison_of(config, subject)
    key = scores_key(config, subject, compared)
    if not scores_at_hand(subject, key):
        from eval.score import compute  # torch: only where something is to be encoded

        compute(config, subject, compared, key, quiet)
    rows, references, record = read_scores(subject.out)
    columns = {name for name in (rows[0] if rows else {}) if name in SCORES}
    bounds, left_out, lacking = policies.resolve(
        policy, columns, references, record["references"]["given"], record["foreign"], record["copies"]
    )
    verdicts = [verdict_of(row, bounds, policy, lacking) for row in rows]
    counts = Counter(v["verdict"] for v in verdicts)
    given = [(name, subject.sha256[name]) for name, _ in subject.named]
    assert given == [(v["file"], v["sha256"]) for v in verdicts], "in = accept + review + reject + error"

    notes = list(record["notes"])
    if any(r["check"] == OUTSIDE for v in verdicts for r in v["reasons"]):
        notes.append(REAL_CLIP)
    outcome: dict[str, Any] = {
        "policy": {"name": policy.name, "sha256": policy.sha256, "max_failed_share": policy.max_failed_share},
        "observe": config.observe,
        "counts": {"in": len(verdicts)} | {v: counts[v] for v in VERDICTS},
        "thresholds": {b.score: {"reject_below": b.reject_below, "review_below": b.review_below} for b in bounds},
        "left_out": left_out,
        "summary": record["summary"],
        "notes": notes,
        "scores": record["key"],
        "encoder": record["encoder"],
        "encoder_sha256": record["encoder_sha256"],
        "references": record["references"],
        "images": str(subject.images),
    }
    outcome["why"] = {kind: reasons_of(verdicts, kind) for kind in ("reject", "review", "error")}
    if subject.slots:
        outcome["slots"] = {"wanted": subject.record["wanted"], "accepted": len(slots_of(verdicts, "accept"))}
    outcome["exit_code"] = planned_exit(subject, verdicts) if subject.slots else folder_exit(verdicts, policy)
    files.write_jsonl(subject.out / "verdicts.jsonl", verdicts)
    outcome["verdicts_sha256"] = files.sha256(subject.out / "verdicts.jsonl")
    files.write_json(subject.out / "gate.json", outcome)
    return outcome


def decide(scores: Mapping[str, float | None], bounds: Iterable[Bounds]) -> tuple[str, list[dict[str, Any]]]:
    """Verdict and reasons of one picture by its scores. A score that is missing or NaN makes it an error."""
    outside = scores.get("in_domain") == 0
    found: list[tuple[str, dict[str, Any]]] = []
    for bound in bounds:
        if outside and (bound.relative or SCORES[bound.score].kind == "encoder"):
            continue  # the encoder's view, and a comparison with references of another world, mean nothing
        score = scores.get(bound.score)
        for verdict, threshold in (("reject", bound.reject_below), ("review", bound.review_below)):
            if threshold is None:
                continue
            if score is None or not math.isfinite(score):
                found.append(("error", {"check": bound.score, "score": None, "threshold": threshold}))
                break
            if score < threshold:
                found.append((verdict, {"check": bound.score, "score": score, "threshold": threshold}))
                break
    if outside:
        found.append(("review", {"check": OUTSIDE, "score": 0.0, "threshold": 1.0}))
    worst = next((v for v in ("error", "reject", "review") if any(v == kind for kind, _ in found)), "accept")
    order = ("error", "reject", "review")
    return worst, [reason for _, reason in sorted(found, key=lambda item: order.index(item[0]))]


def verdict_of(row: dict[str, Any], bounds: list[Bounds], policy: Policy, lacking: list[str]) -> dict[str, Any]:
    """The line of verdicts.jsonl. Checks that lack references leave a picture at most to a person."""
    if row["error"] is not None or not row["sha256"]:
        reasons = [{"check": "decode", "score": None, "threshold": None, "detail": row["error"] or "cannot be read"}]
        verdict = "error"
    else:
        verdict, reasons = decide(row, bounds)
        if lacking and verdict in ("accept", "review"):
            verdict, detail = "review", f"{', '.join(lacking)} cannot be judged"
            reasons.append({"check": TOO_FEW, "score": None, "threshold": None, "detail": detail})
    return {
        "file": row["file"],
        "sha256": row["sha256"],
        "verdict": verdict,
        "reasons": reasons,
        "policy_sha256": policy.sha256,
    }


def folder_exit(verdicts: list[dict], policy: Policy) -> int:
    """10 if too large a share failed, 11 if any stands in review, else 0."""
    failed = sum(v["verdict"] in ("reject", "error") for v in verdicts)
    if failed > policy.max_failed_share * len(verdicts):
        return Exit.REJECTED
    return Exit.REVIEW if any(v["verdict"] == "review" for v in verdicts) else Exit.PASS


def planned_exit(subject: Subject, verdicts: list[dict]) -> int:
    """0 once the wanted number of slots has an accepted picture, 11 if review could still fill it, else 10."""
    accepted, reviewed = slots_of(verdicts, "accept"), slots_of(verdicts, "review")
    missing = subject.record["wanted"] - len(accepted)
    if missing <= 0:
        return Exit.PASS
    return Exit.REVIEW if len(reviewed - accepted) >= missing else Exit.REJECTED


def slots_of(verdicts: list[dict], kind: str) -> set[int]:
    """Slots of a batch that have a picture with this verdict."""
    return {split_name(v["file"])[1] for v in verdicts if v["verdict"] == kind}


def reasons_of(verdicts: list[dict], kind: str) -> dict[str, int]:
    """How many pictures of one verdict each check speaks of, most first."""
    counts = Counter(r["check"] for v in verdicts if v["verdict"] == kind for r in v["reasons"])
    return dict(counts.most_common())


def read_scores(out: Path) -> tuple[list[dict[str, Any]], dict[str, np.ndarray], dict[str, Any]]:
    """Rows of scores.parquet, the references' scores by column (nulls left out), score.json."""
    try:
        rows = pq.read_table(out / "scores.parquet").to_pylist()
        table = pq.read_table(out / "references.parquet")
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"the scores in {files.shown(out)} cannot be read: {error}", next_step="remove them.") from None
    own = {name: table[name].drop_null().to_numpy() for name in table.column_names}
    return (
        rows,
        own,
        files.read_json(
            out / "score.json", "the scores' record", "key", "references", "foreign", "copies", "summary", "notes"
        ),
    )


def explained(policy: Policy) -> list[str]:
    """The effective policy, for people."""
    lines = [f"policy {policy.name}", f"sha256 {policy.sha256}", f"max_failed_share {policy.max_failed_share:g}"]
    for check in policy.checks:
        lines.append(f"{check.score}: {SCORES[check.score].does}")
        for verdict, threshold in (("reject", check.reject_below), ("review", check.review_below)):
            if threshold:
                lines.append(f"    {verdict} below {in_words(threshold)}")
    return lines


def in_words(threshold: policies.Threshold) -> str:
    alone = f" ({threshold.alone:g} without references)" if threshold.alone is not None else ""
    if threshold.number is not None:
        return f"{threshold.number:g}"
    floor = f", at least the {threshold.foreign:.0%} quantile of foreign pictures" if threshold.foreign else ""
    if threshold.copies is not None:
        return f"the {threshold.copies:.0%} quantile of altered copies of the references{alone}"
    if threshold.quantile is not None:
        return f"the references' {threshold.quantile:.0%} quantile{floor}{alone}"
    return f"the references' median {threshold.spreads:+g} spreads{floor}{alone}"
