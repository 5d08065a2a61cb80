"""The part of verify.py that is of certificate.json: the order of the labels and the proof. verify.py runs it.

The formulas are those of eval/promise/audit.py, ranked.py and eyes.py of stylegate, written down a second time.
"""

import hashlib
import json
import math
import runpy
from pathlib import Path

CERTIFICATE, INCLUSION = "data/certificate.json", "proof/inclusion.jsonl"
REVIEWERS = runpy.run_path(str(Path(__file__).with_name("verify_reviewers.py")))  # it lies beside this file
known_rejects_in_words, is_reject = REVIEWERS["known_rejects_in_words"], REVIEWERS["is_reject"]
num_missed_known_rejects, bound_on_miss_rate = REVIEWERS["num_missed_known_rejects"], REVIEWERS["bound_on_miss_rate"]
least_noticed_rejects, problems_with_terms = REVIEWERS["least_noticed_rejects"], REVIEWERS["problems_with_audit_terms"]


def check_promise(folder, wrong):
    """Compute the proof of certificate.json again, and compare it with the items. Returns sentences on what is proven.

    Sentences on what is wrong are appended to `wrong`.
    """
    if not (folder / CERTIFICATE).is_file():
        return []
    found = json.loads((folder / CERTIFICATE).read_text())
    problems = recomputed_certificate_problems(found)
    part, bad = found["attempts"][found["proven"]], {row["sha256"] for row in found["labels"] if is_reject(row)}
    certified = sorted(set(found["lot"]["pictures"][: part["size"]]) - bad)
    rows = map(json.loads, (folder / INCLUSION).read_bytes().splitlines())
    if certified != sorted(row.get("judged_sha256", row["image_sha256"]) for row in rows):
        problems.append("the items are not the pictures that it certifies")
    wrong += [f"{CERTIFICATE}: {problem}" for problem in problems]
    order = "an order that the ranking settles" if "design" in found else "a random order"
    seen = f"all {part['size']} pictures were looked at" if part["labels"] == part["size"] else found["says"]
    seen = found["says"] if found.get("known_rejects") else seen
    return [f"by {part['labels']} labels in {order} ({CERTIFICATE}): {seen}; {known_rejects_in_words(found)}"]


def recomputed_certificate_problems(found):
    """Sentences on what in a certificate does not follow from its lot, its terms and its labels."""
    lot, design, given = found["lot"]["pictures"], found.get("design"), found["labels"]
    terms, problems = found["promise"], problems_with_terms(found)
    if problems:
        return problems
    if len(set(lot)) < len(lot) or canonical_json_sha256(lot) != found["lot"]["sha256"]:
        problems.append("the lot is not the one that it names")
    policy = found["policy"]["sha256"]
    told = ["stylegate-audit-3", lot, policy, design] if design else ["stylegate-audit-2", sorted(lot), policy]
    weights = audit_sampling_weights_by_rank(len(lot), design)
    order = pictures_in_drawn_order(lot, canonical_json_sha256(told), weights)
    if [row["sha256"] for row in given] != order[: len(given)] or found["order_seed"] != canonical_json_sha256(told):
        return [*problems, "the labels are not of the first pictures of the lot's random order"]
    part, spent = found["attempts"][found["proven"]], found["earlier_attempts"] + found["proven"] + 1
    size, delta = max(1, round(terms["ladder"][found["proven"]] * len(lot))), terms["delta"] / 2**spent
    rank = {sha256: place for place, sha256 in enumerate(lot[:size])}
    labels = [(rank[row["sha256"]], is_reject(row)) for row in given if row["sha256"] in rank]
    known = found.get("known_rejects", {})
    answered = [(row["who"], row["sha256"]) for row in found.get("known_answers", [])]
    if set(known) & set(lot) or len(set(answered)) < len(answered):
        problems.append("a known reject is a picture of the lot, or was answered twice")
    miss_rate = bound_on_miss_rate(num_missed_known_rejects(found), len(known), 0.2 * delta) if known else 0
    eyes = (miss_rate, 0.05 * delta) if known else None
    if not abs(part.get("miss_rate", 0) - miss_rate) <= 1e-5:  # NaN too
        problems.append("what the reviewers miss does not follow from their answers to known rejects")
    goal = 0.75 * delta if known else delta
    proven = labels_until_proven(labels, size, terms["alpha"], goal, weights[:size], design, eyes)
    if proven is None or (part["size"], part["proven_after"], part["labels"]) != (size, proven, len(labels)):
        problems.append("the proof does not follow from the labels")
    return problems


