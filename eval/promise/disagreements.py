"""Where reviewers disagree: who said what about which picture, and how far they agree in all."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.policy.model import Policy
from eval.promise import agreement, labels
from eval.promise.label import Purpose, StoredLabel
from stylegate.words import counted

ADJUDICATION = "adjudication"
"""What a picture was asked for where reviewers had disagreed: the label settles it, and is no independent opinion."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A picture that one reviewer would export and another would not."""

    sha256: str
    labels: tuple[StoredLabel, ...]  # the last one of each reviewer, in the order given
    settled: StoredLabel | None  # the label of an adjudication that came after all of them; None for none yet


def disagreements(out: Path, purpose: Purpose, policy: Policy) -> list[Disagreement]:
    """The pictures that reviewers disagree about, settled or not, by the labels for `purpose` under `policy` in the
    folder of a lot.

    A reviewer who changed a label agrees or disagrees by the last one. "unsure" counts as a reject.
    """
    about: dict[str, list[StoredLabel]] = {}
    for label in labels_that_count_under_policy(out, purpose, policy):
        about.setdefault(label.sha256, []).append(label)
    return [found for given in about.values() if (found := disagreement_in_labels(given))]


def disagreement_in_labels(given: Sequence[StoredLabel]) -> Disagreement | None:
    """How reviewers disagree about one picture, by its labels that count, in the order given; None where they do not.

    A label that somebody adds after an adjudication is another opinion: if they disagree then, it is open again.
    """
    opinions = last_label_per_reviewer_and_picture(given)
    if len({label.is_reject for label in opinions}) < 2:
        return None
    return Disagreement(given[0].sha256, tuple(opinions), given[-1] if given[-1].asked_for == ADJUDICATION else None)


def agreement_of_reviewers(out: Path, purpose: Purpose, policy: Policy) -> agreement.AgreementCoefficients:
    """How far the reviewers agree about the pictures that several of them labelled for `purpose` under `policy`."""
    table: dict[str, dict[str, str]] = {}
    for label in last_label_per_reviewer_and_picture(labels_that_count_under_policy(out, purpose, policy)):
        table.setdefault(label.who, {})[label.sha256] = "reject" if label.is_reject else "accept"
    return agreement.measure_agreement(table)


def self_agreement_by_reviewer(
    out: Path, purpose: Purpose, policy: Policy
) -> dict[str, agreement.AgreementCoefficients]:
    """By reviewer, how far labels agree with the same person's labels of pictures that were shown again (repeat)."""
    given = [
        label
        for label in labels.read_stored_labels(out, purpose)
        if label.policy_sha256 == policy.sha256 and not label.withdrawn
    ]
    first = {(label.who, label.sha256): label for label in given if label.is_neither_withdrawn_nor_reviewer_test}
    again = [label for label in given if label.asked_for == "repeat" and (label.who, label.sha256) in first]
    tables: dict[str, dict[str, dict[str, str]]] = {}
    for label in again:
        table = tables.setdefault(label.who, {"first": {}, "again": {}})
        for name, one in (("first", first[label.who, label.sha256]), ("again", label)):
            table[name][label.sha256] = "reject" if one.is_reject else "accept"
    return {who: agreement.measure_agreement(table) for who, table in tables.items()}


def notes_on_disagreements(out: Path, policy: Policy) -> list[str]:
    """A sentence about decisions in which reviewers disagree, unless an adjudication settled them; [] for none."""
    count = sum(found.settled is None for found in disagreements(out, "review", policy))
    if not count:
        return []
    them = counted(count, "picture")
    return [
        f"reviewers disagree about {them}: the last decision about each counts; stylegate review queue=disagreements "
        "settles them"
    ]


def labels_that_count_under_policy(out: Path, purpose: Purpose, policy: Policy) -> list[StoredLabel]:
    """The labels for `purpose` that were given under `policy` and say something about their pictures, in order."""
    given = labels.read_stored_labels(out, purpose)
    return [
        label
        for label in given
        if label.policy_sha256 == policy.sha256 and label.is_neither_withdrawn_nor_reviewer_test
    ]


def last_label_per_reviewer_and_picture(given: Iterable[StoredLabel]) -> list[StoredLabel]:
    """The last label of each reviewer about each picture, those of adjudications left out, in the order given."""
    found: dict[tuple[str, str], StoredLabel] = {}
    for label in given:
        if label.asked_for != ADJUDICATION:
            found.pop((label.who, label.sha256), None)
            found[label.who, label.sha256] = label
    return list(found.values())
