"""The items of a package: for each picture its number, its record, and its metadata for each kind of token."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from mimetypes import guess_type
from typing import Any
from urllib.parse import quote

import pyarrow as pa
from pydantic import Field

from eval.judging.verdicts import Verdict, planned_traits_with_corrections
from eval.lot.batch import PlanSlot, attempt_and_slot
from eval.lot.lot import Lot
from eval.measuring.scores import LotScores, read_scores
from eval.package.provenance import MadeFrom
from stylegate.errors import DataError
from stylegate.records import Record

AI_MADE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


@dataclass(frozen=True, slots=True)
class PackageItem:
    """One picture of a package: its number, its verdict, and the planned slot that it was drawn for."""

    id: int  # of a planned picture the number of its slot, else its place among the pictures that leave, from 0
    verdict: Verdict
    slot: PlanSlot | None
    prompt: str  # "" where it is not said
    sha256: str  # of the picture's file in the package: where marks were put on, not of the bytes that were judged
    retouched: bool = False  # a person changed the picture after it was drawn, or put it there

    @property
    def image_path_in_data(self) -> str:
        """The picture's place below data/."""
        return f"images/{self.verdict.file}"

    @property
    def planned_traits(self) -> dict[str, str]:
        """Its traits by the plan; {} for a picture that was not planned, or by prompts."""
        return self.slot.traits if self.slot else {}

    @property
    def final_traits(self) -> dict[str, str]:
        """Its final traits: those of the plan, but for what a person found instead. They are what metadata states."""
        return planned_traits_with_corrections(self.planned_traits, self.verdict.shown_traits)

    @property
    def attempt_number(self) -> int:
        """Of a planned picture its number among those that were drawn for the slot, from 0."""
        return attempt_and_slot(self.verdict.file)[0]

    @property
    def seed(self) -> int | None:
        """The seed of its noise; None for a picture that was not planned, and for a retouched one."""
        return self.slot.seed_of_attempt(self.attempt_number) if self.slot and not self.retouched else None


class SlotAttemptAndSeed(Record):
    """What is particular to the drawing of one picture: slot, attempt, seed, prompt. The sampler's settings are in
    MadeFrom.
    """

    slot: int
    """Its number in the plan."""
    attempt: int
    """Its number among the pictures that were drawn for the slot, from 0."""
    seed: int | None = None
    """The seed of its noise; left out of a retouched picture, which no seed gives again."""
    retouched: bool = False
    """A person changed the picture after it was drawn, or put it there; left out where nobody did."""
    prompt: str = ""
    """Left out where the prompts of the plan are captions of the brand's own pictures."""
    digital_source_type: str = AI_MADE
    """IPTC's word for how the picture came to be."""


class ItemTraits(Record):
    """The traits of one picture: by the plan, by the trait readers, and as they are stated."""

    planned: dict[str, str]
    """The value of each trait in the plan."""
    detected: dict[str, str] = Field(default_factory=dict)
    """The value that the encoder sees, of those traits that it can read in this brand; it decides nothing here."""
    final: dict[str, str]
    """What the metadata states, and what rarity counts: the plan's values, but for those that a person corrected."""


