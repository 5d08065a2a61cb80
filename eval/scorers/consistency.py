"""Consistency: is a picture one of this batch? Cosine to the centroid of the others. Range [-1, 1].

It finds the odd one out; a batch that is wrong throughout is consistent too.
"""

import numpy as np
from numpy.typing import NDArray


def score(embeddings: NDArray) -> NDArray[np.float32]:
    """[n], each picture left out of the centroid it is compared with; NaN for fewer than 3 pictures."""
    if len(embeddings) < 3:
        return np.full(len(embeddings), np.nan, np.float32)
    others = embeddings.sum(0) - embeddings
    norms = np.linalg.norm(others, axis=1) * np.linalg.norm(embeddings, axis=1)
    return ((embeddings * others).sum(1) / np.maximum(norms, 1e-12)).astype(np.float32)
