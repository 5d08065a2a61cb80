"""Package what was accepted: pictures, metadata, checksums, provenance. Whole or not at all.

    stylegate export brand=neon traits=collectible       data/exports/neon-v1/
    stylegate export images=DIR name=acme source_type=trainedAlgorithmicMedia    a foreign folder's accepted pictures
    stylegate export batch=NAME key=acme.pem             signed by a key of your own; key=none does not sign
    stylegate export batch=NAME burn=3 merge=5+9         a new version without item 3; 9 goes into 5

Reads verdicts.jsonl and gate.json, and hashes every picture again. Files that came after the gate are named (exit 10).
The same content is not exported twice: N grows only when something differs. Nothing leaves where an accepted picture
was changed or is gone since its verdict (exit 10), while the policy asks for a promise that is not proven (exit 12 or
13), where the lot as a whole broke a rule (exit 10), or under a licence that is unknown or forbids commercial use,
unless accept_licence= names it (exit 2). Rejected pictures hold nobody else back: what was accepted leaves, also where
they made the gate end with 10.
"""

import datetime
import os
import shutil
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from eval.judging.judge import evidence_digests
from eval.judging.record import GateRecord
from eval.judging.verdicts import Verdict, exportable_verdicts, read_verdicts
from eval.lot.batch import attempt_and_slot
from eval.lot.cost import cost_per_accepted, read_compute_seconds_by_stage
from eval.lot.lot import Lot, locked_lot
from eval.package import living
from eval.package.bag import write_bag_manifests_and_signatures
from eval.package.earlier import earlier_package_with_signed_digests
from eval.package.fill import NO_MARKS, fill_package, number_of_planned_pictures
from eval.package.label_heads import LABEL_HEADS, last_label_row_hashes
from eval.package.layout import IMAGES, is_bag, read_picture_rows
from eval.package.licences import licence_chain
from eval.package.marking import ExportMarks, requested_marks, watermark_of_batch
from eval.package.marks import MARKS, MarksReport, marks_in_words
from eval.package.proof import package_problems
from eval.package.provenance import LicenceOfMaterial
from eval.package.receiver import SIGNER, TAGMANIFEST
from eval.package.receiver import check_received_package as check_bytes
from eval.package.signature import PrivateKey, is_file_signed_by_key, signing_key
from eval.policy.model import VERDICTS
from eval.promise.certificate import TRAIT_CERTIFICATE
from stylegate import files, lineage
from stylegate.config import Config, run_or_batch_name
from stylegate.errors import DataError, ExitCode
from stylegate.words import counted

COST = "proof/cost.json"
HISTORY = (living.CHANGES, COST, LABEL_HEADS)  # how a package came to be: two that differ in these alone are the same
NEXT_VERSION = "then export makes the next version"
DRAWING_COMPLETES = (
    f"stylegate generate and then gate, with the same arguments, draw the open slots again; {NEXT_VERSION}"
)
PEOPLE_COMPLETE = (
    f"a person decides about the open slots: stylegate gate with the same arguments says how; {NEXT_VERSION}"
)
NAMED = 10  # pictures that a note names
GATE_AGAIN = "stylegate gate with the same arguments judges what is there now and says what to mend; then export"


