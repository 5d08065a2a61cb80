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
    """[n] whitened cosine of [n, d] embeddings to the centroid of [r, d] references."""
    whiten = whitening(references)
    centre = references.mean(0) @ whiten
    turned = embeddings @ whiten
    scale = np.linalg.norm(turned, axis=1) * np.linalg.norm(centre)
    return (turned @ centre / np.maximum(scale, 1e-12)).astype(np.float32)


def leave_one_out(references: NDArray) -> NDArray[np.float32]:
    """[r] each reference scored by the others alone: what a true picture of the brand scores."""
    rest = [np.delete(references, i, axis=0) for i in range(len(references))]
    return np.concatenate([score(references[i : i + 1], others) for i, others in enumerate(rest)])


def whitening(references: NDArray) -> NDArray:
    """[d, d] symmetric inverse square root of the shrunk covariance."""
    covariance, _ = ledoit_wolf(references)
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.maximum(values, 1e-8) ** -0.5) @ vectors.T
