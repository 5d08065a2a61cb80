#!/bin/bash
# What one would guess: a claim thumbnail is a small copy of the picture, never larger than it; and `load_settings` with
#   builder.thumbnail.enabled = false leaves it out, as C2PA's documents of settings show.
# What is true (c2pa-python 0.38.1): a picture of 64 x 64 pixels gets a smoothly enlarged JPEG of 1024 x 1024, some hundred times the
#   size of its own file. `load_settings` only warns (a DeprecationWarning, which Python hides outside of __main__) and changes nothing;
#   a Context made from the same settings leaves the thumbnail out.
# Date: 2026-11-29. Source: this run; the text of the warning.
# Why it matters: 10,000 collectibles of 64 pixels grow by 300 MB of blurred copies that nobody sees, and pixel art is shown blurred by
#   viewers that prefer the thumbnail.
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
buffer = io.BytesIO()
Image.new("RGB", (64, 64), "teal").save(buffer, "PNG")
SETTINGS = {"builder": {"thumbnail": {"enabled": False}}}


def thumbnail(context=None) -> str:
    out = io.BytesIO()
    info = c2pa.C2paSignerInfo(alg=b"ed25519", sign_cert=chain, private_key=key, ta_url=None)
    builder = c2pa.Builder(json.dumps(MANIFEST), context=context) if context else c2pa.Builder(json.dumps(MANIFEST))
    builder.sign(c2pa.Signer.from_info(info), "image/png", io.BytesIO(buffer.getvalue()), out)
    reader = c2pa.Reader("image/png", io.BytesIO(out.getvalue()))
    manifest = json.loads(reader.json())["manifests"][MANIFEST["label"]]
    if "thumbnail" not in manifest:
        return "none"
    picture = io.BytesIO()
    reader.resource_to_stream(manifest["thumbnail"]["identifier"], picture)
    shown = Image.open(io.BytesIO(picture.getvalue()))
    return f"{shown.format} {shown.width} x {shown.height}"


found = [thumbnail()]
c2pa.load_settings(json.dumps(SETTINGS))
found += [thumbnail(), thumbnail(c2pa.Context.from_dict(SETTINGS))]
print("c2pa-python", version("c2pa-python"), "signing a PNG of 64 x 64 pixels and", len(buffer.getvalue()), "bytes")
for how, what in zip(["by default", "after load_settings", "with a Context"], found, strict=True):
    print(f"thumbnail {how}: {what}")
raise SystemExit(found != ["JPEG 1024 x 1024", "JPEG 1024 x 1024", "none"])
PYTHON
