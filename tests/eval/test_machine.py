"""60 sequences of verbs and meddling against the oracle of tests/machine.py; `make prove` tries 10,000."""

from tests.bench.mutate_gate import wrong_names
from tests.machine import GateMachine, search


def test_nothing_talks_the_gate_out_of_it() -> None:
    search(25)
    seen = GateMachine.counts
    assert any(what == "package" for what, _ in seen) and seen["certify", 0] and seen["calibrate", 0], seen


def test_each_fix_that_the_machine_is_tried_without_has_its_right_name() -> None:
    assert not wrong_names()
