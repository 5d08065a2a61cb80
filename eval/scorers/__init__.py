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
    graded: bool = True  # else it holds or it does not, and holding it keeps no distance


SCORES = {
    "style": Score("whitened cosine to the centroid of the references", "encoder", 0.005),
    "style_nearest": Score(
        "whitened closeness to the three nearest references, less that to foreign ones", "encoder", 0.01
    ),
    "drawing": Score("minus what references cannot lend of what is seen place by place", "encoder", 0.02),
    "palette": Score("mean log density of its flat areas' colours among the references'", "pixels", 0.05),
    "prompt": Score("cosine of picture and prompt", "encoder", 0.01),
    "traits": Score("log-odds that every planned trait that the encoder can read is there", "encoder", 0.1),
    "aesthetic": Score("linear head on the embedding", "encoder", 0.01),
    "consistency": Score("cosine to the rest of the batch", "encoder", 0.01),
    "distinct": Score("log distance to the nearest better picture of the batch, or one exported", "pixels", 0.02),
    "novelty": Score("log distance to the nearest training picture", "pixels", 0.02),
    "contrast": Score("standard deviation of the luma, in levels of 255", "pixels", 1.0),
    "sharpness": Score("log of the mean colour gradient", "pixels", 0.05),
    "cleanness": Score("minus the log of the noise level", "pixels", 0.15),
    "uncompressed": Score("log distance of its blocks' frequencies from the steps of JPEG", "pixels", 0.1),
    "completeness": Score("contrast of the emptiest half", "pixels", 1.0),
    "openness": Score("1 - share of the largest area of one exact colour", "pixels", 0.02),
    "unclipped": Score(
        "1 - share of values at black or white: over- and underexposure cut off what lies beyond", "pixels", 0.02
    ),
    "unframed": Score(
        "log of the share of a line near the edges that is no frame's: low where there is a frame", "pixels", 0.2
    ),
    "size": Score("1 if it has the size of the others, else 0", "pixels", 0.1, graded=False),
    "alpha": Score(
        "1 if it is opaque, or transparent where brand.yaml keeps alpha and most references are, else 0",
        "pixels",
        0.1,
        graded=False,
    ),
}
NEED_REFERENCES = {"style", "style_nearest", "drawing", "palette"}  # not computed with too few
