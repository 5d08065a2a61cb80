"""Prompt and trait match: what the encoder reads in a picture against what was asked for.

The prompt score is the plain cosine (the quantity under CLIPScore, arXiv 2104.08718, without its factor 2.5); absolute
values do not carry over between styles, so the default policy shows it only.

The trait score is a contrast among a trait's values, calibrated on the brand's references, whose truth is known. A
reader, which is a linear classifier, is fitted for each trait: a common multiple of the values' phrases, and what ridge
regression on the references and on the brand's training pictures adds to it. It looks at the embedding and at the
encoder's patches, since one vector for a whole picture says little of what is held in a hand (docs/log.md). Its margin
is the planned value's response less that of the best other value; logistic regression of the margins of true and of
false values, of references that the reader was not fitted on, makes log-odds of it. A trait is asked only where those
margins tell true from false. The score is the log-odds that every trait that is asked is as planned. Beforehand each is
as likely wrong as right.

Range: about -40 to 10, higher is better; 0: as likely as not; 50 where nothing is asked. A planned value
that no picture of the brand is known to show cannot be read: it is not asked, and a person has to look. Fails where the
references show few of the values, and on pictures whose drawing is muddled without being another value.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from eval.measuring.measured import MeasuredLot
from eval.measuring.picturefeatures import PictureFeatures
from eval.policy.lines import MIN_REFERENCES

READABLE = 0.9  # area under the ROC curve of true against false values on the references; below it a trait is not asked
RIDGE = 0.3  # penalty on what is added to the phrases; rows have length 1 on average
FOLDS = 10
MOST = 2048  # pictures that a reader learns from: it solves as many equations, in each fold
CROSS_FITTING = 5  # parts of the decided pictures, each of which is read by readers of the other parts
NOTHING_ASKED = 50.0  # beyond any log-odds: there is nothing that could be wrong
BLOCK = 1024  # pictures at once


class PictureEmbeddings(NamedTuple):
    """The embedding and the patches of each picture, as rows of length 1: what a reader of a trait sees."""

    embeddings: NDArray  # [n, d]
    patches: NDArray  # [n, p]; p = 0 where the encoder shows none


class CalibratedTraitClassifier(NamedTuple):
    """The reader of one trait in pictures of one brand, and how its margins become log-odds."""

    values: list[str]
    reader: "LinearTraitClassifier"
    slope: float  # of log-odds in the margin
    offset: float
    own: NDArray[np.float64]  # [references] their log-odds by readers that do not know them, NaN where unknown

    def log_odds_of_planned_value(self, rows: PictureEmbeddings, planned: Sequence[str]) -> NDArray[np.float64]:
        """[n] log-odds that each picture shows its planned value, and no other value of the trait."""
        numbers = np.array([self.values.index(value) for value in planned])
        return (
            self.slope * lead_over_other_values(self.reader.response_of_each_trait_value(rows), numbers) + self.offset
        )


class LinearTraitClassifier(NamedTuple):
    """A linear classifier of one trait, with a response for each of its values."""

    mean: NDArray[np.float64]  # [d + p]
    weights: NDArray[np.float64]  # [values, d + p]

    def response_of_each_trait_value(self, rows: PictureEmbeddings) -> NDArray[np.float64]:
        """[n, values] response for each value of the trait; near 1 for the value that is seen."""
        return (embedding_and_patches_in_one_row(rows) - self.mean) @ self.weights.T


def cosine_to_prompt(embeddings: NDArray, texts: NDArray) -> NDArray[np.float32]:
    """[n] cosine of picture i and its prompt i, both [n, d] unit rows."""
    return (embeddings * texts).sum(1).astype(np.float32)


def fit_trait_classifiers(
    references: PictureEmbeddings,
    truth: Sequence[Mapping[str, str]],
    values: Mapping[str, list[str]],
    encode: Callable[[list[str]], NDArray],
    more: tuple[PictureEmbeddings, Sequence[Mapping[str, str]]] | None = None,
) -> tuple[dict[str, CalibratedTraitClassifier], dict[str, float]]:
    """(readers of the traits that can be read, area under the ROC curve of each trait that was tried), both by trait.

    `truth` holds the traits of each reference, `values` the values to tell apart, `encode` gives unit rows [n, d] of
    texts. `more` are other pictures of the brand and their traits, such as those that it was trained on: readers are
    fitted on them too. A trait is tried if it has two values or more, and FOLDS references show one of them. Areas are
    of references that the reader was not fitted on (FOLDS-fold cross-validation).
    """
    extra, extra_truth = more or (embeddings_and_patches_at(references, np.array([], int)), [])
    found, areas = {}, {}
    for trait, options in values.items():
        known = np.array([i for i, row in enumerate(truth) if row.get(trait) in options], int)
        if len(options) < 2 or len(known) < FOLDS:
            continue
        beside = np.array([i for i, row in enumerate(extra_truth) if row.get(trait) in options], int)
        numbers = np.array([options.index(truth[i][trait]) for i in known])
        numbers_beside = np.array([options.index(extra_truth[i][trait]) for i in beside], int)
        texts = encode([trait_phrase(trait, value) for value in options]).astype(np.float64)

        def fit_classifier_of_one_trait(fitted: NDArray, *of_trait: NDArray) -> LinearTraitClassifier:
            """A reader fitted on these of the known references, and on other pictures of the brand: at most MOST."""
            known, numbers, beside, numbers_beside, texts = of_trait
            shown, of_both = len(fitted), np.r_[numbers[fitted], numbers_beside]
            learned = indexes_of_balanced_subsample(of_both, MOST)
            own, other = learned[learned < shown], learned[learned >= shown] - shown
            rows = concatenate_embeddings(
                embeddings_and_patches_at(references, known[fitted[own]]),
                embeddings_and_patches_at(extra, beside[other]),
            )
            return fit_linear_trait_classifier(rows, of_both[learned], texts)

        of_trait = known, numbers, beside, numbers_beside, texts
        responses = np.zeros((len(known), len(options)))
        for fold in range(FOLDS):
            out = np.arange(len(known)) % FOLDS == fold
            responses[out] = fit_classifier_of_one_trait(np.flatnonzero(~out), *of_trait).response_of_each_trait_value(
                embeddings_and_patches_at(references, known[out])
            )
        right = lead_over_other_values(responses, numbers)
        wrong = [lead_over_other_values(responses, (numbers + k) % len(options)) for k in range(1, len(options))]
        labels = np.r_[np.ones(len(right)), np.zeros(len(right) * len(wrong))]
        every = np.concatenate([right, *wrong])
        areas[trait] = float(roc_auc_score(labels, every))
        if areas[trait] >= READABLE:
            slope, offset = fit_platt_scaling(every, labels)
            own = np.full(len(truth), np.nan)
            own[known] = slope * right + offset
            found[trait] = CalibratedTraitClassifier(
                options, fit_classifier_of_one_trait(np.arange(len(known)), *of_trait), slope, offset, own
            )
    return found, areas


def embedding_and_patches_in_one_row(rows: PictureEmbeddings) -> NDArray[np.float64]:
    """[n, d + p] the embeddings [n, d] and patches [n, p], put side by side into one row for each picture."""
    return np.concatenate([rows.embeddings, rows.patches], axis=1, dtype=np.float64)


def embeddings_and_patches_at(rows: PictureEmbeddings | PictureFeatures, numbers: NDArray) -> PictureEmbeddings:
    """The embeddings and patches of the pictures with these numbers [k]."""
    return PictureEmbeddings(rows.embeddings[numbers], rows.patches[numbers])


def concatenate_embeddings(a: PictureEmbeddings, b: PictureEmbeddings) -> PictureEmbeddings:
    """The rows of `a`, then those of `b`."""
    return PictureEmbeddings(np.concatenate([a.embeddings, b.embeddings]), np.concatenate([a.patches, b.patches]))


def fit_linear_trait_classifier(rows: PictureEmbeddings, numbers: NDArray, texts: NDArray) -> LinearTraitClassifier:
    """A reader of one trait: responses to centred rows come near to 1 for the true value.

    `numbers` [n] is the true value of each row, `texts` [values, d] are unit rows of the values' phrases.
    """
    every, d = embedding_and_patches_in_one_row(rows), rows.embeddings.shape[1]
    mean, phrases = every.mean(0), texts - texts.mean(0)
    centred, wanted = every - mean, np.eye(len(texts))[numbers]
    wanted = wanted - wanted.mean(0)
    by_phrases = centred[:, :d] @ phrases.T
    fitting = float((by_phrases * wanted).sum() / max(np.square(by_phrases).sum(), 1e-12))
    common = max(0.0, fitting)
    penalty = max(RIDGE * float(np.square(centred).sum(1).mean()), 1e-6)  # rows that are all the same say nothing
    inner = centred @ centred.T + penalty * np.eye(len(every))  # the dual: rows are fewer than columns
    weights = np.linalg.solve(inner, wanted - common * by_phrases).T @ centred
    weights[:, :d] += common * phrases
    return LinearTraitClassifier(mean, weights)


def indexes_of_balanced_subsample(numbers: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Indexes of at most `most` rows that a reader learns from, in their order; `numbers` [n] is the value of each row.

    The common values are cut to the same number, evenly spread over their rows, so that rare ones keep all of theirs.
    """
    if len(numbers) <= most:
        return np.arange(len(numbers))
    sizes = np.bincount(numbers)
    quota = max(q for q in range(most + 1) if np.minimum(sizes, q).sum() <= most)
    kept = []
    for value, size in enumerate(sizes):
        spread = np.linspace(0, size - 1, min(size, quota)).astype(int)
        kept.append(np.flatnonzero(numbers == value)[spread])
    return np.sort(np.concatenate(kept))


