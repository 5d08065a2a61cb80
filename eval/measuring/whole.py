"""The batch as a whole: style with its interval, distance to the references, variety; in numbers and in words."""

from collections.abc import Iterable
from math import floor

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
    told apart. Where the style cannot be read, nothing is said of the style and of the distance.

    `areas` says how well each trait could be read, 0.5 (not) to 1; `planned` names the traits that pictures should
    have.
    """
    lines = [readability.readability_in_words()] if readability else []
    believed = readability is None or readability.readable
    if (own := whole.style) and believed:
        lines.append(
            f"style: {own.mean:.3f} on average, between {own.low:.3f} and {own.high:.3f} with 95 % confidence; the "
            f"references have {own.references:.3f} (higher is closer to their style, 1 is the most)"
        )
    if whole.mmd2 is not None and whole.mmd2_p is not None and believed:
        how = "no more than chance explains" if whole.mmd2_p > 0.05 else "more than chance explains"
        lines.append(
            f"all pictures together differ from the references {how}: {whole.mmd2:.4f} (0 is no difference; chance "
            f"alone gives as much in {whole.mmd2_p:.1%} of cases)"
        )
    if whole.vendi is not None:
        lines.append(
            f"variety of the pictures: {whole.vendi:.0f}, of the references: {whole.vendi_references:.0f} (1 is all "
            f"alike, {whole.vendi_of} is all different)"
        )
    blind = [f"{trait} {floor(area * 100 + 1e-6)}" for trait, area in areas.items() if area < READABLE]
    if blind:
        lines.append(
            "traits that are not checked, since their values are too hard to distinguish on these references: "
            f"{', '.join(blind)} (right in so many of 100 comparisons; 50 is guessing, {READABLE * 100:.0f} is needed)"
        )
    if unknown := [trait for trait in planned if trait not in areas]:
        few = "traits that are not checked, since too few references say which value they show"
        lines.append(f"{few}: {', '.join(unknown)}")
    return lines
