"""The report's small pictures, decoded as they were judged. Those of the report before are used again where they hold.

A thumbnail is named after the content of its picture. thumbnails.json beside it records the digest of each thumbnail
and how all of them were made: one that was changed, or made by another decoder or on another background, is drawn anew.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import PIL
from PIL import Image

from stylegate import files, pictures
from stylegate.errors import DataError

SIDE = 256  # pixels: the longer side of a thumbnail at most
RECORD = "thumbnails.json"
FOLDER = "pictures"
DIGITS = 32  # hexadecimal digits of a picture's sha256 in the name of its thumbnail


class ReportThumbnails:
    """Writes the thumbnails of a new report; the report before it is not changed.

    `add_thumbnail` draws a thumbnail, or takes it over from the report before where it still holds; `add_thumbnails`
    does so for many, and `write_thumbnails_json` ends the work.
    """

    def __init__(self, report: Path, previous: Path, background: str) -> None:
        """`report` is the new report's folder, `previous` the old one's; transparent parts show `background`."""
        self.report, self.previous, self.background = report, previous, background
        self.made_by = files.canonical_sha256(
            [SIDE, background, PIL.__version__, files.sha256_of_file(Path(pictures.__file__))]
        )
        self.reusable = reusable_thumbnails(previous, self.made_by)
        self.digests: dict[str, str] = {}
        (report / FOLDER).mkdir(parents=True)

    def add_thumbnail(self, path: Path, sha256: str) -> str | None:
        """Write the thumbnail of the picture at `path`, which was judged as `sha256`; returns its address on the page.

        None if the file is no picture, or does not hold the bytes of that digest any more.
        """
        name = f"{FOLDER}/{sha256[:DIGITS]}.png"
        if name not in self.digests and not self.hard_link_previous_thumbnail(name):
            content = self.thumbnail_png_or_none(path, sha256)
            if content is None:
                return None
            (self.report / name).write_bytes(content)
            self.digests[name] = hashlib.sha256(content).hexdigest()
        return name

    def add_thumbnails(self, judged: Sequence[tuple[Path, str]]) -> list[str | None]:
        """`add_thumbnail` of each (path, sha256), in their order, on all cores."""
        by_sha256 = {sha256: path for path, sha256 in judged}  # two threads never write one thumbnail
        with ThreadPoolExecutor(pictures.CORES) as pool:
            names = dict(zip(by_sha256, pool.map(self.add_thumbnail, by_sha256.values(), by_sha256), strict=True))
        return [names[sha256] or self.add_thumbnail(path, sha256) for path, sha256 in judged]

    def hard_link_previous_thumbnail(self, name: str) -> bool:
        """Take the thumbnail of that name over from the previous report; False if it is not there or was changed.

        It becomes a second name (hard link) of the same file: nothing is written, nor freed when the old report goes.
        """
        try:
            if name not in self.reusable or files.sha256_of_file(self.previous / name) != self.reusable[name]:
                return False
            (self.report / name).hardlink_to(self.previous / name)
        except OSError:  # not there any more, or a file system without hard links
            return False
        self.digests[name] = self.reusable[name]
        return True

    def thumbnail_png_or_none(self, path: Path, sha256: str) -> bytes | None:
        """The thumbnail as a PNG file; None if the file is no picture or has another content than `sha256`."""
        image = small_judged_picture(path, sha256, self.background)
        return pictures.png_bytes(image) if image else None

    def write_thumbnails_json(self) -> None:
        """Write thumbnails.json, from which the next report learns what it may use again."""
        files.write_json(self.report / RECORD, {"made_by": self.made_by, "sha256": dict(sorted(self.digests.items()))})


def small_judged_picture(path: Path, sha256: str, background: str) -> Image.Image | None:
    """The picture as it was judged (upright, sRGB, on `background`), at most SIDE pixels a side.

    None if the file is no picture, or does not hold the bytes of that digest any more.
    """
    try:
        content = pictures.read_picture_file_bytes(path)
        if hashlib.sha256(content).hexdigest() != sha256:
            return None
        image = pictures.decode_picture(content, background).image
    except (pictures.PictureError, OSError):
        return None
    image.thumbnail((SIDE, SIDE))
    return image


def reusable_thumbnails(report: Path, made_by: str) -> dict[str, str]:
    """sha256 of each thumbnail of a finished report by name; empty where none were made as `made_by` says."""
    try:
        record = files.read_json(report / RECORD, "the thumbnails' record", "made_by", "sha256")
    except (DataError, OSError):
        return {}
    known = record["sha256"]
    return known if record["made_by"] == made_by and isinstance(known, dict) else {}
