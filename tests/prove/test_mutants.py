"""A hundred thousand damaged files, a process a core: as tests/eval/test_mutants.py, which has the cases."""

import os
from concurrent.futures import ProcessPoolExecutor

from tests.eval.test_mutants import held

COUNT, PART = 100_000, 2_500


def test_a_hundred_thousand_mutants_decode_or_are_refused() -> None:
    parts = [range(start, start + PART) for start in range(0, COUNT, PART)]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        told = list(pool.map(held, parts))
    assert sum(part.total() for part in told) == COUNT
    decoded = sum(part["decoded"] for part in told)
    print(f"{decoded} of {COUNT} decoded, the rest was refused")
    assert COUNT / 10 < decoded < COUNT * 0.8
