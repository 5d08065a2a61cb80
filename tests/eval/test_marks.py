"""The marks of pictures that leave: read back by other programs, and no pixel moved."""

import io
import random
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from eval.marks import ATTACKS
from eval.package import xmp
from eval.package.marking import decodes_to_same_picture
from stylegate import files, pictures
from tests.eval.packages import names_in

AI_MADE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
BLOCKS = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 9, 3), np.uint8)).resize((72, 65), 0)
CLEAR = BLOCKS.convert("RGBA")
CLEAR.putalpha(100)
OTHER = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" dc:creator="Ada &amp; Bob"/>%s
</rdf:RDF></x:xmpmeta>"""


def saved(image: Image.Image, kind: str, **words: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **words)
    return buffer.getvalue()


def with_packet_by_pillow(packet: bytes) -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", packet.decode(), zip=True)
    return saved(BLOCKS, "PNG", pnginfo=info)


FILES = {
    "PNG": saved(BLOCKS, "PNG"),
    "PNG with alpha": saved(CLEAR, "PNG"),
    "PNG with a palette": saved(BLOCKS.quantize(64), "PNG"),
    "PNG with XMP": with_packet_by_pillow(OTHER % b""),
    "JPEG": saved(BLOCKS, "JPEG"),
    "JPEG with EXIF": saved(BLOCKS, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"),
    "JPEG with XMP": saved(BLOCKS, "JPEG", xmp=OTHER % b""),
    "CMYK": saved(BLOCKS.convert("CMYK"), "JPEG"),
    "WebP": saved(BLOCKS, "WEBP"),
    "lossless WebP with alpha": saved(CLEAR, "WEBP", lossless=True),
    "WebP with XMP": saved(BLOCKS, "WEBP", xmp=OTHER % b""),
}


def told_by_pillow(content: bytes) -> dict[str, str]:
    """What the XMP says, by name, as Pillow finds the packet and any reader of XML reads it."""
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        packet = image.info["xmp"]
    said = {}
    for element in ElementTree.fromstring(packet).iter():
        said |= {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
        said[element.tag.rpartition("}")[2]] = (element.text or "").strip()
    return said


@pytest.mark.parametrize("kind", FILES)
def test_the_source_type_is_read_by_another_program_and_no_pixel_moves(kind: str) -> None:
    marked = xmp.picture_file_with_source_type(FILES[kind], "trainedAlgorithmicMedia", drawn_here=True)
    said = told_by_pillow(marked)
    assert said["DigitalSourceType"] == AI_MADE and said["AISystemUsed"] == "stylegate"
    assert ("XMP" in kind) == (said.get("creator") == "Ada & Bob"), "what was there stays"
    assert xmp.source_types_in_file(marked) == {AI_MADE}
    with Image.open(io.BytesIO(FILES[kind])) as before, Image.open(io.BytesIO(marked)) as after:
        assert (before.mode, before.size, before.tobytes()) == (after.mode, after.size, after.tobytes())
    assert decodes_to_same_picture(FILES[kind], marked) and pictures.suffix_by_content(
        marked
    ) == pictures.suffix_by_content(FILES[kind])
    assert xmp.picture_file_with_source_type(marked, "trainedAlgorithmicMedia", drawn_here=True) == marked, (
        "never twice"
    )


def test_pictures_of_formats_that_nobody_writes_are_attacked_too() -> None:
    head = b"8BPS" + (1).to_bytes(2) + bytes(6) + (3).to_bytes(2) + (64).to_bytes(4) * 2 + (8).to_bytes(2) + b"\0\3"
    psd = head + bytes(3 * 4) + bytes(2) + bytes(64 * 64 * 3)
    for name, attack in ATTACKS.items():
        with Image.open(io.BytesIO(psd)) as opened:
            assert pictures.decode_picture(attack(opened)).image.width in (32, 52, 64), name


def test_other_pixels_are_seen() -> None:
    moved = CLEAR.copy()
    moved.putpixel((3, 3), (*moved.getpixel((3, 3))[:3], 101))  # type: ignore[index]
    assert decodes_to_same_picture(saved(CLEAR, "PNG"), saved(CLEAR, "WEBP", lossless=True, exact=True))
    assert not decodes_to_same_picture(saved(CLEAR, "PNG"), saved(moved, "PNG")), "alpha alone"
    assert not decodes_to_same_picture(FILES["PNG"], FILES["JPEG"])


def test_a_marked_png_is_compared_by_its_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them but the marks, byte for byte, which takes less than decoding it; else its pixels are compared."""
    before = FILES["PNG with a palette"]
    marked = xmp.picture_file_with_source_type(before, "digitalArt", drawn_here=False)
    damaged = marked.replace(b"digitalArt", b"digitalAxt")  # the checksum of the chunk does not fit any more
    other = before.replace(b"PLTE", b"pLTE")
    with monkeypatch.context() as patch:
        patch.setattr(pictures, "decode_picture", lambda *_: pytest.fail("decoded"))
        assert decodes_to_same_picture(before, marked)
        for content in (damaged, other):
            with pytest.raises(pytest.fail.Exception):
                decodes_to_same_picture(before, content)
    repainted = saved(BLOCKS.quantize(8), "PNG")
    assert not decodes_to_same_picture(
        before, xmp.picture_file_with_source_type(repainted, "digitalArt", drawn_here=False)
    )


