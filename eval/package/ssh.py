"""Signatures that `ssh-keygen -Y verify` checks (OpenSSH's PROTOCOL.sshsig), by the key that signs packages."""

import base64
import hashlib
import textwrap
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from eval.package.signature import PrivateKey, sign

KIND = b"ecdsa-sha2-nistp256"
MAGIC, NAMESPACE, HASH = b"SSHSIG", b"file", b"sha256"
IDENTITY = "stylegate"  # the name that stands for the key in signer.ssh.pub


def openssh_public_key(key: PrivateKey) -> bytes:
    """The public half of `key` as OpenSSH writes it: its kind ("ecdsa-sha2-nistp256"), a space, base64."""
    form = (serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return key.public_key().public_bytes(*form)


def allowed_signer_line(key: PrivateKey) -> str:
    """The line of signer.ssh.pub, which `ssh-keygen` takes as a list of allowed signers."""
    return f'{IDENTITY} namespaces="{NAMESPACE.decode()}" {openssh_public_key(key).decode()}\n'


def is_allowed_signer_line_of_key(line: str, signer: Path) -> bool:
    """Whether a line of allowed signers, as `allowed_signer_line` writes it, names the public key (PEM) in a file."""
    try:
        public = serialization.load_pem_public_key(signer.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm):
        return False
    form = (serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return line.endswith(f" {public.public_bytes(*form).decode()}\n") and line.count("\n") == 1


def openssh_signature(key: PrivateKey, content: bytes) -> str:
    """The signature of `content` in the armoured form of OpenSSH."""
    blob = base64.b64decode(openssh_public_key(key).split()[1])
    signed = MAGIC + b"".join(map(ssh_string, (NAMESPACE, b"", HASH, hashlib.sha256(content).digest())))
    numbers = b"".join(ssh_string(ssh_mpint(number)) for number in decode_dss_signature(sign(key, signed)))
    parts = (blob, NAMESPACE, b"", HASH, ssh_string(KIND) + ssh_string(numbers))
    whole = MAGIC + (1).to_bytes(4, "big") + b"".join(map(ssh_string, parts))
    lines = "\n".join(textwrap.wrap(base64.b64encode(whole).decode(), 70))
    return f"-----BEGIN SSH SIGNATURE-----\n{lines}\n-----END SSH SIGNATURE-----\n"


def ssh_string(content: bytes) -> bytes:
    """Bytes after their length in 4 bytes (RFC 4251, section 5)."""
    return len(content).to_bytes(4, "big") + content


def ssh_mpint(number: int) -> bytes:
    """A positive number in as few bytes as hold it with a sign bit (RFC 4251, section 5)."""
    return number.to_bytes(number.bit_length() // 8 + 1, "big")
