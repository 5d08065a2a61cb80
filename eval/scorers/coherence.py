"""Coherence: whether a picture is drawn as clearly as the references are, or has melted. No encoder is asked.

Each of the eight neighbours of a pixel is brighter, darker, or as bright: one of 3^8 patterns. How often each pattern
occurs is counted twice on signatures (64 x 64 pixels): in the references, as they are and a little softened, since a
model's decoder softens; and in melted copies of them, in which two references flow into each other, lines bend, and
some places blur. The score is the mean log ratio of the two frequencies over the pixels that differ from a neighbour,
on a scale on which the references' median is 0 and the melted copies' median is -1. Range about [-4, 4], higher is
better: crisper drawing than the references' lies above 0. It sees washed-out shapes, smears, and slopes where the brand
has edges or flat areas. All pictures are smoothed first: else crisp brands would take every decoded picture for melted.
It knows nothing of what is shown: a clear drawing of the wrong thing scores high, and so does what melts below the size
of a signature's pixel. Two pictures that shine through each other are often taken for one. Fails for brands that look
melted by intent, such as watercolour.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from eval.measuring.remembered import RememberedResults
from stylegate.pictures import CORES

SIDE = 64  # pixels of a signature's side
UNIT = 64  # whole numbers to a level of luma: the same on every machine
DIFFERENT = 2 * UNIT  # 2 levels of luma; by less, a neighbour is as bright
NEIGHBOURS = [(0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1)]  # down, right
PATTERNS = 3 ** len(NEIGHBOURS)
FEWEST = 64  # pixels that differ from a neighbour; with fewer the score goes to 0
SOFTENED = 0.6  # pixels, standard deviation: about what the autoencoder of a diffusion model does
PARTS, STEEP = 3.0, 3.0  # where one reference flows into another: width in pixels, steepness of the border
WAVES, BENT = 2.0, 2.5  # width of the waves that lines bend in, and their deviation, both in pixels
JAGGED, BLURRED = 0.5, 1.25  # pixels, standard deviations: smooths what was bent, and blurs places
PRIOR = 1.0  # pixels, added to each pattern's count
LEAST = 0.1  # nats between references and melted copies; of brands that look melted, smaller steps mean nothing
MOST = 256  # references that are learned from; of more, an even spread
TOGETHER = 64  # pictures that are looked at at once, so that they stay in a core's cache

_LEARNED: "RememberedResults[CoherenceModel]" = RememberedResults(4)  # the lot and the references ask for it in turn


def smoothed_luma(signatures: NDArray[np.uint8]) -> NDArray[np.int16]:
    """[n, 64, 64] luma (ITU-R BT.601), UNIT to a level, of signatures [n, 64, 64, 3] after a binomial 3 x 3 mask."""
    red, green, blue = (signatures[..., i] * np.uint16(share) for i, share in enumerate((19, 38, 7)))
    levels = np.pad(red + green + blue, ((0, 0), (1, 1), (1, 1)), mode="edge")
    across = (levels[:, :, :-2] + 2 * levels[:, :, 1:-1] + levels[:, :, 2:]) >> 2  # at most 4 * 255 * UNIT: 16 bits
    return ((across[:, :-2] + 2 * across[:, 1:-1] + across[:, 2:]) >> 2).astype(np.int16)


def local_patterns(signatures: NDArray[np.uint8]) -> NDArray[np.int16]:
    """[n, 4096] the number of the pattern around each pixel of signatures [n, 64, 64, 3], from 0 to PATTERNS - 1; it is
    0 where all neighbours are as bright.
    """
    levels = smoothed_luma(signatures)
    around = np.pad(levels, ((0, 0), (1, 1), (1, 1)), mode="edge")
    bright, dark = levels + np.int16(DIFFERENT), levels - np.int16(DIFFERENT)
    found, yes = np.zeros_like(levels), np.empty(levels.shape, bool)
    for down, right in NEIGHBOURS:
        there = around[:, 1 + down : 1 + down + SIDE, 1 + right : 1 + right + SIDE]
        found *= 3
        found += np.greater(there, bright, out=yes)
        found += np.less(there, dark, out=yes)
        found += yes
    return found.reshape(len(found), -1)


def pattern_counts(signatures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[n, PATTERNS] how many pixels of each of the signatures [n, 64, 64, 3] have each pattern around them."""
    return np.stack([np.bincount(one, minlength=PATTERNS) for one in local_patterns(signatures)]).astype(np.float32)


def blurred_pictures(pictures: NDArray, deviation: float) -> NDArray:
    """[n, 64, 64, 3] the pictures after a Gaussian blur of this standard deviation in pixels."""
    return ndimage.gaussian_filter(pictures, (0, deviation, deviation, 0), mode="nearest")


