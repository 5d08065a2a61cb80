"""Which aesthetic head scores a lot: one learned from labels, one that is named, or the one beside the encoder."""

import numpy as np

from eval.lot.batch import require_file
from eval.lot.lot import sha256_by_name
from eval.measuring.encoder import LoadedEncoder
from eval.measuring.encodername import encoder_name
from eval.measuring.features import cached_features_of_files
from eval.measuring.scores import named_aesthetic_head_path
from eval.scorers import aesthetic
from stylegate.config import Config
from stylegate.errors import ConfigError, DataError


def aesthetic_head_and_notes(
    config: Config, encoder: LoadedEncoder, width: int, background: str, quiet: bool = False
) -> tuple[aesthetic.Head | None, list[str]]:
    """The aesthetic head for embeddings of `width` numbers: learned from score.labels, named, or beside the
    encoder.

    None if there is none. Also returns notes for people. `quiet` shows no progress. Raises DataError for labels or
    labelled pictures that cannot be read, ModelError for a head of another encoder.
    """
    if config.score.labels:
        return fit_head_to_labels(config, encoder, background, quiet)
    beside = encoder.folder / "aesthetic.safetensors" if encoder.folder else None
    path = named_aesthetic_head_path(config) or (beside if beside and beside.is_file() else None)
    return (aesthetic.load_aesthetic_head(path, width, encoder_name(config)) if path else None), []


def refuse_second_head(config: Config) -> None:
    """Raises ConfigError where score.labels or score.aesthetic_head gives a head beside the one that the policy's
    decided pictures teach.
    """
    if config.score.labels or config.score.aesthetic_head:
        raise ConfigError(
            "the policy's `learnt` teaches an aesthetic head, and score.labels or score.aesthetic_head gives another",
            next_step="leave one of them out.",
        )


def fit_head_to_labels(
    config: Config, encoder: LoadedEncoder, background: str, quiet: bool
) -> tuple[aesthetic.Head, list[str]]:
    """Fit an aesthetic head to the labelled pictures of `score.labels`, laid on `background` as the lot's are; `quiet`
    shows no progress.

    Returns the head, and a note with its area under the ROC curve on labelled pictures that it was not fitted on.
    Raises DataError for labels that cannot be used and for pictures that cannot be read.
    """
    labels = aesthetic.read_aesthetic_labels(require_file(config.score.labels or "", "score.labels"))
    named = [(name, path) for name, path, _ in labels]
    features, broken = cached_features_of_files(
        named, sha256_by_name(named), encoder, background, config.score.batch_size, "" if quiet else "labels"
    )
    if broken:
        raise DataError("labelled pictures cannot be read:", [f"{b.name}: {b.reason}" for b in broken])
    good = {name: label for name, _, label in labels}
    learned = aesthetic.fit_aesthetic_head(features.embeddings, np.array([good[name] for name in features.names]))
    area = f"area under the ROC curve {learned.area:.2f} on those held out"
    return learned.head, [f"aesthetic head of {len(good)} labels: {area}"]
