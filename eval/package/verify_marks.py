"""Which marks are seen in the pictures of a package: a part of verify.py, which Python alone runs, and of the tests.

Seen is not whole: a program for C2PA says whether content credentials fit the picture, as `stylegate verify` does.
"""

import json
import re
from pathlib import Path

MARKS = "proof/marks.json"
SEEN = "seen in the bytes of the files: "


def check_marks(folder: Path, wrong: list) -> list:
    """What is seen in the files of the pictures, as sentences; one in `wrong` if fewer hold content credentials than
    marks.json says.
    """
    if not (folder / MARKS).is_file():
        return []
    stated = json.loads((folder / MARKS).read_text())
    typed = signed = count = 0
    named: set = set()
    for path in (folder / "data" / "images").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            count += 1
            kinds = re.findall(rb"newscodes/digitalsourcetype/(\w+)", content)
            typed += bool(kinds)
            named.update(kind.decode() for kind in kinds)
            signed += b"c2pa.signature" in content
    if signed < sum(stated["signed"].values()):
        wrong.append(f"{MARKS}: it says of more than {signed} pictures that they have content credentials")
    if not typed + signed:
        return [f"{SEEN}none of {count} pictures names a source type or holds content credentials"]
    whole = "; whether these are whole, a C2PA program says" if signed else ""
    which = f" ({', '.join(sorted(named))})" if named else ""
    return [
        f"{SEEN}{typed} of {count} pictures name a source type{which}, {signed} hold content credentials (C2PA){whole}"
    ]
