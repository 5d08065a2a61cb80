"""The marks that pictures carry when they leave, and the proof that a mark changed no pixel.

A marked file is read back from the package: its decoded pixels must be those that were judged, so that the verdict is
of them too, and every mark that was put on must be found again. A picture that would leave without its marks stops the
export.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from eval.package import xmp
from eval.package.bag import write
from eval.package.earlier import Earlier
from eval.package.items import Item
from stylegate import pictures
from stylegate.config import Config
from stylegate.records import Record

MARKS = "proof/marks.json"
AI_MADE = "trainedAlgorithmicMedia"  # IPTC's code for what a trained model drew
MEND = (
    "say how they came to be (source_type=trainedAlgorithmicMedia where a model drew them); save other formats as PNG "
    "and gate again; or export with marks=none, which the package will say."
)


class MarksReport(Record):
    """proof/marks.json: how many pictures of a package carry which marks, counted in the files as they left."""

    pictures: int
    with_source_type: dict[str, int]
    """By IPTC's code: pictures that say in their XMP how they came to be."""
    watermarked: int
    """Pictures with a watermark in their pixels: always 0, stylegate has none."""
    unmarked: int
    """Pictures that carry no mark: 0, or all of them where marks=none was asked for."""
    lost: int
    """Pictures that lost a mark between marking and reading back: 0, or there would be no package."""
    same_pixels: int
    """Pictures whose decoded pixels are those that were judged."""


@dataclass(frozen=True, slots=True)
class Marks:
    """The marks that an export puts on its pictures."""

    kinds: str  # xmp or none
    source_type: str | None  # IPTC's code that somebody stated for pictures that were not drawn here


class MarkedPicture(NamedTuple):
    """What a picture's file in a package carries, as it was read back."""

    sha256: str
    source_types: tuple[str, ...]  # IPTC's codes


def wanted_marks(config: Config) -> Marks:
    """The marks that the words ask for."""
    return Marks(config.marks, config.source_type)


def write_marked(content: bytes, data: Path, item: Item, marks: Marks, earlier: Earlier | None) -> MarkedPicture:
    """Write the judged picture of an item with its marks below `data`, and read it back.

    Where an earlier package holds the same file for the same judged picture, its pixels were compared there.

    Raises xmp.UnmarkableError where the file cannot carry its marks, lost one, or has other pixels than were judged.
    """
    target, marked = data / item.image, with_marks(content, marks, item.slot is not None)
    write(target, marked, earlier and earlier.package / "data" / item.image)
    found = read_marks(target)
    if marks.kinds != "none" and not found.source_types:
        raise xmp.UnmarkableError("its source type was lost")
    known = earlier is not None and earlier.holds(item.id, item.verdict.sha256, item.image, marked)
    if not known and not same_picture(content, target.read_bytes()):
        raise xmp.UnmarkableError("its marks would change its pixels")
    return found


def with_marks(content: bytes, marks: Marks, drawn_here: bool) -> bytes:
    """The file of a picture with the marks that are asked for. Raises xmp.UnmarkableError."""
    if marks.kinds == "none":
        return content
    code = AI_MADE if drawn_here else marks.source_type
    if code:
        return xmp.with_source_type(content, code, drawn_here)
    if xmp.source_types(xmp.read_packet(content)):
        return content
    raise xmp.UnmarkableError("nobody said how it came to be (source_type=)")


def same_picture(one: bytes, other: bytes) -> bool:
    """Whether two files decode to the same pixels, alpha included, by the same conversions: the gate judges no more."""
    if one == other:
        return True
    for background in ("#ffffff", "#000000"):  # between the two, alpha is what differs
        first, second = (pictures.decode(content, background) for content in (one, other))
        if first.notes != second.notes or first.image.size != second.image.size:
            return False
        if first.image.tobytes() != second.image.tobytes():
            return False
        if "alpha" not in first.notes:
            break
    return True


def marks_report(found: Sequence[MarkedPicture]) -> MarksReport:
    """The counts of a package's pictures, as they were read back."""
    return MarksReport(
        pictures=len(found),
        with_source_type=dict(sorted(Counter(code for picture in found for code in picture.source_types).items())),
        watermarked=0,
        unmarked=sum(not picture.source_types for picture in found),
        lost=0,
        same_pixels=len(found),
    )


def marks_in_words(report: MarksReport) -> str:
    """A sentence on the marks of a package's pictures. It says what is there, never that this is enough."""
    if report.unmarked == report.pictures:
        return f"none of the {report.pictures} pictures carries a mark"
    typed = [f"{count} say in XMP that they are {code}" for code, count in report.with_source_type.items()]
    bare = [f"{report.unmarked} carry no mark"] if report.unmarked else []
    return f"of {report.pictures} pictures {', '.join([*typed, *bare])}, none has a watermark"


def read_marks(path: Path) -> MarkedPicture:
    """What a picture's file carries. Raises OSError."""
    content = path.read_bytes()
    codes = tuple(sorted(code.removeprefix(xmp.SOURCE_TYPES) for code in xmp.source_types_of(content)))
    return MarkedPicture(hashlib.sha256(content).hexdigest(), codes)


def check_marks(package: Path, pictures: Sequence[Path]) -> tuple[list[str], list[str], list[str]]:
    """(proven, not proven, wrong): sentences on the marks of a package's pictures, which are read in their files.

    Raises DataError for a report that is no report.
    """
    if not (package / MARKS).exists():
        return [], ["which marks the pictures carry: the package is older than marks"], []
    stated = MarksReport.read(package / MARKS, "the report on marks")
    found = marks_report([read_marks(path) for path in pictures])
    wrong = [] if found == stated else [f"{MARKS} says: {marks_in_words(stated)}; found: {marks_in_words(found)}"]
    unproven = "that pictures have the pixels that were judged, before they were marked: the maker states it"
    return [marks_in_words(found)], [unproven] if found.with_source_type else [], wrong
