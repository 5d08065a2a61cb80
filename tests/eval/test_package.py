"""A package in the hands of its receiver: every way of checking it, and what each of them sees."""

import base64
import hashlib
import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from PIL import Image

from eval.package import receiver, signature
from eval.package.bag import SCRIPTS, STATEMENT
from eval.package.merkle import merkle_root_and_paths
from eval.package.proof import check_package
from eval.package.statement import in_toto_statement_problem
from eval.package.verify_statement import check_in_toto_statement
from stylegate import files
from stylegate.errors import ConfigError
from tests.conftest import command
from tests.eval.packages import made_anew, make_package, names_in, provenance_of
from tests.eval.tampering import KINDS


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_package(tmp_path_factory.mktemp("package"))


@pytest.fixture
def package(exported: Path, tmp_path: Path) -> Path:
    return shutil.copytree(exported, tmp_path / "acme-v1")


def told(*words: str, folder: Path) -> tuple[int, str]:
    """What a program says of a package in whose folder it runs."""
    found = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=60)
    return found.returncode, found.stdout + found.stderr


def test_every_line_of_verify_md_runs(package: Path) -> None:
    text = (package / "VERIFY.md").read_text()
    commands = re.findall(r"^    (.+)$", text, re.MULTILINE)
    assert len(commands) == 8, "python, openssl twice, ssh-keygen, sha256sum three times, the commitment"
    for line in commands:
        if line.startswith("ssh-keygen") and not shutil.which("ssh-keygen"):
            continue
        code, said = told("bash", "-c", line, folder=package)
        assert code == 0, said
        if line.startswith("openssl"):
            assert "Verified OK" in said
        if line.startswith("ssh-keygen"):
            assert 'Good "file" signature for stylegate' in said
    assert (
        told("bash", "-c", "sha256sum signer.pub.pem", folder=package)[1].split()[0]
        in told(sys.executable, "verify.py", folder=package)[1]
    )
    assert told(sys.executable, "-m", "bagit", "--validate", "--quiet", ".", folder=package)[0] == 0


def test_the_receivers_script_is_short_and_needs_nothing(package: Path) -> None:
    for name in SCRIPTS:
        lines = (package / name).read_text().splitlines()
        modules = {line.split()[1].split(".")[0] for line in lines if line.startswith(("import ", "from "))}
        assert len(lines) <= 150 and modules <= sys.stdlib_module_names
    code, said = told(sys.executable, "-I", str(package / "verify.py"), folder=package.parent)
    assert code == 0 and said.count("\nNOT proven: ") == 2 and said.count("proven: ") == 7, said
    (package / "data" / "provenance.json").unlink()
    code, said = told(sys.executable, "verify.py", folder=package)
    assert code == 1 and said.startswith("WRONG: data/provenance.json: missing\n") and "\nproven" not in said
    (package / receiver.MANIFEST).unlink()
    code, said = told(sys.executable, "verify.py", folder=package)
    assert code == 1 and f"WRONG: {receiver.MANIFEST}: missing\n" in said and ": added" not in said, said


def test_no_tampering_is_unseen(package: Path) -> None:
    """By `stylegate verify` and by verify.py, and named with its file; `make prove` tries 10,000."""
    draw = random.Random(0)
    for number in range(100):
        kind = KINDS[number % len(KINDS)]
        name, undo = kind(package, draw)
        for wrong in (check_package(package)[2], receiver.check_received_package(package)[2]):
            assert any(name in line for line in wrong), (number, kind.__name__, name, wrong)
        undo()
    assert check_package(package)[2] == [] == receiver.check_received_package(package)[2]


