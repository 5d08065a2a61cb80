"""Content credentials (C2PA) in a picture's file: a signed statement of how the picture was made. No pixel changes.

No network is ever used: no manifest is fetched, no revocation asked for (OCSP), no time stamp ordered. Part of every
signature is random (c2pa-rs 0.91), so the same picture is never signed alike twice.
"""

import io
import subprocess
from bisect import bisect_left
from collections.abc import Mapping
from functools import cached_property, partial
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from eval.package.signing_certificate import NEXT, USES, C2paCertificateAndKey
from eval.package.xmp import UnmarkableError, is_webp
from stylegate import __version__
from stylegate.errors import ConfigError
from stylegate.pictures import PNG_START

ENDED = {"signingCredential.expired", "signingCredential.untrusted"}
MADE_FROM = "org.stylegate.made-from"  # label of our own assertion
AGENT = {"name": "stylegate", "version": __version__}
COMMAND_S = 60  # seconds that a command may take for one signature
OFFLINE = {  # c2pa's settings
    "builder": {"thumbnail": {"enabled": False}},  # one would be larger than a small picture
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_after_sign": False},  # files are read back
    "core": {"allowed_network_hosts": []},
}


class ContentCredentialsOfPicture(NamedTuple):
    """The content credentials of a picture's file."""

    state: str = ""  # "" for none; else as C2PA says: Trusted, Valid (whole, by a signer that is not known), Invalid
    signer: str = ""  # the organisation that the certificate names
    source_types: tuple[str, ...] = ()  # addresses of IPTC's source types that the statement names
    why: str = ""  # of Invalid: what is wrong, in C2PA's words
    made_from: Mapping[str, Any] = {}  # our own assertion: what the picture was made from

    @property
    def is_picture_as_signed(self) -> bool:
        """Whether the picture is the one that was signed. A certificate that has ended since changes nothing of it."""
        return self.state in ("Trusted", "Valid") or (bool(self.why) and set(self.why.split(", ")) <= ENDED)


class C2paPictureSigner:
    """Signs pictures with one certificate, from several threads at once."""

    def __init__(self, certificate: C2paCertificateAndKey) -> None:
        self.certificate = certificate
        self.context = c2pa_context({})

    @cached_property
    def signer_with_key(self) -> Any:
        """The signer of c2pa's library that has the private key. Raises ConfigError for a certificate that C2PA
        refuses.
        """
        return self.new_c2pa_signer([])

    def new_c2pa_signer(self, problems: list[str]) -> Any:
        """A signer of c2pa's library, by the certificate's command or else its key. What goes wrong in the command is
        added to `problems`: c2pa does not hand it on.

        Raises ConfigError for a certificate that C2PA refuses.
        """
        import c2pa

        algorithm = getattr(c2pa.C2paSigningAlg, self.certificate.c2pa_signature_algorithm)
        chain = self.certificate.chain_pem()
        try:
            if self.certificate.command:
                sign = partial(self.c2pa_signature_by_command, problems)
                return c2pa.Signer.from_callback(sign, algorithm, chain.decode())
            key = self.certificate.private_key_as_pem()
            return c2pa.Signer.from_info(c2pa.C2paSignerInfo(algorithm, chain, key, None))  # type: ignore[arg-type]
        except c2pa.C2paError as error:
            raise ConfigError(f"C2PA refuses the certificate: {error}", next_step=NEXT) from None

    def c2pa_signature_by_command(self, problems: list[str], content: bytes) -> bytes:
        """The signature that the command makes of its input, in the form of C2PA: the two numbers of ECDSA.

        b"" if it makes none: then `problems` has one more.
        """
        command, public = self.certificate.command, self.certificate.chain[0].public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey)
        size = (public.curve.key_size + 7) // 8
        try:
            done = subprocess.run(command, input=content, capture_output=True, timeout=COMMAND_S)
            if done.returncode:
                raise ValueError(f"it ended with exit code {done.returncode}: {done.stderr.decode(errors='replace')}")
            return b"".join(number.to_bytes(size) for number in decode_dss_signature(done.stdout))
        except (OSError, OverflowError, ValueError, subprocess.TimeoutExpired) as error:
            problems.append(f"{command[0]} made no signature: {error}")
            return b""

    def signed_picture_bytes(self, content: bytes, manifest: dict[str, Any]) -> bytes:
        """The bytes of a picture's file with content credentials that state `manifest`.

        Raises UnmarkableError if the file cannot be signed, ConfigError for a certificate that C2PA refuses.
        """
        import c2pa

        signed = io.BytesIO()
        problems: list[str] = []  # of this picture alone: several threads sign at once
        signer = self.new_c2pa_signer(problems) if self.certificate.command else self.signer_with_key
        try:
            with c2pa.Builder(manifest, self.context) as builder:
                builder.sign(signer, media_type_of(content), io.BytesIO(content), signed)
        except c2pa.C2paError as error:
            raise UnmarkableError(problems[0] if problems else f"C2PA cannot sign it: {error}") from None
        return signed.getvalue()


