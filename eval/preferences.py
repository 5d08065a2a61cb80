"""Save pairs of accepted and rejected pictures as a preference set, from which `train objective=dpo` learns.

    stylegate preferences batch=NAME             data/batches/NAME/preferences/
    stylegate preferences batch=NAME out=./pairs

Reads the verdicts of a planned batch. Each accepted picture of a slot makes a pair with each rejected one of that slot:
both were drawn for the same words. A verdict is the gate's; where a person decided about a picture in review, or a
waiver lifted a check, that counts, and the pair says so. Never used: pictures that an audit or a calibration labelled,
since those labels prove and measure; pictures in review and in error; what is rejected as a copy of another picture
alone; and pictures that show other traits than they were asked for. Made whole or not at all; the same command again
makes it anew.
"""

import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from eval.export import read_gate_record_and_verdicts
from eval.judging.record import GateRecord
from eval.judging.verdicts import PERSON, Verdict
from eval.lot.batch import PLAN, attempt_and_slot
from eval.lot.lot import Lot, locked_lot
from eval.promise.labels import digests_labelled_as_evidence
from eval.promise.store import gate_evidence_key_for_label_purpose
from stylegate import brandset, files
from stylegate.config import Config
from stylegate.errors import DataError
from stylegate.preferenceset import RECORD, ROWS, PreferencePair, PreferenceSetRecord, Source, preference_picture_file
from stylegate.words import counted

OF_OTHERS = {"distinct"}  # checks that compare a picture with others of the lot: alone they do not call it bad
FOLDER = "preferences"


class VerdictAndDecider(NamedTuple):
    """A picture that can stand in a pair: its verdict, and who decided about it."""

    verdict: Verdict
    by: Source


def preferences(config: Config) -> int:
    """Write the preference set of a batch. Returns 0.

    Raises DataError if the verdicts are not of the present state of the batch, if no slot has both an accepted and a
    rejected picture, or if `out` holds something else.
    """
    with locked_lot(config, remember=False) as lot:
        if lot.slots is None or lot.record is None or lot.record.facts.brand is None:
            raise DataError(
                "preferences are of a planned batch of a brand: pictures of a folder have no slots that they share",
                next_step="give batch=NAME, or the arguments that the batch was planned with.",
            )
        outcome, verdicts = read_gate_record_and_verdicts(lot)
        usable, left_out = pictures_usable_in_pairs(verdicts, digests_labelled_as_evidence(lot.out))
        pairs = preference_pairs_of_slots(lot, usable)
        left_out["no partner in their slot"] = len(usable) - len(
            {sha256 for pair in pairs for sha256 in (pair.chosen_sha256, pair.rejected_sha256)}
        )
        if not pairs:
            raise DataError(
                why_no_pair_in_words(usable), next_step="draw more: generate and gate again, or a larger plan."
            )
        target = Path(config.out).expanduser().resolve() if config.out else lot.out / FOLDER
        if target.exists() and not (target / RECORD).is_file():
            raise DataError(
                f"{files.display_path(target)} holds something else than a preference set",
                next_step="give a new folder, out=DIR.",
            )
        write_preference_set(target, lot, outcome, pairs, left_out)
    people = sum("person" in (pair.chosen_by, pair.rejected_by) for pair in pairs)
    slots = counted(len({pair.slot for pair in pairs}), "slot")
    print(f"preferences: {counted(len(pairs), 'pair')} of {slots}, {people} by decisions of people")
    if said := ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count):
        print(f"note: pictures in no pair: {said}")
    print("Next: stylegate train objective=dpo preferences=DIR (below), with the words of the run that drew them")
    print(f"preference set: {files.display_path(target)}")
    return 0


def pictures_usable_in_pairs(
    verdicts: Iterable[Verdict], evidence: set[str]
) -> tuple[list[VerdictAndDecider], Counter[str]]:
    """The pictures that can stand in a pair, and how many others there are, by reason.

    `evidence` is what `digests_labelled_as_evidence` gives.
    """
    usable: list[VerdictAndDecider] = []
    left_out: Counter[str] = Counter()
    for verdict in verdicts:
        rejected_for = {reason.check for reason in verdict.reasons if reason.verdict == "reject"}
        if verdict.sha256 in evidence:
            left_out["labelled in an audit or a calibration"] += 1
        elif verdict.verdict not in ("accept", "reject"):
            left_out["in review" if verdict.verdict == "review" else "in error"] += 1
        elif verdict.shown_traits:
            left_out["showing other traits than planned"] += 1
        elif verdict.verdict == "reject" and rejected_for <= OF_OTHERS:
            left_out["rejected as copies alone"] += 1
        else:
            person = PERSON in rejected_for or verdict.settled or (verdict.verdict == "accept" and verdict.waived)
            usable.append(VerdictAndDecider(verdict, "person" if person else "gate"))
    return usable, left_out


