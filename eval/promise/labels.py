"""What people say about pictures, kept in the folder of a lot: decisions, and labels of two kinds.

Each purpose has rows of its own, and its labels never serve another purpose: pictures in review are no random sample,
so decisions cannot certify; labels that chose a threshold cannot prove it. Each label names the policy and the
guideline under which it was given, and counts under that policy alone. Labels of several people about one picture all
stay; the last one counts. eval/promise/store.py keeps them in labels.sqlite; eval/promise/worksheet.py reads the tables
that people fill in.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar, get_args

from pydantic import ValidationError

from eval.policy.model import Policy
from eval.promise import store
from eval.promise.label import Label, LabelName, Purpose, Sha256, StoredLabel, Undo
from eval.promise.older import NewLabelStoreRow, label_content
from stylegate import files
from stylegate.errors import DataError
from stylegate.records import Record, validation_problems
from stylegate.words import counted

__all__ = ["PURPOSES", "Label", "LabelName", "Purpose", "Sha256", "StoredLabel", "Undo"]

Terms = TypeVar("Terms", bound=Record)
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
DECIDES: tuple[Purpose, ...] = ("review", "traits")  # purposes of labels that are no evidence about a lot of pictures


def read_stored_labels(out: Path, purpose: Purpose) -> list[StoredLabel]:
    """Every label for `purpose` in the folder `out`, in the order given; those that were taken back are `withdrawn`.

    Raises DataError for a damaged store.
    """
    return labels_for_purpose_from_rows(store.read_all_label_store_rows(out), purpose, out)


def digests_labelled_as_evidence(out: Path) -> set[str]:
    """The sha256 of every picture that was labelled in the lot of the folder `out` as evidence: for an audit, for a
    calibration, or in a sample of rejected pictures, under whatever policy.
    """
    return {
        label.sha256 for purpose in PURPOSES if purpose not in DECIDES for label in read_stored_labels(out, purpose)
    }


def labels_for_purpose_from_rows(rows: Iterable[store.LabelStoreRow], purpose: Purpose, out: Path) -> list[StoredLabel]:
    """The labels for `purpose` among the rows of the store of the folder `out`, in order."""
    rows = [row for row in rows if row.purpose == purpose]
    withdrawn = ids_taken_back(rows)
    return [
        parse_row_content(row, StoredLabel, out, {"id": row.id, "time": row.time, "withdrawn": row.id in withdrawn})
        for row in rows
        if row.kind == "label"
    ]


def ids_taken_back(rows: Iterable[store.LabelStoreRow]) -> set[str]:
    """The ids of the rows that do not count, since a later undo that counts itself takes them back."""
    found: set[str] = set()
    for row in reversed([row for row in rows if row.kind == "undo"]):
        if row.id not in found:
            found.add(json.loads(row.content)["takes_back"])
    return found


def read_audit_or_calibration_terms(out: Path, purpose: Purpose, kind: type[Terms]) -> list[Terms]:
    """The terms of type `kind` for `purpose`, which were written down before the first label, in the order given.

    Raises DataError for a damaged store, or for terms that are not of that type.
    """
    rows = store.read_all_label_store_rows(out)
    return [parse_row_content(row, kind, out) for row in rows if row.purpose == purpose and row.kind == "terms"]


def parse_row_content(
    row: store.LabelStoreRow, kind: type[Terms], out: Path, more: Mapping[str, object] | None = None
) -> Terms:
    """The record that a row of the store of the folder `out` holds, with the fields `more`. Raises DataError."""
    try:
        return kind.model_validate(json.loads(row.content) | (more or {}))
    except ValidationError as error:
        raise DataError(
            f"row {row.number} of {files.display_path(out / store.STORE)} is not as stylegate writes it:",
            validation_problems(error),
            "a newer stylegate may have written it; else move the file away: labels in a CSV file can be given again.",
        ) from None


def valid_labels_by_sha256(out: Path, purpose: Purpose, policy: Policy, under: str = "") -> dict[str, StoredLabel]:
    """The labels that count under `policy`, by sha256 of the picture; of several about one picture the last one.

    `under` is the digest of a calibration's pool and policy, empty for other purposes. Labels that were taken back,
    that were asked for to measure a person, or that were given under another policy or guideline, or by an older
    version that wrote neither down, are left out.
    """
    found: dict[str, StoredLabel] = {}
    for label in read_stored_labels(out, purpose):
        if (
            label.is_neither_withdrawn_nor_reviewer_test
            and label.policy_sha256 == policy.sha256
            and label.under == under
        ):
            found.pop(label.sha256, None)
            found[label.sha256] = label
    return found


def labels_rejecting_under_other_policies(out: Path, policy: Policy) -> dict[str, StoredLabel]:
    """The labels that call a picture a reject under another policy or guideline, by sha256.

    Of several labels with the same purpose and policy the last one counts. Pictures that an audit under `policy` has
    labelled, or a calibration under it accepted, are left out.
    """
    found: dict[str, StoredLabel] = {}
    seen: set[str] = set()
    rows = store.read_all_label_store_rows(out)
    for purpose in PURPOSES:
        deciding = [
            label
            for label in labels_for_purpose_from_rows(rows, purpose, out)
            if label.is_neither_withdrawn_nor_reviewer_test
        ]
        firm = (label for label in deciding if purpose != "review" or label.verdict != "unsure")
        last = {(label.sha256, label.policy_sha256): label for label in firm}
        for (sha256, under), label in last.items():
            if under != policy.sha256 and (label.verdict == "reject" or (purpose != "review" and label.is_reject)):
                found[sha256] = label
            elif under == policy.sha256 and (purpose == "audit" or (purpose == "calibrate" and not label.is_reject)):
                seen.add(sha256)
    return {sha256: label for sha256, label in found.items() if sha256 not in seen}


def notes_on_labels_of_other_policies(out: Path, purpose: Purpose, policy: Policy) -> list[str]:
    """A sentence about labels that do not count, since they were given under another policy or guideline."""
    given = [label for label in read_stored_labels(out, purpose) if label.is_neither_withdrawn_nor_reviewer_test]
    others = {label.sha256 for label in given if label.policy_sha256 != policy.sha256}
    others -= {label.sha256 for label in given if label.policy_sha256 == policy.sha256}
    if not others:
        return []
    were = "was" if len(others) == 1 else "were"
    names = {
        "review": ("decision", "decisions"),
        "calibrate": ("label of calibrations", "labels of calibrations"),
        "audit": ("label of audits", "labels of audits"),
        "traits": ("label of traits", "labels of traits"),
        "rejected": ("label of rejected pictures", "labels of rejected pictures"),
    }
    return [
        f"{counted(len(others), *names[purpose])} in {store.STORE} {were} given "
        "under another policy or guideline (or by an older version that did not write it down): to accept counts for "
        "nothing here, to reject asks for review"
    ]


def append_labels(out: Path, purpose: Purpose, labels: Iterable[StoredLabel]) -> list[StoredLabel]:
    """Store labels for `purpose` in the folder `out`, all or none; nothing loses them once this returns.

    A label whose id is stored already is the same label, and is not stored twice. Returns them with id and time. Raises
    DataError, and stores none, for an id that is another label's, and where a label for an audit or a calibration would
    turn a reject that counts into a good picture, whoever gives it.
    """
    new = list(labels)

    def refuse_reversal_of_rejects(rows: list[store.LabelStoreRow]) -> None:
        """Raises DataError if a new label calls a picture good whose label that counts in `rows` is a reject."""
        stored = labels_for_purpose_from_rows(rows, purpose, out)
        known = {label.id for label in stored}
        rejects = {
            key_of_picture_policy_and_pool(label): label
            for label in stored
            if label.is_neither_withdrawn_nor_reviewer_test and label.is_reject
        }
        good = [
            label
            for label in new
            if label.is_neither_withdrawn_nor_reviewer_test and not label.is_reject and label.id not in known
        ]
        turned = [
            (label, rejects[key_of_picture_policy_and_pool(label)])
            for label in good
            if key_of_picture_policy_and_pool(label) in rejects
        ]
        if turned:
            raise DataError(
                f"labels for {purpose} do not turn a reject into a good picture:",
                [f"{now.sha256[:12]}...: {was.verdict} ({was.who}), now accept ({now.who})" for now, was in turned],
            )

    rows = store.append_label_store_rows(
        out,
        [NewLabelStoreRow(purpose, "label", label_content(label), label.id) for label in new],
        None if purpose == "review" else refuse_reversal_of_rejects,
    )
    return [parse_row_content(row, StoredLabel, out, {"id": row.id, "time": row.time}) for row in rows]


def key_of_picture_policy_and_pool(label: StoredLabel) -> tuple[str, str, str]:
    """(sha256 of the picture, of the policy, `under`): two labels with the same three answer the same question."""
    return label.sha256, label.policy_sha256, label.under


def append_audit_or_calibration_terms(out: Path, purpose: Purpose, terms: Record) -> None:
    """Write down the terms of an audit or a calibration, before the first picture is shown."""
    store.append_label_store_rows(out, [NewLabelStoreRow(purpose, "terms", terms.json_data_without_defaults())])


def append_undo(out: Path, purpose: Purpose, takes_back: str, who: str, undo_id: str = "") -> store.LabelStoreRow:
    """Take a label back, or an earlier undo: store the row that says so. Returns it; if it was stored before, that one.

    `takes_back` is the id of the row that counts no more; `undo_id` is the id of the new row, a UUID that whoever asks
    chooses, or empty for one that the store chooses. A label for an audit or a calibration can be taken back only as
    long as nothing came after it for that purpose: whoever could change answers after having seen more could choose
    when to stop. Raises DataError for one that must stay, and where no row for the purpose has the id.
    """

    def check_undo_is_not_late(rows: list[store.LabelStoreRow]) -> None:
        """Raises DataError if `rows` lack the row that is taken back, or, but for a review, one came after it."""
        target = next((row for row in rows if row.id == takes_back and row.kind != "terms"), None)
        if target is None:
            raise DataError(f"nothing that was said for {purpose} has the id {takes_back}: it cannot be taken back")
        if purpose != "review" and target is not rows[-1]:
            raise DataError(
                f"labels for {purpose} stay once the next answer is given: whoever could change them after having seen "
                "more could choose when to stop"
            )

    undo = Undo(takes_back=takes_back, who=who)
    return store.append_label_store_rows(
        out, [NewLabelStoreRow(purpose, "undo", undo.json_data_without_defaults(), undo_id)], check_undo_is_not_late
    )[0]


def label_with_policy(label: Label, policy: Policy, **more: object) -> StoredLabel:
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


def labels_before_first_gap(order: Iterable[str], known: Mapping[str, Label]) -> list[Label]:
    """The labels of the first pictures of `order`, up to the first picture without one."""
    found: list[Label] = []
    for sha256 in order:
        if sha256 not in known:
            break
        found.append(known[sha256])
    return found
