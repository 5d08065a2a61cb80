"""Whether a package is whole: bytes against its manifest, rows against pictures, the proof against both."""

import hashlib
import json
from pathlib import Path

from eval.judging.certified import certified_promise_state
from eval.judging.record import PromiseState
from eval.judging.verdicts import worst_verdict_of_reasons
from eval.package import receiver, ssh
from eval.package.bag import SSH_SIGNER, STATEMENT
from eval.package.calibrated import calibration_problems_and_proven_claim
from eval.package.items import ItemRecord
from eval.package.layout import IMAGES, OLD_TABLE, TABLE, is_bag, payload_folder, read_item_rows, read_picture_rows
from eval.package.livingcheck import verify_changes_file
from eval.package.provenance import PackageCounts, PackageProvenance
from eval.package.signature import is_file_signed_by_key
from eval.package.statement import in_toto_statement_problem
from eval.package.verify_marks import SEEN
from eval.policy.model import VERDICTS
from eval.promise.certificate import CERTIFICATE, TRAIT_CERTIFICATE, certified_digests, read_certificate
from eval.promise.statements import stated_traits_match_audit
from stylegate import files
from stylegate.errors import DataError

CHANGED = "it was changed after its export, or this user may not read all of it; do not use it."
OLD_FORM = "who made the package: it is of the older form, which is not signed and has no Merkle root"


def package_problems(package: Path) -> list[str]:
    """A line for each problem of a package; none if it is whole."""
    return check_package(package)[2]


def check_package(package: Path) -> tuple[list[str], list[str], list[str]]:
    """(proven, not proven, wrong): sentences on a package. What its pictures carry as marks is not said
    (`check_credentials_and_watermarks` does).

    Wrong are first files that are missing, added or changed against the manifests; only if there are none, parts that
    do not agree.
    """
    if is_bag(package):
        proven, unproven, wrong = receiver.check_received_package(package, is_file_signed_by_key)
        proven = [line for line in proven if not line.startswith(SEEN)]  # eval/package/marks.py reads marks themselves
    else:
        proven, unproven, wrong = [], [OLD_FORM], problems_with_old_form_package_files(package)
    wrong = wrong or problems_between_package_parts(package)
    if not wrong:
        proven += check_trait_certificate(package)[0]
        lived, unknown, wrong = verify_changes_file(package)
        proven, unproven = proven + lived, unproven + unknown
    return proven, unproven, wrong


def problems_with_old_form_package_files(package: Path) -> list[str]:
    """What is wrong with the files of a package of the older form, which has one manifest of all others."""
    wrong: list[str] = []
    receiver.check_files(package, wrong)
    of_bags = (f"{receiver.TAGMANIFEST} is missing", f"{receiver.MANIFEST}: added")
    return [line for line in wrong if not line.startswith(of_bags)]


def promise_problems_and_proven_claim(
    package: Path, provenance: PackageProvenance, rows: list[dict]
) -> tuple[list[str], str]:
    """(problems, claim): sentences on why a package does not prove the promise in its provenance, and what it proves.

    The claim is computed from the certificate or the calibration in the package, never copied from provenance.json.
    It is "" where nothing is promised.
    """
    promise, pictures = provenance.judged_by.promise, [str(row["judged_sha256"]) for row in rows]
    if promise.state == "certified" or (package / CERTIFICATE).exists():
        return certificate_problems_and_proven_claim(package, provenance, pictures)
    if promise.state == "valid":
        return calibration_problems_and_proven_claim(package, provenance.judged_by.policy.sha256, set(pictures))
    if promise != PromiseState(state="none", says=promise.says):
        return [f"provenance.json calls the promise {promise.state!r}, for which there is no proof here"], ""
    return [], ""


def certificate_problems_and_proven_claim(
    package: Path, provenance: PackageProvenance, pictures: list[str]
) -> tuple[list[str], str]:
    """(problems, claim): sentences on why the certificate does not prove the promise for `pictures` (sha256), and what
    it proves, in words; "" where it is missing or damaged.
    """
    if not (package / CERTIFICATE).exists():
        return [f"{CERTIFICATE} is missing, but provenance.json speaks of it"], ""
    try:
        found = read_certificate(package / CERTIFICATE)
    except DataError as error:
        return [str(error)], ""
    judged_by, problems = provenance.judged_by, []
    if judged_by.promise.certificate_sha256 != found.sha256:
        problems.append(f"{CERTIFICATE} is not the one that provenance.json names")
    elif judged_by.promise != certified_promise_state(found):
        problems.append(f"provenance.json says something else of the promise than {CERTIFICATE} proves")
    if judged_by.policy.sha256 != found.policy.sha256:
        problems.append(f"{CERTIFICATE} is of another policy than the one that judged")
    if sorted(pictures) != sorted(certified_digests(found)):
        problems.append("the pictures are not those that were certified, all of them and no others")
    return problems, f"certified: {found.proven_claim_in_words()}"


def read_provenance_and_rows(package: Path) -> tuple[PackageProvenance, list[dict]]:
    """provenance.json, and a row for each picture (`read_picture_rows`). Raises DataError for a missing or damaged
    file.
    """
    return PackageProvenance.read_json_file(
        payload_folder(package) / "provenance.json", "the provenance"
    ), read_picture_rows(package)


