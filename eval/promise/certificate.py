"""certificate.json: the audit of a lot, written so that anyone can compute the proof again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from eval.policy.model import Policy, Promise
from eval.promise import eyes
from eval.promise.auditplan import AuditPlan, AuditResultOnBestPictures
from eval.promise.labels import Label, Purpose, Sha256
from eval.promise.ranked import RankedAuditDesign
from eval.promise.statements import MetadataTraitStatement
from stylegate import files, records
from stylegate.errors import DataError
from stylegate.records import Record
from stylegate.words import counted, percentage_rounded_up

# Versions: in 3 the ranking settles order and bets, in 4 the reviewers are measured; 1 did not say the guideline.
EVEN, RANKED, MEASURED = 2, 3, 4
TAKEN_TO_BE_RIGHT = "the reviewers are taken to be right: no known rejects were shown to them"
CERTIFICATE = "certificate.json"
TRAIT_CERTIFICATE = "trait-certificate.json"
Share = Field(gt=0, lt=1)


class PromiseTerms(Record):
    """The promise of a certificate: at most `alpha` of what is exported are rejects, with confidence 1 - `delta`."""

    alpha: float = Share
    """Largest allowed share of rejects, between 0 and 1."""
    delta: float = Share
    """Chance that the promise is wrong, between 0 and 1."""
    ladder: list[float] = Field(min_length=1)
    """Shares of the lot, best pictures first, that the certificate was tried for; each above 0 and at most 1."""

    def as_policy_promise(self) -> Promise:
        return Promise(alpha=self.alpha, delta=self.delta, ladder=tuple(self.ladder))


class PolicyOfLabels(Record):
    """The policy under which labels were given."""

    name: str
    """Name of the policy's file, without its ending."""
    sha256: str
    """sha256 of the policy's content."""
    guideline: str
    """What a reject is, in the policy's words; may be empty."""


class CertifiedLot(Record):
    """The pictures that a certificate speaks of."""

    sha256: str
    """Digest of `pictures`."""
    size: int
    """Number of pictures."""
    pictures: list[Sha256]
    """sha256 of each picture, best margin first; of an audit of traits the digest of each statement."""


class Certificate(Record):
    """The content of certificate.json or trait-certificate.json: a lot, its labels in order, and what they prove."""

    version: Literal[2, 3, 4]
    """Version of the file: 4 with `known_rejects`, else 3 with a `design`, 2 without."""
    says: str
    """The promise in words."""
    promise: PromiseTerms
    policy: PolicyOfLabels
    lot: CertifiedLot
    order_seed: str
    """Digest that settles the random order of the labels."""
    design: RankedAuditDesign | None = None
    """How the ranking of the lot settles order and bets. Left out where every picture was as likely to come next."""
    earlier_attempts: int = Field(ge=0, lt=1000)
    """Attempts at other lots, or by other terms, that have spent their part of delta before."""
    labels: list[Label]
    """Of the first pictures in the random order."""
    known_rejects: dict[Sha256, Sha256] = Field(default_factory=dict)
    """The known rejects that were hidden among the pictures: sha256 of each -> that of the picture of the lot that it
    is a spoilt copy of. Left out where there were none.
    """
    known_answers: list[Label] = Field(default_factory=list)
    """What the reviewers said of the known rejects."""
    assumes: str = ""
    """What is known of the reviewers, in words: how many known rejects each one missed, or that they are taken to be
    right. Left out in files of older versions.
    """
    attempts: list[AuditResultOnBestPictures]
    """One for each share of the ladder."""
    proven: int = Field(ge=0)
    """Index of the attempt that is proven."""
    statements: list[MetadataTraitStatement] = Field(default_factory=list)
    """Of an audit of traits: what each entry of the lot states, which is one trait of one picture. Else left out."""
    sha256: str
    """Digest of all other fields. It finds accidents, not forgers."""

    def computed_sha256(self) -> str:
        """What `sha256` must be."""
        return files.canonical_sha256(
            {name: value for name, value in self.json_data_without_defaults().items() if name != "sha256"}
        )

    def proven_attempt(self) -> AuditResultOnBestPictures:
        """The attempt for which the labels prove the promise, at index `proven` of `attempts`."""
        return self.attempts[self.proven]

    def proven_claim_in_words(self) -> str:
        """What is proven of the pictures that may be exported, as half a sentence. Where all were looked at by
        reviewers who are taken to be right, it says that in place of the promise.
        """
        attempt = self.proven_attempt()
        if self.known_rejects:
            return self.says
        if attempt.labels == attempt.size and self.statements:
            wrong = counted(attempt.rejects, "was wrong and is not stated so", "were wrong and are not stated so")
            return f"all {attempt.size} stated traits were looked at; {wrong if attempt.rejects else 'none was wrong'}"
        if attempt.labels == attempt.size:
            rejects = counted(attempt.rejects, "is a reject and is not exported", "are rejects and are not exported")
            return f"all {attempt.size} pictures were looked at; {rejects if attempt.rejects else 'none is a reject'}"
        return self.says

    def missed_known_rejects_in_words(self) -> str:
        """How many known rejects each reviewer missed, and how many rejects are missed at most, in words.

        Without known rejects it says that the reviewers are taken to be right.
        """
        if not self.known_rejects:
            return TAKEN_TO_BE_RIGHT
        tests = eyes.known_reject_results_by_reviewer(self.known_rejects, self.labels, self.known_answers)
        missed = ", ".join(
            f"{who} did not see {test.missed} of {test.shown} known rejects" for who, test in tests.items()
        )
        return (
            f"{missed}: at most {percentage_rounded_up(self.proven_attempt().miss_rate or 0.0)} of rejects are missed"
        )


