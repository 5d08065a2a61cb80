"""How far slots that are still open leave rarity open: scores and ranks over simulated ends of a batch.

Counts of a plan are exact, and so are its scores, once every slot has a picture. Where some stay empty, the values of
the others become more or less rare. Before the first verdict, any number of slots from the wanted to all may get a
picture, each number as likely. Later each open slot gets one with the share in which slots came to one so far (a Beta
posterior from a uniform prior); slots whose attempts are all used count as such that did not.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from eval.planning.rarity import ABSENT, with_trait_count

ENDS = 200  # simulated ends of the batch
WITHIN = (0.025, 0.975)  # quantiles: of a slot's score or rank 95 of 100 ends lie between


class RarityInterval(NamedTuple):
    """Between what the score and the rank of one slot lie in 95 of 100 simulated ends of the batch."""

    lowest_score: float
    highest_score: float
    best_rank: int
    worst_rank: int


def rarity_intervals(
    items: Sequence[Mapping[str, str]], filled: Collection[int], exhausted: Collection[int], wanted: int
) -> list[RarityInterval] | None:
    """For each slot (its traits) the interval of its rarity, given that it gets a picture.

    `filled` and `exhausted` are the numbers of the slots that have an accepted picture, and of those without attempts
    left; `wanted` is how many must have one. None where no slot is open, or all are wanted and nothing is judged: then
    the scores of the plan are exact.
    """
    judged = bool(filled or exhausted)
    if len(filled) == len(items) or (not judged and wanted >= len(items)):
        return None
    random, columns = np.random.default_rng(0), value_numbers(items)
    scores, ranks = np.full((ENDS, len(items)), np.nan), np.full((ENDS, len(items)), np.nan)
    has, opens = np.zeros(len(items), bool), np.ones(len(items), bool)
    has[list(filled)], opens[list(filled)] = True, False
    for end in range(ENDS):
        if judged:
            share = random.beta(1 + len(filled), 1 + len(exhausted))
            there = has | (opens & (random.random(len(items)) < share))
        else:
            there = np.zeros(len(items), bool)
            there[random.permutation(len(items))[: random.integers(wanted, len(items) + 1)]] = True
        one = np.flatnonzero(opens)[end % opens.sum()]  # so that each slot has ends in which it has a picture
        there[one] = True
        scores[end, there], ranks[end, there] = scores_and_ranks(columns[there])
    low, high = (np.nanquantile(scores, share, axis=0) for share in WITHIN)
    best, worst = (np.nanquantile(ranks, share, axis=0) for share in WITHIN)
    return [
        RarityInterval(float(a), float(b), int(np.floor(c)), int(np.ceil(d)))
        for a, b, c, d in zip(low, high, best, worst, strict=True)
    ]


def value_numbers(items: Sequence[Mapping[str, str]]) -> np.ndarray:
    """[items, traits] the values as numbers, with the number of traits as one trait more; 0 for a trait that lacks."""
    rows = [with_trait_count(item) for item in items]
    names = sorted({name for row in rows for name in row})
    columns = []
    for name in names:
        known: dict[str | None, int] = {ABSENT: 0}
        columns.append([known.setdefault(row.get(name, ABSENT), len(known)) for row in rows])
    return np.array(columns, np.int64).T


def scores_and_ranks(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """OpenRarity's scores and ranks of items by `value_numbers`: eval/planning/rarity.py for many items at once."""
    size = len(columns)
    scores, unique, entropy = np.zeros(size), np.zeros(size, np.int64), 0.0
    for column in columns.T:
        counts = np.bincount(column)
        shares = counts[counts > 0] / size
        entropy -= float((shares * np.log2(shares)).sum())
        scores += np.log2(size / counts[column])
        unique += (counts[column] == 1) & (column != 0)
    scores /= entropy or 1.0
    order = np.lexsort((-scores, -unique))
    ordered = scores[order]
    tied = np.zeros(size, bool)
    tied[1:] = np.isclose(ordered[1:], ordered[:-1], rtol=1e-9, atol=0.0)
    ranks = np.empty(size)
    ranks[order] = np.maximum.accumulate(np.where(tied, 0, np.arange(1, size + 1)))
    return scores, ranks
