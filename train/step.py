"""The loss of one pass. Views, noise and dropped captions are a pure function of (seed, step, rank)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stylegate import hardware
from stylegate.families import Conditions
from train import batches, losses
from train.run import LiveTrainingRun


class NoisedBatch(NamedTuple):
    """The denoiser's input and target in one training pass. Of pairs the chosen pictures stand first, then the rejected
    ones.
    """

    noisy: Tensor  # [n, c, h, w]
    target: Tensor  # [n, c, h, w]: what the base should predict
    levels: Tensor  # [n]
    conditions: Conditions


class MicrobatchLosses(NamedTuple):
    """The loss of each picture or pair of one training pass on this process, and what is recorded beside it."""

    each: Tensor  # float32 [batch]: the loss of each picture, or of each pair
    measures: dict[str, Tensor]  # [batch] each: what else is recorded of it, by name


def losses_of_microbatch(run: LiveTrainingRun, denoiser: Any, pass_index: int) -> MicrobatchLosses:
    """The loss of each picture or pair of one training pass on this process, with gradients.

    `pass_index` counts passes (optimizer steps times accumulation); `denoiser` is the model as the accelerator wraps
    it. With preferences the base carries the LoRA that training began with for one more pass, without gradients.
    """
    batch = noised_batch(run, pass_index)
    if not run.reference:
        return MicrobatchLosses(prediction_errors(run, denoiser, batch), {})
    with torch.no_grad(), using_starting_lora_weights_temporarily(run):
        reference = prediction_errors(run, run.models.denoiser, batch)
    each, margin = losses.preference_losses(
        prediction_errors(run, denoiser, batch), reference, run.config.objective.beta
    )
    margin = margin.detach()
    accuracy = (margin > 0).float() + 0.5 * (margin == 0).float()
    return MicrobatchLosses(each, {"preference_margin": margin, "preference_accuracy": accuracy})


def noised_batch(run: LiveTrainingRun, pass_index: int) -> NoisedBatch:
    """The noised latents of a pass with their target, levels and conditions; both pictures of a pair share noise,
    level and caption.
    """
    settings, schedule, rank = run.config.train, run.models.schedule, run.accelerator.process_index
    chosen = view_indices_of_microbatch(run, pass_index, rank)
    items = [run.data.views[i].item for i in chosen]
    copies = 2 if run.reference else 1
    partners = [i + len(run.data.views) // 2 for i in chosen] if run.reference else []
    mean, deviation = run.data.latent_mean_and_deviation_of_views([*chosen, *partners])
    shape = (len(chosen), *mean.shape[1:])
    draws = batches.noise_and_level_draws(shape, settings.caption_dropout, pass_index, rank, settings.seed)
    if run.config.lora.text_encoder:
        conditions = run.family.encode_prompts(
            run.models, run.data.caption_texts_of_microbatch(items, pass_index, draws.dropped)
        )
    else:
        conditions = run.data.encoded_captions_of_microbatch(items, pass_index, draws.dropped)
    levels = losses.draw_noise_levels(schedule, settings.loss, draws.uniform, draws.normal)
    noise = losses.add_noise_offset(draws.noise, settings.loss.noise_offset, draws.constant)
    clean = mean + deviation * torch.cat([draws.resample] * copies)
    device = run.accelerator.device
    clean, noise, levels = (t.to(device) for t in (clean, torch.cat([noise] * copies), torch.cat([levels] * copies)))
    return NoisedBatch(
        losses.add_noise(schedule, clean, noise, levels),
        losses.prediction_target(schedule, clean, noise, levels),
        levels,
        {name: torch.cat([values.to(device)] * copies) for name, values in conditions.items()},
    )


def prediction_errors(run: LiveTrainingRun, denoiser: Any, batch: NoisedBatch) -> Tensor:
    """The weighted error of the denoiser's prediction for each picture of the batch, float32 [n]."""
    settings, schedule = run.config.train.loss, run.models.schedule
    with hardware.autocast_to_bf16(
        run.accelerator.device, run.precision
    ):  # its own: autocast keeps copies of weights in it
        predicted = run.family.predict(run.models, denoiser, batch.noisy, batch.levels, batch.conditions)
    each = losses.loss_per_picture(predicted.float(), batch.target, settings.huber_delta)
    return each * losses.loss_weights(schedule, settings.min_snr_gamma, batch.levels)


@contextmanager
def using_starting_lora_weights_temporarily(run: LiveTrainingRun) -> Iterator[None]:
    """A context in which the LoRA that training began with stands in place of the trained one, so that no second model
    is needed.
    """
    parameters = [p for p in run.adapted.parameters() if p.requires_grad]
    trained = [p.data for p in parameters]
    for parameter, before in zip(parameters, run.reference, strict=True):
        parameter.data = before
    try:
        yield
    finally:
        for parameter, now in zip(parameters, trained, strict=True):
            parameter.data = now


def view_indices_of_microbatch(run: LiveTrainingRun, step: int, rank: int) -> list[int]:
    """Indices of the views, [batch], that the process `rank` sees in one training pass; of pairs those of the chosen
    pictures.

    `step` is the index of the pass, which is not that of the optimizer's step where gradients are accumulated.
    """
    settings, world = run.config.train, run.accelerator.num_processes
    return batches.view_indices_of_batch(run.buckets, settings.batch_size, step, rank, world, settings.seed)


def training_picture_names_of_step(run: LiveTrainingRun, step: int, rank: int) -> list[str]:
    """The file names of the pictures, in order, that the process `rank` sees at the optimizer step `step`, counted from
    0; of pairs those of the chosen pictures.
    """
    passes = range(step * run.config.train.accumulation, (step + 1) * run.config.train.accumulation)
    return [run.learned[run.data.views[i].item].file for n in passes for i in view_indices_of_microbatch(run, n, rank)]
