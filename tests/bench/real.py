"""Does the gate hold a brand apart from art by other designers? Real styles, none of which it has seen.

    python -m tests.bench.real FOLDER [references=64] [encoder=NAME] [BRAND ..]   half a minute a brand; exit 1: missed

FOLDER is what tests.bench.realstyles renders: avatars/ (9 styles) and icons/ (6 sets to test on, and the hands below,
of which some are in data/foreign/). Each benchmark style is the brand once: its first pictures are the references, 128
others are the brand's own, and 48 of every other benchmark style are foreign. Printed: own accepted (of those that are
no copies of other pictures there: generated avatars often are), foreign accepted, the area under the ROC curve of the
score `brand`, and whether the style was refused as unreadable.

Then the same subjects by other hands: five emoji sets, one as the brand, the other ones' pictures of the names that
both know as foreign pictures; without foreign=, and with half of them given by foreign=.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.metrics import roc_auc_score

from eval.judging.judge import judge
from eval.lot.comparison import ComparisonPictures
from eval.lot.lot import Lot, sha256_by_name
from stylegate.config import Config

TEST = ["emojione-v1", "flat-color-icons", "marketeq", "openmoji", "streamline-cyber-color", "streamline-emojis"]
HANDS = ["openmoji", "emojione", "emojione-v1", "noto-v1", "fluent-emoji-flat"]
OWN, EACH, SEED = 128, 48, 7950
OWN_ACCEPTED, FOREIGN_ACCEPTED, WORST, REFUSED, READABLE = 0.85, 0.005, 0.02, 3, 0.9
REFUSALS = {"style-unreadable", "encoder-out-of-domain"}

Named = list[tuple[str, Path]]


class Found(NamedTuple):
    """What a gate said of one brand; shares of pictures."""

    own: float
    foreign: dict[str, float]  # by style
    counts: dict[str, int]  # of pictures, by style
    refused: bool
    area: float  # of the brand's own score, own against foreign pictures; NaN where there is none
    nearest: str

    @property
    def accepted(self) -> float:
        return sum(self.foreign[s] * self.counts[s] for s in self.foreign) / max(sum(self.counts.values()), 1)


def pictures_of(folder: Path) -> Named:
    """The pictures of a style, shuffled: those that a generator made one after the other are alike."""
    paths = sorted(folder.glob("*.png"))
    order = np.random.default_rng(SEED).permutation(len(paths))
    return [(f"{folder.name}/{paths[i].name}", paths[i]) for i in order]


def gate(references: Named, own: Named, foreign: dict[str, Named], given: dict[str, Named], encoder: str) -> Found:
    named = [*own, *(one for pictures in foreign.values() for one in pictures)]
    with tempfile.TemporaryDirectory() as place:
        lot = Lot(Path(place), Path(place), named, sha256_by_name(named), None, None)
        more = {"foreign": given} if given else {}
        compared = ComparisonPictures(references, [], [], "#ffffff", "keep", "", "references", {}, {}, **more)  # type: ignore[arg-type]
        judged = judge(Config(encoder=encoder), lot, compared, quiet=True)
    accepted = {verdict.file: verdict.verdict == "accept" for verdict in judged.verdicts}
    copies = {v.file for v in judged.verdicts if any(reason.check == "distinct" for reason in v.reasons)}
    refused = any(reason.check in REFUSALS for verdict in judged.verdicts[: len(own)] for reason in verdict.reasons)
    scores = judged.scores.computed_values_of_score("brand" if "brand" in judged.scores.rows[0] else "style")
    area = roc_auc_score(np.arange(len(named)) < len(own), scores) if len(scores) == len(named) else np.nan
    nearest = ""
    if readability := judged.scores.record.readability:
        found = readability.separations[readability.nearest]
        nearest = f"{readability.nearest} {found.area:.3f} (low {found.low:.3f})"
    return Found(
        float(np.mean([accepted[name] for name, _ in own if name not in copies])),
        {style: float(np.mean([accepted[name] for name, _ in some])) for style, some in foreign.items()},
        {style: len(some) for style, some in foreign.items()},
        refused,
        float(area),
        nearest,
    )


def line(name: str, found: Found) -> str:
    worst = max(found.foreign, key=lambda style: found.foreign[style])
    state = "refused" if found.refused else "read"
    return (
        f"{name:<36}{found.own:>6.2f}{found.accepted:>8.4f}{found.area:>7.3f}  {state:<8}"
        f"{worst} {found.foreign[worst]:.2f}; nearest {found.nearest}"
    )


def styles(folder: Path, count: int, wanted: list[str], encoder: str) -> list[str]:
    """Print the table of benchmark styles; returns what was missed."""
    avatars = sorted(path.name for path in (folder / "avatars").iterdir())
    every = {name: pictures_of(folder / "avatars" / name) for name in avatars}
    every |= {name: pictures_of(folder / "icons" / name) for name in TEST}
    print(f"{f'brand, {count} references':<36}{'own':>6}{'foreign':>8}{'area':>7}")
    rows: dict[str, Found] = {}
    for name in wanted or every:
        foreign = {other: some[-EACH:] for other, some in every.items() if other != name}
        rows[name] = gate(every[name][:count], every[name][-OWN:], foreign, {}, encoder)
        print(line(name, rows[name]), flush=True)
    read = {name: found for name, found in rows.items() if not found.refused}
    own = float(np.mean([found.own for found in read.values()])) if read else 0.0
    accepted = float(np.mean([found.accepted for found in rows.values()]))
    print(f"{'all':<36}{own:>6.3f}{accepted:>8.4f}   {len(rows) - len(read)} of {len(rows)} refused; own of those read")
    missed = [f"{name}: own {found.own:.2f}" for name, found in read.items() if found.own < OWN_ACCEPTED]
    missed += [f"{name}: foreign {found.accepted:.3f}" for name, found in rows.items() if found.accepted > WORST]
    missed += [f"foreign in all {accepted:.4f}"] if accepted > FOREIGN_ACCEPTED else []
    missed += [f"{name}: refused, area {f.area:.3f}" for name, f in rows.items() if f.refused and f.area >= READABLE]
    return missed + ([f"{len(rows) - len(read)} refused"] if len(rows) - len(read) > REFUSED else [])


def hands(folder: Path, count: int, encoder: str) -> list[str]:
    """Print the table of the same subjects by other hands; returns what was missed."""

    def by_name(name: str) -> dict[str, tuple[str, Path]]:
        rows = [json.loads(text) for text in (folder / "icons" / name / "metadata.jsonl").read_text().splitlines()]
        return {row["text"]: (f"{name}/{row['file_name']}", folder / "icons" / name / row["file_name"]) for row in rows}

    missed, sets = [], {name: by_name(name) for name in HANDS}
    for name, own in sets.items():
        every = list(own.values())
        others = {o: [theirs[text] for text in theirs if text in own] for o, theirs in sets.items() if o != name}
        others = {other: some for other, some in others.items() if len(some) >= 16}
        halves = {other: some[::2] for other, some in others.items()}, {o: some[1::2] for o, some in others.items()}
        for title, given in (("", {}), (" with foreign=", halves[1])):
            found = gate(every[:count], every[-OWN:], halves[0], given, encoder)
            print(line(name + title, found), flush=True)
            if not found.refused and found.accepted > 0.01:
                missed.append(f"{name}{title}: foreign {found.accepted:.3f}")
            if given and (found.refused or found.area < 0.93 or found.own < 0.8):
                missed.append(f"{name}{title}: area {found.area:.3f}, own {found.own:.2f}, refused {found.refused}")
    return missed


def main() -> int:
    folder, count, encoder = Path(sys.argv[1]), 64, ""
    wanted = []
    for word in sys.argv[2:]:
        if word.startswith("references="):
            count = int(word.partition("=")[2])
        elif word.startswith("encoder="):
            encoder = word.partition("=")[2]
        else:
            wanted.append(word)
    missed = styles(folder, count, wanted, encoder)
    if not wanted:
        print()
        missed += hands(folder, count, encoder)
    print("\n".join(["missed:", *missed]) if missed else "every line holds")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
