"""The package before: what of it is known to be ours, so that an item that did not change keeps its bytes."""

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

from eval.package import receiver
from eval.package.receiver import MANIFEST, SIGNER
from eval.package.signature import PrivateKey, is_file_signed_by_key, public_pem


class EarlierPackage(NamedTuple):
    """The package before this one, and the sha256 of those of its files that the present key signed.

    Only these files may be used again without being judged anew.
    """

    package: Path
    signed: dict[str, str]
    """sha256 by name of every file in data/ that its manifest lists; empty if this key did not sign the manifest."""

    def file_bytes_if_signed_or_none(self, name: str) -> bytes | None:
        """The bytes of a file below data/, if they are those that this key signed; else None."""
        path = self.package / "data" / name
        if (listed := self.signed.get(f"data/{name}")) is None or path.is_symlink() or not path.is_file():
            return None
        content = path.read_bytes()
        return content if hashlib.sha256(content).hexdigest() == listed else None

    def has_signed_record_and_same_picture(self, item: int, judged_sha256: str, name: str, content: bytes) -> bool:
        """Whether this key signed a record of this item and judged file, and a file `name` in data/
        with this content.
        """
        record = json.loads(self.file_bytes_if_signed_or_none(f"records/{item}.json") or b"{}")
        judged = record.get("judged_sha256", record.get("sha256"))
        return judged == judged_sha256 and self.signed.get(f"data/{name}") == hashlib.sha256(content).hexdigest()


def earlier_package_with_signed_digests(package: Path | None, key: PrivateKey | None) -> EarlierPackage | None:
    """An earlier package with the digests of its files that `key` signed; None without a package.

    If another key or nobody signed it, it has no such files.
    """
    if package is None:
        return None
    ours = key is not None and (package / SIGNER).is_file() and (package / SIGNER).read_bytes() == public_pem(key)
    if not ours or not is_file_signed_by_key(package / SIGNER, package / MANIFEST, package / f"{MANIFEST}.sig"):
        return EarlierPackage(package, {})
    return EarlierPackage(package, receiver.read_manifest(package, MANIFEST, []))
