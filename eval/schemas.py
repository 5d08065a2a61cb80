"""JSON Schemas of the files that people and pipelines read or write: `python -m eval.schemas` writes docs/schemas/.

Editors and pipelines can check a policy, a traits file or a result against them. A test holds the folder equal.
"""

import ast
import inspect
import json
from itertools import pairwise

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from eval.judging.record import GateRecord
from eval.judging.verdicts import Verdict
from eval.lot.batch import PlanSlot
from eval.lot.cost import PackageCostRecord
from eval.lot.early import EarlyStopPreview, EarlyStopRound
from eval.lot.record import BatchRecord, SamplerTrial
from eval.measuring.record import LotScoringRecord
from eval.package.items import ItemRecord
from eval.package.label_heads import LastLabelRowHashByPurpose
from eval.package.living import ChangesSinceVersion
from eval.package.marks import MarksReport
from eval.package.provenance import PackageProvenance
from eval.planning.commitment import PlanCommitment
from eval.planning.traits import TraitsFile
from eval.policy.model import PolicyFile
from eval.promise.auditplan import AuditTerms
from eval.promise.calibration import Calibration, CalibrationTerms
from eval.promise.certificate import Certificate
from eval.promise.labels import StoredLabel
from stylegate import files
from stylegate.brandset import Brand
from stylegate.preferenceset import PreferencePair, PreferenceSetRecord
from stylegate.records import Record

FOLDER = files.ROOT / "docs" / "schemas"
MODELS: dict[str, type[BaseModel]] = {  # name of the schema -> what it describes
    "audit-terms": AuditTerms,  # the row of labels.sqlite that stands before the labels of an audit
    "batch": BatchRecord,  # batch.json
    "brand": Brand,  # brand.yaml
    "calibration": Calibration,  # calibration.json
    "calibration-terms": CalibrationTerms,  # the same of a calibration
    "certificate": Certificate,  # certificate.json
    "commitment": PlanCommitment,  # commitment.json
    "gate": GateRecord,  # gate.json
    "label": StoredLabel,  # what a row of labels.sqlite holds, and what is read of it
    "changes": ChangesSinceVersion,  # proof/changes.json of a package
    "cost": PackageCostRecord,  # proof/cost.json of a package
    "label-heads": LastLabelRowHashByPurpose,  # proof/labels.json of a package
    "marks": MarksReport,  # proof/marks.json of a package
    "policy": PolicyFile,  # a policy
    "preference-pair": PreferencePair,  # a row of metadata.jsonl of a preference set
    "preferences": PreferenceSetRecord,  # preferences.json of a preference set
    "preview": EarlyStopPreview,  # a row of previews.jsonl: an attempt whose preview was scored
    "provenance": PackageProvenance,  # provenance.json
    "round": EarlyStopRound,  # a row of rounds.jsonl: the line that a round of generate stops attempts below
    "record": ItemRecord,  # records/<id>.json of a package
    "score": LotScoringRecord,  # score.json
    "slot": PlanSlot,  # a row of plan.parquet
    "traits": TraitsFile,  # a traits file
    "trial": SamplerTrial,  # data/batches/trials/: the steps and guidance that were tried for a LoRA
    "verdict": Verdict,  # a line of verdicts.jsonl
}


class SchemaGeneratorWithFieldTexts(GenerateJsonSchema):
    """A generator of JSON Schemas in which each field is described by the text that stands below it in the source of
    its record.
    """

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        found = super().model_schema(schema)
        for parent in reversed(schema["cls"].__mro__):
            for name, text in field_descriptions(parent).items() if issubclass(parent, Record) else ():
                entry = found["properties"].get(schema["cls"].model_fields[name].serialization_alias or name)
                if entry is not None:  # else it is left out of the schema on purpose
                    entry["description"] = text
        return found


def field_descriptions(record: type[BaseModel]) -> dict[str, str]:
    """The text below each field in the source of a record's class, by name of the field; inherited
    fields are left out.
    """
    body = ast.parse(inspect.getsource(record)).body[0]
    assert isinstance(body, ast.ClassDef)
    return {
        field.target.id: inspect.cleandoc(below.value.value)
        for field, below in pairwise(body.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str)
    }


def schema_texts_by_file_name() -> dict[str, str]:
    """The text of each JSON Schema of MODELS, by file name."""
    return {
        f"{name}.json": json.dumps(model.model_json_schema(schema_generator=SchemaGeneratorWithFieldTexts), indent=1)
        + "\n"
        for name, model in MODELS.items()
    }


if __name__ == "__main__":
    for name, text in schema_texts_by_file_name().items():
        files.write_atomically(FOLDER / name, text)
        print(files.display_path(FOLDER / name))
