"""A commitment to a plan: published before anything is drawn, it shows afterwards that the plan was not changed.

commitment.json holds sha256(salt || plan.parquet) and is for publishing. commitment.salt stays in the house until the
plan is opened: without it nobody can guess the plan from the hash. Whoever has both and the plan can check it with
`cat commitment.salt plan.parquet | sha256sum`, or `stylegate verify FOLDER/commitment.json`.
"""

import hashlib
import json
import secrets
from pathlib import Path
from typing import Literal

from eval.lot.batch import PLAN, read_plan
from stylegate import files
from stylegate.errors import DataError
from stylegate.records import Record

COMMITMENT, SALT = "commitment.json", "commitment.salt"


class Commitment(Record):
    """commitment.json: a plan that was settled, without showing it."""

    commitment: str
    """sha256 (hex) of the 32 bytes of commitment.salt and then the bytes of plan.parquet."""
    algorithm: Literal["sha256(salt || plan.parquet)"]
    """How it is computed."""
    slots: int
    """The number of slots of the plan."""


def opened(folder: Path) -> str:
    return hashlib.sha256((folder / SALT).read_bytes() + (folder / PLAN).read_bytes()).hexdigest()


def commit(folder: Path, slots: int) -> None:
    """Write the commitment to the plan of a folder. One that opens to this plan already stays as it is."""
    if (folder / COMMITMENT).exists() and (folder / SALT).exists():
        before = Commitment.read(folder / COMMITMENT, "the commitment", "remove it and plan again.")
        if before.commitment == opened(folder):
            return
    files.write_atomically(folder / SALT, secrets.token_bytes(32))
    (folder / SALT).chmod(0o600)
    Commitment(commitment=opened(folder), algorithm="sha256(salt || plan.parquet)", slots=slots).write(
        folder / COMMITMENT
    )


def check(path: Path) -> str:
    """What a commitment that holds says. Raises DataError if the plan or the salt beside it is another."""
    found = Commitment.read(path, "the commitment")
    missing = [name for name in (SALT, PLAN) if not (path.parent / name).is_file()]
    if missing:
        raise DataError(f"{path} cannot be opened: {' and '.join(missing)} is not beside it")
    if opened(path.parent) != found.commitment or len(read_plan(path.parent)) != found.slots:
        raise DataError(f"{path} does not hold: {PLAN} or {SALT} is not the one that was committed to")
    return f"holds: the plan of {found.slots} slots is the one that was committed to"


def is_commitment(path: Path) -> bool:
    try:
        return "algorithm" in json.loads(path.read_bytes())
    except ValueError:
        return False