def export(config: Config) -> int:
    """Write the next version of the package, or print which one holds the same. Returns 0; 10, 12 or 13 where something
    has to stay here.
    """
    told = living.burn_and_merge_request_from_config(config)
    with locked_lot(config, remember=False) as lot:  # everything that decides is read here
        outcome, verdicts = read_gate_record_and_verdicts(lot)
        if held := exit_code_and_reason_against_export(lot, outcome, verdicts):
            code, why, advice = held
            print(f"export: nothing was exported: {why}")
            print(f"Next: {advice}")
            return code
        collection = files.EXPORTS / (
            config.name or (run_or_batch_name(config) if config.brand else package_name_without_leading_dots(lot.out))
        )
        with files.exclusive_lock(collection):
            licences = licence_chain(config, lot)
            pictures_to_export(lot, verdicts)  # there are some
            key, marks = signing_key_and_requested_marks(config)  # it may make a key: not for an export that is refused
            marks = replace(marks, watermark=watermark_of_batch(config, lot))
            price = config.hardware.price_per_hour
            target = write_package(lot, collection, outcome, verdicts, key, licences, marks, told, price)
        sha256 = files.sha256_of_file(target / TAGMANIFEST)
        lineage.record_artifact(lot.out, "make", "package", f"package-{collection.name}", sha256, [target])
    if stay := accepted_attempts_not_exported(lot, verdicts, target):
        print(f"note: accepted, but another attempt at the same slot is exported: {count_and_first_names(stay)}")
        print("      (the one that an earlier version has, else the best one)")
    if new := files_without_verdict(lot, verdicts):
        print(f"note: {count_and_first_names(new)} came after the gate and was not judged")
    if (lot.out / TRAIT_CERTIFICATE).exists() and not (target / "data" / TRAIT_CERTIFICATE).exists():
        print(f"note: {TRAIT_CERTIFICATE} is not of the traits that leave, and stays: stylegate plan audit=true")
    report = MarksReport.read_json_file(target / MARKS, "the report on marks")
    planned = number_of_planned_pictures(lot)
    if planned and report.pictures < planned:
        print(
            f"note: {report.pictures} of the {planned} planned pictures are in the package; rarity and ranks in it are"
        )
        print("      computed among these")
    print(f"marks: {marks_in_words(report)}")
    if key:
        fingerprint = files.sha256_of_file(target / SIGNER)
        print(f"key: the fingerprint is {fingerprint}; tell it to the receiver in another way than")
        print("     with the package: it is the sha256 of signer.pub.pem")
    print(f"export: {files.display_path(target)} ({exported_and_left_in_words(report.pictures, outcome, planned)})")
    is_complete = outcome.slots is None or outcome.slots.accepted >= outcome.slots.wanted
    if outcome.slots and not is_complete:
        have = counted(outcome.slots.accepted, "slot has", "slots have")
        print(f"The collection is not complete: {have} an accepted picture, {outcome.slots.wanted} are wanted.")
    if new:
        print(f"Next: {GATE_AGAIN}")
        return ExitCode.REJECTED
    if not is_complete:
        print(f"Next: {PEOPLE_COMPLETE if outcome.exit_code == ExitCode.REVIEW else DRAWING_COMPLETES}")
    return ExitCode.PASS


def signing_key_and_requested_marks(config: Config) -> tuple[PrivateKey | None, ExportMarks]:
    """The private key that signs the package, which may be made now (None with key=none), and what its pictures are
    marked with. Raises ConfigError for a key that cannot sign.
    """
    return signing_key(config.key), requested_marks(config)


def count_and_first_names(found: list[str]) -> str:
    """The number of these pictures and the first NAMED names, as text: "3 (a.png, b.png, c.png)"."""
    return f"{len(found)} ({', '.join(found[:NAMED])}{', …' if len(found) > NAMED else ''})"


def package_name_without_leading_dots(out: Path) -> str:
    """The name of a lot's folder without dots at its beginning: a hidden package would not be compared with by later
    gates.
    """
    return out.name.lstrip(".")


def files_without_verdict(lot: Lot, verdicts: list[Verdict]) -> list[str]:
    """Names of the lot's files that have no verdict: they came after the gate."""
    return sorted({name for name, _ in lot.files} - {verdict.file for verdict in verdicts})


def exported_and_left_in_words(left: int, outcome: GateRecord, planned: int | None) -> str:
    """How many pictures left, of how many that were planned or judged; how many of each other verdict did not; and how
    the gate ended, in words.

    `planned` is the number of slots of a plan; None for a folder that was not planned.
    """
    counts = outcome.counts
    stay = [f"{count} {name}" for name in VERDICTS if name != "accept" and (count := getattr(counts, name))]
    whole = counted(planned, "planned picture") if planned else counted(counts.judged, "picture")
    parts = [f"{left} of {whole}", f"{', '.join(stay)} left here" if stay else ""]
    parts.append(f"policy {outcome.policy.name} {outcome.policy.sha256[:12]}")
    parts.append(f"the gate ended with exit code {outcome.exit_code}" if outcome.exit_code else "")
    return "; ".join(filter(None, parts))


