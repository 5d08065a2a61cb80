"""Ridge regression of two kinds of pictures on rows of features, and what it would say of rows that it had not seen."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

RIDGE = 0.01  # penalty; rows have squared length near the number of blocks, weights of all rows sum to 1


class FittedRidge(NamedTuple):
    """A ridge regression of a truth of 1 or -1, such as the brand or others, on rows [k]; made by `fit_ridge`."""

    weights: NDArray[np.float64]  # [k]
    offset: float
    mean: NDArray[np.float64]  # [k] of the rows
    factor: NDArray[np.float64]  # [k, k] lower triangle: the root of the rows' covariance and the penalty
    weight: float  # of all rows

    def predicted_responses(self, rows: NDArray) -> NDArray[np.float64]:
        """[n] what the regression predicts for each of the rows [n, k]: near 1 or near -1."""
        return rows @ self.weights + self.offset

    def responses_left_out(
        self, rows: NDArray, truth: NDArray, weights: NDArray, views: int = 1
    ) -> NDArray[np.float64]:
        """[n] what a regression on all the other rows would predict for each of these rows [n, k] of this regression.

        `views` rows [i, i + n / views, ...] of equal weight show one picture, and are left out together.
        """
        hat_roots = self.square_root_of_hat_matrix(rows, weights)
        hat = inner_products_of_same_picture_views(hat_roots, hat_roots, views)
        return truth - errors_left_out(hat, truth - self.predicted_responses(rows))

    def responses_without_set(
        self,
        apart: tuple[NDArray, NDArray, NDArray],
        others: tuple[NDArray, NDArray, NDArray],
        views: int,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What a regression without the rows `apart` would predict for them, [m], and what it would predict for the
        rows `others` if the views of each were left out too, [n]. Both are rows of this regression: (rows, truth,
        weights).

        It follows from the hat matrix H: without the rows S, the weighted errors of S are (1 - H_SS)^-1 times theirs,
        and the entries of other rows R and T are H_RT + H_RS (1 - H_SS)^-1 H_ST.
        """
        roots, other_roots = (
            self.square_root_of_hat_matrix(apart[0], apart[2]),
            self.square_root_of_hat_matrix(others[0], others[2]),
        )
        sides = np.sqrt(apart[2]), np.sqrt(others[2])
        errors = [
            side * (t - self.predicted_responses(rows))
            for side, (rows, t, _) in zip(sides, (apart, others), strict=True)
        ]
        across = roots.T @ other_roots  # [m, n]
        solved = np.linalg.solve(np.eye(len(errors[0])) - roots.T @ roots, np.c_[errors[0], across])
        alone = apart[1] - solved[:, 0] / sides[0]
        hat = inner_products_of_same_picture_views(
            other_roots, other_roots, views
        ) + inner_products_of_same_picture_views(across, solved[:, 1:], views)
        left = errors_left_out(hat, (errors[1] + across.T @ solved[:, 0]) / sides[1])
        return alone, others[1] - left

    def square_root_of_hat_matrix(self, rows: NDArray, weights: NDArray) -> NDArray[np.float64]:
        """[k + 1, n] columns whose products with one another are the hat matrix of these rows [n, k], for errors
        times the roots of the weights.
        """
        shares = np.sqrt(weights / self.weight)
        centred = ((rows - self.mean) * shares[:, None]).T
        return np.vstack([solve_triangular(self.factor, centred, lower=True, check_finite=False), shares])


def inner_products_of_same_picture_views(left: NDArray, right: NDArray, views: int) -> NDArray[np.float64]:
    """[n, views, views] the products of the columns of `left` and `right` [k, views * n] that show one picture."""
    shape = (len(left), views, -1)
    return np.einsum("kan,kbn->nab", left.reshape(shape), right.reshape(shape), optimize=True)


def errors_left_out(hat: NDArray, errors: NDArray) -> NDArray[np.float64]:
    """[views * n] errors of a regression that has not seen the picture, from the errors [views * n] of one that has.

    `hat` [n, views, views] are the entries of its hat matrix; the views of a picture weigh alike.
    """
    views = hat.shape[1]
    each = errors.reshape(views, -1).T[..., None]
    return np.linalg.solve(np.eye(views) - hat, each)[..., 0].T.ravel().astype(np.float64)


def fit_ridge(rows: NDArray, truth: NDArray, weights: NDArray, ridge: float = RIDGE) -> FittedRidge:
    """Fit ridge regression of the truth [n], 1 or -1, on rows [n, k]. `weights` [n] are above 0."""
    weight = float(weights.sum())
    weighted = (weights[:, None] / weight * rows).astype(np.float64)
    mean, level = weighted.sum(0), float(weights @ truth) / weight
    covariance = rows.T @ weighted - np.outer(mean, mean) + ridge * np.eye(len(mean))
    factor = np.linalg.cholesky(covariance).astype(np.float64)
    half = solve_triangular(factor, weighted.T @ truth - mean * level, lower=True, check_finite=False)
    found = solve_triangular(factor, half, lower=True, trans=1, check_finite=False)
    return FittedRidge(np.asarray(found, np.float64), level - float(mean @ found), mean, factor, weight)
