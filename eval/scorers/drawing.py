"""Drawing: how much of what the encoder sees, place by place, can be put together from the references.

A picture's patches (eval/measuring/encoder.py) are approximated by a combination of the references' patches, with a
ridge penalty; the score is minus what is left over, in lengths of a reference about the mean. Range about [-10, 0],
most above -2, higher is better. It sees crops, covered and missing parts, blur, and drawing that is muddled; it is
blind to anything that one of the references could lend, such as another trait. Fails for brands whose pictures share no
template: then every picture is far from what the others could lend, and the line says little.
"""

import numpy as np
from numpy.typing import NDArray

PENALTY = 0.1  # of the references' mean square
MOST = 256  # references that are combined; of more, an even spread
SMALLEST = 1e-6  # mean square of the references; with less they are all the same, and lend nothing


def score(patches: NDArray, references: NDArray) -> NDArray[np.float32]:
    """[n] drawing score of pictures with patches [n, p], from the references' patches [r, p]; rows of length 1."""
    lent = references[indexes_of_evenly_spaced_references(len(references))].astype(np.float32)
    mean = lent.mean(0, dtype=np.float32)
    centred = lent - mean
    gram = centred @ centred.T
    unit = max(float(np.trace(gram)) / len(gram), SMALLEST)
    out = np.empty(len(patches), np.float32)
    for start in range(0, len(patches), 1024):
        rows = patches[start : start + 1024].astype(np.float32) - mean
        shared = rows @ centred.T  # [n, r]
        weights = np.linalg.solve(gram + PENALTY * unit * np.eye(len(gram), dtype=np.float32), shared.T).T
        left = np.square(rows).sum(1) - 2 * (weights * shared).sum(1) + ((weights @ gram) * weights).sum(1)
        out[start : start + 1024] = -np.sqrt(np.maximum(left, 0) / unit)
    return out


def indexes_of_evenly_spaced_references(count: int) -> NDArray[np.int64]:
    """Indices of those of `count` references whose patches are combined: all, or MOST of them at even distances."""
    return np.arange(count) if count <= MOST else np.linspace(0, count - 1, MOST).astype(int)


def leave_one_out(references: NDArray) -> NDArray[np.float32]:
    """[r] drawing score of each of the references [r, p] from the patches of the other references.

    Of more than MOST references only an even spread is combined; the others are scored from that.

    With the scatter S of the others and the penalty l, ridge regression leaves l (S + l)^-1 q of a picture q. Leaving
    reference c out takes (r / (r - 1)) c c' from the scatter of all, which scales (S + l)^-1 c (Sherman and Morrison
    1950): one decomposition of the references' products gives every residual.
    """
    lend = indexes_of_evenly_spaced_references(len(references))
    out = np.empty(len(references), np.float32)
    rest = np.setdiff1d(np.arange(len(references)), lend)
    out[rest] = score(references[rest], references)
    lent = references[lend].astype(np.float32)
    centred = lent - lent.mean(0, dtype=np.float32)
    products = (centred @ centred.T).astype(np.float64)
    r, n = len(lent), len(lent) - 1
    own = np.diagonal(products)
    unit = np.maximum((own.sum() - r / n * own) / n, SMALLEST)  # [r] mean square of the others about their mean
    values, vectors = np.linalg.eigh(products)
    values, penalty = np.maximum(values, 0), PENALTY * unit[:, None]
    in_basis = np.square(vectors) * values  # [r, k] squares of the centred references in the scatter's basis
    once, twice = ((in_basis / (values + penalty) ** power).sum(1) for power in (1, 2))
    left = r / n * penalty[:, 0] * np.sqrt(twice) / (1 - r / n * once)  # length of what is left over
    out[lend] = -left / np.sqrt(unit)
    return out
