"""The marks that pictures carry: read in their files, counted, and said in words.

Words say which marks are there, never that they are enough.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509

from eval.package.credentials import CredentialState, context_of, read_credentials
from eval.package.signing_certificate import TEST_NAME
from eval.package.xmp import SOURCE_TYPES, source_types_of
from stylegate.errors import ConfigError
from stylegate.pictures import CORES
from stylegate.records import Record

MARKS = "proof/marks.json"


class MarksReport(Record):
    """proof/marks.json: how many pictures of a package carry which marks, counted in the files as they left."""

    pictures: int
    with_source_type: dict[str, int]
    """By IPTC's code: pictures that say how they came to be."""
    signed: dict[str, int]
    """By the organisation in the certificate: pictures with content credentials (C2PA) that are whole."""
    watermarked: int
    """Pictures in whose pixels stylegate put a watermark: always 0. Whether they hold another one is not looked for."""
    unmarked: int
    """Pictures without source type and content credentials: 0, or all of them where marks=none was asked for."""
    lost: int
    """Pictures that lost a mark between marking and reading back: 0, or there would be no package."""
    same_pixels: int
    """Pictures whose decoded pixels are those that were judged."""


class MarkedPicture(NamedTuple):
    """What a picture's file carries."""

    sha256: str
    source_types: tuple[str, ...]  # IPTC's codes, from its XMP and its content credentials
    credentials: CredentialState


def read_marks(content: bytes, context: Any) -> MarkedPicture:
    """What the file of a picture carries, by its content; `context` is c2pa's (credentials.context_of)."""
    credentials = read_credentials(content, context)
    named = {*source_types_of(content), *credentials.source_types}
    codes = tuple(sorted(name.removeprefix(SOURCE_TYPES) for name in named))
    return MarkedPicture(hashlib.sha256(content).hexdigest(), codes, credentials)


def read_all_marks(paths: Iterable[Path], trust: bytes = b"") -> list[MarkedPicture]:
    """What each file carries, in their order; `trust` are certificates (PEM) of authorities that vouch for signers."""
    context = context_of({"user_anchors": trust.decode()} if trust else {})
    with ThreadPoolExecutor(CORES) as pool:
        return list(pool.map(lambda path: read_marks(path.read_bytes(), context), paths))


def trusted_certificates(words: Sequence[str]) -> bytes:
    """The content of the PEM file that a word `trust=FILE` names; b"" without one. Raises ConfigError."""
    given = [word.removeprefix("trust=") for word in words if word.startswith("trust=")]
    if not given:
        return b""
    try:
        content = Path(given[-1]).expanduser().read_bytes()
        x509.load_pem_x509_certificates(content)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"trust={given[-1]}: no certificates in PEM form: {error}", next_step="check the path."
        ) from None
    return content


def marks_report(found: Sequence[MarkedPicture]) -> MarksReport:
    """How many of a package's pictures carry which marks, counted from what was read in their files.

    `watermarked` and `lost` are always 0, and `same_pixels` is the number of pictures: an export in which a picture has
    lost a mark, or has other pixels than were judged, stops (eval/package/marking.py).
    """
    whole = [picture.credentials for picture in found if picture.credentials.is_whole]
    return MarksReport(
        pictures=len(found),
        with_source_type=dict(sorted(Counter(code for picture in found for code in picture.source_types).items())),
        signed=dict(sorted(Counter(credentials.signer for credentials in whole).items())),
        watermarked=0,
        unmarked=sum(not picture.source_types and not picture.credentials.is_whole for picture in found),
        lost=0,
        same_pixels=len(found),
    )


def marks_in_words(report: MarksReport) -> str:
    """A sentence on the marks of pictures that were looked for: source type and content credentials."""
    if report.unmarked == report.pictures:
        return f"none of {report.pictures} pictures names a source type or has content credentials"
    said = [f"{count} say that they are {code}" for code, count in report.with_source_type.items()]
    for name, count in report.signed.items():
        by = (
            "a test certificate, which vouches for nobody"
            if name == TEST_NAME
            else f"a certificate that names {name!r}"
        )
        said.append(f"{count} have content credentials (C2PA) signed by {by}")
    said += [f"{report.unmarked} have neither"] if report.unmarked else []
    return f"of {report.pictures} pictures {', '.join(said)}"


def check_marks(package: Path, paths: Sequence[Path], trust: bytes = b"") -> tuple[list[str], list[str], list[str]]:
    """(proven, not proven, wrong): sentences on the marks of a package's pictures, which are read in their files.

    Raises DataError for a report that is no report.
    """
    found = read_all_marks(paths, trust)
    counted = marks_report(found)
    wrong = [
        f"{path.relative_to(package)}: its content credentials are broken: {picture.credentials.why}"
        for path, picture in zip(paths, found, strict=True)
        if picture.credentials.state and not picture.credentials.is_whole
    ]
    unproven = ["whether the pixels hold a watermark: nobody looked, and stylegate puts none in"]
    if counted.unmarked != counted.pictures:
        unproven.append("that pictures have the pixels that were judged, before they were marked: the maker states it")
    if not (package / MARKS).exists():
        unproven.append(f"which marks the pictures left with: the package has no {MARKS}")
    elif counted != (stated := MarksReport.read(package / MARKS, "the report on marks")):
        wrong.append(f"{MARKS} says: {marks_in_words(stated)}; found: {marks_in_words(counted)}")
    return [marks_in_words(counted), *states_in_words(found)], unproven, wrong


def states_in_words(found: Sequence[MarkedPicture]) -> list[str]:
    """A sentence for each state of content credentials, with its number of pictures and what it means."""
    counts = Counter(picture.credentials.state for picture in found if picture.credentials.state)
    ended = sum(picture.credentials.is_whole and picture.credentials.state == "Invalid" for picture in found)
    meaning = {
        "Trusted": "whole, and signed under an authority that you trust",
        "Valid": "whole, and signed by the holder of the certificate's key, for whom nobody here vouches",
        "Invalid": f"{ended} of them whole, by a certificate that has ended since" if ended else "broken",
    }
    return [f"content credentials are {state} in {count} pictures: {meaning[state]}" for state, count in counts.items()]
