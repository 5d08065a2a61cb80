"""Marks put on pictures when they leave, and the proof that a mark changed no pixel.

A marked file is read back from the package: its decoded pixels must be those that were judged, so that the verdict is
of them too, and every mark that was put on must be found again. A picture that would leave without its marks stops the
export. Signatures are kept in the cache, by what they are of: who exports again, or goes on after a kill, gets the same
files.
"""

import hashlib
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eval.lot.lot import Lot
from eval.package import xmp
from eval.package.bag import write_file_or_hard_link_earlier
from eval.package.credentials import (
    ByteReplacement,
    C2paPictureSigner,
    ContentCredentialsOfPicture,
    c2pa_context,
    c2pa_manifest_to_sign,
    read_c2pa_credentials_of_picture,
    shortest_replacement,
)
from eval.package.earlier import EarlierPackage
from eval.package.items import PackageItem
from eval.package.marks import MarksOfPicture, holds_watermark, read_picture_marks
from eval.package.signing_certificate import NEXT, signing_certificate
from eval.package.xmp import UnmarkableError
from stylegate import __version__, files, pictures
from stylegate.cache import ArrayCache
from stylegate.config import Config
from stylegate.errors import ConfigError, DataError
from stylegate.watermark import Watermark, load_watermark, watermark_weights_digest

AI_MADE = "trainedAlgorithmicMedia"  # IPTC's code for what a trained model drew
AT_ONCE = 256  # pictures whose signatures are looked up, and stored, together
NAMED = 20  # pictures that an error lists
C2PA_KIND = b"caBX"  # of the chunk of a PNG that holds content credentials
STORE = "credentials.sqlite"  # in files.CACHE
MEND = (
    "say how they came to be (source_type=trainedAlgorithmicMedia where a model drew them); save other formats as PNG "
    "and gate again; or export with marks=none, which the package will say."
)

Row = dict[str, NDArray]  # of the cache


@dataclass(frozen=True, slots=True)
class ExportMarks:
    """What an export writes into its pictures, and the watermark, put in when they were drawn, that it looks for."""

    kinds: str = "none"  # all, xmp or none
    source_type: str | None = None  # IPTC's code that somebody stated for pictures that were not drawn here
    signer: C2paPictureSigner | None = None  # of all
    watermark: Watermark | None = None  # that the pictures were drawn with; it is read, never put in here


class PictureToMark(NamedTuple):
    """A picture that is to be marked."""

    item: PackageItem
    source: Path
    made_from: dict[str, Any] | None  # what its credentials state; None for a picture that was not drawn here


class MarksAndCacheRowOfPicture(NamedTuple):
    """A marked file in the package, and what the cache shall keep of it, where it was signed now."""

    carries: MarksOfPicture
    row: Row | None


def requested_marks(config: Config) -> ExportMarks:
    """The marks that `marks=` and `source_type=` ask for. Raises ConfigError for a certificate that cannot sign a
    picture.
    """
    if config.marks != "all":
        return ExportMarks(config.marks, config.source_type)
    signer = C2paPictureSigner(signing_certificate(config))
    try:
        signer.signed_picture_bytes(
            pictures.png_bytes(Image.new("RGB", (16, 16))), c2pa_manifest_to_sign(xmp.SOURCE_TYPES + AI_MADE, True, {})
        )
    except UnmarkableError as error:
        raise ConfigError(f"no picture can be signed: {error}", next_step=NEXT) from None
    return ExportMarks(config.marks, config.source_type, signer)


def watermark_of_batch(config: Config, lot: Lot) -> Watermark | None:
    """The watermark that a batch was drawn with, to be read again; None where it was drawn with none.

    Raises ConfigError unless `watermark=` names the weights that it was drawn with.
    """
    drawn, given = lot.record.facts.watermark if lot.record else "", watermark_weights_digest(config.watermark)
    if drawn and not given:
        raise ConfigError(
            "the pictures were drawn with a watermark, which nothing here can read again",
            next_step=f"watermark=FILE with the weights of then (sha256 {drawn[:12]}…).",
        )
    if drawn != given:
        raise ConfigError(
            f"watermark={config.watermark} is not what the pictures were drawn with"
            + ("" if drawn else ": they carry none of ours"),
            next_step="a watermark is put in when a picture is drawn: stylegate generate watermark=FILE.",
        )
    return load_watermark(config.watermark) if config.watermark else None


