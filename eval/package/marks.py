"""The marks that pictures carry: read in their files, counted, and said in words.

Words say which marks are there, never that they are enough.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509

from eval.package.credentials import ContentCredentialsOfPicture, c2pa_context, read_c2pa_credentials_of_picture
from eval.package.items import ItemRecord
from eval.package.layout import payload_folder
from eval.package.signing_certificate import TEST_NAME
from eval.package.xmp import SOURCE_TYPES, source_types_in_file
from stylegate.errors import ConfigError
from stylegate.pictures import CORES, decode_picture
from stylegate.records import Record
from stylegate.watermark import Watermark, load_watermark, watermark_bit_string

MARKS = "proof/marks.json"
NOTHING_KNOWN: Mapping[Path, Mapping[str, Any]] = {}


class MarksReport(Record):
    """proof/marks.json: how many pictures of a package carry which marks, counted in the files as they left."""

    pictures: int
    with_source_type: dict[str, int]
    """By IPTC's code: pictures that say how they came to be."""
    signed: dict[str, int]
    """By the organisation in the certificate: pictures with content credentials (C2PA) that are whole."""
    watermarked: int
    """Pictures in whose pixels the watermark of their own record was read again; others were not looked for."""
    unmarked: int
    """Pictures without source type and content credentials: 0, or all of them where marks=none was asked for."""
    lost: int
    """Pictures that lost a mark between marking and reading back: 0, or there would be no package."""
    same_pixels: int
    """Pictures whose decoded pixels are those that were judged."""


class MarksOfPicture(NamedTuple):
    """What a picture's file carries."""

    sha256: str
    source_types: tuple[str, ...]  # IPTC's codes, from its XMP and its content credentials
    credentials: ContentCredentialsOfPicture
    watermarked: bool = False  # its own watermark was read in its pixels; False also where nobody looked


def read_picture_marks(
    content: bytes, context: Any, watermark: Watermark | None = None, made_from: Mapping[str, Any] | None = None
) -> MarksOfPicture:
    """What the file of a picture carries, by its content; `context` is c2pa's (credentials.c2pa_context).

    `watermark` is looked for where `made_from` says what the picture was drawn with: base_sha256, lora_sha256 and seed.
    """
    holds = watermark is not None and made_from is not None and holds_watermark(content, watermark, made_from)
    credentials = read_c2pa_credentials_of_picture(content, context)
    named = {*source_types_in_file(content), *credentials.source_types}
    codes = tuple(sorted(name.removeprefix(SOURCE_TYPES) for name in named))
    return MarksOfPicture(hashlib.sha256(content).hexdigest(), codes, credentials, holds)


def holds_watermark(content: bytes, watermark: Watermark, made_from: Mapping[str, Any]) -> bool:
    """Whether a picture's pixels hold the watermark of what it was made from: base_sha256, lora_sha256 and seed."""
    image = decode_picture(content).image
    return watermark.read_bits(image) == watermark_bit_string(
        made_from.get("base_sha256"), made_from.get("lora_sha256"), made_from["seed"]
    )


def read_marks_of_each_picture(
    paths: Iterable[Path],
    trust: bytes = b"",
    watermark: Watermark | None = None,
    made_from: Mapping[Path, Mapping[str, Any]] = NOTHING_KNOWN,
) -> list[MarksOfPicture]:
    """What each file carries, in their order; `trust` are certificates (PEM) of authorities that vouch for signers.

    `watermark` is looked for in the pictures of which `made_from` says what they were drawn with.
    """
    context = c2pa_context({"user_anchors": trust.decode()} if trust else {})

    def read_marks_of_path(path: Path) -> MarksOfPicture:
        return read_picture_marks(path.read_bytes(), context, watermark, made_from.get(path))

    with ThreadPoolExecutor(CORES) as pool:
        return list(pool.map(read_marks_of_path, paths))


def weights_digests_and_seed_by_path(package: Path, watermark: Watermark) -> dict[Path, dict[str, Any]]:
    """What each picture of a package was drawn with, by its path: digests of base and LoRA, and the seed.

    Raises ConfigError unless the package says that its pictures were drawn with this watermark.
    """
    found = {}
    for path in (payload_folder(package) / "records").glob("*.json"):
        record = ItemRecord.read_json_file(path, "the record")
        drawn = record.drawn
        if drawn and drawn.seed is not None and record.made_from.watermark_sha256 == watermark.sha256:
            known = record.made_from.model_dump(include={"base_sha256", "lora_sha256"})
            found[payload_folder(package) / record.file] = known | {"seed": drawn.seed}
    if not found:
        raise ConfigError(
            f"no picture of {package} was drawn with this watermark, by its record",
            next_step="provenance.json names the sha256 of the weights, if there are any: watermark_sha256.",
        )
    return found


