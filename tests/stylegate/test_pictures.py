"""Decoding to upright sRGB."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from stylegate import pictures
from stylegate.pictures import PictureError, decode_picture, png_bytes


def encoded(image: Image.Image, form: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def gradient(side: int = 32) -> Image.Image:
    across = np.tile(np.linspace(0, 255, side).astype(np.uint8), (side, 1))
    return Image.fromarray(np.stack([across, across.T, np.full_like(across, 90)], -1))


def test_plain_rgb_is_untouched() -> None:
    picture = decode_picture(png_bytes(gradient()))
    assert picture.notes == () and np.array_equal(np.asarray(picture.image), np.asarray(gradient()))


def test_exif_orientation_turns() -> None:
    wide = gradient().crop((0, 0, 32, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = decode_picture(encoded(wide, "JPEG", exif=exif, quality=95))
    assert picture.image.size == (20, 32) and "rotated as EXIF says" in picture.notes


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_one_rule_of_orientation_for_every_use(form: str) -> None:
    wide = gradient().crop((0, 0, 32, 20))
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        content = encoded(wide, form, exif=exif)
        upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")  # the oracle
        picture = decode_picture(content)
        assert np.array_equal(np.asarray(picture.image), np.asarray(upright))
        assert pictures.upright_size_of(content) == picture.image.size == upright.size


@pytest.mark.parametrize("entry", [(2, 2, b"6\0\0\0"), (3, 1, b"\x99\0\0\0"), (4, 1, bytes(4)), (12, 1, bytes(4))])
def test_an_orientation_that_is_no_number_from_1_to_8_is_none(entry: tuple[int, int, bytes]) -> None:
    kind, count, value = entry
    exif = b"Exif\0\0II*\0" + struct.pack("<IHHHI", 8, 1, 274, kind, count) + value + bytes(4)
    content = encoded(gradient().crop((0, 0, 32, 20)), "JPEG", exif=exif)
    assert decode_picture(content).image.size == pictures.upright_size_of(content) == (32, 20)


def test_the_first_picture_of_a_jpeg_with_a_gain_map() -> None:
    image = gradient()
    content = encoded(image, "MPO", save_all=True, append_images=[image.resize((16, 16))], quality=95)
    assert Image.open(io.BytesIO(content)).format == "MPO"
    assert np.array_equal(np.asarray(decode_picture(content).image), np.asarray(Image.open(io.BytesIO(content))))


def with_chunk(kind: bytes, data: bytes) -> bytes:
    """A PNG with one more chunk after its header."""
    plain, body = png_bytes(gradient()), kind + data
    return plain[:33] + struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body)) + plain[33:]


@pytest.mark.parametrize(
    "content",
    [
        with_chunk(b"cICP", bytes([1, 13, 0, 1])),
        with_chunk(b"gAMA", (45_455).to_bytes(4)),
        with_chunk(b"cHRM", struct.pack(">8I", *pictures.SRGB_CHRM)),
        encoded(gradient(), "ICO", sizes=[(32, 32)]),
    ],
)
def test_colours_of_srgb_and_a_single_icon_are_read(content: bytes) -> None:
    assert np.array_equal(np.asarray(decode_picture(content).image), np.asarray(gradient()))


def test_text_in_a_png_is_not_read() -> None:
    """Pillow refuses the whole picture for one compressed text of more than a megabyte."""
    content = with_chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b"x" * 2_000_000))
    assert np.array_equal(np.asarray(decode_picture(content).image), np.asarray(gradient()))
    assert pictures.upright_size_of(content) == (32, 32) and pictures.suffix_by_content(content) == ".png"


def test_floats_are_read_from_0_to_1_and_else_refused() -> None:
    values = np.tile(np.linspace(0.1, 0.9, 32).astype(np.float32), (32, 1))
    picture = decode_picture(encoded(Image.fromarray(values), "TIFF"))
    assert picture.notes == ("floats",)
    assert np.array_equal(np.asarray(picture.image)[0, :, 0], np.round(values[0].astype(float) * 255).astype(np.uint8))
    for bad in (values * 255, values - 0.5, values * np.float32("nan")):
        with pytest.raises(PictureError, match="floats from"):
            decode_picture(encoded(Image.fromarray(bad), "TIFF"))
    with pytest.raises(PictureError, match="32-bit integers"):
        decode_picture(encoded(Image.fromarray((values * 1000).astype(np.int32)), "TIFF"))
    with pytest.raises(PictureError, match="2 pages"):
        decode_picture(encoded(gradient(), "TIFF", save_all=True, append_images=[gradient()]))


def gray_profile(gamma: float) -> bytes:
    """The smallest ICC profile of a gray display."""
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 5) + b"gray\0" + bytes(78),
        b"wtpt": b"XYZ " + bytes(4) + struct.pack(">iii", 63190, 65536, 54061),
        b"kTRC": b"curv" + bytes(4) + struct.pack(">IH", 1, int(gamma * 256)) + bytes(2),
    }
    table, body = struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    head = struct.pack(">I", 128 + len(table) + len(body)) + b"lcms" + struct.pack(">I", 0x02400000) + b"mntrGRAYXYZ "
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">iii", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + table + body


def test_a_gray_profile_holds_for_every_mode() -> None:
    gray = gradient().convert("L")
    found = {
        mode: decode_picture(encoded(gray.convert(mode), icc_profile=gray_profile(1.0)))
        for mode in ("L", "LA", "P", "RGB")
    }
    for mode, picture in found.items():
        assert "colour profile to sRGB" in picture.notes, mode
        assert np.array_equal(np.asarray(picture.image), np.asarray(found["L"].image)), mode
    assert np.asarray(found["L"].image).mean() > np.asarray(gray).mean() + 20  # linear light is brighter in sRGB
    assert "colour profile unusable" in decode_picture(encoded(gradient(), icc_profile=gray_profile(1.0))).notes
    colour = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert "colour profile unusable" not in decode_picture(encoded(gray, icc_profile=colour)).notes


def test_one_value_of_16_bit_gray_may_be_transparent() -> None:
    values = np.tile(np.linspace(0, 65535, 32).astype(np.uint16), (32, 1))
    picture = decode_picture(encoded(Image.fromarray(values), transparency=0), "#ff0000")
    assert picture.notes == ("16-bit", "alpha") and picture.image.getpixel((0, 0)) == (255, 0, 0)
    assert picture.image.getpixel((31, 0)) == (255, 255, 255)


def test_alpha_lies_on_the_background() -> None:
    image = gradient().convert("RGBA")
    image.putalpha(Image.new("L", image.size, 0))
    picture = decode_picture(png_bytes(image), "#102030")
    assert picture.image.getpixel((3, 3)) == (16, 32, 48) and "alpha" in picture.notes


def test_palette_with_transparency() -> None:
    image = gradient().quantize(8)
    picture = decode_picture(encoded(image, transparency=image.getpixel((0, 0))), "#ff0000")
    assert {"palette", "alpha"} <= set(picture.notes) and picture.image.getpixel((0, 0)) == (255, 0, 0)


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    values = np.tile(np.linspace(0, 65535, 32).astype(np.uint16), (32, 1))
    picture = decode_picture(encoded(Image.fromarray(values)))
    assert "16-bit" in picture.notes
    assert np.array_equal(np.asarray(picture.image)[0, :, 0], np.round(values[0] / 257).astype(np.uint8))


def test_sixteen_bit_colour_is_said() -> None:
    """A 16-bit RGB PNG, written by hand: Pillow cannot write one."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + struct.pack(">48H", *[65535, 0, 32768] * 16) for _ in range(16))
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, 16, 2, 0, 0, 0))
    picture = decode_picture(content + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    assert "16-bit" in picture.notes and picture.image.getpixel((0, 0)) == (255, 0, 128)


def test_cmyk_becomes_srgb() -> None:
    picture = decode_picture(encoded(Image.new("CMYK", (20, 20), (0, 255, 255, 0)), "JPEG", quality=95))
    red, green, blue = picture.image.getpixel((5, 5))  # type: ignore[misc]
    assert "CMYK" in picture.notes and red > 200 and green < 60 and blue < 60


def test_colour_profile_is_applied() -> None:
    """A profile of another space moves the numbers; sRGB's own does not."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert decode_picture(encoded(gradient(), icc_profile=srgb)).notes == ()
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert "colour profile unusable" in decode_picture(encoded(gradient(), icc_profile=lab)).notes
    assert "colour profile unusable" in decode_picture(encoded(gradient(), icc_profile=b"nonsense")).notes


DISPLAY_P3 = (31_270, 32_900, 68_000, 32_000, 26_500, 69_000, 15_000, 6_000)  # white, red, green, blue, as in cHRM


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "cannot be decoded"),
        (b"not a picture at all", "cannot be decoded"),
        (png_bytes(gradient())[:90], "cannot be decoded"),
        (png_bytes(gradient(64))[:-20], "cannot be decoded"),
        (encoded(gradient(64), "JPEG")[:-300], "cannot be decoded"),
        (png_bytes(gradient()).replace(b"IDAT", b"IDAX"), "cannot be decoded"),
        (png_bytes(Image.new("RGB", (1, 1))), "1 x 1 pixels"),
        (with_chunk(b"cICP", bytes([9, 16, 0, 1])), "another space than sRGB (cICP)"),
        (with_chunk(b"gAMA", (100_000).to_bytes(4)), "brightness by gAMA 1"),
        (with_chunk(b"cHRM", struct.pack(">8I", *DISPLAY_P3)), "another space than sRGB (cHRM)"),
        (encoded(gradient(64), "ICO", sizes=[(64, 64), (32, 32)]), "2 pictures in one file"),
        (encoded(gradient(), "GIF", save_all=True, append_images=[Image.new("RGB", (32, 32))]), "animated (2 frames)"),
    ],
)
def test_what_is_no_whole_still_picture_is_refused(content: bytes, says: str) -> None:
    with pytest.raises(PictureError) as error:
        decode_picture(content)
    assert says in str(error.value)


def test_decompression_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_PIXELS", 1000)
    with pytest.raises(PictureError, match="32 x 32"):
        decode_picture(png_bytes(gradient()))
