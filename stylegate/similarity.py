"""How alike two pictures are: signatures of 64 x 64 pixels, compared at every small shift.

A brand set is searched for near-duplicates with it, and the gate for copies of better, earlier or training pictures.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray
from PIL import Image

from stylegate.pictures import CORES

SIDE = 64  # side of the signature that similarity is taken of
MAX_SHIFT = 2  # signature pixels, about 3 % of the side
FLAT = 1.0  # squared levels; a picture with less energy than this is one colour
PROPOSED = 0.8  # thumbnails that correlate less are of pictures that are not alike (docs/log.md)
BLOCK = 1024  # pictures that are compared with the rest at once
NEAR = 0.97  # similarity above which two pictures of a brand set are near-duplicates (docs/log.md, "Near-duplicates")

# Likeness: the correlation of two pictures' colours, best over small shifts. Blind to brightness, contrast
# and recompression, sharp for shape and colour; collectibles that share a template differ in it.


def signature_of_picture(image: Image.Image) -> NDArray[np.uint8]:
    """The picture scaled to 64 x 64 pixels, uint8 [64, 64, 3]: what its likeness to others is computed from."""
    return np.asarray(
        image.resize((SIDE, SIDE), Image.Resampling.BOX if image.width > SIDE else Image.Resampling.LANCZOS)
    )


class PreparedPictureSignatures(NamedTuple):
    """Signatures in the form that `signature_likeness_row_by_row` compares."""

    values: NDArray[np.float32]  # [n, MARGIN + 3 * STRIDE * STRIDE + MARGIN] about their means, zeros between rows
    energies: NDArray[np.float64]  # [n, 25] squares within what each shift down and right leaves


SHIFTS = range(-MAX_SHIFT, MAX_SHIFT + 1)  # along each axis
# [5, 5]: which of a line's parts each shift leaves within the other picture: two pixels, the middle, two pixels
INSIDE = np.array([[max(d, 0) <= p < len(SHIFTS) + min(d, 0) for p in range(len(SHIFTS))] for d in SHIFTS], np.float32)
STRIDE = SIDE + MAX_SHIFT  # from row to row: a shift is one offset, and what it carries over an edge is zero
MARGIN = MAX_SHIFT * (STRIDE + 1)  # the largest offset
TOGETHER = 64  # pairs that are compared at once, so that they stay in the processor's cache


def prepare_picture_signatures(signatures: NDArray[np.uint8]) -> PreparedPictureSignatures:
    """Signatures, uint8 [n, 64, 64, 3], centred and padded, with the energy that each shift leaves: what
    `signature_likeness_row_by_row` compares.
    """
    planes = signatures.transpose(0, 3, 1, 2).astype(np.float32, order="C").reshape(-1, 3, SIDE * SIDE)
    planes -= planes.mean(2, keepdims=True)
    squares = np.einsum("nck,nck->nk", planes, planes).reshape(-1, SIDE, SIDE)
    energies = sums_inside_each_shift(sums_inside_each_shift(squares).swapaxes(1, 2)).swapaxes(
        1, 2
    )  # [n, 5 down, 5 right]
    values = np.zeros((len(signatures), 3 * STRIDE * STRIDE + 2 * MARGIN), np.float32)
    rows = values[:, MARGIN:-MARGIN].reshape(-1, 3, STRIDE, STRIDE)
    rows[:, :, :SIDE, :SIDE] = planes.reshape(-1, 3, SIDE, SIDE)
    return PreparedPictureSignatures(values, energies.reshape(-1, len(SHIFTS) ** 2).astype(np.float64))


def sums_inside_each_shift(lines: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sum lines, [..., 64], over the pixels that each of the 5 shifts leaves inside: [..., 5].

    By einsum, because BLAS would start threads of its own within ours.
    """
    middle = lines[..., MAX_SHIFT:-MAX_SHIFT].sum(-1, keepdims=True)
    parts = np.concatenate([lines[..., :MAX_SHIFT], middle, lines[..., -MAX_SHIFT:]], -1)
    return np.einsum("...p,sp->...s", parts, INSIDE)


def signature_likeness_row_by_row(a: PreparedPictureSignatures, b: PreparedPictureSignatures) -> NDArray[np.float64]:
    """[n] the likeness in [-1, 1] of each signature in `a` to the one at the same index in `b`.

    It is the largest correlation over shifts of up to 2 pixels, each channel centred on its mean. Two flat pictures
    have 1, a flat and another one 0.
    """
    middle = b.values[:, MARGIN:-MARGIN]
    every, one = a.values.strides
    shape = (len(middle), len(SHIFTS), len(SHIFTS), middle.shape[1])
    moved = as_strided(a.values, shape, (every, STRIDE * one, one, one))
    products = np.einsum("nyxk,nk->nyx", moved, middle).reshape(-1, len(SHIFTS) ** 2)
    scales = np.sqrt(a.energies * b.energies[:, ::-1])  # moving one picture there is moving the other one back
    best = np.where(scales > FLAT, products / np.maximum(scales, FLAT), 0).max(1)
    still = len(SHIFTS) ** 2 // 2
    flat = [p.energies[:, still] < FLAT for p in (a, b)]
    return np.where(flat[0] | flat[1], (flat[0] & flat[1]).astype(float), best)


