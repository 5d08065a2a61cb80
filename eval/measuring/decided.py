"""Pictures that people decided about, as the readers see them: the file that `stylegate learn` writes.

A policy names the file with its digest (`learnt`). The gate then fits its readers again with these pictures beside the
references: the reader of the brand, those of the traits, and the aesthetic head. The file holds no weights, but what
they are fitted to, so that other references, or more of them, are read as well. A picture of it that is in the lot is
read by readers that do not know it (cross-fitting).

Safetensors: an array for each name in ARRAYS and `scores`, row i of the picture i; the metadata is one JSON text.
"""

import hashlib
from typing import Literal, NamedTuple

import numpy as np
import rfc8785
from numpy.typing import NDArray
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from eval.lot.comparison import DecidedPicturesFile
from eval.measuring.picturefeatures import PictureFeatures
from eval.measuring.record import READ_BY_HEAD
from eval.promise.label import Sha256
from stylegate import files
from stylegate.errors import DataError
from stylegate.records import Record

ARRAYS = ("sizes", "embeddings", "patches", "signatures", "technical", "transparent")  # of PictureFeatures
AGAIN = "stylegate learn writes the file and the policy anew."


class DecidedPicture(Record):
    """What people decided about one picture."""

    sha256: Sha256
    """sha256 of the picture's bytes, 64 hex digits."""
    accepted: bool
    """A person would export it."""
    off_style: bool = False
    """A person rejected it, and gave as reason that it is not in the brand's style."""
    traits: dict[str, str] = Field(default_factory=dict)
    """Traits that it shows, as far as a person said so: name -> value."""


class DecisionsRecord(Record):
    """The metadata of the file: the decisions about its pictures, in the order of the arrays' rows, and under which
    policy and encoder they were given.
    """

    version: Literal[1]
    """Version of the file."""
    brand: str
    """Name of the brand; empty where none is known."""
    background: str
    """Colour that transparent parts were shown on."""
    encoder: str
    """The encoder, as it was named."""
    encoder_sha256: Sha256
    """Digest of the encoder's weights and preprocessing."""
    policy_sha256: Sha256
    """Digest of the policy under which the last decisions were given."""
    guideline: str
    """The guideline of that policy: what a reject is."""
    labels_head: Sha256
    """Hash of the last decision in labels.sqlite; it vouches for all before it."""
    pictures: list[DecidedPicture] = Field(min_length=1)


class DecidedPictures(NamedTuple):
    """Pictures that people decided about; row i of every array is of picture i."""

    record: DecisionsRecord
    features: PictureFeatures  # its names are the pictures' sha256
    scores: NDArray[np.float32]  # [n, len(READ_BY_HEAD)] in spreads of the references; NaN where there is none

    @property
    def accepted_by_people_flags(self) -> NDArray[np.bool_]:
        """[n] whether a person would export the picture."""
        return np.array([picture.accepted for picture in self.record.pictures], bool)

    @property
    def rejected_for_style_flags(self) -> NDArray[np.bool_]:
        """[n] whether a person rejected the picture, and gave as reason that it is not in the brand's style."""
        return np.array([picture.off_style for picture in self.record.pictures], bool)

    def row_indexes_by_sha256(self) -> dict[str, int]:
        """The row of each picture in the arrays, by sha256."""
        return {sha256: i for i, sha256 in enumerate(self.features.sha256)}

    @property
    def sha256_of_safetensors_bytes(self) -> str:
        """sha256 of the file's bytes, 64 hex digits."""
        return hashlib.sha256(self.as_safetensors_bytes()).hexdigest()

    @property
    def decided_pictures_file_name(self) -> str:
        """The name that `stylegate learn` gives the file, without a folder; it holds the first digits of the content's
        sha256.
        """
        return f"decided-{self.sha256_of_safetensors_bytes[:8]}.safetensors"

    def as_safetensors_bytes(self) -> bytes:
        """The file as bytes of safetensors, not yet written; the same pictures and decisions give the same bytes."""
        arrays = {name: np.ascontiguousarray(getattr(self.features, name)) for name in ARRAYS}
        arrays["transparent"] = arrays["transparent"].astype(np.uint8)
        arrays["scores"] = np.ascontiguousarray(self.scores, np.float32)
        return save(arrays, {"record": rfc8785.dumps(self.record.json_data_without_defaults()).decode()})


def read_decided_pictures(file: DecidedPicturesFile) -> DecidedPictures:
    """Read the file that a policy names. Raises DataError if it is missing, damaged, or another than was named."""
    place = files.display_path(file.path)
    try:
        content = file.path.read_bytes()
        if hashlib.sha256(content).hexdigest() != file.sha256:
            raise DataError(f"learnt: {place} is not the file that the policy names by its digest", next_step=AGAIN)
        with safe_open(file.path, "numpy") as opened:
            text = (opened.metadata() or {}).get("record", "")
            arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise DataError(f"learnt: {place} cannot be read: {error}", next_step=AGAIN) from None
    record = DecisionsRecord.from_json_text(text, f"learnt: {place}", AGAIN)
    wrong = sorted({*ARRAYS, "scores"} ^ set(arrays)) or [
        name
        for name, array in arrays.items()
        if len(array) != len(record.pictures) or (name != "scores" and not np.isfinite(array).all())
    ]
    if wrong or arrays["scores"].shape[1:] != (len(READ_BY_HEAD),):
        raise DataError(f"learnt: {place} has wrong numbers: {', '.join(wrong or ['scores'])}", next_step=AGAIN)
    arrays["transparent"] = arrays["transparent"].astype(bool)
    sha256 = [picture.sha256 for picture in record.pictures]
    features = PictureFeatures(names=sha256, sha256=sha256, **{name: arrays[name] for name in ARRAYS})
    return DecidedPictures(record, features, arrays["scores"])


def require_same_brand_and_encoder(decided: DecidedPictures, brand: str, background: str, encoder_sha256: str) -> None:
    """Raises DataError if the decisions are about another brand or background, or about what another
    encoder computes.
    """
    record, problems = decided.record, []
    if record.brand != brand:
        problems.append(f"its pictures are of the brand {record.brand or '(none)'}, the lot is of {brand or '(none)'}")
    if record.background != background:
        problems.append(f"its pictures were read on the background {record.background}, the lot's are on {background}")
    if record.encoder_sha256 != encoder_sha256:
        problems.append(f"its pictures were read by {record.encoder}, with other weights than the encoder of this gate")
    if problems:
        raise DataError("the policy's `learnt` cannot be used here:", problems, "give the policy without it, or learn.")