def canonical_json_sha256(value):
    """sha256 (hex) of JSON data in canonical form (RFC 8785; keys are ASCII, numbers between 1e-4 and 1e15)."""
    text = json.dumps(whole_floats_as_integers(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def whole_floats_as_integers(value):
    """The value with every float that is a whole number as an integer, as canonical JSON writes it."""
    if isinstance(value, dict):
        return {key: whole_floats_as_integers(part) for key, part in value.items()}
    if isinstance(value, list):
        return [whole_floats_as_integers(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def relative_reject_risk_by_rank(size, design):
    """The relative risk of each picture of a lot, best margin first."""
    risks = [max((size - place - 0.5) / size, design["floor"]) ** -design["steepness"] for place in range(size)]
    mean = math.fsum(risks) / size
    return [risk / mean for risk in risks]


def audit_sampling_weights_by_rank(size, design):
    """The weight of each picture in the draw, best margin first; without a design all are equal."""
    risks = relative_reject_risk_by_rank(size, design) if design else []
    return [1 + design["draw"] * risk for risk in risks] if design else [1.0] * size


def pictures_in_drawn_order(lot, seed, weights):
    """The pictures in the order that the seed settles; with equal weights it is that of the digests alone."""
    digests = {sha256: hashlib.sha256(f"{seed}:{sha256}".encode()).hexdigest() for sha256 in lot}
    if len(set(weights)) == 1:
        return sorted(lot, key=lambda sha256: digests[sha256])
    times = {s: -math.log((int(digests[s][:13], 16) + 0.5) / 16**13) / w for s, w in zip(lot, weights)}  # noqa: B905
    return sorted(lot, key=lambda sha256: (times[sha256], sha256))


def labels_until_proven(labels, size, alpha, delta, weights, design, eyes=None):
    """The number of labels (rank, is a reject) after which the promise was proven; None if it was not."""
    found, numbers, bets = 0, [], alpha * (1 - eyes[0]) if eyes else alpha
    if bets == 0:
        return None
    for _, bad in labels:
        found += bad
        numbers.append(found)
    if wealth_goal_reached_after_each_label(labels, size, bets, found, weights, design, 1 / delta)[-1:] == [True]:
        return None  # every number of rejects is ruled out: that proves nothing
    for already in sorted({0, *numbers}):
        rejects = math.floor(alpha * (size - already) + 1e-9) + already + 1
        sure = wealth_goal_reached_after_each_label(
            labels, size, bets, least_noticed_rejects(rejects, eyes), weights, design, 1 / delta
        )
        for count, number in enumerate(numbers, start=1):
            if number == already and sure[count - 1]:
                return count
    return None


def wealth_goal_reached_after_each_label(labels, size, alpha, rejects, weights, design, goal):
    """After each label, whether the wealth of a gambler against that number of rejects has ever reached the goal."""
    rates = (0.0, alpha / 3)  # without a design: the rates for which the two bets grow fastest
    bets = [min((alpha - rate) / (alpha * (1 - alpha)), 0.95) for rate in rates]
    risks = relative_reject_risk_by_rank(size, design) if design else []
    doubts = [[g["least_doubt"] + g["doubt"] * r for r in risks] for g in design["gamblers"]] if design else []
    wealth = [g["share"] for g in design["gamblers"]] if design else [0.5, 0.5]
    left, weight, doubt, sure, seen = size, math.fsum(weights), [math.fsum(d) for d in doubts], False, []
    for place, bad in labels:
        for i in range(len(wealth)):
            if design:
                chance = weights[place] / weight * (left - rejects + doubt[i])
                wealth[i] *= (doubts[i][place] + 1 - bad) / chance if chance > 0 else math.inf
                doubt[i] -= doubts[i][place]
            else:
                wealth[i] *= 1 + bets[i] * (rejects / left - bad)
        left, weight, rejects = left - 1, weight - weights[place], rejects - bad
        sure = sure or rejects > left or rejects < 0 or sum(wealth) >= goal
        seen.append(sure)
    return seen
