"""The nearest picture of each by likeness (stylegate/similarity.py), among a million without a matrix of all pairs.

Pictures are multiplied tile by tile, as thumbnails of 16 x 16 pixels, which see what is drawn, and of 8 x 8, which a
copy that was moved stays near to. Of each tile a row keeps the few that correlate most: so as much is found among a
million as among a thousand, since the number of unrelated pictures that correlate more than a moved copy grows with
their number. Of those that 8 x 8 pixels propose, the picture moved by two pixels chooses: the best of nine positions.
A moved copy lies within one pixel of one of them, and correlates by .95 and more (docs/log.md). Likeness decides.
"""

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from stylegate.pictures import CORES
from stylegate.similarity import MAX_SHIFT, SIDE, centred_thumbnails, likeness_of_pairs

GRID = 8  # pixels of the coarse thumbnail's side
ROWS, TILE = 1024, 4096  # pictures that are multiplied at once
FINE, FAR = 3, 0.2  # pictures that thumbnails of 16 x 16 propose, and how far below the first of them others may lie
SHARE = 5000  # one more of them for so many pictures
COARSE = 8  # pictures of each tile that thumbnails of 8 x 8 propose
MOVED, CLOSE = 2, 0.03  # of those: how many are kept, and how far below the best position the second may lie
TIES = 4  # times as many are proposed where several correlate alike
STRIPE = 32  # columns whose largest product stands for them while a row's largest ones are looked for
ASIDE, LOWEST = np.float32(-2), np.float32(-1.5)  # instead of a correlation: not to be compared; below any

Found = TypeVar("Found")


class Thumbnails(NamedTuple):
    """Centred thumbnails of n pictures as rows of length 1, in half precision: 2 KB a picture."""

    fine: NDArray[np.float16]  # [n, 768] 16 x 16 pixels
    coarse: NDArray[np.float16]  # [n, 192] 8 x 8 pixels


def thumbnails_in_given_order(signatures: NDArray[np.uint8], places: NDArray[np.int64]) -> Thumbnails:
    """Thumbnails of signatures [n, 64, 64, 3]; row i is of the signature places[i]. The signatures are read from first
    to last, since they may lie on disk.
    """
    made = Thumbnails(np.empty((len(places), 768), np.float16), np.empty((len(places), 3 * GRID * GRID), np.float16))
    rank = np.empty(len(places), np.int64)
    rank[places] = np.arange(len(places))

    def fill_thumbnail_rows(rows: slice) -> None:
        fine = centred_thumbnails(signatures[rows])
        small = fine.reshape(-1, 3, GRID, 2, GRID, 2).sum((3, 5)).reshape(len(fine), -1)
        made.fine[rank[rows]] = fine
        made.coarse[rank[rows]] = small / np.maximum(np.linalg.norm(small, axis=1, keepdims=True), 1e-6)

    for _ in map_blocks_in_threads(fill_thumbnail_rows, len(places)):
        pass
    return made


