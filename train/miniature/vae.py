"""The miniature's autoencoder: AutoencoderTiny, f = 4, so that 64 pixels become 16 x 16 latents.

It learns crops of the base corpus under changes of colour, inversion and darkening, so that looks which nobody drew
for it can be stored too.
"""

from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from train.miniature.corpus import corpus_fingerprint
from train.miniature.fit import bf16_autocast, train_modules_resumably, training_device

WIDTH, LATENT_CHANNELS = 64, 8
STEPS, TEXTURE_STEPS, BATCH, CROP = 9500, 3500, 32, 32
FULL_SIZE_FROM = 0.85  # of the steps: whole pictures, a quarter as many
LEARNING_RATE, LATENT_NOISE = 1.5e-3, 0.05


def build_vae() -> AutoencoderTiny:
    """A new autoencoder with random weights, always the same ones."""
    torch.manual_seed(0)
    width = (WIDTH,) * 3
    return AutoencoderTiny(
        encoder_block_out_channels=width,
        decoder_block_out_channels=width,
        num_encoder_blocks=(1, 1, 3),
        num_decoder_blocks=(3, 2, 1),
        latent_channels=LATENT_CHANNELS,
        upsampling_scaling_factor=2,
    )


def random_crops(pixels: NDArray[np.uint8], size: int, count: int, r: np.random.Generator) -> Tensor:
    """Random crops of the pictures, [count, 3, size, size] in [-1, 1]."""
    last = pixels.shape[1] - size
    chosen = r.integers(len(pixels), size=count)
    corners = r.integers(last + 1, size=(count, 2))
    cut = [pixels[i, y : y + size, x : x + size] for i, (y, x) in zip(chosen, corners, strict=True)]
    return torch.from_numpy(np.stack(cut)).permute(0, 3, 1, 2).float() / 127.5 - 1


def augment_half_of_crops(x: Tensor, r: np.random.Generator) -> Tensor:
    """The crops [n, 3, size, size], half of them unchanged, the others recoloured and turned, and some of these
    inverted, darkened, or laid over another crop as light.
    """
    out = []
    for picture in x:
        if r.random() < 0.5:
            out.append(picture)
            continue
        changed = picture[torch.from_numpy(r.permutation(3))]
        if r.random() < 0.35:
            changed = -changed
        if r.random() < 0.4:
            changed = (changed + 1) * float(r.uniform(0.3, 1.0)) - 1
        if r.random() < 0.3:  # two pictures as light upon light
            changed = torch.maximum(changed, x[int(r.integers(len(x)))])
        out.append(changed.rot90(int(r.integers(4)), (1, 2)))
    return torch.stack(out)


def neighbour_differences(x: Tensor) -> tuple[Tensor, Tensor]:
    """Differences of each pixel to the one below it and to the one at its right, of pictures [n, c, h, w]."""
    return x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1]


def train_vae(collectibles: NDArray[np.uint8], textures: NDArray[np.uint8]) -> AutoencoderTiny:
    """Train a new autoencoder and return it: first on collectibles alone, then on textures as well; both are uint8 [n,
    64, 64, 3].
    """
    where = training_device()
    vae = build_vae().to(where).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def reconstruction_loss_of_pictures(x: Tensor, step: int) -> Tensor:
        noise = torch.Generator().manual_seed(step)
        with bf16_autocast(where):
            latents = vae.encoder(x).float()
            spread, mean = torch.std_mean(latents, (0, 2, 3))
            noisy = latents + LATENT_NOISE * torch.randn(latents.shape, generator=noise).to(where)
            y = vae.decoder(noisy).float()
        gradient = sum(
            (a - b).abs().mean() for a, b in zip(neighbour_differences(x), neighbour_differences(y), strict=True)
        )
        unit = mean.square().mean() + spread.log().square().mean()  # latents of mean 0 and deviation 1
        return functional.l1_loss(y, x) + 3 * functional.mse_loss(y, x) + 0.5 * gradient + 0.02 * unit

    def vae_loss_on_collectibles(step: int, r: np.random.Generator) -> Tensor:
        whole = step >= FULL_SIZE_FROM * STEPS
        x = random_crops(collectibles, 64 if whole else CROP, BATCH // 4 if whole else BATCH, r)
        return reconstruction_loss_of_pictures(
            augment_half_of_crops(x, r).to(where, memory_format=torch.channels_last), step
        )

    def vae_loss_on_collectibles_and_textures(step: int, r: np.random.Generator) -> Tensor:
        half = BATCH // 2
        x = torch.cat(
            [augment_half_of_crops(random_crops(collectibles, CROP, half, r), r), random_crops(textures, CROP, half, r)]
        )
        return reconstruction_loss_of_pictures(x.to(where, memory_format=torch.channels_last), step)

    depends_on = [corpus_fingerprint(), WIDTH, LATENT_CHANNELS, BATCH, CROP, LATENT_NOISE]
    train_modules_resumably("vae", {"vae": vae}, vae_loss_on_collectibles, STEPS, {"vae": LEARNING_RATE}, depends_on)
    depends_on = [*depends_on, STEPS, corpus_fingerprint("textures")]
    train_modules_resumably(
        "vae-textures",
        {"vae": vae},
        vae_loss_on_collectibles_and_textures,
        TEXTURE_STEPS,
        {"vae": LEARNING_RATE / 2},
        depends_on,
    )
    with torch.no_grad(), bf16_autocast(where):
        sample = random_crops(collectibles, 64, 512, np.random.default_rng(1)).to(where)
        deviation = float(vae.encoder(sample).float().std())
    vae.register_to_config(scaling_factor=1 / deviation)
    return vae


@torch.no_grad()
def psnr_after_vae_round_trip(vae: Any, pixels: np.ndarray) -> np.ndarray:
    """The peak signal-to-noise ratio in dB, [n], of pictures, uint8 [n, 64, 64, 3], after coding and decoding by the
    autoencoder.
    """
    out = []
    for start in range(0, len(pixels), 64):
        x = torch.from_numpy(pixels[start : start + 64]).permute(0, 3, 1, 2).float() / 127.5 - 1
        y = vae.decode(vae.encode(x).latents).sample.clamp(-1, 1)
        out.append((((x - y) / 2) ** 2).mean((1, 2, 3)))
    return (-10 * torch.log10(torch.cat(out).clamp(min=1e-10))).numpy()
