"""Stopping hopeless pictures early: what is known of previews, and the line that a round of `generate` stops below.

previews.jsonl of a batch has a row for each attempt whose preview was scored, rounds.jsonl one for each round. A round
is what `generate` draws under one line. The line is learnt from pictures that were finished without a look at any line
(all of the rounds without one, and one in UNSEEN of the others) and judged since. Half of them teach how the scores of
a preview foretell the verdict. The accepted ones of the other half set the line: the teaching has not seen them.

Slots that are drawn again are the hard ones, whose good pictures look less hopeful than those that set the line. Later
attempts are stopped below a line of their own, which loses half as much of what sets it (tests/bench/early_stop.py).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from eval.lot.batch import DAMAGED_PLAN, attempt_and_slot, names_of_attempts_with_picture
from eval.lot.record import DrawingSettings
from stylegate import files
from stylegate.records import Record

PREVIEWS, ROUNDS = "previews.jsonl", "rounds.jsonl"
LOST = 0.05  # of the pictures that would have been accepted, at most so many are stopped ...
CONFIDENCE = 0.95  # ... with this confidence
LATER = 0.5  # of LOST: what the line of later attempts loses of the pictures that set it
UNSEEN = 10  # one attempt in so many is finished without a look at the line
FIRST = 256  # pictures that may wait for the gate before there are verdicts; later as many as were judged
FEWEST_STEPS = 12  # of fewer the first ones are no small share, and stylegate trial gains more
PENALTY = 0.1  # inverse strength of the penalty on the weights of standardised scores
CERTAIN = 1e6  # log-odds of a preview that cannot be read: it is never stopped


class EarlyStopPreview(Record):
    """A row of previews.jsonl: the preview of one attempt. Drawn again after a kill it stands twice."""

    file: str
    """The name of the attempt's picture, whether it was finished or not."""
    seed: int
    """The seed of the attempt. It decides who is finished unseen, and who teaches."""
    round: int
    """The round that drew it, from 0."""
    scored: str
    """Digest of what the scores depend on beside the preview: encoder, references, versions."""
    scores: dict[str, float | None]
    """The preview's scores by name; null for one that could not be computed."""
    hope: float | None = None
    """Log-odds that the finished picture is accepted, by the round's reading; left out where no line was looked at."""
    stopped: bool = False
    """The attempt ended here: hope was below the line. There is no picture of it."""

    def is_exempt_from_stopping(self) -> bool:
        """Whether it was finished without a look at any line."""
        return self.hope is None or is_seed_exempt_from_stopping(self.seed)


class EarlyStopRound(Record):
    """A row of rounds.jsonl: the line that a round of `generate` stopped attempts below, and what it rests on."""

    round: int
    """From 0."""
    verdicts_sha256: str
    """sha256 of verdicts.jsonl when the round began; of the empty text where there was none."""
    attempts: int
    """Attempts that it draws at most."""
    scored: str
    """Only previews that were scored so were learnt from."""
    teaching: int = 0
    """Judged pictures that taught the reading."""
    accepted: int = 0
    """Accepted pictures, finished unseen and none of the teaching ones, that set the line."""
    rank: int = 0
    """The line is the hope of the picture with this rank among them, the least hopeful being 1; 0 without a line."""
    line: float | None = None
    """For first attempts, in log-odds; left out where too little is known, and nothing is stopped."""
    later_line: float | None = None
    """The same for later attempts."""
    scores: list[str] = Field(default_factory=list)
    """Names of the scores that are read."""
    weights: list[float] = Field(default_factory=list)
    """Log-odds for each unit of these scores."""
    offset: float = 0.0
    checked: int = 0
    """Accepted pictures of earlier rounds with a line that were finished unseen."""
    lost: int = 0
    """Those of them that lay below the line of their round: what it would have lost of them."""

    def log_odds_of_acceptance(self, scores: Mapping[str, float | None]) -> float:
        """Log-odds that a preview's picture is accepted; CERTAIN where a score that is read is missing."""
        values = [scores.get(name) for name in self.scores]
        if any(value is None for value in values):
            return CERTAIN
        return float(np.dot(np.array(values, float), self.weights) + self.offset)

    def stop_line_of_attempt(self, file: str) -> float | None:
        """The line for the attempt whose picture has this name; None for none."""
        return self.line if attempt_and_slot(file)[0] == 0 else self.later_line

    def is_preview_below_stop_line(self, one: EarlyStopPreview) -> bool:
        """Whether the attempt's hope is below its line, so that it ends there unless it is finished unseen."""
        line = self.stop_line_of_attempt(one.file)
        return line is not None and self.log_odds_of_acceptance(one.scores) < line

    def preview_with_stop_decision(
        self, file: str, seed: int, scored: str, scores: dict[str, float | None]
    ) -> EarlyStopPreview:
        """The row of an attempt of this round, with its hope and whether it ends here. An attempt whose preview was
        scored in another way than the round says goes on.
        """
        if self.stop_line_of_attempt(file) is None or scored != self.scored:
            return EarlyStopPreview(file=file, seed=seed, round=self.round, scored=scored, scores=scores)
        one = EarlyStopPreview(
            file=file,
            seed=seed,
            round=self.round,
            scored=scored,
            scores=scores,
            hope=self.log_odds_of_acceptance(scores),
        )
        return one.model_copy(
            update={"stopped": self.is_preview_below_stop_line(one) and not is_seed_exempt_from_stopping(seed)}
        )


