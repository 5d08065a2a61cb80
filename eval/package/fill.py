"""What lies in a package: pictures, metadata, records, table, provenance, the proof of the promise, the LoRA."""

import glob
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import rfc8785

from eval.judging.record import GateRecord
from eval.judging.verdicts import Verdict
from eval.lot.batch import read_plan
from eval.lot.lot import Lot
from eval.package import verify_traits
from eval.package.bag import BOM, write_file_or_hard_link_earlier, write_merkle_tree
from eval.package.calibrated import POOL
from eval.package.earlier import EarlierPackage
from eval.package.items import (
    PROFILES,
    ItemRecord,
    PackageItem,
    imagefolder_table,
    make_item_record,
    package_items,
    read_scores_parquet_checking_item_digests,
)
from eval.package.layout import TABLE
from eval.package.licences import MATERIAL
from eval.package.marking import ExportMarks, PictureToMark, write_marked_pictures
from eval.package.marks import MARKS, MarksReport, marks_in_words, marks_report
from eval.package.provenance import (
    CARD,
    CARD_WITHOUT_PROMISE,
    LicenceOfMaterial,
    MadeFrom,
    PackageProvenance,
    provenance_of_package,
)
from eval.package.statement import make_bill_of_materials
from eval.planning import commitment, rarity
from eval.promise.calibration import CALIBRATION
from eval.promise.certificate import CERTIFICATE, TRAIT_CERTIFICATE, certified_digests, read_certificate
from eval.promise.statements import stated_traits_match_audit
from eval.report.summaries import escape_markdown_on_one_line
from stylegate import files
from stylegate.errors import DataError
from stylegate.words import counted

NO_MARKS = ExportMarks()
ACCEPTED_BY = ("the gate", "a person", "a waiver of the policy")


def fill_package(
    package: Path,
    lot: Lot,
    accepted: Sequence[Verdict],
    outcome: GateRecord,
    collection: str,
    licences: Sequence[LicenceOfMaterial] = (),
    marks: ExportMarks = NO_MARKS,
    earlier: EarlierPackage | None = None,
) -> PackageProvenance:
    """Write data/, the Merkle tree and the bill of materials of a new package. Returns its provenance.

    Files that `earlier`, a package of the same collection, holds with the same bytes are linked to it, and the record
    of an item that did not change stays as it is there. Raises DataError for whatever is not as the gate knew it.
    """
    data, items = package / "data", package_items(lot, accepted)
    provenance = provenance_of_package(lot, len(items), outcome, licences)
    items, report = write_pictures_with_marks(data, lot, items, provenance.made_from, marks, earlier)
    report.write_json_file(package / MARKS)
    write_metadata_and_records(data, lot, items, provenance.made_from, collection, earlier)
    pq.write_table(imagefolder_table(items), data / TABLE)
    write_rarity_and_plan(package, lot, items)
    write_proof_of_promise(data, lot, items, outcome)
    copy_trait_certificate_if_it_applies(data, lot, items)
    lora = copy_lora(data, lot)
    provenance.write_json_file(data / "provenance.json")
    says = outcome.promise.says if outcome.promise.state in ("certified", "valid") else CARD_WITHOUT_PROMISE
    words = {"promise": says, "lora": lora, "marks": marks_in_words(report)}
    words |= {"pictures": picture_count_sentence_for_card(lot, accepted), "licences": licences_in_words(licences)}
    words |= {"traits": trait_table_for_card(items)}
    write_file_or_hard_link_earlier(data / "README.md", CARD.format(name=collection, **words))
    write_file_or_hard_link_earlier(
        package / BOM, json.dumps(make_bill_of_materials(provenance, collection), indent=2) + "\n"
    )
    judged = {item.image_path_in_data: item.verdict.sha256 for item in items if item.sha256 != item.verdict.sha256}
    write_merkle_tree(package, [(item.id, item.image_path_in_data) for item in items], judged)
    return provenance


def number_of_planned_pictures(lot: Lot) -> int | None:
    """The number of slots of the plan that a batch was drawn by; None for a folder that was not planned."""
    return len(read_plan(lot.out)) if lot.record else None


