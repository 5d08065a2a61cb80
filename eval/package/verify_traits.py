"""The part of verify.py that is of traits: the plan that was committed to, and rarity. verify.py runs it."""

import hashlib
import json
import math
from collections import Counter
from urllib.parse import quote

METADATA, RARITY, RECORDS = "data/metadata/erc721", "data/rarity.jsonl", "data/records"
COMMITMENT, SALT, PLAN = "proof/commitment.json", "proof/commitment.salt", "proof/plan.jsonl"


def check_plan_and_rarity(folder, traits, wrong):
    """Compare `traits` (trait -> value, by number of an item) with plan and rarity. Returns sentences on what is
    proven.
    """
    return check_plan_against_commitment_and_traits(folder, traits, wrong) + check_rarity(folder, traits, wrong)


def check_token_metadata_formats_agree(folder, images, wrong):
    """Append to `wrong` where the three kinds of metadata of an item disagree, or show another picture than that of the
    item. `images` has the place of the picture, below the package, by the number of the item.
    """
    place, kinds = folder / "data" / "metadata", {"erc721": "{}.json", "erc1155": "{:064x}.json", "metaplex": "{}.json"}
    for kind, name in kinds.items():
        if {path.name for path in (place / kind).iterdir()} != {name.format(item) for item in images}:
            wrong.append(f"data/metadata/{kind}/ does not describe the items, all of them and no others")
            return
    for item, image in images.items():
        token, *others = (json.loads((place / kind / name.format(item)).read_bytes()) for kind, name in kinds.items())
        traits = {entry["trait_type"]: entry["value"] for entry in token["attributes"]}
        agree = all({name: other.get(name) for name in token} == token for other in others)
        agree = agree and others[0]["properties"] == traits and len(traits) == len(token["attributes"])
        shown = [token.get("image"), *(file["uri"] for file in others[1]["properties"]["files"])]
        if not agree:
            wrong.append(f"{METADATA}/{item}.json: a trait twice, or another one than in erc1155/ and metaplex/")
        if shown != ["../../" + quote(image[len("data/") :])] * 2:
            wrong.append(f"{METADATA}/{item}.json: it shows another picture than that of item {item}, {image}")


def check_plan_against_commitment_and_traits(folder, traits, wrong):
    """Compare the plan with the commitment to it, and `traits` with the plan. Returns sentences on what is proven.

    Sentences on what is wrong are appended to `wrong`.
    """
    if not (folder / COMMITMENT).is_file():
        return []
    stated, plan = json.loads((folder / COMMITMENT).read_text()), (folder / PLAN).read_bytes()
    planned = {row["slot"]: row["traits"] for row in map(json.loads, plan.splitlines())}
    salt = (folder / SALT).read_bytes()  # of 32 bytes: a longer one could hold the first slots of the plan
    opened = hashlib.sha256(salt + plan).hexdigest() if len(salt) == 32 else ""
    if (stated["commitment"], stated["slots"], len(plan.splitlines())) != (opened, len(planned), len(planned)):
        wrong.append(f"{COMMITMENT}: it is not of {PLAN}")
    others = [item for item in traits if traits[item] != planned.get(item)]
    stated = {item: planned_and_final_traits(folder, item) for item in others}
    other_plan = [item for item in others if stated[item] != {"planned": planned.get(item), "final": traits[item]}]
    wrong += [f"{METADATA}/{item}.json: not the traits of its slot in {PLAN}" for item in other_plan]
    says = f"{len(traits)} of {len(planned)} planned slots are here, with the traits that {COMMITMENT} commits to"
    corrected = f", but for {len(others)} in whose records a person corrected them"
    return [says + corrected * bool(others)]


def planned_and_final_traits(folder, item):
    """What the record of an item says of its traits, planned and final; {} if it says nothing."""
    traits = json.loads((folder / RECORDS / f"{item}.json").read_bytes()).get("traits", {})
    return {name: traits[name] for name in ("planned", "final") if name in traits}


def rarity_ranks_and_scores(items):
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
    """Compute rank and rarity again from `traits`, and compare them with rarity.jsonl. Returns what is proven."""
    if not (folder / RARITY).is_file():
        return []
    rows = [json.loads(line) for line in (folder / RARITY).read_bytes().splitlines()]
    stated = {row["id"]: (row["rank"], row["score"]) for row in rows}
    if len(stated) != len(rows):
        wrong.append(f"{RARITY}: an item is there twice")
    found = dict(zip(traits, rarity_ranks_and_scores(list(traits.values()))))  # noqa: B905  (Python 3.9)
    for item in sorted(found.keys() | stated.keys()):
        (rank, score), (stated_rank, stated_score) = found.get(item, (0, 0.0)), stated.get(item, (0, 0.0))
        if rank != stated_rank or not abs(score - stated_score) <= 1e-6:  # NaN too
            wrong.append(f"{RARITY}: item {item} has another rank or score by the traits of all items")
    return [f"rank and rarity of {len(found)} items follow from their traits"]
