"""Brand style: how close a picture's embedding lies to the centroid of the references, in whitened space.

Whitening with the references' own shrunk covariance (Ledoit and Wolf 2004) gives weight to directions in which the
brand does not vary. Range [-1, 1]. It sees palette and technique; it does not see how well something is drawn, and a
picture that leans on the same colours can pass: pair it with the technical scores.
"""

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf

MIN_REFERENCES = 8  # below this the covariance says nothing


def score(embeddings: NDArray, references: NDArray) -> NDArray[np.float32]:
    """[n] whitened cosine of [n, d] embeddings to the centroid of [r, d] references.

    With W = S^-1/2 it is (W e)(W m) / |W e||W m|; products of W are products of S^-1, so no root is taken.
    """
    covariance, _ = ledoit_wolf(references)
    centre = references.mean(0)
    solved = np.linalg.solve(covariance, np.vstack([embeddings, centre]).T).T
    lengths = np.sqrt((embeddings * solved[:-1]).sum(1) * (centre @ solved[-1]))
    return (embeddings @ solved[-1] / np.maximum(lengths, 1e-12)).astype(np.float32)


def leave_one_out(references: NDArray) -> NDArray[np.float32]:
    """[r] each reference scored by the others alone: what a true picture of the brand scores."""
    rest = [np.delete(references, i, axis=0) for i in range(len(references))]
    return np.concatenate([score(references[i : i + 1], others) for i, others in enumerate(rest)])