def write_package(
    lot: Lot,
    collection: Path,
    outcome: GateRecord,
    verdicts: list[Verdict],
    key: PrivateKey | None = None,
    licences: Sequence[LicenceOfMaterial] = (),
    marks: ExportMarks = NO_MARKS,
    told: living.ItemsToBurnAndMergesOfItems = living.NOTHING,
    price: float | None = None,
) -> Path:
    """Write the next version of the package, of pictures that are as they were judged. Returns its folder.

    If the newest version holds the same already, its folder is returned and nothing is written. An item that an earlier
    version has keeps its picture while that is accepted, unless a certificate is of another one. The package is signed
    by `key`, if there is one. Raises DataError if nothing can be exported.
    """
    versions = living.numbered_versions(collection)
    certified = outcome.promise.state == "certified"  # it is of the best attempts
    kept = () if certified else living.judged_digests_of_newest_pictures([package for package, _ in versions])
    accepted = pictures_to_export(lot, verdicts, kept)
    newest, number = versions[-1] if versions else (None, 0)
    accepted = living.verdicts_without_burned(lot, accepted, newest, told)
    earlier = earlier_package_with_signed_digests(newest, key)
    partial = collection.with_name(f".{collection.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    if partial.is_symlink() or partial.exists():  # what lies there would leave too
        raise DataError(f"{files.display_path(partial)} cannot be removed", next_step="remove it, then export again.")
    try:
        provenance = fill_package(partial, lot, accepted, outcome, collection.name, licences, marks, earlier)
        if seconds := read_compute_seconds_by_stage(lot.out):
            cost_per_accepted(seconds, len(accepted), price, len(lot.stopped)).write_json_file(partial / COST)
        if heads := last_label_row_hashes(outcome):
            heads.write_json_file(partial / LABEL_HEADS)
        if newest and is_bag(newest):
            living.write_changes(partial, newest, [package for package, _ in versions], told)
        write_bag_manifests_and_signatures(partial, collection.name, key, provenance)
        if problems := package_problems(partial):
            raise DataError("the package would not verify:", problems, "stylegate gate again, then export.")
        same = newest and manifest_lines_to_compare(newest) == manifest_lines_to_compare(partial)
        if newest and same and not check_bytes(newest, is_file_signed_by_key)[2]:
            return newest
        os.sync()  # all of it is on the disk before it has its name
        return partial.rename(collection.with_name(f"{collection.name}-v{number + 1}"))
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def manifest_lines_to_compare(package: Path) -> list[bytes]:
    """The lines (digest and file) of a package's tag manifest by which two versions are compared; [] without a
    manifest. They vouch for every byte, and for the key that signed.

    What changed since the version before, what it cost so far, and the rows in which people's labels stand, are left
    out: else nothing would ever be the same.
    """
    path = package / TAGMANIFEST
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [line for line in lines if line.partition(b"  ")[2].decode() not in HISTORY]


def exit_code_and_reason_against_export(
    lot: Lot, outcome: GateRecord, verdicts: list[Verdict]
) -> tuple[int, str, str] | None:
    """Exit code, reason and next step, in words, where the whole lot stays here; None where it may leave."""
    state, says = outcome.promise.state, outcome.promise.says
    if state in ("stale", "insufficient"):
        certify = "stylegate certify with the same arguments proves this lot, whatever came before"
        advice = certify if outcome.counts.accept else "no picture is accepted: stylegate gate says why"
        return ExitCode.STALE if state == "stale" else ExitCode.EVIDENCE, says, advice
    broken = [rule.says for rule in outcome.batch if rule.state == "fail"]
    broken += ["a picture lies below a line that fails the batch"] if outcome.fails_batch else []
    if changed := accepted_pictures_not_as_judged(lot, verdicts):
        broken.append(f"accepted pictures are not what the gate judged: {count_and_first_names(changed)}")
    rules = outcome.batch or any(lines.fail_batch_below is not None for lines in outcome.thresholds.values())
    if rules and (new := files_without_verdict(lot, verdicts)):
        late = count_and_first_names(new)
        broken.append(f"the policy judges the lot as a whole, and some pictures came after the gate: {late}")
    return (ExitCode.REJECTED, "; ".join(broken), GATE_AGAIN) if broken else None


def read_gate_record_and_verdicts(lot: Lot) -> tuple[GateRecord, list[Verdict]]:
    """gate.json and the verdicts. Raises DataError unless the verdicts are the ones that gate.json speaks of."""
    what = "the gate's record (stylegate gate first)"
    outcome = GateRecord.read_json_file(lot.out / "gate.json", what, "stylegate gate again, then export.")
    now = evidence_digests(lot.out, outcome.calibration)
    if changed := [name for name, sha256 in now.items() if outcome.evidence.get(name) != sha256]:
        raise DataError(
            f"{', '.join(changed)} in {files.display_path(lot.out)} is not what the gate knew",
            next_step="stylegate gate again, then export.",
        )
    if outcome.observe:
        raise DataError("the verdicts were made with observe=true", next_step="stylegate gate without it, then export.")
    path = lot.out / "verdicts.jsonl"
    if not path.is_file() or files.sha256_of_file(path) != outcome.verdicts_sha256:
        raise DataError(
            f"{files.display_path(path)} is not what the gate wrote", next_step="stylegate gate again, then export."
        )
    if (outcome.slots is None) != (lot.record is None):
        kinds = "a folder", "a planned batch"
        judged, named = kinds if outcome.slots is None else reversed(kinds)
        raise DataError(
            f"the verdicts in {files.display_path(lot.out)} are of {judged}, and the arguments name {named}",
            next_step="give the arguments that the gate was given, or run the gate with these.",
        )
    verdicts = read_verdicts(path)
    for verdict in verdicts:
        for waived in verdict.waived:
            if datetime.date.fromisoformat(waived.expires) < files.today_in_utc():
                raise DataError(f"a waiver of {verdict.file} has ended", next_step="stylegate gate again, then export.")
    return outcome, verdicts


def accepted_pictures_not_as_judged(lot: Lot, verdicts: list[Verdict]) -> list[str]:
    """For each accepted picture whose file is not the one that was judged, its name and what became of it, as text:
    "a.png was changed".
    """
    became = {None: "is gone", "": "cannot be read"}
    return [
        f"{v.file} {became.get(now, 'was changed')}"
        for v in verdicts
        if v.verdict == "accept" and (now := lot.sha256.get(v.file)) != v.sha256
    ]


def pictures_to_export(lot: Lot, verdicts: list[Verdict], kept: Collection[str] = ()) -> list[Verdict]:
    """The verdicts on the pictures that leave; of several attempts at a slot one whose sha256 is in `kept` goes first.
    Raises DataError if there is none, or if a manifest cannot hold the name of one.
    """
    accepted = exportable_verdicts(verdicts, bool(lot.slots), kept)
    if not accepted:
        raise DataError(
            f"nothing to export: no picture of {files.display_path(lot.out)} was accepted",
            next_step="its report says why; what is in review a person settles: stylegate gate ... decisions=FILE.csv.",
        )
    odd = [repr(v.file) for v in accepted if not v.file.isprintable() or "%" in v.file]
    if odd:
        raise DataError("file names that a manifest cannot hold:", odd, "rename them and run the gate again.")
    return accepted


def accepted_attempts_not_exported(lot: Lot, verdicts: list[Verdict], package: Path) -> list[str]:
    """Names of the accepted pictures of a planned batch that stay, since the package has another one of their slot."""
    if not lot.slots:
        return []
    left = {row["file_name"].removeprefix(f"{IMAGES}/") for row in read_picture_rows(package)}
    filled = {attempt_and_slot(name)[1] for name in left}
    accepted = [verdict.file for verdict in verdicts if verdict.verdict == "accept"]
    return [name for name in accepted if name not in left and attempt_and_slot(name)[1] in filled]
