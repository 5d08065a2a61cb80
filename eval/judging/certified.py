"""What the audit of a lot and its certificate mean for verdicts."""

from pathlib import Path

from eval.judging.record import PromiseState
from eval.judging.verdicts import Verdict, add, lot_of, reason
from eval.policy.model import Promise
from eval.promise import labels
from eval.promise.certificate import CERTIFICATE, goes_out, read_certificate
from stylegate import files
from stylegate.errors import DataError

FOUND, BEYOND = "audit", "outside-certificate"  # checks of the reasons that are given here


def standing_lot(verdicts: list[Verdict]) -> list[str]:
    """The lot before audit and certificate have their say. Raises DataError for none, and for one picture twice."""
    lot = lot_of(verdicts)
    if not lot:
        raise DataError("no picture is accepted: there is no lot to certify", next_step="stylegate gate says why.")
    if len(set(lot)) < len(lot):
        raise DataError(
            f"{len(lot) - len(set(lot))} accepted pictures are copies, byte for byte: a lot holds each picture once",
            next_step="give the policy a `distinct` check, or remove the copies.",
        )
    return lot


def apply(out: Path, verdicts: list[Verdict], promise: Promise) -> tuple[PromiseState, list[str]]:
    """What audit and certificate mean for the verdicts, in place: rejects that were found, pictures beyond the proof.

    Returns what is known: state "certified" with its bound, else "none", and what is to be said.
    """
    lot = lot_of(verdicts)
    bad = {label.sha256: label for label in labels.read(out, "audit") if label.bad}
    path = out / CERTIFICATE
    found = read_certificate(path) if path.exists() else None
    going = [verdict for verdict in verdicts if verdict.verdict == "accept"]
    for verdict in going:
        if label := bad.get(verdict.sha256):
            add(verdict, reason(FOUND, "reject", detail=label.words()))
    if found is None:
        return PromiseState(state="none", says=promise.says()), []
    note = ""
    if found["lot"]["sha256"] != files.digest(lot):
        note = f"{CERTIFICATE} is of another lot ({found['lot']['size']} pictures): it says nothing of this one"
    elif found["promise"]["alpha"] > promise.alpha or found["promise"]["delta"] > promise.delta:
        note = f"{CERTIFICATE} promises less than the policy asks: {found['says']}"
    if note:
        return PromiseState(state="none", says=promise.says()), [note]
    leaving = set(goes_out(found))
    for verdict in going:
        if verdict.sha256 not in leaving and verdict.sha256 not in bad:
            add(verdict, reason(BEYOND, "review", detail="outside what was certified, whatever is decided"))
    attempt = found["attempts"][found["proven"]]
    proof = PromiseState(
        state="certified",
        says=found["says"],
        labels=attempt["labels"],
        bound=attempt["bound"],
        certificate_sha256=found["sha256"],
    )
    return proof, []
