"""What `brand` and `check` say of pictures and captions that train badly, and what they cut off or leave out."""

import io
import json
import re
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont, ImageOps

from stylegate import brandcheck, brandset, files, pictures, textmarks
from stylegate.brand import names_of_most_varied_pictures
from stylegate.captionfaults import problems_of_captions, words_in_most_captions
from stylegate.picturefaults import find_box_inside_frame, is_blurred_or_smoothly_enlarged, whole_block_side
from stylegate.similarity import most_varied_indices, signature_of_picture
from stylegate.textmarks import has_text_near_edge, is_next_letter


def drawn(side: int, seed: int) -> Image.Image:
    """Shapes with smooth edges, as a vector picture of this size."""
    draw_from, large = np.random.default_rng(seed), 4 * side
    image = Image.new("RGB", (large, large), tuple(draw_from.integers(0, 256, 3).tolist()))
    draw = ImageDraw.Draw(image)
    for kind in range(12):
        (x, xx), (y, yy) = np.sort(draw_from.integers(0, large, (2, 2))).tolist()
        shape = (draw.ellipse, draw.rectangle)[kind % 2]
        shape((x, y, xx + 8, yy + 8), fill=tuple(draw_from.integers(0, 256, 3).tolist()))
    return image.resize((side, side), Image.Resampling.BOX)


def test_frames_and_bars_are_found_and_grounds_are_not() -> None:
    for seed in range(8):
        image = drawn(96, seed)
        ground = image.getpixel((0, 0))
        assert isinstance(ground, tuple)
        other = tuple((level + 128) % 256 for level in ground)
        ringed, barred = ImageOps.expand(image, border=6, fill=other), Image.new("RGB", (96, 120), other)
        barred.paste(image, (0, 12))
        assert find_box_inside_frame(ringed) == (6, 6, 102, 102) and find_box_inside_frame(image) is None
        assert find_box_inside_frame(barred) == (0, 12, 96, 108)
        on_a_ground = Image.new("RGB", (96, 96), (240, 240, 240))
        ImageDraw.Draw(on_a_ground).ellipse((16, 16, 80, 80), fill=(20, 90, 200))
        assert find_box_inside_frame(on_a_ground) is None and find_box_inside_frame(Image.new("RGB", (96, 96))) is None


@pytest.mark.parametrize("quality", [85, 88, 92])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_letterboxes_of_jpeg_files_are_found_and_slopes_are_not(quality: int, subsampling: str) -> None:
    """Bars end inside a block of JPEG, which then rings, and lends them the picture's colours."""

    def as_jpeg(image: Image.Image) -> Image.Image:
        image.save(held := io.BytesIO(), "JPEG", quality=quality, subsampling=subsampling)
        return Image.open(held)

    for seed in range(8):
        noise = np.random.default_rng(seed).normal(0, 10, (96, 128, 3))
        ground = np.asarray(drawn(128, seed))[:96].clip(60, 245)
        image = Image.fromarray((ground + noise).clip(50, 255).astype(np.uint8))
        barred = as_jpeg(ImageOps.expand(image, border=(0, 19), fill="black"))
        box = find_box_inside_frame(barred)
        assert box and box[0] == 0 and box[2] == 128 and abs(box[1] - 19) <= 1 and abs(box[3] - 115) <= 1, box
        assert find_box_inside_frame(as_jpeg(image)) is None
    for step in (0.5, 1, 2, 4, 6):
        slope = (step * np.minimum(np.arange(128), np.arange(128)[::-1])).clip(0, 255).astype(np.uint8)
        grey = Image.fromarray(np.repeat(slope[:, None], 128, 1)).convert("RGB")
        assert find_box_inside_frame(as_jpeg(grey)) is None


