"""Do two checkouts judge alike? Five fixed lots by both builds; what they wrote is compared byte for byte.

    git worktree add /tmp/before COMMIT
    python -m tests.bench.same_verdicts /tmp/before [NEW_CHECKOUT] [--real DIR]     about 2 minutes; exit 1 if not

NEW_CHECKOUT is by default the one that this file lies in. The lots: `demo` (true pictures of two brands, against one
of them), `defects` (planted defects and damaged files), `real` (tiles of the pictures in docs/, or those of --real),
`planned` (a plan whose slots are filled with shipped pictures, some twice), `calibrated` (labels, a calibration, a
certificate, a package). verdicts.jsonl, scores.parquet and junit.xml are kept after every command, with its exit code.

Inputs and policies come from BASE_CHECKOUT, so that both builds are given the same bytes; brands, encoder and traits
are each build's own. The builds run one after the other in a folder of the same path, therefore nothing is normalised:
no path, no number, no order.
"""

import argparse
import difflib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.bench.defects import DEFECTS
from tests.bench.five_lots import FILES, LOTS, SECOND_ATTEMPTS, SLOTS
from tests.mutants import mutant

HERE = Path(__file__).resolve().parents[2]
SEED = 7
SHOWN, WIDTH = 8, 300  # lines of a difference that are shown, and characters of a line
TILE = 192  # pixels on a side of what is cut from the pictures in docs/
STRICT = (
    "version: 1\nchecks: {contrast: {reject_below: 20}, style: {reject_below: {spreads: -2}}, size: {warn_below: 1}}\n"
)
CALIBRATED = """version: 1
max_failed_share: 0.5
checks: {contrast: {reject_below: 1}, style: {review_below: {spreads: -3}}, margin: calibrated}
promise: {alpha: 0.1, delta: 0.1, ladder: [1.0, 0.5]}
"""


def inputs(place: Path, base: Path, real: Path | None) -> None:
    """Write the pictures and policies that both builds are given."""
    brands, pictures, policies = base / "data" / "brands", place / "pictures", place / "policies"
    for name in (*LOTS, "references"):
        (pictures / name).mkdir(parents=True)
    policies.mkdir()
    shutil.copyfile(base / "data" / "policies" / "default.yaml", policies / "default.yaml")
    (policies / "strict.yaml").write_text(STRICT)
    (policies / "calibrated.yaml").write_text(CALIBRATED)
    neon, riso = (sorted((brands / name / "validation").glob("*.png")) for name in ("neon", "riso"))
    held_out = sorted((brands / "neon" / "test").glob("*.png"))
    for path in neon[:24] + held_out[:8]:
        shutil.copyfile(path, pictures / "demo" / path.name)
    for path in riso[:16]:
        shutil.copyfile(path, pictures / "demo" / f"riso, [no={path.stem}].png")
    planted(pictures / "defects", neon, sorted((brands / "neon" / "train").glob("*.png")))
    real_lot(pictures, base, real)
    sources = neon + sorted((brands / "pixel" / "validation").glob("*.png"))
    attempts = [(slot, 0) for slot in range(SLOTS)] + [(slot, 1) for slot in SECOND_ATTEMPTS]
    for number, (slot, attempt) in enumerate(attempts):
        source = sources[number * 2 % len(sources)]
        shutil.copyfile(source, pictures / "planned" / f"{slot:05d}-{attempt}.png")
    for path in neon + held_out[:32]:
        shutil.copyfile(path, pictures / "calibrated" / path.name)
    for path in riso[:16]:
        shutil.copyfile(path, pictures / "calibrated" / f"riso-{path.name}")


def planted(folder: Path, good: list[Path], training: list[Path]) -> None:
    """Four pictures of each planted defect, damaged files, an exact copy, another size; some below a folder."""
    random = np.random.default_rng(SEED)
    for name, spoil in DEFECTS.items():
        for i in range(4):
            source = training[i] if name == "copied_training" else good[i]
            spoil(Image.open(source).convert("RGB"), random).save(folder / f"{name}-{i}.png")
    for number in range(21):
        (folder / f"damaged-{number:02d}.png").write_bytes(mutant(number))
    below = folder / "below it"
    below.mkdir()
    for path in good[:12]:
        shutil.copyfile(path, below / path.name)
    shutil.copyfile(good[0], folder / "copy.png")
    Image.open(good[1]).resize((96, 64)).save(folder / "wide.jpg", quality=90)
    Image.open(good[2]).convert("RGBA").rotate(30).save(folder / "transparent.webp", lossless=True)


