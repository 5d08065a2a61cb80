"""The plan of an audit: which pictures are looked at, in which order, and what their labels prove."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import Field

from eval.policy.model import Policy, Promise
from eval.promise import audit, eyes, labels
from eval.promise.eyes import KnownRejectResultOfReviewer
from eval.promise.labels import Label, Purpose, Sha256, labels_before_first_gap
from eval.promise.ranked import (
    RankedAuditDesign,
    audit_sampling_weights_by_rank,
    make_weighted_betting_wealth_function,
    weighted_order,
)
from stylegate import files
from stylegate.records import Record
from stylegate.words import confidence_percent_rounded_down, percentage_rounded_up


class AuditResultOnBestPictures(Record):
    """What the labels so far prove about one part of the lot, the best pictures of it."""

    share: float
    """Share of the lot, best pictures first, above 0 and at most 1."""
    size: int
    """Number of pictures in this part of the lot."""
    delta: float
    """The part of delta that this attempt may spend."""
    labels: int
    """Number of labels of pictures in this part."""
    rejects: int
    """Number of rejects among those labels."""
    bound: float
    """Largest possible share of rejects among this part less the rejects found, from 0 to 1."""
    proven_after: int | None
    """Number of labels after which the promise was proven; null if it was not."""
    miss_rate: float | None = None
    """Largest chance, 0 to 1, that a reviewer misses a reject, by the known rejects. Left out where it is not measured.
    """


class AuditTerms(Record):
    """The row of labels.sqlite that stands before the first label of an audit: its lot, and what it may spend."""

    lot: str
    """Digest of the sha256 of the lot's pictures, best margin first."""
    size: int
    """Pictures of the lot."""
    alpha: float
    """Largest allowed share of rejects in what is exported, between 0 and 1."""
    delta: float
    """Chance that the promise is wrong, between 0 and 1."""
    ladder: list[float]
    """Shares of the lot, 0 to 1, that the attempts certify, one after the other."""
    earlier: int
    """Attempts that earlier audits in the same folder have spent."""
    policy_sha256: str = ""
    """sha256 of the policy of the audit. Left out in files of older versions."""
    design: RankedAuditDesign | None = None
    """How the ranking of the lot settles order and bets. Left out where every picture is as likely to come next."""
    known_rejects: dict[Sha256, Sha256] = Field(default_factory=dict)
    """The known rejects that are hidden among the pictures: sha256 of each -> that of the picture of the lot that it is
    a spoilt copy of. Left out where there are none.
    """


