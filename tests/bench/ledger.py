"""Does anything of the engines' ledger grow faster than the work? As many parts as a hundred million rows make.

    python -m tests.bench.ledger [PARTS] [ROWS_OF_A_PART]        20,000 parts and 20 rows; some minutes, 200 MB of disk

100 million rows are 20,000 parts of 5,000. Files, names and lists go by parts, so all 20,000 are written, done by a
stage that only counts, looked at and read, by the functions of eval/engines/parts.py. Bytes and
seconds that go by rows are taken from a few parts of 5,000 rows; these
stand beside it, and the product is extrapolated. Each step is timed per part, for a tenth of the parts and for all: a
step whose seconds per part grow by more than GROWS grows faster than the work. Exit 1 if one does.
"""

import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from eval.engines import parts
from eval.engines.place import FolderPlace

GROWS, WHOLE = 2.0, 5_000  # times the seconds per part; rows of a true part


class ManyRows(Sequence[dict[str, Any]]):
    """Rows of pictures that are made when they are asked for."""

    def __init__(self, count: int) -> None:
        self.total = count

    def __len__(self) -> int:
        return self.total

    @overload
    def __getitem__(self, at: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, at: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, at: int | slice) -> Any:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(self.total))]
        return {"id": f"{at:064x}", "path": f"/shared/pictures/lot/images/{at // 10_000:06d}/{at:09d}.png"}


def counted(rows: Sequence[dict[str, Any]]) -> dict[str, parts.Row]:
    return {row["id"]: {"number": np.array(int(row["id"], 16))} for row in rows}


def seconds_per_part(folder: Path, count: int, size: int) -> dict[str, float]:
    """Seconds of each step, divided by the number of parts; asserts that each row came back once."""
    found: dict[str, float] = {}
    place, rows, names = FolderPlace(folder), ManyRows(count * size), []

    def timed(name: str, work: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        value = work()
        found[name] = (time.perf_counter() - began) / count
        return value

    names = timed("write", lambda: parts.write_rows_to_do_in_parts(place, {"stage": "count"}, rows, size))
    assert timed("write again", lambda: parts.write_rows_to_do_in_parts(place, {"stage": "count"}, rows, size)) == names
    timed("do", lambda: [parts.run_unfinished_parts(place, [name], lambda settings: counted) for name in names])
    parts.raise_error_of_workers(place)
    assert timed("look for finished", lambda: parts.names_of_finished_parts(place)) == set(names)
    assert timed("look for deaths", lambda: parts.number_of_worker_deaths(place)) == 0
    read = timed("read", lambda: sum(len(parts.read_part_result(place, name)[0]) for name in names))
    assert read == count * size and len(list(folder.iterdir())) == 2 * count + 2, "each row once, two files a part"
    return found


def main() -> int:
    count, size = (int(word) for word in (sys.argv[1:] + ["20000", "20"][len(sys.argv) - 1 :]))
    with tempfile.TemporaryDirectory() as place:
        tenth, every, whole = Path(place) / "tenth", Path(place) / "every", Path(place) / "whole"
        for folder in (tenth, every, whole):
            folder.mkdir()
        few = seconds_per_part(tenth, count // 10, size)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        many = seconds_per_part(every, count, size)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        of_rows = seconds_per_part(whole, 8, WHOLE)
        manifest = sum(path.stat().st_size for path in whole.glob("*.json")) / 8 / WHOLE
    print(f"ms a part: {count // 10:,} parts, {count:,} parts (times), and 8 parts of {WHOLE:,} rows")
    for name, value in many.items():
        times = value / few[name]
        print(f"  {name:<20} {few[name] * 1e3:8.3f} {value * 1e3:8.3f} ({times:.2f}) {of_rows[name] * 1e3:10.1f}")
    print(f"peak memory {before:.0f} MiB after {count // 10:,} parts, {after:.0f} MiB after {count:,}")
    hours = sum(of_rows[name] for name in ("write", "read")) * count / 3600
    total = count * WHOLE
    print(
        f"a manifest has {manifest:.0f} bytes a row: {manifest * total / 1e9:.0f} GB for {total:,} rows (extrapolated)"
    )
    print(f"extrapolated: {hours:.1f} h to write the parts and to read their results")
    grown = [name for name in many if many[name] * count > 1 and many[name] > GROWS * few[name]]
    print(f"grows faster than the work: {', '.join(grown)}" if grown else "nothing grows faster than the work")
    return 1 if grown else 0


if __name__ == "__main__":
    raise SystemExit(main())
