"""The loss of one pass. Views, noise and dropped captions are a pure function of (seed, step, rank)."""

from typing import Any

from torch import Tensor

from stylegate import hardware
from train import batches, losses
from train.run import Run


def pass_losses(run: Run, denoiser: Any, pass_index: int) -> Tensor:
    """The weighted losses, float32 [batch], of one pass on this process.

    `pass_index` counts passes (optimizer steps times accumulation); `denoiser` is the model as the accelerator wraps
    it.
    """
    settings, schedule, rank = run.config.train, run.models.schedule, run.accelerator.process_index
    chosen = chosen_views(run, pass_index, rank)
    mean, deviation = run.data.latents(chosen)
    draws = batches.random_draws(tuple(mean.shape), settings.caption_dropout, pass_index, rank, settings.seed)
    items = [run.data.views[i].item for i in chosen]
    if run.config.lora.text_encoder:
        conditions = run.family.encode_prompts(run.models, run.data.wordings_at_step(items, pass_index, draws.dropped))
    else:
        conditions = run.data.conditions(items, pass_index, draws.dropped)
    levels = losses.draw_levels(schedule, settings.loss, draws.uniform, draws.normal)
    noise = losses.add_noise_offset(draws.noise, settings.loss.noise_offset, draws.constant)
    device = run.accelerator.device
    clean, noise, levels = (t.to(device) for t in (mean + deviation * draws.resample, noise, levels))
    conditions = {name: values.to(device) for name, values in conditions.items()}
    with hardware.autocast(device, run.precision):
        noisy = losses.add_noise(schedule, clean, noise, levels)
        predicted = run.family.predict(run.models, denoiser, noisy, levels, conditions)
    target = losses.prediction_target(schedule, clean, noise, levels)
    each = losses.loss_per_picture(predicted.float(), target, settings.loss.huber_delta)
    return each * losses.loss_weights(schedule, settings.loss.min_snr_gamma, levels)


def chosen_views(run: Run, step: int, rank: int) -> list[int]:
    """Indices of the views that the process `rank` sees in pass `step`, [batch]."""
    settings, world = run.config.train, run.accelerator.num_processes
    return batches.view_indices_of_batch(run.buckets, settings.batch_size, step, rank, world, settings.seed)


def picture_files_of_step(run: Run, step: int, rank: int) -> list[str]:
    """Files of the pictures, in order, that the process `rank` sees at the optimizer step `step`, counted from 0."""
    passes = range(step * run.config.train.accumulation, (step + 1) * run.config.train.accumulation)
    items = run.brand_set.splits["train"]
    return [items[run.data.views[i].item].file for n in passes for i in chosen_views(run, n, rank)]
