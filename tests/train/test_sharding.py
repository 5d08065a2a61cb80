"""A base whose frozen weights are split among processes trains, draws, saves and resumes as a whole one does."""

import json
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from diffusers.training_utils import cast_training_params
from peft import LoraConfig
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor

from stylegate import cache, files
from stylegate.families import FAMILIES
from tests.conftest import FAST, FAST_ALL_LAYERS, exit_code, forks, merged
from tests.tiny import BASES
from train import encoded, loop, prepare, sharding

CPU = torch.device("cpu")


def held_share(denoiser: torch.nn.Module) -> float:
    """The share of the base's bytes that this process holds."""
    frozen = [p for p in denoiser.parameters() if not p.requires_grad]
    held = sum((p.to_local() if isinstance(p, DTensor) else p).nbytes for p in frozen)
    return held / sum(p.nbytes for p in frozen)


def watched_training(place: Path) -> Callable[[], None]:
    """For forks: after the last step each process writes which share of the base it holds into its file in `place`.

    One that waits two minutes for the other gives up.
    """

    def watch() -> None:
        loop.PATIENCE = prepare.PATIENCE = timedelta(minutes=2)
        train_steps = loop.train_steps

        def watched(run: Any, *given: Any) -> int:
            done = train_steps(run, *given)
            (place / os.environ["RANK"]).write_text(f"{held_share(run.models.denoiser)}")
            return done

        loop.train_steps = watched

    return watch


def train_in_two(name: str, place: Path, *words: str) -> Path:
    """Train on a tiny base of FLUX's architecture with two processes. Returns the run's directory.

    The base is split if `words` say so, and each process then holds half of it.
    """
    if not (base := place / "base").exists():
        BASES["flux"](base)
    told = ["family=flux", f"base={base}", "family.resolution=64", "encoder=miniature", "brand=small", f"name={name}"]
    told += ["train.scales=[1]", "generate.batch_size=1", "train.accumulation=2", "train.ema_decay=0.9"]
    said = place / "said.txt"
    both = forks(
        "train", *merged(*FAST_ALL_LAYERS, *told, *words), count=2, output=said, before=watched_training(place)
    )
    assert [exit_code(pid) for pid in both] == [0, 0], said.read_text()
    shares = [float((place / str(rank)).read_text()) for rank in range(2)]
    assert shares == [pytest.approx(0.5, abs=0.05) if "hardware.shard=true" in words else 1.0] * 2
    (found,) = files.RUNS.glob(f"{name}-flux-*")
    return found


def test_a_split_base_trains_the_lora_of_a_whole_one_and_resumes(small_brand: Path, tmp_path: Path) -> None:
    """LoRA, moments and averaged weights bit for bit; the last start also draws on the split base.

    Of three pictures one process has two and the other one: with unequal numbers of calls they would wait for ever.
    tests/prove/test_sharding_prove.py compares the pictures.
    """
    whole = train_in_two("whole", tmp_path, "train.max_steps=2")
    split = ["hardware.shard=true", "hardware.gradient_checkpointing=true"]
    train_in_two("split", tmp_path, *split, "train.max_steps=1")
    resumed = train_in_two("split", tmp_path, *split, "train.max_steps=2", "train.num_samples=1")
    for part in ("adapter", "optimizer", "average"):
        one, other = (load_file(d / "state" / "step-000002" / f"{part}.safetensors") for d in (whole, resumed))
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one), part
    result = json.loads((resumed / "samples" / "step-000002" / "result.json").read_text())
    assert len(result["eval_losses"]) == 5 and len(list(resumed.glob("samples/step-000002/*/0.png"))) == 3
    assert {p.name for p in (resumed / "lora").iterdir()} >= {"split.safetensors", "split.comfyui.safetensors"}


def gradients(family: str, base: Path, split: bool) -> tuple[dict[str, torch.Tensor], float]:
    """Of one step on fixed numbers, after a call without gradients: those of the LoRA, and the share of the base that
    is held.
    """
    functions, models = FAMILIES[family], FAMILIES[family].load(str(base), CPU, torch.float32)
    torch.manual_seed(0)
    told: dict[str, Any] = {"init_lora_weights": False, "exclude_modules": list(models.unused_layers) or None}
    denoiser: Any = models.denoiser
    denoiser.add_adapter(LoraConfig(r=2, target_modules=functions.lora_targets(["attention", "feed_forward"]), **told))
    cast_training_params(denoiser, torch.float32)
    if split:
        sharding.shard_base(denoiser, CPU, timedelta(minutes=2))
    with torch.no_grad():
        pixels = torch.zeros(2, 4 if models.draws_alpha else 3, 64, 64)
        shape = functions.encode_to_latent_mean_and_deviation(models, pixels)[0].shape
        conditions = functions.encode_prompts(models, ["a red cat", "a dog"])
    noisy = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    for context in (torch.no_grad(), torch.enable_grad()):
        with context:
            predicted = functions.predict(models, denoiser, noisy, torch.tensor([3, 500]), conditions)
    predicted.square().mean().backward()
    found = {name: p.grad for name, p in denoiser.named_parameters() if p.requires_grad and p.grad is not None}
    return found, held_share(denoiser)


