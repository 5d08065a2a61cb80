"""The domain of an encoder: what kind of pictures it knows, and which pictures lie outside."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from eval.measuring.picturefeatures import PictureFeatures
from stylegate import files
from stylegate.errors import ModelError

NAMED = 3  # pictures that a note names
BLOCK = 4096  # pictures at once: bounds the memory
OUTSIDE_SHARE = 0.1  # references outside the encoder's domain; beyond this share it is said


class EncoderDomain(NamedTuple):
    """The kind of pictures that an encoder was trained on: domain.json and known.safetensors beside its weights."""

    side: int  # picture side in pixels
    max_distance: float  # cosine distance to the nearest known picture; beyond it a picture is foreign
    known: NDArray[np.float32]  # [k, d] unit embeddings of known pictures

    def in_domain_flags(self, features: PictureFeatures) -> NDArray[np.bool_]:
        """[n] whether each picture has `side` pixels a side, and an embedding within `max_distance` of a known
        picture's.
        """
        if not features.names:
            return np.zeros(0, bool)
        blocks = [features.embeddings[start : start + BLOCK] for start in range(0, len(features.names), BLOCK)]
        distance = 1 - np.concatenate([(block @ self.known.T).max(1) for block in blocks])
        return (features.sizes == self.side).all(1) & (distance <= self.max_distance)


def read_encoder_domain(folder: Path | None) -> EncoderDomain | None:
    """The domain that an encoder's folder declares; None if it declares none. Raises ModelError if it is damaged."""
    if not folder or not (folder / "domain.json").is_file():
        return None
    described = files.read_json(folder / "domain.json", "the encoder's domain", "side", "max_distance")
    try:
        known = load_file(folder / "known.safetensors")["known"].astype(np.float32)
    except (OSError, SafetensorError, KeyError) as error:
        raise ModelError(f"the known pictures beside {folder} cannot be read: {error}") from None
    return EncoderDomain(described["side"], described["max_distance"], known)


def in_domain_flags_and_warning(
    pictures: PictureFeatures, references: PictureFeatures, domain: EncoderDomain | None
) -> tuple[NDArray[np.float32], str]:
    """[n] 1 for a picture inside the encoder's domain, 0 outside, NaN without a domain; and a warning.

    The warning is a sentence if many references lie outside the domain, else "". No verdict depends on this.
    """
    if domain is None:
        return np.full(len(pictures.names), np.nan, np.float32), ""
    inside = domain.in_domain_flags(references)
    if references.names and (~inside).mean() > OUTSIDE_SHARE:
        names = [references.names[i] for i in np.flatnonzero(~inside)]
        shown = ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")
        count = f"{len(names)} of {len(inside)} references ({shown})"
        hint = f"{count} look unlike what the encoder was trained on; no verdict depends on it"
        return domain.in_domain_flags(pictures).astype(np.float32), hint
    return domain.in_domain_flags(pictures).astype(np.float32), ""
