"""Compute every score of a lot and of its references, and write scores.parquet, references.parquet and score.json."""

import json
from collections.abc import Callable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eval.lot.comparison import ComparisonPictures, known_values_by_planned_trait
from eval.lot.lot import Lot, sha256_by_name
from eval.measuring import encoder as encoding
from eval.measuring import encodername
from eval.measuring.ahead import fill_feature_cache_by_engine_workers
from eval.measuring.decided import read_decided_pictures, require_same_brand_and_encoder
from eval.measuring.domain import in_domain_flags_and_warning
from eval.measuring.encoder import LoadedEncoder
from eval.measuring.features import (
    BrokenFile,
    cached_features_of_files,
    cached_picture_signatures_of_files,
    torch_threads_in_use,
)
from eval.measuring.foreign import (
    given_foreign_sets,
    notes_on_pictures_of_shipped_sets,
    shipped_foreign_sets,
    without_sets_of_this_brand,
)
from eval.measuring.head import aesthetic_head_and_notes, refuse_second_head
from eval.measuring.measured import ForeignSet, MeasuredLot
from eval.measuring.picturefeatures import PictureFeatures
from eval.measuring.record import BatchMeasures, EncodingConditions, LotScoringRecord, ReferencesUsed
from eval.measuring.redrawn import (
    encode_at_size_of_foreign_pictures,
    encode_copies_degraded_like_drawings,
    with_embeddings_of_other_encoders,
)
from eval.measuring.scores import (
    DETECTED,
    DIFFERING_TRAITS,
    RECORD,
    UNKNOWN_TRAITS,
    float32_with_null,
    parquet_bytes,
    score_table_digests,
    scores_key,
)
from eval.measuring.texts import text_encoding_function_with_cache
from eval.measuring.whole import batch_summary_in_words, measure_batch
from eval.policy.lines import MIN_REFERENCES
from eval.scorers import SCORES
from stylegate import files, hardware
from stylegate.config import Config
from stylegate.errors import DataError
from stylegate.words import counted

FEW_REFERENCES = 16  # of fewer, spreads and quantiles are rough


def compute_and_write_scores(config: Config, lot: Lot, compared: ComparisonPictures, quiet: bool = False) -> None:
    """Encode the pictures that were not encoded before, compute every score, and write scores.parquet,
    references.parquet and score.json into the lot's folder.

    Raises DataError if a training picture or one that was exported before cannot be read, ModelError if the encoder
    cannot be loaded. `quiet` shows no progress.
    """
    encoder = encoding.load_encoder(
        encodername.encoder_name(config),
        hardware.set_threads_and_choose_device(hardware.hardware_config_cpu_if_workers_elsewhere(config)),
    )
    if config.engine.name != "local":
        fill_feature_cache_by_engine_workers(config, lot, compared, encoder, quiet)
    measured, broken = measure_lot_and_comparison(config, lot, compared, encoder, quiet)
    compute_scores_into_measured_lot(measured)
    inside, hint = in_domain_flags_and_warning(measured.pictures, measured.references, encoder.domain)
    batch = measure_batch(measured) if measured.enough_references else BatchMeasures()

    rows = score_table(measured, broken, inside)
    own = {name: float32_with_null(column) for name, column in measured.own.items()}
    files.write_atomically(lot.out / "scores.parquet", parquet_bytes(rows))
    files.write_atomically(lot.out / "references.parquet", parquet_bytes(pa.table(own)))
    LotScoringRecord(
        key=scores_key(config, lot, compared),  # now that the encoder's weights are at hand
        tables=score_table_digests(lot.out),
        encoder=encodername.encoder_name(config),
        encoder_sha256=encoder.sha256_of_all_encoders,
        computed=EncodingConditions(precision="fp32", device=encoder.device.type, threads=torch_threads_in_use()),
        references=ReferencesUsed(
            name=compared.references_name,
            given=len(compared.references),
            count=len(measured.references.names),
            sha256=files.canonical_sha256(measured.references.sha256),
        ),
        foreign=measured.foreign,
        readability=measured.readability,
        copies=measured.copies,
        traits_read={trait: round(area, 3) for trait, area in measured.areas.items()},
        batch=batch,
        summary=batch_summary_in_words(
            batch, measured.areas, known_values_by_planned_trait(lot, compared), measured.readability
        ),
        notes=measured.notes + ([hint] if hint else []),
    ).write_json_file(lot.out / RECORD)


