"""Consistency: is a picture one of this batch? Cosine to the centroid of the others. Range [-1, 1], higher is nearer.

It finds the odd one out, needs no references, and says nothing of the brand: a batch that is wrong throughout is
consistent too, and of a batch of two kinds the smaller one looks odd. Leaving the picture out matters: in a small batch
its own weight in the centroid would vouch for it.
"""

import numpy as np
from numpy.typing import NDArray

from eval.measuring.measured import MeasuredLot


def score(embeddings: NDArray) -> NDArray[np.float32]:
    """[n] cosine of each embedding [n, d] to the centroid of all others; NaN for fewer than 3 pictures."""
    if len(embeddings) < 3:
        return np.full(len(embeddings), np.nan, np.float32)
    others = embeddings.sum(0) - embeddings
    norms = np.linalg.norm(others, axis=1) * np.linalg.norm(embeddings, axis=1)
    return ((embeddings * others).sum(1) / np.maximum(norms, 1e-12)).astype(np.float32)


def column(measured: MeasuredLot) -> NDArray[np.float32]:
    """[n] consistency score of the lot's decoded pictures."""
    return score(measured.pictures.embeddings)
