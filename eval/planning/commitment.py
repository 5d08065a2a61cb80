"""A commitment to a plan: published before anything is drawn, it shows afterwards that the plan was not changed.

commitment.json holds sha256(salt || plan.jsonl) and is for publishing. plan.jsonl says the same as plan.parquet, in a
form that people can read without any program. commitment.salt stays in the house until the plan is opened: without it
nobody can guess the plan from the hash. Whoever has both and the plan can check it with
`cat commitment.salt plan.jsonl | sha256sum`, or `stylegate verify FOLDER/commitment.json`.
"""

import hashlib
import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import rfc8785

from eval.lot.batch import PLAN, PlanSlot, read_plan
from stylegate import files
from stylegate.errors import DataError
from stylegate.records import Record

COMMITMENT, SALT, PLAN_TEXT = "commitment.json", "commitment.salt", "plan.jsonl"
SALT_BYTES = 32
ALGORITHM = "sha256(salt || plan.jsonl)"


class PlanCommitment(Record):
    """commitment.json: a plan that was settled, without showing it."""

    commitment: str
    """sha256 (hex) of the 32 bytes of commitment.salt and then the bytes of the plan's file."""
    algorithm: Literal["sha256(salt || plan.jsonl)", "sha256(salt || plan.parquet)"]
    """How it is computed, and of which file: commitments made before there was plan.jsonl are of plan.parquet."""
    slots: int
    """The number of slots of the plan."""


def compute_commitment(folder: Path, plan: str = PLAN_TEXT) -> str:
    """The commitment (hex) to the plan in the file `plan` of a folder, computed with the salt that lies in the
    folder; "" for a salt of another length, which could hold the first slots of the plan.
    """
    salt = (folder / SALT).read_bytes()
    return hashlib.sha256(salt + (folder / plan).read_bytes()).hexdigest() if len(salt) == SALT_BYTES else ""


def plan_as_json_lines(slots: Sequence[PlanSlot]) -> str:
    """The content of plan.jsonl: a line of canonical JSON for each slot. A slot without a name has no key for it: what
    was committed to before there were names stays as it was.
    """
    rows = [slot.model_dump(mode="json", exclude=None if slot.name else {"name"}) for slot in slots]
    return "".join(rfc8785.dumps(row).decode() + "\n" for row in rows)


def write_plan_text_and_commitment(folder: Path, slots: Sequence[PlanSlot]) -> None:
    """Write plan.jsonl, and a commitment to it with a new salt; one that opens to this plan already stays as it is."""
    files.write_atomically(folder / PLAN_TEXT, plan_as_json_lines(slots))
    if (folder / COMMITMENT).exists() and (folder / SALT).exists():
        before = PlanCommitment.read_json_file(folder / COMMITMENT, "the commitment", "remove it and plan again.")
        if before.algorithm == ALGORITHM and before.commitment == compute_commitment(folder):
            return
    files.write_atomically(folder / SALT, secrets.token_bytes(SALT_BYTES))
    (folder / SALT).chmod(0o600)
    PlanCommitment(commitment=compute_commitment(folder), algorithm=ALGORITHM, slots=len(slots)).write_json_file(
        folder / COMMITMENT
    )


def verify_plan_commitment(path: Path) -> str:
    """Compute a commitment again from the plan and the salt beside it; returns a sentence on what it proves. Raises
    DataError if the plan or the salt beside it is another.
    """
    found, folder = PlanCommitment.read_json_file(path, "the commitment"), path.parent
    plan = PLAN_TEXT if found.algorithm == ALGORITHM else PLAN
    names = sorted({SALT, PLAN, plan})
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"{path} cannot be opened: {' and '.join(missing)} is not beside it",
            next_step=f"copy {', '.join(names[:-1])} and {names[-1]} from the batch's folder beside it.",
        )
    slots = read_plan(folder)
    if compute_commitment(folder, plan) != found.commitment or len(slots) != found.slots:
        raise DataError(f"{path} does not hold: {plan} or {SALT} is not the one that was committed to")
    if plan == PLAN_TEXT and (folder / plan).read_text(encoding="utf-8") != plan_as_json_lines(slots):
        raise DataError(f"{path} does not hold: {PLAN} is not the plan that {plan} says and that was committed to")
    return f"holds: the plan of {found.slots} slots is the one that was committed to"


def is_commitment_file(path: Path) -> bool:
    """Whether a file is a JSON object with the key `algorithm`, as commitment.json is. Raises OSError if it cannot be
    read.
    """
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and "algorithm" in found
