"""Brand style: how close a picture's embedding lies to the references, in whitened space.

Whitening with the references' own shrunk covariance (Ledoit and Wolf 2004) gives weight to directions in which the
brand does not vary. Two readings of it:

- `score`, cosine to the centroid. Range [-1, 1], higher is nearer. The gate's.
- `closeness_to_nearest`, mean cosine to the three nearest references, less what the picture and they have in common
  with foreign pictures (cross-domain similarity local scaling, arXiv 1710.04087). Range [-4, 4], higher is nearer.
  Better where a brand has several looks: with references of two brands, area under the ROC curve .977 to .999 where
  the centroid has .955 to .998 (docs/measurements.md).

Both see palette and technique; neither sees how well something is drawn, and a picture that leans on the same colours
can pass: pair them with the technical scores. Fewer than MIN_REFERENCES say nothing.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf

from eval.measuring.measured import MeasuredLot, percentiles_0_to_100

MIN_REFERENCES = 8  # below this the covariance says nothing
NEAREST, NEIGHBOURS = 3, 10  # references; foreign pictures that tell how crowded a place is
SAMPLE = 256  # pictures that an interval is computed of
ODD_SHARE = 0.05  # references unlike the others; beyond this share they do not agree on a style
TOGETHER = 4096  # pictures that are scored at once: bounds the memory
BLOCK = 512  # references that are left out at once: bounds the memory
FOREIGN = 99  # percentile of foreign pictures; a reference below it is not known from them


class MeanWithInterval(NamedTuple):
    """The mean of a score, and its 95 % interval."""

    mean: float
    low: float
    high: float


def score(embeddings: NDArray, references: NDArray) -> NDArray[np.float32]:
    """[n] cosine between each of the embeddings [n, d] and the mean of the references [r, d], both whitened.

    To whiten is to multiply by W = S^-1/2, where S is the references' shrunk covariance. The cosine of an embedding e
    and the mean m is then e' S^-1 m / sqrt(e' S^-1 e * m' S^-1 m), so that no matrix root is computed.
    """
    covariance, centre = shrunk_covariance(references), references.mean(0)
    found = np.empty(len(embeddings), np.float32)
    for start in range(0, len(embeddings), TOGETHER):
        some = embeddings[start : start + TOGETHER]
        solved = np.linalg.solve(covariance, np.vstack([some, centre]).T).T
        lengths = np.sqrt((some * solved[:-1]).sum(1) * (centre @ solved[-1]))
        found[start : start + TOGETHER] = some @ solved[-1] / np.maximum(lengths, 1e-12)
    return found


def shrunk_covariance(references: NDArray) -> NDArray:
    """[d, d] covariance by Ledoit and Wolf; never singular, also of references that are all the same."""
    covariance = ledoit_wolf(references)[0]
    return covariance + max(np.trace(covariance) / len(covariance), 1e-6) * 1e-6 * np.eye(len(covariance))


class LeaveOneOutCovariances(NamedTuple):
    """The r covariances of r references that each leave one of them out, in one basis.

    `style_scores_per_left_out_reference` computes with them.

    Without reference i the shrunk covariance is diag(spectra[i]) in `basis`, floors[i] in every direction outside it,
    less removed[i] c c' of the centred reference c = centred[i] (a rank-one change).
    """

    mean: NDArray[np.float64]  # [d] of all references
    centred: NDArray[np.float64]  # [r, d]
    basis: NDArray[np.float64]  # [k, d] orthonormal rows; the centred references lie in their span
    spectra: NDArray[np.float64]  # [r, k]
    floors: NDArray[np.float64]  # [r], above 0
    removed: NDArray[np.float64]  # [r]


def leave_one_out_covariances(references: NDArray) -> LeaveOneOutCovariances:
    """Factorise [r, d] references once for all r covariances that leave one of them out; r >= 3.

    Of the n = r - 1 others the scatter is S - (r / n) c c'. Ledoit and Wolf's shrinkage follows from the products of
    the centred references alone (sklearn's ledoit_wolf_shrinkage, its sums written with those products).
    """
    mean = references.mean(0, dtype=np.float64)
    centred = references - mean
    (r, d), n = centred.shape, len(centred) - 1
    products = centred @ centred.T
    own = np.diagonal(products)
    traces = np.maximum(own.sum() - r / n * own, 0) / n  # of each covariance
    # Other references about the mean of the others: c_j + c_i / n. Row i, column j; j = i is not one of them.
    lengths = own + 2 * products / n + own[:, None] / n**2
    np.fill_diagonal(lengths, 0)
    fourth = np.square(lengths).sum(1) / n
    scatter = np.square(products).sum() - 2 * r / n * np.square(products).sum(1) + np.square(r / n * own)
    squares = scatter / n**2  # of all entries of each covariance
    apart = np.maximum(squares - traces**2 / d, 0)
    noise = np.minimum(np.maximum(fourth - squares, 0) / n, apart)
    shrinkage = np.divide(noise, apart, out=np.zeros(r), where=noise > 0)
    floors = shrinkage * traces / d + np.maximum(traces / d, 1e-6) * 1e-6  # as in `shrunk_covariance`
    _, singular, basis = np.linalg.svd(centred, full_matrices=False)
    kept = (1 - shrinkage) / n
    return LeaveOneOutCovariances(
        mean, centred, basis, kept[:, None] * singular**2 + floors[:, None], floors, kept * r / n
    )


def style_scores_per_left_out_reference(
    embeddings: NDArray, covariances: LeaveOneOutCovariances, left_out: NDArray[np.int64]
) -> NDArray[np.float64]:
    """[n, len(left_out)] `score` of embeddings [n, d] by all references but reference left_out[j], each j in turn.

    The rank-one change is undone by Sherman and Morrison's formula (1950).
    """
    basis, floors, removed = covariances.basis, covariances.floors[left_out], covariances.removed[left_out]
    weights = (
        1 / covariances.spectra[left_out] - 1 / floors[:, None]
    )  # [w, k]; the inverse is 1 / floor beside the basis
    c = covariances.centred[left_out]
    centres = covariances.mean - c / (len(covariances.centred) - 1)  # of the others
    e_in, c_in, m_in = (rows @ basis.T for rows in (embeddings.astype(np.float64), c, centres))

    def inverse_covariance_product_of_each_row(a: NDArray, a_in: NDArray, b: NDArray, b_in: NDArray) -> NDArray:
        """[w] for each j the product of a[j], the inverse of covariance j, and b[j]; that covariance still has the
        reference left_out[j] in it, which the caller takes out afterwards. `a_in`, `b_in` [w, k] are `a`, `b` [w, d] in
        `basis`.
        """
        return (a_in * b_in * weights).sum(1) + (a * b).sum(1) / floors

    cc, cm, mm = (
        inverse_covariance_product_of_each_row(c, c_in, c, c_in),
        inverse_covariance_product_of_each_row(c, c_in, centres, m_in),
        inverse_covariance_product_of_each_row(centres, m_in, centres, m_in),
    )
    ec = e_in @ (c_in * weights).T + embeddings @ (c / floors[:, None]).T
    em = e_in @ (m_in * weights).T + embeddings @ (centres / floors[:, None]).T
    ee = np.square(e_in) @ weights.T + np.square(embeddings, dtype=np.float64).sum(1)[:, None] / floors
    more = removed / (1 - removed * cc)
    with_centre, own = em + more * ec * cm, ee + more * np.square(ec)
    return with_centre / np.maximum(np.sqrt(own * (mm + more * np.square(cm))), 1e-12)


def leave_one_out(references: NDArray) -> NDArray[np.float32]:
    """[r] each of [r, d] references scored by the others alone: what a true picture of the brand scores."""
    covariances = leave_one_out_covariances(references)
    blocks = [np.arange(len(references))[start : start + BLOCK] for start in range(0, len(references), BLOCK)]
    found = [
        np.diagonal(style_scores_per_left_out_reference(references[block], covariances, block)) for block in blocks
    ]
    return np.concatenate(found).astype(np.float32)


def closeness_to_nearest(embeddings: NDArray, references: NDArray, foreign: NDArray | None) -> NDArray[np.float32]:
    """[n] closeness of [n, d] embeddings to [r, d] references; `foreign` [f, d] are pictures of other styles, or None.

    2 cos(x, y) - r(x) - r(y), mean over the NEAREST references y; r is the mean cosine to the NEIGHBOURS nearest
    foreign pictures, 0 without them. A picture that is itself a reference counts as a copy of it.
    """
    x, y = whitened_features(references, embeddings), whitened_features(references, references)
    return mean_of_largest(pairwise_closeness(x, y, foreign, references), NEAREST).astype(np.float32)


def closeness_to_nearest_leave_one_out(references: NDArray, foreign: NDArray | None) -> NDArray[np.float32]:
    """[r] `closeness_to_nearest` of each of [r, d] references to the others, in the space that all of them whiten."""
    own = whitened_features(references, references)
    closeness = pairwise_closeness(own, own, foreign, references)
    np.fill_diagonal(closeness, -np.inf)
    return mean_of_largest(closeness, NEAREST).astype(np.float32)


def pairwise_closeness(x: NDArray, y: NDArray, foreign: NDArray | None, references: NDArray) -> NDArray[np.float64]:
    """[n, m] closeness of each row of x [n, d] to each row of y [m, d], both whitened: twice their cosine, less, for
    each of the two, its mean cosine to the nearest pictures in other styles (`foreign`; None: less nothing).
    """
    found = 2 * x @ y.T
    if foreign is not None:
        others = whitened_features(references, foreign)
        found = found - mean_cosine_to_nearest(x, others)[:, None] - mean_cosine_to_nearest(y, others)
    return found


def mean_of_largest(values: NDArray, count: int) -> NDArray:
    """[n] mean of the `count` largest numbers of each row of [n, m]."""
    return np.sort(values, axis=1)[:, -count:].mean(1)


def mean_cosine_to_nearest(rows: NDArray, others: NDArray) -> NDArray:
    """[n] mean cosine of unit rows [n, d] to the NEIGHBOURS nearest of `others` [m, d]."""
    return mean_of_largest(rows @ others.T, NEIGHBOURS)


def whitened_features(references: NDArray, embeddings: NDArray) -> NDArray[np.float64]:
    """[n, d] the embeddings, whitened by the shrunk covariance of `references` [r, d] and scaled to length 1."""
    factor = np.linalg.cholesky(shrunk_covariance(references))
    rows = np.linalg.solve(factor, embeddings.T.astype(np.float64)).T
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def mean_score_with_interval(embeddings: NDArray, references: NDArray) -> MeanWithInterval:
    """The mean style score of embeddings [n, d], with the interval in which it would lie in 95 of 100 other draws of as
    many pictures and references [r, d].

    Jackknife over the references (Efron 1982) and the pictures' own standard error. It takes two pictures or more; of
    many about SAMPLE are used.
    """
    sample = embeddings[:: max(1, -(-len(embeddings) // SAMPLE))]
    scores, n = score(sample, references).astype(np.float64), len(references)
    without = style_scores_per_left_out_reference(sample, leave_one_out_covariances(references), np.arange(n)).mean(0)
    variance = (n - 1) / n * np.square(without - without.mean()).sum() + scores.var(ddof=1) / len(scores)
    reach = 1.96 * float(np.sqrt(variance))
    mean = float(scores.mean())
    return MeanWithInterval(mean, max(mean - reach, -1.0), min(mean + reach, 1.0))


def indexes_of_outlier_references(leave_one_out_scores: NDArray, foreign: NDArray | None) -> NDArray[np.int64]:
    """[k] indices of references that do not fit the others: a picture in another style, or a stray file.

    `leave_one_out_scores` are the references' leave-one-out scores, `foreign` the scores of foreign pictures. A
    reference is odd if it scores below the percentile FOREIGN of `foreign`. Without `foreign` it is odd if it lies six
    spreads (half the distance from the 16th to the 84th percentile) below the median.
    """
    if foreign is not None:
        return np.flatnonzero(leave_one_out_scores < np.percentile(foreign, FOREIGN))
    low, median, high = np.quantile(leave_one_out_scores, [0.16, 0.5, 0.84])
    return np.flatnonzero(leave_one_out_scores < median - 6 * (high - low) / 2)


# The columns of scores.parquet (eval/scorers/__init__.py).


def references_column(measured: MeasuredLot) -> NDArray[np.float32]:
    """[r] the style score of each reference by the others.

    Adds to `measured` the percentiles of pictures in other styles, and a note on references that do not look like the
    others.
    """
    references = measured.references
    own = leave_one_out(references.embeddings)
    foreign = None if measured.known is None else score(measured.known, references.embeddings)
    if foreign is not None:
        measured.foreign["style"] = percentiles_0_to_100(foreign)
    if len(odd := [references.names[i] for i in indexes_of_outlier_references(own, foreign)]):
        several = ": they may be of several styles, which one line judges badly"
        measured.notes.append(
            f"{len(odd)} of {len(own)} references do not look like the others ({', '.join(odd[:5])})"
            + (several if len(odd) > ODD_SHARE * len(own) else "")
        )
    return own


def style_nearest_column(measured: MeasuredLot) -> NDArray[np.float32]:
    """[n] style_nearest score of the lot's pictures: their closeness to the NEAREST references that are
    most like each.
    """
    embeddings, references, known = measured.pictures.embeddings, measured.references.embeddings, measured.known
    blocks = [embeddings[start : start + TOGETHER] for start in range(0, len(embeddings), TOGETHER)]
    return np.concatenate([closeness_to_nearest(block, references, known) for block in blocks])


def style_nearest_column_of_references(measured: MeasuredLot) -> NDArray[np.float32]:
    """[r] style_nearest score of each reference: its mean closeness to the NEAREST others that are most like it."""
    return closeness_to_nearest_leave_one_out(measured.references.embeddings, measured.known)
