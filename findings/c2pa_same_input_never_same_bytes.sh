#!/bin/bash
# What one would guess: ECDSA signatures are random, Ed25519 signatures are not. So with an Ed25519 key, a fixed manifest label and a
#   fixed instance id, signing the same picture twice gives the same file.
# What is true (c2pa-python 0.38.1): each signing puts fresh random salts into the assertions' boxes; their hashes, the claim and the
#   signature follow. The files have the same size and the reader says the same of both, but the bytes always differ.
# Date: 2026-11-29. Source: this run; C2PA specification 2.x, "Salts in assertion boxes".
# Why it matters: a package that is built again from the same pictures has other digests, so checksums, Merkle roots and "nothing has
#   changed" do not hold. Whoever wants reproducible packages has to keep what was signed, and reuse it.
# Exits with 1 if the behaviour has changed.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install -q c2pa-python==0.38.1 cryptography==50.0.2 pillow==13.0.0
"$place/venv/bin/python" - <<'PYTHON'
import io
import json
from datetime import UTC, datetime, timedelta
from importlib.metadata import version

import c2pa
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from PIL import Image

KIND = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
MANIFEST = {
    "label": "urn:c2pa:00000000-0000-4000-8000-000000000002",
    "instance_id": "xmp:iid:00000000-0000-4000-8000-000000000001",
    "claim_generator_info": [{"name": "example", "version": "1"}],
    "assertions": [
        {"label": "c2pa.actions.v2", "data": {"actions": [{"action": "c2pa.created", "digitalSourceType": KIND}]}}
    ],
}


def certificate(key, issuer_key, is_authority):
    names = [
        x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example"), x509.NameAttribute(NameOID.COMMON_NAME, n)])
        for n in ("authority", "signer")
    ]
    now = datetime.now(UTC)
    found = x509.CertificateBuilder(
        issuer_name=names[0],
        subject_name=names[0 if is_authority else 1],
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now - timedelta(days=1),
        not_valid_after=now + timedelta(days=30),
    )
    usage = x509.KeyUsage(not is_authority, False, False, False, False, is_authority, is_authority, False, False)
    found = found.add_extension(x509.BasicConstraints(is_authority, None), True).add_extension(usage, True)
    if not is_authority:
        found = found.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    found = found.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
    return found.add_extension(authority, False).sign(issuer_key, None).public_bytes(serialization.Encoding.PEM)


authority, signer = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
chain = certificate(signer, authority, False) + certificate(authority, authority, True)
key = signer.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)
assert signer.sign(b"x") == signer.sign(b"x"), "Ed25519 itself repeats"
buffer = io.BytesIO()
Image.new("RGB", (256, 256), "teal").save(buffer, "PNG")


def signed() -> bytes:
    out = io.BytesIO()
    info = c2pa.C2paSignerInfo(alg=b"ed25519", sign_cert=chain, private_key=key, ta_url=None)
    c2pa.Builder(json.dumps(MANIFEST)).sign(c2pa.Signer.from_info(info), "image/png", io.BytesIO(buffer.getvalue()), out)
    return out.getvalue()


files = [signed() for _ in range(3)]
said = [json.loads(c2pa.Reader("image/png", io.BytesIO(file)).json()) for file in files]
print("c2pa-python", version("c2pa-python"))
print("sizes", [len(file) for file in files], "different files", len(set(files)))
print("bytes that differ", sum(a != b for a, b in zip(files[0], files[1])))
print("the reader says the same of all:", said[0] == said[1] == said[2], said[0]["validation_state"])
same = len({len(file) for file in files}) == 1 and said[0] == said[1] == said[2]
raise SystemExit(not (same and len(set(files)) == 3 and said[0]["validation_state"] == "Valid"))
PYTHON
