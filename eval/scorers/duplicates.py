"""Duplicates: log of the distance (1 - likeness, stylegate/similarity.py) to the nearest picture; -6.9 is the same one.

Likeness is blind to brightness, recompression and small shifts, and collectibles that share a template differ in it.
How near is a duplicate, a brand's own references say: nearer than copies of them come that were moved and recompressed
(`log_distances_to_altered_copies`). A distance between true pictures would not do, since the nearest two of a batch
come nearer the more there are of them. Of distances the ratio counts, hence the logarithm.

Of several that are alike the best one keeps its score: the others are compared with it and fall. Fails where one of a
pair is refused for something else: the other falls all the same, and is drawn again. On brands of few colours and
large areas, two pictures that differ in a small trait only can be as near as a copy.
"""

import io
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eval.lot.batch import attempt_and_slot
from eval.measuring.measured import MeasuredLot, percentiles_0_to_100
from eval.measuring.remembered import RememberedResults
from eval.policy.lines import MIN_REFERENCES
from eval.scorers import SCORES
from stylegate import nearest, similarity
from stylegate.words import counted

COPY_SHIFT, COPY_QUALITY = 2, 30  # of 64 pixels; of JPEG
NEAREST = 1e-3  # distances below it are the same picture's
COPIED = np.log(0.005)  # a score below it is of a copy that nothing was done to

_APART: RememberedResults[NDArray[np.float32]] = RememberedResults(4)  # of `leave_one_out`
_TO_COPIES: RememberedResults[NDArray[np.float32]] = RememberedResults(4)  # of `log_distances_to_altered_copies`


class NearestPictures(NamedTuple):
    """For each of n pictures the log distance to the nearest picture that it is compared with, and that one's index."""

    score: NDArray[np.float32]  # log distance; 0 where there is nothing to compare with
    index: NDArray[np.int64]  # of that picture, from n on one exported earlier (`nearest_of_smaller_rank`); -1: none


def log_distance_from_likeness(likeness: NDArray) -> NDArray[np.float32]:
    """Log of the distance 1 - likeness, -6.9 to 0.7, in the shape of `likeness`; a likeness of 0 gives 0."""
    return np.log(np.maximum(1 - likeness, NEAREST)).astype(np.float32)


def nearest_of_smaller_rank(
    signatures: NDArray[np.uint8],
    rank: NDArray,
    groups: NDArray | None,
    earlier: NDArray[np.uint8],
    groups_of_earlier: NDArray | None = None,
) -> NearestPictures:
    """For each picture the nearest one in another group: of smaller rank, or among the pictures exported `earlier`.

    Indices from n on mean pictures of `earlier`. A group is the attempts at one slot, or in training at one caption,
    which may look alike.
    """
    order = np.argsort(rank, kind="stable")
    found, place = nearest.nearest_by_likeness(
        signatures, groups=None if groups is None else groups[order], order=order
    )
    within, index = np.empty_like(found), np.empty_like(place)
    within[order], index[order] = found, np.where(place < 0, -1, order[place])
    before, known = nearest.nearest_by_likeness(signatures, earlier, groups, groups_of_others=groups_of_earlier)
    index = np.where((known >= 0) & ((before > within) | (index < 0)), len(signatures) + known, index)
    return NearestPictures(log_distance_from_likeness(np.maximum(within, before) if len(earlier) else within), index)


def duplicate_priority_ranks(quality: NDArray | None, attempts: NDArray | None, names: list[str]) -> NDArray[np.int64]:
    """[n] the rank of each picture among all, 0 to n - 1: earlier attempts first, then better quality, then name.

    Of pictures that are alike, `nearest_of_smaller_rank` keeps the one of smallest rank. A picture whose quality is NaN
    comes after those of its attempt; without `quality`, or without `attempts`, all are equal in it. Of names the
    shorter one comes first: cat.png before cat-copy.png.
    """
    count = len(names)
    place = np.argsort(sorted(range(count), key=lambda i: (len(names[i]), names[i])))
    first = np.zeros(count) if attempts is None else attempts
    worst = np.zeros(count) if quality is None else -np.nan_to_num(quality, nan=-np.inf)
    ranked = np.empty(count, np.int64)
    ranked[np.lexsort((place, worst, first))] = np.arange(count)
    return ranked


