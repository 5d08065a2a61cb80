"""One reader of tables: what people's spreadsheets and scripts write is read as written, or refused with its line."""

from pathlib import Path

import pytest

from stylegate import tables
from stylegate.tables import TableFileRow

ONE = [TableFileRow(2, {"file_name": "a.png", "text": "1girl, solo"})]


def read(tmp_path: Path, content: str | bytes, name: str = "t.csv") -> tables.TableFileContent:
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return tables.read_table(tmp_path / name)


@pytest.mark.parametrize(
    "content",
    [
        'file_name,text\na.png,"1girl, solo"\n',
        "file_name;text\na.png;1girl, solo",
        "file_name\ttext\r\na.png\t1girl, solo\r\n",
        '\ufeffFile_Name , TEXT\r\na.png,"1girl, solo"\r\n',
        'file_name,text\ra.png,"1girl, solo"\r',
        'file_name,text,,\na.png,"1girl, solo",,\n,,,\n\n',
    ],
)
def test_every_separator_mark_and_line_end(tmp_path: Path, content: str) -> None:
    table = read(tmp_path, content)
    assert table[:3] == (["file_name", "text"], ONE, [])
    assert table.headings == (("File_Name", "TEXT") if "TEXT" in content else ("file_name", "text"))


def test_a_spreadsheet_states_its_separator(tmp_path: Path) -> None:
    table = read(tmp_path, "sep=;\r\nfile_name;text\r\na.png;b\r\n")
    assert table.rows == [TableFileRow(3, {"file_name": "a.png", "text": "b"})] and not table.problems


def test_quoted_line_ends_stay_and_rows_know_their_line(tmp_path: Path) -> None:
    table = read(tmp_path, 'file_name,text\na.png,"one\ntwo"\n\nb.png,"say ""hi"""\n')
    assert table.rows == [
        TableFileRow(2, {"file_name": "a.png", "text": "one\ntwo"}),
        TableFileRow(5, {"file_name": "b.png", "text": 'say "hi"'}),
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            "file_name,text\na.png,b\nc.png,1girl, solo\n",
            "3: 3 cells under 2 columns; put a cell with commas in quotes",
        ),
        ("file_name;text\na.png;red; solo\n", "line 2: 3 cells under 2 columns; put a cell with semicolons in quotes"),
        ('file_name,text\na.png,b\nc.png,"never closed\nd.png,e\n', "line 3: not a row of a CSV table"),
        ('file_name,text\na.png,"round" cat\n', "line 2: not a row of a CSV table"),
        ("file_name,text,Text\na.png,b,c\n", "line 1: the column text stands twice"),
        ("file_name,text\na.png,caf\xe9\n".encode("latin-1"), "not UTF-8 text"),
        ("file_name,text\na.png,b\n".encode("utf-16-le"), "NUL"),
        ("file_name,text\na.png,b\n".encode("utf-16"), "not UTF-8 text"),
    ],
)
def test_what_is_no_table_is_refused_with_its_line(tmp_path: Path, content: str | bytes, says: str) -> None:
    assert says in read(tmp_path, content).problems[0]


def test_json_keeps_its_types_and_refuses_double_keys(tmp_path: Path) -> None:
    rows = '\ufeff{"File_Name": "a.png", "text": null, "n": 10}\r\n\n{"file_name": "b", "text": "x\u2028y"}\n'
    table = read(tmp_path, rows, "t.jsonl")
    assert not table.problems and table.rows[0] == TableFileRow(1, {"file_name": "a.png", "text": None, "n": 10})
    assert table.rows[1].line == 3 and table.rows[1].cells["text"] == "x\u2028y"
    bad = read(tmp_path, '{"text": "a", "text": "b"}\n[1]\n{"text": "a", "Text": "b"}\nnot json\n', "t.jsonl")
    assert [problem.split(":")[0] for problem in bad.problems] == ["line 1", "line 2", "line 3", "line 4"]
    bad = read(tmp_path, '{"hat": NaN}\n{"hat": null}\n{"n": [-Infinity]}\n', "t.jsonl")
    assert [problem.split(";")[0] for problem in bad.problems] == [
        "line 1: not a JSON object (NaN is no value of JSON",
        "line 3: not a JSON object (-Infinity is no value of JSON",
    ]


def test_two_columns_of_one_meaning_must_agree() -> None:
    assert tables.value_in_one_of_columns(TableFileRow(1, {"text": "a", "caption": "a"}), tables.TEXTS) == "a"
    assert tables.value_in_one_of_columns(TableFileRow(1, {"text": "", "caption": "a"}), tables.TEXTS) == "a"
    assert tables.value_in_one_of_columns(TableFileRow(1, {"text": " ", "caption": "a"}), tables.TEXTS) == "a"
    with pytest.raises(ValueError, match="text and caption differ"):
        tables.value_in_one_of_columns(TableFileRow(1, {"text": "a", "caption": "b"}), tables.TEXTS)
