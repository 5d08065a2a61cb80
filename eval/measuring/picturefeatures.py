"""What is read of pictures before anything is compared: an array for each feature."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class PictureFeatures(NamedTuple):
    """The features of n pictures that could be decoded; row i of every array is of the picture names[i]."""

    names: list[str]
    sha256: list[str]  # of the files' bytes, hex
    sizes: NDArray[np.int64]  # [n, 2] width, height in pixels, upright
    embeddings: NDArray[np.float32]  # [n, d] unit rows: one vector of the encoder for the whole picture
    patches: NDArray[np.float16]  # [n, p] unit rows: what the encoder sees at 8 x 8 places; p = 0 of some encoders
    signatures: NDArray[np.uint8]  # [n, 64, 64, 3] small copies in sRGB
    technical: NDArray[np.float32]  # [n, m] in the order of eval.scorers.technical.MEASURES
    transparent: NDArray[np.bool_]  # [n] some of the picture shows the background

    def features_of_slice(self, those: slice) -> "PictureFeatures":
        """The features of some of the pictures, without a copy."""
        return PictureFeatures(**{name: getattr(self, name)[those] for name in self._fields})
