"""Training: it learns, it resumes exactly, it refuses another run's directory, it stops on nonsense."""

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file, save
from torch.overrides import TorchFunctionMode

from stylegate import files, hardware
from stylegate.cli import main
from stylegate.config import Config
from stylegate.configgroups import HardwareConfig, TrainConfig
from stylegate.rundirectory import run_directory_name
from tests.conftest import FAST, FAST_ALL_LAYERS, command, exit_code, forks, merged
from train import loop, optimizers, prepare
from train.record import CLOCK
from train.step import losses_of_microbatch

CONFIG = files.ROOT / "conf" / "hardware" / "accelerate" / "two_cards.yaml"
CPU = os.environ | {"ACCELERATE_USE_CPU": "true"}
LAUNCH = ["-m", "accelerate.commands.launch", "--config_file", str(CONFIG)]


def directory(name: str) -> Path:
    (found,) = files.RUNS.glob(f"{name}-sd-*")
    return found


def lora_bytes(name: str) -> bytes:
    """The tensors of the LoRA handed out; the header before them names the run."""
    content = (directory(name) / "lora" / f"{name}.safetensors").read_bytes()
    return content[8 + int.from_bytes(content[:8], "little") :]


def state_tensors(name: str, step: int) -> dict[str, torch.Tensor]:
    return load_file(directory(name) / "state" / f"step-{step:06d}" / "optimizer.safetensors")


def test_loss_falls_and_the_samples_change(run, small_brand: Path) -> None:
    words = [
        "brand=small",
        "name=learns",
        *FAST_ALL_LAYERS,
        "train.max_steps=12",
        "train.num_samples=1",
        "train.evaluate_every=12",
        "train.scales=[1]",
        "train.warmup_steps=1",
    ]
    code, text = run("train", *words, "train.learning_rate=5e-3")
    assert code == 0 and "LoRA: " in text.splitlines()[-1]
    rows = files.read_jsonl(directory("learns") / "stats.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 13))
    samples = directory("learns") / "samples"
    losses = [json.loads((samples / f"step-{s:06d}" / "result.json").read_text())["eval_loss"] for s in (0, 12)]
    assert losses[1] < 0.75 * losses[0], "of the same pictures, noise and levels"
    before, after = (np.asarray(Image.open(samples / f"step-{s:06d}" / "with" / "0.png"), int) for s in (0, 12))
    assert np.abs(before - after).mean() > 3
    assert Image.open(samples / "grid.png").width > 2 * 128


def test_finished_run_is_left_alone(run, trained: list[str]) -> None:
    before = lora_bytes("small")
    code, text = run("train", *trained)
    assert code == 0 and "All 4 steps were done before" in text and lora_bytes("small") == before


def test_run_record_is_whole(trained: list[str]) -> None:
    record = json.loads((directory("small") / "run.json").read_text())
    assert record["facts"].keys() == {"data", "base", "processes", "precision", "threads", "compile"}
    assert record["config"]["lora"]["rank"] == 16 and record["facts"]["processes"] == 1
    assert not list(directory("small").rglob("*.pkl")) and not list(directory("small").rglob("*.bin"))


def test_training_on_resumes_exactly(run, small_brand: Path) -> None:
    """2 steps and then 4 are the bytes of 4 at once: adapter, optimizer, stats. Strays beside the states stay there."""
    base = ["brand=small", *FAST, "train.checkpoint_every=1"]
    assert run("train", *base, "name=whole", "train.max_steps=4")[0] == 0
    assert run("train", *base, "name=parts", "train.max_steps=2")[0] == 0
    strays = [directory("parts") / "state" / name for name in ("step-000009.bak", "step-000003 (copy)", "a.bak")]
    for path in strays:
        path.write_bytes(b"x")
    code, text = run("train", *base, "name=parts", "train.max_steps=4")
    assert code == 0 and "resumed at step 2" in text
    assert lora_bytes("whole") == lora_bytes("parts") and all(path.exists() for path in strays)
    one, two = state_tensors("whole", 4), state_tensors("parts", 4)
    assert one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)
    assert files.read_jsonl(directory("whole") / "stats.jsonl") == files.read_jsonl(directory("parts") / "stats.jsonl")


