"""A folder with data/ becomes a signed BagIt 1.0 bag (RFC 8493) with a Merkle root over its items."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from eval.package import receiver, ssh
from eval.package.merkle import merkle_root_and_paths
from eval.package.provenance import PackageProvenance
from eval.package.receiver import INCLUSION, MANIFEST, MERKLE, METADATA, SIGNER, TAGMANIFEST, UNLISTED
from eval.package.signature import PrivateKey, public_pem, sign
from eval.package.statement import make_dsse_envelope, make_in_toto_statement
from stylegate import __version__, files
from stylegate.listing import raise_all_errors_but_not_found

ALGORITHM = (
    "SHA-256, RFC 6962. Leaf: 0x00, then id, image_sha256 and metadata_sha256, each followed by a line feed. "
    "Node: 0x01, left, right; left holds the largest power of two below the number of leaves. "
    "Leaves are numbered by the lines of inclusion.jsonl; a path lists the hashes beside it, nearest first. "
    "concatenated_sha256: of the image_sha256 of all items, one after the other."
)
BOM, STATEMENT = "proof/bom.cdx.json", "proof/statement.dsse.json"
HERE = Path(__file__).parent
SCRIPTS = {"verify.py": "receiver.py"} | {
    f"verify_{part}.py": f"verify_{part}.py" for part in ("traits", "marks", "certificate", "reviewers", "statement")
}
VERIFY = (
    (HERE / "VERIFY.md")
    .read_text()
    .format(lines=sum(len((HERE / source).read_text().splitlines()) for source in SCRIPTS.values()))
)
SSH_SIGNER, SSH_SIGNATURE = "signer.ssh.pub", f"{MANIFEST}.sshsig"


def write_merkle_tree(package: Path, items: Sequence[tuple[int, str]], judged: Mapping[str, str]) -> None:
    """Write the Merkle root, and for each item (number, name of its picture below data/) the hashes that lead to it.

    `judged` has the sha256 of the file that was judged, by the picture, where that was another file: one without marks.
    """
    rows, leaves = [], []
    for number, image in items:
        digests = [receiver.sha256(package / name) for name in (f"data/{image}", f"{METADATA}/{number}.json")]
        row = {"id": number, "file": image, "image_sha256": digests[0], "metadata_sha256": digests[1]}
        rows.append(row | ({"judged_sha256": judged[image]} if image in judged else {}))
        leaves.append(receiver.leaf_hash(number, *digests))
    root, paths = merkle_root_and_paths(leaves)
    concatenated = hashlib.sha256("".join(row["image_sha256"] for row in rows).encode()).hexdigest()
    tree = {"algorithm": ALGORITHM, "root": root.hex(), "size": len(rows), "concatenated_sha256": concatenated}
    proven = [row | {"path": [part.hex() for part in path]} for row, path in zip(rows, paths, strict=True)]
    write_file_or_hard_link_earlier(package / MERKLE, json.dumps(tree, indent=2) + "\n")
    write_file_or_hard_link_earlier(package / INCLUSION, files.json_lines_text(proven))


def write_bag_manifests_and_signatures(
    package: Path, collection: str, key: PrivateKey | None, provenance: PackageProvenance | None
) -> None:
    """Write what a bag needs beside its pictures and metadata in data/: verify.py, the statement of its provenance,
    manifests, signatures.
    """
    for name in (STATEMENT, SIGNER, SSH_SIGNER, SSH_SIGNATURE, f"{MANIFEST}.sig", f"{TAGMANIFEST}.sig"):
        (package / name).unlink(missing_ok=True)
    payload = file_names_below(package, "data")
    size = sum((package / name).stat().st_size for name in payload)
    write_file_or_hard_link_earlier(package / "bagit.txt", "BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n")
    write_file_or_hard_link_earlier(
        package / "bag-info.txt",
        f"External-Identifier: {collection}\nBag-Software-Agent: stylegate {__version__}\n"
        f"Payload-Oxum: {size}.{len(payload)}\n",
    )
    write_file_or_hard_link_earlier(package / "VERIFY.md", VERIFY)
    for name, source in SCRIPTS.items():
        write_file_or_hard_link_earlier(package / name, (HERE / source).read_text())
    write_manifest(package, MANIFEST, payload, key)
    if provenance:
        statement = make_in_toto_statement(provenance, collection, MANIFEST, receiver.sha256(package / MANIFEST))
        write_file_or_hard_link_earlier(
            package / STATEMENT, json.dumps(make_dsse_envelope(statement, key), indent=2) + "\n"
        )
    if key:
        (package / SIGNER).write_bytes(public_pem(key))
        write_file_or_hard_link_earlier(package / SSH_SIGNER, ssh.allowed_signer_line(key))
        write_file_or_hard_link_earlier(
            package / SSH_SIGNATURE, ssh.openssh_signature(key, (package / MANIFEST).read_bytes())
        )
    beside = [path.name for path in package.iterdir() if path.is_file() and path.name not in UNLISTED]
    write_manifest(package, TAGMANIFEST, sorted([*beside, *file_names_below(package, "proof")]), key)


def file_names_below(package: Path, folder: str) -> list[str]:
    """Names of all files below a folder of a package, as its manifest writes them, sorted."""
    found = []
    for place, _, names in os.walk(
        package / folder, onerror=raise_all_errors_but_not_found
    ):  # rglob takes three times as long
        below = Path(place).relative_to(package).as_posix()
        found += [f"{below}/{name}" for name in names]
    return sorted(found)


def write_manifest(package: Path, name: str, names: Sequence[str], key: PrivateKey | None) -> None:
    """Write a manifest of these files, and with a key its signature."""
    lines = [f"{receiver.sha256(f'{package}/{listed}')}  {listed}\n" for listed in names]
    write_file_or_hard_link_earlier(package / name, "".join(lines))
    if key:
        (package / f"{name}.sig").write_bytes(sign(key, "".join(lines).encode()))


def write_file_or_hard_link_earlier(path: Path, content: str | bytes, earlier: Path | None = None) -> None:
    """Write a file into a package that is still put together elsewhere: a kill leaves no package, so no file need be
    atomic.

    Where `earlier`, a file of an earlier package, holds the same bytes, the new file is a hard link to it: it takes no
    room on the disk, and less time.
    """
    content = content.encode() if isinstance(content, str) else content
    if earlier and hard_link_if_same_bytes(path, content, earlier):
        return
    try:
        path.write_bytes(content)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def hard_link_if_same_bytes(path: Path, content: bytes, earlier: Path) -> bool:
    """Make `path` a hard link to `earlier` if that is a plain file with this content. Returns whether it is now a
    link.
    """
    try:
        if earlier.is_symlink() or earlier.read_bytes() != content:
            return False
        try:
            os.link(earlier, path)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(earlier, path)
    except OSError:  # missing, on another disk, or the file system has no hard links
        return False
    return True
