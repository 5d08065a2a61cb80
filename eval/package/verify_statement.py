"""The part of verify.py that is of the statement of provenance (in-toto, in a DSSE envelope). verify.py runs it."""

import base64
import hashlib
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

STATEMENT, MANIFEST, SIGNER = "proof/statement.dsse.json", "manifest-sha256.txt", "signer.pub.pem"


def check_in_toto_statement(folder: Path, wrong: list) -> list:
    """Compare the statement with the manifest, and its signature with the key. Returns sentences on what is proven.

    Sentences on what is wrong are appended to `wrong`.
    """
    if not (folder / STATEMENT).is_file():
        return []
    envelope = json.loads((folder / STATEMENT).read_text())
    payload, kind = base64.b64decode(envelope["payload"], validate=True), envelope["payloadType"].encode()
    (subject,) = json.loads(payload)["subject"]
    if subject["digest"]["sha256"] != hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest():
        wrong.append(f"{STATEMENT}: it speaks of another {MANIFEST}")
    if len(envelope["signatures"]) != (folder / SIGNER).is_file():
        wrong.append(f"{STATEMENT}: it has not one signature for each key in {SIGNER}")
    if not envelope["signatures"] or not shutil.which("openssl"):
        return []
    signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)  # the bytes that DSSE signs
    with tempfile.TemporaryDirectory() as place:
        for name, content in (("signed", signed), ("sig", base64.b64decode(envelope["signatures"][0]["sig"]))):
            (Path(place) / name).write_bytes(content)
        words = ["openssl", "dgst", "-sha256", "-verify", str(folder / SIGNER), "-signature", f"{place}/sig"]
        if subprocess.run([*words, f"{place}/signed"], capture_output=True).returncode:
            wrong.append(f"{STATEMENT}: it is not signed by the key in {SIGNER}")
    return [f"{STATEMENT} says what the pictures were made from; it is of this package and signed by the same key"]
