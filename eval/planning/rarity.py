"""Rarity of items, with the scores and ranks of OpenRarity 0.7.5: information content over the collection's entropy.

A trait that an item lacks counts as a value of its own, and how many traits it has (those of value `none` left out) is
one trait more. Ranks go by the number of values that no other item has, then by score; neighbours in that order with
equal scores share a rank.
"""

import csv
import io
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, islice
from typing import NamedTuple

import numpy as np

TRAIT_COUNT = "meta_trait:trait_count"
ABSENT = None  # the value of a trait that an item lacks
Item = dict[str, str | None]


class ItemRarity(NamedTuple):
    """The rarity score and rank of one item."""

    score: float
    """Its information content over the collection's entropy, which is the mean information content; higher is rarer."""
    rank: int
    """1 for the rarest; equal ones share a rank, and the ranks after it are left out."""
    own: tuple[str, ...]
    """Its values that no other item has, as `trait value`; how many traits it has is one of its values."""

    @property
    def unique(self) -> int:
        """How many of its values no other item has."""
        return len(self.own)


class ValuePairWithItemCounts(NamedTuple):
    """Two values of two traits, and the items in which they stand together."""

    values: tuple[str, str]
    """As `trait: value`."""
    count: int
    """The items that have both."""
    expected: float
    """How many would, were the traits independent."""


def rarity_of_each_item(items: Sequence[Mapping[str, str]]) -> list[ItemRarity]:
    """Score and rank of each item (trait -> value), in the order given."""
    if not items:
        return []
    rows = [item_with_trait_count_added(item) for item in items]
    names = list(dict.fromkeys(name for row in rows for name in row))
    scores, own, entropy = np.zeros(len(rows)), [list[str]() for _ in rows], 0.0
    for name in sorted(names):
        values = [row.get(name, ABSENT) for row in rows]
        counts = Counter(values)
        shares = np.array(list(counts.values())) / len(rows)
        entropy -= float((shares * np.log2(shares)).sum())
        scores += [math.log2(len(rows) / counts[value]) for value in values]
        for mine, value in zip(own, values, strict=True):
            if value is not ABSENT and counts[value] == 1:
                mine.append(f"{'number of traits' if name == TRAIT_COUNT else name} {value}")
    scores /= entropy or 1.0
    order = sorted(range(len(rows)), key=lambda i: (len(own[i]), scores[i]), reverse=True)
    ranks = dict[int, int]()
    for place, i in enumerate(order):
        before = order[place - 1] if place else None
        tied = before is not None and math.isclose(scores[i], scores[before])
        ranks[i] = ranks[before] if tied and before is not None else place + 1
    return [ItemRarity(float(scores[i]), ranks[i], tuple(own[i])) for i in range(len(rows))]


def item_with_trait_count_added(item: Mapping[str, str]) -> Item:
    """The item's traits in lower case without spaces around them, and how many are not `none`."""
    row: Item = {name.lower().strip(): value.lower().strip() for name, value in item.items()}
    return row | {TRAIT_COUNT: str(sum(value not in ("none", "") for value in row.values()))}


def rarest_pairs(items: Sequence[Mapping[str, str]], number: int) -> list[ValuePairWithItemCounts]:
    """The `number` pairs of values that the fewest items have, of the pairs that any item has.

    Of equally rare pairs the one comes first of which the most items were expected.
    """
    singles = Counter(pair for item in items for pair in item.items())
    together = Counter(pair for item in items for pair in combinations(sorted(item.items()), 2))
    found = [
        ValuePairWithItemCounts((f"{a[0]}: {a[1]}", f"{b[0]}: {b[1]}"), count, singles[a] * singles[b] / len(items))
        for (a, b), count in together.items()
    ]
    return sorted(found, key=lambda pair: (pair.count, -pair.expected, pair.values))[:number]


def missing_pairs(
    items: Sequence[Mapping[str, str]], number: int, is_ruled_out: Callable[[Mapping[str, str]], bool]
) -> list[ValuePairWithItemCounts]:
    """The `number` pairs of values that no item has and of which the most items were expected, one item at least.

    `is_ruled_out` says of a pair (trait -> value) that a rule is why it never comes; such pairs are left out.
    """
    singles = Counter(pair for item in items for pair in item.items())
    together = {pair for item in items for pair in combinations(sorted(item.items()), 2)}
    by_trait: dict[str, list[tuple[str, str]]] = {}
    for pair, _ in singles.most_common():
        by_trait.setdefault(pair[0], []).append(pair)
    found = []
    for s, t in combinations(sorted(by_trait), 2):
        for a in by_trait[s]:
            for b in by_trait[t]:
                if (expected := singles[a] * singles[b] / len(items)) < 1:
                    break  # of the values that follow still fewer were expected
                if (a, b) not in together:
                    found.append((-expected, a, b))
    kept = (each for each in sorted(found) if not is_ruled_out(dict(each[1:])))
    return [ValuePairWithItemCounts((": ".join(a), ": ".join(b)), 0, -less) for less, a, b in islice(kept, number)]


def rarity_table_as_csv(
    items: Sequence[Mapping[str, str]], intervals: Sequence[tuple] | None = None, called: Sequence[str] = ()
) -> str:
    """A table of items with score and rank, the rarest first.

    `intervals` (eval/planning/open_slots.py) are those of the items, in their order, where slots are still open.
    `called` says what people call each item, "" where it has no name; a column of it stands there if any has one.
    """
    found = rarity_of_each_item(items)
    names = list(dict.fromkeys(name for item in items for name in item))
    own = ["one_of_one"] if any(called) else []
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    bounds = ["score_low", "score_high", "rank_best", "rank_worst"] if intervals else []
    table.writerow(["slot", *own, "rank", "score", "unique_values", *bounds, *names])
    for i in sorted(range(len(items)), key=lambda i: (found[i].rank, i)):
        row = found[i]
        between = [f"{x:.6f}" if isinstance(x, float) else x for x in intervals[i]] if intervals else []
        told = [i, *(called[i] for _ in own), row.rank, f"{row.score:.6f}", row.unique, *between]
        table.writerow([*told, *(items[i].get(name, "") for name in names)])
    return text.getvalue()
