"""Losses, targets and densities against slow references and diffusers' own schedulers."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import compute_snr
from scipy import stats

from stylegate.configgroups import LossConfig
from stylegate.families import NoiseSchedule
from stylegate.families.unet import noise_schedule_of
from train import losses

RANDOM = torch.Generator().manual_seed(4)
LATENTS, NOISE = (torch.randn(6, 4, 5, 7, generator=RANDOM) for _ in range(2))
LEVELS = torch.tensor([0, 1, 250, 500, 998, 999])
FLOW = NoiseSchedule(1 - torch.arange(1, 1001) / 1000, torch.arange(1, 1001) / 1000, "flow")


def ddpm(prediction: Any, zero: bool = False) -> tuple[DDPMScheduler, NoiseSchedule]:
    scheduler = DDPMScheduler(
        beta_schedule="scaled_linear",
        prediction_type=prediction,
        rescale_betas_zero_snr=zero,
        timestep_spacing="trailing",
    )
    return scheduler, noise_schedule_of(scheduler.config)


@pytest.mark.parametrize("zero", [False, True])
def test_noised_and_targets_equal_diffusers(zero: bool) -> None:
    scheduler, schedule = ddpm("v_prediction", zero)
    reference = scheduler.add_noise(LATENTS, NOISE, LEVELS)  # type: ignore[arg-type]
    assert torch.allclose(losses.add_noise(schedule, LATENTS, NOISE, LEVELS), reference, atol=1e-6)
    velocity = scheduler.get_velocity(LATENTS, NOISE, LEVELS)  # type: ignore[arg-type]
    assert torch.allclose(losses.prediction_target(schedule, LATENTS, NOISE, LEVELS), velocity, atol=1e-6)
    assert torch.equal(losses.prediction_target(ddpm("epsilon")[1], LATENTS, NOISE, LEVELS), NOISE)


def test_flow_equals_diffusers() -> None:
    scheduler: Any = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000)
    timesteps = scheduler.timesteps.flip(0)[LEVELS]
    reference = scheduler.scale_noise(LATENTS, timesteps, NOISE)  # type: ignore[arg-type]
    assert torch.allclose(losses.add_noise(FLOW, LATENTS, NOISE, LEVELS), reference, atol=1e-6)
    step = 1e-3  # the target is the derivative along the path
    path = [(1 - t) * LATENTS + t * NOISE for t in (0.3, 0.3 + step)]
    assert torch.allclose(losses.prediction_target(FLOW, LATENTS, NOISE, LEVELS), (path[1] - path[0]) / step, atol=1e-2)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_min_snr_weights_equal_the_paper(prediction: str) -> None:
    scheduler, schedule = ddpm(prediction)
    snr = compute_snr(scheduler, LEVELS).double()
    wanted = np.minimum(snr, 5) / (snr + (prediction == "v_prediction"))
    assert torch.allclose(losses.loss_weights(schedule, 5.0, LEVELS).double(), wanted, rtol=1e-4)
    assert torch.equal(losses.loss_weights(schedule, None, LEVELS), torch.ones(6))
    assert torch.isfinite(losses.loss_weights(ddpm(prediction, zero=True)[1], 5.0, LEVELS)).all()


def drawn(schedule: NoiseSchedule, **settings) -> np.ndarray:
    random = torch.Generator().manual_seed(8)
    uniform, normal = torch.rand(20_000, generator=random), torch.randn(20_000, generator=random)
    found = losses.draw_noise_levels(schedule, LossConfig(**settings), uniform, normal)
    assert found.dtype == torch.int64 and found.min() >= 0 and found.max() < len(schedule.signal)
    return found.numpy()


def test_densities_have_the_law_of_their_papers() -> None:
    """Kolmogorov-Smirnov against the closed form of each, on 20,000 draws of 1,000 levels."""
    shares = (drawn(FLOW, density="uniform") + 0.5) / 1000
    assert stats.kstest(shares, "uniform").pvalue > 0.01
    shares = (drawn(FLOW, density="logit_normal", density_mean=0.5, density_std=0.8) + 0.5) / 1000
    assert stats.kstest(np.log(shares / (1 - shares)), stats.norm(0.5, 0.8).cdf).statistic < 0.02
    shares = (drawn(FLOW, density="shift", density_shift=3.0) + 0.5) / 1000
    assert stats.kstest(shares / (3 - 2 * shares), "uniform").statistic < 0.02  # the inverse of the shift


def test_style_density_is_normal_in_log_snr_where_levels_reach() -> None:
    """On the flow path log-SNR = 2 log((1 - t) / t); its normal(-6, 2) has 95 % at t > .65."""
    t = (drawn(FLOW, density="style") + 1) / 1000
    inner = (t > 0.5) & (t < 0.995)
    seen = 2 * np.log((1 - t[inner]) / t[inner])
    assert np.quantile(2 * np.log(np.clip((1 - t) / t, 1e-9, None)), 0.5) == pytest.approx(-6, abs=0.1)
    assert np.quantile(seen, [0.9]) == pytest.approx(stats.norm(-6, 2).ppf(0.9), abs=0.25)
    assert np.median(drawn(ddpm("epsilon")[1], density="style")) > 900


def test_losses_are_means_over_each_picture() -> None:
    predicted = LATENTS + NOISE
    slow = [float(((predicted[i] - LATENTS[i]) ** 2).mean()) for i in range(6)]
    assert losses.loss_per_picture(predicted, LATENTS, None).tolist() == pytest.approx(slow)
    d = (predicted - LATENTS).abs().double().numpy()
    huber = np.where(d <= 0.7, d**2, 2 * 0.7 * d - 0.7**2).reshape(6, -1).mean(1)
    assert losses.loss_per_picture(predicted, LATENTS, 0.7).tolist() == pytest.approx(huber.tolist(), rel=1e-5)


def test_offset_moves_whole_channels() -> None:
    constant = torch.randn(6, 4, 1, 1, generator=RANDOM)
    moved = losses.add_noise_offset(NOISE, 0.1, constant) - NOISE
    assert torch.allclose(moved, (0.1 * constant).expand_as(NOISE), atol=1e-6)
    assert losses.add_noise_offset(NOISE, 0.0, constant) is NOISE


def test_preference_losses_equal_the_paper() -> None:
    """Equation 14 of arXiv 2311.12908, pair by pair: ln 2 where nothing has changed, more where it got worse."""
    errors, reference = np.array([0.10, 0.30, 0.20, 0.20]), np.array([0.11, 0.30, 0.19, 0.25])  # chosen, then rejected
    found, margin = losses.preference_losses(torch.tensor(errors), torch.tensor(reference), beta=200.0)
    for i in range(2):
        inside = (errors[i] - reference[i]) - (errors[i + 2] - reference[i + 2])
        wanted = -np.log(1 / (1 + np.exp(0.5 * 200.0 * inside)))
        assert float(found[i]) == pytest.approx(wanted, rel=1e-9)
    assert margin[0] > 0 > margin[1] and found[0] < np.log(2) < found[1]
    same = losses.preference_losses(torch.tensor(reference), torch.tensor(reference), beta=200.0)[0]
    assert torch.equal(same, torch.full((2,), np.log(2), dtype=torch.float64))
