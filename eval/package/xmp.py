"""How a picture came to be, said in its own file: IPTC's digital source type in an XMP packet. No pixel changes.

The packet lies in a chunk of its own in a PNG (iTXt) and a WebP (`XMP `), and in an APP1 segment of a JPEG. A packet
that is there already keeps all that it says.
"""

import io
import re
import struct
import zlib
from collections.abc import Sequence
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from PIL import Image

from stylegate import __version__
from stylegate.pictures import PNG_START, png_chunks

SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"  # the codes of IPTC's vocabulary begin with it
IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
PNG_KEYWORD, WEBP_KIND, JPEG_HEADER = b"XML:com.adobe.xmp\0", b"XMP ", b"http://ns.adobe.com/xap/1.0/\0"
MAX_BYTES = 4_000_000  # of a packet; larger ones are not read
MAX_SEGMENT = 65_533  # bytes of a segment of a JPEG
WEBP_XMP, WEBP_ALPHA = 0x04, 0x10  # flags of a WebP's VP8X chunk
PACKET = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
</rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"""


class UnmarkableError(ValueError):
    """A picture that cannot get its marks (XMP, content credentials, the name of its source), or whose marks say
    something else than is known of it; the text says why.
    """


def picture_file_with_source_type(content: bytes, code: str, drawn_here: bool) -> bytes:
    """The picture's file with IPTC's digital source type `code` in its XMP, such as trainedAlgorithmicMedia.

    `drawn_here` also names stylegate as the AI system. A file that says the source type already is returned as it is.
    Raises UnmarkableError for another format than PNG, JPEG and WebP, for XMP that cannot be read, and for a file that
    names another source type.
    """
    packet = read_xmp_packet(content)
    found = source_types_in_xmp_packet(packet)
    if found == {SOURCE_TYPES + code}:
        return content
    if found:
        raise UnmarkableError(f"it says of itself that its source type is {', '.join(sorted(found))}")
    text = (packet or PACKET.encode()).decode("utf-8", "surrogateescape")
    end = re.search(r"</(\w+:)?RDF\s*>", text)
    if not end:
        raise UnmarkableError("its XMP has no rdf:RDF")
    added = text[: end.start()] + xmp_description_element(code, drawn_here) + text[end.start() :]
    return with_xmp_packet(content, added.encode("utf-8", "surrogateescape"))


def xmp_description_element(code: str, drawn_here: bool) -> str:
    """The XML element that states the source type; of a picture that was drawn here also the AI system."""
    said = {"DigitalSourceType": SOURCE_TYPES + code}
    if drawn_here:
        said |= {"AISystemUsed": "stylegate", "AISystemVersionUsed": __version__}
    lines = "".join(f"  <Iptc4xmpExt:{name}>{escape(text)}</Iptc4xmpExt:{name}>\n" for name, text in said.items())
    return f' <r:Description xmlns:r="{RDF}" xmlns:Iptc4xmpExt="{IPTC}" r:about="">\n{lines} </r:Description>\n'


def source_types_in_xmp_packet(packet: bytes) -> set[str]:
    """Every digital source type that an XMP packet names. Raises UnmarkableError for one that is no XML."""
    if not packet:
        return set()
    if b"<!DOCTYPE" in packet:  # XMP has none; entities could grow without end
        raise UnmarkableError("its XMP has a document type")
    try:
        root = ElementTree.fromstring(packet.strip(b"\0 \r\n\t"))
    except (ElementTree.ParseError, ValueError) as error:
        raise UnmarkableError(f"its XMP cannot be read ({error})") from None
    name, found = f"{{{IPTC}}}DigitalSourceType", set()
    for element in root.iter():
        found.add(element.get(name, ""))
        if element.tag == name:
            found.add((element.text or "").strip() or element.get(f"{{{RDF}}}resource", ""))
    return found - {""}


def source_types_in_file(content: bytes) -> set[str]:
    """Every digital source type that the XMP of a picture's file names; none where it cannot be read."""
    try:
        return source_types_in_xmp_packet(read_xmp_packet(content))
    except UnmarkableError:
        return set()


def read_xmp_packet(content: bytes) -> bytes:
    """The XMP packet of a picture's file; b"" if it has none. Raises UnmarkableError for a format without a place."""
    if content.startswith(PNG_START):
        chunks = (chunk[8:-4] for kind, chunk in png_chunks(content) if kind == b"iTXt")
        return next((itxt_text(data) for data in chunks if data.startswith(PNG_KEYWORD)), b"")
    if content.startswith(b"\xff\xd8\xff"):
        found = (part for part in jpeg_segments_and_scan(content)[0] if is_xmp_segment(part))
        return next((part[4 + len(JPEG_HEADER) :] for part in found), b"")
    if is_webp(content):
        return next((data for kind, data in webp_chunks(content) if kind == WEBP_KIND), b"")
    raise UnmarkableError("it is no PNG, JPEG or WebP")


