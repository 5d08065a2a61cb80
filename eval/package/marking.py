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
from eval.package.bag import write
from eval.package.credentials import (
    ByteReplacement,
    CredentialState,
    Signer,
    context_of,
    manifest_of,
    read_credentials,
    shortest_replacement,
)
from eval.package.earlier import SignedEarlierPackage
from eval.package.items import Item
from eval.package.marks import MarkedPicture, holds_watermark, read_marks
from eval.package.signing_certificate import NEXT, signing_certificate
from eval.package.xmp import UnmarkableError
from stylegate import __version__, files, pictures
from stylegate.cache import Cache
from stylegate.config import Config
from stylegate.errors import ConfigError, DataError
from stylegate.watermark import Watermark, load_watermark, weights_digest

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
class Marks:
    """The marks that an export puts on its pictures."""

    kinds: str = "none"  # all, xmp or none
    source_type: str | None = None  # IPTC's code that somebody stated for pictures that were not drawn here
    signer: Signer | None = None  # of all
    watermark: Watermark | None = None  # that the pictures were drawn with; it is read, never put in here


class Unmarked(NamedTuple):
    """A picture that is to be marked."""

    item: Item
    source: Path
    made_from: dict[str, Any] | None  # what its credentials state; None for a picture that was not drawn here


class Written(NamedTuple):
    """A marked file in the package, and what the cache shall keep of it, where it was signed now."""

    carries: MarkedPicture
    row: Row | None


def wanted_marks(config: Config) -> Marks:
    """The marks that the words ask for. Raises ConfigError for a certificate that cannot sign a picture."""
    if config.marks != "all":
        return Marks(config.marks, config.source_type)
    signer = Signer(signing_certificate(config))
    try:
        signer.sign(pictures.png_bytes(Image.new("RGB", (16, 16))), manifest_of(xmp.SOURCE_TYPES + AI_MADE, True, {}))
    except UnmarkableError as error:
        raise ConfigError(f"no picture can be signed: {error}", next_step=NEXT) from None
    return Marks(config.marks, config.source_type, signer)


def drawn_watermark(config: Config, lot: Lot) -> Watermark | None:
    """The watermark that a batch was drawn with, to be read again; None where it was drawn with none.

    Raises ConfigError unless `watermark=` names the weights that it was drawn with.
    """
    drawn, given = lot.record.facts.watermark if lot.record else "", weights_digest(config.watermark)
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
    unmarked: Sequence[Unmarked], data: Path, marks: Marks, earlier: SignedEarlierPackage | None
) -> list[MarkedPicture]:
    """Write each picture's file with its marks below `data`, and read it back: what each one carries, in their order.

    Raises DataError for a file that changed since it was judged, and with every picture that cannot leave: it cannot
    carry a mark, has lost one, or would have other pixels than were judged.
    """
    found: list[MarkedPicture] = []
    problems: list[str] = []
    cache = Cache(files.CACHE / STORE) if marks.signer else None
    context = context_of({})

    def write_or_record_problem(one: Unmarked, kept: Row | None) -> Written | None:
        try:
            return write_marked(one, kept, data, marks, earlier, context)
        except UnmarkableError as error:
            problems.append(f"{one.item.verdict.file}: {error}")
            return None

    with ThreadPoolExecutor(pictures.CORES) as pool:
        for start in range(0, len(unmarked), AT_ONCE):
            some = unmarked[start : start + AT_ONCE]
            keys = [signature_key(one, marks) for one in some]
            rows = list(cache.get_all(keys)) if cache else [None] * len(some)
            done = list(pool.map(write_or_record_problem, some, rows))
            found += [entry.carries for entry in done if entry]
            if cache:
                cache.put({key: entry.row for key, entry in zip(keys, done, strict=True) if entry and entry.row})
    if problems:
        more = [f"and {len(problems) - NAMED} more"] if len(problems) > NAMED else []
        raise DataError("pictures that cannot leave with their marks:", sorted(problems)[:NAMED] + more, MEND)
    return found


def signature_key(one: Unmarked, marks: Marks) -> str:
    """What a signature is of: the picture that was judged, what is stated of it, and the certificate."""
    certificate = marks.signer.certificate.sha256 if marks.signer else ""
    return files.canonical_sha256([__version__, one.item.verdict.sha256, certificate, marks.source_type, one.made_from])


