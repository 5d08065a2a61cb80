"""The aesthetic score where a policy names decided pictures: log-odds that people would accept a picture.

Ridge regression of 1 (accepted) and -1 (rejected) on what the reader of the brand sees of a picture, and on what the
other scores say of it, in spreads of the references. Those scores count SCORES_WEIGHT times as much as a block of the
reader's numbers: of few labels a head should first learn how to weigh what is known already. Logistic regression makes
log-odds of its responses; both kinds count alike. A decided picture is always read by a head that does not know it,
which follows from the hat matrix. Range about [-40, 40].

Fails on what no decided picture shows, and says nothing that its labels do not: pictures in review are no random
sample, so its line proves nothing before people have labelled one (stylegate calibrate, certify).
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from eval.measuring.measured import MeasuredLot
from eval.measuring.picturefeatures import PictureFeatures
from eval.measuring.record import READ_BY_HEAD
from eval.policy.model import score_spread

RIDGE, SCORES_WEIGHT = 0.1, 3.0
FARTHEST, ABOVE = -8.0, 3.0  # spreads: beyond them a score says nothing more


def scores_in_spreads(
    columns: Mapping[str, NDArray], references: Mapping[str, NDArray], count: int
) -> NDArray[np.float32]:
    """[count, len(READ_BY_HEAD)] scores in units of the references' spread, from their median; NaN for those not
    computed.

    `columns` has [count] scores by name, `references` [r]. Values are clipped to FARTHEST and ABOVE.
    """
    found = np.full((count, len(READ_BY_HEAD)), np.nan, np.float32)
    for k, name in enumerate(READ_BY_HEAD):
        own = references.get(name, np.zeros(0))
        own = own[np.isfinite(own)]
        if name in columns and len(own):
            found[:, k] = (columns[name] - np.median(own)) / score_spread(name, own)
    return np.clip(found, FARTHEST, ABOVE)


def append_lowest_score_as_column(spreads: NDArray[np.float32]) -> NDArray[np.float32]:
    """[n, 8] the scores in spreads, and the lowest of them; NaN (not computed) becomes 0, the references' median."""
    known = np.nan_to_num(spreads)
    return np.c_[known, known.min(1)]


def acceptance_log_odds(measured: MeasuredLot) -> NDArray[np.float32]:
    """[n] log-odds that people accept each picture of the lot; those of references go into `measured.own`."""
    from eval.scorers.brand import fit_block_scaling
    from eval.scorers.prompt import fit_platt_scaling
    from eval.scorers.ridge import fit_ridge

    decided = measured.decided
    assert decided is not None
    of_lot = scores_in_spreads(measured.columns, measured.own, len(measured.pictures.names))
    of_decided = decided.scores.copy()
    in_lot, rows_in_lot = measured.row_indexes_of_decided_pictures()
    of_decided[rows_in_lot] = of_lot[in_lot]
    blocks = [*brand_feature_blocks_of_pictures(measured, decided.features), append_lowest_score_as_column(of_decided)]
    scaling = fit_block_scaling(blocks)

    def feature_rows_for_aesthetic_head(features: PictureFeatures, spreads: NDArray[np.float32]) -> NDArray[np.float64]:
        """[n, k] what the head reads of n pictures: scaled blocks, the scores in spreads last."""
        found = scaling.scale_and_concatenate_blocks(
            [*brand_feature_blocks_of_pictures(measured, features), append_lowest_score_as_column(spreads)]
        )
        found[:, -blocks[-1].shape[1] :] *= SCORES_WEIGHT
        return found

    known, truth = (
        feature_rows_for_aesthetic_head(decided.features, of_decided),
        np.where(decided.accepted_by_people_flags, 1.0, -1.0),
    )
    each = np.where(
        decided.accepted_by_people_flags,
        0.5 / decided.accepted_by_people_flags.sum(),
        0.5 / (~decided.accepted_by_people_flags).sum(),
    )
    fitted = fit_ridge(known, truth, each, RIDGE)
    apart = fitted.responses_left_out(known, truth, each)
    slope, offset = fit_platt_scaling(apart, truth)
    found = slope * fitted.predicted_responses(feature_rows_for_aesthetic_head(measured.pictures, of_lot)) + offset
    found[in_lot] = slope * apart[rows_in_lot] + offset
    if measured.own:
        references = scores_in_spreads(measured.own, measured.own, len(measured.references.names))
        measured.own["aesthetic"] = (
            slope * fitted.predicted_responses(feature_rows_for_aesthetic_head(measured.references, references))
            + offset
        )
    return found.astype(np.float32)


def brand_feature_blocks_of_pictures(measured: MeasuredLot, features: PictureFeatures) -> list[NDArray[np.float32]]:
    """The blocks [n, k] that the reader of the brand sees of n pictures, shown at the size of foreign ones."""
    from eval.scorers.brandfeatures import brand_feature_blocks

    return brand_feature_blocks(measured.at_foreign_size(features))
