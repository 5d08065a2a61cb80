"""Content credentials (C2PA): signed, kept, read again, and what is said of each state. Nothing asks a network."""

import datetime
import io
import shutil
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import c2pa
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID
from PIL import Image

from eval.package import marking, marks, receiver, signing_certificate, verify_marks
from eval.package.credentials import (
    C2paPictureSigner,
    c2pa_context,
    c2pa_manifest_to_sign,
    read_c2pa_credentials_of_picture,
    shortest_replacement,
)
from eval.package.marking import decodes_to_same_picture
from eval.package.proof import check_package
from eval.package.signing_certificate import C2paCertificateAndKey, new_key_and_test_certificate_pem, private_key_pem
from eval.package.xmp import UnmarkableError, picture_file_with_source_type
from stylegate import files
from tests.eval.packages import made_anew
from tests.eval.test_marks import AI_MADE, FILES, lot, saved, told_by_pillow

__all__ = ["lot"]  # a fixture
MANIFEST = c2pa_manifest_to_sign(AI_MADE, True, {"judged_sha256": "a" * 64, "seed": 7})


def read_pem(content: bytes) -> C2paCertificateAndKey:
    return C2paCertificateAndKey(
        x509.load_pem_x509_certificates(content), serialization.load_pem_private_key(content, None)
    )


OURS = read_pem(new_key_and_test_certificate_pem())


@pytest.fixture(scope="module")
def signer() -> C2paPictureSigner:
    return C2paPictureSigner(OURS)


@pytest.mark.parametrize("kind", FILES)
def test_signed_files_are_whole_and_no_pixel_moves(kind: str, signer: C2paPictureSigner) -> None:
    before = picture_file_with_source_type(FILES[kind], "trainedAlgorithmicMedia", drawn_here=True)
    signed = signer.signed_picture_bytes(before, MANIFEST)
    assert decodes_to_same_picture(FILES[kind], signed) and told_by_pillow(signed)["DigitalSourceType"] == AI_MADE
    found = read_c2pa_credentials_of_picture(signed, c2pa_context({}))
    assert (found.state, found.signer, found.source_types) == ("Valid", OURS.organisation_of_signer, (AI_MADE,))
    authority = OURS.chain[1].public_bytes(serialization.Encoding.PEM).decode()
    assert read_c2pa_credentials_of_picture(signed, c2pa_context({"user_anchors": authority})).state == "Trusted"
    part = shortest_replacement(before, signed)
    assert part.bytes_after_replacement(before) == signed and len(part.inserted) < 5000, "what is kept is small"
    with c2pa.Reader.try_create(c2pa_type(signed), io.BytesIO(signed)) as reader:  # type: ignore[union-attr]
        assertions = {a["label"]: a["data"] for a in reader.get_active_manifest()["assertions"]}  # type: ignore[index]
    assert assertions["org.stylegate.made-from"] == {"judged_sha256": "a" * 64, "seed": 7}


def c2pa_type(content: bytes) -> str:
    with Image.open(io.BytesIO(content)) as image:
        return image.get_format_mimetype() or ""


def test_a_changed_picture_is_told_and_so_is_a_saved_one(signer: C2paPictureSigner) -> None:
    signed = signer.signed_picture_bytes(FILES["PNG"], MANIFEST)
    changed = bytearray(signed)
    changed[signed.index(b"IDAT") + 9] ^= 1
    found = read_c2pa_credentials_of_picture(bytes(changed), c2pa_context({}))
    assert (found.state, found.is_picture_as_signed) == (
        "Invalid",
        False,
    ) and "assertion.dataHash.mismatch" in found.why
    again = saved(Image.open(io.BytesIO(signed)), "PNG")
    assert read_c2pa_credentials_of_picture(again, c2pa_context({})).state == ""
    assert read_c2pa_credentials_of_picture(signed[:400], c2pa_context({})).state in ("", "Invalid")


