"""The batch as a whole: style with its interval, distance to the references, variety; in numbers and in words."""

from collections.abc import Iterable
from typing import Any

from eval.measuring.measured import Measured
from eval.scorers import batch, style
from eval.scorers.prompt import READABLE


def describe_batch(measured: Measured) -> dict[str, Any]:
    """Numbers of the batch, not of a picture, for score.json; empty if either set has fewer than batch.FEWEST.

    style: mean, low and high (95 % interval) of the whitened cosine, and the references' own mean; mmd2, its p-value,
    kid: distances to the references; vendi, vendi_references: effective number of different pictures of vendi_of each.
    """
    pictures, references = measured.pictures.embeddings, measured.references.embeddings
    few = min(len(pictures), len(references))
    if few < batch.FEWEST:
        return {}
    found: dict[str, Any] = {"style": style.mean_interval(pictures, references)._asdict()}
    found["style"]["references"] = float(measured.own["style"].mean())
    found["mmd2"], found["mmd2_p"] = batch.mmd(pictures, references)
    found["kid"] = batch.kid(pictures, references)
    found["vendi"], found["vendi_of"] = batch.vendi(batch.evenly_spaced_rows(pictures, few)), few
    found["vendi_references"] = batch.vendi(batch.evenly_spaced_rows(references, few))
    return found


def summary_in_words(batch: dict[str, Any], areas: dict[str, float], planned: Iterable[str]) -> list[str]:
    """A line each on style, distance and variety of the batch, and one on planned traits that cannot be told apart.

    `batch` is what `describe_batch` gave; `areas` says how well each trait could be read, 0.5 (not) to 1.
    """
    lines = []
    if batch:
        own = batch["style"]
        lines.append(
            f"style {own['mean']:.3f} ({own['low']:.3f} to {own['high']:.3f}; references {own['references']:.3f})"
        )
        chance = "as chance allows" if batch["mmd2_p"] > 0.05 else f"more than chance allows, p = {batch['mmd2_p']:.3f}"
        lines.append(f"distance of the batch to the references (MMD²): {batch['mmd2']:.4f}, {chance}")
        lines.append(
            f"variety: as {batch['vendi']:.0f} different pictures of {batch['vendi_of']} "
            f"(references: {batch['vendi_references']:.0f})"
        )
    blind = [f"{trait} ({area:.2f})" for trait, area in areas.items() if area < READABLE]
    blind += [f"{trait} (too few references say it)" for trait in planned if trait not in areas]
    if blind:
        lines.append(f"traits that cannot be told apart on these references, hence not asked: {', '.join(blind)}")
    return lines
