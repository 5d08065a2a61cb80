"""10,000 sequences of verbs and meddling, a process a core: as tests/eval/test_machine.py, with other seeds."""

import os
from concurrent.futures import ProcessPoolExecutor

from tests.machine import search

COUNT, PART = 10_000, 250


def test_nothing_talks_the_gate_out_of_it_in_ten_thousand_sequences() -> None:
    with ProcessPoolExecutor(os.cpu_count()) as processes:
        for _ in processes.map(search, [PART] * (COUNT // PART), range(1, COUNT // PART + 1)):
            pass
