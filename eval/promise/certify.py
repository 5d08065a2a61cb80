"""Certify a lot: people look at accepted pictures in random order until the promise is proven.

    stylegate certify batch=NAME                       picture by picture in a terminal
    stylegate certify images=DIR references=DIR        writes audit.csv; without a terminal that is all
    stylegate certify batch=NAME decisions=audit.csv   takes its labels; exit 0 once proven, else 13

The lot is what the gate accepts now. The order is random and settled by the lot's content alone: who does not know the
rejects already cannot choose a kind one, and each lot that is tried spends its share of delta.
A ladder of ever smaller lots (the best pictures first, policy's `promise.ladder`) is tried with the same labels; each
attempt spends its share of delta, a later lot of the same batch what is left. certificate.json holds everything that
a stranger needs to compute the proof again: `stylegate verify` does. Rejects that were found, and what lies outside
the certified part of the lot, are not exported.
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eval import policyfile
from eval.batch.place import existing
from eval.policy import Promise
from eval.promise import audit, labels
from eval.promise.labels import Label, up_to_a_gap
from eval.subject import Subject, subject_of
from eval.verdicts import add, lot_of, reason
from stylegate import files
from stylegate.config import Config
from stylegate.errors import DataError, Exit

VERSION = 1
CERTIFICATE, WORKSHEET = "certificate.json", "audit.csv"


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


def certify(config: Config) -> int:
    """Take labels, prove or say what is missing. Returns 0 once the promise is proven, else 13."""
    from eval import gate  # it reads certificates itself

    subject = subject_of(config)
    with files.only_one(subject.out):
        policy = policyfile.read(config.policy)
        _, verdicts = gate.judged(config, subject, audited=False)
        plan = plan_of(subject.out, standing_lot(verdicts), policy.promise)
        given = labels_of(subject.out, plan)
        if config.decisions:
            given = taken(existing(config.decisions, "decisions"), subject.out, plan)
        elif sys.stdin.isatty():
            given = asked(subject, plan, given)
        keep(subject.out, plan, [])  # a worksheet shows it too
        attempts = plan.attempts(given)
        proven = next((i for i, attempt in enumerate(attempts) if attempt["proven_after"] is not None), None)
        if proven is not None:
            files.write_json(subject.out / CERTIFICATE, certificate(plan, given, attempts, proven, policy))
            (subject.out / WORKSHEET).unlink(missing_ok=True)
        else:
            names = {sha256: name for name, sha256 in subject.sha256.items()}
            due = plan.order[len(given) : len(given) + config.promise.num_labels]
            offered = Path(config.decisions) if config.decisions else None
            labels.worksheet(subject.out / WORKSHEET, "audit", [(names[s], s) for s in due], offered)
        outcome = gate.judge(config, subject)  # what was found leaves the lot
        gate.write_reports(subject, config, outcome)
    code = said(subject, plan, given, attempts, proven)
    if code == Exit.PASS and outcome["exit_code"] != Exit.PASS:
        print(f"note: the gate on this lot still ends with exit code {outcome['exit_code']}; stylegate gate says why")
    return code


def standing_lot(verdicts: list[dict]) -> list[str]:
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


FOUND, BEYOND = "audit", "outside-certificate"


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


def keep(out: Path, plan: Plan, given: list[Label]) -> None:
    """Append labels; the lot, its terms and what they may spend are written down before the first."""
    if plan.header not in headers(out):
        files.append_jsonl(out / labels.STREAMS["audit"], plan.header)
    labels.keep(out, "audit", given)


def labels_of(out: Path, plan: Plan) -> list[Label]:
    """The labels that count: of the pictures in the plan's order up to the first that has none."""
    known = {label.sha256: label for label in labels.read(out, "audit")}
    return up_to_a_gap(plan.order, known)


def taken(path: Path, out: Path, plan: Plan) -> list[Label]:
    """Keep a file's labels as far as the order goes without a gap. Who skips a picture stops there."""
    before, offered = labels.offered(path, "audit", out, plan.lot)
    found = up_to_a_gap(plan.order, before | offered)
    keep(out, plan, [label for label in found if label.sha256 not in before])
    unused = sum(label not in found for label in offered.values())
    if unused:
        print(f"note: {unused} labels lie beyond the first picture without one: not taken")
    return found


