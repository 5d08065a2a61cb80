"""Captions as people's tools write them: read as written, or refused with file and line."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stylegate.brandset import CheckReport
from stylegate.captions import CaptionsAndTraits, FolderToReadCaptionsFrom, read_captions
from stylegate.listing import list_folder

CAT = {"file_name": "cat.png", "text": "a cat"}


def captions(folder: Path, files: dict[str, Any]) -> tuple[dict[str, CaptionsAndTraits], CheckReport, list[str]]:
    """What is read of a folder with two pictures and `files`: text, or rows of JSON."""
    for name in ("cat.png", "sub/dog.PNG"):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (16, 16)).save(folder / name, "PNG")
    for name, content in files.items():
        text = content if isinstance(content, str) else "\n".join(map(json.dumps, content))
        (folder / name).write_bytes(text.encode())
    listing, findings = list_folder(folder), CheckReport()
    named = {path.relative_to(folder).as_posix(): path for path in listing.pictures}
    found = read_captions(FolderToReadCaptionsFrom(folder, named, listing.beside), findings)
    return found.by_picture, findings, [path.name for path in found.unused]


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({"cat.txt": "\ufeff a  cat \r\n\r\n"}, "a cat"),
        ({"cat.caption": "a cat"}, "a cat"),
        ({"cat.png.txt": "a cat"}, "a cat"),
        ({"cat.TXT": "a cat", "t.jsonl": [CAT]}, "a cat"),
        ({"cat.json": [{"caption": "a cat", "seed": 3}]}, "a cat"),
        ({"cat.json": [{"tags": ["1girl", "solo"]}]}, "1girl, solo"),
        ({"cat.json": [{"workflow": {}}], "cat.txt": "a cat"}, "a cat"),
        ({"m.jsonl": [{"image_path": "sub/../cat.png", "caption": "a cat"}]}, "a cat"),
        ({"m.jsonl": [CAT, CAT]}, "a cat"),
        ({"m.tsv": "path\tcaption\ncat.png\ta\tcat\n".replace("a\tcat", "a, cat")}, "a, cat"),
        ({"m.csv": 'image,tags\ncat.png,"1girl, solo"\n'}, "1girl, solo"),
        ({"m.csv": 'file,text\ncat.png,"a\ncat"\n', ".hidden.csv": "no table", "._m.csv": "\0\1"}, "a\ncat"),
        ({"m.csv": "file,text\ncat.png,010\n"}, "010"),
        ({"m.csv": "\ufefffile;text\r\ncat.png;a cat\r\n"}, "a cat"),
        ({"meta_cap.json": [{"cat": {"caption": "a cat", "tags": "1girl", "train_resolution": [64, 64]}}]}, "a cat"),
        ({"meta.json": [{"cat.png": {"tags": "1girl, solo"}}]}, "1girl, solo"),
        ({"m.jsonl": [{"file_name": "cat.png", "tags": {"1girl": 0.98, "solo": 0.9}}]}, "1girl, solo"),
        ({"cat.txt": "a (red hat:1.2), cat (a series), (solo: 0.8)"}, "a red hat, cat (a series), solo"),
        ({"cat.txt": "a cat\r\na cat\r\n"}, "a cat"),
        ({"cat.json": [{"caption": "a cat"}], "m.jsonl": [CAT]}, "a cat"),
    ],
)
def test_read_as_written(tmp_path: Path, files: dict[str, Any], text: str) -> None:
    found, findings, _ = captions(tmp_path, files)
    assert not findings.problems and found["cat.png"].texts == (text,) and "sub/dog.PNG" not in found


@pytest.mark.parametrize(
    "files",
    [
        {"cat.txt": "a cat\r\n\n a  grey cat\n"},
        {"cat.caption": "a cat\u2028a grey cat"},
        {"cat.txt": "a cat\ra grey cat"},
        {"cat.json": [{"caption": ["a cat", "a grey cat", "a cat"]}]},
        {"m.jsonl": [CAT | {"text": ["a cat", "a grey cat"]}]},
        {"m.jsonl": [CAT | {"more_captions": "a grey cat\n"}]},
        {"meta.json": [{"cat": {"caption": ["a cat", "a (grey:1.3) cat"]}}]},
    ],
)
def test_several_captions_of_a_picture_are_several_captions(tmp_path: Path, files: dict[str, Any]) -> None:
    found, findings, _ = captions(tmp_path, files)
    assert not findings.problems and found["cat.png"].texts == ("a cat", "a grey cat")
    assert "several captions: 1 picture (cat.png); each training step draws one" in findings.remarks[0]


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"cat.txt": "a cat", "cat.caption": "a dog"}, "cat.png: cat.caption and cat.txt say different captions"),
        (
            {"cat.txt": "a cat", "cat.caption": "a cat\na dog"},
            "cat.png: cat.caption and cat.txt say different captions",
        ),
        ({"cat.txt": "a cat", "cat.json": [{"prompt": "a dog"}]}, "cat.png: cat.json and cat.txt say"),
        (
            {"a.csv": "file,text\ncat.png,a\n", "b.csv": "file,text\ncat.png,b\n"},
            "cat.png: a.csv, line 2 and b.csv, line 2 say",
        ),
        ({"m.jsonl": [CAT, CAT | {"text": "a dog"}]}, "m.jsonl, line 1 and m.jsonl, line 2 say"),
        ({"m.jsonl": [CAT | {"text": ["a", 5]}]}, "m.jsonl, line 1: the caption is 5, not text"),
        ({"m.jsonl": [CAT | {"text": ["a", " "]}]}, "m.jsonl, line 1: one of its captions is empty"),
        (
            {"m.jsonl": [CAT | {"more_captions": ["b"]}]},
            "m.jsonl, line 1: more_captions must be text with a caption on each line",
        ),
        ({"m.jsonl": [CAT | {"text": 5}]}, "m.jsonl, line 1: the caption is 5, not text"),
        ({"m.jsonl": [CAT | {"caption": "a dog"}]}, "m.jsonl, line 1: text and caption differ"),
        ({"m.jsonl": [CAT | {"file_name": 7}]}, "m.jsonl, line 1: file_name is 7, not text"),
        ({"m.jsonl": [CAT | {"traits": {"n": 5}}]}, "m.jsonl, line 1: traits must map names to text"),
        ({"m.jsonl": [{"image_path": "/elsewhere/cat.png", "caption": "a"}]}, "lies outside the folder"),
        ({"m.jsonl": [CAT | {"file_name": "owl.png"}]}, "m.jsonl, line 1: there is no file owl.png"),
        (
            {"m.csv": "file,text\ncat.png,a cat\nowl.png,an owl\nhen.png,a hen\n"},
            "m.csv, lines 3, 4: there is no file owl.png, hen.png; remove the lines, or put back",
        ),
        ({"m.jsonl": [CAT | {"file_name": "a.md"}], "a.md": "x"}, "m.jsonl, line 1: a.md is not used as a picture"),
        ({"m.csv": "file,text\ncat.png,1girl, solo\n"}, "m.csv, line 2: 3 cells under 2 columns"),
        ({"m.csv": "name,words\ncat.png,a\n"}, "m.csv: needs columns file_name and text, has name, words"),
        ({"m.csv": "cat.png,a cat\n"}, "m.csv: needs columns"),
        ({"cat.json": "{"}, "cat.json: "),
        ({"meta.json": [{"owl": {"caption": "an owl"}}]}, "meta.json, entry 1: there is no file owl"),
        (
            {"meta.json": [{"cat": {"caption": "a cat"}}], "cat.txt": "a dog"},
            "cat.png: cat.txt and meta.json, entry 1 say",
        ),
    ],
)
def test_refused_with_file_and_line(tmp_path: Path, files: dict[str, Any], problem: str) -> None:
    problems = captions(tmp_path, files)[1].problems
    assert len(problems) == 1 and problem in problems[0]


def test_what_is_not_used_is_named(tmp_path: Path) -> None:
    rows = [CAT | {"tags": "x", "width": 64, "original": "old.png", "traits": {"body": "red", "hat": None}}]
    found, findings, unused = captions(tmp_path, {"m.jsonl": rows, "owl.txt": "an owl", "readme.md": "hello"})
    assert unused == ["owl.txt", "readme.md"] and found["cat.png"].traits == {"body": "red"}
    assert findings.remarks == [
        "m.jsonl: columns that are not used: width",
        "m.jsonl: tags are not used where there is a caption",
    ]


def test_names_of_macos_and_windows_are_the_same_names(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "e\u0301.png")  # decomposed, as macOS unpacks
    found, findings, _ = captions(tmp_path, {"m.jsonl": [CAT | {"file_name": "\u00e9.png"}]})
    assert not findings.problems and found["e\u0301.png"].first_caption == "a cat"
