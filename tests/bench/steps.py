"""Steps a second: ours, the example script, and a bare loop, in turns on one machine; memory; and whether losses agree.

    python -m tests.bench.steps peer=PATH               the miniature, about 6 minutes
    python -m tests.bench.steps peer=PATH shape=sdxl    a base whose parts have SDXL's shares of the work, 5 minutes

All train attention alone at fp32, rank 16, one rate, without evaluations. Each runs in a process of its own; only one
is awake at a time (SIGSTOP, SIGCONT), for WINDOW_S seconds and ROUNDS turns; a turn's rate is taken between its first
and last step, and medians over the turns are compared. Exit 1 if a ratio is missed.
"""

import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from stylegate import files
from stylegate.families import FAMILIES
from tests.bench import peer

OF_BARE, OF_PEER = 0.95, {"miniature": None, "sdxl": 1.3}
ROUNDS, WINDOW_S = {"miniature": 8, "sdxl": 3}, {"miniature": 12.0, "sdxl": 20.0}
WARM, LEAST = 5, 4  # steps before the first turn, and in each
RATE, BLOCK, SAME = 1e-3, 50, 0.03  # of the optimizer; steps whose losses are averaged; share of the loss
LEVELS = ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D")


def unet(widths: tuple[int, ...], side: int, words: int) -> UNet2DConditionModel:
    """SDXL's UNet without its second condition: three levels, with 0, 2 and 10 transformer layers."""
    settings: dict[str, Any] = {
        "sample_size": side,
        "block_out_channels": widths,
        "down_block_types": LEVELS,
        "up_block_types": tuple(name.replace("Down", "Up") for name in reversed(LEVELS)),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": tuple(width // 64 for width in widths),  # diffusers' name for the number of heads
        "cross_attention_dim": words,
        "use_linear_projection": True,
    }
    return UNet2DConditionModel(**settings)


def vae(width: int) -> AutoencoderKL:
    settings: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (width, 2 * width, 4 * width, 4 * width),
        "layers_per_block": 2,
        "norm_num_groups": 4 if width < 128 else 32,
    }
    return AutoencoderKL(**settings)


def text(width: int, layers: int, vocabulary: int, context: int) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=width // 64,
            max_position_embeddings=context,
            bos_token_id=vocabulary - 2,
            eos_token_id=vocabulary - 1,
            pad_token_id=vocabulary - 1,
        )
    )


def operations(model: nn.Module, **inputs: torch.Tensor) -> float:
    """Of a forward pass of one picture, from shapes alone (both on the meta device)."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(**inputs)
    return float(counter.get_total_flops())


def shares(denoiser: nn.Module, coder: AutoencoderKL, writers: list[CLIPTextModel], side: int) -> tuple[float, float]:
    """Work of the autoencoder's encoder, and of the text encoders, for each unit of the UNet's; `side` of latents."""
    words = sum(w.config.hidden_size for w in writers)
    latents = {"sample": torch.zeros(1, 4, side, side), "timestep": torch.zeros(1)}
    own = operations(denoiser, **latents, encoder_hidden_states=torch.zeros(1, 77, words))
    encoder = operations(coder.encoder, sample=torch.zeros(1, 3, 8 * side, 8 * side))
    said = sum(operations(w, input_ids=torch.zeros(1, w.config.max_position_embeddings).long()) for w in writers)
    return encoder / own, said / own


def proportioned(folder: Path) -> None:
    """A base of random weights for 256 pixels whose parts have the shares of the work that SDXL's have at 1024."""
    widths, side, width = (64, 128, 256), 32, 256
    tokenizer = CLIPTokenizer.from_pretrained(files.MODELS / "miniature" / "sd" / "tokenizer")
    sizes = {"vocabulary": len(tokenizer), "context": tokenizer.model_max_length}
    with torch.device("meta"):
        large = [text(768, 12, 49408, 77), text(1280, 32, 49408, 77)]
        wanted = shares(unet((320, 640, 1280), 128, 2048), vae(128), large, 128)
        small = unet(widths, side, width)
        coders = {w: shares(small, vae(w), [text(width, 1, **sizes)], side)[0] for w in range(8, 68, 4)}
        coder = min(coders, key=lambda w: abs(coders[w] - wanted[0]))
        one = shares(small, vae(8), [text(width, 1, **sizes)], side)[1]
        layers = max(1, round(wanted[1] / one))
    print(f"SDXL at 1024: autoencoder {wanted[0]:.3f} and text {wanted[1]:.4f} of the UNet's operations, forward")
    print(f"this base: {coders[coder]:.3f} (width {coder}) and {layers * one:.4f} ({layers} layers)")
    torch.manual_seed(0)
    scheduler: Any = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    )
    StableDiffusionPipeline(
        vae=vae(coder),
        text_encoder=text(width, layers, **sizes),
        tokenizer=tokenizer,
        unet=unet(widths, side, width),
        scheduler=scheduler,
        safety_checker=None,  # type: ignore[arg-type]
        feature_extractor=None,  # type: ignore[arg-type]
        requires_safety_checker=False,
    ).save_pretrained(folder)


def parts_in_seconds(base: Path) -> str:
    """Forward passes of one picture, as they are on this machine: operations and time are not the same."""
    models = FAMILIES["sd"].load(str(base), torch.device("cpu"), torch.float32)
    pixels = torch.zeros(1, 3, models.resolution, models.resolution)
    clean, told = (
        FAMILIES["sd"].encode_to_latent_mean_and_deviation(models, pixels)[0],
        FAMILIES["sd"].encode_prompts(models, ["a"]),
    )
    level = torch.zeros(1).long()
    work = {
        "autoencoder": lambda: FAMILIES["sd"].encode_to_latent_mean_and_deviation(models, pixels),
        "text": lambda: FAMILIES["sd"].encode_prompts(models, ["a"]),
        "UNet": lambda: FAMILIES["sd"].predict(models, models.denoiser, clean, level, told),
    }
    found = {}
    for name, run in work.items():
        run()
        began = time.perf_counter()
        for _ in range(5):
            run()
        found[name] = (time.perf_counter() - began) / 5
    return ", ".join(f"{name} {seconds * 1000:.0f} ms" for name, seconds in found.items())


