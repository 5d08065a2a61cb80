#!/usr/bin/env python3
"""Check a package of stylegate with Python 3.9 or later and openssl:  python3 verify.py [FOLDER]

Prints what is proven, what is not, and everything that is wrong. Ends with 0 if nothing is wrong, else with 1."""

import hashlib
import json
import os
import re
import runpy
import shutil
import stat
import subprocess
import sys
from pathlib import Path

MANIFEST, TAGMANIFEST = "manifest-sha256.txt", "tagmanifest-sha256.txt"  # of data/, and of the files beside it
SIGNER, MERKLE, INCLUSION = "signer.pub.pem", "proof/merkle.json", "proof/inclusion.jsonl"
PROVENANCE, METADATA = "data/provenance.json", "data/metadata/erc721"
PARTS = ("traits", "marks", "certificate", "statement")  # verify_traits.py and so on
UNLISTED = {TAGMANIFEST, f"{TAGMANIFEST}.sig"}  # a manifest cannot hold its own digest
CLAIMED = "labels, scores, digests of models, date, rights, and that pictures show their traits: the maker states them"


def sha256(path):
    """The sha256 (hex) of a file, read in parts."""
    digest = hashlib.sha256()
    with open(path, "rb", 0) as file:  # noqa: PTH123  (faster than Path.open on many small files)
        for part in iter(lambda: file.read(1 << 20), b""):
            digest.update(part)
    return digest.hexdigest()


def read_manifest(folder, name, wrong):
    """sha256 by file name, as a manifest lists them; else a sentence in `wrong`."""
    path = folder / name
    text = path.read_bytes().decode(errors="replace") if path.is_file() and os.access(path, os.R_OK) else ""
    listed = {file: digest for digest, file in re.findall(r"^([0-9a-f]{64})  (.+)$", text, re.MULTILINE)}
    if not text or text != "".join(f"{digest}  {file}\n" for file, digest in listed.items()):
        wrong.append(f"{name} is missing, may not be read, or has a line that is not a checksum and a name")
    return listed


def check_files(folder, wrong):
    """Compare every file with the manifests. Returns the sha256 of each file that they list, by name."""
    listed = {**read_manifest(folder, MANIFEST, wrong), **read_manifest(folder, TAGMANIFEST, wrong)}
    present = {}  # whether it is a plain file, by name; of folders only those that hold nothing, with / at their end
    for place, folders, names in os.walk(folder, onerror=lambda e: wrong.append(f"{e.filename}: {e.strerror}")):
        below = "" if place == str(folder) else f"{Path(place).relative_to(folder).as_posix()}/"
        for name in names + [name for name in folders if (Path(place) / name).is_symlink()]:
            present[below + name] = os.access(at := f"{place}/{name}", os.R_OK) and stat.S_ISREG(os.lstat(at).st_mode)
        present |= {} if names or folders else {below or "./": True}
    wrong += [f"{name}: no plain file, or it may not be read" for name in sorted(present) if not present[name]]
    wrong += [f"{name}: missing" for name in sorted(listed.keys() - present.keys())]
    added = present.keys() - listed.keys() - UNLISTED if MANIFEST in present else ()  # without it: every file
    wrong += [f"{name}: added" for name in sorted(added) if present[name]]
    plain = sorted(name for name in listed.keys() & present.keys() if present[name])
    wrong += [f"{name}: changed" for name in plain if sha256(f"{folder}/{name}") != listed[name]]
    return listed


def verified_by_openssl(key, file, signature):
    """Whether openssl verifies the signature of a file (paths, all three); None where openssl is not installed."""
    words = [shutil.which("openssl"), "dgst", "-sha256", "-verify", str(key), "-signature", str(signature), str(file)]
    return subprocess.run(words, capture_output=True, stdin=subprocess.DEVNULL).returncode == 0 if words[0] else None


def check_signature(folder, wrong, is_signed):
    """(proven, not proven) by the signatures of the two manifests: sentences; is_signed gives None if unknown."""
    if not (folder / SIGNER).is_file():
        wrong += [f"{path.name}: a signature, but {SIGNER} is missing" for path in sorted(folder.glob("*.s*sig"))]
        return [], ["who made the package: it is not signed, and whoever can write it can make another that holds"]
    files = [(folder / name, folder / f"{name}.sig") for name in (MANIFEST, TAGMANIFEST)]
    answers = [is_signed(folder / SIGNER, file, sig) if sig.is_file() else False for file, sig in files]
    no = [(file.name, sig.name) for (file, sig), answer in zip(files, answers) if answer is False]  # noqa: B905
    wrong += [f"{sig}: missing, or not the signature of {file} by the key in {SIGNER}" for file, sig in no]
    if None in answers:
        return [], ["the signatures: there is no openssl here to check them with"]
    left = f"whose key it is: compare the fingerprint (sha256 of {SIGNER}) with what the sender told you in another way"
    return [f"both manifests are signed by the key with fingerprint {'' if wrong else sha256(folder / SIGNER)}"], [left]