def fit_platt_scaling(margins: NDArray, labels: NDArray) -> tuple[float, float]:
    """(slope, offset) that make log-odds of margins [n]: log-odds = slope * margin + offset (Platt 1999).

    `labels` [n] has two values, for true and for false; both kinds count alike, whatever their number.
    """
    width = float(margins.std()) or 1.0
    model = LogisticRegression(C=1.0, class_weight="balanced").fit(margins[:, None] / width, labels)
    return float(model.coef_[0, 0]) / width, float(model.intercept_[0])


def lead_over_other_values(responses: NDArray, numbers: NDArray) -> NDArray[np.float64]:
    """[n] the response of the value in column numbers[i], less the largest response of the other values."""
    rows = np.arange(len(responses))
    others = responses.copy()
    others[rows, numbers] = -np.inf
    return responses[rows, numbers] - others.max(1)


def log_odds_of_all_planned_traits(
    rows: PictureEmbeddings, planned: Sequence[Mapping[str, str]], readable: Mapping[str, CalibratedTraitClassifier]
) -> NDArray[np.float32]:
    """[n] log-odds that a picture shows all its planned traits; values that no reader knows are not asked.
    NOTHING_ASKED if none of them can be read.
    """
    each = np.full((len(readable), len(planned)), np.nan)
    for k, (trait, reading) in enumerate(readable.items()):
        asked = np.array([i for i, row in enumerate(planned) if row.get(trait) in reading.values], int)
        for start in range(0, len(asked), BLOCK):
            block = asked[start : start + BLOCK]
            each[k, block] = reading.log_odds_of_planned_value(
                embeddings_and_patches_at(rows, block), [planned[i][trait] for i in block]
            )
    whole = log_odds_that_all_traits_show(each)
    return np.where(np.isnan(whole), np.float32(NOTHING_ASKED), whole)