def with_xmp_packet(content: bytes, packet: bytes) -> bytes:
    """The picture's file with this XMP packet in place of its own. Raises UnmarkableError for a format without one."""
    if content.startswith(PNG_START):
        data = PNG_KEYWORD + b"\0\0\0\0" + packet  # not compressed, no language
        mark = struct.pack(">I", len(data)) + b"iTXt" + data + struct.pack(">I", zlib.crc32(b"iTXt" + data))
        parts = [part for _, part in png_chunks(content) if not part[4:].startswith(b"iTXt" + PNG_KEYWORD)]
        return b"".join([PNG_START, parts[0], mark, *parts[1:]])
    if content.startswith(b"\xff\xd8\xff"):
        data = JPEG_HEADER + packet
        if len(data) + 2 > MAX_SEGMENT:
            raise UnmarkableError("its XMP does not fit into a segment of a JPEG")
        parts, rest = jpeg_segments_and_scan(content)
        parts = [part for part in parts if not is_xmp_segment(part)]
        first = next((i for i, part in enumerate(parts) if part[1] not in (0xE0, 0xE1)), len(parts))
        mark = b"\xff\xe1" + struct.pack(">H", len(data) + 2) + data
        return b"".join([content[:2], *parts[:first], mark, *parts[first:], rest])
    if is_webp(content):
        return webp_with_xmp_packet(content, packet)
    raise UnmarkableError("it is no PNG, JPEG or WebP")


def itxt_text(data: bytes) -> bytes:
    """The text in the data of a PNG's iTXt chunk, decompressed: what follows keyword, two bytes on compression,
    language and translated keyword. Raises UnmarkableError if it cannot be decompressed.
    """
    _, rest = data.split(b"\0", 1)
    text = rest[2:].split(b"\0", 2)[-1]
    if rest[:1] != b"\1":
        return text
    try:
        return zlib.decompressobj().decompress(text, MAX_BYTES)
    except zlib.error as error:
        raise UnmarkableError(f"its XMP cannot be read ({error})") from None


def jpeg_segments_and_scan(content: bytes) -> tuple[list[bytes], bytes]:
    """The segments of a JPEG before its first scan, each with its marker, and all that follows them."""
    parts, start = [], 2
    while content[start : start + 1] == b"\xff" and content[start + 1 : start + 2] not in (b"", b"\xda"):
        end = start + 2 + int.from_bytes(content[start + 2 : start + 4])
        parts.append(content[start:end])
        start = end
    return parts, content[start:]


def is_xmp_segment(part: bytes) -> bool:
    """Whether a segment of a JPEG holds its XMP packet."""
    return part[1] == 0xE1 and part[4:].startswith(JPEG_HEADER)


def is_webp(content: bytes) -> bool:
    """Whether the bytes of a file begin as a WebP does."""
    return content[:4] == b"RIFF" and content[8:12] == b"WEBP"


def webp_chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    """(kind, data) of each chunk of a WebP."""
    found, start = [], 12
    while start + 8 <= len(content):
        size = int.from_bytes(content[start + 4 : start + 8], "little")
        found.append((content[start : start + 4], content[start + 8 : start + 8 + size]))
        start += 8 + size + size % 2
    return found


def webp_with_xmp_packet(content: bytes, packet: bytes) -> bytes:
    """A WebP with this packet. A file of the simple form, which is one chunk, becomes one of the extended form."""
    chunks = [(kind, data) for kind, data in webp_chunks(content) if kind != WEBP_KIND]
    if chunks[0][0] != b"VP8X":
        with Image.open(io.BytesIO(content), formats=["WEBP"]) as image:
            alpha, sides = WEBP_ALPHA * (image.mode == "RGBA"), image.size
        canvas = b"".join((side - 1).to_bytes(3, "little") for side in sides)
        chunks.insert(0, (b"VP8X", bytes([alpha, 0, 0, 0]) + canvas))
    head = chunks[0][1]
    chunks[0] = b"VP8X", bytes([head[0] | WEBP_XMP]) + head[1:]
    return webp_from_chunks([*chunks, (WEBP_KIND, packet)])


def webp_from_chunks(chunks: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The WebP that holds these chunks; one of an odd size is padded with a zero."""
    parts = [kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for kind, data in chunks]
    body = b"WEBP" + b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body
