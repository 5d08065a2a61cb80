"""The gate: accept, review or reject each picture by a policy; what cannot be judged is an error, never a pass.

    stylegate gate images=DIR references=DIR        any folder; exit 0 pass, 10 rejected, 11 review
    stylegate gate brand=neon traits=collectible    the batch of these words
    stylegate gate images=DIR decisions=FILE.csv    settles what is in review
    stylegate gate explain=true policy=default      print the policy and its hash
    stylegate gate images=DIR observe=true          verdicts, but exit 0; export refuses them

Reads scores.parquet (makes it if it is missing or of other pictures), writes verdicts.jsonl, gate.json, junit.xml,
summary.md and report/. In this order: scores, waivers, the calibrated line, people's decisions, the audit of the lot,
rules for the batch. in = accept + review + reject + error, always. With scores at hand it needs no torch and encodes
nothing.
"""

import datetime
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from eval import policy as policies
from eval import policyfile
from eval.batch.place import existing
from eval.lot import exit_of, fails_batch, measured, rules_broken
from eval.policy import MARGIN, OUTSIDE, TOO_FEW, VERDICTS, Policy
from eval.promise import calibrate, certify, labels
from eval.scorers import SCORES
from eval.subject import Comparison, Subject, comparison_of, scores_at_hand, scores_key, subject_of
from eval.verdicts import decide, hold, reasons_of, settle, slots_of, verdict_of, waive
from stylegate import files
from stylegate.config import Config
from stylegate.errors import DataError, Exit, after_verdict

__all__ = ["OUTSIDE", "TOO_FEW", "decide", "gate", "judge"]
NAMED = 5  # pictures that the console names; the report shows all
REAL_CLIP = (
    "the default encoder knows 64-pixel collectibles only; for other art give encoder=ViT-L-14-quickgelu:openai "
    "(a real CLIP) and base=<a real Stable Diffusion, hub id or folder>"
)


def gate(config: Config, alone: bool = True) -> int:
    """Judge, write, report; the exit code is the verdict on the whole. Not `alone`, an experiment mirrors it itself."""
    if config.explain:
        print("\n".join(policies.explained(policyfile.read(config.policy))))
        return Exit.PASS
    subject = subject_of(config)
    with files.only_one(subject.out):
        if config.decisions:
            path = existing(config.decisions, "decisions")
            given = labels.read_csv(path, "review", subject.out, subject.sha256.values())
            judged(config, subject)  # what is wrong with the rest of the words is said before anything is kept
            labels.keep(subject.out, "review", given)
        outcome = judge(config, subject)
        with after_verdict(outcome["exit_code"]):
            page = write_reports(subject, config, outcome)
            if alone:
                from eval.mirror import mirror

                mirror(config, subject, outcome)
    for line in outcome["summary"]:
        print(line)
    for line in outcome["left_out"] + outcome["notes"]:
        print(f"note: {line}")
    for verdict, causes in outcome["why"].items():
        if causes:
            print(f"{verdict}, by reason: {', '.join(f'{check} {count}' for check, count in causes.items())}")
    for rule in outcome["batch"]:
        if rule["state"] != "pass":
            print(f"{rule['state']}: {rule['says']}")
    if outcome["promise"]["state"] != "none":
        print(f"promise: {outcome['promise']['state']}: {outcome['promise']['says']}")
    for line in worst_of(subject.out):
        print(f"  {line}")
    if slots := outcome.get("slots"):
        print(f"slots: {slots['accepted']} have an accepted picture, {slots['wanted']} are wanted")
    counts = outcome["counts"]
    total = " + ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS)
    print(f"gate: {counts['in']} in = {total}   report: {files.shown(page)}")
    print(files.shown(subject.out))
    return Exit.PASS if config.observe else outcome["exit_code"]


def judge(config: Config, subject: Subject, compared: Comparison | None = None, quiet: bool = False) -> dict[str, Any]:
    """Score if needed, decide each picture, write verdicts.jsonl and gate.json; returns gate.json's content.

    `compared` is what the pictures are held against, by default what the config names. `quiet` is for checkpoints in
    training: no progress is shown, and nothing is promised of them.
    """
    outcome, verdicts = judged(config, subject, compared, quiet)
    files.write_jsonl(subject.out / "verdicts.jsonl", verdicts)
    outcome["verdicts_sha256"] = files.sha256(subject.out / "verdicts.jsonl")
    outcome["evidence"] = evidence(subject.out)
    files.write_json(subject.out / "gate.json", outcome)
    return outcome


def evidence(out: Path) -> dict[str, str | None]:
    """Digests of what people said and what was proven by it: export asks whether the gate knew of all of it."""
    names = (*labels.STREAMS.values(), calibrate.CALIBRATION, certify.CERTIFICATE)
    return {name: files.sha256(out / name) if (out / name).is_file() else None for name in names}


