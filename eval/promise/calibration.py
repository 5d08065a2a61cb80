"""calibration.json: labels of a random sample, the line that they prove, and whether it still holds for a lot."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from eval.lot.batch import require_file
from eval.lot.comparison import ComparisonPictures
from eval.lot.lot import Lot, origin_digests_of_lot, sha256_by_name
from eval.measuring.encodername import encoder_digest, encoder_name
from eval.measuring.scores import VERSION as SCORES_VERSION
from eval.measuring.scores import named_aesthetic_head_path
from eval.policy.lines import ResolvedCheckLines
from eval.policy.model import MARGIN, Policy
from eval.promise import envelope, labels
from eval.promise.certificate import PolicyOfLabels, Share
from eval.promise.labels import Label, Sha256
from stylegate import files
from stylegate.config import Config
from stylegate.errors import ConfigError, DataError
from stylegate.records import Record
from stylegate.words import counted, percentage_rounded_up

VERSION = 2  # 1 drew the same sample under every policy
CALIBRATION = "calibration.json"


class CalibrationPromise(Record):
    """The promise of the policy that was calibrated."""

    alpha: float = Share
    """Largest allowed share of rejects in what is accepted, between 0 and 1."""
    delta: float = Share
    """Chance that the promise is wrong, between 0 and 1."""
    discard: float = Share
    """Largest average share of good pictures that may be rejected unseen, between 0 and 1."""


class ScoredLabel(Label):
    """A label, and the score that its picture had."""

    score: float
    """The calibrated score of the picture."""


class CalibratedThresholds(Record):
    """The thresholds of the calibrated check that follow from the labels."""

    accept_from: float | None
    """The lowest score that is accepted; null where no line keeps the promise."""
    reject_below: float | None
    """Below this score a picture is rejected unseen; null with too few good pictures to say."""


class Calibration(Record):
    """The content of calibration.json: a random sample of labels, and the thresholds of the calibrated check that they
    prove.
    """

    version: Literal[2]
    """Version of the file."""
    score: str
    """Name of the calibrated score, or "margin"."""
    promise: CalibrationPromise
    policy: PolicyOfLabels
    fingerprint: dict[str, str | None]
    """All that could change what a score means for a picture, by name, as digests or plain values; null for what is
    not there.
    """
    pool: list[Sha256] = Field(min_length=1)
    """sha256 of every picture that all other checks accept, sorted."""
    labels: list[ScoredLabel] = Field(min_length=1)
    """The sample, in its random order."""
    lines: CalibratedThresholds
    sha256: str
    """Digest of all other fields. It finds accidents, not forgers."""

    def computed_sha256(self) -> str:
        """What `sha256` must be."""
        return files.canonical_sha256(
            {name: value for name, value in self.json_data_without_defaults().items() if name != "sha256"}
        )

    def is_reject_by_sha256(self) -> dict[str, bool]:
        """Whether each labelled picture is a reject, by sha256."""
        return {label.sha256: label.is_reject for label in self.labels}


class CalibrationTerms(Record):
    """The row of labels.sqlite that stands before the first label of a calibration."""

    pool: str
    """Digest of the sha256 of the pool's pictures, sorted."""
    policy_sha256: str = ""
    """sha256 of the policy that is calibrated. Left out in files of older versions."""
    count: int
    """Labels that the calibration takes."""


@dataclass(frozen=True, slots=True)
class CalibrationResult:
    """The result of a calibration for one batch: thresholds of the calibrated check, rejects found by labels, state."""

    bound: ResolvedCheckLines | None
    rejects: set[str]
    state: str  # valid, stale, insufficient
    says: str
    labelled: dict[str, bool] = field(default_factory=dict)  # sha256 -> a reject, of this pool
    hidden: float = 0.0  # rejects that may be among what is accepted, at most
    made: Calibration | None = None  # unless it is stale


def require_policy_has_calibrated_check(policy: Policy) -> None:
    """Raises ConfigError for a policy that has no use for a calibration."""
    if policy.calibrated_score_name is None:
        raise ConfigError(
            f"policy {policy.name} has no check that is calibrated",
            next_step="write `margin: calibrated` (or another score) among its checks.",
        )


@dataclass(frozen=True, slots=True)
class CalibrationPlan:
    """What is settled before the first label: the pool, and how many of it are labelled."""

    pool: Mapping[str, float]  # sha256 -> score
    count: int
    policy_sha256: str = ""

    @property
    def digest_of_pool_and_policy(self) -> str:
        """Digest of pool and policy. Labels count only for this pair, because another policy may define rejects
        differently.
        """
        return files.canonical_sha256([sorted(self.pool), self.policy_sha256])

    @property
    def pictures_to_label(self) -> list[str]:
        """The sha256 of the pictures to label: a random sample of the pool, whose order follows from the pool and
        the policy.
        """
        return labels.shuffled_pictures("calibration", self.pool, self.policy_sha256)[: self.count]


