"""Brand sets: made, split, checked; every problem named, all at once, nothing half-written."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from stylegate import brandcheck, brandset, files, pictures
from stylegate.brand import assign_splits
from stylegate.errors import DataError
from stylegate.splits import choose_held_out_pictures, remarks_on_splits, remarks_on_words_missing_in_training
from stylegate.tables import read_table
from tests.conftest import FAST


def made(run, folder: Path, name: str) -> tuple[int, str, Path]:
    code, text = run("brand", f"name={name}", f"images={folder}")
    return code, text, files.BRANDS[0] / name


def test_brand_from_kohya_captions(run, folder: Path) -> None:
    code, text, place = made(run, folder, "kohya")
    assert code == 0 and "look at" in text
    brand_set = brandset.read_brand_set(place)
    assert {p: len(s) for p, s in brand_set.splits.items()} == {"train": 8, "validation": 2, "test": 4}
    every = [item for split in brand_set.splits.values() for item in split]
    assert len({item.sha256 for item in every}) == 14 and all(item.text.startswith("a creature") for item in every)
    assert Image.open(place / "contact-sheet.png").width > 500
    assert (
        brand_set.brand.trigger == "kohya style"
        and brand_set.brand.prompt_with_trigger("a cat") == "kohya style, a cat"
    )
    assert brand_set.brand.prompt_with_trigger("A cat in Kohya Style") == "A cat in Kohya Style"
    assert run("check", "brand=kohya")[0] == 0


def test_several_captions_stay_with_the_set_and_other_sets_keep_their_digest(run, folder: Path) -> None:
    first = min(folder.glob("*.txt"))
    wanted = (first.read_text().strip(), "a (bright:1.2) creature")
    before = brandset.read_brand_set(made(run, folder, "single")[2]).sha256_of_training_content()
    first.write_text("\n".join(wanted))
    (folder / "owl.txt").write_text("an owl")
    code, text, place = made(run, folder, "several")
    every = [item for split in brandset.read_brand_set(place).splits.values() for item in split]
    assert code == 0 and "1 file not used, no picture has this name: owl.txt" in text
    assert [item.all_captions_of_picture() for item in every if item.more_captions] == [
        (wanted[0], "a bright creature")
    ]
    assert brandset.read_brand_set(place).sha256_of_training_content() != before
    first.write_text(wanted[0])
    first.with_suffix(".caption").write_text("another creature")
    code, text, _ = made(run, folder, "refused")
    assert code == 2 and f"{first.stem}.caption and {first.name} say different captions" in text


def test_brand_from_csv_and_jsonl(run, folder: Path, tmp_path: Path) -> None:
    rows = [(path.name, path.with_suffix(".txt").read_text()) for path in sorted(folder.glob("*.png"))]
    for path in folder.glob("*.txt"):
        path.unlink()
    (folder / "captions.csv").write_text("File_Name,Caption\n" + "".join(f'{n},"{t}, boxed"\n' for n, t in rows))
    assert made(run, folder, "from-csv")[0] == 0
    (folder / "captions.csv").unlink()
    lines = [json.dumps({"file_name": n, "text": t, "traits": {"species": "cat"}}) for n, t in rows]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    code, _, place = made(run, folder, "from-jsonl")
    assert code == 0 and brandset.read_brand_set(place).splits["train"][0].traits == {"species": "cat"}


def test_words_of_the_verb_go_into_brand_yaml_and_splits(run, folder: Path) -> None:
    words = [
        "trigger=boxed creatures",
        "licence=CC-BY-4.0",
        "background=#102030",
        "alpha=keep",
        "test=5",
        "validation=3",
    ]
    code, text = run("brand", "name=worded", f"images={folder}", *words)
    brand_set = brandset.read_brand_set(files.BRANDS[0] / "worded")
    assert code == 0 and {p: len(s) for p, s in brand_set.splits.items()} == {"train": 6, "validation": 3, "test": 5}
    brand = brand_set.brand
    assert (brand.trigger, brand.licence, brand.background) == ("boxed creatures", "CC-BY-4.0", "#102030")
    assert brand.alpha == "keep" and brandset.UNKNOWN_LICENCE not in text and "from 8 references up" in text


@pytest.mark.parametrize(
    ("total", "sizes"),
    [
        (3, (1, 1)),
        (14, (4, 2)),
        (24, (8, 4)),
        (36, (12, 6)),
        (48, (16, 8)),
        (60, (16, 8)),
        (80, (16, 8)),
        (200, (40, 20)),
    ],
)
def test_splits_follow_the_advice_of_the_gate(total: int, sizes: tuple[int, int]) -> None:
    """16 references draw a usable line and 8 pictures choose a checkpoint; both come before a large train/."""
    noise = np.random.default_rng(0).integers(0, 256, (total, 64, 64, 3), np.uint8)
    splits = assign_splits(
        {f"{i}.png": brandcheck.PixelHashAndPictureSignature(f"{i}", one, 64, 64) for i, one in enumerate(noise)}, {}
    )
    assert (len(splits["test"]), len(splits["validation"])) == sizes
    assert sum(map(len, splits.values())) == total == len({name for names in splits.values() for name in names})
    usable, chosen = sizes[0] >= 16, sizes[1] >= 8
    assert len(remarks_on_splits(sizes[1], sizes[0])) == (not usable) + (not chosen)


def test_words_of_several_captions_stay_in_train() -> None:
    """Of 8 subjects in 5 colours each stays in train/, where the order by content would hold out a whole subject."""
    things = ["house", "boat", "mushroom", "lamp", "cat", "tree", "car", "fish"]
    texts = {f"{t}-{c}": f"a {c} {t}, acme style" for t in things for c in ["blue", "red", "green", "white", "pink"]}
    names = list(texts)  # the houses come first
    held = choose_held_out_pictures(names, texts, 19)
    assert {sum(word in name for name in held) for word in things} == {2, 3}
    assert held == choose_held_out_pictures(names, texts, 19) and held[0] == names[0]
    learned = [texts[name] for name in names if name not in held]
    assert not remarks_on_words_missing_in_training(learned, [texts[name] for name in held])
    told = remarks_on_words_missing_in_training([t for t in texts.values() if "house" not in t], texts.values())
    assert len(told) == 1 and told[0].startswith("no caption of train/ has house: ")


def test_the_same_pictures_give_the_same_split(run, folder: Path) -> None:
    first, second = made(run, folder, "twice-a")[2], made(run, folder, "twice-b")[2]
    for part in brandset.SPLITS:
        assert (first / part / "metadata.jsonl").read_bytes() == (second / part / "metadata.jsonl").read_bytes()


def test_near_duplicates_stay_in_one_split(run, folder: Path) -> None:
    for i in range(3):
        image = Image.open(folder / f"{i:02d}.png")
        Image.fromarray(np.roll(np.asarray(image), 1, 0)).save(folder / f"near-{i}.jpg", quality=70)
        (folder / f"near-{i}.txt").write_text("a near one")
    code, text, place = made(run, folder, "near")
    assert code == 0 and "6 pictures are nearly the same as others. They go into train/" in text
    assert "in a small part: 00.png = near-0.jpg; 01.png = near-1.jpg; 02.png = near-2.jpg\n" in text, text
    assert run("check", "brand=near")[0] == 0
    rows = files.read_jsonl(place / "train" / "metadata.jsonl")
    moved = next(row for row in rows if row["original"] == "near-0.jpg")
    shutil.move(place / "train" / moved["file_name"], place / "test" / moved["file_name"])
    files.write_jsonl(place / "train" / "metadata.jsonl", [row for row in rows if row != moved])
    files.append_jsonl(place / "test" / "metadata.jsonl", moved)
    code, text = run("check", "brand=near")
    assert code == 2 and "near-duplicates across splits" in text and f"test/{moved['file_name']}" in text


def test_every_problem_of_a_folder_at_once(run, folder: Path) -> None:
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "torn.png").write_bytes((folder / "00.png").read_bytes()[:300])
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    frames = [Image.new("RGB", (20, 20), c) for c in ("red", "blue")]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    for name in ("broken", "torn", "dot", "moving"):
        (folder / f"{name}.txt").write_text("a caption")
    shutil.copy(folder / "01.png", folder / "copy.png")
    (folder / "copy.txt").write_text("the same again")
    (folder / "02.txt").write_text("  \n")
    (folder / "03.txt").unlink()
    (folder / "list.csv").write_text("file_name,text\n../../outside.png,x\nmissing.png,y\n")
    code, text, place = made(run, folder, "faulty")
    assert code == 2 and "Traceback" not in text and not place.exists()
    for part in (
        "broken.png: cannot be decoded",
        "torn.png: cannot be decoded",
        "dot.png: 1 x 1",
        "moving.gif: animated",
    ):
        assert part in text
    for part in ("01.png, copy.png: the same picture 2 times", "02.png: its caption is empty", "03.png: no caption"):
        assert part in text
    assert "outside.png lies outside" in text and "there is no file missing.png" in text
    assert not list(files.BRANDS[0].glob(".faulty*"))


def test_awkward_names_are_ordinary(run, folder: Path) -> None:
    """Names that a loader would read as splits, that collide when flattened, or that hold odd characters."""
    names = [
        "test_0.png",
        "dev.0.png",
        "eval 1.png",
        "train 1.png",
        "a/b.png",
        "a-b.png",
        "ü 'q' [x]=1,2.png",
        "n\nl.png",
    ]
    (folder / "a").mkdir()
    for i, name in enumerate(names):
        (folder / f"{i:02d}.png").rename(folder / name)
        (folder / f"{i:02d}.txt").rename((folder / name).with_suffix(".txt"))
    (folder / "08.txt").write_bytes("\ufeffa\u3000caption\u00a0of spaces".encode())
    code, text, place = made(run, folder, "awkward")
    assert code == 0, text
    brand_set = brandset.read_brand_set(place)
    every = [item for split in brand_set.splits.values() for item in split]
    assert len({item.sha256 for item in every}) == 14
    originals = {r["original"] for p in brandset.SPLITS for r in files.read_jsonl(place / p / "metadata.jsonl")}
    assert set(names) < originals and "`original` in metadata.jsonl names the source" in text
    assert run("check", "brand=awkward")[0] == 0
    import datasets

    for part in brandset.SPLITS:  # an imagefolder for everybody else too
        loaded = datasets.load_dataset("imagefolder", data_dir=str(place), split=part)
        assert [row["text"] for row in loaded] == [item.text for item in brand_set.splits[part]]  # type: ignore[index]


def test_bad_text_and_links_are_named(run, folder: Path, tmp_path: Path) -> None:
    (folder / "00.txt").write_bytes(b"\xff\xfe bad")
    (folder / "list.csv").write_bytes(b"file_name,text\n\xff.png,x\n")
    (folder / "nul.csv").write_text("file_name,text\n" + "n" * 300 + ".png,x\n")
    Image.new("RGB", (32, 32), "red").save(tmp_path / "outside.png")
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    (folder / "gone.png").symlink_to(tmp_path / "nothing.png")
    (folder / "folder.png").mkdir()
    (folder / os.fsdecode(b"raw\xff.png")).write_bytes((folder / "01.png").read_bytes())
    code, text, place = made(run, folder, "bad-text")
    assert "'raw\\udcff.png': a name that is not UTF-8" in text
    assert code == 2 and "Traceback" not in text and not place.exists()
    for part in ("00.txt: not UTF-8", "list.csv: not UTF-8", "link.png: a link that leads outside", "gone.png: a link"):
        assert part in text, part


@pytest.mark.parametrize(
    "row",
    [
        '{"file_name": "0000.png", "text": 5}',
        '{"file_name": "0000.png", "text": ["a"]}',
        '{"file_name": 3}',
        "[" * 9000,
    ],
)
def test_rows_of_another_form_are_named(run, neon: Path, row: str) -> None:
    with (neon / "train" / "metadata.jsonl").open("a") as file:
        file.write(row + "\n")
    code, text = run("check", f"brand={neon}")
    assert code == 2 and "Traceback" not in text and "train/" in text
    judged = run("gate", f"images={neon / 'test'}", f"brand={neon}")
    assert judged[0] == 2 and "Traceback" not in judged[1]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["name=x"], "needs a name and a folder"),
        (["name=x", "images=/does/not/exist"], "is not a folder"),
        (["name=../x", "images={folder}"], "name=../x"),
        (["name=neon", "images={folder}", "out={folder}"], "exists already"),
        (["name=x", "images={folder}", "background=nocolour"], "background: 'nocolour' is no colour"),
        (["name=x", "images={folder}", "trigger= "], "trigger: missing"),
        (["name=x", "images={folder}", "test=10", "validation=4"], "want 14 pictures; 13 of 14 can be held out"),
    ],
)
def test_brand_words(run, folder: Path, words: list[str], says: str) -> None:
    code, text = run("brand", *(word.format(folder=folder) for word in words))
    assert code == 2 and says in text


def test_empty_folder_and_folder_without_captions(run, tmp_path: Path, folder: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds no pictures" in run("brand", "name=e", f"images={tmp_path / 'empty'}")[1]
    for path in folder.glob("*.txt"):
        path.unlink()
    names = ", ".join(sorted(path.name for path in folder.iterdir() if path.suffix in (".png", ".jpg", ".webp")))
    (folder / "broken.jpg").write_bytes(b"<html>404</html>")
    code, text = run("brand", "name=e", f"images={folder}")
    assert code == 2 and "14 pictures have no caption" in text and f"): {names}\n" in text, text
    assert "broken.jpg: " in text and "stylegate caption" in text and "the columns file_name and text" in text
    copies = [folder / f"again-{n:02d}.png" for n in range(12)]
    for path in copies:
        shutil.copy(folder / "00.png", path)
    text = run("brand", "name=e", f"images={folder}")[1]
    assert "26 pictures have no caption" in text and "and 6 more\n" in text and "the same picture 13 times" in text, (
        text
    )


def test_conversions_are_said(run, folder: Path) -> None:
    Image.new("CMYK", (64, 64), (10, 200, 30, 0)).save(folder / "00.jpg")
    (folder / "00.png").unlink()
    Image.open(folder / "01.png").quantize(16).save(folder / "01.png")
    image = Image.open(folder / "02.png").convert("RGBA")
    image.putalpha(120)
    image.save(folder / "02.png")
    Image.fromarray(np.full((64, 64), 30000, np.uint16)).save(folder / "03.png")
    code, text, _ = made(run, folder, "kinds")
    assert code == 0
    for kind in ("CMYK: 1 picture (00.jpg), converted to sRGB", "palette: 1", "alpha: 1", "16-bit: 1"):
        assert kind in text


@pytest.fixture
def neon(tmp_path: Path) -> Path:
    target = tmp_path / "neon"
    shutil.copytree(files.ROOT / "data" / "brands" / "neon", target)
    for part in brandset.SPLITS:  # fewer pictures: the check compares them all
        rows = (target / part / "metadata.jsonl").read_text().splitlines()
        for row in rows[6:]:
            (target / part / json.loads(row)["file_name"]).unlink()
        (target / part / "metadata.jsonl").write_text("\n".join(rows[:6]) + "\n")
    return target


def test_check_reports_everything_and_train_refuses(run, neon: Path, tmp_path: Path) -> None:
    (neon / "train" / "0000.png").write_bytes(b"no picture")
    (neon / "train" / "0001.png").unlink()
    (neon / "train" / "stray.png").write_bytes((neon / "train" / "0002.png").read_bytes())
    shutil.copy(neon / "train" / "0003.png", neon / "test" / "0064.png")
    (tmp_path / "outside.png").write_bytes((neon / "train" / "0004.png").read_bytes())
    with (neon / "validation" / "metadata.jsonl").open("a") as file:
        file.write('{"file_name": "../../outside.png", "text": "x"}\n{"text": "no name"}\nnot json\n')
    (neon / "validation" / "link.png").symlink_to(tmp_path / "outside.png")
    with (neon / "validation" / "metadata.jsonl").open("a") as file:
        file.write('{"file_name": "link.png", "text": ""}\n')
    (neon / "brand.yaml").write_text("name: neon\ncolour: red\n")
    code, text = run("check", f"brand={neon}")
    assert code == 2 and "Traceback" not in text
    for part in (
        "train/0000.png: cannot be decoded",
        "train/0001.png: listed in metadata.jsonl, but there is no such file",
        "train/stray.png: no caption",
        "train/0003.png, test/0064.png: the same picture 2 times",
        "../../outside.png lies outside the brand set",
        "link.png lies outside the brand set",
        "validation/link.png: its caption is empty",
        "validation/metadata.jsonl, line 8: not a JSON object with file_name",
        "validation/metadata.jsonl, line 9: not a JSON object",
        "colour: unknown key",
        "trigger: missing",
    ):
        assert part in text, part
    assert run("train", f"brand={neon}", *FAST)[0] == 2
    assert not list(files.RUNS.glob("neon-*"))


def test_check_says_captions_that_would_be_cut(run, neon: Path) -> None:
    rows = [json.loads(line) for line in (neon / "train" / "metadata.jsonl").read_text().splitlines()]
    rows[0]["text"] = "neon style, " + "a very long caption " * 20
    (neon / "train" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    code, text = run("check", f"brand={neon}")
    assert code == 0 and "their end is cut: 1 picture (train/0000.png)" in text


def test_what_is_no_brand_set(run, tmp_path: Path) -> None:
    assert "brand.yaml is missing" in run("check", f"brand={tmp_path}")[1]
    assert "neither a name in" in run("check", "brand=unheard")[1]
    (tmp_path / "file").write_text("x")
    assert run("check", f"brand={tmp_path / 'file'}")[0] == 2


def brand_sets(run, folder: Path) -> Iterator[Path]:
    """Every shipped brand set, and one made of a folder with gaps in its traits, and several formats."""
    yield from sorted(path.parent for path in files.BRANDS[1].glob("*/brand.yaml"))
    rows = [
        {"file_name": f"{i:02d}.png", "text": "a, b", "traits": {"body" if i % 2 else "hat": "red"}} for i in range(14)
    ]
    for i, form in enumerate(("AVIF", "JPEG2000", "WEBP", "TIFF", "GIF", "BMP")):
        Image.open(folder / f"{i:02d}.png").save(folder / f"{i:02d}.{form.lower()}", form)
        (folder / f"{i:02d}.png").unlink()
        rows[i]["file_name"] = f"{i:02d}.{form.lower()}"
        rows[i]["more_captions"] = "\n".join([f"caption {i}", "a creature"][: i % 3])
    for path in folder.glob("*.txt"):
        path.unlink()
    files.write_jsonl(folder / "metadata.jsonl", rows)
    code, text, place = made(run, folder, "round-trip")
    assert code == 0, text
    yield place


def test_brand_sets_come_back_from_datasets_as_they_were(run, folder: Path, tmp_path: Path) -> None:
    """Through datasets' own loader and its parquet files; the hub itself is not reached in tests."""
    import datasets

    for number, place in enumerate(brand_sets(run, folder)):
        loaded = datasets.load_dataset("imagefolder", data_dir=str(place), cache_dir=str(tmp_path / "cache"))
        parts = {part: str(tmp_path / f"{number}-{part}.parquet") for part in brandset.SPLITS}
        for part, path in parts.items():
            loaded[part].to_parquet(path)  # type: ignore[index]
        again = datasets.load_dataset("parquet", data_files=parts, cache_dir=str(tmp_path / "cache"))
        before = brandset.read_brand_set(place)
        for kind, one in (("loaded", loaded), ("parquet", again)):
            brandset.write_brand_set_from_dataset(one, "someone/acme", tmp_path / f"{number}-{kind}")
            after, _ = brandcheck.read_checked_brand_set(tmp_path / f"{number}-{kind}")
            for part in brandset.SPLITS:
                wanted = [(item.sha256, item.all_captions_of_picture(), item.traits) for item in before.splits[part]]
                found = [(item.sha256, item.all_captions_of_picture(), item.traits) for item in after.splits[part]]
                assert found == wanted, (place, kind)
            assert after.brand.source == "someone/acme" and after.brand.trigger == "acme style"


