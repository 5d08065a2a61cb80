"""Pictures as every stage sees them: decoded to upright sRGB without alpha; and how alike two of them are.

Training and scoring use the same decoder, so that a reference and a generated picture differ in nothing else.
"""

import io
import math
import os
import stat
import struct
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageChops, ImageCms, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

from stylegate.listing import SUFFIXES, find_pictures

__all__ = ["SUFFIXES", "find_pictures"]  # where the pictures of a folder are found: stylegate/listing.py

warnings.filterwarnings("ignore", module=r"PIL\.")  # of damaged headers: `decode` says whether a file is a picture

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
SIDE = 64  # side of the signature that similarity is taken of
MAX_SHIFT = 2  # signature pixels, about 3 % of the side
FLAT = 1.0  # squared levels; a picture with less energy than this is one colour
PROPOSED, MAX_PROPOSED = 0.8, 7  # thumbnails that correlate less are of pictures that are not alike (docs/log.md)
COARSE, CLOSE = (
    3,
    0.05,
)  # partners by coarser thumbnails at most; how far below the first one (tests/stylegate/test_pictures.py)
CORES = os.cpu_count() or 1
BLOCK = 1024  # pictures that are compared with the rest at once
ASIDE = -2.0  # instead of a correlation: not to be compared
NEAR = 0.97  # similarity above which two pictures of a brand set are near-duplicates (docs/log.md, "Near-duplicates")


class PictureError(Exception):
    """A file that is not one whole, still picture; the text says why."""


class Picture(NamedTuple):
    """A decoded picture, and what had to be converted."""

    image: Image.Image  # mode RGB, sRGB
    notes: tuple[str, ...]  # conversions that were made, such as "alpha", "CMYK"


def read(path: Path) -> bytes:
    """The file's bytes. Raises OSError, also for a pipe or device (which is not waited for); PictureError if large."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise FileNotFoundError(f"{path} is not a file")
    if status.st_size > MAX_BYTES:
        raise PictureError(f"{status.st_size:,} bytes is more than {MAX_BYTES:,}")
    return path.read_bytes()


def decode(content: bytes, background: str = "#ffffff") -> Picture:
    """Decode to upright sRGB; alpha is laid on `background`. Raises PictureError for anything else than one picture.

    Of a JPEG that holds further pictures (a gain map, a second view) the first one is the picture.
    """
    try:
        content = without_text_chunks(content)
        with Image.open(io.BytesIO(content), formats=FORMATS) as probe:
            check_shape(probe, content)
            check_colours(content)
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


def check_shape(image: Image.Image, content: bytes) -> None:
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


def check_colours(content: bytes) -> None:
    """Raise PictureError for a PNG whose colours browsers read by a chunk that Pillow does not.

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


def size_of(content: bytes) -> tuple[int, int]:
    """Width and height of an upright picture that decodes, from its header: those of `decode`."""
    with Image.open(io.BytesIO(without_text_chunks(content)), formats=FORMATS) as image:
        turned = image.format != "TIFF" and orientation(image) >= 5  # Pillow turns a TIFF by itself, sides at opening
        return (image.height, image.width) if turned else image.size