def tell_all(process: subprocess.Popen, with_signal: int) -> None:
    """Signal a process and all below it: a launcher's workers are in groups of their own, and would live on."""
    found = [process.pid]
    for pid in found:
        below = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout.split()
        found += map(int, below)
    for pid in found:
        with suppress(ProcessLookupError):
            os.kill(pid, with_signal)


@pytest.mark.parametrize("processes", [1, 2])
def test_sigkill_at_a_random_step_costs_nothing(run, small_brand: Path, processes: int) -> None:
    """Killed and started again, the run ends in the bytes of one that was not; the process count is asserted.

    With two passes a step, averaged weights and a cosine, which are state too. Of two processes either one is killed
    first. They are forks of this process, which has imported everything: one of its own imports for eight seconds.
    Processes of accelerate's own launcher are killed in tests/prove/test_resume.py.
    """
    words = ["brand=small", *FAST, "train.max_steps=4", "train.checkpoint_every=1", "train.accumulation=2"]
    words += ["train.ema_decay=0.9", "train.schedule=cosine", "train.shuffle_captions=true", "train.num_samples=1"]
    words += ["train.scales=[1]", "generate.num_inference_steps=1"]
    whole, killed = f"whole{processes}", f"killed{processes}"

    def finish(name: str) -> None:
        if processes == 1:
            assert run("train", *words, f"name={name}")[0] == 0
        else:
            both = forks("train", *merged(*words, f"name={name}"), count=processes)
            assert [exit_code(pid) for pid in both] == [0, 0]

    finish(whole)
    at = random.randint(1, 3)
    begun = forks("train", *merged(*words, f"name={killed}"), count=processes)
    await_step(killed, at, lambda: all(os.waitpid(pid, os.WNOHANG) == (0, 0) for pid in begun))
    random.shuffle(begun)
    for pid in begun:  # one dies, and its launcher ends the other
        os.kill(pid, signal.SIGKILL)
    assert exit_code(begun[0]) == -signal.SIGKILL and all(exit_code(pid) != 0 for pid in begun[1:])
    assert not (directory(killed) / "lora").exists()
    finish(killed)
    assert lora_bytes(whole) == lora_bytes(killed)
    record = json.loads((directory(killed) / "run.json").read_text())
    assert record["facts"]["processes"] == processes


def start(processes: int, words: list[str]) -> list[str]:
    launch = [*LAUNCH, "--main_process_port", "29618"] if processes == 2 else []
    return [command()[0], *launch, "-m", "train", *merged(*words)]


def newest(name: str) -> int:
    steps = [int(p.name[5:]) for p in files.RUNS.glob(f"{name}-sd-*/state/step-*")]
    return max(steps, default=0)


