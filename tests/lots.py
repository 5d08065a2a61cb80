"""Verdicts, policies and records for tests, as the gate makes them."""

from collections.abc import Sequence
from typing import Any

from eval.judging.record import NOT_ASKED_FOR, GateRecord
from eval.judging.verdicts import ORDER, Reason, Verdict, picture_counts_by_check, worst_verdict_of_reasons
from eval.lot.record import BatchConfigValues, BatchFacts, BatchRecord, DrawingSettings, ModelFamilyFacts, PlanFacts
from eval.policy.model import VERDICTS, Policy, PolicyCheck, Threshold

SHA256 = "a" * 64


def verdict(*reasons: Reason, kind: str | None = None, margin: float | None = 1.0, **more: Any) -> Verdict:
    """The verdict that the reasons lead to, or of that kind."""
    named = {"file": f"{more.get('sha256', SHA256)[:4]}.png", "sha256": SHA256, "policy_sha256": ""} | more
    return Verdict(**named, verdict=kind or worst_verdict_of_reasons(reasons), reasons=list(reasons), margin=margin)  # type: ignore[arg-type]


def gate_record(verdicts: Sequence[Verdict] = (), **parts: Any) -> GateRecord:
    """The record of a gate on these verdicts, with the parts that are given in place of the plain ones."""
    counts = {name: sum(found.verdict == name for found in verdicts) for name in VERDICTS}
    plain = {
        "policy": {"name": "default", "sha256": "f" * 64, "max_failed_share": 0.0},
        "observe": False,
        "counts": {"in": len(verdicts)} | counts,
        "thresholds": {},
        "calibrated": None,
        "left_out": [],
        "summary": [],
        "notes": [],
        "batch": [],
        "promise": {"state": "none", "says": NOT_ASKED_FOR},
        "scores": "",
        "encoder": "miniature",
        "encoder_sha256": "",
        "references": {"from": "", "given": 0, "count": 0, "sha256": ""},
        "images": "",
        "why": {kind: picture_counts_by_check(list(verdicts), kind) for kind in ORDER},
        "exit_code": 0,
        "fails_batch": False,
        "verdicts_sha256": "",
        "evidence": {},
        "brand": "",
    }
    return GateRecord.model_validate(plain | parts)


def batch_record(wanted: int) -> BatchRecord:
    """The record of a batch without a brand, of which so many slots are wanted."""
    facts = BatchFacts(
        brand=None,
        base="",
        lora=None,
        family=ModelFamilyFacts(name="sd", resolution=None),
        plan=PlanFacts(exclude_training=True, seed=0, traits=None),
        generate=DrawingSettings(num_inference_steps=20, guidance_scale=3.0, batch_size=16),
    )
    return BatchRecord(facts=facts, words=BatchConfigValues(brand=None, base="miniature", run=None), wanted=wanted)


def policy(share: float = 0.0, **more: Any) -> Policy:
    """A policy with one check, that passes a folder with that share of rejects and errors."""
    given = {
        "name": "p",
        "sha256": "",
        "checks": {"contrast": PolicyCheck(reject_below=Threshold.model_validate(6))},
    } | more
    return Policy(version=1, max_failed_share=share, **given)


def forget_what_was_learned() -> None:
    """As a process begins that has judged nothing yet (eval/measuring/remembered.py)."""
    from eval.measuring import foreign  # torch: most who make verdicts here have no use for it
    from eval.scorers import brand, coherence, duplicates

    of_foreign = (foreign._SETS, foreign._PICTURES)
    for remembered in (*of_foreign, brand._LEARNED, coherence._LEARNED, duplicates._APART, duplicates._TO_COPIES):
        remembered.by_digest.clear()
