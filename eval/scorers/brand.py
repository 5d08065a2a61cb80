"""Brand: log-odds that a picture is of the brand and not of another hand. A reader is learned for each brand.

What the reader sees of a picture: the encoder's embedding; mean and deviation over places of each channel of its
patches; how often each of 64 colours, each saturation and each brightness occurs; and how often brightness changes by
how much between neighbours, at three scales. Ridge regression tells the references from foreign pictures
(eval/measuring/foreign.py). Logistic regression makes log-odds of its response. Range about [-40, 40], higher is
better; 0: as likely the one as the other.

Every reference is read by a reader that does not know it, and every shipped set by a reader that does not know the
set: so the lines stand for pictures that nobody has seen. A set of foreign=DIR is there to be known: each of its
pictures is read by a reader that knows the others of the set.

Whether a style can be read at all is measured in the same way: the area under the ROC curve of the references against
each foreign set by itself. Where the nearest set's lower bound is below READABLE, nothing is accepted on style.

Fails on art that differs from all foreign sets, and from the brand, in what the brand does not have either: other lines
(`drawing`, `palette`, `style`) must see that. Subjects count too: a brand of faces is partly known by faces.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.optimize import brentq
from sklearn.metrics import roc_auc_score

from eval.measuring.measured import Features, ForeignSet, Measured, percentiles
from eval.measuring.record import Readability, SeparationFrom
from eval.policy.lines import MIN_REFERENCES
from eval.scorers.prompt import fit_logistic
from stylegate import pictures

READABLE = 0.85  # lower bound of the area against the nearest foreign set; below it the style is not readable
ONE_SIDED = 1.645  # standard deviations: a lower bound with 95 % confidence
RIDGE = 0.01  # penalty; rows have squared length near the number of blocks, weights of all rows sum to 1
FLOOR = 0.05  # of a block's mean variance: features that hardly vary are not blown up
BLOCKS_OF_PATCHES, SIDE = 2, pictures.SIDE
TOGETHER = 256  # pictures at once: bounds the memory
LEVELS = np.arange(256)
COLOURS = 4  # a channel
STEPS = np.minimum(np.ceil(np.log2(LEVELS + 1)), 8).astype(np.uint8)  # of a difference of levels: 0, 1, 2-3, 4-7, ...
TENTHS = (LEVELS * 10 // 256).astype(np.uint8)  # of brightness and of saturation


def counted(cells: NDArray, kinds: int) -> NDArray[np.float32]:
    """[n, kinds] root of the share of each kind among the numbers of a row of [n, ...]; roots make rare kinds count."""
    rows = cells.reshape(len(cells), -1)
    places = rows + kinds * np.arange(len(rows), dtype=np.int32)[:, None]
    found = np.bincount(places.ravel(), minlength=kinds * len(rows)).reshape(len(rows), kinds)
    return np.sqrt(found / rows.shape[1], dtype=np.float32)


def inks(signatures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[n, 84] how often colours, brightnesses and saturations occur in signatures [n, 64, 64, 3]."""
    cells = (signatures // (256 // COLOURS)).astype(np.uint8)
    colours = cells[..., 0] * COLOURS**2 + cells[..., 1] * COLOURS + cells[..., 2]
    saturation = signatures.max(3) - signatures.min(3)
    return np.concatenate(
        [counted(colours, COLOURS**3), counted(TENTHS[luma(signatures)], 10), counted(TENTHS[saturation], 10)], axis=1
    )


def luma(signatures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[n, 64, 64] brightness (ITU-R BT.601), 0 to 255, of signatures [n, 64, 64, 3]."""
    red, green, blue = (signatures[..., i] * np.uint16(share) for i, share in enumerate((77, 150, 29)))
    return ((red + green + blue) >> 8).astype(np.uint8)


def strokes(signatures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[n, 54] how often brightness changes by how much, once and twice running, at three scales."""
    levels, found = luma(signatures), []
    for scale in (1, 2, 4):
        side = SIDE // scale
        small = levels.reshape(-1, side, scale, side, scale).mean((2, 4), dtype=np.float32).astype(np.int16)
        across, down = np.diff(small, axis=2), np.diff(small, axis=1)
        once = np.concatenate([STEPS[np.abs(part)].reshape(len(small), -1) for part in (across, down)], axis=1)
        twice = STEPS[np.minimum(np.abs(np.diff(across, axis=2)), 255)]
        found += [counted(once, 9), counted(twice, 9)]
    return np.concatenate(found, axis=1)


def patch_statistics(patches: NDArray[np.float16], width: int) -> list[NDArray[np.float32]]:
    """Mean and deviation over places, [n, 2 * width] each, of patches [n, 2 * width * places] (unit rows)."""
    places = patches.reshape(len(patches), BLOCKS_OF_PATCHES * width, -1).astype(np.float32)
    return [places.mean(2), places.std(2)]


def appearance(shown: Features | ForeignSet, with_encoder: bool) -> list[NDArray[np.float32]]:
    """What a reader sees: blocks [n, k] of numbers, each block of one kind."""
    from eval.measuring.encoder import CHANNELS

    starts = range(0, len(shown.signatures), TOGETHER)
    parts = [shown.signatures[start : start + TOGETHER] for start in starts]
    blocks = [np.concatenate([measure(part) for part in parts]) for measure in (inks, strokes)]
    if not with_encoder:
        return blocks
    blocks.append(shown.embeddings)
    return [*blocks, *patch_statistics(shown.patches, CHANNELS)] if shown.patches.shape[1] else blocks


class Scaling(NamedTuple):
    """Makes blocks comparable: each has mean 0 and mean squared length near 1 over foreign pictures."""

    means: list[NDArray]  # [k] of each block
    widths: list[NDArray]

    def rows(self, blocks: list[NDArray]) -> NDArray[np.float64]:
        """[n, k of all blocks]"""
        scaled = [(b - m) / w for b, m, w in zip(blocks, self.means, self.widths, strict=True)]
        return np.concatenate(scaled, axis=1, dtype=np.float64)


def scaling_of(blocks: list[NDArray]) -> Scaling:
    """From the blocks of foreign pictures."""
    variances = [block.var(0, dtype=np.float64) for block in blocks]
    widths = [np.sqrt((v + FLOOR * v.mean() + 1e-12) * len(v)) for v in variances]
    return Scaling([block.mean(0, dtype=np.float64) for block in blocks], widths)


class Fitted(NamedTuple):
    """Ridge regression of 1 for the brand and -1 for others."""

    weights: NDArray[np.float64]  # [k]
    offset: float
    left_out: NDArray[np.float64]  # [n] response to each row by a fit of the others

    def responses(self, rows: NDArray) -> NDArray[np.float64]:
        return rows @ self.weights + self.offset


def fit(rows: NDArray, truth: NDArray, weights: NDArray) -> Fitted:
    """Of rows [n, k]; `truth` [n] is 1 or -1, `weights` [n] are above 0.

    A row's response by a fit of the others follows from its leverage in the fit of all.
    """
    weights = np.divide(weights, weights.sum(), dtype=np.float64)
    mean, level, root = weights @ rows, weights @ truth, np.sqrt(weights)
    centred = (rows - mean) * root[:, None]
    factor = np.linalg.cholesky(centred.T @ centred + RIDGE * np.eye(rows.shape[1]))
    half = solve_triangular(factor, centred.T, lower=True, check_finite=False)  # [k, n]
    found = solve_triangular(factor, half @ ((truth - level) * root), lower=True, trans=1, check_finite=False)
    leverage = np.square(half).sum(0) + weights
    offset = float(level - mean @ found)
    left = truth - (truth - rows @ found - offset) / np.maximum(1 - leverage, 1e-6)
    return Fitted(found.astype(np.float64), offset, left)


def row_weights(own: int, sets: list[ForeignSet]) -> NDArray[np.float64]:
    """[own + all of sets]: half for the references, half for foreign pictures; of that, half for sets that were given.

    Sets of a kind count alike, whatever their size.
    """
    kinds = {kind: sum(one.given == kind for one in sets) for kind in (True, False)}
    shares = [1 / (kinds[one.given] * sum(map(bool, kinds.values()))) for one in sets]
    each = [np.full(len(one.signatures), share / len(one.signatures)) for one, share in zip(sets, shares, strict=True)]
    return np.concatenate([np.full(own, 1 / own), *each]).astype(np.float64) / 2


class Separation(NamedTuple):
    """How surely the references are told from one foreign set: area under the ROC curve."""

    name: str
    area: float
    low: float  # lower bound, 95 % confidence


class BrandReader(NamedTuple):
    """A fitted reader, and how well it reads."""

    scaling: Scaling
    fitted: Fitted
    slope: float  # of log-odds in the response
    offset: float
    own: NDArray[np.float32]  # [r] log-odds of each reference by a reader that does not know it
    foreign: NDArray[np.float32]  # log-odds of foreign pictures by readers that do not know them
    separations: list[Separation]  # from each foreign set, the nearest one first
    different: int  # references that are no copies of one another
    with_encoder: bool

    def log_odds(self, shown: Features) -> NDArray[np.float32]:
        """[n] of pictures."""
        responses = self.fitted.responses(self.scaling.rows(appearance(shown, self.with_encoder)))
        return (self.slope * responses + self.offset).astype(np.float32)


def learn(references: Features, sets: list[ForeignSet], with_encoder: bool) -> BrandReader:
    """A reader of the brand. Copies among the references count once, so that none is read by its own copy."""
    contents = [signature.tobytes() for signature in references.signatures]
    different = list(dict.fromkeys(contents))
    first, copy_of = [contents.index(one) for one in different], [different.index(one) for one in contents]
    shown = [appearance(references, with_encoder), *(appearance(one, with_encoder) for one in sets)]
    scaling = scaling_of([np.concatenate(blocks) for blocks in zip(*shown[1:], strict=True)])
    own, others = scaling.rows(shown[0])[first], [scaling.rows(blocks) for blocks in shown[1:]]
    rows, weights, r = np.concatenate([own, *others]), row_weights(len(own), sets), len(own)
    truth = np.where(np.arange(len(rows)) < r, 1.0, -1.0)
    whole = fit(rows, truth, weights)
    ends = r + np.cumsum([0, *(len(other) for other in others)])
    foreign, separations = [], []
    for one, start, end in zip(sets, ends, ends[1:], strict=False):
        fitted, apart = whole.left_out[:r], whole.left_out[start:end]
        if not one.given and len(sets) > 1:
            rest = np.r_[0:start, end : len(rows)]
            without = fit(rows[rest], truth[rest], weights[rest])
            fitted, apart = without.left_out[:r], without.responses(rows[start:end])
        foreign.append(apart)
        separations.append(Separation(one.name, *area_with_bound(fitted, apart)))
    every = np.concatenate([whole.left_out[:r], *foreign])
    slope, offset = fit_logistic(every, truth)
    log_odds = (slope * every + offset).astype(np.float32)
    separations.sort(key=lambda found: (found.low, found.area))
    return BrandReader(scaling, whole, slope, offset, log_odds[:r][copy_of], log_odds[r:], separations, r, with_encoder)


def area_with_bound(own: NDArray, others: NDArray) -> tuple[float, float]:
    """Area under the ROC curve of `own` above `others`, and its lower bound, of 95 % confidence.

    The score interval of Newcombe (2006, method 5), on Hanley and McNeil's variance: it says less of few pictures also
    where the area is 1.
    """
    m, n = len(own), len(others)
    area = float(roc_auc_score(np.r_[np.ones(m), np.zeros(n)], np.r_[own, others]))
    middle = (m + n) / 2 - 1

    def beyond(low: float) -> float:
        spread = low * (1 - low) * (1 + middle * ((1 - low) / (2 - low) + low / (1 + low))) / (m * n)
        return area - low - ONE_SIDED * np.sqrt(spread)

    return area, float(brentq(beyond, 0, min(area, 1 - 1e-9))) if area > 0 else 0.0  # type: ignore[arg-type]


# The columns of scores.parquet (eval/scorers/__init__.py).


def column(measured: Measured) -> NDArray[np.float32]:
    """[n] log-odds of the lot's pictures. Notes how well the style can be read."""
    reader = learn(measured.references, measured.foreign_sets, measured.comparable)
    measured.brand_reader = reader
    measured.foreign["brand"] = percentiles(reader.foreign)
    nearest = reader.separations[0]
    measured.readability = Readability(
        readable=nearest.low >= READABLE and reader.different >= MIN_REFERENCES,
        different_references=reader.different,
        needed=READABLE,
        nearest=nearest.name,
        separations={s.name: SeparationFrom(area=round(s.area, 3), low=round(s.low, 3)) for s in reader.separations},
        reads=["encoder", "pixels"] if measured.comparable else ["pixels"],
    )
    return reader.log_odds(measured.pictures)


def references_column(measured: Measured) -> NDArray[np.float32]:
    """[r] log-odds of each reference by a reader that does not know it."""
    return measured.brand_reader.own