def measure_lot_and_comparison(
    config: Config,
    lot: Lot,
    compared: ComparisonPictures,
    encoder: LoadedEncoder,
    quiet: bool,
    pictures: PictureFeatures | None = None,
) -> tuple[MeasuredLot, list[BrokenFile]]:
    """Compute the features of the lot's pictures and of all that they are compared with, as scorers take them; scores
    are not computed yet.

    `pictures` stand for those of the lot where they are at hand and in no file. Also returns the files of the lot that
    are no pictures. References that cannot be read are left out with a note.
    Raises DataError if a training picture or one that was exported before cannot be read.
    """

    def encode_named_pictures(
        named: list, sha256: dict[str, str], title: str
    ) -> tuple[PictureFeatures, list[BrokenFile]]:
        shown = "" if quiet else title
        return cached_features_of_files(named, sha256, encoder, compared.background, config.score.batch_size, shown)

    broken: list[BrokenFile] = []
    if pictures is None:
        pictures, broken = encode_named_pictures(lot.files, lot.sha256, "score")
    references, unusable = encode_named_pictures(compared.references, sha256_by_name(compared.references), "references")
    training, lost = encode_named_pictures(compared.training, sha256_by_name(compared.training), "training")
    exported, gone = cached_picture_signatures_of_files(
        compared.exported,
        sha256_by_name(compared.exported),
        compared.background,
        config.score.batch_size,
        "" if quiet or not compared.exported else "packages",
    )
    if lost + gone:
        listing = [f"{b.name}: {b.reason}" for b in lost + gone]
        raise DataError("pictures that must not come again cannot be read:", listing, "check or remove them.")
    decided = read_decided_pictures(compared.decided) if compared.decided else None
    if decided:
        refuse_second_head(config)
        require_same_brand_and_encoder(decided, compared.brand, compared.background, encoder.sha256_of_all_encoders)
    head, notes = None, []
    if pictures.names:
        head, notes = aesthetic_head_and_notes(
            config, encoder, pictures.embeddings.shape[1], compared.background, quiet
        )
    enough = len(references.names) >= MIN_REFERENCES and len(pictures.names) > 0
    sets, of_sets = (
        shipped_and_given_foreign_sets(config, compared, pictures, references, encoder, encode_named_pictures)
        if enough
        else ([], [])
    )
    left_out = [f"reference {b.name} is left out: {b.reason}" for b in unusable]
    measured = MeasuredLot(
        lot=lot,
        compared=compared,
        pictures=pictures,
        references=references,
        training=training,
        exported=exported,
        known=encoder.domain.known if encoder.domain else None,
        foreign_sets=sets,
        redrawn=with_embeddings_of_other_encoders(
            encode_copies_degraded_like_drawings(references.signatures, encoder), encoder
        )
        if enough
        else None,
        at_foreign_size=lambda shown: with_embeddings_of_other_encoders(
            encode_at_size_of_foreign_pictures(shown, encoder), encoder
        ),
        head=head,
        decided=decided,
        encode_texts=text_encoding_function_with_cache(encoder) if encoder.tokenizer else None,
        enough_references=enough,
        notes=[
            *lot.notes,
            *compared.notes,
            *left_out,
            *notes_on_number_of_references(compared, len(references.names)),
            *notes,
            *of_sets,
        ],
    )
    return measured, broken


def shipped_and_given_foreign_sets(
    config: Config,
    compared: ComparisonPictures,
    pictures: PictureFeatures,
    references: PictureFeatures,
    encoder: LoadedEncoder,
    read: Callable,
) -> tuple[list[ForeignSet], list[str]]:
    """The foreign sets that the brand is told from, those of foreign= and the shipped ones, and notes on sets that are
    left aside and on `pictures` of the lot that are of the other shipped ones.

    `read` computes the features of named files. Raises DataError for files of foreign= that cannot be read.
    """
    named = [(f"{of}/{name}", path) for of, files_of in compared.foreign.items() for name, path in files_of]
    given, broken = read(named, sha256_by_name(named), "foreign")
    if broken:
        listing = [f"{b.name}: {b.reason}" for b in broken]
        raise DataError(f"foreign={config.foreign}: files that cannot be read:", listing, "mend or remove them.")
    shipped, notes = without_sets_of_this_brand(
        shipped_foreign_sets(references, encoder, compared.background), references
    )
    notes += notes_on_pictures_of_shipped_sets(pictures, [one.name for one in shipped], compared.background)
    # Sets are told apart by their names, and a folder may be called as a shipped set is.
    shipped = [one._replace(name=f"{one.name} (shipped)") if one.name in compared.foreign else one for one in shipped]
    return [
        with_embeddings_of_other_encoders(one, encoder) for one in (*given_foreign_sets(given, encoder), *shipped)
    ], notes


def notes_on_number_of_references(compared: ComparisonPictures, count: int) -> list[str]:
    """A list of one sentence if few references can be used, or too few; else an empty list."""
    if compared.references and count < MIN_REFERENCES:
        return [f"{counted(count, 'reference')} can be used; style needs at least {MIN_REFERENCES}"]
    return [rough] if (rough := rough_thresholds_in_words(count)) else []