def write_marked(
    one: Unmarked, kept: Row | None, data: Path, marks: Marks, earlier: SignedEarlierPackage | None, context: Any
) -> Written:
    """Write one picture's file with its marks, and read it back; `kept` is its signature, if it was signed before.

    A file that an earlier package holds for the same judged picture, and that this key signed, was proven then. The
    cache of signatures proves nothing: what comes from it is read back like a new file. Raises UnmarkableError if the
    picture cannot leave, DataError if its file is not the one that was judged.
    """
    item, content = one.item, one.source.read_bytes()
    target, before = data / item.image, earlier and earlier.package / "data" / item.image
    if hashlib.sha256(content).hexdigest() != item.verdict.sha256:
        again = "run the gate and the export again."
        raise DataError(f"{item.verdict.file} changed while it was exported", next_step=again)
    marked, source_type = with_xmp(content, one, marks, context)
    row, stated = None, {"judged_sha256": item.verdict.sha256} | (one.made_from or {})
    if marks.signer and source_type:
        if kept and (signed := kept_file(marked, kept)):
            marked = signed
        else:
            signed = marks.signer.sign(marked, manifest_of(source_type, one.made_from is not None, stated))
            marked, row = signed, row_of(marked, signed)
    write(target, marked, before)
    known = earlier is not None and earlier.holds(item.id, item.verdict.sha256, item.image, marked)
    if known and marks.signer and source_type and not row:
        state = CredentialState("Valid", marks.signer.certificate.name)
        code = source_type.removeprefix(xmp.SOURCE_TYPES)
        carried = MarkedPicture(hashlib.sha256(marked).hexdigest(), (code,), state, read_watermark(marked, one, marks))
        return Written(carried, None)
    carries = read_marks(target.read_bytes(), context)._replace(watermarked=read_watermark(marked, one, marks))
    if marks.kinds != "none" and (problem := problem_with(carries, marks)):
        raise UnmarkableError(problem)
    if not known and not same_picture(content, target.read_bytes()):
        raise UnmarkableError("its marks would change its pixels")
    if source_type and set(carries.source_types) != {source_type.removeprefix(xmp.SOURCE_TYPES)}:
        raise UnmarkableError(f"it names {', '.join(carries.source_types)} as its source type")
    if source_type and marks.signer and carries.credentials.made_from != stated:
        raise UnmarkableError("its content credentials are of another picture, seed or model")
    return Written(carries, row)


def read_watermark(content: bytes, one: Unmarked, marks: Marks) -> bool:
    """Whether the watermark of the picture's own record is read in its file; False where none was put in.

    Raises UnmarkableError for a picture that was drawn with one, which is not found any more.
    """
    if not marks.watermark or not one.made_from:
        return False
    if not holds_watermark(content, marks.watermark, one.made_from):
        raise UnmarkableError("the watermark that it was drawn with is not found in its pixels; reject it and generate")
    return True


def with_xmp(content: bytes, one: Unmarked, marks: Marks, context: Any) -> tuple[bytes, str]:
    """The file of a picture with its source type in its XMP, and the address of that; raises UnmarkableError.

    A picture with content credentials stays as it is, since they would break; the address is then "".
    """
    if marks.kinds == "none" or read_credentials(content, context).state:
        return content, ""
    code = marks.source_type if one.made_from is None else AI_MADE
    if code:
        return xmp.with_source_type(content, code, one.made_from is not None), xmp.SOURCE_TYPES + code
    named = xmp.source_types(xmp.read_packet(content))
    if len(named) != 1:
        raise UnmarkableError("nobody said how it came to be" if not named else "it names several source types")
    return content, named.pop()


def problem_with(carries: MarkedPicture, marks: Marks) -> str:
    """Which mark a file that was read back lacks; "" if it has all."""
    state = carries.credentials
    if state.state and not state.is_whole:
        return f"its content credentials are broken: {state.why}"
    if marks.signer and not state.state:
        return "its content credentials were lost"
    if not carries.source_types:
        return "its content credentials do not say how it came to be, and a mark would break them"
    return ""


def row_of(before: bytes, after: bytes) -> Row:
    """The entry of the signature cache for a signed file: what signing inserted into it."""
    found, digest = shortest_replacement(before, after), hashlib.sha256(after).digest()
    content = {"inserted": found.inserted, "sha256": digest}
    row = {name: np.frombuffer(value, np.uint8) for name, value in content.items()}
    return row | {"span": np.array([found.start, found.end])}


def kept_file(before: bytes, row: Row) -> bytes:
    """The signed file, made again from the unsigned one and a cache entry; b"" if the entry does not fit."""
    start, end = row["span"].tolist()
    after = ByteReplacement(start, end, row["inserted"].tobytes()).into(before)
    return after if hashlib.sha256(after).digest() == row["sha256"].tobytes() else b""


def chunks_without_marks(content: bytes) -> list[bytes]:
    """The chunks of a PNG, without those of XMP and content credentials that are whole; [] for any other file."""
    return [chunk for kind, chunk in pictures.png_chunks(content) if not is_mark(kind, chunk)]


def is_mark(kind: bytes, chunk: bytes) -> bool:
    """Whether a chunk of a PNG holds XMP or content credentials, and has the checksum of its content."""
    named = kind == C2PA_KIND or (kind == b"iTXt" and chunk[8:].startswith(xmp.PNG_KEYWORD))
    return named and zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:])


def same_picture(one: bytes, other: bytes) -> bool:
    """Whether two files decode to the same pixels, alpha included, by the same conversions: the gate judges no more.

    Of a PNG no pixel depends on the chunks that hold marks, so nothing is decoded where all others are the same bytes.
    """
    if one == other or chunks_without_marks(one) == chunks_without_marks(other) != []:
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