def write_marked_pictures(
    unmarked: Sequence[PictureToMark], data: Path, marks: ExportMarks, earlier: EarlierPackage | None
) -> list[MarksOfPicture]:
    """Write each picture's file with its marks below `data`. Returns the marks that were read back, in the same order.

    Raises DataError for a file that changed since it was judged, and with every picture that cannot leave: it cannot
    carry a mark, has lost one, or would have other pixels than were judged.
    """
    found: list[MarksOfPicture] = []
    problems: list[str] = []
    cache = ArrayCache(files.CACHE / STORE) if marks.signer else None
    context = c2pa_context({})

    def write_marked_picture_or_collect_problem(
        one: PictureToMark, kept: Row | None
    ) -> MarksAndCacheRowOfPicture | None:
        try:
            return write_marked_picture(one, kept, data, marks, earlier, context)
        except UnmarkableError as error:
            problems.append(f"{one.item.verdict.file}: {error}")
            return None

    with ThreadPoolExecutor(pictures.CORES) as pool:
        for start in range(0, len(unmarked), AT_ONCE):
            some = unmarked[start : start + AT_ONCE]
            keys = [signature_cache_key(one, marks) for one in some]
            rows = list(cache.read_arrays_of_keys(keys)) if cache else [None] * len(some)
            done = list(pool.map(write_marked_picture_or_collect_problem, some, rows))
            found += [entry.carries for entry in done if entry]
            if cache:
                cache.store_arrays_by_key(
                    {key: entry.row for key, entry in zip(keys, done, strict=True) if entry and entry.row}
                )
    if problems:
        more = [f"and {len(problems) - NAMED} more"] if len(problems) > NAMED else []
        raise DataError("pictures that cannot leave with their marks:", sorted(problems)[:NAMED] + more, MEND)
    return found


def signature_cache_key(one: PictureToMark, marks: ExportMarks) -> str:
    """The cache key (hex) of a picture's signature: over the judged picture, what is stated of it, and
    the certificate.
    """
    certificate = marks.signer.certificate.certificate_fingerprint if marks.signer else ""
    return files.canonical_sha256([__version__, one.item.verdict.sha256, certificate, marks.source_type, one.made_from])


def write_marked_picture(
    one: PictureToMark,
    kept: Row | None,
    data: Path,
    marks: ExportMarks,
    earlier: EarlierPackage | None,
    context: Any,
) -> MarksAndCacheRowOfPicture:
    """Write one picture's file with its marks, and read it back; `kept` is its signature, if it was signed before.

    A file that an earlier package holds for the same judged picture, and that this key signed, was proven then. The
    cache of signatures proves nothing: what comes from it is read back like a new file. Raises UnmarkableError if the
    picture cannot leave, DataError if its file is not the one that was judged.
    """
    item, content = one.item, one.source.read_bytes()
    target, before = data / item.image_path_in_data, earlier and earlier.package / "data" / item.image_path_in_data
    if hashlib.sha256(content).hexdigest() != item.verdict.sha256:
        again = "run the gate and the export again."
        raise DataError(f"{item.verdict.file} changed while it was exported", next_step=again)
    marked, source_type = with_source_type_in_xmp(content, one, marks, context)
    row, stated = None, {"judged_sha256": item.verdict.sha256} | (one.made_from or {})
    if marks.signer and source_type:
        if kept and (signed := signed_file_from_cache(marked, kept)):
            marked = signed
        else:
            signed = marks.signer.signed_picture_bytes(
                marked, c2pa_manifest_to_sign(source_type, one.made_from is not None, stated)
            )
            marked, row = signed, signature_cache_row(marked, signed)
    write_file_or_hard_link_earlier(target, marked, before)
    known = earlier is not None and earlier.has_signed_record_and_same_picture(
        item.id, item.verdict.sha256, item.image_path_in_data, marked
    )
    if known and marks.signer and source_type and not row:
        state = ContentCredentialsOfPicture("Valid", marks.signer.certificate.organisation_of_signer)
        code = source_type.removeprefix(xmp.SOURCE_TYPES)
        carried = MarksOfPicture(
            hashlib.sha256(marked).hexdigest(), (code,), state, picture_has_watermark_of_its_record(marked, one, marks)
        )
        return MarksAndCacheRowOfPicture(carried, None)
    carries = read_picture_marks(target.read_bytes(), context)._replace(
        watermarked=picture_has_watermark_of_its_record(marked, one, marks)
    )
    if marks.kinds != "none" and (problem := credentials_or_source_type_problem(carries, marks)):
        raise UnmarkableError(problem)
    if not known and not decodes_to_same_picture(content, target.read_bytes()):
        raise UnmarkableError("its marks would change its pixels")
    if source_type and set(carries.source_types) != {source_type.removeprefix(xmp.SOURCE_TYPES)}:
        raise UnmarkableError(f"it names {', '.join(carries.source_types)} as its source type")
    if source_type and marks.signer and carries.credentials.made_from != stated:
        raise UnmarkableError("its content credentials are of another picture, seed or model")
    return MarksAndCacheRowOfPicture(carries, row)