def leaf_hash(item, image_sha256, metadata_sha256):
    """The leaf of an item: its number and the digests of picture and metadata, after 0x00 (RFC 6962)."""
    return hashlib.sha256(b"\x00" + f"{item}\n{image_sha256}\n{metadata_sha256}\n".encode()).digest()


def merkle_root_from_path(leaf, index, size, path):
    """The root to which an inclusion path leads from leaf `index` of `size`. Raises ValueError for a wrong length."""
    if size == 1 and not path:
        return leaf
    if size == 1 or not path:
        raise ValueError("the path has another length")
    split = 1 << ((size - 1).bit_length() - 1)
    if index < split:
        pair = merkle_root_from_path(leaf, index, split, path[:-1]) + path[-1]
    else:
        pair = path[-1] + merkle_root_from_path(leaf, index - split, size - split, path[:-1])
    return hashlib.sha256(b"\x01" + pair).digest()


def check_items_and_merkle_root(folder, listed, wrong):
    """Compute the Merkle root from every item, compare counts and items. Returns sentences on what is proven."""
    tree, rows = json.loads((folder / MERKLE).read_text()), (folder / INCLUSION).read_bytes().splitlines()
    images, hashes, traits, size = {}, "", {}, len(rows)
    for index, row in enumerate(map(json.loads, rows)):
        image, metadata = f"data/{row['file']}", f"{METADATA}/{row['id']}.json"
        images[row["id"]] = image
        hashes += row["image_sha256"]
        if (row["image_sha256"], row["metadata_sha256"]) != (listed.get(image), listed.get(metadata)):
            wrong.append(f"{INCLUSION}: item {row['id']} is not {image} with {metadata}")
        leaf = leaf_hash(row["id"], row["image_sha256"], row["metadata_sha256"])
        if merkle_root_from_path(leaf, index, size, [bytes.fromhex(one) for one in row["path"]]).hex() != tree["root"]:
            wrong.append(f"{INCLUSION}: the path of item {row['id']} does not lead to the root in {MERKLE}")
        token = json.loads((folder / metadata).read_bytes())
        traits[row["id"]] = {entry["trait_type"]: entry["value"] for entry in token["attributes"]}
    if len(images) != size or sorted(images.values()) != sorted(n for n in listed if n.startswith("data/images/")):
        wrong.append(f"{INCLUSION} and data/images/ do not hold the same pictures")
    if (tree["size"], tree["concatenated_sha256"]) != (size, hashlib.sha256(hashes.encode()).hexdigest()):
        wrong.append(f"{MERKLE}: size or concatenated_sha256 is not that of the items")
    counts = json.loads((folder / PROVENANCE).read_text())["counts"]
    if counts["in"] != sum(counts[name] for name in ("accept", "review", "reject", "error")):
        wrong.append(f"{PROVENANCE}: {counts['in']} in is not the sum of the verdicts")
    if not counts["exported"] == size <= counts["accept"]:
        wrong.append(f"{PROVENANCE}: {counts['exported']} exported, {counts['accept']} accepted, {size} here")
    parts = [runpy.run_path(str(Path(__file__).with_name(f"verify_{name}.py"))) for name in PARTS]
    proven = [f"{size} pictures and their metadata lead to the Merkle root {tree['root']}"]
    parts[0]["check_token_metadata_formats_agree"](folder, images, wrong)
    proven += parts[0]["check_plan_and_rarity"](folder, traits, wrong) + parts[1]["check_marks"](folder, wrong)
    return proven + parts[2]["check_promise"](folder, wrong) + parts[3]["check_in_toto_statement"](folder, wrong)


def check_received_package(folder, is_signed=verified_by_openssl):
    """(proven, not proven, wrong): sentences on the package in `folder`."""
    listed = check_files(folder, wrong := [])
    proven, unproven = check_signature(folder, wrong, is_signed)
    if not wrong:
        proven.insert(0, f"{len(listed)} files are byte for byte those of the manifests, none is missing or added")
        try:
            proven += check_items_and_merkle_root(folder, listed, wrong)
        except (ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError) as error:
            wrong.append(f"metadata, {INCLUSION}, {MERKLE} or {PROVENANCE} is not as stylegate writes it: {error!r}")
    return proven, [*unproven, CLAIMED], wrong


if __name__ == "__main__":
    proven, unproven, wrong = check_received_package(Path(sys.argv[1] if sys.argv[1:] else Path(__file__).parent))
    lines = [f"WRONG: {line}" for line in wrong] or [f"proven: {line}" for line in proven]
    print("\n".join(lines + [f"NOT proven: {line}" for line in unproven]))
    sys.exit(1 if wrong else 0)
