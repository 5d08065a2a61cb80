"""The key that signs packages (ECDSA on the curve P-256, with SHA-256), and signatures by it.

Signatures are deterministic (RFC 6979): the same content and key give the same bytes.
"""

import hashlib
import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from stylegate import files
from stylegate.errors import ConfigError

PrivateKey = ec.EllipticCurvePrivateKey
KEY = files.HOME / "keys" / "package.pem"  # made when it is first used; whoever has it can sign in your name
MAKE = "openssl ecparam -name prime256v1 -genkey -noout -out KEY.pem makes one; key=none leaves a package unsigned."


def signing_key(given: str | None) -> PrivateKey | None:
    """The private key that `key=` names; by default that of STYLEGATE_HOME, which is made, with a printed note, if
    there is none; None for key=none.

    Raises ConfigError for a file that is no unencrypted private key of the curve P-256.
    """
    if given == "none":
        return None
    if given is None and not KEY.exists():
        write_new_signing_key(KEY)
        print(f"note: a key that signs your packages was made: {files.display_path(KEY)}; keep it, and keep it secret")
    path = KEY if given is None else Path(given).expanduser()
    try:
        found = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except FileNotFoundError:
        raise ConfigError(f"key={given}: there is no such file", next_step=MAKE) from None
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        what = "is encrypted" if isinstance(error, TypeError) else "is no private key in PEM form"
        raise ConfigError(f"{files.display_path(path)} {what}", next_step=MAKE) from None
    if not isinstance(found, PrivateKey) or not isinstance(found.curve, ec.SECP256R1):
        raise ConfigError(f"{files.display_path(path)} is no key of the curve P-256", next_step=MAKE)
    return found


def write_new_signing_key(path: Path) -> None:
    """Write a new private key that only its owner may read. Of several processes at once the first one's stays."""
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_secret_once(path, ec.generate_private_key(ec.SECP256R1()).private_bytes(*form))


def write_secret_once(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, whole or not at all. One that is there by then stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    draft.touch(mode=0o600)
    try:
        draft.write_bytes(content)
        path.hardlink_to(draft)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def public_pem(key: PrivateKey) -> bytes:
    """The public key, as `openssl dgst -verify` reads it."""
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def public_fingerprint(key: PrivateKey) -> str:
    """The sha256 of signer.pub.pem, by which people compare keys."""
    return hashlib.sha256(public_pem(key)).hexdigest()


def sign(key: PrivateKey, content: bytes) -> bytes:
    """The signature of `content`, in DER form."""
    return key.sign(content, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))


def is_file_signed_by_key(key: Path, file: Path, signature: Path) -> bool:
    """Whether the file `signature` holds a signature of `file` by the public key (PEM) in the file `key`."""
    try:
        return is_valid_signature(key, file.read_bytes(), signature.read_bytes())
    except OSError:
        return False


def is_valid_signature(key: Path, content: bytes, signature: bytes) -> bool:
    """Whether `signature` (DER) is one of `content` by the public key (PEM) in the file `key`."""
    try:
        found = serialization.load_pem_public_key(key.read_bytes())
        if not isinstance(found, ec.EllipticCurvePublicKey):
            return False
        found.verify(signature, content, ec.ECDSA(hashes.SHA256()))
    except (OSError, ValueError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True
