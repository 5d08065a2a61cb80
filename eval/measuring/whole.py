"""The batch as a whole: style with its interval, distance to the references, variety; in numbers and in words."""

from collections.abc import Iterable

from eval.measuring.measured import MeasuredLot
from eval.measuring.record import BatchMeanStyleScore, BatchMeasures, StyleReadability
from eval.scorers import batch, style
from eval.scorers.prompt import READABLE


def measure_batch(measured: MeasuredLot) -> BatchMeasures:
    """The numbers of the batch for score.json; none of them if either set has fewer than batch.FEWEST."""
    pictures, references = measured.pictures.embeddings, measured.references.embeddings
    few = min(len(pictures), len(references))
    if few < batch.FEWEST:
        return BatchMeasures()
    interval, own = style.mean_score_with_interval(pictures, references), float(measured.own["style"].mean())
    mmd2, mmd2_p = batch.squared_mmd_and_p_value(pictures, references)
    return BatchMeasures(
        style=BatchMeanStyleScore(mean=interval.mean, low=interval.low, high=interval.high, references=own),
        mmd2=mmd2,
        mmd2_p=mmd2_p,
        kid=batch.kernel_distance(pictures, references),
        vendi=batch.vendi_score(batch.evenly_spaced_rows(pictures, few)),
        vendi_of=few,
        vendi_references=batch.vendi_score(batch.evenly_spaced_rows(references, few)),
    )


def batch_summary_in_words(
    whole: BatchMeasures, areas: dict[str, float], planned: Iterable[str], readability: StyleReadability | None
) -> list[str]:
    """Lines on how surely the style is read, on style, distance and variety of the batch, and on traits that cannot be
    told apart.

    `areas` says how well each trait could be read, 0.5 (not) to 1; `planned` names the traits that pictures should
    have.
    """
    lines = [readability.readability_in_words()] if readability else []
    if own := whole.style:
        lines.append(f"style {own.mean:.3f} ({own.low:.3f} to {own.high:.3f}; references {own.references:.3f})")
    if whole.mmd2 is not None and whole.mmd2_p is not None:
        chance = "as chance allows" if whole.mmd2_p > 0.05 else f"more than chance allows, p = {whole.mmd2_p:.3f}"
        lines.append(f"distance of the batch to the references (MMD²): {whole.mmd2:.4f}, {chance}")
    if whole.vendi is not None:
        lines.append(
            f"variety: as {whole.vendi:.0f} different pictures of {whole.vendi_of} "
            f"(references: {whole.vendi_references:.0f})"
        )
    blind = [f"{trait} ({area:.2f})" for trait, area in areas.items() if area < READABLE]
    blind += [f"{trait} (not known of enough references)" for trait in planned if trait not in areas]
    if blind:
        lines.append(f"traits that cannot be told apart on these references, hence not asked: {', '.join(blind)}")
    return lines
