"""A dry run says what would happen and writes nothing; licences that are unclear must be accepted by name."""

import shutil
import time
import weakref
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from peft import LoraConfig
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from stylegate import files, hub
from stylegate.config import Config
from stylegate.families import FAMILIES
from tests.conftest import FAST, FAST_ALL_LAYERS
from train import dryrun, loop, optimizers, prepare


def test_dry_run_says_what_would_happen_and_writes_nothing(run) -> None:
    before = set(files.RUNS.glob("*"))
    code, text = run("train", "brand=neon", *FAST_ALL_LAYERS, "name=dry", "dry_run=true", "train.max_steps=400")
    assert code == 0 and text.strip().splitlines()[-1] == "dry run: no problems; nothing was written"
    assert "licence apache-2.0" in text and "32 pictures, 32 views in 1 shape; each seen 25 times" in text
    assert set(files.RUNS.glob("*")) == before
    assert "0.0 TFLOP of 0 evaluations: of the order of" in text, "num_samples is 0"
    code, text = run("train", "brand=neon", "name=dry", "dry_run=true", "train.max_steps=1")
    assert "of 5 evaluations" in text and " 0 min" not in text and " 0 s" not in text

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


def test_a_dry_run_tells_all_problems_of_all_that_a_run_reads(run, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(optimizers.EXTRAS, "adamw8bit", ("no_such_package.optim", "AdamW8bit"))
    words = [f"brand={tmp_path}", f"base={tmp_path}", "policy=nosuch", "encoder=nosuch", "train.optimizer=adamw8bit"]
    code, text = run("train", *words, "dry_run=true")
    assert code == 2 and "Traceback" not in text
    for told in (
        "brand.yaml is missing",
        "not a diffusers pipeline",
        "policy=nosuch",
        "encoder=nosuch",
        "no_such_package",
    ):
        assert told in text, told


@pytest.mark.parametrize("dry", ["true", "false"])
def test_sizes_that_the_base_cannot_halve_are_refused_before_anything_is_encoded(run, dry: str) -> None:
    words = ["brand=neon", *FAST, "name=odd", f"dry_run={dry}", "train.buckets=false", "train.resolutions=[64,72]"]
    code, text = run("train", *words, "family.resolution=40")
    assert code == 2 and "family.resolution=40" in text and "train.resolutions=72" in text and "multiple of" in text


def test_a_dry_run_touches_no_accelerator(run, monkeypatch: pytest.MonkeyPatch) -> None:
    def touched(*_: object, **__: object) -> None:
        raise AssertionError("an accelerator was asked for")

    for name in ("_lazy_init", "is_available", "device_count"):
        monkeypatch.setattr(torch.cuda, name, touched)
    monkeypatch.setattr(loop, "Accelerator", touched)
    assert run("train", "brand=neon", *FAST, "dry_run=true", "hardware.device=cuda")[0] == 0


def test_a_base_of_the_hub_at_a_revision_is_read_from_the_cache_when_offline(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's own layout; the dry run needs no weights, the run does."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    commit = "0123456789" * 4
    snapshot = tmp_path / "models--acme--tiny" / "snapshots" / commit
    shutil.copytree(files.MODELS / "miniature" / "sd", snapshot)
    (snapshot / "README.md").write_text("---\nlicense: mit\n---\n")
    refs = tmp_path / "models--acme--tiny" / "refs"
    refs.mkdir()
    (refs / "v1").write_text(commit)
    words = ["brand=neon", *FAST, "name=hub", "train.max_steps=1"]
    code, text = run("train", *words, "base=acme/tiny@v1")
    assert code == 0 and "LoRA: " in text
    (snapshot / "LICENSE.md").write_text("what other programs fetch later")
    (snapshot / "unet" / "generation_config.json").write_text("{}")
    shutil.copy(snapshot / "unet" / "config.json", snapshot / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    code, text = run("train", *words, "base=acme/tiny@v1")
    assert code == 0 and "All 1 steps were done before" in text
    for path in snapshot.rglob("*.safetensors"):
        path.unlink()
    code, text = run("train", *words, "base=acme/tiny@v1", "dry_run=true")
    assert code == 0 and "licence mit" in text
    code, text = run("train", *words, "base=acme/tiny@v1")
    assert code == 2 and "Traceback" not in text and "acme--tiny" in text
    code, text = run("train", *words, "base=acme/tiny@v2", "dry_run=true")
    assert code == 2 and "base=acme/tiny@v2: neither a folder nor a hub model" in text


@pytest.mark.parametrize(
    "words", [["check", "brand=hub:acme/nosuch"], ["train", "brand=neon", "base=acme/nosuch", "dry_run=true"]]
)
def test_a_hub_that_does_not_answer_is_asked_once(run, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    """Its clients would try again for up to a minute. Nothing listens at this address."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    hub.go_offline_if_hub_unreachable.cache_clear()
    began = time.perf_counter()
    code, text = run(*words)
    assert code == 2 and "127.0.0.1:9 does not answer" in text and "Retrying" not in text
    assert "hf download NAME" in text and time.perf_counter() - began < 20, "seconds"
    assert constants.HF_HUB_OFFLINE and not hub.go_offline_if_hub_unreachable(), "it is not asked again"


class Live(TorchDispatchMode):
    """The most bytes that operations' results held at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.most = 0, 0
        self.known: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            storage = tensor.untyped_storage() if isinstance(tensor, torch.Tensor) else None
            if storage is not None and id(storage) not in self.known:
                self.hold(storage)
        return made

    def hold(self, storage: torch.UntypedStorage) -> None:
        number, size = id(storage), storage.nbytes()

        def gone(_: object) -> None:
            self.now -= size
            del self.known[number]

        self.known[number] = weakref.ref(storage, gone)
        self.now += size
        self.most = max(self.most, self.now)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_memory_of_activations_is_of_the_size_that_a_step_holds(checkpointing: bool) -> None:
    models = FAMILIES["sd"].load("miniature", torch.device("cpu"), torch.float32)
    prepare.add_lora(models, FAMILIES["sd"], Config())
    sketch = FAMILIES["sd"].weightless_model(FAMILIES["sd"].base_folder("miniature"))
    sketch.denoiser.add_adapter(LoraConfig(r=16, target_modules=FAMILIES["sd"].lora_targets(Config().lora.targets)))
    _, numbers = dryrun.num_forward_operations_and_activations(
        sketch.denoiser, sketch.example_inputs(4, 64, 64), checkpointing
    )
    if checkpointing:
        models.denoiser.enable_gradient_checkpointing()  # type: ignore[operator]
    models.denoiser.train()
    given = {k: torch.zeros(v.shape) for k, v in sketch.example_inputs(4, 64, 64).items()}
    with Live() as live:
        models.denoiser(**given).sample.sum().backward()
    assert 0.5 <= numbers * 4 / live.most <= 2, f"{numbers * 4 / 1e6:.0f} MB estimated, {live.most / 1e6:.0f} held"


def test_a_disk_that_is_too_small_is_said(run, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(10**9, 10**9, 10**6))
    code, text = run("train", "brand=neon", "dry_run=true")
    assert code == 2 and "has 0.0 GB free, the run needs about 0.1 GB" in text


def test_the_work_of_evaluations_is_what_a_run_draws() -> None:
    """Slow and obvious: denoiser passes, one picture at a time."""
    train, generate = Config().train, Config().generate
    train.num_samples, train.max_steps, train.evaluate_every, train.scales = 6, 250, 100, [0.8, 1.0, 1.2]
    train.batch_size, train.evaluation_share, generate.num_inference_steps = 8, 1.0, 10
    train.preview_steps = 4
    whole = 2 * 4 * (6 + 4 + 4) + 5 * 3  # with guidance; with, without, unrelated; losses of 3 pictures at 5 levels
    strength, handed_out = 2 * 4 * 6, 2 * 10 * 6
    found, count = dryrun.flops_and_number_of_evaluations(train, generate, 3, 1e9, 8.0)
    assert found == 4 * whole + 2 * strength + handed_out
    assert count == 7, "steps 0, 100, 200, 250, two more strengths, what is handed out"
    train.preview_steps = 10
    found, count = dryrun.flops_and_number_of_evaluations(train, generate, 3, 1e9, 8.0)
    assert found == 4 * (2 * 10 * 14 + 15) + 2 * 2 * 10 * 6 and count == 6, "no picture is drawn twice"
    train.evaluation_share = 0.3
    assert dryrun.flops_and_number_of_evaluations(train, generate, 3, 10.0, 8.0)[1] == 4, (
        "those on the way would take too long"
    )
    assert dryrun.flops_and_number_of_evaluations(train, generate, 0, 1e9, 8.0) == (0, 0), "there is nothing to draw"


def test_cost_counts_multiplications_and_what_layers_put_out() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 4))
        flops, kept = dryrun.num_forward_operations_and_activations(
            model, {"input": torch.zeros(3, 6)}, checkpointing=False
        )
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


def test_a_card_in_the_folder_above_is_not_of_this_base(run, base: Path) -> None:
    (base.parent / "README.md").write_text("---\nlicense: mit\n---\n")
    (base / "README.md").unlink(missing_ok=True)
    words = ["brand=neon", f"base={base}", "dry_run=true"]
    assert run("train", *words)[0] == 2
    code, text = run("train", *words, "accept_licence=other, unknown")
    assert code == 0 and "licence unknown" in text


def test_a_clear_licence_needs_no_word(run, base: Path) -> None:
    (base / "README.md").write_text("---\nlicense: openrail++\ntags: [x]\n---\n# A base\n")
    code, text = run("train", "brand=neon", f"base={base}", "dry_run=true")
    assert code == 0 and "licence openrail++" in text