class ItemRecord(Record):
    """records/<id>.json: how one picture was made and judged."""

    id: int
    file: str
    """The picture, below data/."""
    sha256: str
    """sha256 of the picture's file in the package, with its marks."""
    judged_sha256: str = ""
    """sha256 of the file that was judged, which has the same pixels; left out where the two are the same file."""
    metadata_sha256: str
    """sha256 of metadata/erc721/<id>.json, which is canonical JSON (RFC 8785)."""
    drawn: SlotAttemptAndSeed | None = None
    """Left out for a picture that was not drawn here: nothing is known of how it was made."""
    made_from: MadeFrom
    traits: ItemTraits | None = None
    """Left out for a picture that was not planned by traits."""
    scores: dict[str, float | None]
    """By score, higher is better; null where it was not computed."""
    verdict: Verdict
    """The verdict. People stand in it by an id: the first 8 digits of the sha256 of their name."""

    def identifying_fields_of_item_record(self) -> dict[str, Any]:
        """What makes it the record of this item: all but what was measured, the verdict's details, and the plan or
        folder.
        """
        of_lot = {"made_from": {"plan_sha256", "folder_sha256"}, "traits": {"detected"}}
        known = self.model_dump(mode="json", exclude={"scores": True, "verdict": True} | of_lot)
        return known | {"policy": self.verdict.policy_sha256, "verdict": self.verdict.verdict}

    def item_record_file_text(self) -> str:
        """The content of its file."""
        return json.dumps(self.json_data_without_defaults(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def package_items(lot: Lot, accepted: Sequence[Verdict]) -> list[PackageItem]:
    """The items of a package from the accepted verdicts of a lot, sorted by number.

    Prompts that are captions of the brand's own pictures are left out.
    """
    facts = lot.record.facts if lot.record else None
    shown = facts is not None and facts.plan.traits is not None
    items = []
    for place, verdict in enumerate(accepted):
        slot = (lot.slots or {}).get(verdict.file)
        prompt = slot.prompt if slot and shown else ""
        retouched = slot is not None and lot.is_retouched(verdict.file, verdict.sha256)
        items.append(PackageItem(slot.slot if slot else place, verdict, slot, prompt, verdict.sha256, retouched))
    return sorted(items, key=lambda item: item.id)


def read_scores_parquet_checking_item_digests(lot: Lot, items: Sequence[PackageItem]) -> LotScores:
    """Read the scores of the lot. Raises DataError if scores.parquet lacks the picture of an item, or has it with
    another sha256 than the item's verdict.
    """
    scores = read_scores(lot.out)
    rows = {row["file"]: row for row in scores.rows}
    others = [
        item.verdict.file for item in items if rows.get(item.verdict.file, {}).get("sha256") != item.verdict.sha256
    ]
    if others:
        raise DataError(f"scores.parquet does not know {others[0]} as it was judged", next_step="stylegate gate again.")
    return scores


def make_item_record(
    item: PackageItem,
    metadata_sha256: str,
    made_from: MadeFrom,
    scores: dict[str, float | None],
    detected: dict[str, str],
) -> ItemRecord:
    """The content of records/<id>.json of one item. `detected` has the value that the encoder sees of each trait."""
    drawn = None
    if item.slot:
        how = {"seed": item.seed, "retouched": item.retouched, "prompt": item.prompt}
        drawn = SlotAttemptAndSeed(slot=item.slot.slot, attempt=item.attempt_number, **how)
    return ItemRecord(
        id=item.id,
        file=item.image_path_in_data,
        sha256=item.sha256,
        judged_sha256=item.verdict.sha256 if item.sha256 != item.verdict.sha256 else "",
        metadata_sha256=metadata_sha256,
        drawn=drawn,
        made_from=made_from,
        traits=ItemTraits(planned=item.planned_traits, detected=detected, final=item.final_traits)
        if item.planned_traits
        else None,
        scores=scores,
        verdict=verdict_without_personal_names_and_notes(item.verdict),
    )


def verdict_without_personal_names_and_notes(verdict: Verdict) -> Verdict:
    """The verdict with an id in place of each person's name, and without their notes."""
    waived = [
        entry.model_copy(update={"owner": pseudonym_of_person(entry.owner), "why": ""}) for entry in verdict.waived
    ]
    settled = verdict.settled
    if settled:
        settled = settled.model_copy(update={"who": pseudonym_of_person(settled.who), "why": ""})
    return verdict.model_copy(update={"waived": waived, "settled": settled})


def pseudonym_of_person(name: str) -> str:
    """A word that stands for a person, always the same for one name. It hides the name, but not from guessing."""
    return f"person-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def imagefolder_table(items: Sequence[PackageItem]) -> pa.Table:
    """The table of metadata.parquet, a row for each item, which makes data/ a Hugging Face imagefolder."""
    columns: dict[str, Any] = {
        "file_name": [item.image_path_in_data for item in items],
        "id": [item.id for item in items],
        "sha256": [item.sha256 for item in items],
    }
    if any(item.prompt for item in items):
        columns["text"] = [item.prompt for item in items]
    if any(item.final_traits for item in items):
        columns["traits"] = [item.final_traits for item in items]
    return pa.table(columns)


def erc721_metadata(collection: str, item: PackageItem) -> dict[str, Any]:
    """The JSON of a token as ERC-721 and OpenSea read it. A one-of-one has the name of its own that the plan gives it.
    `image` is relative to the file of the JSON.
    """
    return {
        "name": (item.slot and item.slot.name) or f"{collection} #{item.id}",
        "description": f"Item {item.id} of {collection}.",
        "image": f"../../{quote(item.image_path_in_data)}",
        "attributes": [{"trait_type": trait, "value": value} for trait, value in sorted(item.final_traits.items())],
    }


def erc1155_metadata(collection: str, item: PackageItem) -> dict[str, Any]:
    """The JSON of a token as ERC-1155 reads it."""
    return erc721_metadata(collection, item) | {"decimals": 0, "properties": dict(sorted(item.final_traits.items()))}


def metaplex_metadata(collection: str, item: PackageItem) -> dict[str, Any]:
    """The JSON of a token as Metaplex (Solana) reads it."""
    token = erc721_metadata(collection, item)
    kind = guess_type(item.image_path_in_data)[0] or "application/octet-stream"
    return token | {"properties": {"category": "image", "files": [{"uri": token["image"], "type": kind}]}}


@dataclass(frozen=True, slots=True)
class TokenMetadataFormat:
    """A kind of token: functions that give the content of its JSON (of collection and item), and the
    name of its file.
    """

    content: Callable[[str, PackageItem], dict[str, Any]]
    name: Callable[[int], str]


PROFILES = {  # by folder below metadata/
    "erc721": TokenMetadataFormat(erc721_metadata, lambda number: f"{number}.json"),
    "erc1155": TokenMetadataFormat(erc1155_metadata, lambda number: f"{number:064x}.json"),
    "metaplex": TokenMetadataFormat(metaplex_metadata, lambda number: f"{number}.json"),
}