def compared_gradients(family: str, base: Path, place: Path) -> Callable[[], None]:
    """For forks: each process writes into its file in `place` how far the gradients of a split base are from those of a
    whole one, the share that it holds, and what the mean of the processes' ranks as gradients is.
    """

    def compare() -> None:
        accelerator = Accelerator(cpu=True)
        (whole, _), (split, share) = (gradients(family, base, split) for split in (False, True))
        assert whole.keys() == split.keys() and len(whole) > 10
        apart = max(float((whole[n] - split[n]).abs().max() / whole[n].abs().max()) for n in whole)
        ranks = [torch.zeros(shape, requires_grad=True) for shape in ((2, 3), (4,))]
        for parameter in ranks:
            parameter.grad = torch.full_like(parameter, accelerator.process_index)
        sharding.average_gradients(ranks, accelerator)
        means = [[*p.grad.shape, p.grad.unique().item()] for p in ranks if p.grad is not None]
        found = {"apart": apart, "share": share, "means": means}
        (place / str(accelerator.process_index)).write_text(json.dumps(found))

    return compare


def test_each_machine_holds_one_base_and_gradients_are_averaged_over_all(tmp_path: Path) -> None:
    """Four processes, two on each of two machines, as the launcher would say."""
    base = BASES["flux"](tmp_path / "base")
    compare = compared_gradients("flux", base, tmp_path)

    def on_two_machines() -> None:
        os.environ["LOCAL_WORLD_SIZE"] = "2"
        compare()

    said = tmp_path / "said.txt"
    four = forks("train", "--help", count=4, output=said, before=on_two_machines)
    assert [exit_code(pid) for pid in four] == [0] * 4, said.read_text()
    for rank in range(4):
        found = json.loads((tmp_path / str(rank)).read_text())
        assert found["share"] == pytest.approx(0.5, abs=0.05) and found["apart"] <= 1e-6
        assert found["means"] == [[2, 3, 1.5], [4, 1.5]]


@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [0, 1, 4, 5])
def test_shares_are_equal_and_each_piece_of_work_is_done_once(count: int, world: int) -> None:
    ranks: list[Any] = [SimpleNamespace(process_index=rank, num_processes=world) for rank in range(world)]
    shares = [sharding.padded_work_indices_of_process(count, accelerator) for accelerator in ranks]
    assert len({len(share) for share in shares}) == 1
    assert sorted(i for share in shares for i in share if i is not None) == list(range(count))


def test_what_cannot_be_split_is_refused_before_any_work(
    run, small_brand: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["brand=small", "name=refused", *FAST_ALL_LAYERS, "train.max_steps=1"]
    told = ["hardware.nf4=true", "hardware.compile=true"]
    code, text = run("train", *words, "hardware.shard=true", *told)
    assert code == 2 and all(f"hardware.shard=true: not with {word}" in text for word in told)
    code, text = run("train", *words, "hardware.shard=true")
    assert code == 2 and "among processes, and there is one" in text and "two_cards.yaml" in text
    for name, kind in sharding.OTHER_KINDS.items():
        monkeypatch.setenv(name, "true")
        code, text = run("train", *words)
        assert code == 2 and f"asks for {kind}, which" in text and "hardware.shard=true" in text
        monkeypatch.delenv(name)
    assert not list(files.RUNS.glob("refused-*"))


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads Linux's list of mapped files")
def test_processes_of_a_machine_share_the_loaded_weights_as_pages_of_the_files(tmp_path: Path) -> None:
    """So that eight processes do not need eight times the base in main memory, where the files have its precision."""
    base = BASES["flux"](tmp_path / "base")
    for dtype in (torch.float32, torch.bfloat16):  # the files are in fp32
        denoiser = FAMILIES["flux"].load(str(base), CPU, dtype).denoiser
        lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
        mapped = [[int(end, 16) for end in line[0].split("-")] for line in lines if line[-1].endswith(".safetensors")]
        held = [any(start <= p.data_ptr() < end for start, end in mapped) for p in denoiser.parameters()]
        assert set(held) == {dtype == torch.float32}


@pytest.mark.parametrize("place", ["checkpoints", "cache"])
def test_machines_that_do_not_see_one_disk_are_refused_together(small_brand: Path, tmp_path: Path, place: str) -> None:
    """The second process is on a machine with a folder of its own; neither begins, and neither waits for ever."""

    def on_another_machine() -> None:
        prepare.DISK_PATIENCE_S = 0
        if os.environ["RANK"] == "1" and place == "checkpoints":
            files.RUNS = tmp_path
        elif os.environ["RANK"] == "1":
            encoded.ArrayCache = lambda: cache.ArrayCache(tmp_path / "own.sqlite")

    said, words = tmp_path / "said.txt", ["brand=small", f"name=apart-{place}", *FAST, "train.max_steps=1"]
    both = forks("train", *words, count=2, output=said, before=on_another_machine)
    assert [exit_code(pid) for pid in both] == [2, 2], said.read_text()
    assert "do not see what the others write" in said.read_text() and "Traceback" not in said.read_text()
    assert not list(files.RUNS.glob(f"apart-{place}-*/stats.jsonl"))
