"""Where things lie in a package, which is a BagIt 1.0 bag; and how the pictures of any package are read.

Packages of stylegate 0.1 before bags hold the same files without data/ around them, and nothing in them is signed.
"""

from pathlib import Path

from pydantic import Field

from eval.package.receiver import INCLUSION, TAGMANIFEST
from stylegate import files
from stylegate.errors import DataError
from stylegate.records import Record

IMAGES = "images"
TABLE = "metadata.parquet"
OLD_TABLE = "metadata.jsonl"


class ItemRow(Record):
    """A row of a bag's metadata.parquet: what it says of one item."""

    file_name: str
    """The picture, below data/."""
    id: int
    """Number of the item."""
    sha256: str
    """sha256 of the picture's file in the package."""
    traits: dict[str, str] = Field(default_factory=dict)
    """The traits that are stated: trait -> value."""


def is_bag(package: Path) -> bool:
    """Whether a package is a bag; else it is of the older form."""
    return any((package / name).exists() for name in ("bagit.txt", "data", TAGMANIFEST))


def payload_folder(package: Path) -> Path:
    """The folder with the pictures, provenance.json and the proof of a promise: data/ of a bag, else the package."""
    return package / "data" if is_bag(package) else package


def read_picture_rows(package: Path) -> list[dict]:
    """`file_name` (images/...), `sha256` and `judged_sha256` of each picture that a package lists. Raises DataError.

    The last two differ where the picture got marks after it was judged.
    """
    if is_bag(package):
        listed = files.read_jsonl(package / INCLUSION, "file", "image_sha256")
        rows = [row | {"file_name": row["file"], "sha256": row["image_sha256"]} for row in listed]
    else:
        rows = files.read_jsonl(package / OLD_TABLE, "file_name", "sha256")
    names = ("file_name", "sha256")
    return [{n: row[n] for n in names} | {"judged_sha256": row.get("judged_sha256", row["sha256"])} for row in rows]


def read_item_rows(package: Path) -> list[ItemRow]:
    """What metadata.parquet of a bag says of each item. Raises DataError if it is missing or damaged."""
    try:
        rows = files.read_parquet_as_arrow_table(package / "data" / TABLE).to_pylist()
        stated = [
            {name: value for name, value in (row.get("traits") or {}).items() if value is not None} for row in rows
        ]
        return [
            ItemRow.model_validate({name: row[name] for name in ("file_name", "id", "sha256")} | {"traits": traits})
            for row, traits in zip(rows, stated, strict=True)
        ]
    except (AttributeError, KeyError, OSError, ValueError) as error:
        raise DataError(f"{TABLE} is not as stylegate writes it: {error!r}") from None
