"""The report's slider: what other thresholds would accept, and what the labels say of them.

Without a calibrated check the slider moves all thresholds of the policy at once, by spreads of the references; 0 are
the thresholds in force. With a calibrated check it moves the threshold of that check alone. The verdict of a person,
of an audit or of a check that the slider does not move stays as it is. Everything is computed here for each position
of the slider; the page only picks from it. No file is read or written.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval.judging.verdicts import Reason, Verdict
from eval.policy.model import MARGIN, Policy, Promise
from eval.promise import envelope
from eval.promise.calibration import Calibration
from eval.scorers import SCORES
from stylegate.words import confidence_percent_rounded_down, counted, percentage_rounded_up

POSITIONS = 200  # about
NARROWEST = 0.01  # the least range of the slider, in units of the threshold
LOW_SHARE = 0.05  # of the pictures: where none is accepted now, what lies below this quantile is not shown
MAX_SPREADS = 4.0  # below the thresholds in force: nobody means to accept what lies further below
NEVER, ALWAYS = -math.inf, math.inf
NO_LABELS = (
    "How many of these are bad is not known: nobody has labelled a random sample. stylegate calibrate or certify asks "
    "people."
)
ELSEWHERE = "The certificate is about the limits in force. Of this one nothing is known."
STALE = "How many of these are bad is not known: the calibration is stale. stylegate calibrate or certify asks people."


@dataclass(frozen=True, slots=True)
class ThresholdSlider:
    """Positions of the threshold, rising, and what each of them accepts; [t] has one value a position."""

    score: str  # the score whose threshold moves, or "margin": all thresholds at once
    calibrated: bool  # the threshold comes from labels
    positions: NDArray[np.float64]  # [t]
    start: int  # index of the threshold in force; where there is none yet, of the last position, which accepts none
    in_force: bool  # whether there is a threshold in force
    last_accepting: list[int]  # by verdict: index of the last position that accepts the picture; -1 for none
    accepted: NDArray[np.int64]  # [t] number of accepted pictures
    total: int  # number of pictures


def make_slider(
    verdicts: Sequence[Verdict], values: Sequence[float | None], policy: Policy, threshold: float | None
) -> ThresholdSlider | None:
    """The slider of a lot; None if no position of it would accept other pictures.

    `values` has the moved score of each verdict, `threshold` is where its threshold lies now (None: there is none yet).
    """
    calibrated = policy.calibrated_score_name
    score = calibrated or MARGIN
    highest = [
        highest_threshold_accepting_picture(v, value, calibrated, threshold)
        for v, value in zip(verdicts, values, strict=True)
    ]
    movable = np.array([x for x in highest if math.isfinite(x)])
    if not len(movable):
        return None
    positions, start = slider_positions(movable, threshold, MAX_SPREADS if score == MARGIN else math.inf)
    last_accepting = np.searchsorted(positions, highest, side="right") - 1
    accepted_until = np.bincount(last_accepting + 1, minlength=len(positions) + 1)
    accepted = np.cumsum(accepted_until[::-1])[::-1][1:]  # those whose last position is this one or a later one
    if accepted[0] == accepted[-1]:
        return None
    return ThresholdSlider(
        score,
        calibrated is not None,
        positions,
        start,
        threshold is not None,
        last_accepting.tolist(),
        accepted,
        len(verdicts),
    )


def highest_threshold_accepting_picture(
    verdict: Verdict, value: float | None, calibrated: str | None, threshold: float | None
) -> float:
    """The highest threshold that still accepts the picture; ALWAYS or NEVER where the threshold does not decide."""
    if verdict.verdict == "accept":
        decided = verdict.settled is not None or (len(verdict.waived) > 0 and not calibrated)
        return ALWAYS if decided or value is None else value
    if verdict.verdict == "error" or value is None:
        return NEVER
    if not all(
        is_reason_from_slider_threshold(reason, calibrated) for reason in verdict.reasons if reason.verdict != "warn"
    ):
        return NEVER
    # A margin is rounded, maybe up to the threshold that the picture fell below.
    return value if threshold is None else min(value, math.nextafter(threshold, NEVER))


def is_reason_from_slider_threshold(reason: Reason, calibrated: str | None) -> bool:
    """Whether the slider moves the threshold that gave this reason."""
    if calibrated:
        return reason.check == calibrated and reason.score is not None
    return reason.check in SCORES and reason.score is not None and reason.threshold is not None


def slider_positions(
    movable: NDArray[np.float64], threshold: float | None, max_below: float
) -> tuple[NDArray[np.float64], int]:
    """([t] the thresholds at which the slider can stand, rising by a round step; the index of the threshold in force).

    `movable` are the highest thresholds that accept each picture. The positions end where no picture is accepted.
    They begin where little is left to gain, but not further below the threshold than they end above it, and not
    further below it than `max_below`: one blank picture lies a hundred spreads below.
    """
    high = max(float(movable.max()), NEVER if threshold is None else threshold)
    origin = high if threshold is None else threshold
    if high > origin:
        low = max(min(float(movable.min()), origin), origin - (high - origin))
    else:
        low = min(float(np.quantile(movable, LOW_SHARE, method="higher")), origin)
    low = max(low, origin - max_below)
    step = smallest_round_step(max(high - low, NARROWEST) / POSITIONS)
    below, above = math.ceil((origin - low) / step), math.floor((high - origin) / step) + 1
    above += origin + round(step * above, 10) <= high  # where the division was rounded down: 2.3 / 0.0125 < 184
    positions = np.array([origin + round(step * k, 10) for k in range(-below, above + 1)])
    return positions, below if threshold is not None else len(positions) - 1


def smallest_round_step(least: float) -> float:
    """The smallest of 1, 2, 2.5 and 5 times a power of ten that is `least` or more."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= least * (1 - 1e-9))


