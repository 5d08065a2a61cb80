"""Packages in the hands of somebody who may write all of them, but does not have the key."""

import json
import shutil
from pathlib import Path

from eval.package.bag import write_bag_manifests_and_signatures, write_merkle_tree
from eval.package.layout import payload_folder, read_picture_rows
from eval.package.receiver import INCLUSION
from stylegate import files
from stylegate.cli import main
from tests.conftest import MADE_BY_A_MODEL


def make_package(place: Path, pictures: int = 8) -> Path:
    """A signed package of so many pictures of neon, in `place`; the lot's words are images=lot, out=out there."""
    (place / "lot").mkdir()
    for path in sorted((files.ROOT / "data" / "brands" / "neon" / "validation").glob("*.png"))[:pictures]:
        shutil.copy(path, place / "lot")
    words = [f"images={place / 'lot'}", f"out={place / 'out'}"]
    assert main(["gate", *words]) == 0 and main(["export", *words, *MADE_BY_A_MODEL, "name=acme"]) == 0
    return (files.EXPORTS / "acme-v1").rename(place / "acme-v1")


def names_in(package: Path) -> list[str]:
    """Names of a package's pictures below images/."""
    return [row["file_name"].removeprefix("images/") for row in read_picture_rows(package)]


def digests_in(package: Path) -> set[str]:
    """sha256 of a package's pictures as they were judged, without marks."""
    return {row["judged_sha256"] for row in read_picture_rows(package)}


def provenance_of(package: Path) -> dict:
    return json.loads((payload_folder(package) / "provenance.json").read_text())


def made_anew(package: Path) -> None:
    """Make tree and manifests of what is there now, without a signature."""
    rows = files.read_jsonl(package / INCLUSION)
    judged = {r["file"]: r["judged_sha256"] for r in rows if "judged_sha256" in r}
    write_merkle_tree(package, [(r["id"], r["file"]) for r in rows if (package / "data" / r["file"]).exists()], judged)
    write_bag_manifests_and_signatures(package, "anybody", None, None)
