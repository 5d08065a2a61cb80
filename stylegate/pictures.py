"""Pictures as every stage sees them: decoded to sRGB, upright, without alpha; and how alike two of them are.

Training and scoring use the same decoder, so that a reference and a generated picture differ in nothing else.
"""

import io
import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
FORMATS = ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"]
MIN_SIDE = 16  # pixels; below this there is nothing to learn or to judge
MAX_PIXELS = 100_000_000  # a decompression bomb above this
SIDE = 64  # side of the signature that similarity is taken of
MAX_SHIFT = 2  # signature pixels, about 3 % of the side
FLAT = 1.0  # squared levels; a picture with less energy than this is one colour
THUMBNAIL_SLACK = 0.1  # a candidate this much less alike in the thumbnail is not looked at (docs/log.md)
NEAR = 0.97  # similarity above which two pictures of a brand set are near-duplicates (docs/log.md, "Near-duplicates")


class PictureError(Exception):
    """A file that is not one whole, still picture; the text says why."""


class Picture(NamedTuple):
    image: Image.Image  # mode RGB, sRGB
    notes: tuple[str, ...]  # conversions that were made, such as "alpha", "CMYK"


def find(folder: Path) -> list[Path]:
    """Files below `folder` whose name looks like a picture's, sorted; hidden ones and those in hidden folders aside."""

    def hidden(path: Path) -> bool:
        return any(part.startswith(".") for part in path.relative_to(folder).parts)

    found = (p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.is_dir())
    return sorted(p for p in found if not hidden(p))


