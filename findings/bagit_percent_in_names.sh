#!/bin/bash
# What one would guess: bagit (the Library of Congress's bagit-python) validates every bag that follows BagIt 1.0 (RFC 8493), where a
#   percent sign, LF or CR in a file name is written in the manifest as %25, %0A, %0D.
# What is true (bagit 1.9.0): %25 is never decoded, so a bag whose picture is called `50%.png` and listed as `50%25.png` is reported as
#   incomplete; written raw, against the RFC, it is valid. Of %0A in one name only the first two are decoded: the decoder gives
#   re.IGNORECASE, which is 2, to re.sub as its count.
# Date: 2026-11-29. Source: this run; bagit.py (_encode_filename, _decode_filename).
# Why it matters: bags with such names cannot be exchanged with tools that follow the RFC, and `sha256sum -c` reads names in a third way.
#   Refuse such names before a bag is made.
# Exits with 1 if the behaviour has changed.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install -q setuptools bagit==1.9.0
"$place/venv/bin/python" - "$place" <<'PYTHON'
import hashlib
import sys
from pathlib import Path

import bagit


def is_valid(folder: Path, name: str, listed: str) -> bool:
    """Whether bagit accepts a bag with one file of this name, which its manifest lists as `listed`."""
    (folder / "data").mkdir(parents=True)
    (folder / "data" / name).write_bytes(b"x")
    (folder / "bagit.txt").write_text("BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n")
    (folder / "manifest-sha256.txt").write_text(f"{hashlib.sha256(b'x').hexdigest()}  data/{listed}\n")
    return bagit.Bag(str(folder)).is_valid()


place = Path(sys.argv[1])
found = {
    "plain name": is_valid(place / "a", "50.png", "50.png"),
    "percent as the RFC writes it": is_valid(place / "b", "50%.png", "50%25.png"),
    "percent as it is": is_valid(place / "c", "50%.png", "50%.png"),
    "two line feeds": is_valid(place / "d", "a\nb\nc", "a%0Ab%0Ac"),
    "three line feeds": is_valid(place / "e", "a\nb\nc\nd", "a%0Ab%0Ac%0Ad"),
}
print(bagit.VERSION, found)
raise SystemExit(list(found.values()) != [True, False, True, True, False])
PYTHON
