"""Make data/foreign/foreign.parquet: small pictures in styles that are no brand of yours.

    python -m train.miniature.foreign iconify-json-2.2.535.tgz      (npm pack @iconify/json@2.2.535)

The gate holds a brand's references against these pictures, to learn what only the brand has. A row is a picture: its
`set`, its `name`, and `png`, 64 x 64 pixels with transparency, so that it can be laid on the brand's own ground. Sets
are the coloured icon sets of ICONS and our own collectibles in the styles that the miniature's base knows. The same
archive gives the same bytes. data/foreign/README.md names who made each set, and its licence.
"""

import io
import json
import sys
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import resvg_py
from PIL import Image

from eval.planning.slots import slots_from_traits
from eval.planning.traitsfile import read_traits_file
from stylegate import brandset, files
from stylegate.configgroups import PlanConfig
from train.miniature.drawing import render_collectible
from train.miniature.styles import NAMED

EACH, SIDE = 48, 64  # pictures of a set; pixels
OURS, SEED = "miniature-collectibles", 7300
# Sets that may be learned from. Sets that benchmarks are made of (tests/bench/real.py) never come in here.
ICONS = [
    "catppuccin", "devicon", "emojione", "fluent-color", "fluent-emoji-flat", "glyphs-poly", "icon-park",
    "material-icon-theme", "noto-v1", "streamline-color", "streamline-flex-color", "streamline-plump-color",
    "streamline-sharp-color", "streamline-stickies-color", "streamline-ultimate-color", "vscode-icons",
]  # fmt: skip
SPDX = {"MIT", "Apache-2.0", "CC-BY-4.0", "CC0-1.0"}  # all let pictures be passed on


def svgs_of_icon_set(icons: dict) -> Iterator[tuple[str, str]]:
    """Name and SVG of each visible icon of a set of @iconify/json, in an order that does not follow the alphabet."""
    names = [name for name, icon in icons["icons"].items() if not icon.get("hidden")]
    for name in sorted(names, key=lambda name: (zlib.crc32(name.encode()), name)):
        icon = icons["icons"][name]
        left, top = (icon.get(key, icons.get(key, 0)) for key in ("left", "top"))
        width, height = (icon.get(key, icons.get(key, 16)) for key in ("width", "height"))
        spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        box = f'viewBox="{left} {top} {width} {height}" width="256" height="256" color="#333"'
        yield name, f"<svg {spaces} {box}>{icon['body']}</svg>"


def rendered_svgs(svgs: Iterable[tuple[str, str]]) -> Iterator[tuple[str, Image.Image]]:
    """Name and RGBA picture (64 x 64 pixels) of each SVG. Those that are blank on white, or that resvg cannot draw, are
    left out.
    """
    for name, svg in svgs:
        try:
            png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=SIDE, height=SIDE))
        except Exception:  # a few icons use what the rasteriser does not know
            continue
        picture = Image.open(io.BytesIO(png)).convert("RGBA")
        on_white = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
        if on_white.getextrema() != ((255, 255),) * 3:
            yield name, picture


def rendered_icon_set(icons: dict) -> Iterator[tuple[str, Image.Image]]:
    """Name and RGBA picture (64 x 64 pixels) of each visible icon of a set of @iconify/json that can be drawn."""
    return rendered_svgs(svgs_of_icon_set(icons))


def rendered_collectibles() -> Iterator[tuple[str, Image.Image]]:
    """Yield name and RGB picture of collectibles, EACH of them, in the named styles of the miniature's base in turn."""
    traits = read_traits_file(files.ROOT / "data" / "traits" / "collectible.yaml")
    brand = brandset.read_brand_set(brandset.brand_folder("neon")).brand
    for i, slot in enumerate(slots_from_traits(traits, brand, PlanConfig(num_images=EACH, seed=SEED), set())):
        style = NAMED[i % len(NAMED)]
        yield f"{style.name}-{i}", render_collectible(slot.traits, style, slot.seed_of_attempt(0))


def foreign_picture_rows(name: str, pictures: Iterator[tuple[str, Image.Image]]) -> Iterator[dict]:
    """Yield rows of foreign.parquet: the first EACH pictures of the set `name`, as PNG."""
    for (called, picture), _ in zip(pictures, range(EACH), strict=False):
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", optimize=True)
        yield {"set": name, "name": called, "png": buffer.getvalue()}


def main() -> None:
    """Write data/foreign/foreign.parquet and its README.md from the icon archive that the first argument names."""
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    found: list[dict] = []
    sources = ["# Foreign pictures", ""]
    sources += [f"Made by `python -m train.miniature.foreign`, {EACH} pictures of each set, {SIDE} x {SIDE} pixels."]
    sources += ["The gate learns from them what only your brand has (docs/scores.md).", ""]
    sources += ["| set | name | by | licence |", "|---|---|---|---|"]
    with tarfile.open(sys.argv[1]) as archive:
        for name in ICONS:
            member = archive.extractfile(f"package/json/{name}.json")
            assert member, name
            icons = json.load(member)
            info = icons["info"]
            assert info["license"]["spdx"] in SPDX, f"{name}: {info['license']}"
            author = f"[{info['author']['name']}]({info['author']['url']})"
            sources.append(f"| {name} | {info['name']} | {author} | {info['license']['spdx']} |")
            found += foreign_picture_rows(name, rendered_icon_set(icons))
    found += foreign_picture_rows(OURS, rendered_collectibles())
    sources.append(f"| {OURS} | styles of the miniature's base | stylegate | that of this repository |")
    folder = files.ROOT / "data" / "foreign"
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(found), folder / "foreign.parquet", compression="zstd")
    Path(folder / "README.md").write_text("\n".join(sources) + "\n")
    print(f"{len(found)} pictures: {folder}")


if __name__ == "__main__":
    main()
