"""Brand: log-odds that a picture is of the brand and not of another hand. For each brand a
reader, which is a linear classifier, is learned.

What the reader sees of a picture: the encoder's embedding; mean and deviation over places of each channel of its
patches; the same of each further encoder; how often each of 216 colours, each saturation and each brightness occurs, a
colour between two counting for both; how often brightness changes by how much between neighbours, at three scales; and
how wide bright and dark strokes are (eval/scorers/brandfeatures.py).
Ridge regression tells the references from foreign pictures (eval/measuring/foreign.py). Logistic regression makes
log-odds of its response. Range about [-40, 40], higher is better; 0: as likely the one as the other.

The reader is shown each reference twice: as it is, and redrawn as an image model draws (eval/measuring/redrawn.py).
Else a LoRA that draws the brand's style would be refused for its decoder's softness. Lines rest on the lower of the two
responses, areas on their mean.

Every reference is read by a reader that does not know it, and every shipped set by a reader that does not know the
set: so the lines stand for pictures that nobody has seen. A set of foreign=DIR is there to be known: each of its
pictures is read by a reader that knows the others. The base's own pictures are learned from only where a reader that
has not seen them cannot tell them surely (SURELY): they differ from references in what the model draws badly, too,
which a good LoRA draws as badly.

Whether a style can be read at all is measured in the same way: the area under the ROC curve of the references against
each foreign set by itself. Where the nearest set's lower bound is below READABLE, nothing is accepted on style.

Fails on art that differs from all foreign sets, and from the brand, in what the brand does not have either: other lines
(`drawing`, `palette`, `style`) must see that. Subjects count too: a brand of faces is partly known by faces.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from eval.measuring.measured import EncodedPictures, ForeignSet, MeasuredLot, percentiles_0_to_100
from eval.measuring.record import OF_BASE, SeparationFromForeignSet, StyleReadability
from eval.measuring.remembered import RememberedResults
from eval.policy.lines import MIN_REFERENCES
from eval.scorers.brandfeatures import PIXEL_BLOCKS, brand_feature_blocks
from eval.scorers.prompt import fit_platt_scaling
from eval.scorers.ridge import RIDGE, FittedRidge, fit_ridge

SURELY = 0.995  # area: the base's own pictures that are told so well need not be learned from
READABLE = 0.8  # lower bound of the area against the nearest foreign set; below it the style is not readable
ONE_SIDED = 1.645  # standard deviations: a lower bound with 95 % confidence
FLOOR = 0.05  # of a block's mean variance: features that hardly vary are not blown up
BLOCK = 4096  # pictures of a lot at once

_LEARNED: "RememberedResults[BrandClassifier]" = RememberedResults(4)  # a few MB each


class FeatureBlockScaling(NamedTuple):
    """Makes blocks comparable: each has mean 0 and mean squared length near its weight, 1 or less, over foreign
    pictures.
    """

    means: list[NDArray]  # [k] of each block
    widths: list[NDArray]

    def scale_and_concatenate_blocks(self, blocks: list[NDArray]) -> NDArray[np.float64]:
        """The blocks [n, k] of n pictures, scaled and side by side: [n, sum of the blocks' k]."""
        scaled = [(b - m) / w for b, m, w in zip(blocks, self.means, self.widths, strict=True)]
        return np.concatenate(scaled, axis=1, dtype=np.float64)


def fit_block_scaling(blocks: list[NDArray], pixels: bool = True) -> FeatureBlockScaling:
    """The scaling, from the blocks [n, k] of foreign pictures; `FLOOR` keeps features that hardly vary from growing.

    The first blocks have the weights of PIXEL_BLOCKS if there are such (`pixels`), all others 1.
    """
    variances = [block.var(0, dtype=np.float64) for block in blocks]
    weights = list(PIXEL_BLOCKS.values()) if pixels else []
    weights += [1.0] * (len(blocks) - len(weights))
    widths = [
        np.sqrt((v + FLOOR * v.mean() + 1e-12) * len(v) / weight) for v, weight in zip(variances, weights, strict=True)
    ]
    return FeatureBlockScaling([block.mean(0, dtype=np.float64) for block in blocks], widths)


def half_brand_half_foreign_row_weights(own: int, sets: list[ForeignSet]) -> NDArray[np.float64]:
    """[own + pictures of all sets] the weight of each row: half for the `own` rows of references, half for foreign
    pictures.

    Of that second half, half is for sets that the user gave, if there are sets of both kinds.

    Sets of a kind count alike, whatever their size.
    """
    kinds = {kind: sum(one.given == kind for one in sets) for kind in (True, False)}
    shares = [1 / (kinds[one.given] * sum(map(bool, kinds.values()))) for one in sets]
    each = [np.full(len(one.signatures), share / len(one.signatures)) for one, share in zip(sets, shares, strict=True)]
    return np.concatenate([np.full(own, 1 / own), *each]).astype(np.float64) / 2


class RocAreaAgainstForeignSet(NamedTuple):
    """How surely the references are told from one foreign set: area under the ROC curve."""

    name: str
    area: float
    low: float  # lower bound, 95 % confidence


class BrandClassifier(NamedTuple):
    """A fitted linear classifier, "the reader", of one brand against other styles, and how well it tells them apart."""

    scaling: FeatureBlockScaling
    fitted: FittedRidge
    slope: float  # of log-odds in the response
    offset: float
    own: NDArray[np.float32]  # [r] log-odds of each reference, the lower of its two views, by a reader without it
    foreign: NDArray[np.float32]  # log-odds of foreign pictures by readers that do not know them
    separations: list[RocAreaAgainstForeignSet]  # from each foreign set, the nearest one first
    different: int  # references that are no copies of one another
    pixels: bool  # it sees pixels beside the encoder's numbers
    decided: NDArray[np.float32]  # log-odds of each decided picture that it knows, by a reader without it

    def log_odds_of_brand(self, shown: EncodedPictures) -> NDArray[np.float32]:
        """[n] log-odds that each picture is of the brand."""
        responses = self.fitted.predicted_responses(
            self.scaling.scale_and_concatenate_blocks(brand_feature_blocks(shown, self.pixels))
        )
        return (self.slope * responses + self.offset).astype(np.float32)


def learn_brand_classifier(
    references: EncodedPictures,
    redrawn: EncodedPictures,
    sets: list[ForeignSet],
    pixels: bool = True,
    decided: tuple[EncodedPictures, NDArray[np.float64]] | None = None,
) -> BrandClassifier:
    """Fit a reader of the brand; without `pixels` it sees the encoder's numbers alone.

    `decided` are pictures that people decided about, and for each 1 (in the brand's style) or -1 (rejected since it is
    not). Each counts as one view of a reference; together they count as much as the references at most.

    It learns from all sets but the base's own pictures, and from these too where it does not tell them SURELY unseen.
    """
    return _LEARNED.result_for(
        [references, redrawn, sets, pixels, decided],
        lambda: learn_brand_classifier_anew(references, redrawn, sets, pixels, decided),
    )


def learn_brand_classifier_anew(
    references: EncodedPictures,
    redrawn: EncodedPictures,
    sets: list[ForeignSet],
    pixels: bool,
    decided: tuple[EncodedPictures, NDArray[np.float64]] | None,
) -> BrandClassifier:
    """What `learn_brand_classifier` remembers."""
    learned, of_base = ([one for one in sets if (one.name == OF_BASE) == base] for base in (False, True))
    found = fit_brand_classifier(references, redrawn, learned, of_base, pixels, decided)
    told = all(one.area >= SURELY for one in found.separations if one.name == OF_BASE)
    return found if told else fit_brand_classifier(references, redrawn, sets, [], pixels, decided)


def fit_brand_classifier(
    references: EncodedPictures,
    redrawn: EncodedPictures,
    sets: list[ForeignSet],
    unseen: list[ForeignSet],
    pixels: bool,
    decided: tuple[EncodedPictures, NDArray[np.float64]] | None = None,
) -> BrandClassifier:
    """Fit a reader to `sets` and `decided`; how well it tells the sets `unseen`, which it does not learn, is measured
    too.

    Copies among the references count once, so that none is read by its own copy.
    """
    contents = [signature.tobytes() for signature in references.signatures]
    different = list(dict.fromkeys(contents))
    first, copy_of = [contents.index(one) for one in different], [different.index(one) for one in contents]
    own, *others = (brand_feature_blocks(shown, pixels) for shown in (references, redrawn, *sets))
    scaling = fit_block_scaling([np.concatenate(blocks) for blocks in zip(*others[1:], strict=True)], pixels)
    r = len(first)
    rows = [
        np.concatenate(
            [scaling.scale_and_concatenate_blocks(own)[first], scaling.scale_and_concatenate_blocks(others[0])[first]]
        )
    ]
    rows += [scaling.scale_and_concatenate_blocks(blocks) for blocks in others[1:]]
    ends = np.cumsum([len(part) for part in rows])[:-1]
    weights = np.split(half_brand_half_foreign_row_weights(2 * r, sets), ends)
    truths = [np.full(len(part), -1.0 if i else 1.0) for i, part in enumerate(rows)]
    if decided:
        count = len(decided[1])
        rows.append(scaling.scale_and_concatenate_blocks(brand_feature_blocks(decided[0], pixels)))
        weights.append(np.full(count, min(1 / (4 * r), 1 / (2 * count))))
        truths.append(decided[1])
    parts = list(zip(rows, truths, weights, strict=True))
    all_rows, all_truths, all_weights = (np.concatenate(one) for one in (rows, truths, weights))
    whole = fit_ridge(all_rows, all_truths, all_weights)
    known = whole.responses_left_out(*parts[0], views=2).reshape(2, r)  # of both views
    foreign, separations = [], []

    def append_responses_and_separation(name: str, mine: NDArray, apart: NDArray) -> None:
        """Note the responses `apart` to a foreign set, and how well `mine`, [2, r] of references, are
        told from them.
        """
        foreign.append(apart)
        separations.append(RocAreaAgainstForeignSet(name, *roc_area_and_lower_bound(mine.mean(0), apart)))

    unknown = [i for i, one in enumerate(sets, start=1) if not one.given and len(sets) > 1]
    if unknown:  # they weigh alike; the penalty is a share of the weight of the rows that stay
        stays = 1 - weights[unknown[0]].sum() / whole.weight
        of_all = fit_ridge(all_rows, all_truths, all_weights, RIDGE * stays)
    for i, one in enumerate(sets, start=1):
        if i in unknown:
            apart, mine = of_all.responses_without_set(parts[i], parts[0], views=2)
            append_responses_and_separation(one.name, mine.reshape(2, r), apart)
        else:
            append_responses_and_separation(one.name, known, whole.responses_left_out(*parts[i]))
    for one in unseen:
        append_responses_and_separation(
            one.name,
            known,
            whole.predicted_responses(scaling.scale_and_concatenate_blocks(brand_feature_blocks(one, pixels))),
        )
    every = np.concatenate([known.min(0), *foreign])
    slope, offset = fit_platt_scaling(every, np.where(np.arange(len(every)) < r, 1.0, -1.0))
    log_odds = (slope * every + offset).astype(np.float32)
    separations.sort(key=lambda found: (found.low, found.area))
    known_log_odds = slope * whole.responses_left_out(*parts[-1]) + offset if decided else np.zeros(0)
    return BrandClassifier(
        scaling,
        whole,
        slope,
        offset,
        log_odds[:r][copy_of],
        log_odds[r:],
        separations,
        r,
        pixels,
        known_log_odds.astype(np.float32),
    )


def roc_area_and_lower_bound(own: NDArray, others: NDArray) -> tuple[float, float]:
    """Area under the ROC curve of `own` above `others`, and its lower bound, of 95 % confidence.

    The score interval of Newcombe (2006, method 5), on Hanley and McNeil's variance: it says less of few pictures also
    where the area is 1.
    """
    m, n = len(own), len(others)
    ranked = np.sort(others)
    below = np.searchsorted(ranked, own, "left") + np.searchsorted(ranked, own, "right")  # twice; an equal one once
    area = float(below.sum() / (2 * m * n))
    middle = (m + n) / 2 - 1

    def residual_of_lower_bound_equation(low: float) -> float:
        """0 where `low` is the lower bound; above 0 where it is too low."""
        spread = low * (1 - low) * (1 + middle * ((1 - low) / (2 - low) + low / (1 + low))) / (m * n)
        return area - low - ONE_SIDED * np.sqrt(spread)

    return area, float(brentq(residual_of_lower_bound_equation, 0, min(area, 1 - 1e-9))) if area > 0 else 0.0  # type: ignore[arg-type]


# The columns of scores.parquet (eval/scorers/__init__.py).


def column(measured: MeasuredLot) -> NDArray[np.float32]:
    """[n] brand score of the lot's pictures: log-odds by a reader that is learned now.

    Writes into `measured` the reader, `foreign` percentiles, and how well the style can be read.
    """
    assert measured.redrawn is not None
    seen = measured.at_foreign_size
    told = decided_pictures_about_style(measured)
    about_style = None if told is None else told[:2]
    reader = measured.brand_classifier or learn_brand_classifier(
        seen(measured.references), measured.redrawn, measured.foreign_sets, decided=about_style
    )
    measured.brand_classifier = reader
    measured.foreign["brand"] = percentiles_0_to_100(reader.foreign)
    nearest = reader.separations[0]
    measured.readability = StyleReadability(
        readable=nearest.low >= READABLE and reader.different >= MIN_REFERENCES,
        different_references=reader.different,
        needed=READABLE,
        nearest=nearest.name,
        separations={
            s.name: SeparationFromForeignSet(area=round(s.area, 3), low=round(s.low, 3)) for s in reader.separations
        },
        reads=["encoder", "pixels"],
        shipped=sum(not one.given for one in measured.foreign_sets),
    )
    blocks = [slice(start, start + BLOCK) for start in range(0, len(measured.pictures.names), BLOCK)]
    found = np.concatenate(
        [reader.log_odds_of_brand(seen(measured.pictures.features_of_slice(block))) for block in blocks]
    )
    if told is not None:
        in_lot, rows = measured.row_indexes_of_decided_pictures()
        place = {row: i for i, row in enumerate(told[2])}
        for i, row in zip(in_lot, rows, strict=True):
            if row in place:
                found[i] = reader.decided[place[row]]
    return found


def decided_pictures_about_style(
    measured: MeasuredLot,
) -> tuple[EncodedPictures, NDArray[np.float64], NDArray[np.int64]] | None:
    """The decided pictures that say something of the style: (views of k pictures, [k] truth, [k] rows in the file).

    The truth is 1 for an accepted picture and -1 for one that was rejected for its style. None if there are none.
    """
    if measured.decided is None:
        return None
    rows = np.flatnonzero(measured.decided.accepted_by_people_flags | measured.decided.rejected_for_style_flags)
    if not len(rows):
        return None
    views = measured.at_foreign_size(measured.decided.features)
    others = tuple((embeddings[rows], patches[rows]) for embeddings, patches in views.others)
    some = EncodedPictures(views.embeddings[rows], views.patches[rows], views.signatures[rows], others)
    return some, np.where(measured.decided.accepted_by_people_flags[rows], 1.0, -1.0), rows


def references_column(measured: MeasuredLot) -> NDArray[np.float32]:
    """[r] log-odds of each reference by a reader that does not know it."""
    return measured.brand_classifier.own
