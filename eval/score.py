"""Score any folder of pictures, or a batch: each picture is encoded once, every score is read off what was encoded.

    stylegate score images=DIR references=DIR
    stylegate score brand=neon traits=collectible            the batch of these words
    stylegate score images=DIR brand=acme encoder=ViT-L-14-quickgelu:openai

Writes scores.parquet (file, sha256, width, height, error, a float32 column a score, null = not computed), the
references' own scores by leave-one-out in references.parquet, and score.json, which says what they were made of.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from eval import encoder as encoding
from eval.batch.place import split_name
from eval.features import Broken, Features, extract
from eval.scorers import SCORES, aesthetic, consistency, duplicates, prompt, style, technical
from eval.subject import (
    Comparison,
    Subject,
    comparison_of,
    hashes,
    planned_traits,
    scores_at_hand,
    scores_key,
    subject_of,
    table_digests,
)
from stylegate import files, hardware
from stylegate.cache import Cache
from stylegate.config import Config
from stylegate.errors import DataError

OUTSIDE_SHARE = 0.1  # references outside the encoder's domain; beyond this share the brand is outside


def score(config: Config) -> int:
    """Score, unless the scores at hand are of the same pictures, references and encoder. Returns 0."""
    subject = subject_of(config)
    compared = comparison_of(config, subject)
    key = scores_key(config, subject, compared)
    at_hand = scores_at_hand(subject, key)
    if not at_hand:
        with files.only_one(subject.out):
            compute(config, subject, compared, key)
    where = files.shown(subject.out / "scores.parquet")
    print(f"score: {len(subject.named)} pictures{', nothing new' if at_hand else ''}: {where}")
    return 0


def compute(config: Config, subject: Subject, compared: Comparison, key: str, quiet: bool = False) -> None:
    """Encode what was not encoded before, score, write."""
    titles = ("", "", "", "") if quiet else ("score", "references", "training", "exported")
    encoder = encoding.load(config.encoder, hardware.device_of(config.hardware))
    size = config.score.batch_size
    ground = compared.background
    found, broken = extract(subject.named, subject.sha256, encoder, ground, size, titles[0])
    references, bad = extract(compared.references, hashes(compared.references), encoder, ground, size, titles[1])
    training, lost = extract(compared.training, hashes(compared.training), encoder, ground, size, titles[2])
    earlier, gone = extract(compared.exported, hashes(compared.exported), encoder, ground, size, titles[3])
    lost += gone
    if lost:
        listing = [f"{b.name}: {b.reason}" for b in lost]
        raise DataError(
            "training or exported pictures cannot be compared with:", listing, "stylegate check names every problem."
        )
    notes = [f"reference {b.name} is left out: {b.reason}" for b in bad]
    enough = len(references.names) >= style.MIN_REFERENCES and len(found.names) > 0
    if compared.references and len(references.names) < style.MIN_REFERENCES:
        notes.append(f"{len(references.names)} references can be used; style needs at least {style.MIN_REFERENCES}")

    columns, own = pixel_scores(found, training), pixel_scores(references, training)
    own["distinct"] = duplicates.leave_one_out(references.signatures)
    expected = subject.record.get("size")  # of a batch: what `generate` drew
    columns["size"] = technical.size(found.sizes, (expected, expected) if expected else None)
    own["size"] = np.ones(len(references.names), np.float32)
    texts = text_encoder(encoder)
    columns |= encoder_scores(found, encoder, config, subject, texts)
    seen, seen_of_references, readable = trait_scores(found, references, training, subject, compared, texts)
    columns, own = columns | seen, own | seen_of_references
    foreign: dict[str, list[float]] = {}
    if enough:
        columns["style"] = style.score(found.embeddings, references.embeddings)
        own["style"] = style.leave_one_out(references.embeddings)
        if encoder.domain:  # pictures of other styles that the encoder knows
            others = style.score(encoder.domain.known, references.embeddings)
            foreign["style"] = percentiles(others)
    columns["distinct"] = distinct(found, earlier, subject, columns)
    copies = {"distinct": percentiles(duplicates.copies(references.signatures))} if enough else {}
    columns["in_domain"], why = in_domain(found, references, encoder)
    notes += [why] if why else []

    rows = table(subject, found, broken, columns)
    files.write(subject.out / "scores.parquet", parquet(rows))
    files.write(subject.out / "references.parquet", parquet(pa.table({k: nullable(v) for k, v in own.items()})))
    record: dict[str, Any] = {
        "key": key,
        "tables": table_digests(subject.out),
        "encoder": config.encoder,
        "encoder_sha256": encoder.sha256,
        "references": {
            "from": compared.called,
            "given": len(compared.references),
            "count": len(references.names),
            "sha256": files.digest(references.sha256),
        },
        "foreign": foreign,
        "copies": copies,
        "traits_read": {trait: round(area, 3) for trait, area in readable.items()},
        "notes": notes,
    }
    files.write_json(subject.out / "score.json", record)


def percentiles(values: NDArray) -> list[float]:
    """The percentiles 0, 1, ..., 100."""
    return [float(value) for value in np.percentile(values, range(101))]


def distinct(found: Features, earlier: Features, subject: Subject, columns: dict[str, NDArray]) -> NDArray[np.float32]:
    """Distance to the nearest better picture of the batch, or to one that was exported before.

    Better in style, or else to the aesthetic head, by more than the score's resolution.
    """
    by = next((name for name in ("style", "aesthetic") if name in columns), None)
    quality = np.round(columns[by] / SCORES[by].resolution) if by else None
    slots = [split_name(name) for name in found.names] if subject.slots else None
    attempts, groups = (np.array(part) for part in zip(*slots, strict=True)) if slots else (None, None)
    rank = duplicates.ranks(quality, attempts, len(found.names))
    return duplicates.distinct(found.signatures, rank, groups, earlier.signatures)


def pixel_scores(found: Features, training: Features) -> dict[str, NDArray]:
    """The scores that need no encoder."""
    columns = {name: found.technical[:, i] for i, name in enumerate(technical.MEASURES)}
    if training.names:
        columns["novelty"] = duplicates.novelty(found.signatures, training.signatures)
    return columns


def encoder_scores(
    found: Features, encoder: encoding.Encoder, config: Config, subject: Subject, texts: Callable[[list[str]], NDArray]
) -> dict[str, NDArray]:
    """Consistency always; the prompt for a planned batch; aesthetic where there is a head."""
    columns = {"consistency": consistency.score(found.embeddings)}
    if subject.slots and found.names:
        prompts = texts([subject.slots[name].prompt for name in found.names])
        columns["prompt"] = prompt.prompt(found.embeddings, prompts)
    beside = encoder.folder / "aesthetic.safetensors" if encoder.folder else None
    head = Path(config.score.aesthetic_head).expanduser() if config.score.aesthetic_head else beside
    if head and (config.score.aesthetic_head or head.is_file()) and found.names:
        columns["aesthetic"] = aesthetic.score(found.embeddings, aesthetic.load_head(head, found.embeddings.shape[1]))
    return columns


def trait_scores(
    found: Features,
    references: Features,
    training: Features,
    subject: Subject,
    compared: Comparison,
    texts: Callable,
) -> tuple[dict[str, NDArray], dict[str, NDArray], dict[str, float]]:
    """The batch's and the references' trait column, and how well each trait could be read (area under the ROC curve).

    No column where no trait can be read: a batch without traits, references without, or an encoder that does not see.
    """
    values = planned_traits(subject)
    truth = [compared.traits.get(name, {}) for name in references.names]
    if not values or not found.names or len(truth) < style.MIN_REFERENCES:
        return {}, {}, {}
    learned = [name for name in training.names if name in compared.learned]
    rows = training.embeddings[[training.names.index(name) for name in learned]]
    more = (rows, [compared.learned[name] for name in learned])
    readable, areas = prompt.readings(references.embeddings, truth, values, texts, more if learned else None)
    if not readable:
        return {}, {}, areas
    planned = [(subject.slots or {})[name].traits for name in found.names]
    own = prompt.of_references(readable)
    return {"traits": prompt.traits(found.embeddings, planned, readable)}, {"traits": own}, areas


def text_encoder(encoder: encoding.Encoder) -> Callable[[list[str]], NDArray]:
    """Texts to unit embeddings [n, d], each encoded once, ever."""
    cache = Cache()

    def texts(wanted: list[str]) -> NDArray:
        keys = [files.digest(["text-1", encoder.sha256, text]) for text in wanted]
        made = cache.fill(
            keys, 256, lambda some: [{"e": e} for e in encoding.encode_texts(encoder, [wanted[i] for i in some])]
        )
        return np.stack([row["e"] for row in made if row])

    return texts


def in_domain(found: Features, references: Features, encoder: encoding.Encoder) -> tuple[NDArray, str]:
    """[n] 1 or 0; NaN where the encoder declares no domain. And the sentence that says why the brand is outside."""
    domain = encoder.domain
    if domain is None:
        return np.full(len(found.names), np.nan, np.float32), ""

    def inside(features: Features) -> NDArray:
        if not features.names:
            return np.zeros(0, bool)
        distance = 1 - (features.embeddings @ domain.known.T).max(1)
        return (features.sizes == domain.side).all(1) & (distance <= domain.max_distance)

    verdicts, brand = inside(found), inside(references)
    if references.names and (~brand).mean() > OUTSIDE_SHARE:
        sizes = sorted({f"{w} x {h}" for w, h in references.sizes[~brand].tolist()})
        why = f"{(~brand).sum()} of {len(brand)} references lie outside what the encoder knows ({', '.join(sizes[:3])})"
        return np.zeros(len(found.names), np.float32), why
    return verdicts.astype(np.float32), ""


def table(subject: Subject, found: Features, broken: list[Broken], columns: dict[str, NDArray]) -> pa.Table:
    """All pictures in the subject's order; undecodable ones have an error and no scores."""
    place = {name: i for i, name in enumerate(found.names)}
    reasons = {b.name: b.reason for b in broken}
    names = [name for name, _ in subject.named]
    order = np.array([place.get(name, -1) for name in names])

    def spread(values: NDArray) -> pa.Array:
        padded = np.append(values.astype(np.float32), np.float32(np.nan))
        return nullable(padded[order])

    sizes = np.vstack([found.sizes, [[0, 0]]])[order]
    fixed = {
        "file": pa.array(names),
        "sha256": pa.array([subject.sha256[name] for name in names]),
        "width": pa.array(sizes[:, 0], pa.int32()),
        "height": pa.array(sizes[:, 1], pa.int32()),
        "error": pa.array([reasons.get(name) for name in names], pa.string()),
    }
    scores = {name: spread(columns[name]) for name in [*SCORES, "in_domain"] if name in columns}
    return pa.table(fixed | scores)


def nullable(values: NDArray) -> pa.Array:
    """float32 with null for what is not finite."""
    values = values.astype(np.float32)
    return pa.array(values, pa.float32(), mask=~np.isfinite(values))


def parquet(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink)
    return sink.getvalue().to_pybytes()
