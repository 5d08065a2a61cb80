"""Pictures as every stage sees them: decoded to upright sRGB, alpha laid on a background or kept where that is asked
for.

Training and scoring use the same decoder, so that a reference and a generated picture differ in nothing else.
"""

import io
import os
import stat
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageChops, ImageCms, ImageOps, UnidentifiedImageError

from stylegate.listing import SUFFIXES, find_pictures

__all__ = ["SUFFIXES", "find_pictures"]  # where the pictures of a folder are found: stylegate/listing.py

warnings.filterwarnings(
    "ignore", module=r"PIL\."
)  # of damaged headers: `decode_picture` says whether a file is a picture

# What is decoded, by content and not by name. Left out of those that Pillow reads: formats without a signature (TGA),
# those that start another program (EPS), and those that are seldom met.
FORMATS = ["PNG", "JPEG", "WEBP", "AVIF", "BMP", "DIB", "TIFF", "GIF", "JPEG2000", "PSD", "QOI", "PPM", "ICO"]
SRGB_CICP = bytes([1, 13, 0, 1])  # primaries, transfer function, matrix and range of sRGB (ITU-T H.273)
SRGB_GAMMA, NEAR_GAMMA = 45_455, 1_500  # in 1/100,000, as in gAMA; what differs by less looks the same
SRGB_CHRM = (31_270, 32_900, 64_000, 33_000, 30_000, 60_000, 15_000, 6_000)  # x and y of white, red, green, blue
NEAR_CHRM = 1_000  # 1/100,000 as well
PNG_START = b"\x89PNG\r\n\x1a\n"
TURNS = {  # by EXIF's orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
MIN_SIDE = 16  # pixels; below this there is nothing to learn or to judge
MAX_PIXELS = 100_000_000  # a decompression bomb above this
MAX_BYTES = 500_000_000  # of a file; a picture of MAX_PIXELS takes less
CORES = os.cpu_count() or 1


class PictureError(Exception):
    """A file that is not one whole, still picture; the text says why."""


class DecodedPicture(NamedTuple):
    """A decoded picture, and which conversions decoding made."""

    image: Image.Image  # mode RGB, sRGB; RGBA where some of it is transparent and no background was given
    notes: tuple[str, ...]  # conversions that were made, such as "alpha", "CMYK"


def read_picture_file_bytes(path: Path) -> bytes:
    """The file's bytes. Raises OSError, also for a pipe or device (which is not waited for), and PictureError for more
    than MAX_BYTES.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise FileNotFoundError(f"{path} is not a file")
    if status.st_size > MAX_BYTES:
        raise PictureError(f"{status.st_size:,} bytes is more than {MAX_BYTES:,}")
    return path.read_bytes()


def decode_picture(content: bytes, background: str | None = "#ffffff") -> DecodedPicture:
    """Decode a picture file's content to upright sRGB; alpha is laid on `background`, or kept with None.

    Raises PictureError for anything else than one picture. Of a JPEG that holds further pictures (a gain map, a second
    view) the first one is the picture.
    """
    try:
        content = without_text_chunks(content)
        with Image.open(io.BytesIO(content), formats=FORMATS) as probe:
            refuse_animation_or_bad_size(probe, content)
            refuse_png_colours_that_pillow_misreads(content)
            probe.verify()  # PNG: every chunk's checksum up to IEND
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            image.load()
            return to_srgb(image, content, background)
    except (PictureError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise PictureError("cannot be decoded (no picture of a known format)") from None
    except Exception as error:  # foreign bytes: decoders raise whatever they like
        raise PictureError(f"cannot be decoded ({type(error).__name__}: {error})") from None


def require_picture_file(path: Path) -> None:
    """Raise PictureError for a file that is no whole picture of a format that is read here, OSError for one that cannot
    be opened. Size, colours and number of frames do not matter.
    """
    content = without_text_chunks(read_picture_file_bytes(path))
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.format == "PNG":
                image.verify()  # every chunk's checksum up to IEND
            else:
                image.load()
    except UnidentifiedImageError:
        raise PictureError("no picture of a known format") from None
    except Exception as error:  # foreign bytes: decoders raise whatever they like
        raise PictureError(f"cannot be decoded ({type(error).__name__}: {error})") from None


def refuse_animation_or_bad_size(image: Image.Image, content: bytes) -> None:
    """Raise PictureError for an animation, several pages or pictures, and sizes that are not decoded."""
    frames = getattr(image, "n_frames", 1)
    if image.format == "ICO" and (count := int.from_bytes(content[4:6], "little")) > 1:  # a viewer may show any of them
        raise PictureError(f"{count} pictures in one file")
    if frames > 1 and image.format not in ("MPO", "PSD"):  # first picture and its gain map; composite and its layers
        raise PictureError(f"{frames} pages" if image.format == "TIFF" else f"animated ({frames} frames)")
    if image.width * image.height > MAX_PIXELS:
        raise PictureError(f"{image.width} x {image.height} pixels is more than {MAX_PIXELS:,}")
    if min(image.size) < MIN_SIDE:
        raise PictureError(f"{image.width} x {image.height} pixels; at least {MIN_SIDE} a side")


def refuse_png_colours_that_pillow_misreads(content: bytes) -> None:
    """Raise PictureError for a PNG with a chunk of colours (cICP, gAMA, cHRM) that browsers follow and Pillow ignores,
    unless its values are those of sRGB.

    cICP goes before iCCP, sRGB, and gAMA with cHRM (PNG, third edition).
    """
    found: dict[bytes, bytes] = {}
    for kind, chunk in png_chunks(content):
        if kind == b"IDAT":
            break
        found[kind] = chunk[8:-4]
    if found.get(b"cICP", SRGB_CICP) != SRGB_CICP:
        raise PictureError("colours of another space than sRGB (cICP); save it as sRGB")
    if found.keys() & {b"cICP", b"iCCP", b"sRGB"}:
        return
    gamma, points = int.from_bytes(found.get(b"gAMA", b"")), found.get(b"cHRM", b"")
    if gamma and abs(gamma - SRGB_GAMMA) > NEAR_GAMMA:
        raise PictureError(f"brightness by gAMA {gamma / 100_000:g}, not that of sRGB; save it as sRGB")
    if len(points) == 32 and any(
        abs(value - of_srgb) > NEAR_CHRM for value, of_srgb in zip(struct.unpack(">8I", points), SRGB_CHRM, strict=True)
    ):
        raise PictureError("colours of another space than sRGB (cHRM); save it as sRGB")


def png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(kind, whole chunk) of each chunk of a PNG; nothing of other files."""
    start = 8 if content.startswith(PNG_START) else len(content)
    while start < len(content):
        end = start + 12 + int.from_bytes(content[start : start + 4])
        yield content[start + 4 : start + 8], content[start:end]
        start = end


def without_text_chunks(content: bytes) -> bytes:
    """A PNG without its chunks of text, such as the workflow that drew it: no pixel depends on them.

    Pillow refuses the whole picture for one compressed text of more than a megabyte.
    """
    if not content.startswith(PNG_START):
        return content
    kept = (chunk for kind, chunk in png_chunks(content) if kind not in (b"tEXt", b"zTXt", b"iTXt"))
    return b"".join([PNG_START, *kept])


def upright_size_of(content: bytes) -> tuple[int, int]:
    """Width and height in pixels that `decode_picture` gives, from the header alone; the picture must be one that
    decodes.
    """
    with Image.open(io.BytesIO(without_text_chunks(content)), formats=FORMATS) as image:
        turned = (
            image.format != "TIFF" and exif_orientation(image) >= 5
        )  # Pillow turns a TIFF by itself, sides at opening
        return (image.height, image.width) if turned else image.size


def suffix_by_content(content: bytes) -> str:
    """The suffix, such as ".jpg", of a picture that decodes, by its content: the suffix of its name may be wrong."""
    with Image.open(io.BytesIO(without_text_chunks(content)), formats=FORMATS) as image:
        kind = image.format or ""
    return {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif", "JPEG2000": ".jp2"}.get(kind, f".{kind.lower()}")


def exif_orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1 (upright) where there is none, or something else stands in its place."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # a damaged EXIF block says nothing
        return 1
    return value if isinstance(value, int) and value in TURNS else 1


def to_srgb(image: Image.Image, content: bytes, background: str | None) -> DecodedPicture:
    """Convert an opened picture to upright 8-bit sRGB: orientation, bit depth, palette, colour profile and alpha, in
    this order. Returns it as RGB, or as RGBA where alpha is kept, with a note for each conversion that was made.

    `content` is its file. Alpha is laid on `background`, or kept with None.
    """
    notes, icc = [], image.info.get("icc_profile")
    if (turn := TURNS.get(exif_orientation(image))) is not None:
        notes.append("rotated as EXIF says")
        image = image.transpose(turn)
    alpha = alpha_channel_of(image)
    if image.mode.startswith("I") or image.mode == "F":
        notes.append("floats" if image.mode == "F" else "16-bit")
        image = to_8_bits(image)
    elif content.startswith(PNG_START) and content[24] == 16:  # IHDR bit depth; the decoder kept the high bytes
        notes.append("16-bit")
    if image.mode == "CMYK":
        notes.append("CMYK")
    if image.mode == "P":
        notes.append("palette")
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    colour = from_colour_profile(image, icc, notes) if icc else image.convert("RGB")
    if alpha is not None and alpha.getextrema()[0] != 255:
        notes.append("alpha")
        colour.putalpha(alpha)
        colour = colour if background is None else laid_on_background(colour, background)
    return DecodedPicture(colour, tuple(notes))


def laid_on_background(image: Image.Image, background: str) -> Image.Image:
    """An RGBA picture laid on a colour, as RGB; an RGB picture as it is."""
    if image.mode == "RGB":
        return image
    sheet = Image.new("RGB", image.size, background)
    sheet.paste(image.convert("RGB"), mask=image.getchannel("A"))
    return sheet


def drawn_picture_as_decoded(image: Image.Image, background: str) -> DecodedPicture:
    """A drawn picture, RGB or RGBA, as `decode_picture` with this background returns it from its PNG."""
    transparent = image.mode == "RGBA" and image.getchannel("A").getextrema()[0] != 255
    return DecodedPicture(laid_on_background(image, background), ("alpha",) if transparent else ())


def alpha_channel_of(image: Image.Image) -> Image.Image | None:
    """Alpha from 0 (transparent) to 255 in mode L; None for a picture that has none."""
    if not image.has_transparency_data:
        return None
    if image.mode.startswith("I"):  # 16-bit gray: one value is transparent; Pillow's own conversion would clip first
        return Image.fromarray((np.asarray(image) != image.info["transparency"]).astype(np.uint8) * 255)
    return image.convert("RGBA").getchannel("A")


def to_8_bits(image: Image.Image) -> Image.Image:
    """A gray picture of 16-bit integers, or of floats from 0 (black) to 1 (white), in 8 bits.

    Raises PictureError where the values do not say which of them is white.
    """
    values = np.asarray(image, dtype=np.float64)
    if image.mode == "F" and not (values.min() >= 0 and values.max() <= 1):
        raise PictureError(f"floats from {values.min():g} to {values.max():g}; they are read from 0 to 1")
    if image.mode == "I" and (image.format == "TIFF" or values.min() < 0 or values.max() > 65535):
        raise PictureError("32-bit integers, of which nobody knows which is white; save it with 8 or 16 bits")
    return Image.fromarray((values * 255 if image.mode == "F" else values / 257).round().astype(np.uint8))


def from_colour_profile(image: Image.Image, icc: bytes, notes: list[str]) -> Image.Image:
    """The picture converted to RGB in sRGB from its embedded profile `icc`, or without it where it does not fit the
    picture. What was done is appended to `notes`.
    """
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        space: str = source.profile.xcolor_space  # type: ignore[union-attr]
        base = convert_to_mode_that_profile_reads(image, space.strip())
        converted = ImageCms.profileToProfile(base, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        notes.append("colour profile unusable")
        return image.convert("RGB")
    assert converted is not None
    if "sRGB" not in ImageCms.getProfileDescription(source):
        notes.append("colour profile to sRGB")
    return converted


def convert_to_mode_that_profile_reads(image: Image.Image, space: str) -> Image.Image:
    """The picture in the mode that a profile of colour space `space` reads. Raises ValueError if there is none."""
    if space == "GRAY" and image.mode != "CMYK":
        red, *others = image.convert("RGB").split()
        if all(ImageChops.difference(red, other).getextrema() == (0, 0) for other in others):
            return red
    elif space == "RGB" and image.mode != "CMYK":
        return image.convert("RGB")
    elif space == "CMYK" and image.mode == "CMYK":
        return image
    raise ValueError(f"a profile of {space} does not fit a picture of {image.mode}")


def scale_and_crop(image: Image.Image, width: int, height: int) -> Image.Image:
    """Scale a picture until it covers width x height pixels, and crop the centre: what the trainer shows the model."""
    return ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)


def png_bytes(image: Image.Image) -> bytes:
    """The content of a PNG file of the picture."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
