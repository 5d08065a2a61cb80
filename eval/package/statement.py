"""What a package was made from, for other programs: an in-toto statement with SLSA provenance, and a CycloneDX ML-BOM.

The statement is signed in a DSSE envelope by the key of the package.
"""

import base64
import json
from pathlib import Path
from typing import Any

from eval.package.provenance import PackageProvenance
from eval.package.signature import PrivateKey, is_valid_signature, public_fingerprint, sign
from stylegate import __version__, files

PAYLOAD_TYPE = "application/vnd.in-toto+json"
URN = f"urn:stylegate:{__version__}"
IN_BOM = {  # kind of component in the bill of materials, by name of a dependency
    "base": "machine-learning-model",
    "training base": "machine-learning-model",
    "lora": "machine-learning-model",
    "encoder": "machine-learning-model",
    "data": "data",
    "references": "data",
}


def digests_of_materials(provenance: PackageProvenance) -> dict[str, str]:
    """The sha256 of each thing that the pictures were made from or judged by, by name; unknown ones are left out."""
    made, judged = provenance.made_from, provenance.judged_by
    named = {
        "base": made.base_sha256,
        "training base": made.training_base_sha256,
        "lora": made.lora_sha256,
        "data": made.data_sha256,
        "plan": made.plan_sha256,
        "pictures": made.folder_sha256,
        "policy": judged.policy.sha256,
        "encoder": judged.encoder_sha256,
        "references": judged.references.sha256,
        "verdicts": judged.verdicts_sha256,
        "certificate": judged.promise.certificate_sha256,
    }
    return {name: digest for name, digest in named.items() if digest}


def make_in_toto_statement(
    provenance: PackageProvenance, collection: str, manifest: str, manifest_sha256: str
) -> dict[str, Any]:
    """The in-toto statement: the package, known by its manifest, was made from these things."""
    resolved = [{"name": name, "digest": {"sha256": d}} for name, d in digests_of_materials(provenance).items()]
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": manifest, "digest": {"sha256": manifest_sha256}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": f"{URN}:export",
                "externalParameters": {"collection": collection, "brand": provenance.brand},
                "internalParameters": {"generate": provenance.made_from.generate},
                "resolvedDependencies": resolved,
            },
            "runDetails": {"builder": {"id": URN}},
        },
    }


def make_dsse_envelope(statement: dict[str, Any], key: PrivateKey | None) -> dict[str, Any]:
    """The statement in a DSSE envelope; without a key it has no signature."""
    payload = json.dumps(statement, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    signed = (
        [(public_fingerprint(key), base64.b64encode(sign(key, pre_authentication_encoding(payload))).decode())]
        if key
        else []
    )
    return {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": keyid, "sig": signature} for keyid, signature in signed],
    }


def in_toto_statement_problem(envelope: dict[str, Any], manifest: Path, signer: Path) -> str:
    """What is wrong with a statement in its envelope; "" if it is of this manifest and signed by this key, if any.

    A package without a key has a statement without a signature.
    """
    try:
        payload = base64.b64decode(envelope["payload"], validate=True)
        (subject,) = json.loads(payload)["subject"]
        signatures = [base64.b64decode(entry["sig"], validate=True) for entry in envelope["signatures"]]
        if subject != {"name": manifest.name, "digest": {"sha256": files.sha256_of_file(manifest)}}:
            return f"it is not of {manifest.name}"
    except (KeyError, TypeError, ValueError) as error:
        return f"it is no statement in an envelope: {error!r}"
    signed = [is_valid_signature(signer, pre_authentication_encoding(payload), signature) for signature in signatures]
    return "" if signed == [True] * signer.exists() else f"it is not signed by the key in {signer.name}"


def pre_authentication_encoding(payload: bytes) -> bytes:
    """The bytes that a DSSE signature is of (its pre-authentication encoding)."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def make_bill_of_materials(provenance: PackageProvenance, collection: str) -> dict[str, Any]:
    """The CycloneDX 1.6 bill of materials: models and data, with their digests and licences."""
    digests = {name: digest for name, digest in digests_of_materials(provenance).items() if name in IN_BOM}
    parts: dict[str, dict[str, Any]] = {
        name: {"type": IN_BOM[name], "bom-ref": name, "name": name, "hashes": [{"alg": "SHA-256", "content": digest}]}
        for name, digest in digests.items()
    }
    for link in provenance.licences:
        if link.what in parts:
            parts[link.what]["licenses"] = [{"license": {"name": link.licence}}]
    if "lora" in parts and "data" in parts:
        parts["lora"]["modelCard"] = {"modelParameters": {"datasets": [{"ref": "data"}]}}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {"type": "data", "bom-ref": "package", "name": collection},
            "tools": {"components": [{"type": "application", "name": "stylegate", "version": __version__}]},
        },
        "components": list(parts.values()),
        "dependencies": [{"ref": "package", "dependsOn": list(parts)}],
    }
