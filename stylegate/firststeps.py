"""The first denoising steps of pictures: what they promise is seen before the others are paid for.

`draw_previews_by_first_steps` ends after a few steps and decodes what the denoiser then takes for the clean picture.
`finish_pictures_after_previews` draws some of these pictures to their end: the pipeline is called again, and is given
the denoiser's first answers from memory, so that no step is computed twice (Qwen-Image 2.1: but for its first). Every
pipeline of the families is served, since only its denoiser's `forward` and its scheduler's `step` are stood in for.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from stylegate.families.base import LoadedBaseModel

# Draws the pictures with these numbers, as stylegate.sample.draw_pictures does.
DrawNumbered = Callable[[list[int]], list[Image.Image]]


class PreviewsAndDenoiserAnswers(NamedTuple):
    """Previews of some pictures, and the denoiser's answers so far.

    `finish_pictures_after_previews` goes on from them.
    """

    previews: list[Image.Image]
    answers: list[list[list[Tensor]]]  # by picture and by call of the denoiser: one row, or two with guidance
    listed: bool  # the denoiser answers with a list of rows (Z-Image), not with one tensor


def draw_previews_by_first_steps(
    models: LoadedBaseModel, count: int, steps: int, draw: DrawNumbered
) -> PreviewsAndDenoiserAnswers:
    """Draw the pictures 0 to `count` - 1 for `steps` denoising steps, fewer than they have in all, and decode what the
    denoiser then takes for the clean pictures.
    """
    previews: list[Image.Image] = []
    answers: list[list[list[Tensor]]] = []
    listed = False
    for some in picture_numbers_per_pipeline_call(models, range(count)):
        with pipeline_ending_after_steps(models, steps) as calls:
            previews += draw(some)
        listed = isinstance(calls[0], list)
        answers += [[list(call[i :: len(some)]) for call in calls] for i in range(len(some))]
    return PreviewsAndDenoiserAnswers(previews, answers, listed)


def finish_pictures_after_previews(
    models: LoadedBaseModel, first: PreviewsAndDenoiserAnswers, chosen: Sequence[int], draw: DrawNumbered
) -> list[Any]:
    """Draw the pictures with the numbers `chosen` to their end. Returns them in this order; all of them, in order, are
    the pictures that one call would draw.
    """
    finished: list[Image.Image] = []
    for some in picture_numbers_per_pipeline_call(models, chosen):
        with denoiser_answering_from_memory(models, [first.answers[i] for i in some], first.listed):
            finished += draw(some)
    return finished


def picture_numbers_per_pipeline_call(models: LoadedBaseModel, numbers: Sequence[int]) -> list[list[int]]:
    """The numbers of pictures in groups, one for each call of the pipeline: single ones where the base draws singly,
    else all together.
    """
    if models.draws_singly:
        return [[number] for number in numbers]
    return [list(numbers)] if numbers else []


@contextmanager
def pipeline_ending_after_steps(models: LoadedBaseModel, steps: int) -> Iterator[list[Any]]:
    """A context in which the pipeline ends after `steps` denoising steps and decodes the clean picture that it is then
    on the way to.

    Yields the denoiser's answers, which fill up while it draws.
    """
    pipeline, denoiser, calls, done = models.pipeline, models.denoiser, [], 0
    forward, step = denoiser.forward, pipeline.scheduler.step

    def forward_and_record(*given: Any, **named: Any) -> Any:
        found = forward(*given, **named)
        calls.append(found[0])
        return found

    def step_or_interrupt(output: Tensor, level: Any, noisy: Tensor, *given: Any, **named: Any) -> Any:
        nonlocal done
        done += 1
        if done < steps:
            return step(output, level, noisy, *given, **named)
        pipeline._interrupt = True  # the pipelines' own way to skip the steps that are left
        return (predicted_clean_latents(models, output, level, noisy),)

    denoiser.forward, pipeline.scheduler.step = forward_and_record, step_or_interrupt
    try:
        yield calls
    finally:
        denoiser.forward, pipeline.scheduler.step = forward, step


@contextmanager
def denoiser_answering_from_memory(
    models: LoadedBaseModel, answers: Sequence[Sequence[Sequence[Tensor]]], listed: bool
) -> Iterator[None]:
    """A context in which the denoiser's first answers are `answers`, by picture, call and row; it computes only those
    that follow.
    """
    denoiser, asked = models.denoiser, 0
    forward = denoiser.forward

    def answer_or_forward(*given: Any, **named: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked > len(answers[0]):
            return forward(*given, **named)
        if named.get("kv_cache_mode") == "extract":  # Qwen-Image 2.1 keeps what it reads of the words for later steps
            forward(*given, **named)
        calls = [of_picture[asked - 1] for of_picture in answers]
        rows = [call[k] for k in range(len(calls[0])) for call in calls]
        return (rows if listed else torch.stack(rows),)

    denoiser.forward = answer_or_forward
    try:
        yield
    finally:
        denoiser.forward = forward


def predicted_clean_latents(models: LoadedBaseModel, output: Tensor, level: Any, noisy: Tensor) -> Tensor:
    """The clean latents that the denoiser's `output` predicts from `noisy` ones at a `level` of the scheduler, in the
    dtype of `noisy`.

    With flow matching x_t = (1 - s) x_0 + s e, and the output is e - x_0. Else x_t = signal x_0 + sigma e, and the
    output is e, or signal e - sigma x_0 (Salimans and Ho 2022, arXiv 2202.00512, appendix D).
    """
    scheduler, schedule = models.pipeline.scheduler, models.schedule
    if schedule.prediction == "flow":
        share = float(level) / scheduler.config.num_train_timesteps
        return (noisy.float() - share * output.float()).to(noisy.dtype)
    at = min(round(float(level)), len(schedule.signal) - 1)
    signal, sigma = float(schedule.signal[at]), float(schedule.sigma[at])
    seen = scheduler.scale_model_input(noisy, level).float()  # schedulers in the manner of k-diffusion scale x_t
    if schedule.prediction == "v":
        return (signal * seen - sigma * output.float()).to(noisy.dtype)
    return ((seen - sigma * output.float()) / signal).to(noisy.dtype)
