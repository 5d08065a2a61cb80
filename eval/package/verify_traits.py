"""The part of verify.py that is of traits: the plan that was committed to, and rarity. verify.py runs it."""

import hashlib
import json
import math
from collections import Counter

METADATA, RARITY, RECORDS = "data/metadata/erc721", "data/rarity.jsonl", "data/records"
COMMITMENT, SALT, PLAN = "proof/commitment.json", "proof/commitment.salt", "proof/plan.jsonl"


def check_plan_and_rarity(folder, traits, wrong):
    """Hold `traits` (trait -> value, by number of an item) against plan and rarity. Returns what is proven."""
    return check_plan(folder, traits, wrong) + check_rarity(folder, traits, wrong)


def check_plan(folder, traits, wrong):
    """Open the commitment to the plan, and hold the traits of the items against it. Returns what is proven."""
    if not (folder / COMMITMENT).is_file():
        return []
    stated, plan = json.loads((folder / COMMITMENT).read_text()), (folder / PLAN).read_bytes()
    planned = {row["slot"]: row["traits"] for row in map(json.loads, plan.splitlines())}
    opened = hashlib.sha256((folder / SALT).read_bytes() + plan).hexdigest()
    if (stated["commitment"], stated["slots"]) != (opened, len(planned)):
        wrong.append(f"{COMMITMENT}: it is not of {PLAN}")
    others = [item for item in traits if traits[item] != planned.get(item)]
    stated = {item: stated_traits(folder, item) for item in others}
    other_plan = [item for item in others if stated[item] != {"planned": planned.get(item), "final": traits[item]}]
    wrong += [f"{METADATA}/{item}.json: not the traits of its slot in {PLAN}" for item in other_plan]
    says = f"{len(traits)} of {len(planned)} planned slots are here, with the traits that {COMMITMENT} commits to"
    corrected = f", but for {len(others)} in whose records a person corrected them"
    return [says + corrected * bool(others)]


def stated_traits(folder, item):
    """What the record of an item says of its traits, planned and final; {} if it says nothing."""
    traits = json.loads((folder / RECORDS / f"{item}.json").read_bytes()).get("traits", {})
    return {name: traits[name] for name in ("planned", "final") if name in traits}


def rarities(items):
    """(rank, score) of each item (trait -> value), as OpenRarity 0.7.5 computes them."""
    rows = [{name.lower().strip(): value.lower().strip() for name, value in item.items()} for item in items]
    rows = [{**row, "meta_trait:trait_count": str(sum(v not in ("none", "") for v in row.values()))} for row in rows]
    scores, unique, entropy = [0.0] * len(rows), [0] * len(rows), 0.0
    for name in sorted({name for row in rows for name in row}):
        counts = Counter(row.get(name) for row in rows)
        entropy += sum(n / len(rows) * math.log2(len(rows) / n) for n in counts.values())
        for i, row in enumerate(rows):
            scores[i] += math.log2(len(rows) / counts[row.get(name)])
            unique[i] += name in row and counts[row[name]] == 1
    scores = [score / (entropy or 1.0) for score in scores]
    order = sorted(range(len(rows)), key=lambda i: (unique[i], scores[i]), reverse=True)
    ranks = {}
    for place, i in enumerate(order):
        tied = place > 0 and math.isclose(scores[i], scores[order[place - 1]])
        ranks[i] = ranks[order[place - 1]] if tied else place + 1
    return [(ranks[i], scores[i]) for i in range(len(rows))]


def check_rarity(folder, traits, wrong):
    """Compute rank and rarity of the items again. Returns what is proven."""
    if not (folder / RARITY).is_file():
        return []
    stated = {row["id"]: (row["rank"], row["score"]) for row in map(json.loads, (folder / RARITY).open("rb"))}
    found = dict(zip(traits, rarities(list(traits.values()))))  # noqa: B905  (Python 3.9)
    for item in sorted(found.keys() | stated.keys()):
        (rank, score), (stated_rank, stated_score) = found.get(item, (0, 0.0)), stated.get(item, (0, 0.0))
        if rank != stated_rank or not abs(score - stated_score) <= 1e-6:  # NaN too
            wrong.append(f"{RARITY}: item {item} has another rank or score by the traits of all items")
    return [f"rank and rarity of {len(found)} items follow from their traits"]
