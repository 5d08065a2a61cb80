"""How far reviewers agree: raw, Cohen's kappa, Krippendorff's alpha, Gwet's AC1, with bootstrap intervals.

Raw agreement alone misleads where nearly every picture is good: two people who accept everything agree on everything.
Kappa (Cohen, 1960) and alpha (Krippendorff, "Content Analysis") take away what chance would give, and say nothing
where all labels are the same: 0 / 0, here None, never 1. AC1 (Gwet, "Computing inter-rater reliability and its variance
in the presence of high agreement", 2008) is defined there too, as long as the categories that nobody chose are counted.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MISSING = -1
CATEGORIES = ("accept", "reject")
CONFIDENCE, REPLICATES = 0.95, 1000
LOWEST, HIGHEST = {"raw": 0.0, "kappa": -1.0, "alpha": -1.0, "ac1": -1.0}, 1.0


@dataclass(frozen=True, slots=True)
class EstimateWithInterval:
    """A coefficient of agreement, at most 1, with the ends of its bootstrap interval of 95 %."""

    value: float | None  # None: not defined by these labels
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class AgreementCoefficients:
    """How far reviewers agree about the pictures that at least two of them have labelled."""

    pictures: int
    raw: EstimateWithInterval  # share of pairs of labels of one picture that are equal, mean over pictures; 0 to 1
    kappa: EstimateWithInterval  # Cohen's; with more than two reviewers the mean over their pairs
    alpha: EstimateWithInterval  # Krippendorff's, nominal
    ac1: EstimateWithInterval  # Gwet's


def category_numbers_by_picture_and_reviewer(
    labels: Mapping[str, Mapping[str, str]], categories: tuple[str, ...] = CATEGORIES
) -> NDArray[np.int64]:
    """[pictures, reviewers] the index into `categories` of each label, -1 where there is none.

    `labels` is a mapping of reviewer to picture to label. Raises ValueError for a label that is no category.
    """
    pictures = sorted({picture for given in labels.values() for picture in given})
    if unknown := {label for given in labels.values() for label in given.values()} - set(categories):
        raise ValueError(f"{', '.join(sorted(unknown))}: the labels are {', '.join(categories)}")
    rows = [
        [categories.index(given[picture]) if picture in given else MISSING for given in labels.values()]
        for picture in pictures
    ]
    return np.array(rows, int).reshape(len(pictures), len(labels))


def label_counts_per_picture(ratings: NDArray[np.int64], categories: int) -> NDArray[np.float64]:
    """[pictures, categories] how many reviewers gave each label, from a table of indices where -1 is missing."""
    return (ratings[:, :, None] == np.arange(categories)).sum(1).astype(float)


def raw_agreement(counts: NDArray[np.float64]) -> float | None:
    """Share of pairs of labels of one picture that are equal, the mean over pictures with two labels or more.

    `counts` is [pictures, categories], how many reviewers gave each label. None if no picture has two labels.
    """
    given = counts.sum(1)
    counts, given = counts[given >= 2], given[given >= 2]
    return float(((counts * (counts - 1)).sum(1) / (given * (given - 1))).mean()) if len(counts) else None


def krippendorff_alpha(counts: NDArray[np.float64]) -> float | None:
    """Krippendorff's alpha for nominal labels with missing values: 1 - observed / expected disagreement.

    `counts` is [pictures, categories], how many reviewers gave each label. None if no picture has two labels, and if
    all labels of such pictures are the same.
    """
    counts = counts[counts.sum(1) >= 2]
    given, total, number = counts.sum(1), counts.sum(0), counts.sum()
    expected = (total * (number - total)).sum()
    if not expected:
        return None
    observed = ((counts * (given[:, None] - counts)).sum(1) / (given - 1)).sum()
    return float(1 - (number - 1) * observed / expected)


def gwet_ac1(counts: NDArray[np.float64]) -> float | None:
    """Gwet's first-order agreement coefficient (AC1) for nominal labels with missing values.

    `counts` is [pictures, categories], how many reviewers gave each label; a category that nobody chose keeps its
    column, and there are at least two. None if no picture has two labels.
    """
    observed = raw_agreement(counts)
    if observed is None:
        return None
    counts = counts[counts.sum(1) > 0]
    share = (counts / counts.sum(1, keepdims=True)).mean(0)
    chance = (share * (1 - share)).sum() / (len(share) - 1)
    return float((observed - chance) / (1 - chance))


def cohen_kappa(ratings: NDArray[np.int64], categories: int) -> float | None:
    """Cohen's kappa of two reviewers; with more of them the mean over pairs (Light, 1971), of those where it is
    defined.

    `ratings` is [pictures, reviewers] of category indices, -1 where missing: a pair is compared where both have a
    label. Kappa is not defined for two who gave one and the same label throughout. None if it is for no pair.
    """
    found = []
    for a, b in itertools.combinations(ratings.T, 2):
        both = (a != MISSING) & (b != MISSING)
        joint = np.zeros((categories, categories))
        np.add.at(joint, (a[both], b[both]), 1.0)
        number = joint.sum()
        chance = joint.sum(0) @ joint.sum(1)
        if chance < number**2:
            found.append((number * np.trace(joint) - chance) / (number**2 - chance))
    return float(np.mean(found)) if found else None


def agreement_coefficients_by_name(ratings: NDArray[np.int64], categories: int) -> dict[str, float | None]:
    """raw, kappa, alpha and ac1 by name, of [pictures, reviewers] category indices (-1: missing); None
    if not defined.
    """
    counts = label_counts_per_picture(ratings, categories)
    return {
        "raw": raw_agreement(counts),
        "kappa": cohen_kappa(ratings, categories),
        "alpha": krippendorff_alpha(counts),
        "ac1": gwet_ac1(counts),
    }


def measure_agreement(
    labels: Mapping[str, Mapping[str, str]], categories: tuple[str, ...] = CATEGORIES, seed: int = 0
) -> AgreementCoefficients:
    """How far reviewers agree, from a mapping of reviewer to picture (sha256) to label, with bootstrap intervals.

    Pictures are drawn anew with replacement, 1,000 times. A draw in which a coefficient is not defined counts as its
    lowest value for the lower end and as 1 for the upper one: nothing is known there. Where no two labels differ, the
    bootstrap would say 1 to 1; then the lower end of raw agreement is the exact binomial one, and what chance gives is
    taken from it as it is from the value. Raises ValueError for fewer than two categories or an unknown label.
    """
    if len(categories) < 2:
        raise ValueError("agreement needs at least two categories")
    ratings = category_numbers_by_picture_and_reviewer(labels, categories)
    ratings = ratings[(ratings != MISSING).sum(1) >= 2]
    found = agreement_coefficients_by_name(ratings, len(categories))
    rng = np.random.default_rng(seed)
    draws = [rng.integers(0, len(ratings), len(ratings)) for _ in range(REPLICATES if len(ratings) else 0)]
    replicates = [agreement_coefficients_by_name(ratings[draw], len(categories)) for draw in draws]
    tail = (1 - CONFIDENCE) / 2
    made = {}
    for name, value in found.items():
        if value is None:
            made[name] = EstimateWithInterval(None, LOWEST[name], HIGHEST)
            continue
        values = [replicate[name] for replicate in replicates]
        low = float(np.quantile([LOWEST[name] if v is None else v for v in values], tail))
        high = float(np.quantile([HIGHEST if v is None else v for v in values], 1 - tail))
        if found["raw"] == 1:
            low = agreement_lower_bound_if_all_agree(name, ratings, len(categories))
        made[name] = EstimateWithInterval(value, min(low, value), max(high, value))
    return AgreementCoefficients(pictures=len(ratings), **made)


def agreement_lower_bound_if_all_agree(name: str, ratings: NDArray[np.int64], categories: int) -> float:
    """Lower end of a coefficient's interval where every pair of labels is equal.

    Raw agreement p of n pictures that all agree is ruled out where p^n is below 2.5 %. The chance-corrected
    coefficients are (p - chance) / (1 - chance), with the chance that the labels show.
    """
    counts = label_counts_per_picture(ratings, categories)
    raw = ((1 - CONFIDENCE) / 2) ** (1 / len(counts))
    share = (counts / counts.sum(1, keepdims=True)).mean(0)
    chance = {
        "raw": 0.0,
        "kappa": (share**2).sum(),
        "alpha": (share**2).sum(),
        "ac1": (share * (1 - share)).sum() / (categories - 1),
    }[name]
    return max(LOWEST[name], float((raw - chance) / (1 - chance)))
