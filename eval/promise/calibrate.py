"""Calibrate a policy's line from labels: a random sample of pictures, seen by people, says where accepting is safe.

    stylegate calibrate batch=NAME policy=FILE                       picture by picture in a terminal, or calibrate.csv
    stylegate calibrate batch=NAME policy=FILE decisions=calibrate.csv
    stylegate gate batch=OTHER policy=FILE calibration=data/batches/NAME/calibration.json

For a policy one of whose checks is `calibrated`. The pictures that every other check accepts are the pool; how many of
them are labelled is settled before the first label (`promise.num_labels`). Three ways from there: above the lowest line
whose bound keeps the promise, accepted; below the line that throws away no more than `promise.discard` of good ones,
rejected unseen; between them a person decides. The bound holds at all lines at once (eval/promise/envelope.py).

calibration.json carries over to other batches of the same making, and only to those: it is bound to a fingerprint of
all that could change its meaning. Anything else is STALE (exit 12), and the way out is `stylegate certify`, which
assumes nothing of the past.
"""

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from eval import policyfile
from eval.batch.place import existing
from eval.encoder import encoder_key
from eval.policy import MARGIN, Bounds, Policy
from eval.promise import envelope, labels
from eval.promise.labels import Label, up_to_a_gap
from eval.scorers import aesthetic
from eval.subject import VERSION as SCORES_VERSION
from eval.subject import Comparison, Subject, comparison_of, hashes, head_file, made_from, subject_of
from stylegate import files
from stylegate.config import Config
from stylegate.errors import ConfigError, DataError, Exit

VERSION = 1
CALIBRATION, WORKSHEET = "calibration.json", "calibrate.csv"


@dataclass(frozen=True, slots=True)
class Line:
    """What a calibration says of a batch: the check's lines, or none; whose labels found a reject; how it stands."""

    bound: Bounds | None
    rejects: set[str]
    state: str  # valid, stale, insufficient
    says: str
    labelled: dict[str, bool] = field(default_factory=dict)  # sha256 -> a reject, of this pool
    hidden: float = 0.0  # rejects that may be among what is accepted, at most


def calibrate(config: Config) -> int:
    """Take labels; write calibration.json once all are there. Returns 0 if a line keeps the promise, else 13."""
    from eval import gate

    subject = subject_of(config)
    policy = policyfile.read(config.policy)
    want_calibrated(policy)
    with files.only_one(subject.out):
        compared = comparison_of(config, subject)
        pool = gate.pool_of(config, subject, compared)
        if not pool:
            raise DataError(
                f"no picture that every other check accepts has a {policy.calibrated}: nothing to calibrate on",
                next_step="stylegate gate with the same words says why; a margin needs lines that hold pictures back.",
            )
        refuse_trained(config, pool)
        plan = begun(subject.out, pool, policy, config.promise.num_labels)
        before = labels.read(subject.out, "calibrate", under=plan.under)
        given = up_to_a_gap(plan.sample, {label.sha256: label for label in before})
        if config.decisions:
            given = taken(existing(config.decisions, "decisions"), subject.out, plan)
        elif sys.stdin.isatty():
            given = asked(subject, plan, given)
        if len(given) < len(plan.sample):
            names = {sha256: name for name, sha256 in subject.sha256.items()}
            due = plan.sample[len(given) :]
            sheet, offered = subject.out / WORKSHEET, Path(config.decisions) if config.decisions else None
            labels.worksheet(sheet, "calibrate", [(names[s], s) for s in due], offered)
            print(f"calibrate: {len(given)} of {len(plan.sample)} labels")
            print(f"next: fill in verdict and who, then the same words with decisions={files.shown(sheet)}")
            return Exit.EVIDENCE
        (subject.out / WORKSHEET).unlink(missing_ok=True)
        made = written(plan, given, policy, fingerprint(config, subject, compared, policy))
        files.write_json(subject.out / CALIBRATION, made)
        line = line_of(made, pool, made["fingerprint"], policy)
    print(f"calibrate: {line.says}")
    print(files.shown(subject.out / CALIBRATION))
    return Exit.PASS if line.state == "valid" else Exit.EVIDENCE


