"""A preference set on disk: pairs of pictures that were drawn for the same words, of which one is better.

`stylegate preferences` makes it, `stylegate train objective=dpo` reads it. It is an imagefolder, which
`datasets.load_dataset(FOLDER)` reads with the columns chosen, rejected (pictures), prompt, seeds, sources and digests:

    metadata.jsonl       a row for each pair
    images/<sha256>.png  each picture once
    preferences.json     what the pictures were drawn with, their licence, and what was left out
"""

import hashlib
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, ValidationError

from stylegate import files, pictures
from stylegate.brandset import BrandPicture, BrandSet
from stylegate.errors import DataError
from stylegate.records import Record, validation_problems
from stylegate.words import counted

RECORD, ROWS, IMAGES = "preferences.json", "metadata.jsonl", "images"
NAMED = 5  # problems of pairs that a message lists
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Source = Literal["gate", "person"]
MAKE_AGAIN = "stylegate preferences makes a new one."


class PreferencePair(Record):
    """A row of metadata.jsonl: two pictures that were drawn for the same slot, of which `chosen` was accepted."""

    chosen_file_name: str
    """The accepted picture's file, relative to the folder."""
    rejected_file_name: str
    """The rejected picture's file, relative to the folder."""
    prompt: str
    """The words that both were drawn for."""
    chosen_sha256: Sha256
    rejected_sha256: Sha256
    chosen_seed: int | None
    """The seed that the picture was drawn with; null where a person changed the picture or put it there."""
    rejected_seed: int | None
    """The same of the rejected picture."""
    chosen_by: Source
    """Who decided: `gate`, or a `person`, whose decision outranks the gate's verdict."""
    rejected_by: Source
    """The same of the rejected picture."""
    rejected_for: list[str]
    """The checks that rejected the picture, the worst one first; `person` where a person did."""
    slot: int
    """Number of the slot in the plan of the batch."""


class PreferenceSetRecord(Record):
    """preferences.json: where the pairs come from."""

    pairs: int
    """Number of rows of metadata.jsonl."""
    sha256: Sha256
    """sha256 of metadata.jsonl, and so of every picture, whose digests it holds."""
    brand: str
    """Name of the brand, as brand.yaml has it."""
    licence: str
    """Licence of the brand's pictures, from which the LoRA that drew these learned."""
    source: str
    """Where the brand's pictures come from."""
    brand_sha256: str
    """Digest of the brand set when the batch was planned."""
    base_sha256: str
    """Digest of the base model that drew the pictures."""
    lora_sha256: str | None
    """sha256 of the LoRA that drew the pictures; null where the base drew alone."""
    run: str | None
    """Name of the training run's folder whose LoRA that is; null where a file was named."""
    batch: str
    """Name of the batch."""
    plan_sha256: str
    """sha256 of the batch's plan.parquet."""
    policy_sha256: str
    """sha256 of the policy that judged the pictures."""
    decisions_sha256: str | None
    """Hash of the last decision about pictures in review, which vouches for those before it; null for none."""
    left_out: dict[str, int]
    """How many pictures are in no pair, by reason."""


class PreferenceSet(NamedTuple):
    """A preference set that was read and checked."""

    folder: Path
    record: PreferenceSetRecord
    pairs: list[PreferencePair]

    def chosen_then_rejected_pictures(self) -> list[BrandPicture]:
        """The chosen pictures of all pairs, in order, then the rejected ones in the same order."""
        rows = [(pair, pair.chosen_file_name, pair.chosen_sha256) for pair in self.pairs]
        rows += [(pair, pair.rejected_file_name, pair.rejected_sha256) for pair in self.pairs]
        return [BrandPicture(name, pair.prompt, {}, self.folder / name, sha256) for pair, name, sha256 in rows]


def preference_picture_file(sha256: str) -> str:
    """The file of a picture in a preference set, relative to its folder."""
    return f"{IMAGES}/{sha256}.png"


def read_preference_set(folder: str) -> PreferenceSet:
    """Read a preference set and check every picture of it.

    Raises DataError listing every problem: rows and digest that do not fit, missing or changed pictures, no pairs, a
    pair of the same picture twice or of two sizes.
    """
    place = Path(folder).expanduser().resolve()
    shown = files.display_path(place)
    if not (place / RECORD).is_file():
        raise DataError(f"preferences={folder} is not a preference set: it has no {RECORD}", next_step=MAKE_AGAIN)
    record = PreferenceSetRecord.read_json_file(place / RECORD, "the preference set", MAKE_AGAIN)
    content = (place / ROWS).read_bytes() if (place / ROWS).is_file() else b""
    if hashlib.sha256(content).hexdigest() != record.sha256:
        raise DataError(f"{shown}/{ROWS} is not what {RECORD} speaks of", next_step=MAKE_AGAIN)
    pairs: dict[int, PreferencePair] = {}  # by the number of its row
    problems: list[str] = []
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            pairs[number] = PreferencePair.model_validate_json(line)
        except ValidationError as error:
            problems += [f"row {number}: {problem}" for problem in validation_problems(error)]
    if not pairs and not problems:
        problems = ["it holds no pair: a slot needs an accepted and a rejected picture"]
    for number, pair in pairs.items():
        problems += [f"row {number}: {problem}" for problem in problems_of_preference_pair(place, pair)]
    if problems:
        more = [f"and {len(problems) - NAMED} more"] if len(problems) > NAMED else []
        raise DataError(f"preferences={folder} cannot be used:", problems[:NAMED] + more, MAKE_AGAIN)
    return PreferenceSet(place, record, list(pairs.values()))


def problems_of_preference_pair(folder: Path, pair: PreferencePair) -> list[str]:
    """What is wrong with the pictures of one pair, in words; an empty list if nothing is."""
    if pair.chosen_sha256 == pair.rejected_sha256:
        return ["chosen and rejected are the same picture"]
    problems, sizes = [], []
    for sha256 in (pair.chosen_sha256, pair.rejected_sha256):
        path = folder / preference_picture_file(sha256)
        content = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(content).hexdigest() != sha256:
            problems.append(f"{preference_picture_file(sha256)} is {'changed' if content else 'missing'}")
        else:
            sizes.append(pictures.upright_size_of(content))
    if len(set(sizes)) > 1:
        (w, h), (width, height) = sizes
        problems.append(f"chosen has {w} x {h} pixels, rejected has {width} x {height}")
    names = [pair.chosen_file_name, pair.rejected_file_name]
    if names != [preference_picture_file(pair.chosen_sha256), preference_picture_file(pair.rejected_sha256)]:
        problems.append("the names of its files are not those of its digests")
    return problems


def require_pairs_of_brand(found: PreferenceSet, brand_set: BrandSet) -> list[str]:
    """Check that pairs are of the brand of a run; returns what a person should know of them, a sentence each.

    Raises DataError for another brand.
    """
    record, brand = found.record, brand_set.brand.name
    if record.brand != brand:
        raise DataError(
            f"preferences={files.display_path(found.folder)} is of the brand {record.brand}, not of {brand}",
            next_step=f"brand={record.brand}, or stylegate preferences of a batch of {brand}.",
        )
    persons = sum("person" in (pair.chosen_by, pair.rejected_by) for pair in found.pairs)
    by = f"{persons} of them decided by people" if persons else "all decided by the gate"
    remarks = [f"{counted(len(found.pairs), 'pair')} of {counted(len({p.slot for p in found.pairs}), 'slot')}, {by}"]
    if record.brand_sha256 != brand_set.sha256_of_training_content():
        remarks.append("the brand set was changed since the pairs were drawn")
    return remarks