def begun(arguments: list[str], name: str, at: int) -> subprocess.Popen:
    """Started, and at least `at` steps saved."""
    process = subprocess.Popen(
        arguments, cwd=files.ROOT, env=CPU, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    await_step(name, at, lambda: process.poll() is None)
    return process


def await_step(name: str, at: int, running: Callable[[], bool]) -> None:
    """Wait until at least `at` steps are saved. Raises AssertionError if the run ends before."""
    deadline = time.monotonic() + 240
    while newest(name) < at and running() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert newest(name) >= at and running(), "it ended before it could be stopped"


def test_two_passes_give_the_mean_of_their_gradients(small_brand: Path) -> None:
    """AdamW's first moment after one step is a tenth of the gradient: compared with two passes done by hand."""
    config = Config(
        brand="small",
        name="passes",
        train=TrainConfig(max_steps=1, batch_size=2, accumulation=2, max_grad_norm=1e6, num_samples=0),
        hardware=HardwareConfig(device="cpu", precision="fp32", threads=1),
    )
    assert loop.train(config) == 0
    (place,) = files.RUNS.glob("passes-sd-*")
    moments = load_file(place / "state" / "step-000001" / "optimizer.safetensors")
    run = prepare.prepare_training_run(config, place, Accelerator(cpu=True))
    for part in range(2):
        (losses_of_microbatch(run, run.models.denoiser, part).each.mean() / 2).backward()
    parameters = [p for p in run.models.denoiser.parameters() if p.requires_grad]
    assert any(p.grad.abs().max() > 1e-6 for p in parameters if p.grad is not None)
    for i, parameter in enumerate(parameters):
        assert parameter.grad is not None
        assert torch.allclose(moments[f"{i}.exp_avg"], 0.1 * parameter.grad, rtol=1e-4, atol=1e-9)


def test_sigterm_saves_and_says_how_to_go_on(run, small_brand: Path) -> None:
    words = ["brand=small", *FAST, "name=told", "train.max_steps=10000", "train.checkpoint_every=2"]
    (pid,) = forks("train", *merged(*words, "train.evaluate_every=10000"))
    await_step("told", random.randint(1, 6), lambda: os.waitpid(pid, os.WNOHANG) == (0, 0))
    os.kill(pid, signal.SIGTERM)
    assert exit_code(pid) == 128 + signal.SIGTERM
    rows = files.read_jsonl(directory("told") / "stats.jsonl")
    assert rows[-1]["step"] == newest("told") and not (directory("told") / "lora").exists()


def test_averaged_weights_are_the_slow_average(run, small_brand: Path) -> None:
    words = ["brand=small", *FAST, "train.checkpoint_every=1", "train.keep_newest=9", "train.ema_decay=0.5"]
    assert run("train", *words, "name=mean", "train.max_steps=4")[0] == 0
    place = directory("mean") / "state"
    first = None
    for step in range(1, 5):
        adapter = load_file(place / f"step-{step:06d}" / "adapter.safetensors")
        if first is None:
            first = {k: v for k, v in adapter.items() if k.endswith("lora_B.weight")}
            slow = {k: 0.9 * v for k, v in first.items()}  # B starts at 0; the first step weighs 1 - 1/10
        else:
            decay = min(0.5, step / (9 + step))
            slow = {k: decay * v + (1 - decay) * adapter[k] for k, v in slow.items()}
    released = load_file(directory("mean") / "lora" / "mean.safetensors")
    for key, value in slow.items():
        assert torch.allclose(released[key].float(), value, atol=1e-6), key


def test_pictures_of_other_shapes_keep_them(run, tmp_path: Path, pictures_of_neon: list[Image.Image]) -> None:
    """Wide, tall and square pictures at two resolutions: said, trained, none left out."""
    source = tmp_path / "mixed"
    source.mkdir()
    for i, image in enumerate(pictures_of_neon[:24]):
        box = [(0, 0, 64, 64), (0, 10, 64, 48), (12, 0, 50, 64)][i % 3]
        image.crop(box).resize((2 * (box[2] - box[0]), 2 * (box[3] - box[1]))).save(source / f"{i}.png")
        (source / f"{i}.txt").write_text(f"creature {i}, glowing, standing, looking")
    assert run("brand", "name=mixed", f"images={source}")[0] == 0
    words = ["brand=mixed", *FAST, "train.max_steps=6", "train.resolutions=[64,96]"]
    code, text = run("train", *words, "train.shuffle_captions=true")
    assert code == 0
    for shape in ("48 x 80", "64 x 64", "80 x 48", "96 x 96"):
        assert f"bucket {shape}: " in text, text


@pytest.mark.parametrize("optimizer", ["prodigy", "adamw8bit"])
def test_other_optimizers_resume_exactly(run, small_brand: Path, optimizer: str) -> None:
    words = ["brand=small", *FAST, "train.checkpoint_every=1", f"train.optimizer={optimizer}"]
    words.append(f"train.learning_rate={1 if optimizer == 'prodigy' else 1e-3}")
    assert run("train", *words, f"name=whole-{optimizer}", "train.max_steps=3")[0] == 0
    assert run("train", *words, f"name=parts-{optimizer}", "train.max_steps=1")[0] == 0
    assert run("train", *words, f"name=parts-{optimizer}", "train.max_steps=3")[0] == 0
    assert lora_bytes(f"whole-{optimizer}") == lora_bytes(f"parts-{optimizer}")


def test_an_optimizer_that_is_not_installed_is_one_message(run, small_brand: Path, monkeypatch) -> None:
    monkeypatch.setitem(optimizers.EXTRAS, "adamw8bit", ("no_such_package.optim", "AdamW8bit"))
    code, text = run("train", "brand=small", *FAST, "name=lacking", "train.optimizer=adamw8bit")
    assert code == 2 and "needs no_such_package" in text and "[optimizers]" in text


BRIEF = merged("brand=small", *FAST, "train.max_steps=3", "train.warmup_steps=0", "train.learning_rate=1e-3")


@pytest.fixture(scope="module")
def exact(small_brand: Path) -> str:
    """The name of a run of three steps in fp32; to be read only."""
    assert main(["train", *BRIEF, "name=exact", "hardware.precision=fp32"]) == 0
    return "exact"


def test_gradient_checkpointing_gives_the_same_bytes(run, exact: str) -> None:
    assert run("train", *BRIEF, "name=twice", "hardware.gradient_checkpointing=true")[0] == 0
    assert lora_bytes(exact) == lora_bytes("twice")


def test_samples_may_grow_on_resume(run, small_brand: Path) -> None:
    words = ["brand=small", "name=grows", *FAST, "train.checkpoint_every=1"]
    assert run("train", *words, "train.max_steps=1", "train.num_samples=0")[0] == 0
    assert run("train", *words, "train.max_steps=2", "train.num_samples=2")[0] == 0
    assert len(list((directory("grows") / "samples").glob("step-000002/with/*.png"))) == 2


def test_bf16_computes_in_bf16_and_keeps_the_weights_exact(run, exact: str) -> None:
    """Near the run in fp32, not equal to it; what is trained and handed out stays fp32."""
    assert run("train", *BRIEF, "name=rough", "hardware.precision=bf16")[0] == 0
    names = (exact, "rough")
    assert len({directory(name).name[-8:] for name in names}) == 2, "the precision is part of the run's name"
    code, text = run("compare", *(str(directory(name)) for name in names))
    assert code == 0 and "These runs differ in precision (fp32, bf16)" in text
    whole, rough = (load_file(directory(name) / "lora" / f"{name}.safetensors") for name in names)
    assert all(value.dtype == torch.float32 for value in rough.values())
    apart = [float((rough[k] - v).abs().max()) for k, v in whole.items() if "lora_B" in k]
    assert 0 < max(apart) < 6.1e-3, "three steps of AdamW at 1e-3, each way"
    losses = [files.read_jsonl(directory(name) / "stats.jsonl")[0]["loss"] for name in names]
    assert losses[0] != losses[1] and losses[1] == pytest.approx(losses[0], rel=0.02)


def test_compiled_blocks_give_the_same_losses(run, exact: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the repeated blocks are compiled. Torch's tracer runs, its generators do not: they take minutes."""
    compiled = UNet2DConditionModel.compile_repeated_blocks
    monkeypatch.setattr(UNet2DConditionModel, "compile_repeated_blocks", lambda self: compiled(self, backend="eager"))
    monkeypatch.setattr(torch._dynamo.config, "disable", False)  # tests/conftest.py
    torch._dynamo.reset()
    assert run("train", *BRIEF, "name=compiled", "hardware.compile=true")[0] == 0
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1
    one, two = ([row["loss"] for row in files.read_jsonl(directory(n) / "stats.jsonl")] for n in (exact, "compiled"))
    assert one == pytest.approx(two, rel=1e-4)


def test_a_damaged_state_is_refused(run, small_brand: Path) -> None:
    """Emptied or torn: never a silent start from nothing."""
    words = ["brand=small", "name=damaged", *FAST, "train.max_steps=2", "train.checkpoint_every=1"]
    assert run("train", *words)[0] == 0
    for part in ("adapter.safetensors", "optimizer.safetensors", "state.json"):
        path = directory("damaged") / "state" / "step-000002" / part
        before = path.read_bytes()
        path.write_bytes(b"{}" if part == "state.json" else save({}))
        code, text = run("train", *words, "train.max_steps=3")
        assert code == 2 and "Traceback" not in text and "step-000002" in text, part
        path.write_bytes(before)


def test_another_data_set_or_number_of_processes_is_refused(run, trained: list[str]) -> None:
    record = directory("small") / "run.json"
    before = record.read_text()
    try:
        record.write_text(before.replace('"processes": 1', '"processes": 2').replace('"data": "', '"data": "0'))
        code, text = run("train", *trained)
        assert code == 2 and "of the brand set): was 0" in text and "processes: was 2, is 1" in text
        code, text = run("train", *trained, "dry_run=true")
        assert code == 2 and "of the brand set): was 0" in text, "found before a GPU is paid for"
    finally:
        record.write_text(before)


def test_the_device_chooses_the_precision_and_no_clock_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same machine always gives the same answer, and it names the run."""
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    chosen = {"cuda": "bf16", "old cuda": "fp32", "cpu": "fp32"}
    for machine, precision in chosen.items():
        monkeypatch.setattr(torch.cuda, "is_available", lambda machine=machine: machine != "cpu")
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda machine=machine, **_: machine == "cuda")
        assert hardware.choose_fp32_or_bf16(HardwareConfig()) == precision
        assert hardware.choose_fp32_or_bf16(HardwareConfig(device="cpu")) == "fp32"
        assert hardware.choose_fp32_or_bf16(HardwareConfig(precision="bf16")) == "bf16"
        named = Config(brand="x", hardware=HardwareConfig(precision=precision))
        assert run_directory_name(Config(brand="x")) == run_directory_name(named)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert hardware.choose_fp32_or_bf16(HardwareConfig()) == "fp32"


class AppleOnCpu(TorchFunctionMode):
    """Tensors that are wanted on "mps" are made on the CPU; the device keeps its name."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        def on_cpu(value):
            is_apple = isinstance(value, str | torch.device) and str(value) == "mps" and func is not torch.device
            return "cpu" if is_apple else value

        return func(*map(on_cpu, args), **{name: on_cpu(value) for name, value in (kwargs or {}).items()})


def test_an_apple_gpu_is_used_by_name_and_nothing_of_cuda_with_it(
    run, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU under the other name: the same LoRA comes out."""
    words = merged(*trained, "name=apple", "hardware.device=mps", "train.max_steps=2")
    code, text = run("train", *words)
    assert code == 2 and "hardware.device=mps, but torch finds no Apple GPU" in text and "Next: " in text

    def touched(*_: object, **__: object) -> None:
        raise AssertionError("CUDA was asked for")

    for name in ("max_memory_allocated", "is_bf16_supported", "synchronize", "empty_cache", "current_device"):
        monkeypatch.setattr(torch.cuda, name, touched)
    for name in ("is_available", "is_built"):
        monkeypatch.setattr(torch.backends.mps, name, cache(lambda: True))
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 2**30)
    told = HardwareConfig(device="mps")
    assert hardware.choose_fp32_or_bf16(told) == "fp32" and hardware.set_threads_and_choose_device(told).type == "mps"
    assert hardware.weights_dtype("bf16", hardware.set_threads_and_choose_device(told)) == torch.bfloat16
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        with AppleOnCpu():
            assert run("train", *words)[0] == 0
            assert Accelerator().device.type == str(hardware.accelerate_process_state(told).device) == "mps"
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    one, other = (directory(name) / "state/step-000002/adapter.safetensors" for name in ("apple", "small"))
    assert one.read_bytes() == other.read_bytes()
    assert files.read_jsonl(directory("apple") / CLOCK)[-1]["memory_gib"] == 1.0


def test_precision_and_compilation_of_the_accelerate_config_change_nothing(trained: list[str]) -> None:
    """hardware.precision and hardware.compile decide, and run.json says what they decided."""
    told = {"ACCELERATE_MIXED_PRECISION": "bf16", "ACCELERATE_DYNAMO_BACKEND": "EAGER"}
    words = merged(*trained, "name=others", "train.max_steps=2")
    (pid,) = forks("train", *words, before=lambda: os.environ.update(told))
    assert exit_code(pid) == 0
    one, other = (directory(name) / "state/step-000002/adapter.safetensors" for name in ("others", "small"))
    assert one.read_bytes() == other.read_bytes()


def test_a_loss_that_is_not_finite_stops_the_run(run, small_brand: Path) -> None:
    words = ["brand=small", "name=nan", *FAST, "train.max_steps=12", "train.checkpoint_every=2", "train.warmup_steps=0"]
    code, text = run("train", *words, "train.learning_rate=1", "train.max_grad_norm=1e6", "lora.alpha=4096")
    assert code == 2 and "is not finite at step" in text and "  - train/" in text
    assert not list(files.RUNS.glob("nan-sd-*/lora/*"))
    for path in files.RUNS.glob("nan-sd-*/state/*/adapter.safetensors"):
        assert all(bool(torch.isfinite(value).all()) for value in load_file(path).values())
    for row in files.read_jsonl(directory("nan") / "stats.jsonl"):
        assert np.isfinite(row["loss"])


@pytest.mark.parametrize("place", ["prepare_training_run", "losses_of_microbatch"])
def test_too_little_memory_names_the_levers(
    run, small_brand: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    apple = RuntimeError("MPS backend out of memory (MPS allocated: 9.0 GB)")

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory") if place == "prepare_training_run" else apple

    monkeypatch.setattr(loop, place, full)
    code, text = run("train", "brand=small", f"name=full-{place}", *FAST, "train.max_steps=2")
    assert code == 2 and "not have enough memory" in text and "train.accumulation" in text and "Traceback" not in text


def test_base_that_is_no_pipeline(run, tmp_path: Path) -> None:
    code, text = run("train", "brand=neon", f"base={tmp_path}", *FAST)
    assert code == 2 and "is not a diffusers pipeline" in text


def test_text_encoders_are_trained_resumed_and_handed_out(run, small_brand: Path) -> None:
    """SDXL's chain is in test_families.py; the cached words are not what the base is told here."""
    words = ["brand=small", *FAST, "train.checkpoint_every=1", "lora.text_encoder=true", "train.warmup_steps=0"]
    assert run("train", *words, "name=reads", "train.max_steps=2")[0] == 0
    assert run("train", *words, "name=reads-on", "train.max_steps=1")[0] == 0
    assert run("train", *words, "name=reads-on", "train.max_steps=2")[0] == 0
    assert lora_bytes("reads") == lora_bytes("reads-on")
    keys = load_file(directory("reads") / "lora" / "reads.safetensors")
    trained = {
        k: v for k, v in keys.items() if k.startswith("text_encoder.text_model.") and k.endswith("lora_B.weight")
    }
    assert len(trained) == 4 * 4 and all(bool(value.any()) for value in trained.values())
    other = load_file(directory("reads") / "lora" / "reads.kohya.safetensors")
    workflow = files.read_json(directory("reads") / "lora" / "reads.comfyui.json", "the workflow")
    assert workflow["2"]["inputs"]["lora_name"] == "reads.kohya.safetensors"
    assert workflow["9"]["inputs"]["sampling"] == "v_prediction", "as the miniature's base predicts"
    assert "lora_te1_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight" in other
    assert run("train", *words, "name=mute", "lora.text_encoder=false", "train.max_steps=2")[0] == 0
    assert lora_bytes("mute") != lora_bytes("reads")


def test_attention_only_lora_is_smaller(run, small_brand: Path) -> None:
    words = ["brand=small", "name=slim", "lora=attention", *FAST, "train.max_steps=1"]
    assert run("train", *words)[0] == 0
    keys = load_file(directory("slim") / "lora" / "slim.safetensors")
    assert keys and all("attn" in key for key in keys)