def suffix_of(content: bytes) -> str:
    """The suffix of a picture that decodes, by its content: what its name says may be wrong."""
    with Image.open(io.BytesIO(without_text_chunks(content)), formats=FORMATS) as image:
        kind = image.format or ""
    return {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif", "JPEG2000": ".jp2"}.get(kind, f".{kind.lower()}")


def orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1 (upright) where there is none, or something else stands in its place."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # a damaged EXIF block says nothing
        return 1
    return value if isinstance(value, int) and value in TURNS else 1


def to_srgb(image: Image.Image, content: bytes, background: str) -> Picture:
    """Orientation, bit depth, palette, colour profile and alpha, in this order; each one made is noted."""
    notes, icc = [], image.info.get("icc_profile")
    if (turn := TURNS.get(orientation(image))) is not None:
        notes.append("rotated as EXIF says")
        image = image.transpose(turn)
    alpha = alpha_of(image)
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
        sheet = Image.new("RGB", colour.size, background)
        sheet.paste(colour, mask=alpha)
        colour = sheet
    return Picture(colour, tuple(notes))


def alpha_of(image: Image.Image) -> Image.Image | None:
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
    """Convert from the embedded profile to sRGB; a profile that does not fit the colours is noted and left aside."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        space: str = source.profile.xcolor_space  # type: ignore[union-attr]
        base = in_colour_space(image, space.strip())
        converted = ImageCms.profileToProfile(base, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        notes.append("colour profile unusable")
        return image.convert("RGB")
    assert converted is not None
    if "sRGB" not in ImageCms.getProfileDescription(source):
        notes.append("colour profile to sRGB")
    return converted


def in_colour_space(image: Image.Image, space: str) -> Image.Image:
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


# Likeness: the correlation of two pictures' colours, best over small shifts. Blind to brightness, contrast
# and recompression, sharp for shape and colour; collectibles that share a template differ in it.


def signature(image: Image.Image) -> NDArray[np.uint8]:
    """The picture scaled to 64 x 64 pixels, uint8 [64, 64, 3]: what its likeness to others is computed from."""
    return np.asarray(
        image.resize((SIDE, SIDE), Image.Resampling.BOX if image.width > SIDE else Image.Resampling.LANCZOS)
    )


class PreparedSignatures(NamedTuple):
    """Signatures in the form that `pair_likeness` compares."""

    values: NDArray[np.float32]  # [n, MARGIN + 3 * STRIDE * STRIDE + MARGIN] about their means, zeros between rows
    energies: NDArray[np.float64]  # [n, 25] squares within what each shift down and right leaves


SHIFTS = range(-MAX_SHIFT, MAX_SHIFT + 1)  # along each axis
# [5, 5]: which of a line's parts each shift leaves within the other picture: two pixels, the middle, two pixels
INSIDE = np.array([[max(d, 0) <= p < len(SHIFTS) + min(d, 0) for p in range(len(SHIFTS))] for d in SHIFTS], np.float32)
STRIDE = SIDE + MAX_SHIFT  # from row to row: a shift is one offset, and what it carries over an edge is zero
MARGIN = MAX_SHIFT * (STRIDE + 1)  # the largest offset
TOGETHER = 64  # pairs that are compared at once, so that they stay in the processor's cache


def prepare_signatures(signatures: NDArray[np.uint8]) -> PreparedSignatures:
    """Signatures, uint8 [n, 64, 64, 3], centred and padded, with the energy that each shift leaves: what
    `pair_likeness` compares.
    """
    planes = signatures.transpose(0, 3, 1, 2).astype(np.float32, order="C").reshape(-1, 3, SIDE * SIDE)
    planes -= planes.mean(2, keepdims=True)
    squares = np.einsum("nck,nck->nk", planes, planes).reshape(-1, SIDE, SIDE)
    energies = shifted_sums(shifted_sums(squares).swapaxes(1, 2)).swapaxes(1, 2)  # [n, 5 down, 5 right]
    values = np.zeros((len(signatures), 3 * STRIDE * STRIDE + 2 * MARGIN), np.float32)
    rows = values[:, MARGIN:-MARGIN].reshape(-1, 3, STRIDE, STRIDE)
    rows[:, :, :SIDE, :SIDE] = planes.reshape(-1, 3, SIDE, SIDE)
    return PreparedSignatures(values, energies.reshape(-1, len(SHIFTS) ** 2).astype(np.float64))


def shifted_sums(lines: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sum lines, [..., 64], over the pixels that each of the 5 shifts leaves inside: [..., 5].

    By einsum, because BLAS would start threads of its own within ours.
    """
    middle = lines[..., MAX_SHIFT:-MAX_SHIFT].sum(-1, keepdims=True)
    parts = np.concatenate([lines[..., :MAX_SHIFT], middle, lines[..., -MAX_SHIFT:]], -1)
    return np.einsum("...p,sp->...s", parts, INSIDE)


def pair_likeness(a: PreparedSignatures, b: PreparedSignatures) -> NDArray[np.float64]:
    """[n] the likeness in [-1, 1] of each signature in `a` to the one at the same index in `b`.

    It is the largest correlation over shifts of up to 2 pixels, each channel centred on its mean. Two flat pictures
    have 1, a flat and another one 0.
    """
    middle = b.values[:, MARGIN:-MARGIN]
    every, one = a.values.strides
    shape = (len(middle), len(SHIFTS), len(SHIFTS), middle.shape[1])
    moved = as_strided(a.values, shape, (every, STRIDE * one, one, one))
    products = np.einsum("nyxk,nk->nyx", moved, middle).reshape(-1, len(SHIFTS) ** 2)
    scales = np.sqrt(a.energies * b.energies[:, ::-1])  # moving one picture there is moving the other one back
    best = np.where(scales > FLAT, products / np.maximum(scales, FLAT), 0).max(1)
    still = len(SHIFTS) ** 2 // 2
    flat = [p.energies[:, still] < FLAT for p in (a, b)]
    return np.where(flat[0] | flat[1], (flat[0] & flat[1]).astype(float), best)


def likeness(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """The likeness of two signatures, uint8 [64, 64, 3] each: in [-1, 1], 1 for the same picture."""
    return float(pair_likeness(prepare_signatures(a[None]), prepare_signatures(b[None]))[0])


def centred_thumbnails(signatures: NDArray[np.uint8], order: NDArray | None = None) -> NDArray[np.float32]:
    """[n, 768] unit rows: signatures averaged to 16 x 16 and centred; their product proposes likely pairs."""
    found = np.empty((len(signatures), 768), np.float32)

    def fill(start: int) -> None:  # of a hundred thousand no second copy stands in memory
        some = signatures[slice(start, start + BLOCK) if order is None else order[start : start + BLOCK]]
        rows = some.reshape(len(some), 16, 4, 16, 12).sum(2, dtype=np.uint16)
        small = rows[..., 0:3] + rows[..., 3:6] + rows[..., 6:9] + rows[..., 9:12]  # 16 levels of 255 at most
        flat = small.transpose(0, 3, 1, 2).reshape(len(some), 3, -1).astype(np.float32)
        flat = (flat - flat.mean(2, keepdims=True)).reshape(len(some), -1)
        found[start : start + BLOCK] = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)

    with ThreadPoolExecutor(CORES) as pool:
        list(pool.map(fill, range(0, len(signatures), BLOCK)))
    return found


def coarser_thumbnails(fine: NDArray[np.float32]) -> NDArray[np.float32]:
    """[n, 192] unit rows: `centred_thumbnails` [n, 768] averaged to 8 x 8. A copy moved by 2 of 64 pixels stays near.

    At 16 x 16 such a copy may correlate with its original by .6 only, and an unrelated picture of many by more.
    """
    rows = fine.reshape(len(fine), 3, 8, 2, 8, 2).sum((3, 5)).reshape(len(fine), -1)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


def nearest_by_likeness(
    signatures: NDArray[np.uint8],
    others: NDArray[np.uint8] | None = None,
    groups: NDArray | None = None,
    order: NDArray | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """For each picture the largest likeness to one of `others` and its index; 0 and -1 where there are none.

    Without `others`: to the pictures before it in the same array (so the first of a pair stays unmarked), those of
    its own group (attempts at one slot) aside; `order` says which come before, and results and groups are in that
    order (a copy of the array would be a second gigabyte of a hundred thousand).

    Thumbnails of 16 x 16 pixels propose the most alike picture and up to MAX_PROPOSED more that correlate by PROPOSED,
    thumbnails of 8 x 8 the most alike and up to COARSE - 1 that come CLOSE to it; likeness decides among them. n x n
    never stands in memory.
    """
    pool = signatures if others is None else others
    best, index = np.zeros(len(signatures), np.float32), np.full(len(signatures), -1)
    if not len(signatures) or not len(pool):
        return best, index
    queries = centred_thumbnails(signatures, order)
    keys = queries if others is None else centred_thumbnails(pool)
    coarse_queries = coarser_thumbnails(queries)
    coarse_keys = coarse_queries if others is None else coarser_thumbnails(keys)
    places = np.arange(len(signatures)) if order is None else order
    those = places if others is None else np.arange(len(pool))

    def compare(pairs: NDArray[np.int64]) -> NDArray[np.float64]:
        return pair_likeness(
            prepare_signatures(signatures[places[pairs[:, 0]]]), prepare_signatures(pool[those[pairs[:, 1]]])
        )

    proposed, compared = [], []
    with ThreadPoolExecutor(CORES) as workers:
        for start in range(0, len(queries), BLOCK):
            rows = slice(start, min(start + BLOCK, len(queries)))
            stop = len(keys) if others is not None else rows.stop
            products = queries[rows] @ keys[:stop].T
            if others is None:
                products[:, rows][~np.tri(rows.stop - start, k=-1, dtype=bool)] = ASIDE
            if others is None and groups is not None:
                products[groups[rows, None] == groups[None, :stop]] = ASIDE
            pairs = candidate_pairs(products, coarse_queries[rows] @ coarse_keys[:stop].T)
            pairs[:, 0] += start
            proposed.append(pairs)
            compared += [workers.submit(compare, some) for some in np.array_split(pairs, len(pairs) // TOGETHER + 1)]
        values = np.concatenate([each.result() for each in compared])
    pairs = np.concatenate(proposed)
    ranked = np.lexsort((pairs[:, 1], -values, pairs[:, 0]))
    winners = ranked[np.unique(pairs[ranked, 0], return_index=True)[1]]
    best[pairs[winners, 0]], index[pairs[winners, 0]] = values[winners], pairs[winners, 1]
    return best, index


def largest_likeness_to_others(signatures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[n] the largest likeness of each of the signatures [n, 64, 64, 3] to another one; 0 where there is none.

    Thumbnails propose pairs as in `nearest_by_likeness`. A pair that both of its signatures propose is compared once.
    """
    if len(signatures) < 2:
        return np.zeros(len(signatures), np.float32)
    best = np.full(len(signatures), -np.inf, np.float32)
    fine = centred_thumbnails(signatures)
    coarse = coarser_thumbnails(fine)
    proposed = [np.empty((0, 2), np.int64)]
    for start in range(0, len(signatures), BLOCK):
        rows = slice(start, min(start + BLOCK, len(signatures)))
        products = fine[rows] @ fine.T
        products[np.arange(len(products)), np.arange(rows.start, rows.stop)] = ASIDE
        pairs = candidate_pairs(products, coarse[rows] @ coarse.T)
        pairs[:, 0] += start
        proposed.append(pairs)
    proposals = np.concatenate(proposed)
    pairs, places = np.unique(np.sort(proposals, axis=1), axis=0, return_inverse=True)
    parts = np.array_split(pairs, len(pairs) // (8 * TOGETHER) + 1)
    with ThreadPoolExecutor(CORES) as workers:
        values = np.concatenate(list(workers.map(lambda part: likeness_of_pairs(signatures, part), parts)))
    np.maximum.at(best, proposals[:, 0], values[places.ravel()])
    return np.where(np.isinf(best), 0, best).astype(np.float32)


def likeness_of_pairs(signatures: NDArray[np.uint8], pairs: NDArray[np.int64]) -> NDArray[np.float32]:
    """[k] the likeness of each of the pairs [k, 2] of signatures; a signature of several pairs is prepared once."""
    used, places = np.unique(pairs, return_inverse=True)
    prepared, places = prepare_signatures(signatures[used]), places.reshape(pairs.shape)
    found = [np.empty(0, np.float32)]
    for start in range(0, len(pairs), TOGETHER):
        some = places[start : start + TOGETHER]
        left, right = (
            PreparedSignatures(prepared.values[some[:, side]], prepared.energies[some[:, side]]) for side in (0, 1)
        )
        found.append(pair_likeness(left, right).astype(np.float32))
    return np.concatenate(found)


def near_duplicate_groups(signatures: NDArray[np.uint8]) -> NDArray[np.int64]:
    """[n] for each of the signatures [n, 64, 64, 3] its group: whatever is joined by pairs of likeness NEAR or more.

    Thumbnails propose pairs, also moved by half of their pixels: a copy that is moved by two pixels of the signature
    has a product from .34 with the thumbnail itself, and from .83 with one of those (docs/log.md, "Near-duplicates").
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    moves = [(down, right) for down in (-MAX_SHIFT, 0, MAX_SHIFT) for right in (-MAX_SHIFT, 0, MAX_SHIFT)]
    small, moved = (
        centred_thumbnails(signatures),
        [centred_thumbnails(np.roll(signatures, move, (1, 2))) for move in moves],
    )
    flat = np.flatnonzero((signatures == signatures[:, :1, :1]).all((1, 2, 3)))  # pictures of one colour are all alike
    pairs = [np.stack([flat[:-1], flat[1:]], 1)]
    for start in range(0, len(small), BLOCK):
        block = small[start : start + BLOCK]
        rows, columns = np.nonzero(np.any([block @ other.T >= PROPOSED for other in moved], axis=0))
        later = columns > rows + start
        pairs.append(np.stack([rows[later] + start, columns[later]], 1))
    proposed = np.concatenate(pairs)

    def near(part: NDArray[np.int64]) -> NDArray[np.bool_]:
        return (
            pair_likeness(prepare_signatures(signatures[part[:, 0]]), prepare_signatures(signatures[part[:, 1]]))
            >= NEAR
        )

    parts = np.array_split(proposed, len(proposed) // TOGETHER + 1)
    with ThreadPoolExecutor(CORES) as workers:
        kept = proposed[np.concatenate(list(workers.map(near, parts)))]
    graph = coo_array((np.ones(len(kept), bool), (kept[:, 0], kept[:, 1])), shape=(len(small), len(small)))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def candidate_pairs(products: NDArray[np.float32], coarse: NDArray[np.float32]) -> NDArray[np.int64]:
    """[k, 2] pairs (row, column) that are alike enough by thumbnails for `likeness` to be computed.

    `products` and `coarse` [n, m] are correlations of thumbnails and of coarser ones; `coarse` is overwritten. Pairs
    whose product is ASIDE are left out.
    """
    every = np.arange(len(products))
    rows, columns = np.nonzero(products >= PROPOSED)
    order = np.lexsort((-products[rows, columns], rows))
    rows, columns = rows[order], columns[order]
    starts = np.searchsorted(rows, rows)  # where each row's candidates begin
    few = np.arange(len(rows)) - starts <= MAX_PROPOSED
    found = [(rows[few], columns[few]), (every, products.argmax(1))]
    coarse[products <= ASIDE] = ASIDE
    close = coarse.max(1) - CLOSE
    for _ in range(COARSE):
        columns = coarse.argmax(1)
        likely = np.flatnonzero(coarse[every, columns] >= close)
        found.append((likely, columns[likely]))
        coarse[every, columns] = ASIDE
    pairs = np.concatenate([np.stack(pair, 1) for pair in found])
    return np.unique(pairs[products[pairs[:, 0], pairs[:, 1]] > ASIDE], axis=0)


# Sheets for people.

INK, PAPER, FAINT = "#1c1b1a", "#faf9f7", "#8a8680"


@lru_cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, `size` pixels high."""
    return ImageFont.load_default(size)


def contact_sheet(rows: Sequence[tuple[str, Sequence[Image.Image]]], columns: int, cell: int = 96) -> Image.Image:
    """Draw a contact sheet: for each entry of `rows` its heading, then its pictures in lines of `columns`.

    Cells are squares of `cell` pixels a side.
    """
    gap, head = 6, 26
    heights = [head + math.ceil(len(images) / columns) * (cell + gap) + gap for _, images in rows]
    page = Image.new("RGB", (columns * (cell + gap) + gap, sum(heights) + gap), PAPER)
    draw, top = ImageDraw.Draw(page), 0
    for (title, images), height in zip(rows, heights, strict=True):
        draw.text((gap, top + 6), title, fill=INK, font=font(14))
        for i, image in enumerate(images):
            x, y = gap + (i % columns) * (cell + gap), top + head + (i // columns) * (cell + gap)
            page.paste(fit_into_cell(image, cell), (x, y))
        top += height
    return page


def picture_table(
    columns: Sequence[str], rows: Sequence[tuple[str, Sequence[Image.Image]]], cell: int = 128
) -> Image.Image:
    """Draw a grid with headings over the columns and a caption under each row of pictures."""
    gap, head, foot = 6, 26, 22
    width = len(columns) * (cell + gap) + gap
    page = Image.new("RGB", (width, head + len(rows) * (cell + foot + gap)), PAPER)
    draw = ImageDraw.Draw(page)
    for i, title in enumerate(columns):
        draw.text((gap + i * (cell + gap), 6), title, fill=INK, font=font(14))
    for r, (caption, images) in enumerate(rows):
        y = head + r * (cell + foot + gap)
        for i, image in enumerate(images):
            page.paste(fit_into_cell(image, cell), (gap + i * (cell + gap), y))
        draw.text((gap, y + cell + 3), truncate_to_pixels(caption, width - 2 * gap), fill=FAINT, font=font(12))
    return page


def truncate_to_pixels(text: str, width: int) -> str:
    """Cut a caption until it is at most `width` pixels wide; what was cut ends in …"""
    while text and font(12).getlength(text) > width:
        text = text[:-2].rstrip(" …") + "…"
    return text


def fit_into_cell(image: Image.Image, cell: int) -> Image.Image:
    """Fit a picture into a square of `cell` pixels; small ones grow by whole factors and are not smoothed."""
    whole = cell // max(image.size)
    if whole >= 1:
        image = image.resize((image.width * whole, image.height * whole), Image.Resampling.NEAREST)
    return ImageOps.pad(image, (cell, cell), Image.Resampling.LANCZOS, color=PAPER)