@pytest.mark.parametrize("times", [2, 3, 4])
def test_enlarged_pictures_are_told_from_drawn_ones_and_from_pixel_art(times: int) -> None:
    for seed in range(8):
        small, size = drawn(256 // times, seed), (256, 256)
        assert is_blurred_or_smoothly_enlarged(small.resize(size, Image.Resampling.BICUBIC))
        assert is_blurred_or_smoothly_enlarged(small.resize(size, Image.Resampling.LANCZOS))
        assert not is_blurred_or_smoothly_enlarged(drawn(256, seed))
        assert not is_blurred_or_smoothly_enlarged(drawn(64, seed).resize(size, Image.Resampling.NEAREST))


@pytest.mark.parametrize("words", ["Anna Meyer 2024", "www.artshop.com", "@pixelfox_art"])
def test_text_near_an_edge_is_found_and_dots_and_drawings_are_not(words: str) -> None:
    font = ImageFont.load_default(14)
    for seed in range(8):
        image = drawn(256, seed)
        assert not has_text_near_edge(image)
        for height in (3, 238):
            signed = image.copy()
            ImageDraw.Draw(signed).rectangle((0, height - 2, 256, height + 18), fill="white")
            assert not has_text_near_edge(signed)
            ImageDraw.Draw(signed).text((100, height), words, font=font, fill="black")
            assert has_text_near_edge(signed)
        within = image.copy()
        ImageDraw.Draw(within).text((80, 120), words, font=font, fill="white", stroke_width=1, stroke_fill="black")
        assert not has_text_near_edge(within), "in the middle it may be what the picture shows"
    dotted = Image.new("RGB", (256, 256), "white")
    for x in range(4, 250, 12):
        for y in range(4, 250, 12):
            ImageDraw.Draw(dotted).ellipse((x, y, x + 7, y + 7), fill="navy")
    assert not has_text_near_edge(dotted)


def test_only_marks_near_the_end_of_a_line_are_looked_at_and_no_letter_is_lost() -> None:
    draw_from, found = np.random.default_rng(0), 0
    for _ in range(30):
        boxes = draw_from.integers((0, 0, 3, 6), (300, 4, 9, 9), (int(draw_from.integers(40, 120)), 4))
        boxes = sorted((boxes * (1, 12, 1, 1)).tolist())  # on four lines
        marks = [textmarks.LetterCandidate(x, y, w, h, np.ones((1, 1), bool)) for x, y, w, h in boxes]
        free, lines = list(range(len(marks))), []
        for first in range(len(marks)):
            line, tallest = [first], marks[first].height
            while first in free:
                following = [n for n in free if n not in line and is_next_letter(marks[n], marks[line[-1]], tallest)]
                if not following:
                    break
                line.append(following[0])
                tallest = max(tallest, marks[following[0]].height)
            if len(line) >= textmarks.FEWEST:
                free = [number for number in free if number not in line]
                lines.append([marks[number] for number in line])
        assert textmarks.lines_of_marks(marks) == lines
        found += len(lines)
    assert found > 50


def test_the_most_varied_pictures_leave_near_duplicates_out() -> None:
    every = [drawn(64, seed) for seed in range(6)] + [ImageOps.autocontrast(drawn(64, seed), 1) for seed in range(6)]
    kept = most_varied_indices(np.stack([signature_of_picture(image) for image in every]), 6)
    assert len(kept) == 6 and {index % 6 for index in kept} == set(range(6))


def test_what_captions_do_wrong_is_said_with_files() -> None:
    animals = ["cat", "dog", "owl", "fox", "bee", "cow", "pig", "hen", "ant", "bat", "elk", "emu"]
    captions = {f"{n}.png": (f"acme style, a cute {n} on a red background",) for n in animals}
    assert [line.split('"')[1] for line in problems_of_captions(captions, "acme style")] == ["cute", "red"]
    captions["cat.png"] = ("amce style, a cat",)
    captions["dog.png"] = ("acme style, a watercolor dog",)
    captions["cow.png"] = ("acme style, a {red|blue} cow",)
    captions |= {f"{n}.png": ("acme style, a bird",) for n in ("hen", "owl", "emu", "jay")}
    said = problems_of_captions(captions, "acme style", "soft lines")
    assert len(said) == 4 and '"amce style" looks like the trigger phrase' in said[0] and "cat.png" in said[0]
    assert '"watercolor" names the style: 1 picture (dog.png)' in said[1] and "4 pictures" in said[3]
    assert "as in {red|blue}, are learned as they stand: 1 picture (cow.png)" in said[2]
    assert not problems_of_captions({n: (f"other style, {n}",) for n in animals}, "acme style")[1:], (
        "another style's words"
    )


def test_a_picture_of_several_captions_counts_once() -> None:
    """In training too: each step draws one of them."""
    captions: dict[str, tuple[str, ...]] = {f"{n}.png": (f"a {n * 'x'}yz",) for n in range(12)}
    captions["0.png"] = tuple(f"amce style, watercolor {{red|blue}} hat, {n * 'v'}w" for n in range(200))
    said = problems_of_captions(captions, "acme style")
    assert len(said) == 3 and all("1 picture (0.png)" in line for line in said), said
    half = {f"{n}.png": ("a hat", "a cap") for n in range(12)}
    assert words_in_most_captions([*half.values()], "", 0.4) == {"cap": 0.5, "hat": 0.5}
    assert not words_in_most_captions([*half.values()][:11], "", 0.4), "22 captions, but 11 pictures"


def test_pictures_are_checked_on_every_core_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = {f"{i}.png": tmp_path / f"{i}.png" for i in (3, 1, 2, 0)}
    for i, path in enumerate(named.values()):
        path.write_bytes(b"no picture") if i % 2 else drawn(64, i).save(path)
    decode, together = pictures.decode_picture, threading.Barrier(2, timeout=20)
    monkeypatch.setattr(pictures, "CORES", 2)

    def decode_beside_another(*given: Any) -> pictures.DecodedPicture:
        together.wait()
        return decode(*given)

    monkeypatch.setattr(pictures, "decode_picture", decode_beside_another)
    found = brandcheck.check_picture_files_into_report(named, "#ffffff", findings := brandset.CheckReport())
    assert list(found) == ["3.png", "2.png"] and [line[:6] for line in findings.problems] == ["1.png:", "0.png:"]


def test_brand_keeps_the_most_varied_crops_frames_and_says_what_it_saw(run, folder: Path) -> None:
    names = sorted(path.name for path in folder.glob("*.png"))
    ImageOps.expand(Image.open(folder / names[0]).convert("RGB"), border=5, fill=(9, 9, 99)).save(folder / names[0])
    Image.open(folder / names[1]).resize((24, 24)).save(folder / names[1])
    code, text = run("brand", "name=prepared", f"images={folder}", "keep=12", "crop=true")
    place = files.BRANDS[0] / "prepared"
    rows = [row for part in brandset.SPLITS for row in files.read_jsonl(place / part / "metadata.jsonl")]
    assert code == 0 and len(rows) == 12 and text.count("not among the 12 most varied") == 1, text
    assert (
        f"a frame or bars, cut off: 1 picture ({names[0]}), saved anew as PNG" in text
        and f"as large as most others: 1 picture ({names[1]})" in text
    )
    left_out = text.split("not used: ")[1].splitlines()[0].split(", ")
    assert sorted([row["original"] for row in rows] + left_out) == names
    said = (place / "source-files.csv").read_text()
    assert ("a frame or bars, cut off" in said) == (names[0] not in left_out) and "or bars\n" not in said
    for part in brandset.SPLITS:
        for row in map(json.loads, (place / part / "metadata.jsonl").read_text().splitlines()):
            image = Image.open(place / part / row["file_name"])
            assert image.size == ((24, 24) if row["original"] == names[1] else (64, 64))


def test_pictures_are_compared_without_the_frames_that_are_cut_off(run, folder: Path) -> None:
    """Two pictures that are alike without their bars stay in one split, and no check of the set that is made fails."""
    names = sorted(path.name for path in folder.glob("*.png"))
    moved = np.roll(np.asarray(Image.open(folder / names[0]).convert("RGB")), 1, 0)
    ImageOps.expand(Image.fromarray(moved), border=(16, 0), fill=(0, 0, 0)).save(folder / "barred.png")
    (folder / "barred.txt").write_text("a creature between bars")
    code, text = run("brand", "name=barred", f"images={folder}", "crop=true")
    assert code == 0 and re.search(f"{names[0]} = barred.png|barred.png = {names[0]}", text), text
    assert run("check", "brand=barred")[0] == 0


def test_an_enlarged_picture_is_as_large_as_it_was(tmp_path: Path) -> None:
    """Squares of one colour, or soft edges: of near-duplicates the original is kept, also where its file is smaller."""
    small = drawn(64, 1)
    assert whole_block_side(small) == 1 and whole_block_side(Image.new("RGB", (64, 64), "red")) == 1
    assert whole_block_side(small.resize((192, 192), Image.Resampling.NEAREST)) == 3
    sides = {
        "original": drawn(128, 1),
        "blocks": small.resize((512, 512), Image.Resampling.NEAREST),
        "soft": drawn(128, 1).resize((250, 250), Image.Resampling.BICUBIC),
    }
    for name, image in sides.items():
        image.save(tmp_path / f"{name}.png")
    named = {path.stem: path for path in sorted(tmp_path.glob("*.png"))}
    digests = brandcheck.check_picture_files_into_report(named, "#ffffff", brandset.CheckReport())
    assert [(n, one.shorter_side_before_enlarging) for n, one in digests.items()] == [
        ("blocks", 64),
        ("original", 128),
        ("soft", 125),
    ]
    assert names_of_most_varied_pictures(digests, 1) == {"original"}


def test_of_near_duplicates_the_larger_one_is_kept() -> None:
    digests = {}
    for i in range(6):
        signature = signature_of_picture(drawn(64, i))
        for size in (64, 512):
            digests[f"{i}-{size}.png"] = brandcheck.PixelHashAndPictureSignature(f"{i}", signature, size, size)
    for count in range(1, 7):
        kept = names_of_most_varied_pictures(digests, count)
        assert len(kept) == count and all(name.endswith("-512.png") for name in kept)
    assert len(names_of_most_varied_pictures(digests, 9)) == 9


def test_check_says_in_which_shape_each_picture_is_trained(run, tmp_path: Path) -> None:
    neon = Path(shutil.copytree(files.ROOT / "data" / "brands" / "neon", tmp_path / "neon"))
    wide, small = (neon / "train" / row["file_name"] for row in files.read_jsonl(neon / "train" / "metadata.jsonl")[:2])
    Image.open(wide).resize((300, 64)).save(wide)
    Image.open(small).resize((32, 32)).save(small)
    code, text = run("check", f"brand={neon}", "show=true")
    assert code == 0 and "bucket 64 x 64: 31 pictures" in text and "bucket 80 x 48: 1 picture\n" in text, text
    assert f"  train/{wide.name}: 300 x 64 at 0.75 times its size in 80 x 48, 64% cut off" in text
    assert f"  train/{small.name}: 32 x 32 at 2.00 times its size in 64 x 64, 0% cut off" in text
    assert f"more than 15% is cut off for training: 1 picture (train/{wide.name})" in text
    assert f"enlarged more than 1.5 times for training: 1 picture (train/{small.name})" in text
    code, text = run("check", f"brand={neon}", "train.buckets=false")
    assert code == 0 and "bucket 64 x 64: 32 pictures" in text and "at 2.00 times" not in text


def test_small_pictures_are_those_of_the_whole_set(run, tmp_path: Path) -> None:
    """Where a whole split is small, none is smaller than the others of its split."""
    neon = Path(shutil.copytree(files.ROOT / "data" / "brands" / "neon", tmp_path / "neon"))
    small = [neon / "validation" / row["file_name"] for row in files.read_jsonl(neon / "validation" / "metadata.jsonl")]
    for path in small:
        Image.open(path).resize((24, 24)).save(path)
    said = brandcheck.check_brand_set_files(neon).noted[brandset.SMALL]
    assert said == [f"validation/{path.name}" for path in small] and len(small) > 1


def test_captions_of_other_pictures_are_named(run, tmp_path: Path) -> None:
    """Six captions change places; every one that is named was moved, and at most one is passed over."""
    neon = Path(shutil.copytree(files.ROOT / "data" / "brands" / "neon", tmp_path / "neon"))
    table = neon / "train" / "metadata.jsonl"
    rows = files.read_jsonl(table)
    moved = list(range(0, 24, 4))
    texts = [rows[i]["text"] for i in moved]
    for i, text in zip(moved, texts[1:] + texts[:1], strict=True):
        rows[i]["text"] = text
    files.write_jsonl(table, rows)
    code, text = run("check", f"brand={neon}")
    named = [line.split(": ")[1] for line in text.splitlines() if "may be the caption of another picture" in line]
    assert code == 0 and {*named} <= {f"train/{rows[i]['file_name']}" for i in moved} and len(named) >= 5, text
