"""How far slots that are still open leave rarity open: scores and ranks over simulated ends of a batch.

Counts of a plan are exact, and so are its scores, once every slot has a picture. Where some stay empty, the values of
the others become more or less rare. Before the first verdict, any number of slots from the wanted to all may get a
picture, each number as likely. Later each open slot gets one with the share in which slots came to one so far (a Beta
posterior from a uniform prior); slots whose attempts are all used count as such that did not.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from eval.planning.rarity import ABSENT, item_with_trait_count_added

ENDS = 200  # simulated ends of the batch
UNIQUE_FIRST = 1e6  # ranks go by unique values first, then by bits, which stay far below this
TIED = 1e-9  # bits that differ by less are equal
WITHIN = (0.025, 0.975)  # quantiles: of a slot's score or rank 95 of 100 ends lie between


class RarityInterval(NamedTuple):
    """The range in which the score and the rank of one slot lie in 95 of 100 simulated ends of the batch."""

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
    random, columns = np.random.default_rng(0), value_number_table(items)
    scores, ranks = np.empty((ENDS, len(items))), np.empty((ENDS, len(items)))
    has, opens = np.zeros(len(items), bool), np.ones(len(items), bool)
    has[list(filled)], opens[list(filled)] = True, False
    for end in range(ENDS):
        if judged:
            share = random.beta(1 + len(filled), 1 + len(exhausted))
            there = has | (opens & (random.random(len(items)) < share))
        else:
            there = np.zeros(len(items), bool)
            there[random.permutation(len(items))[: random.integers(wanted, len(items) + 1)]] = True
        scores[end, there], ranks[end, there] = rarity_scores_and_ranks(columns[there])
        scores[end, ~there], ranks[end, ~there] = rarity_scores_and_ranks_if_added(columns[there], columns[~there])
    low, high = (np.quantile(scores, share, axis=0) for share in WITHIN)
    best, worst = (np.quantile(ranks, share, axis=0) for share in WITHIN)
    return [
        RarityInterval(float(a), float(b), int(np.floor(c)), int(np.ceil(d)))
        for a, b, c, d in zip(low, high, best, worst, strict=True)
    ]


def value_number_table(items: Sequence[Mapping[str, str]]) -> np.ndarray:
    """[items, traits + 1] the values as numbers, the number of traits as one trait more; 0 for a trait that an item
    lacks.
    """
    rows = [item_with_trait_count_added(item) for item in items]
    names = sorted({name for row in rows for name in row})
    columns = []
    for name in names:
        known: dict[str | None, int] = {ABSENT: 0}
        columns.append([known.setdefault(row.get(name, ABSENT), len(known)) for row in rows])
    return np.array(columns, np.int64).T


class ItemInformationContent(NamedTuple):
    """Information content of n items, and the entropy of the collection that each belongs to, in bits: what
    OpenRarity's scores are computed from.
    """

    bits: np.ndarray  # [n] information content of the item
    unique: np.ndarray  # [n] how many of its values no other item has
    entropy: np.ndarray  # [] of the collection, or [n] where each item is in one of its own; score = bits / entropy

    def openrarity_scores(self) -> np.ndarray:
        """[n] OpenRarity's scores; 0 where all items are the same."""
        return self.bits / np.where(self.entropy > 1e-12, self.entropy, 1.0)


def information_content_of_items(columns: np.ndarray) -> ItemInformationContent:
    """The information content of items in one collection, from their `value_number_table` [n, traits]."""
    size = len(columns)
    bits, unique, entropy = np.zeros(size), np.zeros(size, np.int64), np.zeros(())
    for column in columns.T:
        counts = np.bincount(column)
        shares = counts[counts > 0] / size
        entropy = entropy - (shares * np.log2(shares)).sum()
        bits += np.log2(size / counts[column])
        unique += (counts[column] == 1) & (column != 0)
    return ItemInformationContent(bits, unique, np.asarray(entropy))


def rarity_scores_and_ranks(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """([n] scores, [n] ranks) by OpenRarity of items with `value_number_table` [n, traits].

    It is eval/planning/rarity.py for many items at once.
    """
    found, size = information_content_of_items(columns), len(columns)
    scores, unique = found.openrarity_scores(), found.unique
    order = np.lexsort((-scores, -unique))
    ordered = scores[order]
    tied = np.zeros(size, bool)
    tied[1:] = np.isclose(ordered[1:], ordered[:-1], rtol=1e-9, atol=0.0)
    ranks = np.empty(size)
    ranks[order] = np.maximum.accumulate(np.where(tied, 0, np.arange(1, size + 1)))
    return scores, ranks


def rarity_scores_and_ranks_if_added(columns: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The score and rank that each of `others` [m, traits] would have as the only one added to `columns` [n, traits].

    Both hold value numbers. Scores are exact. For ranks, `columns` are taken to be as rare as before: an item gains
    bits as the collection grows, and loses as many on average where it shares a value with the added one. So a rank is
    some two places off (tests/eval/test_planning.py).
    """
    size = len(columns) + 1
    bits, unique, entropy = np.zeros(len(others)), np.zeros(len(others), np.int64), np.zeros(len(others))
    for column, of_others in zip(columns.T, others.T, strict=True):
        counts = np.bincount(column, minlength=int(of_others.max(initial=0)) + 1)
        each, more = (counts_times_log2(number) for number in (counts, counts + 1))
        entropy += np.log2(size) - (each.sum() - each + more)[of_others] / size
        bits += np.log2(size / (counts[of_others] + 1))
        unique += (counts[of_others] == 0) & (of_others != 0)
    before = information_content_of_items(columns)
    keys = np.sort(before.unique * UNIQUE_FIRST + before.bits)
    above = len(keys) - np.searchsorted(keys, unique * UNIQUE_FIRST + bits + TIED, side="right")
    return ItemInformationContent(bits, unique, entropy).openrarity_scores(), 1.0 + above


def counts_times_log2(counts: np.ndarray) -> np.ndarray:
    """c log2 c of each count c, in the shape of `counts`; 0 for 0."""
    return counts * np.log2(np.maximum(counts, 1))