def real_lot(pictures: Path, base: Path, real: Path | None) -> None:
    """Every second picture of the folder is a reference; without a folder, tiles of the pictures in docs/."""
    if real is not None:
        found = [path for path in sorted(real.iterdir()) if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp")]
        for number, path in enumerate(found[:64]):
            shutil.copyfile(path, pictures / ("references", "real")[number % 2] / path.name)
        return
    for path in sorted((base / "docs").glob("*.png")):
        sheet = Image.open(path).convert("RGB")
        corners = [(x, y) for y in range(0, sheet.height - TILE, TILE) for x in range(0, sheet.width - TILE, TILE)]
        for number, (x, y) in enumerate(corners[:20]):
            tile = sheet.crop((x, y, x + TILE, y + TILE))
            tile.save(pictures / ("references", "real")[number % 2] / f"{path.stem}-{number:02d}.png")


def judge(place: Path, checkout: Path, name: str) -> Path:
    """Run one build on all lots; returns the folder of what it wrote. Its output is in <name>.log."""
    environment = os.environ | {
        "STYLEGATE_HOME": str(place / "home"),
        "PYTHONPATH": str(checkout),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "WANDB_MODE": "offline",
        "CUDA_VISIBLE_DEVICES": "",
    }
    program = [sys.executable, str(HERE / "tests" / "bench" / "five_lots.py"), str(place), str(checkout)]
    log = place / f"{name}.log"
    with log.open("w") as out:
        code = subprocess.run(program, cwd=place, env=environment, stdout=out, stderr=subprocess.STDOUT).returncode
    if code:
        print(f"{name}: {checkout} could not be run on the lots:\n{log.read_text()[-2000:]}", file=sys.stderr)
        raise SystemExit(2)
    target = place / name
    (place / "kept").rename(target)
    (place / "home").rename(place / f"{name}-home")
    return target


def compared(before: Path, after: Path, lot: str, name: str) -> list[str]:
    """What differs in one lot's files of one name: the first difference in full, then where else; empty if nothing."""
    steps = sorted({path.parent.name for side in (before, after) for path in (side / lot).glob(f"*/{name}")})
    if not steps:
        return [f"{lot}, {name}: neither build wrote it"]
    first, differing = [], []
    for step in steps:
        old, new = (
            path.read_bytes() if path.is_file() else None for path in (s / lot / step / name for s in (before, after))
        )
        if old != new:
            differing.append(step)
            first = first or difference(old, new, name)
    also = [f"  differs after {', '.join(differing[1:])} too"] if len(differing) > 1 else []
    return [f"{lot}, {differing[0]}, {name}:", *first, *also] if differing else []


def difference(old: bytes | None, new: bytes | None, name: str) -> list[str]:
    """The first lines of what two contents differ in."""
    if old is None or new is None:
        return [f"  only {'the new build' if old is None else 'the base'} wrote it"]
    if name.endswith(".parquet"):
        return tables(pq.read_table(io.BytesIO(old)), pq.read_table(io.BytesIO(new)))
    texts = [content.decode("utf-8", "backslashreplace").splitlines() for content in (old, new)]
    found = [line[:WIDTH] for line in difflib.unified_diff(texts[0], texts[1], "base", "new", n=0, lineterm="")]
    more = [f"  and {len(found) - SHOWN} more lines"] if len(found) > SHOWN else []
    fields = changed_fields(*texts) if name.endswith(".jsonl") else []
    return fields + [f"  {line}" for line in found[:SHOWN]] + more


def changed_fields(old: list[str], new: list[str]) -> list[str]:
    """In how many rows of two JSON Lines files each field differs, where both are about the same pictures."""
    rows = [[json.loads(line) for line in lines] for lines in (old, new)]
    if [row.get("file") for row in rows[0]] != [row.get("file") for row in rows[1]]:
        return [f"  not the same pictures in the same order: {len(old)} and {len(new)} rows"]
    pairs = list(zip(*rows, strict=True))
    found = Counter(key for a, b in pairs for key in a.keys() | b.keys() if a.get(key) != b.get(key))
    reasons = Counter(change for a, b in pairs for change in changed_reasons(a["reasons"], b["reasons"]))
    return [
        "  fields that differ, with the number of rows: " + ", ".join(f"{k} {n}" for k, n in sorted(found.items())),
        *(f"  reasons, {change}: {count} rows" for change, count in sorted(reasons.items())),
    ]


def changed_reasons(old: list[dict], new: list[dict]) -> set[str]:
    """What differs between the reasons of one verdict, by check: a reason more or less, or its fields."""
    before, after = ({reason["check"]: reason for reason in side} for side in (old, new))
    found = {f"{check} only in the base" for check in before.keys() - after.keys()}
    found |= {f"{check} only in the new build" for check in after.keys() - before.keys()}
    for check in before.keys() & after.keys():
        a, b = before[check], after[check]
        found |= {f"{check}.{key}" for key in a.keys() | b.keys() if a.get(key) != b.get(key)}
    return found


def tables(old: pa.Table, new: pa.Table) -> list[str]:
    """Columns that only one table has, and those whose type or values differ, with the largest difference."""
    lines = [f"  column {name}: only in the base" for name in old.column_names if name not in new.column_names]
    lines += [f"  column {name}: only in the new build" for name in new.column_names if name not in old.column_names]
    if len(old) != len(new):
        return [*lines, f"  {len(old)} rows in the base, {len(new)} in the new build"]
    for name in [name for name in old.column_names if name in new.column_names]:
        a, b = old[name].combine_chunks(), new[name].combine_chunks()
        if a.type != b.type:
            lines.append(f"  column {name}: {a.type} in the base, {b.type} in the new build")
        elif not a.equals(b):
            rows = [i for i, (x, y) in enumerate(zip(a.to_pylist(), b.to_pylist(), strict=True)) if x != y]
            text = f"  column {name}: {len(rows)} of {len(a)} rows, first in row {rows[0] if rows else '?'}"
            if pa.types.is_floating(a.type):
                gaps = np.abs(a.to_numpy(zero_copy_only=False) - b.to_numpy(zero_copy_only=False))
                text += f", largest difference {np.nanmax(gaps) if np.isfinite(gaps).any() else 'of nulls alone'}"
            lines.append(text)
    return lines or ["  the same values, stored as other bytes"]


def counts(side: Path, lot: str) -> str:
    """The verdicts after each command, so that a reader sees that the lot holds something of each kind."""
    found = []
    for path in sorted((side / lot).glob("*/verdicts.jsonl")):
        kinds = Counter(json.loads(line)["verdict"] for line in path.read_text().splitlines())
        found.append("+".join(str(kinds[kind]) for kind in ("accept", "review", "reject", "error")))
    return "  ".join(found)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.same_verdicts")
    parser.add_argument("base", type=Path, help="the checkout whose verdicts are right")
    parser.add_argument("new", type=Path, nargs="?", default=HERE, help="by default the one of this file")
    parser.add_argument("--real", type=Path, help="a folder of pictures for the lot `real`")
    asked = parser.parse_args()
    base, new = asked.base.resolve(), asked.new.resolve()
    with tempfile.TemporaryDirectory(prefix="same-verdicts-") as folder:
        place = Path(folder)
        inputs(place, base, asked.real)
        before, after = judge(place, base, "base"), judge(place, new, "new")
        found = []
        print(f"{'lot':<12}" + "".join(f"{name:<16}" for name in (*FILES, "exit codes")))
        for lot in LOTS:
            codes = [json.loads((side / lot / "exit_codes.json").read_text()) for side in (before, after)]
            ended = [f"{lot}, exit codes:", f"  base {codes[0]}", f"  new  {codes[1]}"] if codes[0] != codes[1] else []
            differing = [*(compared(before, after, lot, name) for name in FILES), ended]
            states = ["differs" if lines else "same" for lines in differing]
            print(f"{lot:<12}" + "".join(f"{state:<16}" for state in states) + " ".join(map(str, codes[1].values())))
            print(f"{'':<12}accept+review+reject+error: {counts(after, lot)}")
            found += [line for lines in differing for line in lines]
    print("\n".join(found) if found else "both builds judge alike")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