def reject_share_bounds_by_position(
    slider: ThresholdSlider, calibration: Calibration, pool: Mapping[str, float], leaving: set[str], promise: Promise
) -> NDArray[np.float64]:
    """[t] for each position of the slider, a threshold: an upper bound on the share of rejects in what may be exported
    there, without the rejects that labels found. All hold at once, with confidence 1 - delta.

    `calibration` is of this pool, or of another one that was made in the same way (calibration.json). `pool` has the
    scores, by sha256, of what every other check accepts; `leaving` are the pictures that the threshold alone holds back
    or accepts.
    """
    scored = {label.sha256: label.score for label in calibration.labels}
    bad = calibration.is_reject_by_sha256()
    everyone = pool if sorted(pool) == calibration.pool else scored | dict(pool)
    names = sorted(everyone)
    scores, labelled, rejects, going = (
        np.array([everyone[name] for name in names]),
        np.array([name in bad for name in names]),
        np.array([bad.get(name, False) for name in names]),
        np.array([name in leaving for name in names]),
    )
    return envelope.reject_share_bounds_at_thresholds(
        scores, labelled, rejects, going, slider.positions, promise.alpha, promise.delta
    )


def slider_position_texts(
    slider: ThresholdSlider,
    bounds: NDArray[np.float64] | None,
    num_labels: int,
    delta: float,
    without_bound: tuple[str, str],
) -> list[list[str]]:
    """For each of the t positions of the report's threshold slider three texts: the threshold there, how many pictures
    it accepts, and how many of those are rejects at most. `bounds` [t] are these shares of rejects, 0 to 1.

    Bounds say nothing of pictures that people accepted, which every position accepts. Where there are no `bounds`,
    `without_bound` is the last text: at the threshold in force, and at all others.
    """
    texts, by_people = [], int(slider.accepted[-1])
    for i, (t, count) in enumerate(zip(slider.positions.tolist(), slider.accepted.tolist(), strict=True)):
        accepts = f"{count} of {counted(slider.total, 'picture')} accepted ({count / slider.total:.1%})"
        if bounds is None:
            proof = without_bound[0] if i == slider.start else without_bound[1]
        elif count == by_people:
            proof = f"This limit accepts no picture{f'; people accepted {by_people}' if by_people else ''}."
        elif bounds[i] >= 1:
            proof = f"Nothing is promised here: there are too many rejects among {counted(num_labels, 'label')}."
        else:
            share, confidence = percentage_rounded_up(bounds[i]), f"{confidence_percent_rounded_down(delta):g}%"
            by = f"{confidence} confidence, {counted(num_labels, 'label')}"
            of = f"{count - by_people} pictures that the limit accepts" if by_people else "accepted pictures"
            proof = f"At most {share} of the {of} are rejects ({by})."
        texts.append([threshold_text_at_position(slider, i, t), accepts, proof])
    return texts


def threshold_text_at_position(slider: ThresholdSlider, i: int, t: float) -> str:
    """Words for where the slider stands at its position `i`, at the threshold `t`: "Stricter: all limits higher by
    0.5".
    """
    if slider.calibrated:
        text = f"Limit of {slider.score}: {t:.4g}"
        if i == slider.start:
            return f"{text}, now in force" if slider.in_force else "No limit yet"
        return text
    if i == slider.start:
        return "The limits of the policy"
    stricter, higher = ("Stricter", "higher") if t > 0 else ("Less strict", "lower")
    return f"{stricter}: all limits {higher} by {abs(t):.3g}"