def thumbnails_shifted_by_pixels(signatures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[n, 9, 192] coarse thumbnails of signatures that were moved by -2, 0 and 2 pixels down and right."""
    half, count = SIDE // MAX_SHIFT, len(signatures)  # a move is one pixel of half the size
    lines = signatures.reshape(count, half, MAX_SHIFT, SIDE * 3).sum(2, dtype=np.uint16)
    halves = lines.reshape(count, half, half, MAX_SHIFT, 3).sum(3, dtype=np.uint16)
    found = np.empty((count, 9, 3, GRID * GRID), np.float32)
    for down in (-1, 0, 1):
        rows = np.roll(halves, down, 1).reshape(count, GRID, -1, half, 3).sum(2, dtype=np.uint16)
        for right in (-1, 0, 1):
            cells = np.roll(rows, right, 2).reshape(count, GRID, GRID, -1, 3).sum(3, dtype=np.uint16)
            found[:, 3 * down + right + 4] = cells.reshape(count, GRID * GRID, 3).transpose(0, 2, 1)
    found -= found.mean(3, keepdims=True)
    moved = found.reshape(count, 9, -1)
    return moved / np.maximum(np.linalg.norm(moved, axis=2, keepdims=True), 1e-6)


def nearest_by_likeness(
    signatures: NDArray[np.uint8],
    others: NDArray[np.uint8] | None = None,
    groups: NDArray | None = None,
    order: NDArray | None = None,
    groups_of_others: NDArray | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """For each of n pictures its largest likeness to one of `others`, [n], and that one's index, [n]; 0 and -1 where
    there are none. Pictures of its own group (attempts at one slot) are left aside.

    Without `others`: to the pictures before it in the same array (so the first of a pair stays unmarked); `order` says
    which come before, and results and groups are in that order. Of `others` the groups are `groups_of_others`.
    Signatures [n, 64, 64, 3] may lie on disk: a few of them are in memory at once.
    """
    best, index = np.zeros(len(signatures), np.float32), np.full(len(signatures), -1)
    pool = signatures if others is None else others
    if not len(signatures) or not len(pool):
        return best, index
    places = np.arange(len(signatures)) if order is None or others is not None else order
    of_pool = places if others is None else np.arange(len(pool))
    keys = thumbnails_in_given_order(pool, of_pool)
    among = groups if others is None else groups_of_others

    def nearest_pairs_of_block(rows: slice) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Pairs (picture, nearest one) of these rows, and the likeness of each."""
        shown, same = signatures[places[rows]], np.empty((0, 2), np.int64)
        if groups is not None and among is not None:
            same = pairs_of_same_group(groups[rows], among)
        if others is not None:
            pairs = likely_pairs(shown, keys, same)
        else:
            pairs = likely_pairs(shown, Thumbnails(*(part[: rows.stop] for part in keys)), same, rows.start)
        pairs[:, 0] += rows.start
        values = likeness_of_pairs(signatures, np.stack([places[pairs[:, 0]], of_pool[pairs[:, 1]]], 1), pool)
        ranked = np.lexsort((pairs[:, 1], -values, pairs[:, 0]))
        winners = ranked[np.unique(pairs[ranked, 0], return_index=True)[1]]
        return pairs[winners], values[winners]

    for pairs, values in map_blocks_in_threads(nearest_pairs_of_block, len(signatures)):
        best[pairs[:, 0]], index[pairs[:, 0]] = values, pairs[:, 1]
    return best, index


def largest_likeness_to_others(signatures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[n] the largest likeness of each of the signatures [n, 64, 64, 3] to another one; 0 where there is none.

    A pair that both of its signatures propose is compared once.
    """
    if len(signatures) < 2:
        return np.zeros(len(signatures), np.float32)
    best = np.full(len(signatures), -np.inf, np.float32)
    keys = thumbnails_in_given_order(signatures, np.arange(len(signatures)))

    def likely_pairs_of_block(rows: slice) -> NDArray[np.int64]:
        own = np.arange(rows.stop - rows.start)
        pairs = likely_pairs(signatures[rows], keys, np.stack([own, own + rows.start], 1))
        pairs[:, 0] += rows.start
        return pairs

    proposals = np.concatenate(list(map_blocks_in_threads(likely_pairs_of_block, len(signatures))))
    pairs, places = np.unique(np.sort(proposals, axis=1), axis=0, return_inverse=True)
    values = map_blocks_in_threads(lambda part: likeness_of_pairs(signatures, pairs[part], signatures), len(pairs))
    np.maximum.at(best, proposals[:, 0], np.concatenate(list(values))[places.ravel()])
    return np.where(np.isinf(best), 0, best).astype(np.float32)


def map_blocks_in_threads(work: Callable[[slice], Found], count: int) -> Iterator[Found]:
    """Yield `work(rows)` of each ROWS of `count` rows, in their order; each core works on a block of its own."""
    blocks = [slice(start, min(start + ROWS, count)) for start in range(0, count, ROWS)]
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(CORES) as workers:
        for start in range(0, len(blocks), CORES):
            yield from workers.map(work, blocks[start : start + CORES])


def pairs_of_same_group(groups: NDArray, among: NDArray) -> NDArray[np.int64]:
    """[k, 2] (row, column): for each picture, of the group `groups[row]`, every picture whose group in `among` it is,
    itself included where it is there.
    """
    order = np.argsort(among, kind="stable")
    first, last = (np.searchsorted(among, groups, side, order) for side in ("left", "right"))
    sizes = last - first
    within = np.arange(sizes.sum()) - np.repeat(sizes.cumsum() - sizes, sizes)
    return np.stack([np.repeat(np.arange(len(sizes)), sizes), order[np.repeat(first, sizes) + within]], 1)


def likely_pairs(
    signatures: NDArray[np.uint8],
    keys: Thumbnails,
    aside: NDArray[np.int64] | None = None,
    place: int | None = None,
) -> NDArray[np.int64]:
    """[k, 2] pairs (row, column) that are alike enough by thumbnails for their likeness to be computed.

    `signatures` [r, 64, 64, 3] are the rows', `keys` thumbnails of m pictures. Pairs of `aside` [k, 2] are left out;
    with `place` row i is picture place + i of the keys, and is compared with those before it.
    """
    fine, moved = centred_thumbnails(signatures), thumbnails_shifted_by_pixels(signatures)
    still = np.ascontiguousarray(moved[:, 4])
    first, first_values, second = [np.empty((0, 2), np.int64)], [np.empty(0, np.float32)], [np.empty((0, 2), np.int64)]
    for start in range(0, len(keys.fine), TILE):
        tile = Thumbnails(*(part[start : start + TILE].astype(np.float32) for part in keys))  # type: ignore[arg-type]
        products, coarse = fine @ tile.fine.T, still @ tile.coarse.T
        for found in (products, coarse):
            if aside is not None and len(aside):
                rows, columns = aside[(aside[:, 1] >= start) & (aside[:, 1] < start + len(tile.fine))].T
                found[rows, columns - start] = ASIDE
            if place is not None and start + len(tile.fine) > place:
                after = np.arange(start, start + len(tile.fine)) >= place + np.arange(len(found))[:, None]
                found[after] = ASIDE
        pairs = top_positions_of_each_row(products, 2 * FINE)
        first.append(pairs + np.array([0, start]))
        first_values.append(products[pairs[:, 0], pairs[:, 1]])
        second.append(top_positions_of_each_row(coarse, COARSE) + np.array([0, start]))
    fine_pairs, coarse_pairs = np.concatenate(first), np.concatenate(second)
    chosen = [best_pairs_of_each_row(fine_pairs, np.concatenate(first_values), FINE + len(keys.fine) // SHARE, FAR)]
    chosen.append(
        best_pairs_of_each_row(
            coarse_pairs, best_correlation_over_moves(moved, keys.coarse, coarse_pairs), MOVED, CLOSE
        )
    )
    return np.unique(np.concatenate(chosen), axis=0)


def best_correlation_over_moves(
    moved: NDArray[np.float32], coarse: NDArray[np.float16], pairs: NDArray[np.int64]
) -> NDArray[np.float32]:
    """[k] for each of the pairs (row, column), how well the column's coarse thumbnail [192] correlates with the row's
    best one of nine moved thumbnails, `moved` [r, 9, 192].
    """
    order = np.argsort(pairs[:, 0], kind="stable")
    ends = np.searchsorted(pairs[order, 0], np.arange(len(moved) + 1))
    found = np.empty(len(pairs), np.float32)
    for row, (first, last) in enumerate(itertools.pairwise(ends)):
        those = order[first:last]
        found[those] = (coarse[pairs[those, 1]].astype(np.float32) @ moved[row].T).max(1)
    return found


def best_pairs_of_each_row(
    pairs: NDArray[np.int64], values: NDArray[np.float32], count: int, reach: float
) -> NDArray[np.int64]:
    """The `count` pairs of each row with the largest values, without those that lie further than `reach` below the
    first.
    """
    order = np.lexsort((pairs[:, 1], -values, pairs[:, 0]))
    pairs, values = pairs[order], values[order]
    starts = np.searchsorted(pairs[:, 0], pairs[:, 0])  # where each row's pairs begin
    return pairs[(np.arange(len(pairs)) - starts < count) & (values >= values[starts] - reach)]


def top_positions_of_each_row(products: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """[k, 2] (row, column) of the `count` largest values in each row of `products` [r, m], or a few more; never a value
    that is ASIDE (a pair that is not to be compared).

    The line is the smallest of the `count` largest among the largest products of stripes of columns, so that hardly
    anything is sorted. Where many are as large as the line, TIES times as many are taken, those of the first columns.
    """
    width = products.shape[1]
    stripe = STRIPE if width >= 2 * COARSE * STRIPE else 1
    whole = width // stripe * stripe
    largest = products[:, :whole].reshape(len(products), -1, stripe).max(2) if stripe > 1 else products
    if whole < width:
        largest = np.concatenate([largest, products[:, whole:].max(1, keepdims=True)], 1)
    lines = np.full((len(products), 1), LOWEST)
    if largest.shape[1] > count:
        lines = np.maximum(np.partition(largest, -count, axis=1)[:, -count, None], LOWEST)
    rows, columns = np.divmod(np.flatnonzero(products >= lines), width)
    few = np.arange(len(rows)) - np.searchsorted(rows, rows) < TIES * count
    return np.stack([rows[few], columns[few]], 1)
