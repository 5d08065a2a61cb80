"""Duplicates: 1 - likeness (stylegate/pictures.py) to the nearest picture, in [0, 2]; 0 is the same picture.

Likeness is blind to brightness, recompression and small shifts, and collectibles that share a template differ in it.
Of a pair the first keeps its score, so at most one of the two can pass.
"""

import numpy as np
from numpy.typing import NDArray

from stylegate import pictures


def distinct(signatures: NDArray[np.uint8], groups: NDArray | None = None) -> NDArray[np.float32]:
    """[n] distance to the nearest earlier picture of another group; 1 for the first.

    A group is the attempts at one slot: a second attempt may look like the first, which was rejected.
    """
    return 1 - pictures.nearest(signatures, groups=groups)[0]


def leave_one_out(signatures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[n] distance to the nearest other picture: how near true pictures of the brand come to each other."""
    if not len(signatures):
        return np.zeros(0, np.float32)
    rest = [np.delete(signatures, i, axis=0) for i in range(len(signatures))]
    return np.concatenate([1 - pictures.nearest(signatures[i : i + 1], r)[0] for i, r in enumerate(rest)])


def novelty(signatures: NDArray[np.uint8], training: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[n] distance to the nearest training picture."""
    return 1 - pictures.nearest(signatures, training)[0]
