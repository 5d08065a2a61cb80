"""Every file of a folder is a picture, stands beside pictures, or is hidden; none is passed over."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from stylegate import listing, pictures

BESIDE = {
    "captions.csv": b"file_name,text\n",
    "cat.txt": b"a cat",
    "cat.png.txt": b"a cat",
    "cat.CAPTION": b"a cat",
    "cat.json": b"{}",
    "cat_0064x0064_sd.npz": b"PK\3\4",
    "LICENSE": "do as you like, ü".encode(),
}
HIDDEN = (
    ".DS_Store",
    "Thumbs.db",
    "._cat.png",
    "~$captions.csv",
    "__MACOSX/._cat.png",
    ".git/index.png",
    "a/Desktop.ini",
)
BROKEN = {"film.mp4": b"\0\0\0\x18ftypmp42", "empty": b"", "noise": bytes(range(256)), "drawing.svg": b"<svg/>"}


def picture(form: str = "PNG") -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(sink, form)
    return sink.getvalue()


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    forms = {"a.png": "PNG", "b.AVIF": "AVIF", "c.jfif": "JPEG", "d.jp2": "JPEG2000", "nameless": "PNG", "e.dat": "QOI"}
    contents = {name: picture(form) for name, form in forms.items()} | {"looks.txt": picture("JPEG")} | BESIDE | BROKEN
    for name, content in (contents | dict.fromkeys(HIDDEN, picture())).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


def names(paths: list[Path], folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in paths}


def test_every_file_is_in_one_list(mixed: Path) -> None:
    (mixed / "elsewhere").symlink_to(mixed.parent)
    found = listing.list_folder(mixed)
    good = {"a.png", "b.AVIF", "c.jfif", "d.jp2", "nameless", "e.dat", "looks.txt"}
    assert names(found.pictures, mixed) == good | BROKEN.keys() | {"elsewhere"}
    assert names(found.beside, mixed) == set(BESIDE) and names(found.hidden, mixed) == set(HIDDEN)
    assert sum(map(len, found)) == sum(not path.is_dir() or path.is_symlink() for path in mixed.rglob("*"))
    for name in good:
        assert pictures.decode_picture((mixed / name).read_bytes()).image.size == (32, 32)


def test_a_folder_that_cannot_be_read_is_an_error(mixed: Path, run, refused: set[Path]) -> None:
    """Its pictures would be passed over."""
    (mixed / "locked").mkdir()
    (mixed / "locked" / "f.png").write_bytes(picture())
    refused.add(mixed / "locked")
    with pytest.raises(PermissionError):
        listing.list_folder(mixed)
    code, text = run("gate", f"images={mixed}", f"out={mixed.parent / 'verdicts'}")
    assert code == 2 and "permission denied" in text and "locked" in text and "Traceback" not in text
    assert not any(listing.list_folder(mixed / "not there") + listing.list_folder(mixed / "a.png"))


def test_the_gate_judges_every_file(run, mixed: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    out = tmp_path_factory.mktemp("out")
    code, text = run("gate", f"images={mixed}", f"out={out}")
    assert code == 10 and "11 in = " in text and "+ 4 error" in text
    assert "note: not judged, as no pictures: 7 files (LICENSE, " in text
    assert "note: not judged, as hidden or of the operating system: 7 files (" in text


def test_masks_are_known_by_the_picture_that_they_lie_beside(tmp_path: Path) -> None:
    names = (
        "cat.png",
        "cat_mask.png",
        "dog.jpg",
        "dog-masklabel.png",
        "fox_mask.png",
        "masks/cat.png",
        "masks/owl.png",
    )
    paths = [tmp_path / name for name in names]
    assert listing.mask_files(paths) == [paths[1], paths[3], paths[5]]


def test_masks_are_no_references(run, tmp_path: Path, pictures_of_neon: list[Image.Image], judged: Path) -> None:
    place = tmp_path / "references"
    place.mkdir()
    for i, image in enumerate(pictures_of_neon[:8]):
        image.save(place / f"{i}.png")
        image.convert("L").save(place / f"{i}-masklabel.png")
    run("score", f"images={judged}", f"references={place}", f"out={tmp_path / 'out'}")
    record = json.loads((tmp_path / "out" / "score.json").read_text())
    assert record["references"]["given"] == record["references"]["count"] == 8
    notes = record["notes"]
    assert any(note.startswith("no references, as masks of others: 8 files (0-masklabel.png, ") for note in notes)