def melted_copies(signatures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[n, 64, 64, 3] copies in which each picture flows into the next one; always the same for the same pictures in the
    same order.
    """
    random, n = np.random.default_rng(0), len(signatures)

    def smooth_random_noise(width: float) -> NDArray:
        """[n, 64, 64] smooth noise of deviation 1."""
        rough = random.standard_normal((n, SIDE, SIDE), np.float32)
        smooth = ndimage.gaussian_filter(rough, (0, width, width), mode="wrap")
        return smooth / smooth.std((1, 2), keepdims=True)

    def random_blend_masks() -> NDArray:
        """[n, 64, 64, 1] between 0 and 1, mostly near either."""
        return 1 / (1 + np.exp(-STEEP * smooth_random_noise(PARTS)))[..., None]

    mixed = signatures + random_blend_masks() * (np.roll(signatures, 1, axis=0).astype(np.float32) - signatures)
    rows, columns = (
        np.clip(np.rint(grid + BENT * smooth_random_noise(WAVES)), 0, SIDE - 1).astype(int)
        for grid in np.indices((SIDE, SIDE))
    )
    bent = blurred_pictures(mixed[np.arange(n)[:, None, None], rows, columns], JAGGED)
    return np.rint(bent + random_blend_masks() * (blurred_pictures(bent, BLURRED) - bent)).clip(0, 255).astype(np.uint8)


def pattern_log_ratios(drawn: NDArray[np.float32], molten: NDArray[np.float32]) -> NDArray[np.float32]:
    """[PATTERNS] log of the ratio of the two frequencies of each pattern, drawn over molten, from counts [PATTERNS].

    0 for the pattern in which all neighbours are as bright.
    """
    first, second = (np.log((of + PRIOR) / (of.sum() + PRIOR * PATTERNS)) for of in (drawn, molten))
    return np.where(np.arange(PATTERNS) > 0, first - second, 0).astype(np.float32)


def mean_log_drawn_over_melted(signatures: NDArray[np.uint8], ratios: NDArray[np.float32]) -> NDArray[np.float32]:
    """[n] mean of log(drawn / melted) over the pixels of signatures [n, 64, 64, 3] that differ from a neighbour.

    `ratios` [PATTERNS] has that log by pattern. With fewer than FEWEST such pixels the mean is drawn towards 0.
    """
    found = local_patterns(signatures)
    return ratios[found].sum(1) / np.maximum(np.count_nonzero(found, axis=1), FEWEST).astype(np.float32)


class CoherenceModel(NamedTuple):
    """What the coherence score has learned from references: the log ratio of each pattern between them and melted
    copies of them, the mean log ratio of each reference, and the unit of the score.
    """

    ratios: NDArray[np.float32]  # [PATTERNS]
    own: NDArray[np.float32]  # [r] mean log ratio of each reference, by the counts of the others and of their copies
    scale: float  # nats from the melted copies' median to the references'

    def coherence_scores_from_mean_log_ratios(self, means: NDArray[np.float32]) -> NDArray[np.float32]:
        """[n] scores of pictures from their mean log ratios [n]: 0 is the median of the references, and -1 the median
        of their melted copies, if the two medians are at least LEAST apart.
        """
        return ((means - np.median(self.own)) / self.scale).astype(np.float32)


def learn_coherence_model(references: NDArray[np.uint8]) -> CoherenceModel:
    """Learn the log ratios and the scale from signatures [r, 64, 64, 3] of references, r > 0."""
    return _LEARNED.result_for([references, MOST], lambda: learn_coherence_model_anew(references))


def learn_coherence_model_anew(references: NDArray[np.uint8]) -> CoherenceModel:
    """What `learn_coherence_model` remembers."""
    chosen = np.unique(np.linspace(0, len(references) - 1, min(len(references), MOST)).astype(int))
    some = references[chosen]
    copies = melted_copies(some)
    drawn, molten = pattern_counts(some) + pattern_counts(blurred_pictures(some, SOFTENED)), pattern_counts(copies)
    all_drawn, all_molten = drawn.sum(0), molten.sum(0)
    ratios = pattern_log_ratios(all_drawn, all_molten)
    own, of_copies = mean_log_ratio_on_all_cores(references, ratios), np.empty(len(some), np.float32)
    for i, place in enumerate(chosen):
        without = pattern_log_ratios(all_drawn - drawn[i], all_molten - molten[i])
        own[place], of_copies[i] = mean_log_drawn_over_melted(np.stack([some[i], copies[i]]), without)
    return CoherenceModel(ratios, own, max(float(np.median(own) - np.median(of_copies)), LEAST))


def mean_log_ratio_on_all_cores(signatures: NDArray[np.uint8], ratios: NDArray[np.float32]) -> NDArray[np.float32]:
    """[n] `mean_log_drawn_over_melted` of signatures [n, 64, 64, 3], computed on all cores; n may be 0."""
    parts = [signatures[start : start + TOGETHER] for start in range(0, len(signatures), TOGETHER)]
    with ThreadPoolExecutor(CORES) as pool:
        return np.concatenate(
            [np.zeros(0, np.float32), *pool.map(lambda part: mean_log_drawn_over_melted(part, ratios), parts)]
        )


def score(signatures: NDArray[np.uint8], references: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[n] coherence score of pictures with signatures [n, 64, 64, 3], from the references' signatures
    [r, 64, 64, 3].
    """
    learned = learn_coherence_model(references)
    return learned.coherence_scores_from_mean_log_ratios(mean_log_ratio_on_all_cores(signatures, learned.ratios))


def leave_one_out(references: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[r] coherence score of each reference by the counts of the other ones; signatures [r, 64, 64, 3]."""
    learned = learn_coherence_model(references)
    return learned.coherence_scores_from_mean_log_ratios(learned.own)