ELEMENT = f'<rdf:Description xmlns:i="{xmp.IPTC}" rdf:about="">%s</rdf:Description>'


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (saved(BLOCKS, "BMP"), "no PNG, JPEG or WebP"),
        (with_packet_by_pillow(b"<x:xmpmeta"), "cannot be read"),
        (with_packet_by_pillow(b"<!DOCTYPE x [<!ENTITY a 'b'>]><x>&a;</x>"), "document type"),
        (with_packet_by_pillow(b"<x/>"), "no rdf:RDF"),
        (
            with_packet_by_pillow(OTHER % (ELEMENT % "<i:DigitalSourceType>x:photo</i:DigitalSourceType>").encode()),
            "its source type is x:photo",
        ),
        (
            with_packet_by_pillow(OTHER % (ELEMENT % '<i:DigitalSourceType rdf:resource="x:photo"/>').encode()),
            "its source type is x:photo",
        ),
    ],
)
def test_what_cannot_be_marked_says_why(content: bytes, why: str) -> None:
    with pytest.raises(xmp.UnmarkableError, match=why):
        xmp.picture_file_with_source_type(content, "trainedAlgorithmicMedia", drawn_here=False)


def test_broken_files_raise_nothing_else() -> None:
    draw = random.Random(0)
    for content in FILES.values():
        for size in range(16):
            assert xmp.source_types_in_file(content[:size]) == set()
        for _ in range(40):
            broken = bytearray(content)
            broken[draw.randrange(min(len(content), 300))] = draw.randrange(256)
            try:
                xmp.source_types_in_file(bytes(broken[: draw.randrange(len(content))]))
                xmp.source_types_in_file(bytes(broken))
            except xmp.UnmarkableError:
                pytest.fail("source_types_of answers")


@pytest.fixture
def lot(run, tmp_path: Path) -> tuple[str, ...]:
    """The words of a judged folder with a picture of each format."""
    source = sorted((files.ROOT / "data" / "brands" / "neon" / "validation").glob("*.png"))
    (tmp_path / "lot").mkdir()
    shutil.copy(source[0], tmp_path / "lot")
    for path, kind in zip(source[1:4], ("WEBP", "JPEG", "BMP"), strict=True):
        words = {"lossless": True} if kind == "WEBP" else {"quality": 98} if kind == "JPEG" else {}
        Image.open(path).convert("RGB").save(tmp_path / "lot" / f"{kind.lower()}.{kind.lower()}", kind, **words)
    (tmp_path / "policy.yaml").write_text("version: 1\nchecks: {contrast: {reject_below: 1}}\n")
    words = (f"images={tmp_path / 'lot'}", f"out={tmp_path / 'out'}", "name=marked")
    assert run("gate", *words, f"policy={tmp_path / 'policy.yaml'}")[0] == 0
    return words


def test_an_unmarked_picture_stops_the_export(run, run_exactly, lot: tuple[str, ...], tmp_path: Path) -> None:
    code, text = run_exactly("export", *lot)
    assert code == 2 and text.count("nobody said how it came to be") == 3 and "source_type=" in text
    assert "bmp.bmp: it is no PNG, JPEG or WebP" in text and not list(files.EXPORTS.glob("*"))
    code, text = run("export", *lot)
    assert code == 2 and text.count("\n  - ") == 1 and "bmp.bmp" in text
    assert run("export", *lot, "marks=none")[0] == 0
    assert (
        "none of 4 pictures names a source type or has content credentials"
        in run("verify", str(files.EXPORTS / "marked-v1"))[1]
    )
    report = files.read_json(files.EXPORTS / "marked-v1" / "proof" / "marks.json", "the report")
    assert (report["pictures"], report["unmarked"], report["with_source_type"]) == (4, 4, {})


def test_the_package_names_what_left_and_what_was_judged(run, lot: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "lot" / "bmp.bmp").unlink()
    assert run("gate", *lot, f"policy={tmp_path / 'policy.yaml'}")[0] == 0
    assert run("export", *lot)[0] == 0
    package = files.EXPORTS / "marked-v1"
    assert len(names_in(package)) == 3
    for path in (package / "data" / "records").iterdir():
        record = files.read_json(path, "the record")
        left, judged = package / "data" / record["file"], tmp_path / "lot" / Path(record["file"]).name
        assert record["sha256"] == files.sha256_of_file(left) != record["judged_sha256"] == files.sha256_of_file(judged)
        assert told_by_pillow(left.read_bytes())["DigitalSourceType"] == AI_MADE
        assert "AISystemUsed" not in told_by_pillow(left.read_bytes()), "nobody knows which system it was"
    assert "3 say that they are trainedAlgorithmicMedia" in run("verify", str(package))[1]
    # The lot and what left of it are the same pictures to a later gate, whichever of the two it is given.
    for images in (tmp_path / "lot", package / "data" / "images"):
        words = (f"images={images}", f"out={tmp_path / images.parent.name}", "policy=default", "references=neon")
        assert "distinct" not in run("gate", *words, "explain=false")[1], images
