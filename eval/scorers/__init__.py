"""The scores: one file each. This table needs no model and no torch; the gate and the policy read it.

Every score is higher for better pictures. `kind` says what it rests on: an encoder's view is worth nothing outside
the encoder's domain, pixels are pixels everywhere. `resolution` is the smallest difference that means anything;
the spread of references is never taken to be smaller.
"""

from typing import NamedTuple


class Score(NamedTuple):
    does: str
    kind: str  # "encoder" or "pixels"
    resolution: float


SCORES = {
    "style": Score("whitened cosine to the centroid of the references", "encoder", 0.005),
    "prompt": Score("cosine of picture and prompt", "encoder", 0.01),
    "traits": Score("margin of the least certain planned trait, in spreads of the references", "encoder", 0.1),
    "aesthetic": Score("linear head on the embedding", "encoder", 0.01),
    "consistency": Score("cosine to the rest of the batch", "encoder", 0.01),
    "distinct": Score(
        "1 - likeness to the nearest better picture of the batch, or to one exported before", "pixels", 0.005
    ),
    "novelty": Score("1 - likeness to the nearest training picture", "pixels", 0.005),
    "contrast": Score("standard deviation of the luma, in levels of 255", "pixels", 1.0),
    "sharpness": Score("log of the mean colour gradient", "pixels", 0.05),
    "cleanness": Score("minus the log of the noise level", "pixels", 0.15),
    "completeness": Score("contrast of the emptiest half", "pixels", 1.0),
    "openness": Score("1 - share of the largest area of one exact colour", "pixels", 0.02),
    "size": Score("1 if it has the size of the others, else 0", "pixels", 0.1),
}
