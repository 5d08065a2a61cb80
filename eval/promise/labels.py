"""What people say about pictures, kept as JSON Lines in the folder of a lot: decisions, and labels of two kinds.

Each purpose has a file of its own, and its labels never serve another purpose: pictures in review are no random sample,
so decisions cannot certify; labels that chose a threshold cannot prove it. Each label names the policy and the
guideline under which it was given, and counts under that policy alone. eval/promise/worksheet.py reads the tables that
people fill in.
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Field, ValidationError

from eval.policy.model import Policy
from stylegate import files
from stylegate.errors import DataError
from stylegate.records import Record, problems_of
from stylegate.words import counted

Row = TypeVar("Row", bound=Record)
Purpose = Literal["review", "calibrate", "audit"]
STREAMS: dict[Purpose, str] = {"review": "decisions.jsonl", "calibrate": "calibration.jsonl", "audit": "audit.jsonl"}
LabelName = Literal["accept", "reject", "unsure"]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Label(Record):
    """What one person says about one picture."""

    sha256: Sha256
    """sha256 of the picture's bytes, 64 hex digits."""
    verdict: LabelName
    """Whether the person would export the picture. `unsure` is a reject, but in review it asks for another look."""
    who: str = Field(min_length=1)
    """Who answers for it."""
    why: str
    """A reason in the person's own words; may be empty."""

    @property
    def is_reject(self) -> bool:
        """Whether the picture counts as a reject: the label is "reject" or "unsure", since nobody exports what is in
        doubt.
        """
        return self.verdict != "accept"

    def words(self) -> str:
        """Who gave the label and why, as text."""
        return f"{self.who}: {self.why}" if self.why else self.who


class StoredLabel(Label):
    """A line of decisions.jsonl, calibration.jsonl or audit.jsonl: a label, and what it was asked for."""

    policy_sha256: str = ""
    """sha256 of the policy under which it was given. Empty in files of older versions: it counts for nothing."""
    guideline: str = ""
    """The guideline of that policy: what a reject is."""
    checks: list[str] = Field(default_factory=list)
    """Of a decision: the checks for which the picture stood in review, sorted. It settles these and no others."""
    under: str = ""
    """Of a calibration: digest of the pool of pictures and of the policy."""
    withdrawn: bool = False
    """The person took the label back before the next picture was shown; it counts for nothing."""


def read_stored_labels(out: Path, purpose: Purpose) -> list[StoredLabel]:
    """Every label for `purpose` in the folder `out`, in the order given. Raises DataError for a damaged file."""
    return read_rows(out, purpose, StoredLabel)


def read_rows(out: Path, purpose: Purpose, kind: type[Row]) -> list[Row]:
    """The rows of type `kind` in the file of `purpose`: labels (StoredLabel), or the terms written before the first
    label.

    A row that names a picture is a label. Raises DataError with every problem of the rows that are read.
    """
    path, found, problems = out / STREAMS[purpose], [], []
    for number, row in enumerate(files.read_jsonl(path), start=1):
        if ("sha256" in row) != issubclass(kind, StoredLabel):
            continue
        try:
            found.append(kind.model_validate({"why": ""} | row if issubclass(kind, StoredLabel) else row))
        except ValidationError as error:
            problems += [f"row {number}: {problem}" for problem in problems_of(error)]
    if problems:
        raise DataError(
            f"{files.display_path(path)} is not as stylegate writes it:",
            problems,
            "remove it; labels that are in a CSV file can be given again.",
        )
    return found


def valid_labels_by_sha256(out: Path, purpose: Purpose, policy: Policy, under: str = "") -> dict[str, StoredLabel]:
    """The labels that count under `policy`, by sha256 of the picture; of two about one picture the later one.

    `under` is the digest of a calibration's pool and policy, empty for other purposes. Labels that were given under
    another policy or guideline, or by an older version that wrote neither down, are left out.
    """
    found: dict[str, StoredLabel] = {}
    for label in read_stored_labels(out, purpose):
        if label.policy_sha256 != policy.sha256 or label.under != under:
            continue
        found.pop(label.sha256, None)
        if not label.withdrawn:
            found[label.sha256] = label
    return found


def rejects_under_other_policies(out: Path, policy: Policy) -> dict[str, StoredLabel]:
    """The labels that call a picture a reject under another policy or guideline, by sha256.

    Of several labels with the same purpose and policy the last one counts. Pictures that an audit or a calibration
    under `policy` has labelled are left out.
    """
    found: dict[str, StoredLabel] = {}
    seen: set[str] = set()
    for purpose in STREAMS:
        firm = (label for label in read_stored_labels(out, purpose) if purpose != "review" or label.verdict != "unsure")
        last = {(label.sha256, label.policy_sha256): label for label in firm}
        for (sha256, under), label in last.items():
            if label.withdrawn:
                continue
            if under != policy.sha256 and (label.verdict == "reject" or (purpose != "review" and label.is_reject)):
                found[sha256] = label
            elif under == policy.sha256 and (purpose == "audit" or (purpose == "calibrate" and not label.is_reject)):
                seen.add(sha256)
    return {sha256: label for sha256, label in found.items() if sha256 not in seen}


def notes_on_labels_of_other_policies(out: Path, purpose: Purpose, policy: Policy) -> list[str]:
    """A sentence about labels that do not count, since they were given under another policy or guideline."""
    others = {label.sha256 for label in read_stored_labels(out, purpose) if label.policy_sha256 != policy.sha256}
    others -= {label.sha256 for label in read_stored_labels(out, purpose) if label.policy_sha256 == policy.sha256}
    if not others:
        return []
    were = "was" if len(others) == 1 else "were"
    return [
        f"{counted(len(others), 'decision' if purpose == 'review' else 'label')} in {STREAMS[purpose]} {were} given "
        "under another policy or guideline (or by an older version that did not write it down): to accept counts for "
        "nothing here, to reject asks for review"
    ]


def append_labels(out: Path, purpose: Purpose, labels: Iterable[StoredLabel]) -> None:
    """Append labels to the file of `purpose` in the folder `out`; each survives a kill from then on."""
    for label in labels:
        files.append_jsonl(out / STREAMS[purpose], {"why": label.why} | label.content())


def stored_label(label: Label, policy: Policy, **more: object) -> StoredLabel:
    """The label with the policy and guideline under which it is given; `more` are further fields of StoredLabel."""
    terms = {"policy_sha256": policy.sha256, "guideline": policy.guideline}
    return StoredLabel.model_validate(label.model_dump(include=set(Label.model_fields)) | terms | more)


def shuffled_pictures(purpose: str, pictures: Iterable[str], policy_sha256: str) -> list[str]:
    """The sha256 of the pictures in a random order that follows from `order_seed`, so that anyone computes the same."""
    seed = order_seed(purpose, pictures := list(pictures), policy_sha256)
    return sorted(pictures, key=lambda sha256: hashlib.sha256(f"{seed}:{sha256}".encode()).hexdigest())


def order_seed(purpose: str, pictures: Iterable[str], policy_sha256: str) -> str:
    """The digest that settles a random order: of the purpose, of which pictures they are, and of the policy.

    The policy is part of it since a guideline may be rewritten after the first pictures were seen: what a reject is
    must be settled before the order is.
    """
    return files.canonical_sha256([f"stylegate-{purpose}-2", sorted(pictures), policy_sha256])


def labels_before_gap(order: Iterable[str], known: Mapping[str, Label]) -> list[Label]:
    """The labels of the first pictures of `order`, up to the first picture without one."""
    found: list[Label] = []
    for sha256 in order:
        if sha256 not in known:
            break
        found.append(known[sha256])
    return found