def decode(content: bytes, background: str = "#ffffff") -> Picture:
    """Decode to upright sRGB; alpha is laid on `background`. Raises PictureError for anything else than one picture."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as probe:
            if (frames := getattr(probe, "n_frames", 1)) > 1:
                raise PictureError(f"animated ({frames} frames)")
            if probe.width * probe.height > MAX_PIXELS:
                raise PictureError(f"{probe.width} x {probe.height} pixels is more than {MAX_PIXELS:,}")
            if min(probe.size) < MIN_SIDE:
                raise PictureError(f"{probe.width} x {probe.height} pixels; at least {MIN_SIDE} a side")
            probe.verify()  # PNG: every chunk's checksum up to IEND
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            image.load()
            return to_srgb(image, content, background)
    except PictureError:
        raise
    except UnidentifiedImageError:
        raise PictureError("cannot be decoded (no picture of a known format)") from None
    except Exception as error:  # foreign bytes: decoders raise whatever they like
        raise PictureError(f"cannot be decoded ({type(error).__name__}: {error})") from None


def size_of(content: bytes) -> tuple[int, int]:
    """Width and height of an upright picture that decodes, from its header."""
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
        return (image.height, image.width) if turned else image.size


def to_srgb(image: Image.Image, content: bytes, background: str) -> Picture:
    """Orientation, bit depth, colour profile, palette and alpha, in this order; each one made is noted."""
    notes = []
    if image.getexif().get(0x0112, 1) != 1:  # EXIF orientation
        notes.append("rotated as EXIF says")
    icc = image.info.get("icc_profile")
    upright = ImageOps.exif_transpose(image)
    assert upright is not None
    if upright.mode.startswith("I") or upright.mode == "F":
        notes.append("16-bit")
        values = np.asarray(upright, dtype=np.float64)
        upright = Image.fromarray((values / 257).clip(0, 255).round().astype(np.uint8))
    elif content[:8] == b"\x89PNG\r\n\x1a\n" and content[24] == 16:  # IHDR bit depth; the decoder kept the high bytes
        notes.append("16-bit")
    if upright.mode == "CMYK":
        notes.append("CMYK")
    if upright.mode == "P":
        notes.append("palette")
        upright = upright.convert("RGBA" if "transparency" in upright.info else "RGB")
    alpha = upright.convert("RGBA").getchannel("A") if upright.has_transparency_data else None
    colour = with_profile(upright, icc, notes) if icc else upright.convert("RGB")
    if alpha is not None and alpha.getextrema()[0] != 255:
        notes.append("alpha")
        sheet = Image.new("RGB", colour.size, background)
        sheet.paste(colour, mask=alpha)
        colour = sheet
    return Picture(colour, tuple(notes))


def with_profile(image: Image.Image, icc: bytes, notes: list[str]) -> Image.Image:
    """Convert from the embedded profile to sRGB; a profile that does not fit the mode is said and left aside."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        base = image if image.mode in ("RGB", "CMYK", "L") else image.convert("RGB")
        converted = ImageCms.profileToProfile(base, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        notes.append("colour profile unusable")
        return image.convert("RGB")
    assert converted is not None
    if "sRGB" not in ImageCms.getProfileDescription(source):
        notes.append("colour profile to sRGB")
    return converted


def covering(image: Image.Image, width: int, height: int) -> Image.Image:
    """Scaled until it covers width x height, and the centre cropped: what the trainer shows the model."""
    return ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


# Likeness: the correlation of two pictures' colours, best over small shifts. Blind to brightness, contrast
# and recompression, sharp for shape and colour; collectibles that share a template differ in it.


def signature(image: Image.Image) -> NDArray[np.uint8]:
    """uint8 [64, 64, 3]: what likeness is computed of."""
    return np.asarray(
        image.resize((SIDE, SIDE), Image.Resampling.BOX if image.width > SIDE else Image.Resampling.LANCZOS)
    )


def likeness(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Similarity of two signatures in [-1, 1]: the best correlation over shifts of up to 2 pixels.

    Each channel is taken about its mean over the picture; two flat pictures are alike (1), one flat one is not (0).
    """
    x, y = centred(a), centred(b)
    energy_x, energy_y = energies(x), energies(y)
    if energy_x[-1, -1] < FLAT or energy_y[-1, -1] < FLAT:
        return float(energy_x[-1, -1] < FLAT and energy_y[-1, -1] < FLAT)
    best = -1.0
    for dy in range(-MAX_SHIFT, MAX_SHIFT + 1):
        for dx in range(-MAX_SHIFT, MAX_SHIFT + 1):
            here, there = window(dy, dx), window(-dy, -dx)
            product = float(np.einsum("yxc,yxc->", x[here], y[there]))
            scale = math.sqrt(within(energy_x, here) * within(energy_y, there))
            best = max(best, product / scale if scale > FLAT else 0.0)
    return best


def centred(signature: NDArray[np.uint8]) -> NDArray[np.float32]:
    values = signature.astype(np.float32)
    return values - values.mean((0, 1))


def energies(x: NDArray[np.float32]) -> NDArray[np.float64]:
    """[65, 65] sums of squares of everything above and left: the energy of any window is four look-ups."""
    total = np.zeros((SIDE + 1, SIDE + 1))
    total[1:, 1:] = (x * x).sum(2, dtype=np.float64).cumsum(0).cumsum(1)
    return total


def window(dy: int, dx: int) -> tuple[slice, slice]:
    """What is left of a signature that is moved by (-dy, -dx)."""
    return slice(max(dy, 0), SIDE + min(dy, 0)), slice(max(dx, 0), SIDE + min(dx, 0))


def within(total: NDArray[np.float64], place: tuple[slice, slice]) -> float:
    (top, bottom), (left, right) = ((s.start, s.stop) for s in place)
    return float(total[bottom, right] - total[top, right] - total[bottom, left] + total[top, left])


def thumbnails(signatures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[n, 768] unit rows: signatures averaged to 16 x 16 and centred; their product proposes likely pairs."""
    n = len(signatures)
    small = signatures.reshape(n, 16, 4, 16, 4, 3).mean((2, 4), dtype=np.float32)
    flat = (small - small.mean((1, 2), keepdims=True)).reshape(n, -1)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)


def nearest(
    signatures: NDArray[np.uint8], others: NDArray[np.uint8] | None = None, groups: NDArray | None = None
) -> tuple[NDArray, NDArray]:
    """For each picture the largest likeness to one of `others` and its index; 0 and -1 where there are none.

    Without `others`: to the pictures before it in the same array (so the first of a pair stays unmarked), those of
    its own group (attempts at one slot) aside. Thumbnails propose eight candidates each, likeness decides.
    """
    before = others is None
    pool = signatures if others is None else others
    best, index = np.zeros(len(signatures), np.float32), np.full(len(signatures), -1)
    if not len(signatures) or not len(pool):
        return best, index
    queries, keys = thumbnails(signatures), thumbnails(pool)
    for start in range(0, len(queries), 1024):  # blocks: n x n never stands in memory
        products = queries[start : start + 1024] @ keys.T
        for row, product in enumerate(products, start=start):
            candidates = product[:row] if before else product
            if before and groups is not None:
                candidates = np.where(groups[:row] == groups[row], -2, candidates)
            for candidate in np.argsort(-candidates)[:8]:
                if candidates[candidate] < max(best[row] - THUMBNAIL_SLACK, -1):
                    break
                if (found := likeness(signatures[row], pool[candidate])) > best[row]:
                    best[row], index[row] = found, candidate
    return best, index


# Sheets for people.

INK, PAPER, FAINT = "#1c1b1a", "#faf9f7", "#8a8680"


@lru_cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def sheet(rows: Sequence[tuple[str, Sequence[Image.Image]]], columns: int, cell: int = 96) -> Image.Image:
    """A contact sheet: each row group has a heading, then its pictures `columns` to a line."""
    gap, head = 6, 26
    heights = [head + math.ceil(len(images) / columns) * (cell + gap) + gap for _, images in rows]
    page = Image.new("RGB", (columns * (cell + gap) + gap, sum(heights) + gap), PAPER)
    draw, top = ImageDraw.Draw(page), 0
    for (title, images), height in zip(rows, heights, strict=True):
        draw.text((gap, top + 6), title, fill=INK, font=font(14))
        for i, image in enumerate(images):
            x, y = gap + (i % columns) * (cell + gap), top + head + (i // columns) * (cell + gap)
            page.paste(enlarged(image, cell), (x, y))
        top += height
    return page


def table(columns: Sequence[str], rows: Sequence[tuple[str, Sequence[Image.Image]]], cell: int = 128) -> Image.Image:
    """A grid with headings over the columns and a caption under each row of pictures."""
    gap, head, foot = 6, 26, 22
    width = len(columns) * (cell + gap) + gap
    page = Image.new("RGB", (width, head + len(rows) * (cell + foot + gap)), PAPER)
    draw = ImageDraw.Draw(page)
    for i, title in enumerate(columns):
        draw.text((gap + i * (cell + gap), 6), title, fill=INK, font=font(14))
    for r, (caption, images) in enumerate(rows):
        y = head + r * (cell + foot + gap)
        for i, image in enumerate(images):
            page.paste(enlarged(image, cell), (gap + i * (cell + gap), y))
        draw.text((gap, y + cell + 3), fitted(caption, width - 2 * gap), fill=FAINT, font=font(12))
    return page


def fitted(text: str, width: int) -> str:
    """Cut a caption to a width in pixels."""
    while text and font(12).getlength(text) > width:
        text = text[:-2].rstrip(" …") + "…"
    return text


def enlarged(image: Image.Image, cell: int) -> Image.Image:
    """Fit into a square cell; small pictures grow by whole factors without smoothing, as pixels."""
    whole = cell // max(image.size)
    if whole >= 1:
        image = image.resize((image.width * whole, image.height * whole), Image.Resampling.NEAREST)
    return ImageOps.pad(image, (cell, cell), Image.Resampling.LANCZOS, color=PAPER)
