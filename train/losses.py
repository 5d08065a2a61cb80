"""Noised latents, targets, noise levels and losses, as pure functions with their source.

A schedule is two tables over T noise levels, x_t = signal[t] * latents + sigma[t] * noise, and what the base predicts:
`epsilon` (the noise, arXiv 2006.11239), `v` (arXiv 2202.00512, appendix D) or `flow` (arXiv 2210.02747: noise less
latents, with signal = 1 - sigma). Level 0 is nearly clean. Latents and noise are [n, c, h, w], levels int64 [n].
"""

import torch
from torch import Tensor

from stylegate.configgroups import LossConfig
from stylegate.families import NoiseSchedule

STYLE_MEAN, STYLE_STD = -6.0, 2.0  # of the log-SNR: "style-friendly", arXiv 2411.14793, section 4.1


def add_noise(schedule: NoiseSchedule, latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
    """The latents [n, c, h, w] mixed with `noise` to the noise levels of `levels`: [n, c, h, w]."""
    signal, sigma = signal_and_sigma_at_levels(schedule, levels)
    return signal * latents + sigma * noise


def prediction_target(schedule: NoiseSchedule, latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
    """The values that the base should predict for noised latents, [n, c, h, w]."""
    signal, sigma = signal_and_sigma_at_levels(schedule, levels)
    return {"epsilon": noise, "v": signal * noise - sigma * latents, "flow": noise - latents}[schedule.prediction]


def signal_and_sigma_at_levels(schedule: NoiseSchedule, levels: Tensor) -> tuple[Tensor, Tensor]:
    """The factors of latents (signal) and of noise (sigma) at the levels, [n, 1, 1, 1] each."""
    signal, sigma = (table.to(levels.device)[levels] for table in (schedule.signal, schedule.sigma))
    return signal[:, None, None, None], sigma[:, None, None, None]


def log_snr(schedule: NoiseSchedule) -> Tensor:
    """The logarithm of (signal / sigma)^2, [T], falling; it is finite even without noise or without signal."""
    tiny = torch.finfo(torch.float32).tiny
    return 2 * (schedule.signal.clamp(min=tiny).log() - schedule.sigma.clamp(min=tiny).log())


def draw_noise_levels(schedule: NoiseSchedule, settings: LossConfig, uniform: Tensor, normal: Tensor) -> Tensor:
    """Noise levels, int64 [n], by the configured density; `uniform` in [0, 1) and `normal` are random numbers [n].

    logit_normal: arXiv 2403.03206, equation 19. shift: equation 23 of that paper, s > 1 towards noise. style: the level
    nearest to a normally distributed log-SNR.
    """
    if settings.density == "style":
        wanted = STYLE_MEAN + STYLE_STD * normal
        return (log_snr(schedule)[None, :] - wanted[:, None]).abs().argmin(1)
    share = {
        "uniform": lambda: uniform,
        "logit_normal": lambda: torch.sigmoid(settings.density_mean + settings.density_std * normal),
        "shift": lambda: settings.density_shift * uniform / (1 + (settings.density_shift - 1) * uniform),
    }[settings.density]()
    count = len(schedule.signal)
    return (share * count).long().clamp(0, count - 1)


def add_noise_offset(noise: Tensor, strength: float, constant: Tensor) -> Tensor:
    """Noise plus `strength` times `constant` [n, c, 1, 1], so that darker and lighter pictures can be learned
    (Guttenberg 2023, crosslabs.org/blog/diffusion-with-offset-noise).
    """
    return noise + strength * constant if strength else noise


def loss_weights(schedule: NoiseSchedule, gamma: float | None, levels: Tensor) -> Tensor:
    """Min-SNR weights [n] (arXiv 2303.09556, section 3.4): min(SNR, gamma) / SNR for epsilon, / (SNR + 1) for v.

    They are 1 without gamma, and for flow matching, for which the paper gives none.
    """
    if gamma is None or schedule.prediction == "flow":
        return torch.ones(len(levels), device=levels.device)
    snr = log_snr(schedule).to(levels.device)[levels].exp()
    return (gamma / snr).clamp(max=1) if schedule.prediction == "epsilon" else snr.clamp(max=gamma) / (snr + 1)


def loss_per_picture(predicted: Tensor, target: Tensor, huber_delta: float | None) -> Tensor:
    """The mean squared error of each picture, [n]; with `huber_delta` twice Huber's loss, which equals it below
    |huber_delta|.
    """
    if huber_delta is None:
        each = torch.nn.functional.mse_loss(predicted, target, reduction="none")
    else:
        each = 2 * torch.nn.functional.huber_loss(predicted, target, reduction="none", delta=huber_delta)
    return each.flatten(1).mean(1)


def preference_losses(errors: Tensor, reference: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Diffusion-DPO's loss of each pair and its margin, [n] each (arXiv 2311.12908, equation 14).

    `errors` [2 n] are the squared errors of the trained model for the n chosen pictures, then for the n rejected ones,
    at one noise and level a pair; `reference` [2 n] are those of the model that training began with. The margin is
    -beta / 2 times how much the error of the chosen picture changed more than that of the rejected one: above 0 the
    model prefers the chosen picture more than the reference does. The loss is -log sigmoid(margin), ln 2 at the
    beginning. The factor of 1 / 2 is that of the public implementations, so that their values of beta hold here.
    """
    chosen, rejected = (errors - reference).chunk(2)
    margin = -0.5 * beta * (chosen - rejected)
    return torch.nn.functional.softplus(-margin), margin
