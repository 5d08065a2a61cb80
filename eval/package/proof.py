"""Whether a package is whole: bytes against its manifest, rows against pictures, the proof against both."""

import re
from pathlib import Path

from eval.judging.record import PromiseState
from eval.package.calibrated import problems_with_calibration
from eval.package.provenance import Provenance
from eval.policy.model import VERDICTS
from eval.promise.certificate import CERTIFICATE, certified_pictures, read_certificate
from stylegate import files
from stylegate.errors import DataError

MANIFEST = "manifest-sha256.txt"


def package_problems(package: Path) -> list[str]:
    """A line for each problem of a package; none if it is whole.

    First come files that are missing, added or changed against the manifest; only if there are none, where the
    manifest, metadata.jsonl and provenance.json do not agree.
    """
    manifest = package / MANIFEST
    if not manifest.is_file():
        return [f"{MANIFEST} is missing"]
    listed: dict[str, str] = {}
    problems = []
    lines = manifest.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, line in enumerate(filter(None, lines), start=1):
        found = re.fullmatch(r"([0-9a-f]{64})  (.+)", line)
        if not found or found[2] in listed or not (package / found[2]).resolve().is_relative_to(package.resolve()):
            problems.append(f"{MANIFEST}, line {number} is not a checksum and a name")
        else:
            listed[found[2]] = found[1]
    found_here = {p.relative_to(package).as_posix(): p for p in package.rglob("*") if p.is_symlink() or not p.is_dir()}
    present = set(found_here) - {MANIFEST}
    strange = {name for name in present if found_here[name].is_symlink() or not found_here[name].is_file()}
    problems += [f"{name}: no plain file" for name in sorted(strange)]
    problems += [f"{name}: missing" for name in sorted(set(listed) - present)]
    problems += [f"{name}: added" for name in sorted(present - set(listed) - strange)]
    plain = sorted(present & set(listed) - strange)
    problems += [f"{name}: changed" for name in plain if files.sha256(package / name) != listed[name]]
    return problems or disagreements_of_names(package, {n: h for n, h in listed.items() if n.startswith("images/")})


def check_promise(package: Path, provenance: Provenance, rows: list[dict]) -> tuple[list[str], str]:
    """Where the package does not prove the promise that its provenance speaks of; and what it proves, in words.

    The words are computed from the certificate or the calibration in the package, never copied from provenance.json.
    They are "" where nothing is promised.
    """
    promise, pictures = provenance.judged_by.promise, [str(row["sha256"]) for row in rows]
    if promise.state == "certified" or (package / CERTIFICATE).exists():
        return certificate_problem(package, promise, pictures)
    if promise.state == "valid":
        return problems_with_calibration(package, provenance.judged_by.policy.sha256, set(pictures))
    if promise.state != "none" or promise.certificate_sha256:
        return [f"provenance.json calls the promise {promise.state!r}, for which there is no proof here"], ""
    return [], ""


def certificate_problem(package: Path, promise: PromiseState, pictures: list[str]) -> tuple[list[str], str]:
    """Where the certificate does not prove what is promised of `pictures` (sha256); and what it proves, in words."""
    if not (package / CERTIFICATE).exists():
        return [f"{CERTIFICATE} is missing, but provenance.json speaks of it"], ""
    try:
        found = read_certificate(package / CERTIFICATE)
    except DataError as error:
        return [str(error)], ""
    named = promise.state == "certified" and found.sha256 == promise.certificate_sha256
    problems = [] if named else [f"{CERTIFICATE} is not the one that provenance.json names"]
    if sorted(pictures) != sorted(certified_pictures(found)):
        problems.append("the pictures are not those that were certified, all of them and no others")
    return problems, f"certified: {found.sentence()}"


def read_package(package: Path) -> tuple[Provenance, list[dict]]:
    """provenance.json and the rows of metadata.jsonl. Raises DataError if one is missing or damaged."""
    provenance = Provenance.read(package / "provenance.json", "the provenance")
    return provenance, files.read_jsonl(package / "metadata.jsonl", "file_name", "sha256")


def disagreements_of_names(package: Path, images: dict[str, str]) -> list[str]:
    """Where rows, pictures and counts of a package whose bytes are whole do not agree."""
    try:
        provenance, rows = read_package(package)
    except DataError as error:
        return error.problems or [str(error)]
    counts = provenance.counts
    problems, _ = check_promise(package, provenance, rows)
    if not all(isinstance(row["file_name"], str) and isinstance(row["sha256"], str) for row in rows):
        return [*problems, "metadata.jsonl: file_name and sha256 must be text"]
    if {row["file_name"]: row["sha256"] for row in rows} != images or len(rows) != len(images):
        problems.append("metadata.jsonl and images/ do not hold the same pictures")
    if counts.exported != len(images) or counts.exported > counts.accept:
        problems.append(f"{counts.exported} exported by the counts, {counts.accept} accepted, {len(images)} here")
    by_verdict = {name: getattr(counts, name) for name in VERDICTS}
    if counts.judged != sum(by_verdict.values()):
        problems.append(f"{counts.judged} in, but {', '.join(f'{count} {name}' for name, count in by_verdict.items())}")
    return problems
