"""Renders art by working designers, the ground of tests.bench.real, from packages of the npm registry.

    python -m tests.bench.realstyles FOLDER         about 2 minutes; needs node, npm and the network

Writes 192 pictures (64 x 64 pixels, RGB on white) of each of 9 avatar styles of @dicebear/collection into
FOLDER/avatars/STYLE/, and of 9 icon sets of @iconify/json into FOLDER/icons/SET/, each with metadata.jsonl (what an
icon is called), and FOLDER/LICENCES.md. The same versions give the same pictures.
"""

import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from PIL import Image

from stylegate import files
from tests.bench.real import HANDS, TEST
from train.miniature.foreign import rendered_icon_set, rendered_svgs

DICEBEAR, ICONIFY, COUNT = "9.4.3", "2.2.535", 192
AVATARS = ["bigSmile", "bottts", "dylan", "funEmoji", "miniavs", "notionists", "openPeeps", "personas", "thumbs"]
SCRIPT = """
import { createAvatar } from '@dicebear/core';
import * as collection from '@dicebear/collection';
import fs from 'fs';
const [styles, count] = [JSON.parse(process.argv[2]), Number(process.argv[3])];
for (const style of styles) {
  const drawn = [];
  for (let i = 0; i < count; i++) {
    const chosen = { seed: `${style}-${i}`, size: 256, backgroundColor: ['ffffff'] };
    drawn.push(createAvatar(collection[style], chosen).toString());
  }
  fs.writeFileSync(`${style}.json`, JSON.stringify({ drawn, meta: collection[style].meta ?? {} }));
}
"""


def fetch(work: Path) -> Path:
    """Install DiceBear in `work` and draw its avatars there as SVG; returns the archive of all icon sets."""
    work.mkdir(parents=True, exist_ok=True)
    (work / "package.json").write_text('{"type": "module"}')
    (work / "avatars.mjs").write_text(SCRIPT)
    dicebear = [f"@dicebear/{part}@{DICEBEAR}" for part in ("core", "collection")]
    subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--silent", *dicebear], cwd=work, check=True)
    subprocess.run(["npm", "pack", "--silent", f"@iconify/json@{ICONIFY}"], cwd=work, check=True, stdout=sys.stderr)
    subprocess.run(["node", "avatars.mjs", json.dumps(AVATARS), str(COUNT)], cwd=work, check=True)
    return work / f"iconify-json-{ICONIFY}.tgz"


def write(folder: Path, drawn: Iterator[tuple[str, Image.Image]]) -> None:
    """Write the first COUNT pictures on white, and a row of each."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i, (name, picture) in enumerate(islice(drawn, COUNT)):
        ground = Image.new("RGBA", picture.size, "white")
        Image.alpha_composite(ground, picture).convert("RGB").save(folder / f"{i:04}.png")
        rows.append({"file_name": f"{i:04}.png", "text": name.replace("-", " ")})
    files.write_jsonl(folder / "metadata.jsonl", rows)


def main() -> int:
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    out = Path(sys.argv[1])
    archive, licences = fetch(out / ".npm"), ["# Who made what", ""]
    for style in AVATARS:
        found = json.loads((out / ".npm" / f"{style}.json").read_text())
        write(out / "avatars" / style, rendered_svgs((style, svg) for svg in found["drawn"]))
        meta = found["meta"]
        licences.append(f"- avatars/{style}: {meta['title']} by {meta['creator']}, {meta['license']['name']}")
    with tarfile.open(archive) as sets:
        for name in sorted({*TEST, *HANDS}):
            member = sets.extractfile(f"package/json/{name}.json")
            assert member, name
            icons = json.load(member)
            write(out / "icons" / name, rendered_icon_set(icons))
            info = icons["info"]
            licences.append(f"- icons/{name}: {info['name']} by {info['author']['name']}, {info['license']['spdx']}")
    (out / "LICENCES.md").write_text("\n".join(licences) + "\n")
    print(f"{len(AVATARS)} avatar styles and {len({*TEST, *HANDS})} icon sets: {out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