def leave_one_out(signatures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[n] log distance, -6.9 to 0.7, of each signature [n, 64, 64, 3] to the nearest other one of them."""
    return _APART.result_for(
        [signatures], lambda: log_distance_from_likeness(nearest.largest_likeness_to_others(signatures))
    )


def nearest_training_picture(signatures: NDArray[np.uint8], training: NDArray[np.uint8]) -> NearestPictures:
    """For each signature [n, 64, 64, 3] the nearest training picture: log distance and index."""
    likeness, index = nearest.nearest_by_likeness(signatures, training)
    return NearestPictures(log_distance_from_likeness(likeness), index)


def novelty_of_references(
    references: NDArray[np.uint8], training: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """[r] log distance of each reference to the nearest training picture, and whether it is a training picture itself.

    Such a reference has NaN. If fewer than MIN_REFERENCES others remain, it has instead the distance from the training
    picture that it is to the nearest other one: with its distance to itself no copy would lie below the line.
    """
    own = nearest_training_picture(references, training)
    known = own.score < COPIED
    if not known.any():
        return own.score, known
    enough = (~known).sum() >= MIN_REFERENCES
    return np.where(known, np.float32(np.nan) if enough else leave_one_out(training)[own.index], own.score), known


def log_distances_to_altered_copies(signatures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[2n] log distance of each signature [n, 64, 64, 3] to two altered copies of it.

    A copy is moved by two pixels, down or to the right, and compressed as a JPEG of quality 30.
    """
    return _TO_COPIES.result_for([signatures], lambda: log_distances_to_copies_altered_anew(signatures))


def log_distances_to_copies_altered_anew(signatures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What `log_distances_to_altered_copies` remembers."""
    found = []
    for one in signatures:
        for axis in (0, 1):
            buffer = io.BytesIO()
            Image.fromarray(np.roll(one, COPY_SHIFT, axis)).save(buffer, "JPEG", quality=COPY_QUALITY)
            found.append(
                similarity.likeness_of_two_picture_signatures(
                    one, np.asarray(Image.open(io.BytesIO(buffer.getvalue())))
                )
            )
    return log_distance_from_likeness(np.array(found))


# The columns of scores.parquet (eval/scorers/__init__.py).


def distinct_column(measured: MeasuredLot) -> NDArray[np.float32]:
    """[n] log distance to the nearest picture of the lot that ranks before it (of another slot, where there are slots,
    or of another group, where there are groups), or that was exported before; of another slot, too, where the package
    is of this batch.

    First attempts rank before later ones, then the style score decides, in steps of its resolution, or the aesthetic
    one if there is no style score (`duplicate_priority_ranks`). Writes the other picture's name into
    `measured.partners`.
    """
    lot, earlier = measured.pictures, measured.exported
    by = next((name for name in ("style", "aesthetic") if name in measured.columns), None)
    quality = np.round(measured.columns[by] / SCORES[by].resolution) if by else None
    slots = [attempt_and_slot(name) for name in lot.names] if measured.lot.slots else None
    attempts, groups = (np.array(part) for part in zip(*slots, strict=True)) if slots else (None, None)
    before = np.array([measured.compared.exported_slots.get(name, -1) for name in earlier.names])  # -1: of no slot here
    if of := measured.lot.groups:
        groups = np.array([of.get(name, -1 - i) for i, name in enumerate(lot.names)])  # one without a group is alone
    rank = duplicate_priority_ranks(quality, attempts, lot.names)
    found = nearest_of_smaller_rank(lot.signatures, rank, groups, earlier.signatures, before if slots else None)
    measured.partners["distinct"] = names_at(found.index, lot.names + earlier.names)
    return found.score


def distinct_column_of_references(measured: MeasuredLot) -> NDArray[np.float32]:
    """[r] log distance of each reference to the nearest other one.

    With enough references, how near altered copies of them come is written into `measured.copies`.
    """
    signatures = measured.references.signatures
    if measured.enough_references:
        measured.copies["distinct"] = percentiles_0_to_100(log_distances_to_altered_copies(signatures))
    return leave_one_out(signatures)


def novelty_column(measured: MeasuredLot) -> NDArray[np.float32]:
    """[n] log distance to the nearest training picture, whose name is written into `measured.partners`."""
    found = nearest_training_picture(measured.pictures.signatures, measured.training.signatures)
    measured.partners["novelty"] = names_at(found.index, measured.training.names)
    return found.score


def novelty_column_of_references(measured: MeasuredLot) -> NDArray[np.float32]:
    """[r] `novelty_of_references` of the references. References that are training pictures too are said in a note."""
    own, known = novelty_of_references(measured.references.signatures, measured.training.signatures)
    if known.any():
        are = counted(int(known.sum()), "reference is a training picture", "references are training pictures")
        how = "how near others may come is told by the others"
        if not np.isnan(own).any():
            how = "how near others may come is taken from the training pictures among themselves"
        measured.notes.append(f"{are} too: {how}")
    return own


def names_at(index: NDArray[np.int64], names: list[str]) -> list[str | None]:
    """[n] the name at each index [n]; None where the index is -1."""
    return [names[i] if i >= 0 else None for i in index]