def log_odds_of_references_traits(readable: Mapping[str, CalibratedTraitClassifier]) -> NDArray[np.float32]:
    """[r] log-odds that each reference shows the traits that are known of it, by readers that were not fitted on it."""
    return log_odds_that_all_traits_show(np.stack([reading.own for reading in readable.values()]))


def log_odds_that_all_traits_show(log_odds: NDArray) -> NDArray[np.float32]:
    """[n] log-odds that all traits are shown, from the log-odds of each trait [traits, n]; NaN means "not asked"."""
    asked = np.isfinite(log_odds)
    whole = -logsumexp(np.where(asked, -log_odds, -np.inf), axis=0)
    return np.where(asked.any(0), whole, np.nan).astype(np.float32)


def predicted_trait_values_of_pictures(
    rows: PictureEmbeddings, readable: Mapping[str, CalibratedTraitClassifier]
) -> list[dict[str, str]]:
    """[n] for each picture, by readable trait, the value that the trait's reader sees most, whatever was planned."""
    found: list[dict[str, str]] = [{} for _ in rows.embeddings]
    for trait, reading in readable.items():
        for start in range(0, len(found), BLOCK):
            block = np.arange(start, min(start + BLOCK, len(found)))
            seen = reading.reader.response_of_each_trait_value(embeddings_and_patches_at(rows, block)).argmax(1)
            for i, number in zip(block, seen, strict=True):
                found[i][trait] = reading.values[number]
    return found


