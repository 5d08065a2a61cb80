"""What was judged: one value, made once by a gate and handed to everything that comes after it."""

from dataclasses import dataclass

from eval.judging.record import GateRecord
from eval.judging.verdicts import Verdict
from eval.lot.comparison import ComparisonPictures
from eval.lot.lot import Lot
from eval.measuring.scores import LotScores
from eval.policy.model import Policy
from eval.promise.calibration import CalibrationResult


@dataclass(frozen=True, slots=True)
class JudgedLot:
    """The result of judging a lot once. Reports, W&B, certificates and calibrations are handed it; none judges again.

    `verdicts` and `scores.rows` have one entry a picture, in the lot's order.
    """

    lot: Lot
    comparison: ComparisonPictures
    policy: Policy
    scores: LotScores
    verdicts: list[Verdict]  # the lines of verdicts.jsonl
    pool: dict[str, float]  # calibrated score by sha256, of pictures that every other check accepts; {} without one
    line: CalibrationResult | None  # where the calibrated check's line lies; None where no check is calibrated
    outcome: GateRecord  # the content of gate.json
    verdicts_text: str  # the content of verdicts.jsonl