def make_certificate(
    plan: AuditPlan,
    given: Sequence[Label],
    attempts: list[AuditResultOnBestPictures],
    proven: int,
    policy: Policy,
    statements: Sequence[MetadataTraitStatement] = (),
    answers: Sequence[Label] = (),
) -> Certificate:
    """The certificate of the plan, the labels in its order, what they prove, and the answers to known rejects; nothing
    is written.

    `proven` is the index of the attempt that is proven.
    """
    terms = plan.promise
    found = Certificate(
        version=MEASURED if plan.known_rejects else RANKED if plan.design else EVEN,
        says=plan.promise_in_words(),
        promise=PromiseTerms(alpha=terms.alpha, delta=terms.delta, ladder=list(terms.ladder)),
        policy=PolicyOfLabels(name=policy.name, sha256=policy.sha256, guideline=policy.guideline),
        lot=CertifiedLot(sha256=plan.lot_sha256, size=len(plan.lot), pictures=plan.lot),
        order_seed=plan.order_seed,
        design=plan.design,
        earlier_attempts=plan.earlier,
        labels=labels_reduced_to_certificate_fields(given),
        known_rejects=plan.known_rejects,
        known_answers=labels_reduced_to_certificate_fields(answers),
        attempts=attempts,
        proven=proven,
        statements=list(statements),
        sha256="",
    )
    found = found.model_copy(update={"assumes": found.missed_known_rejects_in_words()})
    return found.model_copy(update={"sha256": found.computed_sha256()})


def labels_reduced_to_certificate_fields(given: Sequence[Label]) -> list[Label]:
    """The labels reduced to sha256, verdict, who and why, as a certificate keeps them."""
    return [Label(sha256=g.sha256, verdict=g.verdict, who=g.who, why=g.why) for g in given]


def read_certificate(path: Path) -> Certificate:
    """Read a certificate and compute its proof again. Raises DataError listing what does not hold."""
    what, step = "the certificate", "certify again; that writes it anew."
    version = files.read_json(path, what, "version")["version"]
    if version not in (EVEN, RANKED, MEASURED):
        raise DataError(
            f"{files.display_path(path)} is version {version!r}; this stylegate reads {EVEN} to {MEASURED}",
            next_step=step,
        )
    found = Certificate.read_json_file(path, what, step)
    if problems := certificate_proof_problems(found):
        raise DataError(f"{files.display_path(path)} does not hold:", problems, step)
    return found


def certificate_proof_problems(found: Certificate) -> list[str]:
    """Sentences on what in a certificate does not follow from its own lot, labels and terms; an empty list if all
    does.
    """
    try:
        promise = found.promise.as_policy_promise()
    except ValidationError as error:
        return [f"promise.{problem}" for problem in records.validation_problems(error)]
    purpose: Purpose = "traits" if found.statements else "audit"
    terms = (found.lot.pictures, promise, found.earlier_attempts, found.policy.sha256, found.design, purpose)
    plan = AuditPlan(*terms, known_rejects=found.known_rejects)
    problems = []
    if found.version != (MEASURED if found.known_rejects else RANKED if found.design else EVEN):
        kinds = f"version {RANKED} has a design, version {EVEN} has none, version {MEASURED} has known rejects"
        problems.append(kinds)
    problems += problems_with_known_rejects(found)
    if found.statements and [statement.digest_of_picture_trait_and_value for statement in found.statements] != plan.lot:
        problems.append("the lot is not that of its statements")
    if found.computed_sha256() != found.sha256:
        problems.append("its digest is of another content")
    whole = 0 < len(plan.lot) == found.lot.size == len(set(plan.lot))
    if plan.lot_sha256 != found.lot.sha256 or not whole:
        problems.append("the lot is not the one that it names")
    if (
        plan.order_seed != found.order_seed
        or [g.sha256 for g in found.labels] != plan.labelling_order[: len(found.labels)]
    ):
        return [*problems, "the labels are not of the first pictures of the lot's random order"]
    if found.says != plan.promise_in_words():
        problems.append("it says something else than its terms")
    if plan.audit_results_for_lot_shares(found.labels, found.known_answers) != found.attempts:
        problems.append("the attempts do not follow from the labels")
    elif found.proven >= len(found.attempts) or found.proven_attempt().proven_after is None:
        problems.append("the attempt that it calls proven is not")
    elif found.assumes not in ("", found.missed_known_rejects_in_words()):
        problems.append("it says something else of the reviewers than their answers do")
    return problems


def problems_with_known_rejects(found: Certificate) -> list[str]:
    """Sentences on what is wrong with the known rejects of a certificate, and with the answers to them."""
    known, problems = found.known_rejects, []
    if known.keys() & set(found.lot.pictures) or set(known.values()) - set(found.lot.pictures):
        problems.append("a known reject is a picture of the lot, or is no copy of one")
    answered = [(answer.who, answer.sha256) for answer in found.known_answers]
    if len(set(answered)) < len(answered) or {sha256 for _, sha256 in answered} - known.keys():
        problems.append("an answer is about no known reject, or was given twice")
    return problems


def certified_digests(found: Certificate) -> list[str]:
    """The sha256 of the pictures that a certificate covers: the certified part of the lot without the rejects found."""
    bad = {label.sha256 for label in found.labels if label.is_reject}
    return [sha256 for sha256 in found.lot.pictures[: found.proven_attempt().size] if sha256 not in bad]