def test_a_certificate_that_ends_does_not_break_what_it_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    """C2PA then says Invalid of a whole picture, since nobody proved when it was signed. We say both."""
    now = datetime.datetime.now(datetime.UTC)
    ends = now.replace(microsecond=0) + datetime.timedelta(seconds=2)
    monkeypatch.setattr(
        signing_certificate,
        "TEST_DAYS",
        (ends - now.replace(hour=0, minute=0, second=0, microsecond=0)) / datetime.timedelta(days=1),
    )
    signed = C2paPictureSigner(read_pem(new_key_and_test_certificate_pem())).signed_picture_bytes(
        FILES["PNG"], MANIFEST
    )
    assert read_c2pa_credentials_of_picture(signed, c2pa_context({})).state == "Valid"
    time.sleep((ends - datetime.datetime.now(datetime.UTC)).total_seconds() + 1)
    found = read_c2pa_credentials_of_picture(signed, c2pa_context({}))
    assert (found.state, found.is_picture_as_signed) == ("Invalid", True) and "signingCredential.expired" in found.why


def written(path: Path, *parts: bytes) -> str:
    path.write_bytes(b"".join(parts))
    return str(path)


def test_an_export_signs_each_picture_once(run, lot: tuple[str, ...], tmp_path: Path) -> None:
    gate = (*lot, f"policy={tmp_path / 'policy.yaml'}")
    (tmp_path / "lot" / "bmp.bmp").unlink()
    assert run("gate", *gate)[0] == 0
    code, text = run("export", *lot)
    assert (
        code == 0 and "3 have content credentials (C2PA) signed by a test certificate, which vouches for nobody" in text
    )
    assert "marked-v1 " in run("export", *lot)[1], "signed once: the same bytes, the same package"
    first = files.EXPORTS / "marked-v1"
    code, text = run("verify", str(first))
    assert code == 0 and "content credentials are Valid in 3 pictures: whole, and signed by the holder" in text
    assert "compliant" not in text
    report = files.read_json(first / "proof" / "marks.json", "the report")
    assert report["signed"] == {OURS.organisation_of_signer: 3} and report["unmarked"] == report["lost"] == 0
    kept = {path.name: path.read_bytes() for path in (first / "data" / "images").iterdir()}

    picture = next((tmp_path / "lot").glob("*.png"))
    Image.open(picture).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(picture)
    assert run("gate", *gate)[0] == 0 and "marked-v2 " in run("export", *lot)[1]
    for path in (files.EXPORTS / "marked-v2" / "data" / "images").iterdir():
        assert (path.read_bytes() == kept[path.name]) == (path.name != picture.name), "signatures of others are kept"

    trust = written(
        tmp_path / "ca.pem",
        signing_certificate.OWN.read_bytes().split(b"-----END CERTIFICATE-----\n")[1],
        b"-----END CERTIFICATE-----\n",
    )
    assert "content credentials are Trusted in 3 pictures" in run("verify", str(first), f"trust={trust}")[1]


def test_a_certificate_of_ones_own_signs_by_key_and_by_command(run, lot: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "lot" / "bmp.bmp").unlink()
    assert run("gate", *lot, f"policy={tmp_path / 'policy.yaml'}")[0] == 0
    chain = written(tmp_path / "chain.pem", OURS.chain_pem())
    key = written(tmp_path / "its key.pem", private_key_pem(OURS.key))
    assert run("export", *lot, f"credentials={chain}", f"credentials_key={key}")[0] == 0
    command = f"credentials_command=openssl dgst -sha256 -sign '{key}'"
    assert run("export", *lot, f"credentials={chain}", command, "name=by-command")[0] == 0
    for name in ("marked-v1", "by-command-v1"):
        assert run("verify", str(files.EXPORTS / name))[0] == 0


def test_a_certificate_that_cannot_sign_is_one_clear_error(
    run, lot: tuple[str, ...], tmp_path: Path, monkeypatch
) -> None:
    chain = OURS.chain_pem()
    other = private_key_pem(read_pem(new_key_and_test_certificate_pem()).key)
    secret = serialization.BestAvailableEncryption(b"x")
    shut = OURS.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret)
    with monkeypatch.context() as patch:
        patch.setattr(signing_certificate, "TEST_DAYS", 1)
        patch.setattr(files, "today_in_utc", lambda: datetime.date(2020, 1, 1))
        ended = new_key_and_test_certificate_pem()
    with monkeypatch.context() as patch:
        patch.setattr(ExtendedKeyUsageOID, "EMAIL_PROTECTION", ExtendedKeyUsageOID.SERVER_AUTH)
        server = new_key_and_test_certificate_pem()
    for content, words, says in (
        (chain + other, (), "the private key is not the one of the certificate"),
        (ended, (), "valid from 2020-01-01 to 2020-01-02"),
        (server, (), "its extended key usage must be one of emailProtection"),
        (OURS.chain[1].public_bytes(serialization.Encoding.PEM), ("credentials_command=false",), "extended key usage"),
        (chain + shut, (), "its private key is encrypted"),
        (chain, (), "holds no private key in PEM form"),
        (b"words", (), "no certificate in PEM form"),
        (chain, (f"credentials_key={tmp_path / 'nowhere'}",), "there is no file"),
        (chain, ("credentials_command=false",), "ended with exit code 1"),
        (chain, ("credentials_command=/nowhere/sign",), "/nowhere/sign made no signature: "),
        (chain, ("credentials_command=echo x",), "echo made no signature: "),
    ):
        code, text = run("export", *lot, f"credentials={written(tmp_path / 'given.pem', content)}", *words)
        assert code == 2 and says in text and text.count("error: ") == 1 and "Traceback" not in text, text
    assert run("export", *lot, "credentials=/nowhere.pem")[0] == 2
    assert run("export", *lot, "marks=xmp", "credentials=/nowhere.pem")[0] == 2, "a key that is not read is refused"
    assert not list(files.EXPORTS.glob("*"))