def begin_or_resume_calibration(out: Path, pool: dict[str, float], policy: Policy, count: int) -> CalibrationPlan:
    """The plan to calibrate on this pool with `count` labels; its terms are stored if they are new.

    Raises ConfigError if a calibration of this pool began with another number of labels: if one could stop when the
    labels look good, the promise would not hold.
    """
    plan = CalibrationPlan(pool, min(count, len(pool)), policy.sha256)
    terms = CalibrationTerms(pool=files.canonical_sha256(sorted(pool)), policy_sha256=policy.sha256, count=plan.count)
    begun = [
        other
        for other in labels.read_audit_or_calibration_terms(out, "calibrate", CalibrationTerms)
        if other.pool == terms.pool
    ]
    if any(other.count != plan.count for other in begun):
        raise ConfigError(
            f"this calibration began with promise.num_labels={begun[0].count}, it cannot become {plan.count}",
            next_step="go on with that number; another batch can have another.",
        )
    if terms not in begun:
        labels.append_audit_or_calibration_terms(out, "calibrate", terms)
    return plan


def calibration_digests_by_input(
    config: Config, lot: Lot, compared: ComparisonPictures, policy: Policy
) -> dict[str, str | None]:
    """What a calibration holds for, by name, as digests or plain values: how the pictures are made (LoRA, base,
    sampler, prompts) and how they are judged (encoder, scores, references, policy). None for what is not there.

    For a folder of pictures by others, whose making is not known, the digests hold for that folder alone.
    """
    made, traits = origin_digests_of_lot(lot), lot.record.facts.plan.traits if lot.record else None
    head, marked = named_aesthetic_head_path(config), made["watermark_sha256"]
    return {
        "LoRA": made["lora_sha256"],
        "base": made["base_sha256"],
        "sampler": files.canonical_sha256([made["generate"], made["precision"], *([marked] if marked else [])]),
        "prompts and traits": files.canonical_sha256([traits, made["data_sha256"]]),
        "encoder and preprocessing": encoder_digest(encoder_name(config)),
        "scores": SCORES_VERSION,
        "aesthetic head": files.sha256_of_file(head) if head else sha256_of_aesthetic_labels_file(config),
        "references": files.canonical_sha256(sorted(sha256_by_name(compared.references).values())),
        "training pictures": files.canonical_sha256(sorted(sha256_by_name(compared.training).values())),
        "background": compared.background,
        "transparency": compared.alpha,
        "policy and guideline": policy.sha256,
        "folder": None if lot.slots else lot.digest_of_names_and_contents(),
    }


def sha256_of_aesthetic_labels_file(config: Config) -> str | None:
    """sha256 of the file that score.labels names; None if it names none."""
    return files.sha256_of_file(require_file(config.score.labels, "score.labels")) if config.score.labels else None


def make_calibration(
    plan: CalibrationPlan, given: Sequence[Label], policy: Policy, fingerprint: dict[str, str | None]
) -> Calibration:
    """The calibration that follows from the labels, one for each picture of the plan's sample; nothing is written.
    `fingerprint` is `calibration_digests_by_input`.
    """
    promise = policy.promise
    found = Calibration(
        version=VERSION,
        score=policy.calibrated_score_name or MARGIN,
        promise=CalibrationPromise(alpha=promise.alpha, delta=promise.delta, discard=promise.discard),
        policy=PolicyOfLabels(name=policy.name, sha256=policy.sha256, guideline=policy.guideline),
        fingerprint=fingerprint,
        pool=sorted(plan.pool),
        labels=[
            ScoredLabel(sha256=g.sha256, verdict=g.verdict, who=g.who, why=g.why, score=plan.pool[g.sha256])
            for g in given
        ],
        lines=CalibratedThresholds(accept_from=None, reject_below=None),
        sha256="",
    )
    top, bottom, _ = thresholds_and_bound_for_pool(found, plan.pool, policy)
    found = found.model_copy(update={"lines": CalibratedThresholds(accept_from=top, reject_below=bottom)})
    return found.model_copy(update={"sha256": found.computed_sha256()})


def read_calibration(path: Path) -> Calibration:
    """Read a calibration. Raises DataError if it is damaged, was changed, is of another version, or is no random
    sample.
    """
    what, step = "the calibration", "calibrate again, or remove it."
    version = files.read_json(path, what, "version")["version"]
    if version != VERSION:
        raise DataError(
            f"{files.display_path(path)} is version {version!r}; this stylegate reads {VERSION}", next_step=step
        )
    found = Calibration.read_json_file(path, what, step)
    if found.computed_sha256() != found.sha256:
        raise DataError(f"{files.display_path(path)} was changed after it was written", next_step=step)
    if found.pool != sorted(set(found.pool)):
        raise DataError(f"{files.display_path(path)}: its pool is not sorted, or has a picture twice", next_step=step)
    plan = CalibrationPlan(dict.fromkeys(found.pool, 0.0), len(found.labels), found.policy.sha256)
    if [label.sha256 for label in found.labels] != plan.pictures_to_label:
        raise DataError(f"{files.display_path(path)}: its labels are no random sample of its pool", next_step=step)
    return found