def test_a_data_set_that_is_no_brand_set_is_one_message(tmp_path: Path) -> None:
    import datasets

    loaded = datasets.DatasetDict({"train": datasets.Dataset.from_dict({"image": [], "label": []})})
    with pytest.raises(DataError) as error:
        brandset.write_brand_set_from_dataset(loaded, "someone/else", tmp_path / "x")
    assert error.value.problems == ["no split validation", "no split test", "train: no column text"]


def test_a_folder_as_trainers_lay_it_out(run, folder: Path) -> None:
    """Repeats, regularisation pictures, masks, caches, system files: used, or named with the reason."""
    for name in ("img/10_sks", "reg/1_thing", "masks"):
        (folder / name).mkdir(parents=True)
    for path in sorted(folder.glob("*.png")) + sorted(folder.glob("*.txt")):
        path.rename(folder / "img" / "10_sks" / path.name)
    Image.new("L", (64, 64)).save(folder / "masks" / "00.png")
    Image.new("RGB", (64, 64)).save(folder / "reg" / "1_thing" / "x.png")
    (folder / "img" / "00.npz").write_bytes(b"PK")
    (folder / "Thumbs.db").write_bytes(b"x")
    code, text, place = made(run, folder, "laid-out")
    assert code == 0 and sum(len(items) for items in brandset.read_brand_set(place).splits.values()) == 14
    for says in (
        "repeats in the names of folders are not used, each picture counts once: 10_sks",
        "1 file not used, hidden or of the operating system: Thumbs.db",
        "1 file not used, regularisation pictures of kohya's tools: reg/1_thing/x.png",
        "1 file not used, masks of other pictures: masks/00.png",
        "1 file not used, no caption of a picture: img/00.npz",
        "the licence of the pictures is unknown",
    ):
        assert f"note: {says}" in text, says
    table = read_table(place / "source-files.csv")
    uses = {row.cells["file"]: (row.cells["use"], row.cells["remark"]) for row in table.rows}
    named = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert uses.keys() == named and uses["img/10_sks/00.txt"] == ("captions", "")
    assert uses["masks/00.png"] == ("not used", "masks of other pictures")
    assert {use for name, (use, _) in uses.items() if "10_sks" in name and name.endswith("png")} == {
        item.file for items in brandset.read_brand_set(place).splits.values() for item in items
    }
    (folder / "film.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    code, text, _ = made(run, folder, "with-a-film")
    assert code == 2 and "1 problem:\n  - film.mp4: cannot be decoded" in text


def test_alpha_is_declared_once_and_holds_for_both_sides(run, folder: Path, tmp_path: Path) -> None:
    """Transparent art, opaque pictures drawn: they pass by default, and fail where the brand keeps alpha."""
    drawn = tmp_path / "drawn"
    drawn.mkdir()
    for i, path in enumerate(sorted(folder.glob("*.png"))):
        image = Image.open(path).convert("RGBA")
        image.putpixel((0, 0), (0, 0, 0, 0))
        image.save(path)
        pictures.decode_picture(path.read_bytes()).image.save(drawn / f"{i}.png")
    place = made(run, folder, "clear")[2]

    def alphas(images: Path) -> set[float]:
        assert run("score", f"images={images}", f"brand={place}", f"out={tmp_path / 'out'}")[0] == 0
        return set(pq.read_table(tmp_path / "out" / "scores.parquet")["alpha"].to_pylist())

    assert brandset.read_brand_file(place).alpha == "flatten"
    assert alphas(drawn) == {1.0} and alphas(folder) == {0.0}
    text = (place / "brand.yaml").read_text()
    (place / "brand.yaml").write_text(text.replace("alpha: flatten", "alpha: keep"))
    assert alphas(drawn) == {0.0} and alphas(folder) == {1.0}
    assert "note: alpha: keep asks for pictures that are transparent" in run("check", f"brand={place}")[1]


def test_words_of_brand_yaml_are_as_written(tmp_path: Path) -> None:
    (tmp_path / "brand.yaml").write_text("name: 1e3\ntrigger: on\nlicence: 010\n")
    brand = brandset.read_brand_file(tmp_path)
    assert (brand.name, brand.trigger, brand.licence) == ("1e3", "on", "010")
    (tmp_path / "brand.yaml").write_text("name: ''\ntrigger: [a]\nalpha: lay\nbackground: reddish\ncolour: x\n")
    with pytest.raises(DataError) as error:
        brandset.read_brand_file(tmp_path)
    assert error.value.problems == [
        "name: missing",
        "trigger: must be text",
        "alpha: Input should be 'flatten' or 'keep'",
        "background: 'reddish' is no colour (such as #ffffff)",
        "colour: unknown key",
    ]


def test_a_trait_that_is_null_is_none(run, folder: Path) -> None:
    for path in folder.glob("*.txt"):
        path.unlink()
    rows = [{"file_name": f"{i:02d}.png", "text": "a", "traits": {"body": "red", "hat": None}} for i in range(14)]
    files.write_jsonl(folder / "metadata.jsonl", rows)
    place = made(run, folder, "nulls")[2]
    assert brandset.read_brand_set(place).splits["train"][0].traits == {"body": "red"}


def test_hub_failure_is_one_message() -> None:
    with pytest.raises(DataError, match="cannot be loaded"):
        brandset.brand_folder("hub:nobody/nothing-here")
