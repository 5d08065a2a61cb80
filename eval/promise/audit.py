"""Auditing a lot: labels arrive in random order, and the audit stops as soon as the promise is proven.

Betting without replacement (Waudby-Smith and Ramdas, "Confidence sequences for sampling without replacement", 2020;
"Estimating means of bounded random variables by betting", 2023). For each number D of rejects that the lot of M might
hold, a gambler's wealth starts at 1 and is multiplied at each label x (1 = reject) by 1 + bet (m - x), where
m = (D - rejects seen) / (pictures left) is the chance of a reject if D is true. Then wealth is a martingale, and by
Ville's inequality it ever reaches 1/delta with probability delta at most. So the D whose wealth did are ruled out,
all at once and at any time: one may look after each label and stop when one likes.

Nothing is assumed of the pictures, of the model or of the past: only the order is random. Rejects that are found
leave the lot, hence the bound is on (D - found) / (M - found), and who labels all of a lot always has a certificate.
eval/promise/ranked.py has another gambler, who uses the gate's ranking of the lot.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

# Two bets, their wealths averaged: those that grow fastest where the true rate is 0 and alpha/3. At most CAP, so that
# one reject never takes all, and wealth grows with D.
EXPECTED = (0.0, 1 / 3)  # true rates as shares of alpha
CAP = 0.95
Bettor = Callable[[NDArray, int, int], NDArray[np.float64]]  # labels, size, rejects -> wealth after each label


def bet_sizes(alpha: float) -> NDArray[np.float64]:
    """[k] the fraction to bet at each label, one for each expected share of rejects: the bet whose wealth grows
    fastest.
    """
    rates = np.array(EXPECTED) * alpha
    return np.minimum((alpha - rates) / (alpha * (1 - alpha)), CAP)


def betting_wealth(labels: Sequence[int] | NDArray, size: int, rejects: int, alpha: float) -> NDArray[np.float64]:
    """[n] the wealth of a bettor after each label (1: reject, 0: not), betting against `rejects` rejects in `size`
    pictures.

    Large wealth is evidence against that number of rejects; it is infinite once the number has become impossible. It is
    the mean over `bet_sizes`, and a martingale if the lot holds exactly that many rejects.
    """
    x = np.asarray(labels, float)
    left = size - np.arange(len(x))
    remaining = rejects - np.concatenate([[0], np.cumsum(x)[:-1]]) if len(x) else x
    chance = remaining / left
    with np.errstate(divide="ignore", invalid="ignore"):
        grown = np.log1p(bet_sizes(alpha)[:, None] * (chance - x)).cumsum(1)
    found = np.exp(grown - grown.max(0)).mean(0) * np.exp(grown.max(0)) if len(x) else x
    impossible = (rejects - np.cumsum(x) > left - 1) | (rejects < np.cumsum(x))
    return np.where(np.maximum.accumulate(impossible), np.inf, found) if len(x) else found


def num_rejects_allowed_in_lot(alpha: float, size: int) -> int:
    """Rejects that a lot of `size` may hold: floor(alpha size), which 0.29 x 100 in floating point is not."""
    return math.floor(alpha * size + 1e-9)


def uniform_order_bettor(alpha: float) -> Bettor:
    """`betting_wealth` with the bets of `alpha`, for an order in which every picture is equally likely to come next."""
    return lambda labels, size, rejects: betting_wealth(labels, size, rejects, alpha)


def is_reject_count_ruled_out_yet(
    labels: Sequence[int] | NDArray, size: int, delta: float, rejects: int, bettor: Bettor
) -> NDArray[np.bool_]:
    """[n] whether the labels so far rule out that the lot holds `rejects` rejects (wealth has reached 1 / delta)."""
    return np.maximum.accumulate(bettor(np.asarray(labels, float), size, rejects)) >= 1 / delta


def labels_until_proven(
    labels: Sequence[int] | NDArray,
    size: int,
    alpha: float,
    delta: float,
    bettor: Bettor | None = None,
    fewest_rejects_noticed: Callable[[int], int] = int,
) -> int | None:
    """The number of these labels after which the promise was proven; None if it was not.

    It is proven once every number of rejects is ruled out for which the share of rejects among the exported pictures
    (the lot without the rejects that were found) would be above alpha. `bettor` is who bets on the labels in their
    order; without one it is the bettor of `betting_wealth`. `fewest_rejects_noticed` says how many pictures a reviewer
    rejects at least in a lot with that many rejects: all of them, unless eval/promise/eyes.py says otherwise.
    """
    bettor, found = bettor or uniform_order_bettor(alpha), np.cumsum(np.asarray(labels, int))
    for already in np.unique(np.concatenate([[0], found])):
        smallest = fewest_rejects_noticed(num_rejects_allowed_in_lot(alpha, size - already) + already + 1)
        proven = np.flatnonzero(
            is_reject_count_ruled_out_yet(labels, size, delta, smallest, bettor) & (found == already)
        )
        if len(proven):
            return int(proven[0]) + 1
    return None


def upper_bound_on_reject_share_after_removal(
    labels: Sequence[int] | NDArray, size: int, alpha: float, delta: float, bettor: Bettor | None = None
) -> float:
    """Upper bound, 0 to 1, on the share of rejects in what may be exported after all these labels.

    What may be exported is the lot of `size` pictures without the rejects that were found. The bound holds with
    confidence 1 - delta; the bets are sized for a promise of `alpha`. It is 1 without labels, and 1 if the labels rule
    out every number of rejects, which happens with a chance of at most delta. `bettor` is as in `labels_until_proven`.
    """
    found = int(np.sum(labels))
    if size == found:
        return 0.0
    most = most_rejects_not_ruled_out(labels, size, delta, bettor or uniform_order_bettor(alpha))
    return 1.0 if most is None else (most - found) / (size - found)


def most_rejects_not_ruled_out(labels: Sequence[int] | NDArray, size: int, delta: float, bettor: Bettor) -> int | None:
    """The largest number of rejects in a lot of `size` that these labels do not rule out; None if they rule out every
    number.
    """
    found = int(np.sum(labels))
    low, high = found, size - len(labels) + found
    while low < high:  # wealth grows with the number of rejects: what is ruled out is an upper part
        middle = (low + high + 1) // 2
        if len(labels) and is_reject_count_ruled_out_yet(labels, size, delta, middle, bettor)[-1]:
            high = middle - 1
        else:
            low = middle
    if len(labels) and is_reject_count_ruled_out_yet(labels, size, delta, low, bettor)[-1]:
        return None
    return low


def delta_per_attempt(delta: float, attempts: int) -> list[float]:
    """How much of delta each of `attempts` attempts at a certificate may use: delta / 2, delta / 4, ...; the sum is
    below delta.
    """
    return [delta * 2.0 ** -(k + 1) for k in range(attempts)]