def problems_between_package_parts(package: Path) -> list[str]:
    """Sentences on parts that do not agree with each other in a package whose bytes are those of its manifests."""
    try:
        provenance, rows = read_provenance_and_rows(package)
        if not all(isinstance(text, str) for row in rows for text in row.values()):
            return ["the names and digests of the pictures must be text"]
        problems, _ = promise_problems_and_proven_claim(payload_folder(package), provenance, rows)
        if is_bag(package):
            wrong = problems + problems_with_in_toto_statement(package) + problems_with_ssh_form_of_signer_key(package)
            return wrong + problems_with_items(package / "data", provenance, rows) + check_trait_certificate(package)[1]
        return problems + problems_with_old_form_package_rows(package, provenance.counts, rows)
    except DataError as error:
        return error.problems or [str(error)]


def check_trait_certificate(package: Path) -> tuple[list[str], list[str]]:
    """(proven, wrong): sentences on the audit of the traits that a bag states; both empty where there was none."""
    path = package / "data" / TRAIT_CERTIFICATE
    if not path.exists():
        return [], []
    found = read_certificate(path)
    judged = {row["file_name"]: row["judged_sha256"] for row in read_picture_rows(package)}
    stated = [
        (judged.get(row.file_name, ""), trait, value)
        for row in read_item_rows(package)
        for trait, value in row.traits.items()
    ]
    if not stated_traits_match_audit(found.statements, found.labels, stated):
        return [], [f"{TRAIT_CERTIFICATE} is not of the traits that the metadata states"]
    return [f"{TRAIT_CERTIFICATE}: {found.proven_claim_in_words()}"], []


def problems_with_old_form_package_rows(package: Path, counts: PackageCounts, rows: list[dict]) -> list[str]:
    """Sentences on rows and counts that do not agree with the pictures, in a package of the older form."""
    problems = []
    images = {path.relative_to(package).as_posix(): path for path in (package / IMAGES).rglob("*") if path.is_file()}
    if {row["file_name"]: row["sha256"] for row in rows} != {n: files.sha256_of_file(p) for n, p in images.items()}:
        problems.append(f"{OLD_TABLE} and images/ do not hold the same pictures")
    if not len(rows) == len(images) == counts.exported <= counts.accept:
        problems.append(f"{counts.exported} exported by the counts, {counts.accept} accepted, {len(images)} here")
    by_verdict = {name: getattr(counts, name) for name in VERDICTS}
    if counts.judged != sum(by_verdict.values()):
        problems.append(f"{counts.judged} in, but {', '.join(f'{count} {name}' for name, count in by_verdict.items())}")
    return problems


def problems_with_ssh_form_of_signer_key(package: Path) -> list[str]:
    """A list with one sentence if the key in signer.ssh.pub is not the key that signed the package; else []."""
    if not (package / SSH_SIGNER).exists():
        return []
    same = ssh.is_allowed_signer_line_of_key(
        (package / SSH_SIGNER).read_text(errors="replace"), package / receiver.SIGNER
    )
    return [] if same else [f"{SSH_SIGNER}: not the key in {receiver.SIGNER}"]


def problems_with_in_toto_statement(package: Path) -> list[str]:
    """A list with one sentence if the in-toto statement of a bag is not of this bag or not signed by
    its key; else [].
    """
    if not (package / STATEMENT).exists():
        return []
    envelope = files.read_json(package / STATEMENT, "the statement", "payload", "signatures")
    problem = in_toto_statement_problem(envelope, package / receiver.MANIFEST, package / receiver.SIGNER)
    return [f"{STATEMENT}: {problem}"] if problem else []


def problems_with_items(data: Path, provenance: PackageProvenance, rows: list[dict]) -> list[str]:
    """Sentences on where table, records and metadata of a bag do not name the same pictures, traits and verdicts."""
    problems, table = [], {row.file_name: row for row in read_item_rows(data.parent)}
    judged = {row["file_name"]: row["judged_sha256"] for row in rows}
    if {name: row.sha256 for name, row in table.items()} != {row["file_name"]: row["sha256"] for row in rows}:
        problems.append(f"{TABLE} and images/ do not hold the same pictures")
    names = {f"{row.id}.json" for row in table.values()}
    for folder in ("records", "metadata/erc721"):
        if {path.name for path in (data / folder).glob("*")} != names:
            problems.append(f"{folder}/ and {TABLE} do not hold the same items")
    for row in table.values() if not problems else ():
        record = ItemRecord.read_json_file(data / "records" / f"{row.id}.json", "the record")
        token = data / "metadata" / "erc721" / f"{row.id}.json"
        described = token.read_bytes()
        if (record.file, record.sha256, record.judged_sha256 or record.sha256, record.metadata_sha256) != (
            row.file_name,
            row.sha256,
            judged[row.file_name],
            hashlib.sha256(described).hexdigest(),
        ):
            problems.append(f"records/{row.id}.json is not of item {row.id}")
        if not record_says_accepted(record, provenance.judged_by.policy.sha256):
            problems.append(f"records/{row.id}.json does not say that the policy in provenance.json accepted it")
        if row.traits != {a["trait_type"]: a["value"] for a in json.loads(described)["attributes"]}:
            problems.append(f"{token.relative_to(data)} has other traits than {TABLE}")
    return problems


def record_says_accepted(record: ItemRecord, policy_sha256: str) -> bool:
    """Whether the verdict in a record is `accept`, of the record's own picture, by this policy, and by its reasons."""
    found = record.verdict
    of_picture = (f"{IMAGES}/{found.file}", found.sha256) == (record.file, record.judged_sha256 or record.sha256)
    return (
        of_picture
        and found.policy_sha256 == policy_sha256
        and found.verdict == worst_verdict_of_reasons(found.reasons) == "accept"
    )