@dataclass(frozen=True, slots=True)
class AuditPlan:
    """What is fixed before the first label: the lot, the order of labelling, and how much of delta each attempt may
    use.
    """

    lot: list[str]  # sha256, best margin first
    promise: Promise
    earlier: int  # attempts that other lots of this batch, or other terms, have spent
    policy_sha256: str = ""  # labels count under this policy alone
    design: RankedAuditDesign | None = None  # None: every picture is as likely to come next
    purpose: Purpose = "audit"  # of the labels; "traits" where the lot holds statements, not pictures
    known_rejects: dict[str, str] = field(default_factory=dict)  # sha256 -> that of the picture it is a spoilt copy of

    @property
    def audit_terms(self) -> AuditTerms:
        """What is written down before the first label."""
        return AuditTerms(
            lot=self.lot_sha256,
            size=len(self.lot),
            alpha=self.promise.alpha,
            delta=self.promise.delta,
            ladder=list(self.promise.ladder),
            earlier=self.earlier,
            policy_sha256=self.policy_sha256,
            design=self.design,
            known_rejects=self.known_rejects,
        )

    @property
    def lot_sha256(self) -> str:
        return files.canonical_sha256(self.lot)

    @property
    def order_seed(self) -> str:
        """The digest that settles the order: of lot, policy and, where it is used, the ranking and its design."""
        if self.design is None:
            return labels.order_seed(self.purpose, self.lot, self.policy_sha256)
        return files.canonical_sha256(
            ["stylegate-audit-3", self.lot, self.policy_sha256, self.design.json_data_without_defaults()]
        )

    @property
    def labelling_order(self) -> list[str]:
        """The sha256 of the lot's pictures in a random order, which follows from lot and policy; weighted with a
        design.
        """
        if self.design is None:
            return labels.shuffled_pictures(self.purpose, self.lot, self.policy_sha256)
        return weighted_order(self.lot, self.order_seed, self.design)

    def bettor_for_labels(self, given: Sequence[Label], size: int, alpha: float) -> audit.Bettor:
        """Who bets on these labels of pictures of the lot's best `size`, against a share of rejects of alpha."""
        if self.design is None:
            return audit.uniform_order_bettor(alpha)
        rank = {sha256: place for place, sha256 in enumerate(self.lot[:size])}
        weights = audit_sampling_weights_by_rank(len(self.lot), self.design)[:size]
        return make_weighted_betting_wealth_function([rank[label.sha256] for label in given], weights, self.design)

    def promise_in_words(self) -> str:
        """The promise of the audit as a sentence, of pictures or, in an audit of traits, of stated traits."""
        return (
            trait_promise_in_words(self.promise) if self.purpose == "traits" else self.promise.promise_sentence_part()
        )

    def audit_results_for_lot_shares(
        self, given: Sequence[Label], answers: Sequence[Label] = ()
    ) -> list[AuditResultOnBestPictures]:
        """What is proven after these labels about each part of the lot, one AuditAttempt each; labels in the plan's
        order. `answers` is what was said of the known rejects.
        """
        ladder = self.promise.ladder
        spends = audit.delta_per_attempt(self.promise.delta, self.earlier + len(ladder))[self.earlier :]
        tests = (
            eyes.known_reject_results_by_reviewer(self.known_rejects, given, answers).values()
            if self.known_rejects
            else None
        )
        return [
            self.audit_result_on_best_pictures(share, delta, given, tests)
            for share, delta in zip(ladder, spends, strict=True)
        ]

    def audit_result_on_best_pictures(
        self, share: float, delta: float, given: Sequence[Label], tests: Collection[KnownRejectResultOfReviewer] | None
    ) -> AuditResultOnBestPictures:
        """What these labels prove about the best `share` (0 to 1) of the lot, spending `delta`. `tests` say what each
        reviewer missed of the known rejects; None: the reviewers are taken to be right.
        """
        alpha, size, miss_rate = self.promise.alpha, max(1, round(share * len(self.lot))), None
        part = set(self.lot[:size])
        asked = [label for label in given if label.sha256 in part]
        bad = [int(label.is_reject) for label in asked]
        if tests is None:
            bettor = self.bettor_for_labels(asked, size, alpha)
            bound = audit.upper_bound_on_reject_share_after_removal(bad, size, alpha, delta, bettor)
            needed = audit.labels_until_proven(bad, size, alpha, delta, bettor) if bound <= alpha else None
        else:
            miss_rate = eyes.bound_on_miss_rate(tests, eyes.SHARES.miss_rate * delta)
            bettor = self.bettor_for_labels(asked, size, alpha * (1 - miss_rate))
            bound = eyes.upper_bound_on_reject_share(bad, size, delta, miss_rate, bettor)
            needed = (
                eyes.labels_until_proven_with_misses(bad, size, alpha, delta, miss_rate, bettor)
                if bound <= alpha
                else None
            )
        return AuditResultOnBestPictures(
            share=share,
            size=size,
            delta=delta,
            labels=len(bad),
            rejects=sum(bad),
            bound=round(bound, 6),
            proven_after=needed,
            miss_rate=None if miss_rate is None else round(miss_rate, 6),
        )

    def fewest_labels(self) -> int | None:
        """Labels until the whole lot is proven if no reject is found and no known reject is missed; None for never."""
        given = [Label(sha256=sha256, verdict="accept", who="nobody", why="") for sha256 in self.labelling_order]
        answers = [Label(sha256=sha256, verdict="reject", who="nobody", why="") for sha256 in self.known_rejects]
        return self.audit_results_for_lot_shares(given, answers)[0].proven_after


