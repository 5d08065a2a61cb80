"""Training: it learns, it resumes exactly, it refuses another run's directory, it stops on nonsense."""

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save

from stylegate import files
from tests.conftest import FAST, command

LAUNCH = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]


def directory(name: str) -> Path:
    (found,) = files.RUNS.glob(f"{name}-sd-*")
    return found


def lora_bytes(name: str) -> bytes:
    return (directory(name) / "lora" / f"{name}.safetensors").read_bytes()


def state_tensors(name: str, step: int) -> dict[str, torch.Tensor]:
    return load_file(directory(name) / "state" / f"step-{step:06d}" / "optimizer.safetensors")


def test_loss_falls_and_the_samples_change(run, small_brand: Path) -> None:
    words = ["brand=small", "name=learns", *FAST, "train.max_steps=24", "train.sample_every=24", "train.warmup_steps=1"]
    code, text = run("train", *words, "train.learning_rate=5e-3")
    assert code == 0 and "LoRA: " in text.splitlines()[-1]
    rows = files.read_jsonl(directory("learns") / "stats.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 25))
    assert np.mean([row["loss"] for row in rows[-6:]]) < 0.75 * np.mean([row["loss"] for row in rows[:3]])
    samples = directory("learns") / "samples"
    before, after = (np.asarray(Image.open(samples / f"step-{s:06d}" / "0.png"), int) for s in (0, 24))
    assert np.abs(before - after).mean() > 3
    assert Image.open(samples / "grid.png").width > 2 * 128


def test_finished_run_is_left_alone(run, trained: list[str]) -> None:
    before = lora_bytes("small")
    code, text = run("train", *trained)
    assert code == 0 and "finished already at step 4" in text and lora_bytes("small") == before


def test_run_record_is_whole(trained: list[str]) -> None:
    record = json.loads((directory("small") / "run.json").read_text())
    assert record["facts"].keys() == {"data", "base", "processes", "precision", "threads"}
    assert record["config"]["lora"]["rank"] == 16 and record["facts"]["processes"] == 1
    assert not list(directory("small").rglob("*.pkl")) and not list(directory("small").rglob("*.bin"))


def test_training_on_resumes_exactly(run, small_brand: Path) -> None:
    """2 steps and then 5 are the bytes of 5 at once: adapter, optimizer, stats."""
    base = ["brand=small", *FAST, "train.checkpoint_every=1"]
    assert run("train", *base, "name=whole", "train.max_steps=5")[0] == 0
    assert run("train", *base, "name=parts", "train.max_steps=2")[0] == 0
    code, text = run("train", *base, "name=parts", "train.max_steps=5")
    assert code == 0 and "resumed at step 2" in text
    assert lora_bytes("whole") == lora_bytes("parts")
    one, two = state_tensors("whole", 5), state_tensors("parts", 5)
    assert one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)
    assert files.read_jsonl(directory("whole") / "stats.jsonl") == files.read_jsonl(directory("parts") / "stats.jsonl")


def kill_at_random_step(arguments: list[str], name: str, environment: dict[str, str]) -> None:
    """Start, wait until a random number of states has been saved, SIGKILL the whole group."""
    process = subprocess.Popen(
        arguments, cwd=files.ROOT, env=environment, start_new_session=True, stdout=subprocess.DEVNULL
    )
    wanted, deadline = random.randint(1, 6), time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        states = list(files.RUNS.glob(f"{name}-sd-*/state/step-*"))
        if states and max(int(p.name[5:]) for p in states) >= wanted:
            break
        time.sleep(0.02)
    assert process.poll() is None, "the run ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("processes", [1, 2])
