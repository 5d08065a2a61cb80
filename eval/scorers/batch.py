"""Numbers of a batch as a whole: how far its pictures, as a set, lie from the references, and how varied they are.

`squared_mmd_and_p_value` is unbiased, so that it is 0 on average for pictures of the same kind, however few (the usual
CMMD adds about 10 tr(S) (1/n + 1/m), and with its bandwidth of 10 it sees means alone). `kernel_distance` is the same
with the cubic kernel of the Kernel Inception Distance. Both want vectors of one encoder, [n, d] unit rows.
`vendi_score` is a number of pictures.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist

PERMUTATIONS = 999
FEWEST = 8  # pictures of a set; numbers of fewer mean nothing
LARGEST = 1000  # pictures of a set that are compared; the first of an even spread


def make_median_bandwidth_gaussian_kernel(x: NDArray, y: NDArray) -> Callable[[NDArray, NDArray], NDArray]:
    """The function k(a, b) = exp(-d^2 / (2 s^2)), where 2 s^2 is the median squared distance within x and y
    together.
    """
    width = float(np.median(pdist(np.concatenate([x, y]), "sqeuclidean")))

    def gaussian_kernel(a: NDArray, b: NDArray) -> NDArray:
        """[n, m] the kernel of each row of a [n, d] and each row of b [m, d]."""
        squares = np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2 * a @ b.T
        return np.exp(-np.maximum(squares, 0) / max(width, 1e-12))

    return gaussian_kernel


def cubic_kernel(a: NDArray, b: NDArray) -> NDArray:
    """[n, m] the kernel of KID, (a . b / d + 1)^3, of each row of a [n, d] and each row of b [m, d]
    (arXiv 1801.01401).
    """
    return (a @ b.T / a.shape[1] + 1) ** 3


def squared_mmd(x: NDArray, y: NDArray, kernel: Callable[[NDArray, NDArray], NDArray]) -> float:
    """Unbiased estimate of the squared maximum mean discrepancy of two sets of rows, [n, d] and [m, d].

    From Gretton et al. 2012, eq. 3. `kernel(a, b)` gives the kernel [n, m] of each pair of rows.

    By chance it can be below 0. Each set needs at least 2 rows.
    """
    both = np.concatenate([x, y]).astype(np.float64)
    return float(squared_mmd_of_permutations(kernel(both, both), np.arange(len(both))[None], len(x))[0])


def squared_mmd_of_permutations(gram: NDArray, orders: NDArray[np.int64], n: int) -> NDArray[np.float64]:
    """[p] squared discrepancies of p ways to divide N pictures in two sets.

    `gram` [N, N] is the kernel of all pairs; the first n pictures of each order [p, N] are one set, the rest the other.
    """
    first, m = np.zeros(orders.shape), orders.shape[1] - n
    np.put_along_axis(first, orders[:, :n], 1, axis=1)  # 1 for the pictures of the first set
    own, rows, whole = np.diagonal(gram), first @ gram, gram.sum()
    within = (rows * first).sum(1)
    across = rows.sum(1) - within
    own_first = first @ own
    first_mean = (within - own_first) / (n * (n - 1))
    second_mean = (whole - within - 2 * across - (own.sum() - own_first)) / (m * (m - 1))
    return first_mean + second_mean - 2 * across / (n * m)


def squared_mmd_and_p_value(x: NDArray, y: NDArray) -> tuple[float, float]:
    """(squared MMD with a Gaussian kernel, permutation p-value in (0, 1]) of two sets of embeddings, [n, d] and [m, d].

    A small p-value says that the sets differ. At most LARGEST rows of each set are used.
    """
    x, y = (evenly_spaced_rows(rows, LARGEST).astype(np.float64) for rows in (x, y))
    both = np.concatenate([x, y])
    random, count = np.random.default_rng(0), PERMUTATIONS if len(both) < 400 else 199
    orders = np.stack([np.arange(len(both)), *(random.permutation(len(both)) for _ in range(count))])
    found, *others = squared_mmd_of_permutations(
        make_median_bandwidth_gaussian_kernel(x, y)(both, both), orders, len(x)
    )
    return float(found), float(1 + np.sum(np.array(others) >= found)) / (count + 1)


def kernel_distance(x: NDArray, y: NDArray) -> float:
    """KID of two sets of embeddings, [n, d] and [m, d]: squared MMD with the cubic kernel; by chance below 0.

    The embeddings are the encoder's, not Inception's. At most LARGEST rows of each set are used.
    """
    return squared_mmd(evenly_spaced_rows(x, LARGEST), evenly_spaced_rows(y, LARGEST), cubic_kernel)


def vendi_score(embeddings: NDArray) -> float:
    """Effective number of different pictures, 1 to n, of n embeddings [n, d] (Friedman and Dieng, arXiv 2210.02410,
    q=1).

    Embeddings of one encoder lie in a narrow cone, so they are centred first. Compare sets of equal size only.
    """
    centred = embeddings.astype(np.float64) - embeddings.mean(0)
    rows = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    values = np.linalg.eigvalsh(rows.T @ rows / len(rows) if len(rows) > rows.shape[1] else rows @ rows.T / len(rows))
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))


def evenly_spaced_rows(rows: NDArray, most: int) -> NDArray:
    """The rows [n, d] themselves if they are at most `most`, else `most` of them at even distances."""
    return rows[np.linspace(0, len(rows) - 1, most).astype(int)] if len(rows) > most else rows
