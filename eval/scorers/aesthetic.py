"""Aesthetic score: a linear head on the unit embedding. A feature, never the only gate.

LAION's predictors are affine maps: V1 is one linear layer, V2 five without activations between them. They are shipped
folded to a vector and a bias (data/heads/; parity with the layers below 1e-6, tests/eval/test_aesthetic.py). They were
trained on what people like on average: they favour realism and saturation, and tell the better of two pictures in 57 to
77 of 100 cases where one person does in 65 to 78 (HPSv2's tables). The two point in different directions (cosine .37),
so a line for one is no line for the other. Nominally 1 to 10, in truth unbounded.

A head of a brand's own labels is logistic regression: log-odds that a person calls the picture good. It is worth what
`FittedAestheticHead.area` says, and knows nothing of pictures that nobody labelled.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from eval.measuring.measured import MeasuredLot
from eval.scorers import taste
from stylegate import files, tables
from stylegate.errors import DataError, ModelError

MIN_LABELS = 10  # of each kind
STRENGTHS = (0.1, 1.0, 10.0, 100.0)  # inverse penalties that are tried
NUMPY_KINDS = ("F16", "F32", "F64")
TORCH_KINDS = ("BF16", "F8_E4M3", "F8_E5M2")  # numpy does not have them; torch is imported for them alone
GOOD, BAD = ("1", "good", "yes", "accept"), ("0", "bad", "no", "reject")

Head = tuple[NDArray, float]  # weight [d], bias


class FittedAestheticHead(NamedTuple):
    """An aesthetic head that was fitted to labels, and how well it tells good pictures from bad ones."""

    head: Head
    area: float  # under the ROC curve, of labelled pictures that the head was not fitted on


def load_aesthetic_head(path: Path, dimensions: int, encoder: str = "") -> Head:
    """Weight [dimensions] and bias of the linear head in a safetensors file; several layers are folded into one.

    Raises ModelError if the file cannot be read, if its layers do not lead from `dimensions` numbers to one, or if it
    names another encoder than `encoder`, a MODEL:PRETRAINED (with an encoder's folder the name is not compared).
    """
    tensors, made_for = head_tensors_and_encoder(path)
    if made_for and ":" in encoder and encoder != made_for:
        raise ModelError(
            f"aesthetic head {path.stem} reads embeddings of {made_for}, not of {encoder}",
            next_step=f"encoder={made_for}, or another score.aesthetic_head.",
        )
    names = sorted((n.removesuffix("weight") for n in tensors if n.endswith("weight")), key=layer_sort_key)
    weight, bias = np.eye(dimensions), np.zeros(dimensions)
    for name in names:
        layer = np.atleast_2d(tensors[f"{name}weight"])
        if layer.ndim != 2 or layer.shape[1] != weight.shape[0]:
            raise ModelError(f"aesthetic head {path} is for another encoder: {name}weight is {layer.shape}")
        if f"{name}bias" not in tensors:
            raise ModelError(f"aesthetic head {path}: {name}weight has no {name}bias beside it")
        own = tensors[f"{name}bias"].reshape(-1)
        if len(own) != len(layer):
            raise ModelError(
                f"aesthetic head {path}: {name}bias has {len(own)} numbers, {name}weight {len(layer)} rows"
            )
        weight, bias = layer @ weight, layer @ bias + own
    if not names or weight.shape[0] != 1:
        raise ModelError(f"aesthetic head {path} does not end in one number")
    return weight[0], float(bias[0])


def head_tensors_and_encoder(path: Path) -> tuple[dict[str, NDArray[np.float64]], str]:
    """The tensors of a head's file in double precision, and the encoder that it names (or an empty text).

    Raises ModelError for a file that is not whole, for numbers that are no plain floats or are not finite.
    """
    try:
        with safe_open(path, "numpy") as opened:
            kinds = {name: opened.get_slice(name).get_dtype() for name in opened.keys()}  # noqa: SIM118
            made_for = (opened.metadata() or {}).get("encoder", "")
        if wrong := [f"{name} is {kind}" for name, kind in kinds.items() if kind not in NUMPY_KINDS + TORCH_KINDS]:
            raise ModelError(f"aesthetic head {path} cannot be read: {', '.join(wrong)}", next_step="store it as F32.")
        with safe_open(path, "numpy" if set(kinds.values()) <= set(NUMPY_KINDS) else "pt") as opened:
            read = {name: opened.get_tensor(name) for name in kinds}
    except (SafetensorError, OSError) as error:
        raise ModelError(f"aesthetic head {path} cannot be read: {error}") from None
    tensors = {n: np.asarray(t if isinstance(t, np.ndarray) else t.double(), np.float64) for n, t in read.items()}
    if wrong := [name for name, tensor in tensors.items() if not np.isfinite(tensor).all()]:
        raise ModelError(f"aesthetic head {path} holds numbers that are not finite: {', '.join(wrong)}")
    return tensors, made_for


def layer_sort_key(name: str) -> tuple[int, ...]:
    """The numbers in a tensor's name, by which layers are sorted: (2, 0) for "layers.2.0.weight"."""
    return tuple(int(part) for part in name.split(".") if part.isdigit())


def score(embeddings: NDArray, head: Head) -> NDArray[np.float32]:
    """[n] aesthetic score of pictures by the head, from their unit embeddings [n, d]."""
    weight, bias = head
    return (embeddings @ weight + bias).astype(np.float32)


def read_aesthetic_labels(path: Path) -> list[tuple[str, Path, bool]]:
    """(name, path, whether it is labelled good) of each picture in a CSV file with the columns `file` and `label`.

    Names are relative to the folder of the CSV file.

    Raises DataError listing every problem: unknown labels, files that are missing or named twice, too few of a kind.
    """
    table = tables.read_table(path)
    if table.problems:
        raise DataError(f"score.labels={path} cannot be read:", table.problems)
    if not {"file", "label"} <= set(table.columns):
        raise DataError(f"score.labels={path} needs a first line `file,label`, then a line a picture")
    problems, found, seen = [], {}, {}
    for number, row in table.rows:
        name, label = (str(row.get(column) or "").strip() for column in ("file", "label"))
        label = label.lower()
        if label not in GOOD + BAD:
            problems.append(f"line {number}: label {label!r} is none of {', '.join(GOOD + BAD)}")
        try:
            sha256 = files.sha256_of_file(path.parent / name) if name and (path.parent / name).is_file() else ""
        except OSError:
            sha256 = ""
        if not sha256:
            problems.append(f"line {number}: no file {name!r}")
        elif sha256 in seen:
            problems.append(f"line {number}: {name} is labelled twice, as {seen[sha256]} before")
        seen[sha256] = name
        found[name] = label in GOOD
    for kind, count in (("good", sum(found.values())), ("bad", len(found) - sum(found.values()))):
        if count < MIN_LABELS:
            problems.append(f"{count} pictures are labelled {kind}; at least {MIN_LABELS} are needed")
    if problems:
        raise DataError(f"score.labels={path}:", problems)
    return [(name, path.parent / name, good) for name, good in found.items()]


def fit_aesthetic_head(embeddings: NDArray, good: NDArray[np.bool_]) -> FittedAestheticHead:
    """A head by logistic regression on labelled pictures: unit embeddings [n, d], and [n] whether each is good.

    Five-fold cross-validation chooses the penalty, and measures the area under the ROC curve.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    areas = {}
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, class_weight="balanced", max_iter=1000)
        held_out = cross_val_predict(model, embeddings, good, cv=folds, method="decision_function")
        areas[strength] = float(roc_auc_score(good, held_out))
    best = max(STRENGTHS, key=lambda strength: (areas[strength], -strength))
    model = LogisticRegression(C=best, class_weight="balanced", max_iter=1000).fit(embeddings, good)
    return FittedAestheticHead((model.coef_[0].astype(np.float64), float(model.intercept_[0])), areas[best])


def column(measured: MeasuredLot) -> NDArray[np.float32]:
    """[n] aesthetic score of the lot's decoded pictures, by the head that was fitted to score.labels, that
    score.aesthetic_head names, or that lies beside the encoder.

    Where the policy names decided pictures, it is the log-odds that people accept a picture (eval/scorers/taste.py).
    """
    if measured.decided is not None:
        return taste.acceptance_log_odds(measured)
    assert measured.head is not None
    return score(measured.pictures.embeddings, measured.head)