def calibration_path(config: Config, lot: Lot) -> Path:
    """The path of the calibration that the config names, else of calibration.json in the lot's results folder, which
    may be missing. Raises DataError if the config names a file that does not exist.
    """
    named = require_file(config.calibration, "calibration") if config.calibration else lot.out / CALIBRATION
    return named.resolve()


def calibration_result_for_lot(
    config: Config, lot: Lot, compared: ComparisonPictures, policy: Policy, pool: dict[str, float]
) -> CalibrationResult:
    """The thresholds and the state of the calibration that the config names, else of the lot's own, for this lot.

    `pool` has the calibrated score, by sha256, of the pictures that every other check accepts.
    """
    path = calibration_path(config, lot)
    if not path.exists():
        text = f"{policy.calibrated_score_name} has no line yet: stylegate calibrate with the same arguments"
        return CalibrationResult(None, set(), "insufficient", text)
    return calibration_result_for_pool(
        read_calibration(path), pool, calibration_digests_by_input(config, lot, compared, policy), policy
    )


def calibration_result_for_pool(
    calibration: Calibration, pool: dict[str, float], digests_now: dict[str, str | None], policy: Policy
) -> CalibrationResult:
    """The lines of the calibrated check for this pool, with the state of the calibration: valid, stale or
    insufficient.

    `pool` has scores by sha256, `digests_now` the digests of `calibration_digests_by_input` today: if one differs from
    the calibration's, it is stale. Another batch that was made in the same way counts as one population with the
    labelled one. If the calibration is not valid, the lines of its own batch are returned, so that the lot can still be
    certified.
    """
    bad = calibration.is_reject_by_sha256()
    here = {name: is_bad for name, is_bad in bad.items() if name in pool}
    found = {name for name, is_bad in here.items() if is_bad}
    top, bottom, held = thresholds_and_bound_for_pool(calibration, pool, policy)
    changed = [name for name in digests_now if calibration.fingerprint.get(name) != digests_now[name]]
    labels_so_far = f"{counted(len(bad), 'label')}, {counted(sum(bad.values()), 'reject')}"
    if changed or calibration.score != policy.calibrated_score_name:
        what = ", ".join(changed) or "the calibrated score"
        text = (
            f"STALE: another {what} than when {calibration.score} was calibrated; calibrate anew, or certify this lot"
        )
        state = "stale"
    elif top is None:
        state, text = (
            "insufficient",
            f"{labels_so_far}: no line keeps the promise ({policy.promise.promise_sentence_part()})",
        )
    else:
        passing = float((np.array(list(pool.values())) >= top).mean())
        state = "valid"
        text = f"{labels_so_far}: {policy.calibrated_score_name} of {top:.4g} or more is accepted, "
        text += (
            f"{passing:.0%} of the pool; bound {percentage_rounded_up(held)}: {policy.promise.promise_sentence_part()}"
        )
    proof = calibration if state != "stale" else None
    if state != "valid":
        top, bottom = calibration.lines.accept_from, calibration.lines.reject_below
    if top is None:
        return CalibrationResult(None, found, state, text, here, made=proof)
    low = min(bottom, top) if bottom is not None else None
    going = sum(score >= top and name not in found for name, score in pool.items())
    return CalibrationResult(
        ResolvedCheckLines(policy.calibrated_score_name or MARGIN, low, top, True),
        found,
        state,
        text,
        here,
        held * going,
        proof,
    )


def thresholds_and_bound_for_pool(
    calibration: Calibration, pool: Mapping[str, float], policy: Policy
) -> tuple[float | None, float | None, float]:
    """For this pool: the score from which pictures may be accepted (None if nothing can be promised), the score below
    which they may be rejected without a person looking (None if there is none), and the upper bound on the share of
    rejects at the first (1 if there is none).
    """
    bad = calibration.is_reject_by_sha256()
    scored = {label.sha256: label.score for label in calibration.labels}
    everyone = scored | dict(pool) if sorted(pool) != calibration.pool else dict(pool)
    names, promise = sorted(everyone), policy.promise
    scores = np.array([everyone[name] for name in names])
    labelled, rejects = np.array([n in bad for n in names]), np.array([bad.get(n, False) for n in names])
    ours = np.array([name in pool for name in names])
    top = envelope.accepting_threshold(scores, labelled, rejects, ours, promise.alpha, promise.delta)
    bottom = envelope.rejecting_threshold(scores[labelled & ~rejects], promise.discard)
    if top is None:
        return None, bottom, 1.0
    held = envelope.reject_share_bounds_at_thresholds(
        scores, labelled, rejects, ours, np.array([top]), promise.alpha, promise.delta
    )[0]
    return top, bottom, float(held)
