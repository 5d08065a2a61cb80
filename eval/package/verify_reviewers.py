"""The part of verify.py that is of an audit's terms, and of what known rejects say of those who looked.

verify_certificate.py runs it.

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
        f"{who} did not see {count} of {len(known)} known rejects"
        for who, count in num_missed_known_rejects(found).items()
    ]
    most = math.ceil(1000 * part["miss_rate"] - 1e-6) / 10  # rounded up, since it says "at most"
    return f"{', '.join(missed)}: at most {most:.1f}% of rejects are missed"


def num_missed_known_rejects(found):
    """How many known rejects each reviewer missed, or did not answer, in the order of their first labels."""
    missed = {}
    for row in found["labels"]:
        missed.setdefault(row["who"], set(found["known_rejects"]))
    for row in found.get("known_answers", []):
        if is_reject(row):
            missed.get(row["who"], set()).discard(row["sha256"])
    return {who: len(left) for who, left in missed.items()}


def bound_on_miss_rate(missed, shown, delta):
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


def least_noticed_rejects(rejects, eyes):
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


def problems_with_audit_terms(found):
    """Sentences on terms under which the labels would prove nothing, and on a promise in words that is not theirs."""
    terms, design, ladder = found["promise"], found.get("design"), found["promise"]["ladder"]
    shares = all(0.0005 <= terms[name] <= 0.5 for name in ("alpha", "delta"))
    parts = len(ladder) == len(found["attempts"]) and all(0 < share <= 1 for share in ladder)
    spent = 0 <= found["earlier_attempts"] < 1000 and 0 <= found["proven"] < len(ladder)
    problems = [] if shares and parts and spent else ["its terms are none that an audit can have"]
    if design:
        bets = design["gamblers"]
        fair = abs(sum(g["share"] for g in bets) - 1) <= 1e-9 and 0 <= design["draw"] <= 100
        fair = fair and 0 <= design["steepness"] <= 2 and 0 < design["floor"] <= 1
        named = [(g["share"], g["least_doubt"], g["doubt"]) for g in bets]
        if not fair or not all(share > 0 and 0 <= least <= 100 and 0 <= more <= 100 for share, least, more in named):
            problems.append("with its design, bets may win without any evidence")
    alpha, delta = (math.ceil(1000 * terms[name] - 1e-6) / 10 for name in ("alpha", "delta"))
    promise = f"at most {alpha:.1f}% of what is exported are rejects, with {round(100 - delta, 1):.1f}% confidence"
    return problems if found["says"] == promise else [*problems, "it says something else than its terms"]
