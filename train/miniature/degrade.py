"""What goes wrong with pictures, by kind: for the encoder's words of quality and the aesthetic head."""

import numpy as np
from PIL import Image, ImageFilter
from scipy import ndimage


def blurred_copy(pixels: np.ndarray, r: np.random.Generator) -> np.ndarray:
    """The picture, uint8 [h, w, 3], blurred by a random amount."""
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(r.uniform(1.0, 2.5))))


def noisy_copy(pixels: np.ndarray, r: np.random.Generator) -> np.ndarray:
    """The picture, uint8 [h, w, 3], with random noise of a random strength."""
    values = pixels + r.normal(0, r.uniform(10, 40), pixels.shape)
    return values.clip(0, 255).astype(np.uint8)


def partly_covered_copy(pixels: np.ndarray, r: np.random.Generator) -> np.ndarray:
    """The picture, uint8 [64, 64, 3], with a rectangle of a random colour over a part of it."""
    out = pixels.copy()
    x, y = r.integers(8, 36, 2)
    w, h = r.integers(14, 34, 2)
    out[y : y + h, x : x + w] = r.integers(0, 256, 3)
    return out


def melted_copy(pixels: np.ndarray, r: np.random.Generator) -> np.ndarray:
    """The picture, uint8 [64, 64, 3], with shapes that melt: each point comes from a few pixels away,
    smoothly varying.
    """
    shift = ndimage.gaussian_filter(r.normal(0, 1, (2, 64, 64)), (0, 4, 4))
    shift *= r.uniform(2.0, 4.5) / shift.std()
    places = np.mgrid[0:64, 0:64] + shift
    channels = [ndimage.map_coordinates(pixels[..., c], places, order=1, mode="nearest") for c in range(3)]
    return np.stack(channels, -1)


def half_missing_copy(pixels: np.ndarray, r: np.random.Generator) -> np.ndarray:
    """The picture, uint8 [64, 64, 3], with about half of it, from a random side, in the colour of a corner."""
    turns = int(r.integers(4))
    out = np.rot90(pixels, turns).copy()
    out[32 + int(r.integers(-8, 9)) :] = out[0, 0]
    return np.rot90(out, -turns)


DEGRADE = {
    "blurry": blurred_copy,
    "noisy": noisy_copy,
    "covered": partly_covered_copy,
    "melted": melted_copy,
    "half missing": half_missing_copy,
}
