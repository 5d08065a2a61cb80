"""Picture files as they come from outside: damaged, disguised, huge, of odd modes. A number gives always the same."""

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

Random = np.random.Generator


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def drawn(random: Random, side: int = 32) -> Image.Image:
    pixels = random.integers(0, 256, (side // 4, side // 4, 3), np.uint8)
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST)


def animated(image: Image.Image) -> bytes:
    return encoded(image, "GIF", save_all=True, append_images=[image.rotate(90)])


def sixteen_bits(image: Image.Image) -> bytes:
    return encoded(Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257), "PNG")


FORMS: list[Callable[[Image.Image], bytes]] = [
    lambda image: encoded(image, "PNG"),
    lambda image: encoded(image, "JPEG", quality=80),
    lambda image: encoded(image, "JPEG", progressive=True),
    lambda image: encoded(image, "WEBP"),
    lambda image: encoded(image, "WEBP", lossless=True),
    lambda image: encoded(image, "BMP"),
    lambda image: encoded(image, "TIFF", compression="tiff_lzw"),
    lambda image: encoded(image, "GIF"),
    lambda image: encoded(image.convert("CMYK"), "JPEG"),
    lambda image: encoded(image.convert("CMYK"), "TIFF"),
    lambda image: encoded(image.convert("P"), "PNG", transparency=3),
    lambda image: encoded(image.convert("LA"), "PNG"),
    lambda image: encoded(image.convert("RGBA").rotate(30), "PNG"),
    lambda image: encoded(image.convert("1"), "PNG"),
    lambda image: encoded(image.convert("I;16"), "TIFF"),
    lambda image: encoded(image, "ICO"),  # a form that is not read
    sixteen_bits,
    animated,
]


def whole(content: bytes, random: Random) -> bytes:
    return content


def truncated(content: bytes, random: Random) -> bytes:
    return content[: int(random.integers(0, len(content)))]


def flipped(content: bytes, random: Random) -> bytes:
    out = bytearray(content)
    for place in random.integers(0, len(out), int(random.integers(1, 9))):
        out[place] ^= 1 << int(random.integers(8))
    return bytes(out)


def spliced(content: bytes, random: Random) -> bytes:
    """A stretch taken out, doubled, or overwritten with noise."""
    start, stop = sorted(int(v) for v in random.integers(0, len(content), 2))
    middle = [b"", content[start:stop] * 2, random.bytes(stop - start)][int(random.integers(3))]
    return content[:start] + middle + content[stop:]


def header(content: bytes, random: Random) -> bytes:
    """Noise in the first bytes, where sizes and modes stand."""
    out = bytearray(content)
    for place in random.integers(0, min(64, len(out)), 4):
        out[place] = int(random.integers(256))
    return bytes(out)


def trailed(content: bytes, random: Random) -> bytes:
    return content + random.bytes(int(random.integers(1, 400)))


def noise(content: bytes, random: Random) -> bytes:
    return random.bytes(int(random.integers(0, 400)))


DAMAGES = [whole, truncated, flipped, spliced, header, trailed, noise]


def mutant(number: int) -> bytes:
    random = np.random.default_rng([77, number])
    content = FORMS[int(random.integers(len(FORMS)))](drawn(random))
    return DAMAGES[number % len(DAMAGES)](content, random)


def bomb(side: int) -> bytes:
    """A PNG of side x side zeros; a square of 50,000 is 7.5 GB in 7 MB, so the last rows are left out."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = zlib.compress(bytes(3 * side + 1) * min(side, 100))
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
