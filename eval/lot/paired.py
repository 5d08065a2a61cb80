"""The difference of two pass rates on the same prompts and seeds."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import norm


def paired_difference_interval(after: Sequence[bool], before: Sequence[bool], confidence: float) -> tuple[float, float]:
    """The two-sided interval (low, high) of the difference in pass rate, `after` less `before`, on the same items.

    Agresti and Min 2005 (Statistics in Medicine 24, 729): half a pair added to each of the four cells, then Wald.
    `confidence` is in (0, 1).
    """
    one, other = np.asarray(after, bool), np.asarray(before, bool)
    gained, lost = (one & ~other).sum() + 0.5, (~one & other).sum() + 0.5
    n = len(one) + 2
    difference = (gained - lost) / n
    half = norm.ppf((1 + confidence) / 2) * np.sqrt((gained + lost) / n - difference**2) / np.sqrt(n)
    return float(difference - half), float(difference + half)
