"""The queue of a review: which pictures a person is asked about, in which order, and for what.

Pictures in review are asked about in an order of each reviewer's own. An audit and a calibration ask about random
pictures in one settled order; their answers count in this order alone, and stay.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from eval.judging.certified import BEYOND
from eval.judging.decisions import checks_that_caused_review
from eval.judging.judged import JudgedLot
from eval.judging.verdicts import PERSON, Verdict, margin_or_minus_infinity
from eval.lot.comparison import ComparisonPictures, known_values_by_planned_trait
from eval.lot.lot import Lot
from eval.policy.model import Policy
from eval.promise.disagreements import Disagreement
from eval.promise.label import Label, Purpose
from stylegate import files
from stylegate.digests import sha256_of_files

BOARD = 24  # reference pictures on the board at most
KNOWN_REJECTS = 60  # hidden in a review at most
KNOWN_SHARE = 0.05  # known rejects for each picture that is asked about
SECOND_LOOKS = 0.1  # share of the pictures that two reviewers are asked about


@dataclass(frozen=True, slots=True)
class ReviewPicture:
    """A picture that the page may show. What the gate found of it is not here: a review is blind."""

    sha256: str
    path: Path
    file: str
    prompt: str = ""
    traits: dict[str, str] = field(default_factory=dict)  # planned


def never_enough_labels(given: list[Label], answers: list[Label]) -> bool:
    """False: pictures in review are asked about until none is left."""
    return False


@dataclass(frozen=True, slots=True)
class ReviewQueue:
    """What a review asks about: pictures of one lot, for one purpose, under one policy and its guideline."""

    out: Path  # the folder of the lot's results, where labels are kept
    title: str
    policy: Policy
    pictures: dict[str, ReviewPicture]  # by sha256: the ones that are asked about
    checks: dict[str, list[str]]  # by sha256: the checks for which a picture is in review, sorted
    board: list[ReviewPicture]  # references, which show the style
    known_rejects: list[ReviewPicture]  # hidden among others: in a review the gate's rejects, in an audit spoilt copies
    trait_values: dict[str, list[str]]  # every value that a planned trait may show
    next_words: str  # the command to run when the review has ended
    second_look_share: float = SECOND_LOOKS
    purpose: Purpose = "review"
    fixed_order: tuple[str, ...] = ()  # of an audit or a calibration; empty for pictures in review
    under: str = ""  # of a calibration: digest of its pool and policy
    # Of an audit or a calibration: whether these labels, and answers to known rejects, are enough.
    has_ended: Callable[[list[Label], list[Label]], bool] = never_enough_labels
    opinions: dict[str, list[dict[str, str]]] = field(
        default_factory=dict
    )  # of disagreements: verdict and why by sha256
    known_reject_window: int = 0  # of an audit: the first pictures, so many, that known rejects are hidden among

    @property
    def digest_of_folder_policy_and_purpose(self) -> str:
        """A digest of the lot's folder, the policy and the purpose: answers are accepted for these alone."""
        return files.canonical_sha256([str(self.out), self.policy.sha256, self.purpose, self.under])

    def question_digest(self, sha256: str, what: str = "") -> str:
        """A digest of the checks for which a picture is in review, which says nothing of them: a review is blind.

        `what` is "repeat" for a picture that is shown to a reviewer again.
        """
        asked = [
            self.policy.sha256,
            sha256,
            *self.checks.get(sha256, []),
            what,
        ]  # JSON takes too long for 10,000 pictures
        return hashlib.sha256("\n".join(asked).encode()).hexdigest()

    def gets_second_reviewer(self, sha256: str) -> bool:
        """Whether a second reviewer is asked about the picture too, as it is for a random share of all."""
        return int(random_order_key("second look", self.policy.sha256, sha256)[:8], 16) < self.second_look_share * 2**32

    def order_for_reviewer(self, who: str) -> list[str]:
        """The sha256 of the pictures, known rejects hidden among them, in a random order that differs between reviewers
        and stays for each of them. An audit and a calibration have one order for all, without known rejects.
        """
        if self.fixed_order:
            return list(self.fixed_order)
        every = [*self.pictures, *(picture.sha256 for picture in self.known_rejects_for(who))]
        return sorted(every, key=lambda sha256: random_order_key(self.policy.sha256, who, sha256))

    def known_rejects_for(self, who: str) -> list[ReviewPicture]:
        """The known rejects that this reviewer is shown without being told, to measure what is missed."""
        if self.fixed_order:
            return self.known_rejects
        mixed = sorted(
            self.known_rejects, key=lambda picture: random_order_key(self.policy.sha256, f"known:{who}", picture.sha256)
        )
        return mixed[: round(KNOWN_SHARE * len(self.pictures))]

    def is_known_reject(self, sha256: str) -> bool:
        """Whether the picture with this content is one of the known rejects."""
        return any(picture.sha256 == sha256 for picture in self.known_rejects)

    def find_picture(self, sha256: str) -> ReviewPicture | None:
        """The picture with this content, if the page may show it."""
        shown = (*self.board, *self.known_rejects)
        return self.pictures.get(sha256) or next((picture for picture in shown if picture.sha256 == sha256), None)