def load_watermark_weights_from_argument(words: Sequence[str]) -> Watermark | None:
    """The watermark whose weights a word `watermark=FILE` names; None without one. Raises ConfigError."""
    given = [word.removeprefix("watermark=") for word in words if word.startswith("watermark=")]
    return load_watermark(given[-1]) if given else None


def trusted_certificates_pem_from_argument(words: Sequence[str]) -> bytes:
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


def marks_report(found: Sequence[MarksOfPicture]) -> MarksReport:
    """How many of a package's pictures carry which marks, counted from what was read in their files.

    `lost` is always 0, and `same_pixels` is the number of pictures: an export stops in which a picture has lost a mark,
    or has other pixels than were judged (eval/package/marking.py).
    """
    whole = [picture.credentials for picture in found if picture.credentials.is_picture_as_signed]
    return MarksReport(
        pictures=len(found),
        with_source_type=dict(sorted(Counter(code for picture in found for code in picture.source_types).items())),
        signed=dict(sorted(Counter(credentials.signer for credentials in whole).items())),
        watermarked=sum(picture.watermarked for picture in found),
        unmarked=sum(not picture.source_types and not picture.credentials.is_picture_as_signed for picture in found),
        lost=0,
        same_pixels=len(found),
    )


def marks_in_words(report: MarksReport) -> str:
    """A sentence on the marks that were looked for in pictures: source type, content credentials (C2PA), watermark."""
    watermarked = f"{report.watermarked} hold their watermark" if report.watermarked else ""
    if report.unmarked == report.pictures:
        bare = f"none of {report.pictures} pictures names a source type or has content credentials"
        return f"{bare}; {watermarked}" if watermarked else bare
    said = [f"{count} say that they are {code}" for code, count in report.with_source_type.items()]
    for name, count in report.signed.items():
        by = (
            "a test certificate, which vouches for nobody"
            if name == TEST_NAME
            else f"a certificate that names {name!r}"
        )
        said.append(f"{count} have content credentials (C2PA) signed by {by}")
    said += [watermarked] if watermarked else []
    said += [f"{report.unmarked} have neither"] if report.unmarked else []
    return f"of {report.pictures} pictures {', '.join(said)}"


def check_credentials_and_watermarks(
    package: Path, paths: Sequence[Path], trust: bytes = b"", watermark: Watermark | None = None
) -> tuple[list[str], list[str], list[str]]:
    """(proven, not proven, wrong): sentences on the marks of a package's pictures, which are read in their files.

    Raises DataError for a report that is no report, ConfigError for another watermark than that of the package.
    """
    found = read_marks_of_each_picture(
        paths, trust, watermark, weights_digests_and_seed_by_path(package, watermark) if watermark else NOTHING_KNOWN
    )
    counted = marks_report(found)
    wrong = [
        f"{path.relative_to(package)}: its content credentials are broken: {picture.credentials.why}"
        for path, picture in zip(paths, found, strict=True)
        if picture.credentials.state and not picture.credentials.is_picture_as_signed
    ]
    there = (package / MARKS).exists()
    stated = MarksReport.read_json_file(package / MARKS, "the report on marks") if there else None
    unproven = []
    if not watermark:  # nobody looked
        said = f", and {MARKS} states none" if stated else ""
        if stated and stated.watermarked:
            said = f", {stated.watermarked} by {MARKS}; watermark=FILE with its weights reads it"
        unproven.append(f"whether the pixels hold a watermark: nobody looked{said}")
    if counted.unmarked != counted.pictures:
        unproven.append("that pictures have the pixels that were judged, before they were marked: the maker states it")
    if not stated:
        unproven.append(f"which marks the pictures left with: the package has no {MARKS}")
    elif counted != (stated if watermark else stated.model_copy(update={"watermarked": 0})):
        wrong.append(f"{MARKS} says: {marks_in_words(stated)}; found: {marks_in_words(counted)}")
    return [marks_in_words(counted), *credential_states_in_words(found)], unproven, wrong


def credential_states_in_words(found: Sequence[MarksOfPicture]) -> list[str]:
    """A sentence for each state of content credentials, with its number of pictures and what it means."""
    counts = Counter(picture.credentials.state for picture in found if picture.credentials.state)
    ended = sum(
        picture.credentials.is_picture_as_signed and picture.credentials.state == "Invalid" for picture in found
    )
    meaning = {
        "Trusted": "whole, and signed under an authority that you trust",
        "Valid": "whole, and signed by the holder of the certificate's key, for whom nobody here vouches",
        "Invalid": f"{ended} of them whole, by a certificate that has ended since" if ended else "broken",
    }
    return [f"content credentials are {state} in {count} pictures: {meaning[state]}" for state, count in counts.items()]