def likeness_of_two_picture_signatures(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """The likeness of two signatures, uint8 [64, 64, 3] each: in [-1, 1], 1 for the same picture."""
    return float(
        signature_likeness_row_by_row(prepare_picture_signatures(a[None]), prepare_picture_signatures(b[None]))[0]
    )


def centred_thumbnails(signatures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[n, 768] unit rows: signatures averaged to 16 x 16 and centred; their product proposes likely pairs."""
    found = np.empty((len(signatures), 768), np.float32)

    def fill_thumbnail_block(start: int) -> None:  # of a hundred thousand no second copy stands in memory
        some = signatures[start : start + BLOCK]
        rows = some.reshape(len(some), 16, 4, 16, 12).sum(2, dtype=np.uint16)
        small = rows[..., 0:3] + rows[..., 3:6] + rows[..., 6:9] + rows[..., 9:12]  # 16 levels of 255 at most
        flat = small.transpose(0, 3, 1, 2).reshape(len(some), 3, -1).astype(np.float32)
        flat = (flat - flat.mean(2, keepdims=True)).reshape(len(some), -1)
        found[start : start + BLOCK] = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)

    with ThreadPoolExecutor(CORES) as pool:
        list(pool.map(fill_thumbnail_block, range(0, len(signatures), BLOCK)))
    return found


def likeness_of_pairs(
    signatures: NDArray[np.uint8], pairs: NDArray[np.int64], others: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """[k] the likeness of each of the pairs [k, 2]: of a signature and one of `others`, by their indices.

    A signature of several pairs that stand together is prepared once.
    """
    found = [np.empty(0, np.float32)]
    for start in range(0, len(pairs), TOGETHER):
        some = pairs[start : start + TOGETHER]
        sides = []
        for side, those in enumerate((signatures, others)):
            used, places = np.unique(some[:, side], return_inverse=True)
            values, energies = prepare_picture_signatures(those[used])
            sides.append(PreparedPictureSignatures(values[places.ravel()], energies[places.ravel()]))
        found.append(signature_likeness_row_by_row(*sides).astype(np.float32))
    return np.concatenate(found)


def near_duplicate_group_numbers(signatures: NDArray[np.uint8]) -> NDArray[np.int64]:
    """[n] the number of each signature's group, for signatures [n, 64, 64, 3]; a pair of likeness NEAR or more is in
    one group.

    Thumbnails propose pairs, also moved by half of their pixels: a copy that is moved by two pixels of the signature
    has a product from .34 with the thumbnail itself, and from .83 with one of those (docs/log.md, "Near-duplicates").
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    moves = [(down, right) for down in (-MAX_SHIFT, 0, MAX_SHIFT) for right in (-MAX_SHIFT, 0, MAX_SHIFT)]
    small, moved = (
        centred_thumbnails(signatures),
        [centred_thumbnails(np.roll(signatures, move, (1, 2))) for move in moves],
    )
    flat = np.flatnonzero((signatures == signatures[:, :1, :1]).all((1, 2, 3)))  # pictures of one colour are all alike
    pairs = [np.stack([flat[:-1], flat[1:]], 1)]
    for start in range(0, len(small), BLOCK):
        block = small[start : start + BLOCK]
        rows, columns = np.nonzero(np.any([block @ other.T >= PROPOSED for other in moved], axis=0))
        later = columns > rows + start
        pairs.append(np.stack([rows[later] + start, columns[later]], 1))
    proposed = np.concatenate(pairs)

    def near_duplicate_flags_of_pairs(part: NDArray[np.int64]) -> NDArray[np.bool_]:
        return (
            signature_likeness_row_by_row(
                prepare_picture_signatures(signatures[part[:, 0]]), prepare_picture_signatures(signatures[part[:, 1]])
            )
            >= NEAR
        )

    parts = np.array_split(proposed, len(proposed) // TOGETHER + 1)
    with ThreadPoolExecutor(CORES) as workers:
        kept = proposed[np.concatenate(list(workers.map(near_duplicate_flags_of_pairs, parts)))]
    graph = coo_array((np.ones(len(kept), bool), (kept[:, 0], kept[:, 1])), shape=(len(small), len(small)))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def most_varied_indices(signatures: NDArray[np.uint8], count: int) -> set[int]:
    """Indices of the `count` signatures, of uint8 [n, 64, 64, 3], that differ most, by farthest point in 8 x 8 pixels.

    The first is the one nearest to the mean; each next one lies farthest from all that were taken. So near-duplicates
    come last. The order of equal ones is that of their pixels, so the same pictures give the same subset.
    """
    rows = signatures.reshape(len(signatures), 8, 8, 8, 8, 3).mean((2, 4)).reshape(len(signatures), -1)
    order = np.lexsort(rows.T)
    rows = rows[order]
    taken = [int(np.square(rows - rows.mean(0)).sum(1).argmin())]
    distance = np.square(rows - rows[taken[0]]).sum(1)
    while len(taken) < min(count, len(rows)):
        distance[taken[-1]] = -1  # stays below that of a twin, which is 0
        taken.append(int(distance.argmax()))
        distance = np.minimum(distance, np.square(rows - rows[taken[-1]]).sum(1))
    return set(order[taken].tolist())