def test_sigkill_at_a_random_step_costs_nothing(run, small_brand: Path, processes: int) -> None:
    """Killed and started again, the run ends in the bytes of one that was not; the process count is asserted."""
    words = ["brand=small", *FAST, "train.max_steps=10", "train.checkpoint_every=1"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "MASTER_PORT": "29617"}
    python = command()[0]
    if processes == 1:
        start = [python, "-m", "train"]
    else:
        start = [python, *LAUNCH, "--mixed_precision", "no", "--dynamo_backend", "no", "-m", "train"]
    whole, killed = f"whole{processes}", f"killed{processes}"

    def finish(name: str) -> None:
        done = subprocess.run([*start, *words, f"name={name}"], cwd=files.ROOT, env=environment, timeout=240)
        assert done.returncode == 0

    finish(whole)
    kill_at_random_step([*start, *words, f"name={killed}"], killed, environment)
    assert not (directory(killed) / "lora").exists()
    finish(killed)
    assert lora_bytes(whole) == lora_bytes(killed)
    record = json.loads((directory(killed) / "run.json").read_text())
    assert record["facts"]["processes"] == processes


def test_samples_may_grow_on_resume(run, small_brand: Path) -> None:
    words = ["brand=small", "name=grows", *FAST, "train.checkpoint_every=1"]
    assert run("train", *words, "train.max_steps=1", "train.num_samples=0")[0] == 0
    assert run("train", *words, "train.max_steps=2", "train.num_samples=2")[0] == 0
    assert len(list((directory("grows") / "samples").glob("step-000002/*.png"))) == 2


@pytest.mark.parametrize("part", ["adapter.safetensors", "optimizer.safetensors", "state.json"])
def test_a_damaged_state_is_refused(run, small_brand: Path, part: str) -> None:
    """Emptied or torn: never a silent start from nothing."""
    name = part.split(".")[0]
    words = ["brand=small", f"name=damaged-{name}", *FAST, "train.max_steps=2", "train.checkpoint_every=1"]
    assert run("train", *words)[0] == 0
    path = directory(f"damaged-{name}") / "state" / "step-000002" / part
    path.write_bytes(b"{}" if part == "state.json" else save({}))
    code, text = run("train", *words, "train.max_steps=3")
    assert code == 2 and "Traceback" not in text and "step-000002" in text


def test_another_data_set_or_precision_is_refused(run, trained: list[str]) -> None:
    code, text = run("train", *trained, "train.max_steps=5", "hardware.precision=bf16")
    assert code == 2 and "precision: was fp32, is bf16" in text
    record = directory("small") / "run.json"
    before = record.read_text()
    try:
        record.write_text(before.replace('"processes": 1', '"processes": 2').replace('"data": "', '"data": "0'))
        code, text = run("train", *trained)
        assert code == 2 and "data: was 0" in text and "processes: was 2, is 1" in text
    finally:
        record.write_text(before)


def test_a_loss_that_is_not_finite_stops_the_run(run, small_brand: Path) -> None:
    words = ["brand=small", "name=nan", *FAST, "train.max_steps=12", "train.checkpoint_every=2", "train.warmup_steps=0"]
    code, text = run("train", *words, "train.learning_rate=1", "train.max_grad_norm=1e6", "lora.alpha=4096")
    assert code == 2 and "the loss is not finite at step" in text
    assert not list(files.RUNS.glob("nan-sd-*/lora/*"))
    for row in files.read_jsonl(directory("nan") / "stats.jsonl"):
        assert np.isfinite(row["loss"])


def test_base_that_is_no_pipeline(run, tmp_path: Path) -> None:
    code, text = run("train", "brand=neon", f"base={tmp_path}", *FAST)
    assert code == 2 and "is not a diffusers pipeline" in text


def test_attention_only_lora_is_smaller(run, small_brand: Path) -> None:
    words = ["brand=small", "name=slim", "lora=attention", *FAST, "train.max_steps=1", "train.num_samples=0"]
    assert run("train", *words)[0] == 0
    keys = load_file(directory("slim") / "lora" / "slim.safetensors")
    assert keys and all("attn" in key for key in keys)
