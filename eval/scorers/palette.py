"""Palette: how usual the colours of a picture's flat areas are among the references. No encoder is asked.

Of a picture's signature (64 x 64 pixels) those count whose 3 x 3 neighbourhood is nearly of one colour: edges have
colours between two others, and a model's pictures more of them than a brand's own. The references' flat colours are
counted in 16 x 16 x 16 cells of sRGB and smoothed; the score is the mean of the logarithm of that density, in nats,
over the less usual half of the flat pixels: a patch of a strange colour is not made good by a usual ground.
Range about [-12, 0], higher is nearer. It sees tints, foreign inks and patches. It knows nothing of where a colour
stands; a picture without flat areas scores 0, which says nothing. Fails where the references show few of the colours
that a brand allows: then a rare trait looks strange; and on a tint of what is nearly black.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

CELLS = 16  # a channel
SMOOTHING = 1.2  # cells; references are few, and a colour beside a usual one is nearly as usual
FLAT = 24  # levels of 255 between the brightest and the darkest of a neighbourhood, in any channel
FEWEST = 64  # flat pixels; with fewer the score goes to 0
HALF = 0.5  # of them, the less usual ones, count
UNSEEN = 1e-5  # density of a colour that no reference shows


def colours(signatures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[n, CELLS^3] flat pixels of each colour, of signatures [n, 64, 64, 3]."""
    found = np.zeros((len(signatures), CELLS**3), np.float32)
    for i, one in enumerate(signatures):
        brightest, darkest = (f(one, size=(3, 3, 1)) for f in (ndimage.maximum_filter, ndimage.minimum_filter))
        flat = one[((brightest - darkest) <= FLAT).all(2)]
        cells = (flat // (256 // CELLS)).astype(np.int64) @ [CELLS**2, CELLS, 1]
        found[i] = np.bincount(cells, minlength=CELLS**3)
    return found


def density(counts: NDArray) -> NDArray:
    """[CELLS^3] logarithm of the smoothed density of pictures' colours."""
    cube = (counts / max(counts.sum(), 1)).reshape(CELLS, CELLS, CELLS)
    return np.log(ndimage.gaussian_filter(cube, SMOOTHING, mode="nearest").ravel() + UNSEEN)


def mean_of(counts: NDArray, usual: NDArray) -> NDArray:
    """[n] over the less usual half of counts [n, CELLS^3]."""
    order = np.argsort(usual, kind="stable")
    sorted_counts = counts[..., order]
    before = sorted_counts.cumsum(-1) - sorted_counts
    half = HALF * counts.sum(-1, keepdims=True)
    taken = np.clip(half - before, 0, sorted_counts)
    return taken @ usual[order] / np.maximum(half[..., 0], HALF * FEWEST)


def score(signatures: NDArray[np.uint8], references: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[n] of signatures [n, 64, 64, 3] against those of the references."""
    usual = density(colours(references).sum(0))
    parts = [mean_of(colours(signatures[i : i + 1024]), usual) for i in range(0, len(signatures), 1024)]
    return np.concatenate(parts).astype(np.float32) if parts else np.zeros(0, np.float32)


def leave_one_out(references: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[r] each reference against the others."""
    counts = colours(references)
    total = counts.sum(0)
    return np.array([mean_of(own, density(total - own)) for own in counts], np.float32)
