"""Duplicates among a million signatures on disk: memory, recall, and time beside a bare blocked product.

    python -m tests.bench.duplicates_million [COUNT] [COPIES]     1,000,000 and 2,048; 12.3 GB of disk, 10 to 20 minutes

The signatures are mixtures of two of riso's pictures, moved and recoloured: denser than any true lot. COPIES of them,
moved by up to two of 64 pixels and saved as JPEG of quality 30, are looked for among all. Found is a copy whose nearest
picture is at least as near as its source. Ordinary pictures are held against brute force: every shift of every pair
with the first 50,000. The bare product is of the same pairs, as thumbnails of 768 numbers, in blocks, by one thread a
core. All pairs of the lot would take about COUNT / COPIES / 2 times as long as the pairs that are run: that figure is
extrapolated. Exit 1 if a line is missed.
"""

import io
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stylegate import brandset, nearest, similarity

MEMORY, RECALL, SLOWER = 4.0, 0.999, 6.0  # GiB of the process's own memory; share of copies; times a bare product
SHOWN, AMONG, NEAR = 64, 50_000, 0.8  # ordinary pictures, and those that brute force compares them with; a duplicate


def write_signatures(path: Path, count: int) -> NDArray[np.uint8]:
    """Mixtures of two pictures of the brand, as a file of uint8 [count, 64, 64, 3] that is mapped."""
    shipped = sorted((brandset.brand_folder("riso") / "train").glob("*.png"))
    source = np.stack([similarity.signature_of_picture(Image.open(p).convert("RGB")) for p in shipped])
    out = np.memmap(path, np.uint8, "w+", shape=(count, 64, 64, 3))

    def fill(start: int) -> None:
        random = np.random.default_rng(start)
        for i in range(start, min(start + 1000, count)):
            a, b, share = *random.integers(0, len(source), 2), int(random.integers(77, 180))
            other = np.roll(source[b], random.integers(-20, 20, 2), (0, 1))
            mixed = (source[a].astype(np.uint16) * share + other.astype(np.uint16) * (256 - share)) >> 8
            out[i] = (mixed * random.integers(180, 257, 3, dtype=np.uint16)) >> 8

    with ThreadPoolExecutor() as pool:
        list(pool.map(fill, range(0, count, 1000)))
    out.flush()
    return np.memmap(path, np.uint8, "r", shape=(count, 64, 64, 3))


def altered(signature: NDArray[np.uint8], move: NDArray) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    Image.fromarray(np.roll(signature, tuple(move), (0, 1))).save(buffer, "JPEG", quality=30)
    return np.asarray(Image.open(io.BytesIO(buffer.getvalue())))


class PeakOfOwnMemory:
    """The largest RssAnon of this process while it lasts, in GiB: pages of mapped files are the system's to drop."""

    def __enter__(self) -> "PeakOfOwnMemory":
        self.gib, self.going = 0.0, True
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def watch(self) -> None:
        while self.going:
            status = Path("/proc/self/status").read_text()
            self.gib = max(self.gib, int(status.partition("RssAnon:")[2].split()[0]) / 2**20)
            time.sleep(0.05)

    def __exit__(self, *_: object) -> None:
        self.going = False
        self.thread.join()


def largest_by_brute_force(some: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.float64]:
    """[n] the largest correlation over all shifts of up to two pixels to one of the others, in blocks."""
    best = np.full(len(some), -1.0)

    def planes(signatures: NDArray[np.uint8]) -> NDArray[np.float32]:
        found = signatures.transpose(0, 3, 1, 2).astype(np.float32)
        return found - found.mean((2, 3), keepdims=True)

    shown = planes(some)
    for start in range(0, len(others), 2000):
        block = planes(others[start : start + 2000])
        for down, right in product(range(-2, 3), repeat=2):
            one, other = (
                p[:, :, max(y, 0) : 64 + min(y, 0), max(x, 0) : 64 + min(x, 0)].reshape(len(p), -1)
                for p, y, x in ((shown, down, right), (block, -down, -right))
            )
            lengths = np.linalg.norm(one, axis=1)[:, None] * np.linalg.norm(other, axis=1)
            best = np.maximum(best, (one @ other.T / np.maximum(lengths, 1)).max(1))
    return best


def bare_product(queries: NDArray[np.float32], keys: NDArray[np.float16]) -> float:
    """Seconds that the products alone take; making blocks of single precision is not counted."""
    taken = 0.0
    for start in range(0, len(keys), nearest.TILE):
        block = keys[start : start + nearest.TILE].astype(np.float32)
        taken += seconds(
            lambda block=block: list(nearest.map_blocks_in_threads(lambda r: queries[r] @ block.T, len(queries)))
        )
    return taken


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> int:
    count, copies = (int(word) for word in (sys.argv[1:] + ["1000000", "2048"][len(sys.argv) - 1 :]))
    missed, random = [], np.random.default_rng(1)

    def told(title: str, value: float, holds: bool, wanted: str) -> None:
        print(f"{title}: {value:.4g} (wanted {wanted})", flush=True)
        missed.extend([] if holds else [title])

    with tempfile.TemporaryDirectory() as place:
        them = write_signatures(Path(place) / "signatures", count)
        sources = np.sort(random.choice(count, copies, replace=False))
        shown = np.stack([altered(them[i], random.integers(-2, 3, 2)) for i in sources])
        with PeakOfOwnMemory() as peak:
            building = seconds(lambda: nearest.thumbnails_in_given_order(them, np.arange(count)))
            began = time.perf_counter()
            found, _ = nearest.nearest_by_likeness(shown, them)
            taken = time.perf_counter() - began
        of_sources = similarity.likeness_of_pairs(shown, np.stack([np.arange(copies), sources], 1), them)
        told(f"{count:,}: own memory in GiB at most", peak.gib, peak.gib < MEMORY, f"< {MEMORY:g}")
        recall = float((found >= of_sources - 1e-5).mean())
        told(f"{copies} moved copies, found", recall, recall >= RECALL, f">= {RECALL}")
        keys = nearest.thumbnails_in_given_order(them, np.arange(count)).fine
        bare = bare_product(similarity.centred_thumbnails(shown), keys)
        ratio = (taken - building) / bare
        told("times a bare product of the same pairs", ratio, ratio <= SLOWER, f"<= {SLOWER:g}")
        print(f"  bare {bare:.1f} s, ours {taken - building:.1f} s; thumbnails of all, made once: {building:.1f} s")
        whole = building + (taken - building) * count / copies / 2
        print(
            f"  all pairs of the lot, extrapolated: {whole / 3600:.2f} h; bare {bare * count / copies / 2 / 3600:.2f} h"
        )
        del keys
        some, among = them[count - SHOWN :], them[: min(AMONG, count - SHOWN)]
        best = largest_by_brute_force(some, among)
        ours, _ = nearest.nearest_by_likeness(some, among)
        equal, near = ours >= best - 1e-4, best > NEAR
        print(
            f"  {SHOWN} ordinary pictures among {len(among):,}, by brute force: nearest found for {equal.mean():.3f}; "
            f"of {near.sum()} nearer than {NEAR}: {equal[near].mean() if near.any() else float('nan'):.3f}"
        )
    print("\n".join(["missed:", *missed]) if missed else "every line holds")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