def trait_promise_in_words(promise: Promise) -> str:
    """What an audit of traits promises, as half a sentence."""
    share, confidence = percentage_rounded_up(promise.alpha), confidence_percent_rounded_down(promise.delta)
    return f"at most {share} of the stated traits are wrong, with {confidence:.1f}% confidence"


def audit_plan_of_lot(
    out: Path, lot: list[str], policy: Policy, design: RankedAuditDesign | None = None, trusts_reviewers: bool = False
) -> AuditPlan:
    """The audit of this lot that was begun in `out` with the same terms, else a new one. Nothing is written
    (`write_audit_terms` begins an audit).

    If an audit of the lot with these terms was begun, it is the last such one, with the design and the known rejects
    that it has. Otherwise it is a new plan with `design`, which counts the attempts of all earlier audits in the folder
    as spent. `trusts_reviewers`: an audit with known rejects is not gone on with; the new one keeps its order.
    """
    return begun_audit_plan_or_new_one(out, AuditPlan(lot, policy.promise, 0, policy.sha256, design), trusts_reviewers)


def begun_audit_plan_or_new_one(out: Path, new: AuditPlan, trusts_reviewers: bool = False) -> AuditPlan:
    """The plan that was begun with the lot, promise and purpose of `new`; else `new`, after the attempts of all earlier
    audits of that purpose. Nothing is written. `trusts_reviewers` is as above.
    """
    earlier, begun = 0, None
    for terms in read_audit_terms(out, new.purpose):
        same = replace(new, earlier=terms.earlier, design=terms.design, known_rejects=terms.known_rejects)
        if terms == same.audit_terms:
            begun = same
        earlier = terms.earlier + len(terms.ladder)
    if begun is None or (trusts_reviewers and begun.known_rejects):
        return replace(begun or new, earlier=earlier, known_rejects={})
    return begun


def read_audit_terms(out: Path, purpose: Purpose = "audit") -> list[AuditTerms]:
    """The terms of every audit in the folder of a lot, in the order in which they were begun."""
    return labels.read_audit_or_calibration_terms(out, purpose, AuditTerms)


def write_audit_terms(out: Path, plan: AuditPlan) -> None:
    """Write down the lot, its terms and what they may spend of delta, once, before the first picture is shown."""
    if plan.audit_terms not in read_audit_terms(out, plan.purpose):
        labels.append_audit_or_calibration_terms(out, plan.purpose, plan.audit_terms)


def index_of_first_proven_attempt(attempts: Sequence[AuditResultOnBestPictures]) -> int | None:
    """Index of the first attempt that is proven; None if none is."""
    return next((i for i, attempt in enumerate(attempts) if attempt.proven_after is not None), None)


def audit_labels_before_first_gap(out: Path, plan: AuditPlan, policy: Policy) -> list[Label]:
    """The labels that count: those of the first pictures in the plan's order, up to the first picture without a
    label.
    """
    return labels_before_first_gap(plan.labelling_order, labels.valid_labels_by_sha256(out, plan.purpose, policy))


def answers_to_known_rejects(out: Path, plan: AuditPlan, policy: Policy) -> list[Label]:
    """What labels.sqlite in the folder `out` has of the plan's known rejects, in the order given: of each reviewer and
    known reject the first answer that was not taken back.
    """
    found: dict[tuple[str, str], Label] = {}
    for label in labels.read_stored_labels(out, plan.purpose):
        if label.sha256 in plan.known_rejects and label.policy_sha256 == policy.sha256 and not label.withdrawn:
            found.setdefault((label.who, label.sha256), label)
    return list(found.values())
