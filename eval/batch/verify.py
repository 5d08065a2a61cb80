"""Verify packages: every byte against the manifest, nothing added, nothing missing, counts that agree.

stylegate verify data/exports/demo-v1
"""

import re
from pathlib import Path

from eval.batch.export import MANIFEST
from stylegate import files
from stylegate.errors import DataError


def verify(packages: list[Path]) -> int:
    """Say of each package whether it holds. Raises DataError listing everything that does not."""
    if not packages:
        raise DataError("no package given", next_step="stylegate verify data/exports/demo-v1")
    for package in packages:
        problems = problems_of(package)
        if problems:
            raise DataError(f"{package} does not hold:", problems, "it was changed after its export; do not use it.")
        print(f"{package}: holds, {len(files.read_jsonl(package / 'metadata.jsonl'))} pictures")
    return 0


def problems_of(package: Path) -> list[str]:
    """Everything that differs from the manifest and from the counts in provenance.json."""
    manifest = package / MANIFEST
    if not manifest.is_file():
        return [f"{MANIFEST} is missing"]
    listed: dict[str, str] = {}
    problems = []
    for number, line in enumerate(manifest.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        found = re.fullmatch(r"([0-9a-f]{64})  (.+)", line)
        if not found or not (package / found[2]).resolve().is_relative_to(package.resolve()):
            problems.append(f"{MANIFEST}, line {number} is not a checksum and a name")
        else:
            listed[found[2]] = found[1]
    present = {p.relative_to(package).as_posix() for p in package.rglob("*") if p.is_file()} - {MANIFEST}
    problems += [f"{name}: missing" for name in sorted(set(listed) - present)]
    problems += [f"{name}: added" for name in sorted(present - set(listed))]
    problems += [
        f"{name}: changed" for name in sorted(present & set(listed)) if files.sha256(package / name) != listed[name]
    ]
    if not problems:
        counts = files.read_json(package / "provenance.json", "the provenance")["counts"]
        pictures = len(files.read_jsonl(package / "metadata.jsonl"))
        verdicts = sum(counts[v] for v in ("accept", "review", "reject", "error"))
        if not counts["exported"] == pictures == sum(name.startswith("images/") for name in listed):
            problems.append(f"counts: {counts['exported']} exported, {pictures} rows, other number of pictures")
        if counts["in"] != verdicts:
            problems.append(f"counts: {counts['in']} in, {verdicts} verdicts")
    return problems
