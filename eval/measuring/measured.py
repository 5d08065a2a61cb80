"""A lot and all that it is compared with, as features: what the scorers read, and where they write."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eval.lot.comparison import ComparisonPictures
from eval.lot.lot import Lot
from eval.measuring.decided import DecidedPictures
from eval.measuring.picturefeatures import PictureFeatures
from eval.measuring.record import StyleReadability


class PictureSignaturesOfFiles(NamedTuple):
    """Signatures of n pictures that are looked for copies of; row i is of the picture names[i]."""

    names: list[str]
    signatures: NDArray[np.uint8]  # [n, 64, 64, 3] small copies in sRGB


class EncodedPictures(NamedTuple):
    """Pictures as the brand's reader sees them, with what the encoder computes; row i of every array is
    of picture i.
    """

    embeddings: NDArray[np.float32]  # [n, d]
    patches: NDArray[np.float16]  # [n, p]
    signatures: NDArray[np.uint8]  # [n, 64, 64, 3]
    others: tuple[tuple[NDArray, NDArray], ...] = ()  # embeddings and patches by each further encoder


class ForeignSet(NamedTuple):
    """Pictures in another style, as a reader of the brand sees them; row i of every array is of picture i."""

    name: str  # for people
    given: bool  # by foreign=, or drawn by the base; False: shipped
    embeddings: NDArray[np.float32]  # [n, d]
    patches: NDArray[np.float16]  # [n, p]
    signatures: NDArray[np.uint8]  # [n, 64, 64, 3]
    others: tuple[tuple[NDArray, NDArray], ...] = ()  # embeddings and patches by each further encoder


@dataclass(slots=True, kw_only=True)
class MeasuredLot:
    """What a scorer is given: features of all pictures (read), columns of scores and facts (written)."""

    lot: Lot
    compared: ComparisonPictures
    pictures: PictureFeatures  # n, of the lot
    references: PictureFeatures  # r
    training: PictureFeatures
    exported: PictureSignaturesOfFiles
    known: NDArray[np.float32] | None  # [k, d] unit embeddings of pictures in other styles; None: none are known
    foreign_sets: list[ForeignSet]  # what a reader of the brand is fitted on; empty without enough references
    redrawn: EncodedPictures | None  # the references as an image model draws them; None without enough of them
    at_foreign_size: Callable[[PictureFeatures], EncodedPictures]  # pictures as the brand's reader sees them
    head: tuple[NDArray, float] | None  # weight [d] and bias of the aesthetic head
    decided: DecidedPictures | None = None  # that people decided about; None where the policy names none
    encode_texts: Callable[[list[str]], NDArray] | None  # unit embeddings [n, d] of n texts; None: it reads none
    enough_references: bool  # to compute scores that compare with them

    columns: dict[str, NDArray] = field(default_factory=dict)  # [n] by score, in the order of SCORES
    own: dict[str, NDArray] = field(default_factory=dict)  # [r] by score, of the references by leave-one-out
    partners: dict[str, list[str | None]] = field(default_factory=dict)  # by score: the picture that it speaks of
    readings: dict[str, Any] = field(default_factory=dict)  # by trait, how it is read (CalibratedTraitClassifier)
    detected: list[dict[str, str]] = field(default_factory=list)  # [n] trait -> value seen; empty where none is read
    notes: list[str] = field(default_factory=list)  # sentences for people
    foreign: dict[str, list[float]] = field(default_factory=dict)  # percentiles of pictures in other styles, by score
    copies: dict[str, list[float]] = field(default_factory=dict)  # percentiles of copies of the references, by score
    brand_classifier: Any = None  # eval.scorers.brand.BrandClassifier, once it is learned
    readability: StyleReadability | None = None  # of the style; None with too few references
    areas: dict[str, float] = field(default_factory=dict)  # how well each trait can be read: area under the ROC curve

    def row_indexes_of_decided_pictures(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where the lot's decoded pictures are that people decided about: ([k] rows in `pictures`, [k] rows of the same
        pictures in `decided`).
        """
        rows = self.decided.row_indexes_by_sha256() if self.decided else {}
        pairs = [(i, rows[sha256]) for i, sha256 in enumerate(self.pictures.sha256) if sha256 in rows]
        return tuple(np.array(pairs, np.int64).reshape(-1, 2).T)  # type: ignore[return-value]

    def has_what_score_needs(self, need: str) -> bool:
        """Whether the lot has what a score needs. `need` is a key of eval.scorers.entry.NEEDS; KeyError for others."""
        return {
            "references": self.enough_references,
            "patches": self.pictures.patches.shape[1] > 0,
            "training": bool(self.training.names),
            "plan": bool(self.lot.slots and self.pictures.names),
            "texts": self.encode_texts is not None,
            "head": self.head is not None or self.decided is not None,
        }[need]


def percentiles_0_to_100(values: NDArray) -> list[float]:
    """The percentiles 0, 1, ..., 100 of the values, as 101 numbers."""
    return [float(value) for value in np.percentile(values, range(101))]
