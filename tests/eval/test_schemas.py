"""docs/schemas/ is what the models are; `python -m eval.schemas` writes it."""

import json

from eval.schemas import FOLDER, all_schemas


def test_the_schemas_of_the_docs_are_those_of_the_models() -> None:
    assert {path.name: path.read_text() for path in FOLDER.glob("*.json")} == all_schemas()


def test_every_field_of_the_gates_record_says_what_it_is() -> None:
    described = json.loads(all_schemas()["gate.json"])["properties"]
    assert {"exit_code", "counts", "evidence"} <= described.keys()
    assert described["evidence"]["description"]
