"""proof/labels.json: which labels the gate read, as hashes that say nothing of who gave them or what they say."""

from collections.abc import Sequence
from pathlib import Path

from eval.judging.record import GateRecord
from eval.promise import store
from eval.promise.labels import PURPOSES
from stylegate.errors import ConfigError
from stylegate.records import Record
from stylegate.words import counted

LABEL_HEADS = "proof/labels.json"


class LastLabelRowHashByPurpose(Record):
    """For each purpose, the hash of the last row of labels.sqlite that the gate read; left out for one without rows.

    It vouches for all rows up to that one, since each row holds the hash of the row before.
    """

    review: str = ""
    """Of decisions."""
    calibrate: str = ""
    """Of labels that chose a calibrated line."""
    audit: str = ""
    """Of labels that certify."""
    traits: str = ""
    """Of labels that audit the stated traits."""
    rejected: str = ""
    """Of labels that say how many good pictures the gate rejects."""


def last_label_row_hashes(outcome: GateRecord) -> LastLabelRowHashByPurpose | None:
    """The hashes of the last label rows, from a gate's record; None if it names none, as before any label is given."""
    found = LastLabelRowHashByPurpose(
        **{
            purpose: outcome.evidence.get(store.gate_evidence_key_for_label_purpose(purpose)) or ""
            for purpose in PURPOSES
        }
    )
    return found if found.json_data_without_defaults() else None


def read_label_rows_from_argument(words: Sequence[str]) -> list[store.LabelStoreRow] | None:
    """The rows of the labels.sqlite that a word `labels=FILE` names; None without one.

    Raises ConfigError if there is no such file, and DataError if it is damaged or was changed.
    """
    given = [word.removeprefix("labels=") for word in words if word.startswith("labels=")]
    if not given:
        return None
    path = Path(given[-1]).expanduser()
    if path.name != store.STORE or not path.is_file():
        raise ConfigError(f"labels={given[-1]} is no file {store.STORE}", next_step="name the one in the lot's folder.")
    return store.read_all_label_store_rows(path.parent)


def check_label_rows_match_package_hashes(
    package: Path, rows: Sequence[store.LabelStoreRow]
) -> tuple[list[str], list[str], list[str]]:
    """(proven, not proven, wrong): sentences on whether `rows`, of the lot's labels.sqlite, hold the last row for each
    purpose that a package names by its hash.
    """
    path = package / LABEL_HEADS
    if not path.is_file():
        return [], ["the package names no labels: nobody had given any, or an older stylegate made it"], []
    named = LastLabelRowHashByPurpose.read_json_file(
        path, "what the package says of labels"
    ).json_data_without_defaults()
    numbers = {(row.purpose, row.hash): row.number for row in rows}
    wrong = [
        f"{store.STORE} has not the last row for {name} that the gate read"
        for name in named
        if (name, named[name]) not in numbers
    ]
    if wrong or not named:
        return [], [], wrong or [f"{LABEL_HEADS} names no row"]
    last = max(numbers[name, head] for name, head in named.items())
    return [f"{store.STORE} begins with the {counted(last, 'row')} that the gate read"], [], []
