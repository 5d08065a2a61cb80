"""What the audit of a lot and its certificate mean for verdicts."""

from pathlib import Path

from eval.judging.record import NOT_ASKED_FOR, PromiseState
from eval.judging.verdicts import Verdict, add_reason, exportable_digests, make_reason
from eval.policy.model import Policy
from eval.promise import labels
from eval.promise.auditplan import AuditPlan, audit_plan_of_lot
from eval.promise.certificate import CERTIFICATE, Certificate, certified_digests, read_certificate
from eval.promise.ranked import choose_audit_design
from stylegate import files
from stylegate.errors import DataError
from stylegate.words import counted

FOUND, BEYOND = "audit", "outside-certificate"  # checks of the reasons that are given here


def certifiable_digests(verdicts: list[Verdict], is_planned_batch: bool) -> list[str]:
    """The sha256 of every picture that may be exported, before labels of an audit or a certificate are applied.

    Raises DataError if there is none, and if two of the pictures are the same bytes.
    """
    lot = exportable_digests(verdicts, is_planned_batch)
    if not lot:
        raise DataError("no picture is accepted: there is no lot to certify", next_step="stylegate gate says why.")
    if len(set(lot)) < len(lot):
        raise DataError(
            f"{len(lot) - len(set(lot))} accepted pictures are copies, byte for byte: a lot holds each picture once",
            next_step="give the policy a `distinct` check, or remove the copies.",
        )
    return lot


def audit_plan_and_why_this_order(
    out: Path, verdicts: list[Verdict], policy: Policy, is_planned_batch: bool, trusts_reviewers: bool = False
) -> tuple[AuditPlan, str]:
    """The plan of the audit of what may be exported, and in words why it asks in this order. Nothing is written.

    An audit that was begun goes on as it was planned. For a new one the margins of the lot and the earlier labels of
    its folder (of calibrations and audits under this policy: random samples) settle whether the ranking is used.
    `trusts_reviewers` asks for an audit without known rejects.
    """
    lot = certifiable_digests(verdicts, is_planned_batch)
    margins = {verdict.sha256: verdict.margin for verdict in verdicts}
    known = [
        (margin, label.is_reject)
        for purpose in ("calibrate", "audit")
        for label in labels.read_stored_labels(out, purpose)
        if label.is_neither_withdrawn_nor_reviewer_test
        and label.policy_sha256 == policy.sha256
        and (margin := margins.get(label.sha256)) is not None
    ]
    design, why = choose_audit_design([margins[sha256] for sha256 in lot], known)
    plan = audit_plan_of_lot(out, lot, policy, design, trusts_reviewers)
    return plan, why if plan.design == design else "as it was settled when this audit began"


def apply_audit_labels_and_certificate(
    out: Path, verdicts: list[Verdict], policy: Policy, is_planned_batch: bool
) -> tuple[PromiseState, list[str]]:
    """Change the verdicts in place by the labels of the audit and by the certificate in the folder `out`.

    An accepted picture that was labelled a reject becomes a reject; an accepted picture outside the certified lot goes
    to review. Labels and certificate count only under the policy under which they were given. Returns the state of the
    promise ("certified" with its bound, else "none", with words that say whether anybody asked for a proof) and a list
    of notes.
    """
    notes = labels.notes_on_labels_of_other_policies(out, "audit", policy)
    given = labels.valid_labels_by_sha256(out, "audit", policy)
    bad = {sha256: label for sha256, label in given.items() if label.is_reject}
    path = out / CERTIFICATE
    found = read_certificate(path) if path.exists() else None
    lot = exportable_digests(verdicts, is_planned_batch) if found else []  # before the reasons that are added below
    accepted = [verdict for verdict in verdicts if verdict.verdict == "accept"]
    for verdict in accepted:
        if label := bad.get(verdict.sha256):
            add_reason(verdict, make_reason(FOUND, "reject", detail=label.reviewer_and_reason_in_words()))
    if found is None:
        so_far = f"asked for, and not proven by the {counted(len(given), 'label')} of the audit so far"
        return PromiseState(state="none", says=so_far if given else NOT_ASKED_FOR), notes
    if why := certificate_mismatch_reason(found, lot, policy):
        says = f"asked for, and not proven: {CERTIFICATE} does not prove it for these pictures and this policy"
        return PromiseState(state="none", says=says), [*notes, why]
    leaving = set(certified_digests(found))
    for verdict in accepted:
        if verdict.sha256 not in leaving and verdict.sha256 not in bad:
            add_reason(verdict, make_reason(BEYOND, "review", detail="outside what was certified, whatever is decided"))
    return certified_promise_state(found), notes


def certified_promise_state(found: Certificate) -> PromiseState:
    """The state of a promise that this certificate proves."""
    attempt = found.proven_attempt()
    return PromiseState(
        state="certified",
        says=found.proven_claim_in_words(),
        labels=attempt.labels,
        size=attempt.size,
        bound=attempt.bound,
        certificate_sha256=found.sha256,
    )


def certificate_mismatch_reason(found: Certificate, lot: list[str], policy: Policy) -> str:
    """A sentence that says why a verified certificate does not apply to this lot under this policy; "" if it applies.

    The policy, the lot and the promise are compared; the proof itself was verified when the certificate was read
    (`read_certificate`). `lot` holds the sha256 of the pictures that may be exported.
    """
    if found.policy.sha256 != policy.sha256:
        return f"{CERTIFICATE} is of another policy or guideline ({found.policy.name}): it says nothing under this one"
    if found.lot.sha256 != files.canonical_sha256(lot):
        return f"{CERTIFICATE} is of another lot ({found.lot.size} pictures): it says nothing of this one"
    if found.promise.alpha > policy.promise.alpha or found.promise.delta > policy.promise.delta:
        return f"{CERTIFICATE} promises less than the policy asks: {found.says}"
    return ""