def picture_count_sentence_for_card(lot: Lot, verdicts: Sequence[Verdict]) -> str:
    """The sentence of a package's card that says how many pictures it has, who accepted them, and of how many that were
    planned.
    """
    by = Counter(what_accepted(verdict) for verdict in verdicts)
    accepted = f"{counted(len(verdicts), 'picture')} accepted by stylegate's gate"
    if len(by) > 1 or "the gate" not in by:
        accepted = counted(len(verdicts), "picture") + " accepted: "
        accepted += ", ".join(f"{by[what]} by {what}" for what in ACCEPTED_BY if by[what])
    planned = number_of_planned_pictures(lot)
    if not planned:
        return f"{accepted}."
    if len(verdicts) == planned:
        return f"{accepted}. They are all that were planned."
    return f"{accepted}. {planned} were planned; rarity is computed among those that are here."


def what_accepted(verdict: Verdict) -> str:
    """What an accepted picture owes its verdict to, one of ACCEPTED_BY: a person who settled what the policy left open,
    else a waiver without which the gate had not accepted it, else the gate.
    """
    if verdict.settled:
        return "a person"
    return "a waiver of the policy" if any(found.verdict != "warn" for found in verdict.waived) else "the gate"


def trait_table_for_card(items: Sequence[PackageItem]) -> str:
    """The table of a package's card that says how many of the items have each value of each trait, as their metadata
    state it; "" for items without traits.
    """
    counts = Counter(pair for item in items for pair in item.final_traits.items())
    if not counts:
        return ""
    rows = [
        f"| {escape_markdown_on_one_line(trait)} | {escape_markdown_on_one_line(value)} | {count} |\n"
        for (trait, value), count in sorted(counts.items(), key=lambda row: (row[0][0], -row[1], row[0][1]))
    ]
    return f"\n| trait | value | pictures |\n|---|---|---|\n{''.join(rows)}"


def licences_in_words(licences: Sequence[LicenceOfMaterial]) -> str:
    """The sentence of a package's card on licences; a licence that somebody accepted by name is marked as such."""
    if not licences:
        return "Licences: none is stated, since stylegate did not draw the pictures."
    each = [
        f"{MATERIAL[link.what]}: {link.licence}{' (accepted by name)' if link.accepted else ''}" for link in licences
    ]
    return f"Licences of what made the pictures: {'; '.join(each)}. None is stated of the pictures themselves."


def write_pictures_with_marks(
    data: Path,
    lot: Lot,
    items: Sequence[PackageItem],
    made_from: MadeFrom,
    marks: ExportMarks,
    earlier: EarlierPackage | None,
) -> tuple[list[PackageItem], MarksReport]:
    """Write the pictures with their marks below `data`. Returns the items with the sha256 of what was written, and a
    report on the marks that were read back.

    Raises DataError for a picture that is no longer the one that was judged, and for those that cannot be marked.
    """
    paths, weights = dict(lot.files), {"base_sha256": made_from.base_sha256, "lora_sha256": made_from.lora_sha256}
    known = {name: digest for name, digest in weights.items() if digest}
    unmarked = [
        PictureToMark(item, paths[item.verdict.file], facts_in_content_credentials(item, known)) for item in items
    ]
    found = write_marked_pictures(unmarked, data, marks, earlier)
    written = [replace(item, sha256=picture.sha256) for item, picture in zip(items, found, strict=True)]
    return written, marks_report(found)


def facts_in_content_credentials(item: PackageItem, weights: dict[str, str]) -> dict[str, str | int | None] | None:
    """What the content credentials of a picture state: digests of the weights, and its seed or that it was retouched.

    None for a picture that was not drawn here.
    """
    if not item.slot:
        return None
    return {**weights, **({"retouched": True} if item.retouched else {"seed": item.seed})}


def write_metadata_and_records(
    data: Path,
    lot: Lot,
    items: Sequence[PackageItem],
    made_from: MadeFrom,
    collection: str,
    earlier: EarlierPackage | None,
) -> None:
    """Write the metadata of each item, in canonical JSON, and its record."""
    found, before = read_scores_parquet_checking_item_digests(lot, items), earlier and earlier.package / "data"
    names, detected = found.computed_score_names(), found.detected_traits()
    scores = {row["file"]: {name: row[name] for name in names} for row in found.rows}
    for item in items:
        texts = {
            f"metadata/{folder}/{profile.name(item.id)}": rfc8785.dumps(profile.content(collection, item))
            for folder, profile in PROFILES.items()
        }
        described = hashlib.sha256(texts[f"metadata/erc721/{item.id}.json"]).hexdigest()
        record = make_item_record(item, described, made_from, scores[item.verdict.file], detected[item.verdict.file])
        name = f"records/{item.id}.json"
        texts[name] = (
            earlier_record_bytes_if_same_item(record, earlier and earlier.file_bytes_if_signed_or_none(name))
            or record.item_record_file_text().encode()
        )
        for name, text in texts.items():
            write_file_or_hard_link_earlier(data / name, text, before and before / name)