def asked(subject: Subject, plan: Plan, given: list[Label]) -> list[Label]:
    """Show picture after picture and ask; each answer is kept at once. Ends with the proof, or when told to."""
    print(f"{plan.promise.says()}: {len(plan.lot)} pictures, labelled in random order until that is proven.")
    keep(subject.out, plan, [])  # before the first picture is shown: what is shown of a lot spends its share
    for number, sha256 in enumerate(plan.order[len(given) :], start=len(given) + 1):
        attempts = plan.attempts(given)
        if any(attempt["proven_after"] is not None for attempt in attempts):
            break
        bound = min(attempt["bound"] for attempt in attempts)
        label = labels.ask(subject, sha256, f"{number} (bound so far {bound:.1%})")
        if label is None:
            break
        keep(subject.out, plan, [label])
        given = [*given, label]
    return given


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


def apply(out: Path, verdicts: list[dict], promise: Promise) -> dict[str, Any]:
    """What audit and certificate mean for the verdicts, in place: rejects that were found, pictures beyond the proof.

    Returns what is known: state "certified" with its bound, else "none", and what is to be said.
    """
    lot = lot_of(verdicts)
    bad = {label.sha256: label for label in labels.read(out, "audit") if label.bad}
    path = out / CERTIFICATE
    found = read_certificate(path) if path.exists() else None
    going = [verdict for verdict in verdicts if verdict["verdict"] == "accept"]
    for verdict in going:
        if label := bad.get(verdict["sha256"]):
            add(verdict, reason(FOUND, "reject", detail=label.words()))
    if found is None:
        return {"state": "none", "says": promise.says(), "notes": []}
    note = ""
    if found["lot"]["sha256"] != files.digest(lot):
        note = f"{CERTIFICATE} is of another lot ({found['lot']['size']} pictures): it says nothing of this one"
    elif found["promise"]["alpha"] > promise.alpha or found["promise"]["delta"] > promise.delta:
        note = f"{CERTIFICATE} promises less than the policy asks: {found['says']}"
    if note:
        return {"state": "none", "says": promise.says(), "notes": [note]}
    leaving = set(goes_out(found))
    for verdict in going:
        if verdict["sha256"] not in leaving and verdict["sha256"] not in bad:
            add(verdict, reason(BEYOND, "review", detail="outside what was certified, whatever is decided"))
    attempt = found["attempts"][found["proven"]]
    proof = {"labels": attempt["labels"], "bound": attempt["bound"], "certificate_sha256": found["sha256"]}
    return {"state": "certified", "says": found["says"], "notes": []} | proof


def said(subject: Subject, plan: Plan, given: list[Label], attempts: list[dict], proven: int | None) -> int:
    """Say how the audit stands; the exit code."""
    bad, spent = sum(label.bad for label in given), 1 - 0.5**plan.earlier
    print(f"promise: {plan.promise.says()}")
    if plan.earlier:
        print(f"note: {plan.earlier} attempts at other lots of this batch have spent {spent:.0%} of delta")
    for attempt in attempts:
        after, size = attempt["proven_after"], attempt["size"]
        state = f"proven after {after}" if after else f"bound {attempt['bound']:.1%}"
        print(f"  best {size} of {len(plan.lot)}: {attempt['labels']} labels, {attempt['rejects']} rejects, {state}")
    if proven is None:
        print(f"certify: not proven yet with {len(given)} labels, {bad} of them rejects")
        print(
            f"next: fill in verdict and who, then the same words with decisions={files.shown(subject.out / WORKSHEET)}"
        )
        return Exit.EVIDENCE
    out = len(goes_out(read_certificate(subject.out / CERTIFICATE)))
    print(f"certify: proven; {out} pictures may leave, {bad} rejects found and {len(plan.lot) - out - bad} others stay")
    print(files.shown(subject.out / CERTIFICATE))
    return Exit.PASS
