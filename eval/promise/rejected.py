"""How many good pictures does the gate throw away? A random sample of what it rejects, looked at by people.

The N pictures that the gate rejects by a score come up in a random order that follows from their content and the
policy: each is as likely as any other to be among the first n, so the inclusion probability of each is n / N, and the
Horvitz-Thompson estimate of the good ones among them is N times their share in the sample. The interval is a confidence
sequence for sampling without replacement (Waudby-Smith and Ramdas, 2020: prior over posterior is a martingale; the
prior is even over 0 to N), so that it holds after every label, whenever one stops. These labels decide nothing about
their pictures, and serve no other purpose.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eval.judging.verdicts import Verdict
from eval.policy.model import Policy
from eval.promise import labels
from eval.promise.labels import labels_before_first_gap
from stylegate.words import counted

DELTA = 0.05  # the interval is wrong with this chance at most


@dataclass(frozen=True, slots=True)
class FalseRejectEstimate:
    """What labels of a random sample say of the good pictures among those that the gate rejects."""

    rejected: int  # pictures that the gate rejects by a score
    labels: int  # of them were looked at
    good: int  # of those somebody would export
    accepted: int  # pictures that the gate accepts

    @property
    def inclusion_probability(self) -> float:
        """The chance with which each rejected picture was looked at, 0 to 1."""
        return self.labels / self.rejected

    @property
    def estimated_good(self) -> float:
        """The estimated number of good pictures among all rejected ones (Horvitz and Thompson); no share."""
        return self.good / self.inclusion_probability

    def interval_of_good_pictures(self) -> tuple[int, int]:
        """The smallest and the largest number of good pictures among all rejected ones that the labels do not rule out,
        with confidence 1 - DELTA.
        """
        return interval_without_replacement(self.good, self.labels, self.rejected, DELTA)

    def false_rejects_in_words(self) -> str:
        """How many good pictures the gate rejects, as a sentence that begins with a small letter."""
        low, high = self.interval_of_good_pictures()
        share = ""
        if self.accepted:
            few, many = (count / (count + self.accepted) for count in (low, high))
            share = f", which is {few:.1%} to {many:.1%} of all good ones if those that are accepted are good"
        looked = f"{self.labels} of the {counted(self.rejected, 'picture')} that the gate rejects by a score"
        chance = f"each with a chance of {self.inclusion_probability:.3g}"
        return (
            f"{looked} were looked at ({chance}), {self.good} of them are good: about {self.estimated_good:.0f} good "
            f"ones are thrown away, {low} to {high} with {1 - DELTA:.0%} confidence{share}"
        )


def interval_without_replacement(good: int, looked_at: int, size: int, delta: float) -> tuple[int, int]:
    """The smallest and the largest number of good pictures in a lot of `size` that `good` of `looked_at` random ones do
    not rule out, with confidence 1 - delta after every label.
    """
    from scipy.special import gammaln  # scipy takes half a second; only who asks for an interval waits for it

    def log_choose(n: np.ndarray, k: int) -> np.ndarray:
        """log of the binomial coefficient n over k, for each of n."""
        return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)

    numbers = np.arange(good, size - (looked_at - good) + 1, dtype=float)
    whole = np.array(size + 1.0)
    log_posterior = log_choose(numbers, good) + log_choose(size - numbers, looked_at - good)
    log_posterior -= log_choose(whole, looked_at + 1)
    left = numbers[log_posterior > np.log(delta / (size + 1))]
    return int(left.min()), int(left.max())


def sha256_of_pictures_rejected_by_score(verdicts: Iterable[Verdict]) -> list[str]:
    """The sha256 of the pictures that the gate rejects by some score, copies (`distinct`, `novelty`) among them; each
    once, sorted.
    """
    return sorted(
        {
            verdict.sha256
            for verdict in verdicts
            if verdict.verdict == "reject"
            and any(reason.verdict == "reject" and reason.score is not None for reason in verdict.reasons)
        }
    )


def labelling_order_of_rejected_pictures(pictures: Iterable[str], policy: Policy) -> list[str]:
    """The rejected pictures in the random order in which people look at them."""
    return labels.shuffled_pictures("rejected", pictures, policy.sha256)


def estimate_false_rejects(out: Path, verdicts: list[Verdict], policy: Policy) -> FalseRejectEstimate | None:
    """How many good pictures are among those that the gate rejects by a score, by the labels in the folder of a lot;
    None without a label of this very sample.
    """
    known = labels.valid_labels_by_sha256(out, "rejected", policy)
    if not known:
        return None
    pictures = sha256_of_pictures_rejected_by_score(verdicts)
    given = labels_before_first_gap(labelling_order_of_rejected_pictures(pictures, policy), known)
    if not given:
        return None
    accepted = sum(verdict.verdict == "accept" for verdict in verdicts)
    return FalseRejectEstimate(len(pictures), len(given), sum(not label.is_reject for label in given), accepted)