def earlier_record_bytes_if_same_item(record: ItemRecord, before: bytes | None) -> bytes | None:
    """The bytes `before`, a record of an earlier package, if it is of the same item, made in the same way and accepted
    by the same policy; else None.

    Its scores and its verdict are those with which the item first left, and its plan and folder those of that time.
    """
    if before is None:
        return None
    try:
        found = ItemRecord.from_json_text(before, "the record of the package before")
    except DataError:  # of another version of stylegate
        return None
    return before if found.identifying_fields_of_item_record() == record.identifying_fields_of_item_record() else None


def write_rarity_and_plan(package: Path, lot: Lot, items: Sequence[PackageItem]) -> None:
    """Write rank and rarity of items by their final traits, and open the commitment to their plan, if there is one.

    Raises DataError if the plan is not the one that was committed to.
    """
    traits = [item.final_traits for item in items]
    if not any(traits):
        return
    rows = [
        {"id": item.id, "rank": found.rank, "score": found.score, "unique_values": found.unique}
        for item, found in zip(items, rarity.rarity_of_each_item(traits), strict=True)
    ]
    write_file_or_hard_link_earlier(
        package / verify_traits.RARITY, files.json_lines_text(sorted(rows, key=lambda row: (row["rank"], row["id"])))
    )
    if (lot.out / commitment.COMMITMENT).exists() and (lot.out / commitment.PLAN_TEXT).exists():
        commitment.verify_plan_commitment(lot.out / commitment.COMMITMENT)
        for name in (verify_traits.COMMITMENT, verify_traits.SALT, verify_traits.PLAN):
            write_file_or_hard_link_earlier(package / name, (lot.out / Path(name).name).read_bytes())


def write_proof_of_promise(data: Path, lot: Lot, items: Sequence[PackageItem], outcome: GateRecord) -> None:
    """Write the certificate, or the calibration with the scores that it was used on; nothing if nothing is promised.

    Raises DataError if the certificate is not of these items, or gate.json names no calibration.
    """
    if outcome.promise.state == "certified":
        found = read_certificate(lot.out / CERTIFICATE)
        if sorted(item.verdict.sha256 for item in items) != sorted(certified_digests(found)):
            raise DataError(f"{CERTIFICATE} is not of what would be exported", next_step="stylegate gate again.")
        found.write_json_file(data / CERTIFICATE)
    if outcome.promise.state == "valid":
        if not outcome.calibration:
            raise DataError("gate.json does not name the calibration", next_step="stylegate gate again, then export.")
        (data / CALIBRATION).write_bytes(Path(outcome.calibration).read_bytes())
        files.write_json(data / POOL, outcome.pool)


def copy_trait_certificate_if_it_applies(data: Path, lot: Lot, items: Sequence[PackageItem]) -> None:
    """Write trait-certificate.json of the lot into `data`, if what it audited is what the items' metadata states."""
    path = lot.out / TRAIT_CERTIFICATE
    if not path.exists():
        return
    found = read_certificate(path)
    stated = [(item.verdict.sha256, trait, value) for item in items for trait, value in item.final_traits.items()]
    if stated_traits_match_audit(found.statements, found.labels, stated):
        found.write_json_file(data / TRAIT_CERTIFICATE)


def copy_lora(data: Path, lot: Lot) -> str:
    """Copy the release of the LoRA that drew the pictures, with its card. Returns what is said of it.

    Only a LoRA that was trained here is copied: the header of any other may name paths and captions of its maker.
    """
    if not lot.record or not lot.record.facts.lora:
        return (
            "No LoRA is in the package: the base alone drew the pictures, or another program (see `provenance.json`)."
        )
    if run := lot.record.words.run:
        release = files.RUNS / run / "lora"
        drew = [path for path in release.glob("*.safetensors") if files.sha256_of_file(path) == lot.record.facts.lora]
        if drew:  # nothing else that somebody put there
            (data / "lora").mkdir()
            for path in [*drew[:1], *release.glob(f"{glob.escape(drew[0].stem)}.*.safetensors"), release / "README.md"]:
                shutil.copyfile(path, data / "lora" / path.name)
            return "`lora/` holds the LoRA that drew them, with its card."
    return "The LoRA that drew them is not in the package, only its sha256: it was made elsewhere, or trained on since."
