"""The certificate (X.509) that signs content credentials: one of your own, or a test one, which says so.

A certificate comes as a PEM file: the signer's certificate first, then those above it, with the private key in the same
file or elsewhere. A key that may not leave its place (HSM, KMS) signs through a command.
"""

import datetime
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from eval.package.signature import write_secret_once
from stylegate import files
from stylegate.config import Config
from stylegate.errors import ConfigError

OWN = files.HOME / "keys" / "credentials.pem"  # the test certificate of this home, with its key; made at first need
TEST_NAME = "stylegate test certificate (vouches for nobody)"
TEST_DAYS = 20 * 365  # without a time stamp credentials cannot be checked once their certificate has ended
USES = {  # OIDs of what a key may be for, one of which the signer's certificate must name
    ExtendedKeyUsageOID.EMAIL_PROTECTION.dotted_string: "emailProtection",
    "1.3.6.1.5.5.7.3.36": "documentSigning",
    "1.3.6.1.4.1.62558.2.1": "C2PA's own",
}
CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
NEXT = "docs/package.md says which certificates sign content credentials; marks=xmp exports without them."


@dataclass(frozen=True)
class C2paCertificateAndKey:
    """A certificate, those above it, and its key or the command that signs with it."""

    chain: Sequence[x509.Certificate]  # the signer's first
    key: Any  # private; None where a command signs
    command: Sequence[str] = ()

    @property
    def organisation_of_signer(self) -> str:
        """The organisation that the certificate names, else its common name: who signed, to whoever reads it."""
        subject = self.chain[0].subject
        named = subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
        named += subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(named[0].value) if named else ""

    @property
    def certificate_fingerprint(self) -> str:
        """The sha256 of the signer's certificate (DER), by which people compare certificates."""
        return self.chain[0].fingerprint(hashes.SHA256()).hex()

    @property
    def c2pa_signature_algorithm(self) -> str:
        """C2PA's name of the signature algorithm that fits the key; "" for a key that C2PA does not allow."""
        public = self.chain[0].public_key()
        if isinstance(public, ec.EllipticCurvePublicKey):
            return CURVES.get(public.curve.name, "")
        if isinstance(public, ed25519.Ed25519PublicKey):
            return "ED25519"
        return "PS256" if isinstance(public, rsa.RSAPublicKey) else ""

    def chain_pem(self) -> bytes:
        """All certificates in PEM form, the signer's first."""
        return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in self.chain)

    def private_key_as_pem(self) -> bytes:
        """The private key in PEM form; there must be one."""
        return private_key_pem(self.key)


def signing_certificate(config: Config) -> C2paCertificateAndKey:
    """The certificate that `credentials=` names, by default the test one of this home, whose file is written if there
    is none.

    Raises ConfigError with everything that is wrong with it.
    """
    path = Path(config.credentials).expanduser() if config.credentials else OWN
    if not config.credentials and not OWN.exists():
        write_secret_once(OWN, new_key_and_test_certificate_pem())
    what = f"credentials={config.credentials or files.display_path(OWN)}"
    command = shlex.split(config.credentials_command or "")
    try:
        content = path.read_bytes()
        chain = x509.load_pem_x509_certificates(content)
        key = None if command else read_content_credentials_private_key(config, path, content)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{what}: no certificate in PEM form that can be read: {error}", next_step=NEXT) from None
    except FileNotFoundError as error:
        raise ConfigError(f"{what}: there is no file {error.filename}", next_step=NEXT) from None
    found = C2paCertificateAndKey(chain, key, command)
    if problems := problems_with_signing_certificate(found, datetime.datetime.now(datetime.UTC)):
        raise ConfigError(f"{what} cannot sign content credentials:", problems, NEXT)
    return found


def read_content_credentials_private_key(config: Config, path: Path, content: bytes) -> Any:
    """The private key in `credentials_key=`, else in the file of the certificate. Raises ConfigError."""
    given = Path(config.credentials_key).expanduser() if config.credentials_key else path
    try:
        return serialization.load_pem_private_key(given.read_bytes() if config.credentials_key else content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        why = "its private key is encrypted" if isinstance(error, TypeError) else "holds no private key in PEM form"
        step = "name it with credentials_key=FILE, or a command that signs with credentials_command=."
        raise ConfigError(f"{files.display_path(given)} {why}", next_step=step) from None


def problems_with_signing_certificate(found: C2paCertificateAndKey, now: datetime.datetime) -> list[str]:
    """Sentences on why a certificate cannot sign content credentials at the time `now`; [] if nothing speaks against
    it.
    """
    leaf, problems = found.chain[0], []
    if found.key is not None and public_key_der(found.key.public_key()) != public_key_der(leaf.public_key()):
        problems.append("the private key is not the one of the certificate")
    if not leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc:
        problems.append(f"it is valid from {leaf.not_valid_before_utc:%Y-%m-%d} to {leaf.not_valid_after_utc:%Y-%m-%d}")
    if not set(USES) & set(key_usage_oids(leaf)):
        problems.append(f"its extended key usage must be one of {', '.join(USES.values())}")
    if not found.c2pa_signature_algorithm:
        problems.append("its key must be of a curve P-256, P-384 or P-521, Ed25519, or RSA")
    if found.command and not found.c2pa_signature_algorithm.startswith("ES"):
        problems.append("a command signs with keys of a curve alone (ECDSA)")
    return problems


def key_usage_oids(certificate: x509.Certificate) -> list[str]:
    """The OIDs of what the key of a certificate may be used for."""
    try:
        value = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return [use.dotted_string for use in value]


def public_key_der(key: Any) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def private_key_pem(key: Any) -> bytes:
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key.private_bytes(*form)


def new_key_and_test_certificate_pem() -> bytes:
    """A new key and its certificate, by an authority whose key nobody keeps, as one PEM file. Its name says what it is.

    The profile is the one that C2PA asks for.
    """
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    leaf, authority = (build_test_certificate_for_key(key, keys[1]) for key in keys)
    return private_key_pem(keys[0]) + b"".join(
        one.public_bytes(serialization.Encoding.PEM) for one in (leaf, authority)
    )


def build_test_certificate_for_key(key: Any, issuer_key: Any) -> x509.Certificate:
    """A certificate for `key`, signed by `issuer_key`, whose name says that it vouches for nobody.

    It is valid from today. If both keys are the same object, it is the certificate of the authority itself.
    """
    is_authority = key is issuer_key
    names = []
    for name in ("test authority" if is_authority else "test signer", "test authority"):
        parts = {NameOID.ORGANIZATION_NAME: TEST_NAME, NameOID.COMMON_NAME: name}
        names.append(x509.Name([x509.NameAttribute(oid, text) for oid, text in parts.items()]))
    usage = (not is_authority, False, False, False, False, is_authority, is_authority, False, False)
    today = datetime.datetime.combine(files.today_in_utc(), datetime.time(), datetime.UTC)
    made = x509.CertificateBuilder(names[1], names[0], key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(today).not_valid_after(today + datetime.timedelta(days=TEST_DAYS))
    made = made.add_extension(x509.BasicConstraints(is_authority, None), critical=True)
    made = made.add_extension(x509.KeyUsage(*usage), critical=True)
    made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    above = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    made = made.add_extension(above, critical=False)
    if not is_authority:
        made = made.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    return made.sign(issuer_key, hashes.SHA256())
