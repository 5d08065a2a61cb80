# Run with the environment of open-rarity: prints the golden vectors of tests/golden/open_rarity.json.
import json
import random

from open_rarity import Collection, RarityRanker, Token  # pyright: ignore[reportMissingImports]

random.seed(11)
traits = {f"t{i}": [f"v{j}" for j in range(3 + 2 * i)] for i in range(5)}
items = []
for _ in range(120):
    item = {
        t: random.choices(v, [1 / (k + 1) ** 1.5 for k in range(len(v))])[0]
        for t, v in traits.items()
        if random.random() > 0.2
    }
    items.append(item)
items[7] |= {"t4": "only here", "t0": " V0 "}
items[8]["t1"] = "None"
items[9]["t1"] = ""
items[11] = dict(items[10])
items[12] = {}
items[13] = {"t2": "alone"}
tokens = [Token.from_erc721("0x0", i, dict(item)) for i, item in enumerate(items)]
found = {r.token.token_identifier.token_id: r for r in RarityRanker.rank_collection(Collection(tokens=tokens))}
rows = [[found[i].score, found[i].rank, found[i].token_features.unique_attribute_count] for i in range(len(items))]
print(
    json.dumps(
        {"made_by": "open-rarity 0.7.5, tests/golden/rarity_vectors.py", "items": items, "score_rank_unique": rows}
    )
)
