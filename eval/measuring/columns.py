"""Compute every score of a lot and of its references: a column a score."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eval.lot.batch import existing, split_name
from eval.lot.comparison import Comparison, planned_traits
from eval.lot.subject import Subject, hashes
from eval.measuring import encoder as encoding
from eval.measuring.features import Broken, Features, extract, threads
from eval.measuring.scores import head_file, nullable, parquet, table_digests
from eval.scorers import SCORES, aesthetic, batch, consistency, drawing, duplicates, palette, prompt, style, technical
from stylegate import files, hardware
from stylegate.cache import Cache
from stylegate.config import Config
from stylegate.errors import DataError

ODD_SHARE = 0.05  # references unlike the others; beyond this share they do not agree on a style
OUTSIDE_SHARE = 0.1  # references outside the encoder's domain; beyond this share the brand is outside
FEW_REFERENCES = 16  # of fewer, spreads and quantiles are rough


def compute(config: Config, subject: Subject, compared: Comparison, key: str, quiet: bool = False) -> None:
    """Encode what was not encoded before, score, write."""
    encoder = encoding.load(config.encoder, hardware.device_of(config.hardware))

    def taken(named: list[tuple[str, Path]], sha256: dict[str, str], title: str) -> tuple[Features, list[Broken]]:
        title = "" if quiet else title
        return extract(named, sha256, encoder, compared.background, config.score.batch_size, title)

    found, broken = taken(subject.named, subject.sha256, "score")
    references, bad = taken(compared.references, hashes(compared.references), "references")
    training, lost = taken(compared.training, hashes(compared.training), "training")
    earlier, gone = taken(compared.exported, hashes(compared.exported), "exported")
    if lost + gone:
        listing = [f"{b.name}: {b.reason}" for b in lost + gone]
        raise DataError("pictures that must not come again cannot be read:", listing, "check or remove them.")
    notes = [*subject.notes, *compared.notes, *(f"reference {b.name} is left out: {b.reason}" for b in bad)]
    enough = len(references.names) >= style.MIN_REFERENCES and len(found.names) > 0
    if compared.references and len(references.names) < style.MIN_REFERENCES:
        notes.append(f"{len(references.names)} references can be used; style needs at least {style.MIN_REFERENCES}")

    if style.MIN_REFERENCES <= len(references.names) < FEW_REFERENCES:
        notes.append(
            f"lines that rest on {len(references.names)} references are rough, and refuse some true pictures: "
            f"{FEW_REFERENCES} or more are better"
        )

    (columns, near_training), (own, _) = pixel_scores(found, training), pixel_scores(references, training)
    if training.names and (known := own["novelty"] < duplicates.COPIED).any():
        notes.append(f"{known.sum()} references are training pictures too: they do not say how near others may come")
        if (~known).sum() >= style.MIN_REFERENCES:  # else copies are measured, not refused
            own["novelty"] = np.where(known, np.float32(np.nan), own["novelty"])
    own["distinct"] = duplicates.leave_one_out(references.signatures)
    expected = subject.record.get("size")  # of a batch: what `generate` drew
    columns["size"] = technical.size(found.sizes, (expected, expected) if expected else None)
    columns["alpha"] = technical.alpha(found.transparent, references.transparent, compared.alpha)
    own["size"] = own["alpha"] = np.ones(len(references.names), np.float32)
    texts = text_encoder(encoder)
    columns |= encoder_scores(found, subject, texts)
    head, learned = head_of(config, encoder, found)
    notes += learned
    if head:
        columns["aesthetic"] = aesthetic.score(found.embeddings, head)
    seen, seen_of_references, readable = trait_scores(found, references, training, subject, compared, texts)
    columns, own = columns | seen, own | seen_of_references
    columns["in_domain"], why = in_domain(found, references, encoder)
    foreign, copies, whole = {}, {}, {}
    notes += [why] if why else []
    if enough:
        styled, styled_references, foreign, odd = style_scores(found, references, encoder)
        columns, own, notes = columns | styled, own | styled_references, notes + odd
        copies["distinct"] = percentiles(duplicates.copies(references.signatures))
        if not why:  # an encoder that does not know the brand has nothing to say of the batch
            whole = as_a_whole(found, references)
    columns["distinct"], twin = distinct(found, earlier, subject, columns)
    twins = {"twin": named_by(twin, found.names + earlier.names), "known": named_by(near_training, training.names)}

    rows = table(subject, found, broken, columns, twins)
    files.write(subject.out / "scores.parquet", parquet(rows))
    files.write(subject.out / "references.parquet", parquet(pa.table({k: nullable(v) for k, v in own.items()})))
    record: dict[str, Any] = {
        "key": key,
        "tables": table_digests(subject.out),
        "encoder": config.encoder,
        "encoder_sha256": encoder.sha256,
        "computed": {"precision": "fp32", "device": encoder.device.type, "threads": threads()},
        "references": {
            "from": compared.called,
            "given": len(compared.references),
            "count": len(references.names),
            "sha256": files.digest(references.sha256),
        },
        "foreign": foreign,
        "copies": copies,
        "traits_read": {trait: round(area, 3) for trait, area in readable.items()},
        "batch": whole,
        "summary": summary(whole, readable, planned_traits(subject, compared)),
        "notes": notes,
    }
    files.write_json(subject.out / "score.json", record)


def style_scores(
    found: Features, references: Features, encoder: encoding.Encoder
) -> tuple[dict[str, NDArray], dict[str, NDArray], dict[str, list[float]], list[str]]:
    """The batch's and the references' style columns, percentiles of foreign pictures, what is odd of references."""
    known = encoder.domain.known if encoder.domain else None
    columns = {
        "style": style.score(found.embeddings, references.embeddings),
        "style_nearest": style.nearest(found.embeddings, references.embeddings, known),
        "palette": palette.score(found.signatures, references.signatures),
    }
    own = {
        "style": style.leave_one_out(references.embeddings),
        "style_nearest": style.nearest_leave_one_out(references.embeddings, known),
        "palette": palette.leave_one_out(references.signatures),
    }
    if found.patches.shape[1]:
        columns["drawing"] = drawing.score(found.patches, references.patches)
        own["drawing"] = drawing.leave_one_out(references.patches)
    others = None if known is None else style.score(known, references.embeddings)
    foreign = {} if others is None else {"style": percentiles(others)}
    odd = [references.names[i] for i in style.odd_ones(own["style"], others)]
    said = f"{len(odd)} of {len(own['style'])} references do not look like the others ({', '.join(odd[:5])})"
    apart = (
        ": they may be of several styles, which one line judges badly"
        if len(odd) > ODD_SHARE * len(own["style"])
        else ""
    )
    return columns, own, foreign, [said + apart] if odd else []


def as_a_whole(found: Features, references: Features) -> dict[str, Any]:
    """What is said of the batch, not of a picture: style with its interval, distance to the references, variety."""
    few = min(len(found.names), len(references.names))
    if few < batch.FEWEST:
        return {}
    said: dict[str, Any] = {"style": style.interval(found.embeddings, references.embeddings)._asdict()}
    said["style"]["references"] = float(style.leave_one_out(references.embeddings).mean())
    said["mmd2"], said["mmd2_p"] = batch.mmd(found.embeddings, references.embeddings)
    said["kid"] = batch.kid(found.embeddings, references.embeddings)
    said["vendi"], said["vendi_of"] = batch.vendi(batch.evenly_spread(found.embeddings, few)), few
    said["vendi_references"] = batch.vendi(batch.evenly_spread(references.embeddings, few))
    return said


def summary(whole: dict[str, Any], readable: dict[str, float], planned: Iterable[str]) -> list[str]:
    """The same in words, and the traits that the encoder cannot tell apart on these references."""
    lines = []
    if whole:
        own = whole["style"]
        lines.append(
            f"style {own['mean']:.3f} ({own['low']:.3f} to {own['high']:.3f}; references {own['references']:.3f})"
        )
        chance = "as chance allows" if whole["mmd2_p"] > 0.05 else f"more than chance allows, p = {whole['mmd2_p']:.3f}"
        lines.append(f"distance of the batch to the references (MMD²): {whole['mmd2']:.4f}, {chance}")
        lines.append(
            f"variety: as {whole['vendi']:.0f} different pictures of {whole['vendi_of']} "
            f"(references: {whole['vendi_references']:.0f})"
        )
    blind = [f"{trait} ({area:.2f})" for trait, area in readable.items() if area < prompt.READABLE]
    blind += [f"{trait} (too few references say it)" for trait in planned if trait not in readable]
    if blind:
        lines.append(f"traits that cannot be told apart on these references, hence not asked: {', '.join(blind)}")
    return lines


def percentiles(values: NDArray) -> list[float]:
    """The percentiles 0, 1, ..., 100."""
    return [float(value) for value in np.percentile(values, range(101))]


def distinct(found: Features, earlier: Features, subject: Subject, columns: dict[str, NDArray]) -> duplicates.Nearest:
    """The nearest better picture of the batch, or one that was exported before; those count on from the batch's.

    Better in style, or else to the aesthetic head, by more than the score's resolution.
    """
    by = next((name for name in ("style", "aesthetic") if name in columns), None)
    quality = np.round(columns[by] / SCORES[by].resolution) if by else None
    slots = [split_name(name) for name in found.names] if subject.slots else None
    attempts, groups = (np.array(part) for part in zip(*slots, strict=True)) if slots else (None, None)
    rank = duplicates.ranks(quality, attempts, len(found.names))
    return duplicates.distinct(found.signatures, rank, groups, earlier.signatures)


def pixel_scores(found: Features, training: Features) -> tuple[dict[str, NDArray], NDArray[np.int64]]:
    """The scores that need no encoder; and which training picture is nearest, -1 where there is none."""
    columns = {name: found.technical[:, i] for i, name in enumerate(technical.MEASURES)}
    if not training.names:
        return columns, np.full(len(found.names), -1)
    columns["novelty"], index = duplicates.novelty(found.signatures, training.signatures)
    return columns, index


def named_by(index: NDArray[np.int64], names: list[str]) -> list[str | None]:
    return [names[i] if i >= 0 else None for i in index]


def encoder_scores(found: Features, subject: Subject, texts: Callable[[list[str]], NDArray]) -> dict[str, NDArray]:
    """Consistency always; the prompt for a planned batch."""
    columns = {"consistency": consistency.score(found.embeddings)}
    if subject.slots and found.names:
        prompts = texts([subject.slots[name].prompt for name in found.names])
        columns["prompt"] = prompt.prompt(found.embeddings, prompts)
    return columns


def head_of(config: Config, encoder: encoding.Encoder, found: Features) -> tuple[aesthetic.Head | None, list[str]]:
    """The aesthetic head: learned from labels, named, or the one beside the encoder; and what is to be said of it."""
    if not found.names:
        return None, []
    if config.score.labels:
        labels = aesthetic.read_labels(existing(config.score.labels, "score.labels"))
        named = [(name, path) for name, path, _ in labels]
        seen, broken = extract(named, hashes(named), encoder, "#ffffff", config.score.batch_size, "labels")
        if broken:
            raise DataError("labelled pictures cannot be read:", [f"{b.name}: {b.reason}" for b in broken])
        good = {name: label for name, _, label in labels}
        learned = aesthetic.learn(seen.embeddings, np.array([good[name] for name in seen.names]))
        said = f"aesthetic head of {len(good)} labels: area under the ROC curve {learned.area:.2f} on those held out"
        return learned.head, [said]
    beside = encoder.folder / "aesthetic.safetensors" if encoder.folder else None
    path = head_file(config) or (beside if beside and beside.is_file() else None)
    return (aesthetic.load_head(path, found.embeddings.shape[1], config.encoder) if path else None), []


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
    values = planned_traits(subject, compared)
    truth = [compared.traits.get(name, {}) for name in references.names]
    if not values or not found.names or len(truth) < style.MIN_REFERENCES:
        return {}, {}, {}
    learned = np.array([i for i, name in enumerate(training.names) if name in compared.learned], int)
    more = (prompt.of(rows_of(training), learned), [compared.learned[training.names[i]] for i in learned])
    readable, areas = prompt.readings(rows_of(references), truth, values, texts, more if len(learned) else None)
    if not readable:
        return {}, {}, areas
    planned = [(subject.slots or {})[name].traits for name in found.names]
    own = prompt.of_references(readable)
    return {"traits": prompt.traits(rows_of(found), planned, readable)}, {"traits": own}, areas


def rows_of(features: Features) -> prompt.Rows:
    return prompt.Rows(features.embeddings, features.patches)


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


def table(
    subject: Subject,
    found: Features,
    broken: list[Broken],
    columns: dict[str, NDArray],
    twins: dict[str, list[str | None]],
) -> pa.Table:
    """All pictures in the subject's order; undecodable ones have an error, no scores and no twins."""
    place = {name: i for i, name in enumerate(found.names)}
    reasons = {b.name: b.reason for b in broken}
    names = [name for name, _ in subject.named]
    order = np.array([place.get(name, -1) for name in names], int)

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
    near = {name: pa.array([twin[i] if i >= 0 else None for i in order], pa.string()) for name, twin in twins.items()}
    return pa.table(fixed | scores | near)
