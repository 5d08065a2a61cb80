"""The scores of a lot on disk: what they depend on, whether they are at hand, how they are read."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from eval.lot.batch import require_file
from eval.lot.comparison import ComparisonPictures
from eval.lot.lot import Lot, sha256_by_name
from eval.measuring.encodername import encoder_digest, encoder_name
from eval.measuring.record import LotScoringRecord, ScoreTableDigests
from eval.scorers import SCORES, aesthetic
from stylegate import files
from stylegate.config import Config
from stylegate.errors import ConfigError, DataError

RECORD = "score.json"
# Columns of scores.parquet besides the scores:
DETECTED = "detected_traits"  # a JSON object, trait -> value that is seen
DIFFERING_TRAITS = "differing_traits"  # in words: planned values where the reader sees another one
UNKNOWN_TRAITS = "unknown_traits"  # in words: planned values that no picture of the brand shows
VERSION = "scores-22"  # raise it when a score's computation changes


def scores_key(config: Config, lot: Lot, compared: ComparisonPictures) -> str:
    """The digest of everything that the scores depend on; computed without loading the encoder.

    Raises ConfigError or DataError if the aesthetic head or the labels that the config names do not exist. While the
    encoder's weights are not known here, the digest differs at every call (see `encoder_digest`).
    """
    head = [files.sha256_of_file(path)] if (path := named_aesthetic_head_path(config)) else []
    if config.score.labels:
        labels = aesthetic.read_aesthetic_labels(require_file(config.score.labels, "score.labels"))
        head = [[name, files.sha256_of_file(place), good] for name, place, good in labels]
    others = [
        sorted(sha256_by_name(part).items())
        for part in (compared.references, compared.training, compared.exported, *compared.foreign.values())
    ]
    slots = {name: [slot.prompt, slot.traits] for name, slot in (lot.slots or {}).items()}
    return files.canonical_sha256(
        [
            VERSION,
            list(SCORES),
            lot.digest_of_names_and_contents(),
            encoder_digest(encoder_name(config)),
            others,
            list(compared.foreign),
            files.sha256_of_file(files.FOREIGN),
            compared.background,
            compared.alpha,
            [*lot.notes, *compared.notes],
            compared.traits,
            compared.learned,
            head,
            slots,
            *([lot.groups] if lot.groups else []),
            *([compared.exported_slots] if compared.exported_slots else []),
            *([compared.decided.sha256, compared.brand] if compared.decided else []),
        ]
    )


def named_aesthetic_head_path(config: Config) -> Path | None:
    """The file of the aesthetic head that score.aesthetic_head names; None if it names none. Raises ConfigError for a
    name that leads to no file, and for two heads at once.
    """
    if config.score.aesthetic_head and config.score.labels:
        raise ConfigError("score.aesthetic_head and score.labels name two heads", next_step="give one of them.")
    if not config.score.aesthetic_head:
        return None
    return files.resolve_name_or_path(config.score.aesthetic_head, files.HEADS, "score.aesthetic_head", ".safetensors")


def scores_are_current(lot: Lot, key: str) -> bool:
    """Whether scores.parquet was computed with this key (pictures, references, encoder) and has not been changed
    since.
    """
    record = lot.out / RECORD
    if not record.exists():
        return False
    if files.read_json(record, "the scores' record", "key")["key"] != key:
        return False  # whatever else it holds: it may be an older version's
    return read_score_record(lot.out).tables == score_table_digests(lot.out)


def score_table_digests(out: Path) -> ScoreTableDigests:
    """The digests of scores.parquet and references.parquet as they are now."""
    paths = (out / "scores.parquet", out / "references.parquet")
    scores, references = (files.sha256_of_file(path) if path.is_file() else "" for path in paths)
    return ScoreTableDigests(scores=scores, references=references)


def read_score_record(out: Path) -> LotScoringRecord:
    """score.json of a lot's folder. Raises DataError if it is missing, or with every problem that it has."""
    return LotScoringRecord.read_json_file(
        out / RECORD, "the scores' record", "remove it; the scores are then computed again."
    )


def float32_with_null(values: NDArray) -> pa.Array:
    """The values as float32, with null for those that are not finite."""
    values = values.astype(np.float32)
    return pa.array(values, pa.float32(), mask=~np.isfinite(values))


def parquet_bytes(rows: pa.Table) -> bytes:
    """The table as the bytes of a Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink)
    return sink.getvalue().to_pybytes()


class LotScores(NamedTuple):
    """What was measured of a lot, as the files scores.parquet, references.parquet and score.json hold it."""

    rows: list[dict[str, Any]]  # a row a picture, in the lot's order; a score that was not computed is None
    references: dict[str, NDArray[np.float32]]  # by score, of the references by leave-one-out; not computed: left out
    record: LotScoringRecord  # score.json

    def computed_values_of_score(self, name: str) -> NDArray[np.float64]:
        """[k] the values of one score, in the lot's order, without the pictures that have none: they do not match
        `rows`. Empty if there are none.
        """
        values = np.array([row.get(name) for row in self.rows], np.float64)  # None becomes NaN
        return values[~np.isnan(values)]

    def detected_traits(self) -> dict[str, dict[str, str]]:
        """Of each picture, by file name, the value that is seen of each trait that can be read; {} where no trait can
        be read.
        """
        return {row["file"]: json.loads(row.get(DETECTED) or "{}") for row in self.rows}

    def computed_score_names(self) -> list[str]:
        """Names of the scores that the table has a column for, in the order of SCORES."""
        return [name for name in SCORES if self.rows and name in self.rows[0]]


def read_scores(out: Path) -> LotScores:
    """Read the scores of a lot's folder. Raises DataError if a file is missing or damaged."""
    try:
        rows = files.read_parquet_as_arrow_table(out / "scores.parquet").to_pylist()
        table = files.read_parquet_as_arrow_table(out / "references.parquet")
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(
            f"the scores in {files.display_path(out)} cannot be read: {error}", next_step="remove them."
        ) from None
    own = {
        field.name: np.array([v for v in table[field.name].to_pylist() if v is not None], field.type.to_pandas_dtype())
        for field in table.schema
    }
    return LotScores(rows, own, read_score_record(out))