def trait_phrase(trait: str, value: str) -> str:
    """The words that a trait's value is looked for by, such as "red hat" or "no hat"."""
    return f"no {trait}" if value == "none" else f"{value} {trait}"


# The columns of scores.parquet (eval/scorers/__init__.py).


def prompt_column(measured: MeasuredLot) -> NDArray[np.float32]:
    """[n] cosine of each picture of a planned batch and its prompt."""
    slots, pictures = measured.lot.slots or {}, measured.pictures
    assert measured.encode_texts is not None
    texts = measured.encode_texts([slots[name].prompt for name in pictures.names])
    return cosine_to_prompt(pictures.embeddings, texts)


def traits_column(measured: MeasuredLot) -> NDArray[np.float32] | None:
    """[n] log-odds that every planned trait is there. None in place of the column if no trait is planned, references
    are too few, or no trait can be read.

    Writes into `measured` the readers, the area of each trait, and the traits that are seen. The readers are fitted on
    the references, and on the training pictures whose traits are known.
    """
    compared, pictures, references = measured.compared, measured.pictures, measured.references
    values = trait_values_of_brand(measured)
    truth = [compared.traits.get(name, {}) for name in references.names]
    if not values or len(truth) < MIN_REFERENCES:
        return None
    training = measured.training
    learned = np.array([i for i, name in enumerate(training.names) if name in compared.learned], int)
    more = (embeddings_and_patches_at(training, learned), [compared.learned[training.names[i]] for i in learned])
    every, decided = np.arange(len(references.names)), measured.decided
    encode = measured.encode_texts
    assert encode is not None

    def fit_trait_classifiers_with_decided(
        rows: NDArray[np.int64],
    ) -> tuple[dict[str, CalibratedTraitClassifier], dict[str, float]]:
        """`fit_trait_classifiers` with the decided pictures in `rows` beside the training pictures."""
        beside = more
        if decided and len(rows):
            told = [decided.record.pictures[i].traits for i in rows]
            beside = (
                concatenate_embeddings(more[0], embeddings_and_patches_at(decided.features, rows)),
                [*more[1], *told],
            )
        of_references = embeddings_and_patches_at(references, every)
        return fit_trait_classifiers(of_references, truth, values, encode, beside if beside[1] else None)

    telling = np.array([i for i, one in enumerate(decided.record.pictures if decided else ()) if one.traits], np.int64)
    if not measured.readings:
        measured.readings, measured.areas = fit_trait_classifiers_with_decided(telling)
    if not measured.readings:
        return None
    planned = [(measured.lot.slots or {})[name].traits for name in pictures.names]
    rows = PictureEmbeddings(pictures.embeddings, pictures.patches)
    measured.detected = predicted_trait_values_of_pictures(rows, measured.readings)
    found = log_odds_of_all_planned_traits(rows, planned, measured.readings)
    in_lot, of_decided = measured.row_indexes_of_decided_pictures()
    for fold in range(CROSS_FITTING):  # pictures of the lot that the readers know are read by readers without them
        out = in_lot[np.isin(of_decided, telling[telling % CROSS_FITTING == fold])]
        if len(out):
            readings = fit_trait_classifiers_with_decided(telling[telling % CROSS_FITTING != fold])[0]
            found[out] = log_odds_of_all_planned_traits(
                embeddings_and_patches_at(rows, out), [planned[i] for i in out], readings
            )
            for i, seen in zip(
                out, predicted_trait_values_of_pictures(embeddings_and_patches_at(rows, out), readings), strict=True
            ):
                measured.detected[i] = seen
    return found


def trait_values_of_brand(measured: MeasuredLot) -> dict[str, list[str]]:
    """By planned trait the values that pictures of the brand are known to show, sorted: only these can be read."""
    compared = measured.compared
    told = [one.traits for one in measured.decided.record.pictures] if measured.decided else []
    every = [*compared.traits.values(), *compared.learned.values(), *told]
    planned = {trait for slot in (measured.lot.slots or {}).values() for trait in slot.traits}
    return {trait: sorted({shown[trait] for shown in every if trait in shown}) for trait in sorted(planned)}


def traits_references_column(measured: MeasuredLot) -> NDArray[np.float32]:
    """[r] log-odds that each reference shows its own traits, each by a reader that does not know it."""
    return log_odds_of_references_traits(measured.readings)