def picture_has_watermark_of_its_record(content: bytes, one: PictureToMark, marks: ExportMarks) -> bool:
    """Whether the watermark of the picture's own record is read in its file; False where none was put in.

    Raises UnmarkableError for a picture that was drawn with one, which is not found any more. A retouched picture may
    hold that of any attempt at its slot; its record names no seed, so that it is not counted.
    """
    item = one.item
    if not marks.watermark or not one.made_from or not item.slot:
        return False
    attempts = range(item.attempt_number + 1) if item.retouched else [item.attempt_number]
    seeds = [item.slot.seed_of_attempt(attempt) for attempt in attempts]
    if not any(holds_watermark(content, marks.watermark, one.made_from | {"seed": seed}) for seed in seeds):
        raise UnmarkableError("the watermark that it was drawn with is not found in its pixels; reject it and generate")
    return not item.retouched


def with_source_type_in_xmp(content: bytes, one: PictureToMark, marks: ExportMarks, context: Any) -> tuple[bytes, str]:
    """The file of a picture with its source type in its XMP, and the address of that; raises UnmarkableError.

    A picture with content credentials stays as it is, since they would break; the address is then "".
    """
    if marks.kinds == "none" or read_c2pa_credentials_of_picture(content, context).state:
        return content, ""
    code = marks.source_type if one.made_from is None else AI_MADE
    if code:
        return xmp.picture_file_with_source_type(content, code, one.made_from is not None), xmp.SOURCE_TYPES + code
    named = xmp.source_types_in_xmp_packet(xmp.read_xmp_packet(content))
    if len(named) != 1:
        raise UnmarkableError("nobody said how it came to be" if not named else "it names several source types")
    return content, named.pop()


def credentials_or_source_type_problem(carries: MarksOfPicture, marks: ExportMarks) -> str:
    """What is wrong with the content credentials or the source type of a file that was read back; "" if nothing is."""
    state = carries.credentials
    if state.state and not state.is_picture_as_signed:
        return f"its content credentials are broken: {state.why}"
    if marks.signer and not state.state:
        return "its content credentials were lost"
    if not carries.source_types:
        return "its content credentials do not say how it came to be, and a mark would break them"
    return ""


def signature_cache_row(before: bytes, after: bytes) -> Row:
    """The entry of the signature cache for a signed file: what signing inserted into it."""
    found, digest = shortest_replacement(before, after), hashlib.sha256(after).digest()
    content = {"inserted": found.inserted, "sha256": digest}
    row = {name: np.frombuffer(value, np.uint8) for name, value in content.items()}
    return row | {"span": np.array([found.start, found.end])}


def signed_file_from_cache(before: bytes, row: Row) -> bytes:
    """The signed file, made again from the unsigned one and a cache entry; b"" if the entry does not fit."""
    start, end = row["span"].tolist()
    after = ByteReplacement(start, end, row["inserted"].tobytes()).bytes_after_replacement(before)
    return after if hashlib.sha256(after).digest() == row["sha256"].tobytes() else b""


def png_chunks_without_marks(content: bytes) -> list[bytes]:
    """The chunks of a PNG, without those of XMP and content credentials that are whole; [] for any other file."""
    return [chunk for kind, chunk in pictures.png_chunks(content) if not is_mark_chunk(kind, chunk)]


def is_mark_chunk(kind: bytes, chunk: bytes) -> bool:
    """Whether a chunk of a PNG holds XMP or content credentials, and has the checksum of its content."""
    named = kind == C2PA_KIND or (kind == b"iTXt" and chunk[8:].startswith(xmp.PNG_KEYWORD))
    return named and zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:])


def decodes_to_same_picture(one: bytes, other: bytes) -> bool:
    """Whether two files decode to the same pixels, alpha included, by the same conversions: the gate judges no more.

    Of a PNG no pixel depends on the chunks that hold marks, so nothing is decoded where all others are the same bytes.
    """
    if one == other or png_chunks_without_marks(one) == png_chunks_without_marks(other) != []:
        return True
    for background in ("#ffffff", "#000000"):  # between the two, alpha is what differs
        first, second = (pictures.decode_picture(content, background) for content in (one, other))
        if first.notes != second.notes or first.image.size != second.image.size:
            return False
        if first.image.tobytes() != second.image.tobytes():
            return False
        if "alpha" not in first.notes:
            break
    return True
