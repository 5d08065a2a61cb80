#!/bin/bash
# What one would guess: OpenRarity sorts by the number of one-of-one traits first and by information content second, as its words
#   say, so an item that nobody else is like always ranks above one without any such trait.
# What is true (open-rarity 0.7.5): it sorts so, but compares neighbours by their score alone when it gives ranks. A one-of-one and two
#   items without one, whose scores are equal, are all rank 1. With traits of two values each this is common: log2 of 1/8 and 1/2 is
#   that of 1/4 and 1/4.
# Date: 2026-11-29. Source: this run; open_rarity/rarity_ranker.py (set_rarity_ranks).
# Why it matters: a studio that plans one-of-ones, and promises them the first ranks, sees ordinary items beside them on every market
#   that follows OpenRarity. Counts can be chosen so that no other item reaches their score; nobody does it for you.
# Exits with 1 if the behaviour has changed.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3.11 -m venv "$place/venv" # it pins pydantic below 2.3, which knows no Python 3.13
"$place/venv/bin/python" -m pip install -q open-rarity==0.7.5
"$place/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

from open_rarity import Collection, RarityRanker, Token

ITEMS = [("dragon", "plain"), ("owl", "gold"), ("owl", "lace"), ("fox", "gold"), ("fox", "lace"), *[("fox", "plain")] * 3]
tokens = [
    Token.from_erc721(contract_address="0x0", token_id=i, metadata_dict={"species": species, "ground": ground})
    for i, (species, ground) in enumerate(ITEMS)
]
print("open-rarity", version("open-rarity"))
print("rank, score, traits that no other item has, item")
first = set()
for found in RarityRanker.rank_collection(Collection(name="eight", tokens=tokens)):
    item = ITEMS[found.token.token_identifier.token_id]
    alone = found.token_features.unique_attribute_count
    print(found.rank, round(found.score, 4), alone, *item)
    if found.rank == 1:
        first.add((*item, alone))
raise SystemExit(first != {("dragon", "plain", 1), ("owl", "gold", 0), ("owl", "lace", 0)})
PYTHON
