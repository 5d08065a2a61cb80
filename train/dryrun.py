"""`stylegate train dry_run=true`: everything that can be known before the first step, without an accelerator.

Checks the brand set, the base and its licence, policy, encoder, optimizer and disk (of a base on the hub all but the
weights is downloaded). Prints what would be trained, on how many views, and about how much memory and arithmetic a step
needs. The model is built without weights (on torch's meta device) and run once on shapes alone.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from torch import nn
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from eval.measuring import encodername
from eval.policy import file as policyfile
from stylegate import brandcheck, brandset, buckets, files, hardware, licence, pictures, sample
from stylegate.brandset import BrandSet, CheckReport
from stylegate.config import Config
from stylegate.configgroups import GenerateConfig, TrainConfig
from stylegate.errors import ExitCode, StylegateError, SurroundingsError
from stylegate.families import FAMILIES, pairing, pipelines
from stylegate.rundirectory import run_directory_name
from stylegate.words import counted, duration_in_words
from train import encoded, optimizers, state
from train.evaluate import APART, LEVELS
from train.preferences import RunTrainingPictures, training_pictures_of_run

STATE_BYTES = 12  # of a trained number: itself and AdamW's two moments, fp32
CHECKPOINTED = ("TransformerBlock", "ResnetBlock2D")  # ends of the names of what diffusers checkpoints
NF4_BYTES = 0.5625  # of a number: half a byte, and a scale of four for 64 of them
BACKWARD = 2  # a backward pass costs about twice a forward one
RATES = {
    "two idle CPU cores": 0.1,
    "a 24 GB card": 25.0,
    "an 80 GB card": 150.0,
}  # sustained TFLOP/s, assumed: for an order of size
GATE_S = 4.0  # seconds that judging the pictures of one evaluation takes on two CPU cores, whatever draws them


def print_dry_run_report(config: Config) -> int:
    """Print memory, disk and time that training would need; train nothing. Returns 0.

    Raises the errors that the run would raise, and SurroundingsError if the disk is too small.
    """
    family = FAMILIES[config.family.name]
    brand_set, findings, folder, terms, learned = read_checked_run_inputs(config)
    data = {"data": brand_set.sha256_of_training_content()}
    state.require_unchanged_run_facts(files.RUNS / run_directory_name(config), data)
    remarks = findings.all_remarks() + brandcheck.remarks_on_long_captions(brand_set, config) + learned.remarks

    sketch = family.weightless_model(folder)
    sample.require_size_multiples(config, sketch.multiple)
    resolutions = config.train.resolutions or [config.family.resolution or sketch.resolution]
    sizes = [pictures.upright_size_of(item.unchanged_file_bytes()) for item in learned.pictures]
    views = buckets.training_sizes_of_pictures(sizes, resolutions, sketch.multiple, config.train.buckets)
    largest = max(views, key=lambda v: v.width * v.height)
    frozen = sum(p.numel() for p in sketch.denoiser.parameters())
    packed = num_weights_in_4_bits(sketch.denoiser)
    sketch.denoiser.add_adapter(
        LoraConfig(
            r=config.lora.rank, use_dora=config.lora.dora, target_modules=family.lora_targets(config.lora.targets)
        )
    )
    trained = sum(p.numel() for p in sketch.denoiser.parameters() if p.requires_grad)
    together = 2 if config.preferences else 1  # pictures that one item of a batch has
    inputs = sketch.example_inputs(config.train.batch_size * together, largest.height, largest.width)
    forward, kept = num_forward_operations_and_activations(
        sketch.denoiser, inputs, config.hardware.gradient_checkpointing
    )
    half = hardware.choose_fp32_or_bf16(config.hardware) == "bf16"
    denoisers = 2 if config.draw_base else 1  # both lie on the device while the run lasts
    needed = training_memory_bytes(
        frozen * denoisers,
        trained,
        kept,
        half_precision=half,
        on_card=hardware.device_type(config.hardware) != "cpu",
        num_in_4_bits=packed * denoisers if config.hardware.nf4 else 0,
    )
    passes = together + BACKWARD  # with preferences the LoRA that training begins with is asked too
    total = forward * passes * config.train.accumulation * config.train.max_steps
    num_validation = len(brand_set.splits["validation"])
    drawing, gates = flops_and_number_of_evaluations(
        config.train, config.generate, num_validation, total, forward / together
    )

    states = config.train.keep_newest + config.train.keep_best + 1
    latent = sum(sketch.latent_numbers * v.width * v.height for v in views)
    one = sum(
        t.numel() for t in tree_leaves(sketch.example_inputs(1, largest.height, largest.width)) if torch.is_tensor(t)
    )
    words = one - sketch.latent_numbers * largest.width * largest.height
    wordings = encoded.num_caption_wordings(config.train) * sum(
        len(item.all_captions_of_picture()) for item in learned.pictures
    )
    disk = states * trained * STATE_BYTES + (2 * latent + words * wordings) * 4  # mean and spread; fp32
    require_disk_space(files.RUNS, disk)

    for remark in remarks:
        print(f"note: {remark}")
    shapes = sorted({(v.width, v.height) for v in views})
    seen = config.train.max_steps * config.train.batch_size * config.train.accumulation * together / len(views)
    print(f"run       {files.display_path(files.RUNS / run_directory_name(config))}")
    print(f"base      {config.base}: {frozen / 1e6:.1f} M parameters, licence {terms}")
    data = f"{counted(len(sizes), 'picture')}, {counted(len(views), 'view')} in {counted(len(shapes), 'shape')}"
    print(f"data      {data}; each seen {seen:.0f} times")
    print(f"LoRA      {trained / 1e6:.2f} M parameters, {trained * 4 / 1e6:.1f} MB")
    what = "both denoisers" if config.draw_base else "the denoiser"
    print(f"memory    about {needed / 1e9:.2f} GB for {what} at {largest.width} x {largest.height}")
    if config.hardware.shard:
        split = frozen * denoisers * (2 if half and hardware.device_type(config.hardware) != "cpu" else 4)
        print(f"          of which {split / 1e9:.2f} GB are split among the cards of a machine")
    print(f"disk      about {disk / 1e9:.2f} GB")
    times = ", ".join(
        f"{duration_in_words((total + drawing) / 1e12 / rate + gates * GATE_S)} on {what}"
        for what, rate in RATES.items()
    )
    steps = counted(config.train.max_steps, "step")
    work = f"{total / 1e12:,.1f} TFLOP of {steps}, {drawing / 1e12:,.1f} TFLOP of {counted(gates, 'evaluation')}"
    print(f"time      {work}: of the order of {times}")
    print("dry run: no problems; nothing was written")
    return ExitCode.PASS


def read_checked_run_inputs(config: Config) -> tuple[BrandSet, CheckReport, Path, str, RunTrainingPictures]:
    """Check all that a run reads. Returns the brand set with its findings, the base's folder and its licence, and the
    pictures that are learned from.

    Raises one StylegateError that lists every problem.
    """
    family = FAMILIES[config.family.name]
    errors: list[StylegateError] = []

    def value_or_recorded_problem(work: Callable[[], Any]) -> Any:
        try:
            return work()
        except StylegateError as error:
            errors.append(error)
            return None

    data = value_or_recorded_problem(lambda: brandcheck.read_checked_brand_set(brandset.brand_folder(config.brand)))
    folder = value_or_recorded_problem(lambda: family.base_folder(config.base, weights=False))
    learned: Any = value_or_recorded_problem(lambda: training_pictures_of_run(config, data[0])) if data else None
    terms: Any = (
        value_or_recorded_problem(lambda: licence.require_licence_agreement(config, folder)) if folder else None
    )
    if folder and config.draw_base:
        value_or_recorded_problem(
            lambda: pairing.require_bases_of_same_architecture(family, config.base, config.draw_base or "")
        )
        value_or_recorded_problem(
            lambda: licence.require_licence_agreement(
                config, family.base_folder(config.draw_base or "", False), "draw_base"
            )
        )
    value_or_recorded_problem(lambda: policyfile.read_policy(config.policy))
    value_or_recorded_problem(lambda: encodername.encoder_preprocessing(encodername.encoder_name(config)))
    if config.hardware.nf4:
        value_or_recorded_problem(pipelines.bitsandbytes_classes)
    value_or_recorded_problem(lambda: optimizers.build_optimizer(config.train, [torch.zeros(1, requires_grad=True)]))
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise StylegateError("this run cannot begin:", [str(error) for error in errors])
    return *data, folder, terms, learned


def flops_and_number_of_evaluations(
    train: TrainConfig, generate: GenerateConfig, validation: int, training: float, forward: float
) -> tuple[float, int]:
    """Operations of the denoiser in all evaluations of a run, and about how many evaluations there are.

    `validation` is the number of its pictures, `training` the operations of all steps, `forward` those of one forward
    pass of a batch. Step 0, the last step and what is handed out are always evaluated, those on the way while
    train.evaluation_share allows it. Each strength is counted, though none is drawn where none could be better.
    """
    if not (validation and train.num_samples):
        return 0.0, 0
    one = forward / train.batch_size
    of_step = one * (2 if generate.guidance_scale > 1 else 1)
    of_picture = of_step * min(train.preview_steps, generate.num_inference_steps)
    handed_out = 0.0 if train.preview_steps >= generate.num_inference_steps else train.num_samples * of_step
    strength = train.num_samples * of_picture
    apart = 2 * min(train.num_samples, APART)  # without the trigger phrase, and unrelated ones
    whole = strength + apart * of_picture + min(train.num_samples, validation) * len(LEVELS) * one
    strengths = len({*train.scales} - {1.0})
    on_the_way = float((train.max_steps - 1) // train.evaluate_every)
    if train.evaluation_share < 1:
        allowed = training * train.evaluation_share / (1 - train.evaluation_share)
        on_the_way = min(on_the_way, allowed // whole)
    work = (2 + on_the_way) * whole + strengths * strength + handed_out * generate.num_inference_steps
    return work, int(2 + on_the_way + strengths + (handed_out > 0))


def num_weights_in_4_bits(denoiser: nn.Module) -> int:
    """The number of the denoiser's weights that hardware.nf4 would store in 4 bits."""
    blocks = pipelines.transformer_blocks_to_quantise(denoiser)
    linear = {m for block in blocks for m in block.modules() if isinstance(m, nn.Linear)}
    return sum(m.weight.numel() for m in linear)


