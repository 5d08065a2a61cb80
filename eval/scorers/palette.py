"""Palette: how usual a picture's colours are among the references. A pixel fact: no encoder is asked.

The references' colours are counted in 16 x 16 x 16 cells of sRGB and smoothed; the score is the mean of the logarithm
of that density over the picture's pixels (64 x 64 of them: its signature), in nats. Range about [-12, 0], higher is
nearer. It sees tints, foreign inks, noise and recompression in brands of few colours, and a patch of a strange colour.
It knows nothing of where a colour stands; a picture that lost half of itself to the ground has usual colours. Fails
where the references show few of the colours that a brand allows: then a rare trait looks strange. Pictures of a model
have colours between the brand's (docs/log.md), so that it does not gate by default.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

CELLS = 16  # a channel
SMOOTHING = 0.7  # cells; references are few, and a colour beside a usual one is nearly as usual
UNSEEN = 1e-5  # density of a colour that no reference shows
BLOCK = 1024  # pictures at once


def colours(signatures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[n, CELLS^3] shares of each picture's pixels, of signatures [n, 64, 64, 3]."""
    cells = (signatures // (256 // CELLS)).reshape(len(signatures), -1, 3).astype(np.int64) @ [CELLS**2, CELLS, 1]
    counts = [np.bincount(row, minlength=CELLS**3) for row in cells]
    return np.array(counts, np.float32).reshape(len(signatures), CELLS**3) / max(cells.shape[1], 1)


def density(shares: NDArray) -> NDArray:
    """[CELLS^3] logarithm of the smoothed density of pictures' colours."""
    cube = shares.reshape(CELLS, CELLS, CELLS)
    return np.log(ndimage.gaussian_filter(cube, SMOOTHING, mode="nearest").ravel() + UNSEEN)


def score(signatures: NDArray[np.uint8], references: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[n] of signatures [n, 64, 64, 3] against those of the references."""
    usual = density(colours(references).mean(0))
    parts = [colours(signatures[i : i + BLOCK]) @ usual for i in range(0, len(signatures), BLOCK)]
    return np.concatenate(parts).astype(np.float32) if parts else np.zeros(0, np.float32)


def leave_one_out(references: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[r] each reference against the others."""
    shares = colours(references)
    total, others = shares.sum(0), max(len(references) - 1, 1)
    return np.array([own @ density((total - own) / others) for own in shares], np.float32)
