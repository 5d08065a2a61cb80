"""Packages in the hands of somebody who may write all of them, but does not have the key."""

import json
from pathlib import Path

from eval.package.bag import seal, write_merkle_tree
from eval.package.layout import payload, read_rows
from eval.package.receiver import INCLUSION
from stylegate import files


def names_in(package: Path) -> list[str]:
    """Names of a package's pictures below images/."""
    return [row["file_name"].removeprefix("images/") for row in read_rows(package)]


def digests_in(package: Path) -> set[str]:
    """sha256 of a package's pictures."""
    return {row["sha256"] for row in read_rows(package)}


def provenance_of(package: Path) -> dict:
    return json.loads((payload(package) / "provenance.json").read_text())


def made_anew(package: Path) -> None:
    """Make tree and manifests of what is there now, without a signature."""
    rows = files.read_jsonl(package / INCLUSION)
    write_merkle_tree(package, [(r["id"], r["file"]) for r in rows if (package / "data" / r["file"]).exists()])
    seal(package, "anybody", None)