def random_order_key(seed: str, who: str, sha256: str) -> str:
    """A sort key (hex) that puts pictures into a random order, another one for each `who`."""
    return hashlib.sha256(f"{seed}:{who}:{sha256}".encode(errors="replace")).hexdigest()


def queue_of_pictures_in_review(judged: JudgedLot, next_words: str) -> ReviewQueue:
    """The queue of every picture that the gate holds for review, whatever the reason, those included that a person has
    decided; rejects of the gate are its known rejects.
    """
    lot = judged.lot
    paths = dict(lot.files)
    checks: dict[str, set[str]] = {}
    pictures: dict[str, ReviewPicture] = {}
    for verdict in judged.verdicts:
        if can_be_decided_by_a_person(verdict):
            checks.setdefault(verdict.sha256, set()).update(checks_that_caused_review(verdict))
            pictures.setdefault(verdict.sha256, review_picture_of_lot_file(lot, verdict.file, paths[verdict.file]))
    worst = sorted((v for v in judged.verdicts if can_serve_as_known_reject(v)), key=margin_or_minus_infinity)[
        :KNOWN_REJECTS
    ]
    return ReviewQueue(
        out=lot.out,
        title=lot.out.name,
        policy=judged.policy,
        pictures=pictures,
        checks={sha256: sorted(names) for sha256, names in checks.items()},
        board=references_to_show(judged.comparison),
        known_rejects=[
            review_picture_of_lot_file(lot, v.file, paths[v.file]) for v in worst if v.sha256 not in pictures
        ],
        trait_values=known_values_by_planned_trait(lot, judged.comparison),
        next_words=next_words,
    )


def disagreement_queue(borderline: ReviewQueue, found: Iterable[Disagreement]) -> ReviewQueue:
    """The queue of those pictures of `borderline` that reviewers disagree about and nobody has settled, with what was
    said, without names.
    """
    opinions = {
        one.sha256: [{"verdict": label.verdict, "why": label.why} for label in one.labels]
        for one in found
        if one.settled is None and one.sha256 in borderline.pictures
    }
    pictures = {sha256: picture for sha256, picture in borderline.pictures.items() if sha256 in opinions}
    return replace(borderline, pictures=pictures, known_rejects=[], second_look_share=0.0, opinions=opinions)


def audit_or_calibration_queue(
    lot: Lot,
    compared: ComparisonPictures,
    policy: Policy,
    purpose: Purpose,
    order: Iterable[str],
    has_ended: Callable[[list[Label], list[Label]], bool],
    next_words: str,
    under: str = "",
) -> ReviewQueue:
    """The queue of an audit or a calibration: pictures (sha256) in the fixed `order`, until
    `has_ended(labels, answers to known rejects)` is true.
    """
    names = {sha256: name for name, sha256 in lot.sha256.items()}
    settled, paths = tuple(order), dict(lot.files)
    return ReviewQueue(
        out=lot.out,
        title=lot.out.name,
        policy=policy,
        pictures={sha256: review_picture_of_lot_file(lot, names[sha256], paths[names[sha256]]) for sha256 in settled},
        checks={},
        board=references_to_show(compared),
        known_rejects=[],
        trait_values=known_values_by_planned_trait(lot, compared),
        next_words=next_words,
        purpose=purpose,
        fixed_order=settled,
        under=under,
        has_ended=has_ended,
    )


def can_be_decided_by_a_person(verdict: Verdict) -> bool:
    """Whether a decision about the picture can count: it is in review, or was until a person decided about it.

    A picture outside a certificate is not exported, whatever a person decides.
    """
    checks = checks_that_caused_review(verdict)
    others = [reason for reason in verdict.reasons if reason.verdict in ("error", "reject") and reason.check != PERSON]
    return bool(verdict.sha256 and checks and not others and BEYOND not in checks)


def can_serve_as_known_reject(verdict: Verdict) -> bool:
    """Whether the gate rejects the picture by a score; such a picture can be shown, unlike one with an error."""
    return verdict.verdict == "reject" and any(r.verdict == "reject" and r.score is not None for r in verdict.reasons)


def review_picture_of_lot_file(lot: Lot, name: str, path: Path) -> ReviewPicture:
    """The picture `name` of the lot, with its prompt and planned traits if it has a slot."""
    slot = (lot.slots or {}).get(name)
    if slot is None:
        return ReviewPicture(lot.sha256[name], path, name)
    return ReviewPicture(lot.sha256[name], path, name, slot.prompt, slot.traits)


def references_to_show(compared: ComparisonPictures) -> list[ReviewPicture]:
    """Up to BOARD references, spread evenly over all of them."""
    named = compared.references
    chosen = named[:: max(1, -(-len(named) // BOARD))]
    digests = sha256_of_files([path for _, path in chosen])
    return [ReviewPicture(sha256, path, name) for (name, path), sha256 in zip(chosen, digests, strict=True) if sha256]
