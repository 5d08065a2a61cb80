"""What an entry of the table of scores holds (eval/scorers/__init__.py). No numpy, scipy, sklearn or torch here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eval.measuring.measured import MeasuredLot

# What a score may need; MeasuredLot.has_what_score_needs says whether a lot has it.
REFERENCES = "references"  # enough pictures that show the style, and one to judge
PATCHES = "patches"  # an encoder that shows what it sees at each place of a picture
TRAINING = "training"  # pictures that the brand's LoRA was trained on
PLAN = "plan"  # a planned batch: each picture has a prompt
TEXTS = "texts"  # an encoder that reads texts as well as pictures
HEAD = "head"  # a linear head on the embedding
NEEDS = {  # what a score may need -> what to say where it is not there
    REFERENCES: "no references were given",
    PATCHES: "the encoder does not show the parts of a picture",
    TRAINING: "no training pictures are known; brand= names them",
    PLAN: "no planned prompt or trait can be read",
    TEXTS: "the encoder reads no texts",
    HEAD: "no aesthetic head is known",
}


@dataclass(frozen=True, slots=True)
class LazilyImportedFunction:
    """A function of a scorer's file, which is imported when the function is first called: its libraries are slow to
    import, and who only reads the table must not wait for them.

    A call gives what that function returns for a MeasuredLot and the arguments `more`.
    """

    file: str  # in eval/scorers/, without ".py"
    function: str
    more: tuple[str, ...] = ()

    def __call__(self, measured: MeasuredLot) -> Any:
        return getattr(import_module(f"eval.scorers.{self.file}"), self.function)(measured, *self.more)


@dataclass(frozen=True, slots=True)
class LazilyImportedFeatureScorer:
    """`score(pictures, references)` or `leave_one_out(references)` of a scorer's file, on one feature of
    PictureFeatures.

    A call with a MeasuredLot gives [n] scores of the lot's pictures, or [r] of the references.
    """

    file: str
    feature: str  # a field of eval.measuring.measured.PictureFeatures that is an array
    alone: bool = False  # leave_one_out: of the references alone

    def __call__(self, measured: MeasuredLot) -> NDArray:
        scorer, references = import_module(f"eval.scorers.{self.file}"), getattr(measured.references, self.feature)
        if self.alone:
            return scorer.leave_one_out(references)
        return scorer.score(getattr(measured.pictures, self.feature), references)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreEntry:
    """What the table says of one score: its range, how it is computed, what it needs. Higher is always better."""

    description: str  # one plain sentence for people
    kind: str  # "encoder": worth nothing outside the encoder's domain; "pixels": holds everywhere
    lowest: (
        float  # of the range that its values lie in, to a decimal; or lie in nearly always ("about" in docs/scores.md)
    )
    highest: float
    resolution: float  # smallest difference that means anything; no spread of references is taken to be smaller
    compute: Callable[[MeasuredLot], NDArray | None]  # [n] float32 of the lot's pictures; None: not computed after all
    leave_one_out: Callable[[MeasuredLot], NDArray] | None = None  # [r] float32 of each reference by the others
    needs: frozenset[str] = frozenset()  # of NEEDS; without all of them the score is not computed
    training: str = ""  # that training longer helps where drawn pictures fall below its line, in words; else empty
    fault: str = ""  # of one that holds or does not hold: what is wrong with a picture where it does not, in words
    remedy: str = ""  # what else helps there, in words; empty where nothing is known
    graded: bool = True  # False: it holds or it does not, and holding it keeps no distance to a threshold

    @property
    def needs_readable_style(self) -> bool:
        """Whether the score compares a picture with the references by the encoder, so that it is believed only where
        the style can be read.
        """
        return self.kind == "encoder" and REFERENCES in self.needs

    def remedies_in_words(self, train_longer: bool = True) -> str:
        """What helps where drawn pictures fall below its line; without `train_longer`, what helps beside longer
        training. "" where nothing is known.
        """
        return "; or ".join(filter(None, [self.training if train_longer else "", self.remedy]))
