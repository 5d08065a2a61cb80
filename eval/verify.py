"""Verify packages: every byte against the manifest, nothing added or missing, counts that agree, proofs that hold.

stylegate verify data/exports/demo-v1
stylegate verify data/batches/demo-ce2b85ec/certificate.json
"""

from pathlib import Path

from eval.package.proof import problems_of
from eval.promise.certificate import goes_out, read_certificate
from stylegate import files
from stylegate.errors import DataError


def verify(packages: list[Path]) -> int:
    """Say of each package whether it holds. Raises DataError listing everything that does not."""
    if not packages:
        raise DataError("no package given", next_step="stylegate verify data/exports/demo-v1")
    for package in packages:
        if package.is_file() and package.suffix == ".json":
            found = read_certificate(package)
            print(f"{package}: holds: {found.sentence()}; {len(found.labels)} labels, {len(goes_out(found))} may leave")
            continue
        if not package.is_dir():
            raise DataError(f"{package} is not a folder", next_step="stylegate export prints where a package is.")
        problems = problems_of(package)
        if problems:
            raise DataError(f"{package} does not hold:", problems, "it was changed after its export; do not use it.")
        judged = files.read_json(package / "provenance.json", "the provenance").get("judged_by", {})
        promise = judged.get("promise") or {}
        said = f"; {promise['state']}: {promise['says']}" if promise.get("state") in ("certified", "valid") else ""
        print(f"{package}: holds, {len(files.read_jsonl(package / 'metadata.jsonl'))} pictures{said}")
    return 0
