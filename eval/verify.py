"""Verify packages: every byte against the manifest, nothing added or missing, counts that agree, proofs that hold.

stylegate verify data/exports/demo-v1
stylegate verify data/batches/demo-ce2b85ec/certificate.json
stylegate verify data/batches/demo-ce2b85ec/trait-certificate.json
stylegate verify data/batches/demo-ce2b85ec/commitment.json
stylegate verify data/exports/demo-v1 trust=authority.pem
stylegate verify data/exports/demo-v1 labels=data/batches/demo-ce2b85ec/labels.sqlite
stylegate verify data/exports/demo-v1 watermark=trustmark.safetensors

What is printed was computed again from the files of the package. That people's labels, scores and counts are true is a
claim of whoever made the package: no file can prove it.
"""

from pathlib import Path

from eval.lot.batch import RECORD
from eval.package.label_heads import check_label_rows_match_package_hashes, read_label_rows_from_argument
from eval.package.layout import payload_folder
from eval.package.marks import (
    check_credentials_and_watermarks,
    load_watermark_weights_from_argument,
    trusted_certificates_pem_from_argument,
)
from eval.package.proof import CHANGED, check_package, promise_problems_and_proven_claim, read_provenance_and_rows
from eval.planning import commitment
from eval.promise.certificate import certified_digests, read_certificate
from stylegate.errors import DataError
from stylegate.words import counted


def verify(words: list[str]) -> int:
    """Check each package folder or certificate file and print what it proves. Returns 0.

    `trust=FILE` names certificates (PEM) of authorities that vouch for the signers of content credentials;
    `watermark=FILE` the weights that read a watermark; `labels=FILE` the labels of the lot, to see that they are those
    that the gate read. Raises DataError at the first package that is not valid, listing everything that is wrong.
    """
    packages = [Path(word) for word in words if not word.startswith(("trust=", "labels=", "watermark="))]
    trust, labels, watermark = (
        trusted_certificates_pem_from_argument(words),
        read_label_rows_from_argument(words),
        load_watermark_weights_from_argument(words),
    )
    if not packages:
        raise DataError("no package given", next_step="stylegate verify data/exports/demo-v1")
    for package in packages:
        if package.is_file() and package.suffix == ".json" and commitment.is_commitment_file(package):
            print(f"{package}: {commitment.verify_plan_commitment(package)}")
            continue
        if package.is_file() and package.suffix == ".json":
            found = read_certificate(package)
            if found.statements:
                print(f"{package}: holds: {found.proven_claim_in_words()}; {counted(len(found.labels), 'label')}")
                continue
            leaving = len(certified_digests(found))
            print(
                f"{package}: holds: {found.proven_claim_in_words()}; "
                f"{counted(len(found.labels), 'label')}, {leaving} may leave"
            )
            continue
        if not package.is_dir():
            raise DataError(f"{package} is not a folder", next_step="stylegate export prints where a package is.")
        if (package / RECORD).is_file():
            raise DataError(
                f"{package} is a batch, not a package",
                next_step=f"stylegate export batch={package.resolve().name} makes the package and prints where it is.",
            )
        proven, unproven, wrong = check_package(package)
        if wrong:
            raise DataError(f"{package} does not hold:", wrong, CHANGED)
        provenance, rows = read_provenance_and_rows(package)
        _, promised = promise_problems_and_proven_claim(payload_folder(package), provenance, rows)
        marked, not_marked, wrong = check_credentials_and_watermarks(
            package, [payload_folder(package) / row["file_name"] for row in rows], trust, watermark
        )
        if wrong:
            raise DataError(f"{package} does not hold:", wrong, "ask who made it; do not use it.")
        heads = check_label_rows_match_package_hashes(package, labels) if labels is not None else ([], [], [])
        if heads[2]:
            raise DataError(f"{package} does not hold:", heads[2], "these are not the labels that it was judged by.")
        print(f"{package}: holds, {counted(len(rows), 'picture')}{f'; {promised}' if promised else ''}")
        for line in [*proven, *marked, *heads[0]]:
            print(f"  proven: {line}")
        for line in [*unproven, *not_marked, *heads[1]]:
            print(f"  not proven: {line}")
    return 0