def preference_pairs_of_slots(lot: Lot, usable: list[VerdictAndDecider]) -> list[PreferencePair]:
    """A pair for each accepted and each rejected picture of the same slot, by slot and attempt.

    Raises DataError if a picture is not the one that was judged.
    """
    by_slot: dict[int, dict[str, list[VerdictAndDecider]]] = {}
    for one in usable:
        of_slot = by_slot.setdefault(attempt_and_slot(one.verdict.file)[1], {"accept": [], "reject": []})
        of_slot[one.verdict.verdict].append(one)
    pairs = [
        make_preference_pair(lot, number, chosen, rejected)
        for number, of_slot in sorted(by_slot.items())
        for chosen in of_slot["accept"]
        for rejected in of_slot["reject"]
        if chosen.verdict.sha256 != rejected.verdict.sha256
    ]
    if changed := [v.file for v, _ in usable if lot.sha256.get(v.file) != v.sha256]:
        raise DataError("pictures are not those that were judged:", changed, "stylegate gate again, then preferences.")
    return pairs


def make_preference_pair(
    lot: Lot, number: int, chosen: VerdictAndDecider, rejected: VerdictAndDecider
) -> PreferencePair:
    """The preference pair of two pictures of the slot `number`, as a row of metadata.jsonl."""
    slot = (lot.slots or {})[chosen.verdict.file]
    seeds = [
        None if lot.is_retouched(v.file, v.sha256) else slot.seed_of_attempt(attempt_and_slot(v.file)[0])
        for v in (chosen.verdict, rejected.verdict)
    ]
    return PreferencePair(
        chosen_file_name=preference_picture_file(chosen.verdict.sha256),
        rejected_file_name=preference_picture_file(rejected.verdict.sha256),
        prompt=slot.prompt,
        chosen_sha256=chosen.verdict.sha256,
        rejected_sha256=rejected.verdict.sha256,
        chosen_seed=seeds[0],
        rejected_seed=seeds[1],
        chosen_by=chosen.by,
        rejected_by=rejected.by,
        rejected_for=[reason.check for reason in rejected.verdict.reasons if reason.verdict == "reject"],
        slot=number,
    )


def why_no_pair_in_words(usable: list[VerdictAndDecider]) -> str:
    """A sentence on why there is no pair."""
    counts = Counter(one.verdict.verdict for one in usable)
    found = f"{counts['accept']} accepted and {counts['reject']} rejected pictures can be used"
    return f"no slot has both an accepted and a rejected picture: {found}"


def write_preference_set(
    target: Path, lot: Lot, outcome: GateRecord, pairs: list[PreferencePair], left_out: Counter[str]
) -> None:
    """Write the preference set into the folder `target`, whole or not at all; one that was there is replaced.
    `left_out` counts the pictures in no pair, by reason.
    """
    assert lot.record
    facts, words = lot.record.facts, lot.record.words
    brand = brandset.read_brand_file(brandset.brand_folder(words.brand))
    rows = files.json_lines_text(pair.json_data_without_defaults() for pair in pairs)
    paths = {lot.sha256[name]: path for name, path in lot.files}

    def write_preference_set_files(partial: Path) -> None:
        for sha256 in {digest for pair in pairs for digest in (pair.chosen_sha256, pair.rejected_sha256)}:
            files.write_atomically(partial / preference_picture_file(sha256), paths[sha256].read_bytes())
        files.write_atomically(partial / ROWS, rows)
        PreferenceSetRecord(
            pairs=len(pairs),
            sha256=files.sha256_of_file(partial / ROWS),
            brand=brand.name,
            licence=brand.licence,
            source=brand.source,
            brand_sha256=facts.brand or "",
            base_sha256=facts.base,
            lora_sha256=facts.lora,
            run=words.run,
            batch=lot.out.name,
            plan_sha256=files.sha256_of_file(lot.out / PLAN),
            policy_sha256=outcome.policy.sha256,
            decisions_sha256=outcome.evidence.get(gate_evidence_key_for_label_purpose("review")),
            left_out={reason: count for reason, count in left_out.items() if count},
        ).write_json_file(partial / RECORD)
        shutil.rmtree(target, ignore_errors=True)  # a kill here leaves none, the same command makes it

    files.write_folder_atomically(target, write_preference_set_files)
