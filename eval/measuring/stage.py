"""The stage that encodes pictures, as workers of an engine run it: from rows with a path to rows with features."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.engines.parts import Row
from eval.measuring.encoder import load_encoder
from eval.measuring.features import pixel_feature_rows_of_files, replace_pixels_by_embeddings
from stylegate import hardware
from stylegate.configgroups import HardwareConfig
from stylegate.errors import ModelError


class PictureFeatureStage:
    """The stage (eval/engines/parts.py) that computes the features of pictures in a worker. Its encoder is loaded once,
    when the stage is made.

    Raises ModelError if the worker's machine cannot load the encoder, or has other weights.
    """

    def __init__(self, encoder: str, encoder_sha256: str, background: str, batch_size: int, device: str) -> None:
        # One thread: a machine has as many workers as cores, and the numbers are those of one thread each.
        hardware_of_worker = HardwareConfig(device=device, threads=1 if device == "cpu" else None)
        self.encoder = load_encoder(encoder, hardware.set_threads_and_choose_device(hardware_of_worker))
        if self.encoder.sha256 != encoder_sha256:
            raise ModelError(
                f"encoder={encoder} has other weights on the worker's machine",
                next_step="give all machines the same files of the encoder.",
            )
        self.background, self.batch_size = background, batch_size

    def __call__(self, rows: Sequence[dict[str, Any]]) -> Mapping[str, Row]:
        """The features of each picture by the row's id, which is the picture's sha256; `broken` with the reason for a
        file that is no picture. A picture that has changed is left out.

        A row has the picture's `id` and `path`.
        """
        made: dict[str, Row] = {}
        for start in range(0, len(rows), self.batch_size):
            some = rows[start : start + self.batch_size]
            files = [(Path(row["path"]), row["id"]) for row in some]
            found = replace_pixels_by_embeddings(
                pixel_feature_rows_of_files(files, self.encoder.preprocessing, self.background), self.encoder
            )
            made |= {some[i]["id"]: features for i, features in found.items()}
        return made