def want_calibrated(policy: Policy) -> None:
    """Raises ConfigError for a policy that has no use for a calibration."""
    if policy.calibrated is None:
        raise ConfigError(
            f"policy {policy.name} has no check that is calibrated",
            next_step="write `margin: calibrated` (or another score) among its checks.",
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """What is settled before the first label: the pool, and how many of it are labelled."""

    pool: Mapping[str, float]  # sha256 -> score
    count: int
    policy_sha256: str = ""

    @property
    def under(self) -> str:
        """What labels are kept under: another policy or guideline may call other pictures rejects."""
        return files.digest([sorted(self.pool), self.policy_sha256])

    @property
    def sample(self) -> list[str]:
        """A simple random sample in a random order that follows from the pool's content."""
        return labels.shuffled("calibration", self.pool)[: self.count]


def begun(out: Path, pool: dict[str, float], policy: Policy, count: int) -> Plan:
    """The plan of this pool's calibration, written down before the first label.

    Raises ConfigError if the number of labels is another than when it began, by whatever policy: who may stop when the
    labels look well has no promise.
    """
    plan = Plan(pool, min(count, len(pool)), policy.sha256)
    header = {"pool": files.digest(sorted(pool)), "policy_sha256": policy.sha256, "count": plan.count}
    rows = [row for row in files.read_jsonl(out / labels.STREAMS["calibrate"]) if row.get("pool") == header["pool"]]
    if any(row.get("count") != plan.count for row in rows):
        raise ConfigError(
            f"this calibration began with promise.num_labels={rows[0].get('count')}, it cannot become {plan.count}",
            next_step="go on with that number; another batch can have another.",
        )
    if header not in rows:
        files.append_jsonl(out / labels.STREAMS["calibrate"], header)
    return plan


def refuse_trained(config: Config, pool: Mapping[str, float]) -> None:
    """A head scores the pictures that it learned from too well. Raises DataError for any of them in the pool."""
    if config.score.labels:
        learned = aesthetic.read_labels(existing(config.score.labels, "score.labels"))
        both = [name for name, path, _ in learned if files.sha256(path) in pool]
        if both:
            raise DataError(
                "pictures that the aesthetic head learned from cannot calibrate:", both[:20], "train it on others."
            )


def taken(path: Path, out: Path, plan: Plan) -> list[Label]:
    """Keep a file's labels as far as the sample goes without a gap; a file may be given again, filled further."""
    before, offered = labels.offered(path, "calibrate", out, plan.sample, under=plan.under)
    found = up_to_a_gap(plan.sample, before | offered)
    labels.keep(out, "calibrate", [label for label in found if label.sha256 not in before], under=plan.under)
    return found


def asked(subject: Subject, plan: Plan, given: list[Label]) -> list[Label]:
    """Show picture after picture and ask; each answer is kept at once."""
    for number, sha256 in enumerate(plan.sample[len(given) :], start=len(given) + 1):
        label = labels.ask(subject, sha256, f"{number} of {len(plan.sample)}")
        if label is None:
            break
        labels.keep(subject.out, "calibrate", [label], under=plan.under)
        given = [*given, label]
    return given


def fingerprint(config: Config, subject: Subject, compared: Comparison, policy: Policy) -> dict[str, str | None]:
    """Digests of all that could change what a score means for a picture's fate, each under its name.

    A folder of others' pictures says nothing of how they were made: its calibration holds for that folder alone.
    """
    made, facts = made_from(subject), subject.record.get("facts", {})
    head = head_file(config)
    return {
        "LoRA": made["lora_sha256"],
        "base": made["base_sha256"],
        "sampler": files.digest([made["generate"], made["precision"]]),
        "prompts and traits": files.digest([facts.get("plan", {}).get("traits"), made["data_sha256"]]),
        "encoder and preprocessing": encoder_key(config.encoder),
        "scores": SCORES_VERSION,
        "aesthetic head": files.sha256(head) if head else labels_digest(config),
        "references": files.digest(sorted(hashes(compared.references).values())),
        "training pictures": files.digest(sorted(hashes(compared.training).values())),
        "background": compared.background,
        "policy and guideline": policy.sha256,
        "folder": None if subject.slots else subject.digest(),
    }


def labels_digest(config: Config) -> str | None:
    return files.sha256(existing(config.score.labels, "score.labels")) if config.score.labels else None


def written(plan: Plan, given: list[Label], policy: Policy, made: dict[str, str | None]) -> dict[str, Any]:
    """calibration.json; its own digest finds accidents, not forgers."""
    promise = policy.promise
    content: dict[str, Any] = {
        "version": VERSION,
        "score": policy.calibrated,
        "promise": {"alpha": promise.alpha, "delta": promise.delta, "discard": promise.discard},
        "policy": {"name": policy.name, "sha256": policy.sha256},
        "fingerprint": made,
        "pool": sorted(plan.pool),
        "labels": [asdict(label) | {"score": plan.pool[label.sha256]} for label in given],
    }
    top, bottom, _ = lines_in(content, plan.pool, policy)
    content["lines"] = {"accept_from": top, "reject_below": bottom}
    return content | {"sha256": files.digest(content)}


def read(path: Path) -> dict[str, Any]:
    """A calibration. Raises DataError if it is torn, changed, or of another version."""
    found = files.read_json(path, "the calibration", "version")
    if found["version"] != VERSION:
        raise DataError(f"{files.shown(path)} is version {found['version']!r}; this stylegate reads {VERSION}")
    keys = ("score", "promise", "policy", "fingerprint", "pool", "labels", "lines", "sha256")
    found = files.read_json(path, "the calibration", *keys)
    if files.digest({key: value for key, value in found.items() if key != "sha256"}) != found["sha256"]:
        raise DataError(
            f"{files.shown(path)} was changed after it was written", next_step="calibrate again, or remove it."
        )
    try:
        plan = Plan(dict.fromkeys(found["pool"], 0.0), len(found["labels"]))
        if [row["sha256"] for row in found["labels"]] != plan.sample:
            raise DataError(f"{files.shown(path)}: its labels are no random sample of its pool")
        if not all(np.isfinite(row["score"]) and row["verdict"] in labels.VERDICTS for row in found["labels"]):
            raise ValueError("a label has no score or verdict")
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{files.shown(path)} is not as stylegate writes it: {error}") from None
    return found


def line_for(config: Config, subject: Subject, compared: Comparison, policy: Policy, pool: dict[str, float]) -> Line:
    """The line of the calibration that the words name, else of the batch's own."""
    path = existing(config.calibration, "calibration") if config.calibration else subject.out / CALIBRATION
    if not path.exists():
        text = f"{policy.calibrated} has no line yet: stylegate calibrate with the same words"
        return Line(None, set(), "insufficient", text)
    return line_of(read(path), pool, fingerprint(config, subject, compared, policy), policy)


def line_of(made: dict[str, Any], pool: dict[str, float], now: dict[str, str | None], policy: Policy) -> Line:
    """Where the check's lines lie for this pool, and whether that means anything.

    Of the batch that was labelled, the pool is the population. For another batch of the same making the labelled ones
    and the new pool are one population whose order is exchangeable. Where the calibration does not hold, the lines that
    it had in its own batch still stand, so that there is a lot to certify.
    """
    bad = {row["sha256"]: row["verdict"] != "accept" for row in made["labels"]}
    here = {name: is_bad for name, is_bad in bad.items() if name in pool}
    found = {name for name, is_bad in here.items() if is_bad}
    top, bottom, held = lines_in(made, pool, policy)
    changed = [name for name in now if made["fingerprint"].get(name) != now[name]]
    counted = f"{len(bad)} labels, {sum(bad.values())} rejects"
    if changed or made["score"] != policy.calibrated:
        what = ", ".join(changed) or "the calibrated score"
        text = f"STALE: another {what} than when {made['score']} was calibrated; calibrate anew, or certify this lot"
        state = "stale"
    elif top is None:
        state, text = "insufficient", f"{counted}: no line keeps the promise ({policy.promise.says()})"
    else:
        passing = float((np.array(list(pool.values())) >= top).mean())
        state = "valid"
        text = f"{counted}: {policy.calibrated} of {top:.4g} or more is accepted, {passing:.0%} of the pool; "
        text += f"bound {held:.1%}: {policy.promise.says()}"
    if state != "valid":
        top, bottom = made["lines"]["accept_from"], made["lines"]["reject_below"]
    if top is None:
        return Line(None, found, state, text, here)
    low = min(bottom, top) if bottom is not None else None
    going = sum(score >= top and name not in found for name, score in pool.items())
    return Line(Bounds(policy.calibrated or MARGIN, low, top, True), found, state, text, here, held * going)


def lines_in(
    made: dict[str, Any], pool: Mapping[str, float], policy: Policy
) -> tuple[float | None, float | None, float]:
    """From where this pool may be accepted, below what it may be rejected unseen, and the first line's bound."""
    bad = {row["sha256"]: row["verdict"] != "accept" for row in made["labels"]}
    scored = {row["sha256"]: float(row["score"]) for row in made["labels"]}
    everyone = scored | dict(pool) if sorted(pool) != made["pool"] else dict(pool)
    names, promise = sorted(everyone), policy.promise
    scores = np.array([everyone[name] for name in names])
    labelled, rejects = np.array([n in bad for n in names]), np.array([bad.get(n, False) for n in names])
    ours = np.array([name in pool for name in names])
    top = envelope.line(scores, labelled, rejects, ours, promise.alpha, promise.delta)
    bottom = envelope.thrown_away(scores[labelled & ~rejects], promise.discard)
    if top is None:
        return None, bottom, 1.0
    held = envelope.bounds(scores, labelled, rejects, ours, np.array([top]), promise.alpha, promise.delta)[0]
    return top, bottom, float(held)
