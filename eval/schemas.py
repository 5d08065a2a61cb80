"""JSON Schemas of the files that people and pipelines read or write: `python -m eval.schemas` writes docs/schemas/.

Editors and pipelines can check a policy, a traits file or a result against them. A test holds the folder equal.
"""

import json

from pydantic import BaseModel

from eval.judging.record import GateRecord
from eval.judging.verdicts import Verdict
from eval.lot.batch import Slot
from eval.package.provenance import Provenance
from eval.plan import TraitsFile
from eval.policy.model import PolicyFile
from eval.promise.calibration import Calibration
from eval.promise.certificate import Certificate
from eval.promise.labels import StoredLabel
from stylegate import files
from stylegate.brandset import Brand

FOLDER = files.ROOT / "docs" / "schemas"
MODELS: dict[str, type[BaseModel]] = {  # name of the schema -> what it describes
    "brand": Brand,  # brand.yaml
    "calibration": Calibration,  # calibration.json
    "certificate": Certificate,  # certificate.json
    "gate": GateRecord,  # gate.json
    "label": StoredLabel,  # a line of decisions.jsonl, audit.jsonl or calibration.jsonl
    "policy": PolicyFile,  # a policy
    "provenance": Provenance,  # provenance.json
    "slot": Slot,  # a row of plan.parquet
    "traits": TraitsFile,  # a traits file
    "verdict": Verdict,  # a line of verdicts.jsonl
}


def all_schemas() -> dict[str, str]:
    """The text of each schema, by file name."""
    return {
        f"{name}.json": json.dumps(model.model_json_schema(by_alias=True, mode="validation"), indent=1) + "\n"
        for name, model in MODELS.items()
    }


if __name__ == "__main__":
    for name, text in all_schemas().items():
        files.write_atomically(FOLDER / name, text)
        print(files.display_path(FOLDER / name))
