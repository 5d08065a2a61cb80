"""Is a style that cannot be told from another refused, and is one that can be told not? Both are planted.

    python -m tests.bench.planted [trials=60]      about 8 minutes on two cores; exit 1 if a line is missed

Unreadable: a set of data/foreign/ is split in two at random. One half is the brand, the other one is given by foreign=
as another brand's. Readable: as many test pictures of a demo brand, and half of such a set is given. The other shipped
sets are foreign pictures in both.
"""

import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image

from eval.lot.comparison import ComparisonPictures
from eval.lot.lot import Lot, sha256_by_name
from eval.measuring.columns import measure_lot_and_comparison
from eval.measuring.encoder import LoadedEncoder, load_encoder
from eval.scorers import brand
from stylegate import files
from stylegate.config import Config
from tests.bench.readable import foreign_pictures, written

SEED, REFUSED, REFUSED_WRONGLY = 7960, 0.95, 0.05
DEMO = ("neon", "pixel", "riso")


def refused(own: list[Image.Image], given: list[Image.Image], encoder: LoadedEncoder) -> bool:
    """Whether the gate finds that references `own` cannot be read, with `given` as foreign=."""
    with tempfile.TemporaryDirectory() as text:
        place = Path(text)
        folders = [written(place / name, images) for name, images in (("own", own), ("given", given))]
        named, theirs = ([(path.name, path) for path in sorted(folder.iterdir())] for folder in folders)
        lot = Lot(place, place, named[:1], sha256_by_name(named[:1]), None, None)
        compared = ComparisonPictures(named, [], [], "#ffffff", "keep", "", "own", {}, {}, foreign={"given": theirs})
        measured, _ = measure_lot_and_comparison(Config(), lot, compared, encoder, quiet=True)
        brand.column(measured)
    assert measured.readability
    return not measured.readability.readable


def main() -> int:
    trials = int(sys.argv[1].removeprefix("trials=")) if sys.argv[1:] else 60
    encoder = load_encoder("miniature", torch.device("cpu"))
    sets = list(dict.fromkeys(pq.read_table(files.FOREIGN, columns=["set"])["set"].to_pylist()))
    found: Counter[str] = Counter()
    for i in range(trials):
        random = np.random.default_rng([SEED, i])
        name, demo = sets[i % len(sets)], DEMO[i % len(DEMO)]
        drawn = foreign_pictures(name)
        half, rest = ([drawn[k] for k in part] for part in np.array_split(random.permutation(len(drawn)), 2))
        paths = sorted((files.ROOT / "data" / "brands" / demo / "test").glob("*.png"))
        own = [Image.open(paths[k]).convert("RGB") for k in random.permutation(len(paths))[: len(half)]]
        found["unreadable"] += (yes := refused(half, rest, encoder))
        found["readable"] += (no := refused(own, rest, encoder))
        print(
            f"trial {i}: half of {name} {'refused' if yes else 'READ'}, {demo} {'REFUSED' if no else 'read'}",
            flush=True,
        )
    shares = found["unreadable"] / trials, found["readable"] / trials
    print(f"{trials} trials: unreadable refused {shares[0]:.3f} (wanted {REFUSED}), ", end="")
    print(f"readable refused {shares[1]:.3f} (at most {REFUSED_WRONGLY})")
    return 0 if shares[0] >= REFUSED and shares[1] <= REFUSED_WRONGLY else 1


if __name__ == "__main__":
    raise SystemExit(main())
