"""certificate.json: the audit of a lot, written so that anyone can compute the proof again."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eval.policy.model import Promise
from eval.promise import audit, labels
from eval.promise.labels import Label, up_to_a_gap
from stylegate import files
from stylegate.errors import DataError

VERSION = 1
CERTIFICATE = "certificate.json"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is settled before the first label: the lot, its order, and which attempts spend what."""

    lot: list[str]  # sha256, best margin first
    promise: Promise
    earlier: int  # attempts that other lots of this batch have spent

    @property
    def header(self) -> dict[str, Any]:
        """The line of audit.jsonl that stands before its first label."""
        terms = {"alpha": self.promise.alpha, "delta": self.promise.delta, "ladder": list(self.promise.ladder)}
        return {"lot": self.sha256, "size": len(self.lot)} | terms | {"earlier": self.earlier}

    @property
    def sha256(self) -> str:
        return files.digest(self.lot)

    @property
    def order(self) -> list[str]:
        """A random order that follows from the lot's content."""
        return labels.shuffled("audit", self.lot)

    def attempts(self, given: Sequence[Label]) -> list[dict[str, Any]]:
        """How each part of the ladder stands after these labels, which are the first of the order."""
        ladder, alpha = self.promise.ladder, self.promise.alpha
        spends = audit.shares(self.promise.delta, self.earlier + len(ladder))[self.earlier :]
        found = []
        for share, delta in zip(ladder, spends, strict=True):
            size = max(1, round(share * len(self.lot)))
            part = set(self.lot[:size])
            bad = [int(label.bad) for label in given if label.sha256 in part]
            bound = audit.bound(bad, size, alpha, delta)
            needed = audit.labels_needed(bad, size, alpha, delta) if bound <= alpha else None
            row = {"share": share, "size": size, "delta": delta, "labels": len(bad), "rejects": sum(bad)}
            found.append(row | {"bound": round(bound, 6), "proven_after": needed})
        return found


def plan_of(out: Path, lot: list[str], promise: Promise) -> Plan:
    """The plan of this lot's audit: the one that was begun, else one after all that were."""
    plan = Plan(lot, promise, 0)
    for row in headers(out):
        if row == (same := Plan(lot, promise, row["earlier"])).header:
            return same
        plan = Plan(lot, promise, row["earlier"] + len(row["ladder"]))
    return plan


def headers(out: Path) -> list[dict[str, Any]]:
    return [row for row in files.read_jsonl(out / labels.STREAMS["audit"]) if "ladder" in row]


def labels_of(out: Path, plan: Plan) -> list[Label]:
    """The labels that count: of the pictures in the plan's order up to the first that has none."""
    known = {label.sha256: label for label in labels.read(out, "audit")}
    return up_to_a_gap(plan.order, known)


def certificate(plan: Plan, given: list[Label], attempts: list[dict], proven: int, policy: Any) -> dict[str, Any]:
    """Everything that the proof rests on; its own digest finds accidents, not forgers."""
    content = {
        "version": VERSION,
        "says": plan.promise.says(),
        "promise": {"alpha": plan.promise.alpha, "delta": plan.promise.delta, "ladder": list(plan.promise.ladder)},
        "policy": {"name": policy.name, "sha256": policy.sha256},
        "lot": {"sha256": plan.sha256, "size": len(plan.lot), "pictures": plan.lot},
        "order_seed": labels.order_seed("audit", plan.lot),
        "earlier_attempts": plan.earlier,
        "labels": [asdict(label) for label in given],
        "attempts": attempts,
        "proven": proven,
    }
    return content | {"sha256": files.digest(content)}


def read_certificate(path: Path) -> dict[str, Any]:
    """A certificate whose proof was computed again. Raises DataError listing what does not hold."""
    keys = ("says", "promise", "policy", "lot", "order_seed", "earlier_attempts", "labels", "attempts", "proven")
    found = files.read_json(path, "the certificate", "version")
    if found["version"] != VERSION:
        raise DataError(f"{files.shown(path)} is version {found['version']!r}; this stylegate reads {VERSION}")
    found = files.read_json(path, "the certificate", *keys, "sha256")
    try:
        problems = problems_of(found)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError) as error:
        problems = [f"not as stylegate writes it ({type(error).__name__}: {error})"]
    if problems:
        raise DataError(f"{files.shown(path)} does not hold:", problems, "certify again; that writes it anew.")
    return found


def problems_of(found: dict[str, Any]) -> list[str]:
    """Where the certificate is not what its own lot, labels and terms lead to."""
    terms = found["promise"]
    if not all(0 < terms[name] < 1 for name in ("alpha", "delta")) or not 0 <= found["earlier_attempts"] < 1000:
        return ["its terms are none"]
    promise = Promise(alpha=terms["alpha"], delta=terms["delta"], ladder=tuple(terms["ladder"]))
    plan = Plan(found["lot"]["pictures"], promise, found["earlier_attempts"])
    given = [Label(**row) for row in found["labels"]]
    problems = []
    if files.digest({key: value for key, value in found.items() if key != "sha256"}) != found["sha256"]:
        problems.append("its digest is of another content")
    whole = len(plan.lot) == found["lot"]["size"] == len(set(plan.lot))
    if plan.sha256 != found["lot"]["sha256"] or not whole:
        problems.append("the lot is not the one that it names")
    if (
        labels.order_seed("audit", plan.lot) != found["order_seed"]
        or [g.sha256 for g in given] != plan.order[: len(given)]
    ):
        problems.append("the labels are not of the first pictures of the lot's random order")
    if found["says"] != promise.says():
        problems.append("it says something else than its terms")
    if plan.attempts(given) != found["attempts"]:
        problems.append("the attempts do not follow from the labels")
    elif found["attempts"][found["proven"]]["proven_after"] is None:
        problems.append("the attempt that it calls proven is not")
    return problems


def goes_out(found: dict[str, Any]) -> list[str]:
    """sha256 of what a certificate lets out: the certified part of the lot, less the rejects that were found."""
    bad = {row["sha256"] for row in found["labels"] if row["verdict"] != "accept"}
    part = found["lot"]["pictures"][: found["attempts"][found["proven"]]["size"]]
    return [sha256 for sha256 in part if sha256 not in bad]
