"""Packages of somebody who writes all of them anew, manifests and tree included, and says in them what is not so."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from eval.package import living, receiver, ssh, verify_traits
from eval.package.bag import write_manifest
from eval.package.label_heads import LABEL_HEADS, check_label_rows_match_package_hashes
from eval.package.layout import TABLE
from eval.package.proof import check_package, problems_with_ssh_form_of_signer_key
from stylegate import files
from tests.eval.packages import made_anew, make_package

KINDS = ("erc721/{}.json", "erc1155/{:064x}.json", "metaplex/{}.json")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_package(tmp_path_factory.mktemp("forged"))


@pytest.fixture
def package(exported: Path, tmp_path: Path) -> Path:
    return shutil.copytree(exported, tmp_path / "acme-v1")


def edit(package: Path, item: int, change: Callable[[dict], object], kinds: tuple[str, ...] = KINDS) -> None:
    """Change what metadata say of an item."""
    for kind in kinds:
        path = package / "data" / "metadata" / kind.format(item)
        token = json.loads(path.read_bytes())
        change(token)
        path.write_text(json.dumps(token))


def show_another_picture(package: Path) -> None:
    other = json.loads((package / "data" / "metadata" / "erc721" / "1.json").read_bytes())["image"]
    edit(package, 0, lambda token: token.update(image=other))


def say_a_trait_twice(package: Path) -> None:
    edit(
        package, 0, lambda token: token.update(attributes=[{"trait_type": "hat", "value": v} for v in ("cap", "crown")])
    )


def say_another_trait_to_some(package: Path) -> None:
    edit(package, 0, lambda token: token.update(attributes=[{"trait_type": "hat", "value": "crown"}]), KINDS[2:])


def describe_an_item_that_is_not_here(package: Path) -> None:
    place = package / "data" / "metadata" / "metaplex"
    shutil.copy(place / "0.json", place / "99.json")


def give_two_pictures_one_number(package: Path) -> None:
    rows = files.read_jsonl(package / receiver.INCLUSION)
    files.write_jsonl(package / receiver.INCLUSION, [*rows[:-1], rows[-1] | {"id": rows[0]["id"]}])


def rank_an_item_twice(package: Path) -> None:
    found = [
        {"id": i, "rank": rank, "score": score}
        for i, (rank, score) in enumerate(verify_traits.rarity_ranks_and_scores([{}] * 8))
    ]
    files.write_jsonl(package / verify_traits.RARITY, [found[0] | {"rank": 7}, *found])


def hide_slots_in_the_salt(package: Path) -> None:
    """The hash that was published stays the same: salt and plan are one after the other in it."""
    rows = [json.dumps({"slot": slot, "traits": {}}) + "\n" for slot in (8, 9, *range(8))]
    salt = b"s" * 32 + "".join(rows[:2]).encode()
    commit(package, salt, rows[2:])


def plan_a_slot_twice(package: Path) -> None:
    commit(package, b"s" * 32, [json.dumps({"slot": slot, "traits": {}}) + "\n" for slot in (0, *range(8))])


def commit(package: Path, salt: bytes, rows: list[str]) -> None:
    (package / verify_traits.SALT).write_bytes(salt)
    (package / verify_traits.PLAN).write_text("".join(rows))
    opened = receiver.hashlib.sha256(salt + "".join(rows).encode()).hexdigest()
    (package / verify_traits.COMMITMENT).write_text(json.dumps({"commitment": opened, "slots": len(set(rows))}))


def write_no_table(package: Path) -> None:
    (package / "data" / TABLE).write_bytes(b"no parquet")


def leave_out_a_column(package: Path) -> None:
    pq.write_table(
        files.read_parquet_as_arrow_table(package / "data" / TABLE).drop(["sha256"]), package / "data" / TABLE
    )


def say_traits_as_text(package: Path) -> None:
    table = files.read_parquet_as_arrow_table(package / "data" / TABLE)
    pq.write_table(table.append_column("traits", pa.array(["a hat"] * len(table))), package / "data" / TABLE)


@pytest.mark.parametrize("forge", [write_no_table, leave_out_a_column, say_traits_as_text])
def test_a_damaged_table_is_one_sentence(package: Path, forge: Callable[[Path], None]) -> None:
    forge(package)
    made_anew(package)
    (wrong,) = check_package(package)[2]
    assert wrong.startswith("metadata.parquet is not as stylegate writes it: ")


def test_a_package_without_records_is_not_whole(package: Path) -> None:
    shutil.rmtree(package / "data" / "records")
    made_anew(package)
    assert check_package(package)[2] == ["records/ and metadata.parquet do not hold the same items"]


@pytest.mark.parametrize(
    ("forge", "says"),
    [
        (show_another_picture, "erc721/0.json: it shows another picture than that of item 0, data/images/"),
        (say_a_trait_twice, "erc721/0.json: a trait twice"),
        (say_another_trait_to_some, "erc721/0.json: a trait twice, or another one than in erc1155/ and metaplex/"),
        (describe_an_item_that_is_not_here, "metaplex/ does not describe the items, all of them and no others"),
        (give_two_pictures_one_number, "and data/images/ do not hold the same pictures"),
        (rank_an_item_twice, "rarity.jsonl: an item is there twice"),
        (hide_slots_in_the_salt, "commitment.json: it is not of proof/plan.jsonl"),
        (plan_a_slot_twice, "commitment.json: it is not of proof/plan.jsonl"),
    ],
)
def test_what_is_not_so_is_named(package: Path, forge: Callable[[Path], None], says: str) -> None:
    forge(package)
    made_anew(package)
    for wrong in (receiver.check_received_package(package)[2], check_package(package)[2]):
        assert any(says in line for line in wrong), wrong


def test_a_report_that_names_no_labels_proves_nothing(package: Path) -> None:
    (package / LABEL_HEADS).write_text("{}")
    assert check_label_rows_match_package_hashes(package, []) == ([], [], ["proof/labels.json names no row"])


def test_an_open_plan_without_tricks_holds(package: Path) -> None:
    commit(package, b"s" * 32, [json.dumps({"slot": slot, "traits": {}}) + "\n" for slot in range(10)])
    made_anew(package)
    proven, _, wrong = receiver.check_received_package(package)
    assert not wrong and any("8 of 10 planned slots are here" in line for line in proven)


def test_an_ssh_signature_alone_is_no_signature(package: Path, exported: Path) -> None:
    made_anew(package)
    names = [line.split("  ")[1] for line in (package / receiver.TAGMANIFEST).read_text().splitlines()]
    for name in ("signer.ssh.pub", "manifest-sha256.txt.sshsig"):
        shutil.copy(exported / name, package)
        names.append(name)
    write_manifest(package, receiver.TAGMANIFEST, names, None)
    assert receiver.check_received_package(package)[2] == [
        "manifest-sha256.txt.sshsig: a signature, but signer.pub.pem is missing",
    ]


def test_an_ssh_key_of_somebody_else_is_named(package: Path) -> None:
    """`ssh-keygen` would say "Good" by it, to whoever takes that step of VERIFY.md alone."""
    assert problems_with_ssh_form_of_signer_key(package) == []
    line = (package / "signer.ssh.pub").read_text()
    other = ssh.allowed_signer_line(ec.generate_private_key(ec.SECP256R1()))
    for forged in (other, line + other, other + line, ""):
        (package / "signer.ssh.pub").write_text(forged)
        assert problems_with_ssh_form_of_signer_key(package) == ["signer.ssh.pub: not the key in signer.pub.pem"], (
            forged
        )


def test_only_numbers_are_versions(tmp_path: Path) -> None:
    for name in (
        "acme-v1",
        "acme-v12",
        "acme-v01",
        "acme-v\u00b2",
        "acme-v\u0663",
        "acme-v1.zip",
        "acme-vx",
        "acme-v2-v3",
    ):
        (tmp_path / name).mkdir()
    assert [number for _, number in living.numbered_versions(tmp_path / "acme")] == [1, 12]