def steps_of_preview(drawing: DrawingSettings) -> int | None:
    """The number of denoising steps after which a preview is scored; None where no picture is stopped early, as with
    fewer than FEWEST_STEPS steps.
    """
    if drawing.stop_early_at is None or drawing.num_inference_steps < FEWEST_STEPS:
        return None
    return max(1, round(drawing.stop_early_at * drawing.num_inference_steps))


def is_seed_exempt_from_stopping(seed: int) -> bool:
    """Whether the attempt with this seed is finished without a look at the line: one in UNSEEN."""
    return seed % UNSEEN == 0


def is_seed_in_fitting_half(seed: int) -> bool:
    """Whether an attempt that was finished unseen is one of the half that teaches; the other half sets the line."""
    return seed // UNSEEN % 2 == 0


def rank_of_early_stop_line(accepted: int, lost: float) -> int:
    """The rank of the line among the hopes of `accepted` pictures, the lowest being 1; 0 where they are too few.

    Of pictures that are accepted like these, a share below the k-th lowest hope is stopped which has the distribution
    Beta(k, n - k + 1) at most. It is above `lost` with the probability P(Binomial(n, lost) < k): a tolerance limit
    (Wilks 1941). The largest k for which that is at most 1 - CONFIDENCE is taken. For 5 % that takes 59 pictures.
    """
    from scipy.special import bdtr  # not for verbs that only read these files

    ranks = np.arange(1, accepted + 1)
    return int((bdtr(ranks - 1, accepted, lost) <= 1 - CONFIDENCE).sum())


def round_with_learnt_stop_line(
    empty: EarlyStopRound,
    previews: Iterable[EarlyStopPreview],
    accepted: Mapping[str, bool],
    earlier: Sequence[EarlyStopRound],
) -> EarlyStopRound:
    """The round of drawing `empty` with the line below which hopeless previews are stopped early. It is learnt from the
    previews and verdicts that are known when the round begins; where too little is known there is none. Nothing is
    written.

    `accepted` says of each picture that is accepted or rejected which it is, by the name of its file. What stands in
    review or in error says nothing. `earlier` are the rounds before it, in order.
    """
    known = [
        one for one in previews if one.is_exempt_from_stopping() and one.scored == empty.scored and one.file in accepted
    ]
    checked = [one for one in known if one.hope is not None and accepted[one.file]]
    lost = sum(earlier[one.round].is_preview_below_stop_line(one) for one in checked)
    found = empty.model_copy(update={"checked": len(checked), "lost": lost})
    teaching, others = (
        [one for one in known if is_seed_in_fitting_half(one.seed) == wanted] for wanted in (True, False)
    )
    setting = [one for one in others if accepted[one.file]]
    verdicts = np.array([accepted[one.file] for one in teaching], bool)
    rank, later = rank_of_early_stop_line(len(setting), LOST), rank_of_early_stop_line(len(setting), LATER * LOST)
    if not rank or verdicts.all() or not verdicts.any():
        return found
    names = [name for name in teaching[0].scores if all(one.scores.get(name) is not None for one in teaching)]
    table = np.array([[one.scores[name] for name in names] for one in teaching], float)
    weights, offset = fit_log_odds_of_acceptance(table, verdicts)
    told = {"scores": names, "weights": weights.tolist(), "offset": offset}
    found = found.model_copy(update=told | {"teaching": len(teaching), "accepted": len(setting), "rank": rank})
    hopes = sorted(found.log_odds_of_acceptance(one.scores) for one in setting)
    return found.model_copy(update={"line": hopes[rank - 1], "later_line": hopes[later - 1] if later else None})