def rough_thresholds_in_words(count: int) -> str:
    """A sentence that thresholds from `count` references are rough; "" for enough of them, and for too few to judge."""
    if not MIN_REFERENCES <= count < FEW_REFERENCES:
        return ""
    rough = f"thresholds from {count} references are rough, and reject some true pictures"
    return f"{rough}: {FEW_REFERENCES} or more are better"


def compute_scores_into_measured_lot(measured: MeasuredLot) -> None:
    """Compute every score of SCORES whose needs are met, of the lot's pictures and of the references, into
    `measured.columns` and `measured.own`.
    """
    for name, score in SCORES.items():
        if not all(measured.has_what_score_needs(need) for need in score.needs):
            continue
        column = score.compute(measured)
        if column is None:
            continue
        measured.columns[name] = column
        if score.leave_one_out:
            measured.own[name] = score.leave_one_out(measured)


def planned_versus_seen_traits_in_words(measured: MeasuredLot, number: int) -> str | None:
    """The planned values of picture `number` where its reader sees another value of the brand; None if there are
    none.
    """
    planned, seen = planned_traits_of_picture(measured, number), measured.detected[number] if measured.detected else {}
    differing = [
        f"{trait}: {planned[trait]} planned, {value} seen"
        for trait, value in seen.items()
        if planned.get(trait) in measured.readings[trait].values and planned[trait] != value
    ]
    return "; ".join(differing) or None


def values_brand_never_shows_in_words(measured: MeasuredLot, number: int) -> str | None:
    """The planned values of picture `number` that no picture of the brand is known to show, of traits that are read;
    None if there are none.
    """
    planned = planned_traits_of_picture(measured, number)
    unknown = [
        f"{trait}: {value}"
        for trait, value in planned.items()
        if trait in measured.readings and value not in measured.readings[trait].values
    ]
    return "; ".join(unknown) or None


def planned_traits_of_picture(measured: MeasuredLot, number: int) -> dict[str, str]:
    """The planned traits of picture `number`; {} in a lot without a plan."""
    slots = measured.lot.slots
    return slots[measured.pictures.names[number]].traits if slots else {}


def score_table(measured: MeasuredLot, broken: list[BrokenFile], inside: NDArray[np.float32]) -> pa.Table:
    """The table of scores.parquet: a row for each of the lot's files, in its order, with a float32 column for each
    score. A file that is no picture has an error and no scores.

    `inside` [n] is the column in_domain; twin and known name the pictures that `distinct` and `novelty` speak of;
    detected_traits holds the value that is seen of each trait that can be read, as a JSON object; differing_traits and
    unknown_traits say in words which planned values are seen otherwise, and which cannot be read.
    """
    lot, pictures = measured.lot, measured.pictures
    place = {name: i for i, name in enumerate(pictures.names)}
    reasons = {b.name: b.reason for b in broken}
    names = [name for name, _ in lot.files]
    order = np.array([place.get(name, -1) for name in names], int)

    def column_in_lot_order_with_nulls(values: NDArray) -> pa.Array:
        padded = np.append(values.astype(np.float32), np.float32(np.nan))
        return float32_with_null(padded[order])

    def names_of_nearest_pictures(score: str) -> pa.Array:
        named = [*measured.partners.get(score, [None] * len(pictures.names)), None]  # -1: the last one
        return pa.array([named[i] for i in order], pa.string())

    sizes = np.vstack([pictures.sizes, [[0, 0]]])[order]
    fixed = {
        "file": pa.array(names),
        "sha256": pa.array([lot.sha256[name] for name in names]),
        "width": pa.array(sizes[:, 0], pa.int32()),
        "height": pa.array(sizes[:, 1], pa.int32()),
        "error": pa.array([reasons.get(name) for name in names], pa.string()),
    }
    columns = {name: column_in_lot_order_with_nulls(column) for name, column in measured.columns.items()} | {
        "in_domain": column_in_lot_order_with_nulls(inside)
    }
    seen = [json.dumps(traits, sort_keys=True, ensure_ascii=False) for traits in measured.detected]
    detected = [seen[i] if seen and i >= 0 else None for i in order]
    words = {
        "twin": names_of_nearest_pictures("distinct"),
        "known": names_of_nearest_pictures("novelty"),
        DETECTED: pa.array(detected, pa.string()),
        DIFFERING_TRAITS: pa.array(
            [planned_versus_seen_traits_in_words(measured, i) if i >= 0 else None for i in order], pa.string()
        ),
        UNKNOWN_TRAITS: pa.array(
            [values_brand_never_shows_in_words(measured, i) if i >= 0 else None for i in order], pa.string()
        ),
    }
    return pa.table(fixed | columns | words)
