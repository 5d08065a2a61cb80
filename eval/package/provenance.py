"""The provenance of a package: digests of what the pictures were made from and judged by."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from eval.judging.record import (
    CheckThresholds,
    Count,
    GateRecord,
    LotRuleResult,
    PolicySummary,
    PromiseState,
    ReferencesUsed,
    VerdictCounts,
)
from eval.lot.lot import Lot, origin_digests_of_lot
from eval.measuring.encodername import encoder_name_without_folders
from stylegate import __version__, files
from stylegate.records import Record


class MadeFrom(Record):
    """What the pictures were drawn with; None for what is not known of pictures that were not drawn here."""

    base_sha256: str | None
    """Digest of the weights of the base model that drew."""
    training_base_sha256: str | None = None
    """Digest of the weights of the base model that the LoRA was trained on; left out where it is the one that drew."""
    lora_sha256: str | None
    """sha256 of the LoRA's file."""
    data_sha256: str | None
    """Digest of the brand set: its pictures, captions and brand.yaml."""
    plan_sha256: str | None
    """sha256 of plan.parquet."""
    generate: dict[str, Any] | None
    """Settings of the sampler, by the keys of the configuration."""
    watermark_sha256: str | None = None
    """sha256 of the weights of the watermark that they were drawn with; left out where there is none."""
    precision: str | None
    """Precision of the computation: fp32, bf16 or fp16."""
    folder_sha256: str | None
    """Of a folder that was not planned: digest of the names and contents of its pictures, wherever it lay."""


class JudgedBy(Record):
    """The part of the provenance that says how the pictures were judged: by which policy, lines, encoder and
    references, and with which promise.
    """

    policy: PolicySummary
    thresholds: dict[str, CheckThresholds]
    """By score, of the checks that were asked."""
    left_out: list[str]
    """Checks that could not be computed and are optional, with the reason."""
    encoder: str
    """Name of the encoder, without the folders of this machine; several are joined by +."""
    encoder_sha256: str
    """Digest of the weights and preprocessing of every encoder."""
    references: ReferencesUsed
    promise: PromiseState
    """How the promise stood. It is a claim: `stylegate verify` computes the proof again."""
    batch: list[LotRuleResult]
    """The rules for the lot as a whole, and how it stood by them."""
    verdicts_sha256: str
    """sha256 of verdicts.jsonl."""
    decisions_sha256: str = ""
    """In packages of older versions, which kept decisions in decisions.jsonl: its sha256, as the gate read it."""


class LicenceOfMaterial(Record):
    """The licence of one thing that the pictures were made with."""

    what: str
    """base, training base (where another one drew), data (the pictures that the LoRA learned from), or lora (one that
    was not trained here)."""
    licence: str
    """As its card, brand.yaml or its header says; "unknown" where nothing says it."""
    accepted: bool
    """Somebody agreed to it by name, since it is unclear or restricts commercial use."""


class PackageCounts(VerdictCounts):
    """Pictures by verdict: `in` is the sum of the four verdicts."""

    exported: Count
    """Pictures in the package."""


class PackageProvenance(Record):
    """provenance.json: names and digests, no path, no time, no host."""

    stylegate: str
    """Version of stylegate that wrote the package."""
    brand: str = ""
    """Name of the brand that the pictures were compared with; empty for none."""
    made_from: MadeFrom
    judged_by: JudgedBy
    counts: PackageCounts
    licences: list[LicenceOfMaterial] = Field(default_factory=list)
    """What the pictures may be used under; left out for pictures that were not drawn here."""


def provenance_of_package(
    lot: Lot, exported: int, outcome: GateRecord, licences: Sequence[LicenceOfMaterial] = ()
) -> PackageProvenance:
    """The provenance of a package with that many pictures. Of a folder only its name is written, and digests."""
    references = outcome.references
    return PackageProvenance(
        stylegate=__version__,
        brand=outcome.brand,
        made_from=MadeFrom(**origin_digests_of_lot(lot)),
        judged_by=JudgedBy(
            policy=outcome.policy,
            thresholds=outcome.thresholds,
            left_out=outcome.left_out,
            encoder=encoder_name_without_folders(outcome.encoder),
            encoder_sha256=outcome.encoder_sha256,
            references=references.model_copy(update={"name": last_part_if_path(references.name)}),
            promise=outcome.promise,
            batch=outcome.batch,
            verdicts_sha256=outcome.verdicts_sha256,
        ),
        counts=PackageCounts(**outcome.counts.model_dump(), exported=exported),
        licences=list(licences),
    )


def last_part_if_path(name: str) -> str:
    """The last part of a name that has the form of a path (files.is_path); any other name as it is."""
    return Path(name).name if files.is_path(name) else name


CARD_WITHOUT_PROMISE = "Nothing is promised about the share of rejects among them: there is no certificate."
CARD = """# {name}

{pictures} This folder loads as a Hugging Face imagefolder.

- {promise}
- {licences}
- {lora}
- Marks: {marks} (`../proof/marks.json`).
- `metadata/` describes each item for ERC-721 (OpenSea), ERC-1155 and Metaplex. `image` is relative there;
  `stylegate rebase` writes copies with the address that the pictures have got.
- `records/` says of each item how it was drawn, what it scored and how it was judged.
- `provenance.json` names what the pictures were made from and judged by. `../VERIFY.md` says how to check all of it.
{traits}"""
