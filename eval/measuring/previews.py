"""The scores of previews: what the gate would measure of pictures that are not finished, without a file of them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from eval.lot.batch import PlanSlot, read_existing_batch_record, read_plan
from eval.lot.compared import comparison_pictures_with_decided_ones
from eval.lot.lot import Lot
from eval.measuring import encoder as encoding
from eval.measuring import encodername
from eval.measuring.columns import measure_lot_and_comparison
from eval.measuring.features import FeatureArrays, features_without_encoder, replace_pixels_by_embeddings
from eval.measuring.measured import MeasuredLot
from eval.measuring.picturefeatures import PictureFeatures
from eval.measuring.record import READ_BY_HEAD
from eval.measuring.scores import scores_key
from eval.scorers import SCORES
from stylegate import pictures
from stylegate.config import Config

OF_LOT = ("consistency", "distinct")  # they speak of a picture's neighbours, and would differ with these


class PreviewScorer:
    """Scores previews of the attempts at a batch's slots, a few at once. What it compares them with is read once."""

    def __init__(self, config: Config, folder: Path, device: torch.device) -> None:
        self.config, self.plan = config, {slot.picture_file_name(0): slot for slot in read_plan(folder)}
        self.lot = Lot(folder / "images", folder, [], {}, self.plan, read_existing_batch_record(folder))
        self.compared = comparison_pictures_with_decided_ones(config, self.lot)
        self.encoder = encoding.load_encoder(encodername.encoder_name(config), device)
        self.measured: MeasuredLot | None = None  # of the pictures that were scored last
        unplanned = replace(self.lot, slots=None)  # another plan changes no score of a slot that stays
        self.key = scores_key(config, unplanned, self.compared)[:16]

    def score_previews(self, attempts: Sequence[tuple[PlanSlot, int]], previews: Sequence[Image.Image]) -> list[dict]:
        """For each preview its graded scores by name, None for one that is not finite; those that compare a picture
        with the rest of the lot are left out. `attempts` has the (slot, attempt) of each preview.
        """
        names = [slot.picture_file_name(attempt) for slot, attempt in attempts]
        slots = self.plan | {name: slot for name, (slot, _) in zip(names, attempts, strict=True)}
        lot, shown = replace(self.lot, slots=slots), self.features_of_previews(names, previews)
        if self.measured is None:
            config, compared = self.config, self.compared
            self.measured, _ = measure_lot_and_comparison(config, lot, compared, self.encoder, True, shown)
        told = {"columns": {}, "partners": {}, "detected": []}
        measured = self.measured = replace(self.measured, lot=lot, pictures=shown, **told)
        for name, score in SCORES.items():
            if name in OF_LOT or not score.graded or not all(map(measured.has_what_score_needs, score.needs)):
                continue
            column = score.compute(measured)
            if column is None:
                continue
            measured.columns[name] = column
            lacks_own = measured.decided is not None and name in READ_BY_HEAD and name not in measured.own
            if lacks_own and score.leave_one_out:
                measured.own[name] = score.leave_one_out(measured)  # of references: the same for all previews
        columns = measured.columns.items()
        return [{name: rounded_or_none(column[i]) for name, column in columns} for i in range(len(names))]

    def features_of_previews(self, names: list[str], previews: Sequence[Image.Image]) -> PictureFeatures:
        """What the gate would compute of the previews if they were pictures of these names; no digests."""
        shown = [pictures.drawn_picture_as_decoded(image, self.compared.background) for image in previews]
        rows = dict(enumerate(features_without_encoder(shown, self.encoder.preprocessing)))
        table = FeatureArrays(len(names))
        for i, row in replace_pixels_by_embeddings(rows, self.encoder).items():
            table.copy_features_into_row(i, row)
        return table.features_of_filled_rows(names, dict.fromkeys(names, ""))


def rounded_or_none(value: np.floating) -> float | None:
    """A score as a short number; None for one that is not finite."""
    return float(f"{value:.6g}") if np.isfinite(value) else None
