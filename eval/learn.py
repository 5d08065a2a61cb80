"""Learn from people's decisions: the readers are fitted again, and it is measured whether the gate is better by it.

    stylegate learn batch=NAME                       after `stylegate review`; the arguments of the gate
    stylegate gate batch=OTHER policy=data/batches/NAME/learnt/default-learnt-1a2b3c4d.yaml

Decisions about pictures in review are for training. Labels of an audit or a calibration are evidence and are never
learned from, nor is any picture that has one: who trains on them has no proof left. What is learned is a file of
decided pictures (eval/measuring/decided.py) and a policy that names it by its digest. The policy is another one
therefore: calibrations, certificates and decisions of the one before count for nothing under it, and a gate that is not
given it is byte for byte what it was.

Every decided picture is read by readers that do not know it, as the gate itself will read it (cross-fitting). So the
areas before and after are of the same pictures and decisions, and their difference has an interval. Where that does
not lie above zero, the new policy is not recommended. Returns 0. A picture takes no time to encode again; it takes as
long as judging the lot once or twice.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from eval.judging.judge import VerdictsBeforePeople, score_and_decide_by_policy
from eval.learning import LEARNT
from eval.learning.advice import advice_on_captions_traits_references
from eval.learning.decisions import decided_pictures
from eval.learning.gains import RankingGainByLearning, ranking_gains_by_learning
from eval.learning.newpolicy import learnt_policy_file_name_and_text
from eval.learning.page import write_learning_report_page
from eval.lot.compared import comparison_pictures_with_decided_ones
from eval.lot.comparison import ComparisonPictures, DecidedPicturesFile
from eval.lot.lot import Lot, locked_lot
from eval.measuring.decided import DecidedPictures
from eval.measuring.record import READ_BY_HEAD
from eval.measuring.scores import LotScores
from eval.policy import file as policyfile
from eval.policy.model import Policy
from eval.promise import store
from eval.promise.calibration import CALIBRATION
from eval.promise.certificate import CERTIFICATE, TRAIT_CERTIFICATE
from eval.promise.label import Purpose
from eval.scorers import taste
from stylegate import files
from stylegate.config import Config
from stylegate.errors import ExitCode

EVIDENCE_IN_WORDS: dict[Purpose, str] = {  # what labels are, by purpose
    "calibrate": "labels of a calibration",
    "audit": "labels of an audit",
    "traits": "labels of an audit of traits",
    "rejected": "labels of a sample of rejects",
    "review": "decisions",
}


def learn(config: Config) -> int:
    """Write the decided pictures, a policy that learns from them, and a page on what changes. Returns 0.

    Raises DataError where there are too few decisions of a kind, saying how many are needed; nothing is written then.
    """
    policy = policyfile.read_policy(config.policy)
    with locked_lot(config) as lot, store.frozen_label_store_reads():
        compared = comparison_pictures_with_decided_ones(config, lot, policy)
        decided, notes = decided_pictures(config, lot, compared, policy)
        before = score_and_decide_by_policy(config, lot, compared, policy)
        with tempfile.TemporaryDirectory(prefix=".learnt.", dir=lot.out) as place:
            taught = write_decided_pictures_file(Path(place), compared, decided)
            elsewhere = replace(lot, out=Path(place))
            scores = score_and_decide_by_policy(config, elsewhere, taught, policy, quiet=True).scores
            decided = decided_pictures_with_standardised_scores(decided, scores)
            new = learnt_policy_file_name_and_text(policyfile.policy_path(config.policy), policy, decided, scores)
            files.write_atomically(Path(place) / new.name, new.text)
            after = score_and_decide_by_policy(
                config, elsewhere, taught, policyfile.read_policy(str(Path(place) / new.name)), quiet=True
            )
        gains = ranking_gains_by_learning(decided, before, after, policy.promise.alpha)
        folder = lot.out / LEARNT
        files.write_atomically(folder / decided.decided_pictures_file_name, decided.as_safetensors_bytes())
        files.write_atomically(folder / new.name, new.text)
        advice = advice_on_captions_traits_references(compared, decided, after.scores)
        page = write_learning_report_page(folder / "report", lot, compared, (before, after), gains, advice)
    for note in notes:
        print(f"note: {note}")
    print_gains_and_changed_verdicts(gains, before, after)
    for line in [*notes_on_void_evidence(lot, policy), *advice]:
        print(line)
    place = files.display_path(folder / new.name)
    print(f"report: {files.display_path(page)}")
    if gains[0].is_measurably_better:
        print(
            f"Next: stylegate gate policy={place} with the arguments of another batch, then stylegate certify with them"
        )
    else:
        print(f"Next: keep policy={config.policy}; decide about more pictures (stylegate review), and learn again")
    print(place)
    return ExitCode.PASS


def write_decided_pictures_file(
    place: Path, compared: ComparisonPictures, decided: DecidedPictures
) -> ComparisonPictures:
    """Write the decided pictures to a file in the folder `place`. Returns `compared` with this file."""
    files.write_atomically(place / decided.decided_pictures_file_name, decided.as_safetensors_bytes())
    return replace(
        compared,
        decided=DecidedPicturesFile(place / decided.decided_pictures_file_name, decided.sha256_of_safetensors_bytes),
    )


def decided_pictures_with_standardised_scores(decided: DecidedPictures, scores: LotScores) -> DecidedPictures:
    """The decided pictures, where those that are in the lot have their scores (READ_BY_HEAD) in spreads of the
    references, by readers that do not know them.
    """
    columns = {name: np.array([row.get(name) for row in scores.rows], np.float64) for name in READ_BY_HEAD}
    spreads = taste.scores_in_spreads(columns, scores.references, len(scores.rows))
    found, rows = decided.scores.copy(), decided.row_indexes_by_sha256()
    for row, of_picture in zip(scores.rows, spreads, strict=True):
        if (i := rows.get(row["sha256"])) is not None:
            found[i] = of_picture
    return decided._replace(scores=found)


def print_gains_and_changed_verdicts(
    gains: list[RankingGainByLearning], before: VerdictsBeforePeople, after: VerdictsBeforePeople
) -> None:
    """Print what each reader gains, and how many verdicts change in which way."""
    for gain in gains:
        print(gain.ranking_gain_in_words())
    pairs = zip(before.verdicts, after.verdicts, strict=True)
    flips = [(old.verdict, new.verdict) for old, new in pairs if old.verdict != new.verdict]
    kinds = {f"{old} to {new}": flips.count((old, new)) for old, new in sorted(set(flips))}
    listed = ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "none"
    print(f"verdicts by scores alone that change in this lot: {listed}")
    verdict = "recommended" if gains[0].is_measurably_better else "NOT recommended: not better beyond its interval"
    print(f"learn: the learnt policy is {verdict}")


def notes_on_void_evidence(lot: Lot, policy: Policy) -> list[str]:
    """A list of one sentence on the labels and files of this lot that count for nothing under the new policy."""
    last = store.last_row_hash_by_purpose(lot.out)
    found = [name for name in (CALIBRATION, CERTIFICATE, TRAIT_CERTIFICATE) if (lot.out / name).is_file()]
    found += [words for purpose, words in EVIDENCE_IN_WORDS.items() if last[purpose]]
    return [f"under the new policy these count for nothing, and under {policy.name} as before: {', '.join(found)}"]
