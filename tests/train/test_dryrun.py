"""A dry run says what would happen and writes nothing; licences that are unclear must be accepted by name."""

import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from torch import nn

from stylegate import files
from stylegate.config import Config
from stylegate.families import FAMILIES
from tests.conftest import FAST
from train import dryrun, prepare


def test_dry_run_says_what_would_happen_and_writes_nothing(run) -> None:
    before = set(files.RUNS.glob("*"))
    code, text = run("train", "brand=neon", *FAST, "name=dry", "dry_run=true", "train.max_steps=400")
    assert code == 0 and text.strip().splitlines()[-1] == "dry run: no problems; nothing was written"
    assert "licence apache-2.0" in text and "32 pictures, 32 views in 1 shapes; each seen 25 times" in text
    assert set(files.RUNS.glob("*")) == before

    models = FAMILIES["sd"].load("miniature", torch.device("cpu"), torch.float32)
    frozen = sum(p.numel() for p in models.denoiser.parameters())
    prepare.add_lora(models, FAMILIES["sd"], Config())
    trained = sum(p.numel() for p in models.denoiser.parameters() if p.requires_grad)
    assert f"{frozen / 1e6:.1f} M parameters" in text and f"LoRA      {trained / 1e6:.2f} M" in text


def test_a_dry_run_meets_the_errors_of_the_run(run, tmp_path: Path) -> None:
    code, text = run("train", f"brand={tmp_path}", "dry_run=true")
    assert code == 2 and "Traceback" not in text
    code, text = run("train", "brand=neon", f"base={tmp_path}", "dry_run=true")
    assert code == 2 and "is not a diffusers pipeline" in text


def test_a_disk_that_is_too_small_is_said(run, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(10**9, 10**9, 10**6))
    code, text = run("train", "brand=neon", "dry_run=true")
    assert code == 2 and "has 0.0 GB free, the run needs about 0.1 GB" in text


def test_cost_counts_multiplications_and_what_layers_put_out() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 4))
        flops, kept = dryrun.cost(model, {"input": torch.zeros(3, 6)})
    assert flops == 2 * 3 * (6 * 10 + 10 * 4) and kept == 3 * (10 + 10 + 4)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    shutil.copytree(files.MODELS / "miniature" / "sd", tmp_path / "models" / "mine")
    return tmp_path / "models" / "mine"


@pytest.mark.parametrize(
    ("card", "named"),
    [("", "unknown"), ("---\nlicense: cc-by-nc-4.0\n---\n", "cc-by-nc-4.0"), ("---\nlicense: other\n---\n", "other")],
)
def test_an_unclear_licence_is_accepted_by_name_or_not_at_all(run, base: Path, card: str, named: str) -> None:
    (base / "README.md").write_text(card)
    words = ["brand=neon", f"base={base}", "dry_run=true"]
    code, text = run("train", *words)
    assert code == 2 and f"accept_licence={named}" in text
    assert run("train", *words, "accept_licence=mit")[0] == 2
    code, text = run("train", *words, f"accept_licence={named}")
    assert code == 0 and f"licence {named}" in text


def test_a_clear_licence_needs_no_word(run, base: Path) -> None:
    (base / "README.md").write_text("---\nlicense: openrail++\ntags: [x]\n---\n# A base\n")
    code, text = run("train", "brand=neon", f"base={base}", "dry_run=true")
    assert code == 0 and "licence openrail++" in text