def stamps(log: Path) -> list[float]:
    return [row["at"] for row in files.read_jsonl(log)]


def in_turns(runs: dict[str, tuple[subprocess.Popen, Path]], rounds: int, window_s: float) -> dict[str, list[float]]:
    """Steps a second of each, a number a turn."""
    for name, (process, log) in runs.items():
        process.send_signal(signal.SIGCONT)
        while len(stamps(log)) < WARM:
            alive(name, process, log)
            time.sleep(0.2)
        process.send_signal(signal.SIGSTOP)
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, (process, log) in runs.items():
            began, seen = time.monotonic(), []
            process.send_signal(signal.SIGCONT)
            while len(seen) < LEAST or time.monotonic() - began < window_s:
                time.sleep(0.5)
                alive(name, process, log)
                seen = [at for at in stamps(log) if at > began]
            process.send_signal(signal.SIGSTOP)
            rates[name].append((len(seen) - 1) / (seen[-1] - seen[0]))
    return rates


def alive(name: str, process: subprocess.Popen, log: Path) -> None:
    if process.poll() is not None:
        raise SystemExit(f"{name} ended early:\n{log.with_suffix('.out').read_text()[-2000:]}")


def peak_mb(process: subprocess.Popen) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def losses(place: Path) -> dict[str, list[float]]:
    """By step, of ours and of the script."""
    own = [row["loss"] for path in place.glob("ours/checkpoints/*/stats.jsonl") for row in files.read_jsonl(path)]
    return {"ours": own, "the script": [row["loss"] for row in files.read_jsonl(place / "script.jsonl")]}


def compare(script: Path, shape: str, place: Path) -> list[str]:
    base = files.MODELS / "miniature" / "sd"
    if shape == "sdxl":
        base = place / "base"
        proportioned(base)
        with torch.no_grad():
            print(f"forward, one picture: {parts_in_seconds(base)}")
    small = shape == "miniature"
    batch, side = (8, 64) if small else (4, 256)
    task = peer.Task(base=base, brand=files.ROOT / "data" / "brands" / "neon", side=side, steps=100_000, batch=batch)
    words = ["lora=attention", f"train.learning_rate={RATE}", "train.caption_dropout=0", "train.warmup_steps=0"]
    words += ["train.max_grad_norm=1e6", "train.evaluate_every=100000"]  # the script's clipping sees no parameters
    made = {
        "bare": lambda log: peer.started(log, ["tests.bench.bare", str(base), str(batch)]),
        "ours": lambda log: peer.ours(task, log, *words, "train.checkpoint_every=100000"),
        "the script": lambda log: peer.theirs(task, log, script, RATE, 100_000),
    }
    runs = {}
    try:
        for name, start in made.items():
            log = place / f"{name.split()[-1]}.jsonl"
            runs[name] = (start(log), log)
            runs[name][0].send_signal(signal.SIGSTOP)
        rates = in_turns(runs, ROUNDS[shape], WINDOW_S[shape])
        memory = {name: peak_mb(process) for name, (process, _) in runs.items()}
    finally:
        for process, _ in runs.values():
            process.kill()
            process.wait()
    for name, found in rates.items():
        turns = " ".join(f"{r:.2f}" for r in found)
        print(f"  {name:<12}{median(found):>7.2f} steps/s   {memory[name]:>6.0f} MB at most   turns {turns}")
    middle = {name: median(found) for name, found in rates.items()}
    own, other = middle["ours"] / middle["bare"], middle["ours"] / middle["the script"]
    least = OF_PEER[shape]
    print(f"  ours of a bare loop {own:.3f} (at least {OF_BARE}); of the script {other:.2f} (at least {least})")
    missed = [f"{shape}: {own:.3f} of a bare loop"] if own < OF_BARE else []
    missed += [f"{shape}: {other:.2f} of the script"] if least and other < least else []
    if least and memory["ours"] > memory["the script"]:
        missed.append(f"{shape}: more memory than the script")
    return missed + (agree(losses(place)) if small else [])


def agree(found: dict[str, list[float]]) -> list[str]:
    """Print mean losses by block of steps; they agree where the difference over all blocks is surely below SAME."""
    count = min(map(len, found.values())) // BLOCK
    if count < 3:
        return [f"the loss curves are of {count} blocks: too short to compare"]
    blocks = {name: [mean(v[i * BLOCK : (i + 1) * BLOCK]) for i in range(count)] for name, v in found.items()}
    for name, values in blocks.items():
        print(f"  loss, {name:<12}" + " ".join(f"{value:.4f}" for value in values))
    apart = [a - b for a, b in zip(*blocks.values(), strict=True)]
    level, error = mean(blocks["ours"]), stdev(apart) / count**0.5
    print(f"  mean difference {mean(apart) / level:+.4f} of the loss, standard error {error / level:.4f}")
    return [] if abs(mean(apart)) + 2 * error <= SAME * level else ["the loss curves differ, or too little was seen"]


def main() -> int:
    script, rest = peer.script_of(sys.argv[1:])
    shape = next((word.removeprefix("shape=") for word in rest if word.startswith("shape=")), "miniature")
    with tempfile.TemporaryDirectory() as place:
        missed = compare(script, shape, Path(place))
    print("\n".join(["missed:", *missed]) if missed else "every ratio holds")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