def test_what_cannot_be_read_is_wrong(package: Path, refused: set[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """What was added in such a folder would be passed over, by `stylegate verify` and by verify.py."""
    locked, picture = package / "data" / "more", next((package / "data" / "images").iterdir())
    locked.mkdir()
    (locked / "added.png").write_bytes(b"x")
    refused.add(locked)
    for wrong in (check_package(package)[2], receiver.check_received_package(package)[2]):
        assert wrong == [f"{locked}: Permission denied"]
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != picture)
    said = receiver.check_received_package(package)[2]
    assert said[1:] == [f"data/images/{picture.name}: no plain file, or it may not be read"]
    for name in (receiver.MANIFEST, receiver.TAGMANIFEST, receiver.SIGNER):
        monkeypatch.setattr(os, "access", lambda path, _, name=name: Path(path).name != name)
        assert any(line.startswith(f"{name}: no plain file") for line in receiver.check_received_package(package)[2]), (
            name
        )


def test_the_statement_is_signed_as_dsse_says(package: Path, tmp_path: Path) -> None:
    """And names what the package was made from; openssl checks it over the bytes that the specification gives."""
    envelope = json.loads((package / "proof" / "statement.dsse.json").read_text())
    payload, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"].encode()
    (tmp_path / "pae").write_bytes(b" ".join([b"DSSEv1", b"%d" % len(kind), kind, b"%d" % len(payload), payload]))
    (tmp_path / "sig").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    assert receiver.verified_by_openssl(package / "signer.pub.pem", tmp_path / "pae", tmp_path / "sig")
    statement = json.loads(payload)
    assert statement["subject"][0]["digest"]["sha256"] == files.sha256_of_file(package / "manifest-sha256.txt")
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    made = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    policy = provenance_of(package)["judged_by"]["policy"]["sha256"]
    assert {"name": "policy", "digest": {"sha256": policy}} in made
    signer = package / "signer.pub.pem"
    for change in ({"payload": "e30="}, {"signatures": []}, {"payload": base64.b64encode(payload + b" ").decode()}):
        assert in_toto_statement_problem(envelope | change, package / "manifest-sha256.txt", signer), change
    assert not in_toto_statement_problem(envelope, package / "manifest-sha256.txt", signer)


def test_sha256sum_sees_what_it_can(package: Path) -> None:
    picture = next((package / "data" / "images").iterdir())
    picture.write_bytes(b"x")
    (package / "data" / "more").write_bytes(b"x")
    code, said = told("sha256sum", "--quiet", "-c", "manifest-sha256.txt", folder=package)
    assert code == 1 and picture.name in said and "more" not in said


def test_who_has_not_the_key_can_make_only_an_unsigned_package(package: Path, exported: Path) -> None:
    record = provenance_of(package)
    record["judged_by"]["encoder"] = "a better one"
    (package / "data" / "provenance.json").write_text(json.dumps(record))
    made_anew(package)
    proven, unproven, wrong = check_package(package)
    assert not wrong and not any("signed by" in line for line in proven)
    assert any("it is not signed" in line for line in unproven)
    for name in ("signer.pub.pem", "manifest-sha256.txt.sig", "tagmanifest-sha256.txt.sig"):
        shutil.copy(exported / name, package)
    for wrong in (check_package(package)[2], receiver.check_received_package(package)[2]):
        assert (
            "manifest-sha256.txt.sig: missing, or not the signature of manifest-sha256.txt by the key in signer.pub.pem"
            in wrong
        )


def test_a_statement_of_another_package_or_another_key_is_seen_by_the_script(package: Path) -> None:
    whole, key = (package / STATEMENT).read_bytes(), (package / "signer.pub.pem").read_bytes()
    envelope = json.loads(whole)

    def problems(statement: bytes, signer: bytes | None = key) -> list[str]:
        (package / STATEMENT).write_bytes(statement)
        (package / "signer.pub.pem").unlink(missing_ok=True)
        if signer:
            (package / "signer.pub.pem").write_bytes(signer)
        check_in_toto_statement(package, wrong := [])
        return [line.removeprefix(f"{STATEMENT}: ") for line in wrong]

    assert not problems(whole)
    other = signature.public_pem(ec.generate_private_key(ec.SECP256R1()))
    assert problems(whole, other) == ["it is not signed by the key in signer.pub.pem"]
    assert problems(json.dumps(envelope | {"payloadType": "application/json"}).encode()) == [
        "it is not signed by the key in signer.pub.pem"  # the type is signed too
    ]
    for statement, signer in ((whole, None), (json.dumps(envelope | {"signatures": []}).encode(), key)):
        assert problems(statement, signer)[0] == "it has not one signature for each key in signer.pub.pem"
    (package / "manifest-sha256.txt").write_text("")
    assert problems(whole) == ["it speaks of another manifest-sha256.txt"]


def test_without_openssl_the_script_says_what_it_did_not_check(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    proven, unproven, wrong = receiver.check_received_package(package)
    assert not wrong and len(proven) == 3 and "there is no openssl here" in unproven[0]


@pytest.mark.parametrize("leaves", [1, 2, 3, 5, 7, 8, 13])
def test_the_tree_is_that_of_rfc_6962(leaves: int) -> None:
    def hash_of(part: list[bytes]) -> bytes:  # section 2.1, word for word
        if len(part) == 1:
            return part[0]
        k = max(2**i for i in range(9) if 2**i < len(part))
        return hashlib.sha256(b"\x01" + hash_of(part[:k]) + hash_of(part[k:])).digest()

    given = [receiver.leaf_hash(i, "a" * 64, "b" * 64) for i in range(leaves)]
    assert given[0] == hashlib.sha256(b"\x000\n" + b"a" * 64 + b"\n" + b"b" * 64 + b"\n").digest()
    root, paths = merkle_root_and_paths(given)
    assert root == hash_of(given)
    for index, (leaf, path) in enumerate(zip(given, paths, strict=True)):
        assert receiver.merkle_root_from_path(leaf, index, leaves, path) == root
        if path:
            assert receiver.merkle_root_from_path(given[index - 1], index, leaves, path) != root
            with pytest.raises(ValueError):
                receiver.merkle_root_from_path(leaf, index, leaves, path[1:])


def test_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signature, "KEY", tmp_path / "keys" / "package.pem")
    own = signature.signing_key(None)
    assert own and (tmp_path / "keys" / "package.pem").stat().st_mode & 0o777 == 0o600
    again = signature.signing_key(None)
    assert again and signature.sign(own, b"x") == signature.sign(again, b"x"), "the same key, the same signature"
    signature.write_new_signing_key(signature.KEY)
    third = signature.signing_key(None)
    assert third and signature.public_pem(own) == signature.public_pem(third), "a key that is there stays"
    assert signature.signing_key("none") is None
    made = subprocess.run(
        ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", tmp_path / "acme.pem"], check=False
    )
    assert made.returncode == 0 and isinstance(
        signature.signing_key(str(tmp_path / "acme.pem")), ec.EllipticCurvePrivateKey
    )
    (tmp_path / "words.pem").write_text("words")
    subprocess.run(["openssl", "genrsa", "-out", tmp_path / "rsa.pem", "2048"], check=True, capture_output=True)
    secret = [
        "openssl",
        "ec",
        "-in",
        tmp_path / "acme.pem",
        "-aes128",
        "-passout",
        "pass:x",
        "-out",
        tmp_path / "shut.pem",
    ]
    subprocess.run(secret, check=True, capture_output=True)
    for name, says in (
        ("nowhere", "there is no such file"),
        ("words", "no private key"),
        ("rsa", "no key of the curve P-256"),
        ("shut", "is encrypted"),
    ):
        with pytest.raises(ConfigError, match=says):
            signature.signing_key(str(tmp_path / f"{name}.pem"))


def test_another_key_makes_another_version(run, judged: Path, tmp_path: Path) -> None:
    words = (f"images={judged}", f"out={tmp_path / 'out'}", "name=keyed")
    run("gate", *words)
    assert "keyed-v1 " in run("export", *words)[1] and "keyed-v1 " in run("export", *words)[1]
    assert "keyed-v2 " in run("export", *words, "key=none")[1] and "keyed-v2 " in run("export", *words, "key=none")[1]
    code, text = run("verify", str(files.EXPORTS / "keyed-v2"))
    assert code == 0 and "  not proven: who made the package: it is not signed" in text


def test_what_did_not_change_keeps_its_bytes_and_its_place_on_the_disk(run, judged: Path, tmp_path: Path) -> None:
    """In a new version; but never from a package that somebody else may have written."""
    words = (f"images={judged}", f"out={tmp_path / 'out'}", "name=living")

    def exported(*more: str) -> tuple[Path, dict[str, tuple[str, int]]]:
        assert run("gate", *words)[0] in (0, 11)
        assert run("export", *words, *more)[0] == 0
        package = max(files.EXPORTS.glob("living-v*"))
        items = [path for path in (package / "data").rglob("*") if path.name[0].isdigit()]
        return package, {
            path.relative_to(package).as_posix(): (files.sha256_of_file(path), path.stat().st_ino) for path in items
        }

    first, before = exported()
    changed = sorted(judged.glob("*.png"))[3]
    Image.open(changed).convert("RGB").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(changed)
    second, after = exported()
    new = [name for name in after if before.get(name) != after[name]]
    assert sorted(new) == [f"data/images/{changed.name}", "data/records/3.json"]
    record = second / "data" / "records" / "2.json"
    forged = record.read_text().replace('"distinct": ', '"distinct": 9')
    record.unlink()
    record.write_text(forged)
    assert forged != (first / "data" / "records" / "2.json").read_text()
    for more in ((), ("key=none",)):
        third, _ = exported(*more)
        assert not check_package(third)[2] and third not in (first, second)
        assert '"distinct": 9' not in (third / "data" / "records" / "2.json").read_text()


def test_a_disk_that_refuses_to_take_more_leaves_no_package(run, judged: Path, tmp_path: Path) -> None:
    """The kernel's file-size limit stops the first picture half way: one message, exit 2, nothing left behind."""
    words = (f"images={judged}", f"out={tmp_path / 'out'}", "name=limited", "key=none")
    assert run("gate", *words)[0] == 0
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, before[1]))  # bytes
    try:
        code, text = run("export", *words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 2 and "file-size limit" in text and "Traceback" not in text, text
    assert not list(files.EXPORTS.glob("*limited*")) and run("export", *words)[0] == 0


@pytest.mark.parametrize(("mount", "says"), [("size=64k", "no space left"), ("ro", "read-only")])
def test_a_full_disk_and_a_read_only_folder_are_one_message(
    run, judged: Path, tmp_path: Path, mount: str, says: str
) -> None:
    """Real ones, in a mount namespace of its own; a system that allows none leaves this to the test above."""
    words = (f"images={judged}", f"out={tmp_path / 'out'}", "key=none")
    assert run("gate", *words)[0] == 0
    files.EXPORTS.mkdir(parents=True, exist_ok=True)
    mounted = ["unshare", "-m", "sh", "-c", f'mount -t tmpfs -o {mount} none {files.EXPORTS} && exec "$@"', "sh"]
    if subprocess.run([*mounted, "true"], capture_output=True).returncode:
        pytest.skip("mount namespaces are not allowed here")
    source = "source_type=trainedAlgorithmicMedia"
    done = subprocess.run(
        [*mounted, *command("export", *words, source, "name=x")], cwd=files.ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not list(files.EXPORTS.iterdir())


def test_nothing_leaves_that_lay_where_the_package_is_built(run, judged: Path, tmp_path: Path) -> None:
    """A link there is not followed: its pictures were judged by nobody."""
    words = (f"images={judged}", f"out={tmp_path / 'out'}", "name=lurked", "key=none")
    assert run("gate", *words)[0] == 0
    (tmp_path / "elsewhere" / "data").mkdir(parents=True)
    (tmp_path / "elsewhere" / "data" / "more.png").write_bytes(b"x")
    files.EXPORTS.mkdir(parents=True, exist_ok=True)
    (files.EXPORTS / ".lurked.partial").symlink_to(tmp_path / "elsewhere")
    code, text = run("export", *words)
    assert code == 2 and ".lurked.partial cannot be removed" in text and not list(files.EXPORTS.glob("lurked*"))
    assert [path.name for path in (tmp_path / "elsewhere" / "data").iterdir()] == ["more.png"]


def test_two_exporters_at_once_make_one_package(run, judged: Path, tmp_path: Path) -> None:
    words = (f"images={judged}", f"out={tmp_path / 'out'}", "name=once", "source_type=trainedAlgorithmicMedia")
    assert run("gate", *words[:3])[0] == 0
    both = [subprocess.Popen(command("export", *words), cwd=files.ROOT, stderr=subprocess.PIPE) for _ in range(2)]
    ended = [(process.communicate()[1], process.returncode) for process in both]
    assert 0 in [code for _, code in ended]
    assert all(code == 0 or (code == 2 and b"another stylegate is at work" in said) for said, code in ended), ended
    (package,) = files.EXPORTS.iterdir()
    assert package.name == "once-v1" and not check_package(package)[2]


def test_rebase_changes_the_address_alone(run_exactly, package: Path, tmp_path: Path) -> None:
    out = tmp_path / "metadata"
    code, text = run_exactly("rebase", str(package), "ipfs://CID/images/", str(out))
    assert code == 0 and text.endswith("metadata\n")
    for path in sorted((package / "data" / "metadata").rglob("*.json")):
        new = json.loads((out / path.relative_to(package / "data" / "metadata")).read_text())
        assert new["image"].startswith("ipfs://CID/images/00")
        assert json.dumps(new).replace("ipfs://CID/images/", "../../images/") == json.dumps(
            json.loads(path.read_text())
        )
    assert told("sha256sum", "--quiet", "-c", "SHA256SUMS", folder=out) == (0, "")
    assert run_exactly("rebase", str(package), "ipfs://CID", str(out))[0] == 2, "never into a folder that exists"
    assert run_exactly("rebase", str(package), "no address", str(tmp_path / "new"))[0] == 2
    next((package / "data" / "images").iterdir()).unlink()
    code, text = run_exactly("rebase", str(package), "ipfs://CID", str(tmp_path / "new"))
    assert code == 2 and ": missing" in text and not (tmp_path / "new").exists()


def test_a_package_of_the_older_form_is_still_verified(run_exactly, package: Path, tmp_path: Path) -> None:
    old = tmp_path / "old-v1"
    shutil.copytree(package / "data" / "images", old / "images")
    shutil.copy(package / "data" / "provenance.json", old)
    names = names_in(package)
    rows = [{"file_name": f"images/{n}", "sha256": files.sha256_of_file(old / "images" / n)} for n in names]
    files.write_jsonl(old / "metadata.jsonl", rows)
    plain = sorted(path for path in old.rglob("*") if path.is_file())
    lines = [f"{files.sha256_of_file(path)}  {path.relative_to(old).as_posix()}\n" for path in plain]
    (old / "manifest-sha256.txt").write_text("".join(lines))
    code, text = run_exactly("verify", str(old))
    assert code == 0 and "holds, 8 pictures" in text and "not signed and has no Merkle root" in text
    (old / "images" / names[0]).write_bytes(b"x")
    (old / "more").write_bytes(b"x")
    code, text = run_exactly("verify", str(old))
    assert code == 2 and f"images/{names[0]}: changed" in text and "more: added" in text