def fit_log_odds_of_acceptance(
    scores: NDArray[np.float64], accepted: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], float]:
    """Learn the log-odds that a picture is accepted, from scores [n, k] of previews and whether each was `accepted`
    [n]: weights [k] and offset.

    Logistic regression on the standardised scores; the weights are for scores in their own units.
    """
    from sklearn.linear_model import LogisticRegression

    middle, width = scores.mean(0), scores.std(0)
    width = np.where(width > 0, width, 1.0)
    model = LogisticRegression(C=PENALTY, max_iter=2000).fit((scores - middle) / width, accepted)
    weights = model.coef_[0] / width
    return weights, float(model.intercept_[0] - weights @ middle)


def read_early_stop_preview_rows(folder: Path) -> dict[str, EarlyStopPreview]:
    """The previews of a batch by the name of the attempt's picture, in the order in which attempts come to be.

    Their order in the file is that of the processes that drew them, and must not decide anything. Raises DataError for
    a row that is none.
    """
    rows = {row["file"]: row for row in files.read_jsonl(folder / PREVIEWS, "file")}
    names = sorted(rows, key=attempt_and_slot)
    return {name: EarlyStopPreview.from_table_row(rows[name], f"{PREVIEWS}: {name}", DAMAGED_PLAN) for name in names}


def read_early_stop_rounds(folder: Path) -> list[EarlyStopRound]:
    """The rounds of the batch in a folder, in order, from rounds.jsonl; [] if there are none. Raises DataError for a
    row that is none.
    """
    rows = files.read_jsonl(folder / ROUNDS, "round")
    return [EarlyStopRound.from_table_row(row, f"{ROUNDS}: round {row['round']}", DAMAGED_PLAN) for row in rows]


def names_of_stopped_attempts(folder: Path, before: int | None = None) -> list[str]:
    """The attempts that were stopped early, each by the file name that its picture would have; with `before` those of
    earlier rounds alone.

    Those that a person has put a picture under are left out.
    """
    there = {attempt_and_slot(name) for name in names_of_attempts_with_picture(folder / "images")}
    return [
        name
        for name, one in read_early_stop_preview_rows(folder).items()
        if one.stopped and (before is None or one.round < before) and attempt_and_slot(name) not in there
    ]


def cut_torn_row_of_previews(folder: Path) -> None:
    """Cut off the last row of previews.jsonl if a kill left it torn. One process does it, before any draws."""
    if (folder / PREVIEWS).exists():
        files.write_jsonl(folder / PREVIEWS, files.read_jsonl(folder / PREVIEWS, "file"))


def append_early_stop_preview_rows(folder: Path, previews: Iterable[EarlyStopPreview]) -> None:
    """Append a line for each preview to previews.jsonl of the batch in `folder`: the scores of an unfinished picture,
    and whether its drawing was stopped. Several processes may do so at once.
    """
    files.append_in_one_write(
        folder / PREVIEWS, files.json_lines_text(one.json_data_without_defaults() for one in previews)
    )


def append_early_stop_round_if_new(folder: Path, new: EarlyStopRound) -> None:
    """Add the round to rounds.jsonl of the batch in `folder`; a round that has a row there keeps it."""
    rounds = read_early_stop_rounds(folder)
    if new.round == len(rounds):
        files.write_jsonl(folder / ROUNDS, [one.json_data_without_defaults() for one in [*rounds, new]])


def remove_preview_rows_of_slots(folder: Path, slots: Collection[int]) -> None:
    """Remove the rows of `slots`, whose plan has changed, from previews.jsonl of the batch in `folder`."""
    rows = files.read_jsonl(folder / PREVIEWS, "file")
    if rows:
        files.write_jsonl(folder / PREVIEWS, [row for row in rows if attempt_and_slot(row["file"])[1] not in slots])
