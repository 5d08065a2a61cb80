"""The part of verify.py that is of those who looked: what known rejects say of them. verify_certificate.py runs it.

The formulas are those of eval/promise/eyes.py of stylegate, written down a second time.
"""

import math


def known_rejects_in_words(found):
    """How many known rejects each reviewer missed, and how many rejects are missed at most, in words.

    Without known rejects it says that the reviewers are taken to be right. `found` is the content of certificate.json.
    """
    known, part = found.get("known_rejects", {}), found["attempts"][found["proven"]]
    if not known:
        return "the reviewers are taken to be right: no known rejects were shown to them"
    missed = [
        f"{who} did not see {count} of {len(known)} known rejects" for who, count in missed_by_reviewer(found).items()
    ]
    most = math.ceil(1000 * part["miss_rate"] - 1e-6) / 10  # rounded up, since it says "at most"
    return f"{', '.join(missed)}: at most {most:.1f}% of rejects are missed"


def missed_by_reviewer(found):
    """How many known rejects each reviewer missed, or did not answer, in the order of their first labels."""
    missed = {}
    for row in found["labels"]:
        missed.setdefault(row["who"], set(found["known_rejects"]))
    for row in found.get("known_answers", []):
        if is_reject(row):
            missed.get(row["who"], set()).discard(row["sha256"])
    return {who: len(left) for who, left in missed.items()}


def largest_miss_rate(missed, shown, delta):
    """The largest chance that one of the reviewers misses a reject; they share delta: a half, a fourth, and so on."""
    rates = [
        clopper_pearson_upper_bound(count, shown, delta / 2 ** (number + 1))
        for number, count in enumerate(missed.values())
    ]
    return max(rates, default=1.0)


def clopper_pearson_upper_bound(missed, shown, delta):
    """The rate at which so few known rejects, or fewer, are missed with the chance delta (Clopper and Pearson)."""
    low, high = 0.0, 1.0
    if missed == shown:
        return 1.0
    for _ in range(100):
        middle = (low + high) / 2
        few = math.fsum(math.comb(shown, k) * middle**k * (1 - middle) ** (shown - k) for k in range(missed + 1))
        low, high = (middle, high) if few > delta else (low, middle)
    return high


def fewest_noticed_rejects(rejects, eyes):
    """How many of so many rejects are rejected at least, but for a small chance. eyes: miss rate and that chance."""
    if eyes is None or eyes[0] == 0 or rejects == 0:
        return rejects
    seen, chance, total = math.log1p(-eyes[0]), math.log(eyes[0]), 0.0
    for count in range(rejects + 1):
        ways = math.lgamma(rejects + 1) - math.lgamma(count + 1) - math.lgamma(rejects - count + 1)
        total += math.exp(ways + count * seen + (rejects - count) * chance)
        if total >= eyes[1]:
            return count
    return rejects


def is_reject(row):
    """Whether a label counts as a reject: whatever is not accepted does."""
    return row["verdict"] != "accept"
