"""Prompt and trait match: what the encoder reads in a picture against what was asked for.

The prompt score is the plain cosine (the quantity under CLIPScore, arXiv 2104.08718, without its factor 2.5); absolute
values do not carry over between styles, so the default policy shows it only.

The trait score is a contrast among a trait's values, calibrated on the brand's references, whose truth is known. A
reader is fitted for each trait: a common multiple of the values' phrases, and what ridge regression on the references
and on the brand's training pictures adds to it. Its margin is the planned value's response less that of the best other
value, counted in spreads from the median margin of references that the reader was not fitted on. A trait is asked only
where those margins tell true values from false ones; the score is the margin of the least certain trait that is asked.

Range: about -10 to 3, higher is better; 0 is what half of the true pictures reach in one trait alone. Fails where the
references show few of the values, and on pictures whose drawing is muddled without being another value.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

READABLE = 0.9  # area under the ROC curve of true against false values on the references; below it a trait is not asked
RIDGE = 1.0  # penalty on what is added to the phrases; embeddings have length 1
FOLDS = 10


class Reading(NamedTuple):
    """How one trait is read in this brand's pictures."""

    values: list[str]
    mean: NDArray[np.float64]  # [d] of the references
    weights: NDArray[np.float64]  # [values, d]
    median: float  # of the references' margins
    spread: float
    own: NDArray[np.float64]  # [references] their calibrated margins, NaN where the truth is not known

    def margins(self, embeddings: NDArray, planned: Sequence[str]) -> NDArray[np.float64]:
        """[n] calibrated margins of planned values."""
        responses = (embeddings - self.mean) @ self.weights.T
        return (margins(responses, np.array([self.values.index(v) for v in planned])) - self.median) / self.spread


def prompt(embeddings: NDArray, texts: NDArray) -> NDArray[np.float32]:
    """[n] cosine of picture i and its prompt i, both [n, d] unit rows."""
    return (embeddings * texts).sum(1).astype(np.float32)


def readings(
    references: NDArray,
    truth: Sequence[Mapping[str, str]],
    values: Mapping[str, list[str]],
    encode: Callable[[list[str]], NDArray],
    more: tuple[NDArray, Sequence[Mapping[str, str]]] | None = None,
) -> tuple[dict[str, Reading], dict[str, float]]:
    """The traits that can be read in pictures like the references, and how well each was: area under the ROC curve.

    `references` are [r, d] unit rows, `truth` holds the traits of each, `values` the values to tell apart, `encode`
    gives unit rows of texts. `more` are rows and traits of other pictures of the brand, such as those that it was
    trained on: readers are fitted on them too. Each reference is judged by a reader of the others, a tenth at a time.
    """
    extra, extra_truth = more or (references[:0], [])
    found, areas = {}, {}
    for trait, options in values.items():
        known = np.array([i for i, row in enumerate(truth) if row.get(trait) in options], int)
        if len(options) < 2 or len(known) < FOLDS:
            continue
        rows = references[known].astype(np.float64)
        numbers = np.array([options.index(truth[i][trait]) for i in known])
        beside = np.array([i for i, row in enumerate(extra_truth) if row.get(trait) in options], int)
        rows_beside = extra[beside].astype(np.float64)
        numbers_beside = np.array([options.index(extra_truth[i][trait]) for i in beside], int)
        texts = encode([phrase(trait, value) for value in options]).astype(np.float64)
        responses = np.zeros((len(rows), len(options)))
        for fold in range(FOLDS):
            out = np.arange(len(rows)) % FOLDS == fold
            known_of = np.concatenate([rows[~out], rows_beside]), np.r_[numbers[~out], numbers_beside]
            mean, weights = fit(*known_of, texts)
            responses[out] = (rows[out] - mean) @ weights.T
        right = margins(responses, numbers)
        wrong = [margins(responses, (numbers + k) % len(options)) for k in range(1, len(options))]
        labels = np.r_[np.ones(len(right)), np.zeros(len(right) * len(wrong))]
        areas[trait] = float(roc_auc_score(labels, np.concatenate([right, *wrong])))
        low, median, high = np.quantile(right, [0.16, 0.5, 0.84])
        if areas[trait] >= READABLE and high > low:
            own = np.full(len(truth), np.nan)
            own[known] = (right - median) / ((high - low) / 2)
            fitted = fit(np.concatenate([rows, rows_beside]), np.r_[numbers, numbers_beside], texts)
            found[trait] = Reading(options, *fitted, median, (high - low) / 2, own)
    return found, areas


def fit(rows: NDArray, numbers: NDArray, texts: NDArray) -> tuple[NDArray, NDArray]:
    """Mean [d] and weights [values, d] of a reader: responses to centred rows come near to 1 for the true value."""
    mean, phrases = rows.mean(0), texts - texts.mean(0)
    centred, wanted = rows - mean, np.eye(len(texts))[numbers]
    wanted = wanted - wanted.mean(0)
    said = centred @ phrases.T
    common = max(0.0, float((said * wanted).sum() / max((said * said).sum(), 1e-12)))
    missing = wanted - common * said
    if len(rows) > rows.shape[1]:  # the same solution; the smaller system
        return mean, common * phrases + np.linalg.solve(
            centred.T @ centred + RIDGE * np.eye(rows.shape[1]), centred.T @ missing
        ).T
    rest = np.linalg.solve(centred @ centred.T + RIDGE * np.eye(len(rows)), missing)
    return mean, common * phrases + rest.T @ centred


def margins(responses: NDArray, numbers: NDArray) -> NDArray[np.float64]:
    """[n] response of one value less the largest of the others; responses [n, values]."""
    rows = np.arange(len(responses))
    others = responses.copy()
    others[rows, numbers] = -np.inf
    return responses[rows, numbers] - others.max(1)


def traits(
    embeddings: NDArray, planned: Sequence[Mapping[str, str]], readable: Mapping[str, Reading]
) -> NDArray[np.float32]:
    """[n] calibrated margin of the least certain planned trait; NaN where none is planned."""
    least = np.full(len(embeddings), np.inf)
    for trait, reading in readable.items():
        asked = np.array([i for i, row in enumerate(planned) if trait in row], int)
        if len(asked):
            found = reading.margins(embeddings[asked], [planned[i][trait] for i in asked])
            least[asked] = np.minimum(least[asked], found)
    return np.where(np.isfinite(least), least, np.nan).astype(np.float32)


def of_references(readable: Mapping[str, Reading]) -> NDArray[np.float32]:
    """[references] the same of the references themselves, each by a reader that does not know it."""
    own = np.stack([reading.own for reading in readable.values()])
    least = np.where(np.isnan(own), np.inf, own).min(0)
    return np.where(np.isfinite(least), least, np.nan).astype(np.float32)


def phrase(trait: str, value: str) -> str:
    return f"no {trait}" if value == "none" else f"{value} {trait}"