def test_each_picture_has_the_reason_of_its_own(tmp_path: Path) -> None:
    """Of a command that fails once: not that of a picture before it, or of one that another thread signs."""
    once = f"test -e '{tmp_path}/asked' && exec cat || touch '{tmp_path}/asked'; echo no card >&2; exit 3"
    signer = C2paPictureSigner(C2paCertificateAndKey(OURS.chain, None, ("sh", "-c", once)))
    with pytest.raises(UnmarkableError, match="sh made no signature: it ended with exit code 3: no card"):
        signer.signed_picture_bytes(FILES["PNG"], MANIFEST)
    with pytest.raises(UnmarkableError, match=r"sh made no signature: (?!.*no card)"):
        signer.signed_picture_bytes(FILES["PNG"], MANIFEST)
    with pytest.raises(UnmarkableError, match="C2PA cannot sign it"):
        signer.signed_picture_bytes(FILES["PNG"][:40], MANIFEST)


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """The address of a server on this machine, and the requests that it got."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_port}", asked
        found.shutdown()


def test_nobody_is_asked_over_a_network(server: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for a manifest that lies elsewhere, nor whether a certificate was revoked."""
    address, asked = server
    description = x509.AccessDescription(AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(address))
    made = x509.CertificateBuilder.sign

    def with_address(self: x509.CertificateBuilder, *given, **words) -> x509.Certificate:
        return made(self.add_extension(x509.AuthorityInformationAccess([description]), False), *given, **words)

    monkeypatch.setattr(x509.CertificateBuilder, "sign", with_address)
    signer = C2paPictureSigner(read_pem(new_key_and_test_certificate_pem()))
    assert (
        read_c2pa_credentials_of_picture(signer.signed_picture_bytes(FILES["PNG"], MANIFEST), c2pa_context({})).state
        == "Valid"
    )
    elsewhere = io.BytesIO()
    with c2pa.Builder(MANIFEST, signer.context) as builder:
        builder.set_no_embed()
        builder.set_remote_url(f"{address}/manifest")
        builder.sign(signer.signer_with_key, "image/png", io.BytesIO(FILES["PNG"]), elsewhere)
    assert address.encode() in elsewhere.getvalue()
    assert read_c2pa_credentials_of_picture(elsewhere.getvalue(), c2pa_context({})).state in ("", "Invalid")
    assert not asked


def test_marks_are_told_of_any_folder_and_what_outlives_an_attack(
    run, lot, signer: C2paPictureSigner, tmp_path: Path
) -> None:
    place = tmp_path / "any"
    place.mkdir()
    typed = {kind: picture_file_with_source_type(FILES[kind], "digitalArt", False) for kind in ("PNG", "JPEG")}
    signed = signer.signed_picture_bytes(typed["PNG"], MANIFEST)
    contents = {"bare.webp": FILES["WebP"], "typed.jpg": typed["JPEG"], "signed.png": signed}
    for name, content in contents.items():
        (place / name).write_bytes(content)
    code, text = run("marks", str(place), "attack=true")
    assert (
        code == 0
        and "of 3 pictures 2 say that they are digitalArt, 1 say that they are trainedAlgorithmicMedia" in text
    )
    assert "1 have content credentials (C2PA) signed by a test certificate" in text and "1 have neither" in text
    assert "content credentials are Valid in 1 pictures" in text and "compliant" not in text
    left = [line.strip() for line in text.splitlines() if line.startswith("  after ")]
    assert len(left) == 3 and all(line.endswith("0 have whole credentials") for line in left), left
    changed = bytearray(signed)
    changed[signed.index(b"IDAT") + 9] ^= 1
    (place / "changed.png").write_bytes(changed)
    code, text = run("marks", str(place))
    assert code == 0 and "broken: " in text and "changed.png: " in text and "dataHash.mismatch" in text
    assert run("marks", str(place), "attak=true")[0] == 2 and run("marks")[0] == 2
    assert run("marks", str(place / "typed.jpg"))[0] == 2 and run("marks", str(place), "trust=/nowhere")[0] == 2