def training_memory_bytes(
    num_frozen: int,
    num_trained: int,
    num_kept_for_backward: int,
    *,
    half_precision: bool,
    on_card: bool,
    num_in_4_bits: int,
) -> float:
    """Bytes that a step needs: weights, the LoRA with gradients and moments, and the outputs of layers.

    `num_frozen`, `num_trained` and `num_kept_for_backward` count numbers, the last those kept for the backward pass;
    `num_in_4_bits` of the frozen ones are in 4 bits. Weights are in half precision only on a card.
    """
    weights = (num_frozen - num_in_4_bits) * (2 if half_precision and on_card else 4) + num_in_4_bits * NF4_BYTES
    return weights + num_trained * (STATE_BYTES + 4) + num_kept_for_backward * (2 if half_precision else 4)


def num_forward_operations_and_activations(denoiser: nn.Module, inputs: dict, checkpointing: bool) -> tuple[int, int]:
    """Operations of one forward pass, and how many numbers are kept for the backward pass: the outputs of all layers.

    With checkpointing these are the outputs of blocks, and those of all layers of the largest block. `inputs` are the
    denoiser's arguments by name.
    """
    outside, within, largest = 0, 0, 0

    def count_activations_of_layer(module: nn.Module, given: object, made: object) -> None:
        nonlocal outside, within, largest
        numbers = sum(t.numel() for t in (made if isinstance(made, tuple) else [made]) if isinstance(t, torch.Tensor))
        if not list(module.children()):
            within += numbers
        elif checkpointing and type(module).__name__.endswith(CHECKPOINTED):
            largest, within = max(largest, within), 0
            outside += numbers

    def restart_activation_count_at_checkpointed_block(module: nn.Module, given: object) -> None:
        nonlocal outside, within
        if checkpointing and type(module).__name__.endswith(CHECKPOINTED):
            outside, within = outside + within, 0  # what came since the block before

    handles = [module.register_forward_hook(count_activations_of_layer) for module in denoiser.modules()]
    handles += [
        module.register_forward_pre_hook(restart_activation_count_at_checkpointed_block)
        for module in denoiser.modules()
    ]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        denoiser(**inputs)
    for handle in handles:
        handle.remove()
    return counter.get_total_flops(), outside + within + largest


def require_disk_space(place: Path, needed: float) -> None:
    """Raises SurroundingsError if the disk of `place` has less than `needed` bytes free."""
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        raise SurroundingsError(
            f"the disk of {files.display_path(place)} has {free / 1e9:.1f} GB free, "
            f"the run needs about {needed / 1e9:.1f} GB",
            next_step="free disk space, or lower train.keep_newest and train.keep_best.",
        )
