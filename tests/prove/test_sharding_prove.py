"""Every family's denoiser, split between two processes: gradients of the LoRA and pictures are those of a whole one."""

import json
from pathlib import Path

import pytest

from tests.conftest import exit_code, forks
from tests.tiny import BASES
from tests.train.test_sharding import compared_gradients, train_in_two


@pytest.mark.parametrize("family", BASES)
def test_gradients_of_a_split_base_are_those_of_a_whole_one(family: str, tmp_path: Path) -> None:
    """Torch warns that an in-place operation on what a block returns would lose its gradients silently."""
    compare = compared_gradients(family, BASES[family](tmp_path / "base"), tmp_path)
    said = tmp_path / "said.txt"
    both = forks("train", "--help", count=2, output=said, before=compare)
    assert [exit_code(pid) for pid in both] == [0, 0], said.read_text()
    for rank in range(2):
        found = json.loads((tmp_path / str(rank)).read_text())
        assert found["share"] == pytest.approx(0.5, abs=0.05)
        assert found["apart"] <= (1e-5 if family == "sdxl" else 0)  # its convolutions round otherwise


def test_a_split_base_draws_the_pictures_and_losses_of_a_whole_one(small_brand: Path, tmp_path: Path) -> None:
    """Pictures of the base alone are the same bytes; where the LoRA draws, a whole base has it merged, and rounds."""
    words = ["train.max_steps=2", "train.num_samples=3"]
    both = [train_in_two(f"drawn-{w}", tmp_path, *words, f"hardware.shard={w}") for w in ("false", "true")]
    for place in ("with", "without", "unrelated"):
        for number in range(3):
            one, other = (run / "samples" / "step-000000" / place / f"{number}.png" for run in both)
            assert one.read_bytes() == other.read_bytes()
    one, other = (json.loads((run / "samples" / "step-000002" / "result.json").read_text()) for run in both)
    assert one["eval_losses"] == pytest.approx(other["eval_losses"], rel=1e-5)
