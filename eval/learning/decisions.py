"""The decisions that may be learned from: people's answers about pictures in review, never evidence."""

import numpy as np

from eval.lot.comparison import ComparisonPictures
from eval.lot.lot import Lot
from eval.measuring.decided import (
    ARRAYS,
    DecidedPicture,
    DecidedPictures,
    DecisionsRecord,
    read_decided_pictures,
    require_same_brand_and_encoder,
)
from eval.measuring.encoder import load_encoder
from eval.measuring.encodername import encoder_name
from eval.measuring.features import cached_features_of_files
from eval.measuring.picturefeatures import PictureFeatures
from eval.measuring.record import READ_BY_HEAD
from eval.policy.model import Policy
from eval.promise import labels, store
from eval.promise.labels import StoredLabel
from eval.reviewing.session import OFF_STYLE
from eval.scorers.aesthetic import MIN_LABELS
from stylegate import hardware
from stylegate.config import Config
from stylegate.errors import DataError
from stylegate.words import counted


def decided_pictures(
    config: Config, lot: Lot, compared: ComparisonPictures, policy: Policy
) -> tuple[DecidedPictures, list[str]]:
    """The pictures of the lot that people decided about under this policy, and those of the file that the policy names
    already; and notes on decisions that are left out. Scores are NaN for pictures of the lot.

    Raises DataError where fewer than MIN_LABELS pictures of the lot are accepted, or rejected: on these alone it is
    measured what is gained, and the head's thresholds are put.
    """
    head = store.last_row_hash_by_purpose(lot.out)["review"]
    given, notes = usable_decisions(lot, policy)
    encoder = load_encoder(encoder_name(config), hardware.set_threads_and_choose_device(config.hardware))
    earlier = read_decided_pictures(compared.decided) if compared.decided else None
    if earlier:
        require_same_brand_and_encoder(earlier, compared.brand, compared.background, encoder.sha256_of_all_encoders)
    evidence = labels.digests_labelled_as_evidence(lot.out)
    kept = [
        picture
        for picture in (earlier.record.pictures if earlier else ())
        if picture.sha256 not in given and picture.sha256 not in evidence
    ]
    names = {sha256: name for name, sha256 in lot.sha256.items()}
    planned = lot.planned_traits_by_name()
    told = [decided_picture_of_label(label, planned.get(names[sha256], {})) for sha256, label in given.items()]
    paths = dict(lot.files)
    named = [(sha256, paths[names[sha256]]) for sha256 in given]
    found, broken = cached_features_of_files(
        named, {sha256: sha256 for sha256 in given}, encoder, compared.background, config.score.batch_size, ""
    )
    notes += [f"a decided picture is left out: {names[b.name]}: {b.reason}" for b in broken]
    told = [picture for picture in told if picture.sha256 in set(found.names)]
    require_enough_decisions(told, notes, of_file=len(kept))
    own = DecidedPictures(
        DecisionsRecord.model_construct(pictures=told),
        found,
        np.full((len(found.names), len(READ_BY_HEAD)), np.nan, np.float32),
    )
    every = decided_pictures_merged_with_earlier(own, earlier, kept)
    record = DecisionsRecord(
        version=1,
        brand=compared.brand,
        background=compared.background,
        encoder=encoder_name(config),
        encoder_sha256=encoder.sha256_of_all_encoders,
        policy_sha256=policy.sha256,
        guideline=policy.guideline,
        labels_head=head or "",
        pictures=every.record.pictures,
    )
    return every._replace(record=record), notes


def usable_decisions(lot: Lot, policy: Policy) -> tuple[dict[str, StoredLabel], list[str]]:
    """The decision about each picture of the lot that may be learned from, by sha256, and notes on the others."""
    given = labels.valid_labels_by_sha256(lot.out, "review", policy)
    here, evidence = set(lot.sha256.values()), labels.digests_labelled_as_evidence(lot.out)
    notes = labels.notes_on_labels_of_other_policies(lot.out, "review", policy)
    elsewhere = [sha256 for sha256 in given if sha256 not in here]
    unsure = [sha256 for sha256, label in given.items() if label.verdict == "unsure"]
    proving = [sha256 for sha256 in given if sha256 in evidence]
    if elsewhere:
        notes.append(f"{counted(len(elsewhere), 'decision')} about pictures that are not in this lot")
    if unsure:
        notes.append(f"{counted(len(unsure), 'picture')} that somebody was unsure about")
    if proving:
        notes.append(
            f"{counted(len(proving), 'picture')} that an audit, a calibration or a sample of rejects labelled too: "
            "evidence is never learned from"
        )
    left_out = {*elsewhere, *unsure, *proving}
    return {sha256: label for sha256, label in given.items() if sha256 not in left_out}, notes


def decided_picture_of_label(label: StoredLabel, planned: dict[str, str]) -> DecidedPicture:
    """A decision as an entry of the file of decided pictures. Whoever accepts a picture has seen that its `planned`
    traits are there.
    """
    shown = {trait: value for trait, value in label.shown_traits.items() if value}
    accepted = label.verdict == "accept"
    return DecidedPicture(
        sha256=label.sha256,
        accepted=accepted,
        off_style=not accepted and OFF_STYLE in (label.reason, label.why),
        traits={**planned, **shown} if accepted else shown,
    )


def require_enough_decisions(pictures: list[DecidedPicture], notes: list[str], of_file: int) -> None:
    """Raises DataError, with `notes` on what was left out, if fewer than MIN_LABELS pictures of the lot are accepted,
    or are rejected. `of_file` is the number of pictures in the file that the policy names, which do not count here.
    """
    accepted = sum(picture.accepted for picture in pictures)
    counts = {"accepted": accepted, "rejected": len(pictures) - accepted}
    few = [
        f"{counted(count, 'picture is', 'pictures are')} {kind}; at least {MIN_LABELS} are needed"
        for kind, count in counts.items()
        if count < MIN_LABELS
    ]
    if few and of_file:
        few.append(f"decisions of this lot count; the {of_file} that the policy has learned from are of other lots")
    if few:
        raise DataError(
            "too few decisions to learn from:",
            [*few, *(f"left out: {note}" for note in notes)],
            "stylegate review with the same arguments. With a wider band for review, people decide about more.",
        )


def decided_pictures_merged_with_earlier(
    own: DecidedPictures, earlier: DecidedPictures | None, kept: list[DecidedPicture]
) -> DecidedPictures:
    """The pictures of the lot and those of an earlier file that are in `kept`, as one, in the order of their sha256."""
    rows = earlier.row_indexes_by_sha256() if earlier else {}
    numbers = np.array([rows[picture.sha256] for picture in kept], int)
    both = [(own, np.arange(len(own.features.names)))] + ([(earlier, numbers)] if earlier and kept else [])
    pictures = [one.record.pictures[i] for one, some in both for i in some]
    order = sorted(range(len(pictures)), key=lambda i: pictures[i].sha256)
    arrays = {name: np.concatenate([getattr(one.features, name)[some] for one, some in both])[order] for name in ARRAYS}
    names = [pictures[i].sha256 for i in order]
    scores = np.concatenate([one.scores[some] for one, some in both])[order]
    record = DecisionsRecord.model_construct(pictures=[pictures[i] for i in order])
    return DecidedPictures(record, PictureFeatures(names=names, sha256=names, **arrays), scores)