def test_the_receivers_script_sees_marks_and_misses_them(run, lot: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "lot" / "bmp.bmp").unlink()
    assert run("gate", *lot, f"policy={tmp_path / 'policy.yaml'}")[0] == 0 and run("export", *lot)[0] == 0
    package, wrong = files.EXPORTS / "marked-v1", []
    seen = "3 of 3 pictures name a source type (trainedAlgorithmicMedia), 3 hold content credentials (C2PA)"
    assert any(seen in line for line in receiver.check_received_package(package)[0])
    picture = next((package / "data" / "images").glob("*.png"))
    Image.open(picture).save(picture)
    assert (
        "2 of 3 pictures name a source type (trainedAlgorithmicMedia), 2 hold"
        in verify_marks.check_marks(package, wrong)[0]
        and wrong
    )
    # Whoever can write the whole package, and has not the key, cannot say of bare pictures that they are signed.
    made_anew(package)
    for problems in (check_package(package)[2], [run("verify", str(package))[1]]):
        assert any("content credentials" in line for line in problems), problems
    # Nor is less looked at, or more said, where the report is left out.
    (package / "proof" / "marks.json").unlink()
    broken = next(path for path in (package / "data" / "images").iterdir() if path != picture)
    content = bytearray(broken.read_bytes())
    content[-9] ^= 1  # of the pixels or of what follows them
    broken.write_bytes(content)
    proven, unproven, wrong = marks.check_credentials_and_watermarks(
        package, sorted((package / "data" / "images").iterdir())
    )
    assert "of 3 pictures 2 say that they are" in proven[0] and "watermark" not in proven[0]
    assert unproven[0].startswith("whether the pixels hold a watermark: nobody looked")
    assert unproven[-1] == "which marks the pictures left with: the package has no proof/marks.json"
    assert len(wrong) == 1 and f"images/{broken.name}: its content credentials are broken" in wrong[0]


def test_what_the_cache_of_signatures_holds_is_no_proof(
    run, lot: tuple[str, ...], tmp_path: Path, signer: C2paPictureSigner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kept file is read back as a new one is: another picture does not leave, however well it is signed."""
    (tmp_path / "lot" / "bmp.bmp").unlink()
    assert run("gate", *lot, f"policy={tmp_path / 'policy.yaml'}")[0] == 0 and run("export", *lot)[0] == 0
    shutil.rmtree(files.EXPORTS)
    other = signer.signed_picture_bytes(saved(Image.new("RGB", (48, 48), "red"), "PNG"), MANIFEST)
    monkeypatch.setattr(marking, "signed_file_from_cache", lambda before, row: other)
    code, text = run("export", *lot)
    assert code == 2 and "its marks would change its pixels" in text and not list(files.EXPORTS.glob("*-v1"))
    # Nor does the same picture with a statement of another one, or of another source type.
    monkeypatch.setattr(
        marking, "signed_file_from_cache", lambda before, row: signer.signed_picture_bytes(before, MANIFEST)
    )
    code, text = run("export", *lot)
    assert code == 2 and "its content credentials are of another picture, seed or model" in text
    bare = [path.read_bytes() for path in (tmp_path / "lot").iterdir()]

    def typed_otherwise(before: bytes, row: object) -> bytes:
        content = next(content for content in bare if decodes_to_same_picture(content, before))
        return signer.signed_picture_bytes(picture_file_with_source_type(content, "humanEdits", False), MANIFEST)

    monkeypatch.setattr(marking, "signed_file_from_cache", typed_otherwise)
    code, text = run("export", *lot)
    assert code == 2 and "as its source type" in text and not list(files.EXPORTS.glob("*-v1"))