def judged(
    config: Config, subject: Subject, compared: Comparison | None = None, quiet: bool = False, audited: bool = True
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """gate.json's content and the verdicts; without `audited`, those that an audit begins with. Writes only scores."""
    policy = policyfile.read(config.policy)
    compared = compared or comparison_of(config, subject)
    rows, record, bounds, left_out, verdicts, waived = by_policy(config, subject, compared, policy, quiet)
    given = [(name, subject.sha256[name]) for name, _ in subject.named]
    assert given == [(v["file"], v["sha256"]) for v in verdicts], "in = accept + review + reject + error"

    notes = record["notes"] + waived
    promise: dict[str, Any] = {"state": "none", "says": policy.promise.says()}
    if not quiet:
        line = None
        if config.calibration:
            calibrate.want_calibrated(policy)
        if policy.calibrated:
            pool = scores_of(verdicts, rows, policy)
            line = calibrate.line_for(config, subject, compared, policy, pool)
            hold(verdicts, policy.calibrated, line.bound, pool, line.rejects)
        decided = {label.sha256: label for label in labels.read(subject.out, "review")}
        notes += settle(verdicts, decided)
        if audited:
            promise = certify.apply(subject.out, verdicts, policy.promise)
            notes += promise.pop("notes")
        if promise["state"] == "none" and line:
            promise |= {"state": line.state, "says": line.says}
            left = sum(verdict["verdict"] == "accept" for verdict in verdicts)
            if line.state == "valid" and line.hidden > policy.promise.alpha * left + 1e-9:
                text = f"people rejected so many that the bound no longer holds for the {left} that are left"
                promise |= {"state": "insufficient", "says": text}
        elif promise["state"] == "none" and policy.promise.required:
            promise |= {"state": "insufficient", "says": f"not proven: {promise['says']}; stylegate certify"}
    if any(r["check"] == OUTSIDE for v in verdicts for r in v["reasons"]):
        notes.append(REAL_CLIP)

    counts = Counter(v["verdict"] for v in verdicts)
    rules = rules_broken(policy, measured(verdicts, record, subject))
    outcome: dict[str, Any] = {
        "policy": {"name": policy.name, "sha256": policy.sha256, "max_failed_share": policy.max_failed_share},
        "observe": config.observe,
        "counts": {"in": len(verdicts)} | {v: counts[v] for v in VERDICTS},
        "thresholds": {b.score: {"reject_below": b.reject_below, "review_below": b.review_below} for b in bounds},
        "calibrated": policy.calibrated,
        "left_out": left_out,
        "summary": record["summary"],
        "notes": notes,
        "batch": rules,
        "promise": promise,
        "scores": record["key"],
        "encoder": record["encoder"],
        "encoder_sha256": record["encoder_sha256"],
        "references": record["references"],
        "images": str(subject.images),
    }
    outcome["why"] = {kind: reasons_of(verdicts, kind) for kind in ("reject", "review", "error", "warn")}
    if subject.slots:
        outcome["slots"] = {"wanted": subject.record["wanted"], "accepted": len(slots_of(verdicts, "accept"))}
    outcome["exit_code"] = exit_of(subject, verdicts, policy, rules, promise["state"])
    outcome["fails_batch"] = fails_batch(verdicts)
    return outcome, verdicts


class ByPolicy(NamedTuple):
    """Scores held against a policy and its waivers; nobody has been asked yet."""

    rows: list[dict[str, Any]]  # of scores.parquet
    record: dict[str, Any]  # score.json
    bounds: list[policies.Bounds]
    left_out: list[str]
    verdicts: list[dict[str, Any]]
    waived: list[str]  # in words


def by_policy(config: Config, subject: Subject, compared: Comparison, policy: Policy, quiet: bool = False) -> ByPolicy:
    """Score if needed, and decide each picture by its scores alone."""
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
    return ByPolicy(rows, record, bounds, left_out, verdicts, waive(verdicts, policy.waivers, today()))


def pool_of(config: Config, subject: Subject, compared: Comparison) -> dict[str, float]:
    """The calibrated score, by sha256, of the pictures that every other check accepts."""
    policy = policyfile.read(config.policy)
    found = by_policy(config, subject, compared, policy)
    return scores_of(found.verdicts, found.rows, policy)


def scores_of(verdicts: list[dict], rows: list[dict], policy: Policy) -> dict[str, float]:
    """The same of verdicts at hand. A picture without the score is left to a person (eval/verdicts.py: hold)."""
    name = policy.calibrated
    found = {
        v["sha256"]: v["margin"] if name == MARGIN else row[name]
        for v, row in zip(verdicts, rows, strict=True)
        if v["verdict"] == "accept"
    }
    copies = sum(verdict["verdict"] == "accept" for verdict in verdicts) - len(found)
    if copies:
        raise DataError(
            f"{copies} pictures are copies of others, byte for byte: a calibrated line counts each picture once",
            next_step="give the policy a `distinct` check, or remove the copies.",
        )
    return {sha256: float(score) for sha256, score in found.items() if score is not None}


def worst_of(out: Path) -> list[str]:
    """The first few pictures that are in error or rejected, with their first reason."""
    from eval.summaries import against, shown

    held = [v for v in files.read_jsonl(out / "verdicts.jsonl") if v["verdict"] in ("error", "reject")]
    held.sort(key=lambda v: (v["verdict"], v["file"]))
    lines = [
        f"{v['verdict']}: {shown(v['file'])}: {v['reasons'][0]['check']}{against(v['reasons'][0])}"
        for v in held[:NAMED]
    ]
    return [*lines, *([f"and {len(held) - NAMED} more"] if len(held) > NAMED else [])]


def today() -> datetime.date:
    return datetime.datetime.now(datetime.UTC).date()


def write_reports(subject: Subject, config: Config, outcome: dict[str, Any]) -> Path:
    """junit.xml and summary.md for machines, report/ for people; returns its page."""
    from eval.report import write_report
    from eval.summaries import junit, markdown

    verdicts = files.read_jsonl(subject.out / "verdicts.jsonl")
    files.write(subject.out / "junit.xml", junit(subject.out.name, outcome, verdicts))
    files.write(subject.out / "summary.md", markdown(subject.out.name, outcome, verdicts))
    return write_report(subject, config)


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
