"""docs/schemas/ is what the models are; `python -m eval.schemas` writes it."""

import json
from pathlib import Path
from typing import Any

import pytest

from eval.lot import batch
from eval.measuring import scores
from eval.schemas import FOLDER, schema_texts_by_file_name
from stylegate import files
from stylegate.errors import DataError
from tests.lots import batch_record


def test_the_schemas_of_the_docs_are_those_of_the_models() -> None:
    assert {path.name: path.read_text() for path in FOLDER.glob("*.json")} == schema_texts_by_file_name()


@pytest.mark.parametrize(("name", "field"), [("gate", "evidence"), ("batch", "wanted"), ("score", "key")])
def test_every_field_of_a_record_says_what_it_is(name: str, field: str) -> None:
    assert json.loads(schema_texts_by_file_name()[f"{name}.json"])["properties"][field]["description"]


def test_a_batchs_record_is_written_as_it_was_read(tmp_path: Path) -> None:
    before_drawing, after = batch_record(wanted=3), batch_record(wanted=3)
    after.precision, after.size = "fp32", 64
    for record in (before_drawing, after):
        record.write_json_file(tmp_path / batch.RECORD)
        text = (tmp_path / batch.RECORD).read_text()
        batch.read_existing_batch_record(tmp_path).write_json_file(tmp_path / batch.RECORD)
        assert (tmp_path / batch.RECORD).read_text() == text and '"brand": null' in text, "a null stays in the file"
    assert list(json.loads(text)) == ["facts", "words", "wanted", "precision", "size"] and "size" not in (
        before_drawing.json_data_without_defaults()
    )


def damaged(content: dict[str, Any], number: str) -> dict[str, Any]:
    """The content with a text where a number stands, one key less and one more."""
    changed = content | {number: "3", "odd": 1}
    del changed[next(iter(content))]
    return changed


def test_every_problem_of_a_damaged_record_is_named_at_once(tmp_path: Path) -> None:
    files.write_json(tmp_path / batch.RECORD, damaged(batch_record(wanted=3).json_data_without_defaults(), "wanted"))
    with pytest.raises(DataError) as caught:
        batch.read_existing_batch_record(tmp_path)
    assert [problem.split(":")[0] for problem in sorted(caught.value.problems)] == ["facts", "odd", "wanted"]
    files.write_json(tmp_path / scores.RECORD, {"key": "", "batch": {"style": {"mean": "high"}}, "notes": [1]})
    with pytest.raises(DataError) as caught:
        scores.read_score_record(tmp_path)
    assert {"batch.style.mean: must be a number", "notes[0]: must be text", "tables: missing"} <= {
        *caught.value.problems
    }