def c2pa_context(trust: dict[str, str]) -> Any:
    """A context of c2pa's library that uses no network; `trust` has c2pa's trust settings, such as
    user_anchors (PEM).
    """
    import c2pa

    return c2pa.Context.from_dict(OFFLINE | {"trust": {"trust_config": "\n".join(USES)} | trust})


def c2pa_manifest_to_sign(source_type: str, drawn_here: bool, made_from: dict[str, Any]) -> dict[str, Any]:
    """The C2PA manifest that is signed: the source type (an address of IPTC), and what the picture was made from.

    `drawn_here` also names stylegate as the program that made it.
    """
    created: dict[str, Any] = {"action": "c2pa.created", "digitalSourceType": source_type}
    if drawn_here:
        created["softwareAgent"] = AGENT
    return {
        "claim_generator_info": [AGENT],
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": [created]}},
            {"label": MADE_FROM, "data": made_from},
        ],
    }


def read_c2pa_credentials_of_picture(content: bytes, context: Any) -> ContentCredentialsOfPicture:
    """The content credentials of a picture's file, as C2PA's library reads and checks them."""
    import c2pa

    if b"c2pa" not in content:  # the label of every manifest store
        return ContentCredentialsOfPicture()
    try:
        reader = c2pa.Reader.try_create(media_type_of(content), io.BytesIO(content), context=context)
        if reader is None:
            return ContentCredentialsOfPicture()
        with reader:
            manifest, results = reader.get_active_manifest() or {}, reader.get_validation_results() or {}
            state = str(reader.get_validation_state())
    except (c2pa.C2paError, UnmarkableError) as error:
        return ContentCredentialsOfPicture("Invalid", why=str(error))
    failed = [str(entry["code"]) for entry in results.get("activeManifest", {}).get("failure", [])]
    signer = manifest.get("signature_info", {}).get("issuer", "")
    why = ", ".join(dict.fromkeys(failed)) if state == "Invalid" else ""
    assertions = manifest.get("assertions", [])
    made_from = next((a.get("data") for a in assertions if a.get("label") == MADE_FROM), None)
    return ContentCredentialsOfPicture(state, signer, source_types_in_c2pa_manifest(manifest), why, made_from or {})


def source_types_in_c2pa_manifest(manifest: dict[str, Any]) -> tuple[str, ...]:
    """The digital source types (addresses of IPTC) that the actions of a C2PA manifest name, each once."""
    data = [a.get("data") for a in manifest.get("assertions", []) if a.get("label", "").startswith("c2pa.actions")]
    actions = [action for entry in data if isinstance(entry, dict) for action in entry.get("actions", [])]
    return tuple(dict.fromkeys(action["digitalSourceType"] for action in actions if "digitalSourceType" in action))


def media_type_of(content: bytes) -> str:
    """The media type of a picture by its content. Raises UnmarkableError for another format than PNG, JPEG and WebP."""
    if content.startswith(PNG_START):
        return "image/png"
    if content.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if is_webp(content):
        return "image/webp"
    raise UnmarkableError("it is no PNG, JPEG or WebP")


class ByteReplacement(NamedTuple):
    """A difference between two byte strings: `inserted` replaces the bytes from `start` to `end`."""

    start: int
    end: int
    inserted: bytes

    def bytes_after_replacement(self, content: bytes) -> bytes:
        """The content with the replacement done."""
        return content[: self.start] + self.inserted + content[self.end :]


def shortest_replacement(before: bytes, after: bytes) -> ByteReplacement:
    """The replacement of one span, the shortest, that turns `before` into `after`."""
    shorter = min(len(before), len(after))
    same = bisect_left(range(1, shorter + 1), True, key=lambda n: before[:n] != after[:n])
    tails = range(1, shorter - same + 1)
    tail = bisect_left(tails, True, key=lambda n: before[-n:] != after[-n:])
    return ByteReplacement(same, len(before) - tail, after[same : len(after) - tail])
