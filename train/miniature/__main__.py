"""Make the miniature from nothing: draw its world, train its parts, write checkpoints/miniature/ and data/brands/.

    python -m train.miniature                 all of it, in order: under two and a half hours on two cores
    python -m train.miniature vae clip        only these parts (what they need is made first)

Needs resvg_py (`pip install -e '.[miniature]'`). What was drawn and trained is kept in .cache/miniature/, so a stopped
run goes on where it was when the command is run again, and a part that is finished is not trained again; remove that
folder to begin anew.
"""

import sys
import time
from functools import cache
from typing import Any

try:
    import resvg_py  # noqa: F401
except ModuleNotFoundError:
    raise SystemExit(
        "resvg_py draws the miniature's world and is not installed: pip install -e '.[miniature]'"
    ) from None

from stylegate import files
from train.miniature import base, brands, clip, judge, knowledge, text, vae
from train.miniature.corpus import draw_or_read_corpus, draw_or_read_corpus_pixels

PLACE = files.MODELS / "miniature"

corpus = cache(draw_or_read_corpus)
tokenizer = cache(text.build_tokenizer)


@cache
def trained_vae() -> Any:
    return vae.train_vae(corpus("base").pixels, draw_or_read_corpus_pixels("textures"))


@cache
def trained_clip() -> Any:
    return clip.train_clip(corpus("base"), corpus("twins"), corpus("kin"), tokenizer())


def make_brands() -> None:
    brands.write_all_brands(files.ROOT / "data" / "brands")


def make_judge() -> None:
    judge.write_judge(judge.train_judge(corpus("judge"), trained_vae()))


def make_clip() -> None:
    clip.write_clip(PLACE / "clip", trained_clip(), tokenizer())
    knowledge.write_encoder_statistics_and_aesthetic_head(PLACE / "clip", trained_clip(), corpus("base"))


def make_base() -> None:
    unet, encoder = base.train_base(corpus("base"), trained_vae(), trained_clip(), tokenizer())
    base.write_base(PLACE / "sd", trained_vae(), unet, encoder, tokenizer())


PARTS = {"brands": make_brands, "vae": trained_vae, "judge": make_judge, "clip": make_clip, "base": make_base}


def main(wanted: list[str]) -> int:
    if {"-h", "--help"} & set(wanted):
        print(__doc__)
        return 0
    if unknown := [name for name in wanted if name not in PARTS]:
        print(f"There is no part named {', '.join(unknown)}. The parts are {', '.join(PARTS)}.", file=sys.stderr)
        return 2
    for name in wanted or PARTS:
        began = time.monotonic()
        PARTS[name]()
        print(f"{name}: done in {(time.monotonic() - began) / 60:.1f} min")
    brands = files.display_path(files.ROOT / "data" / "brands")
    print(f"The miniature is in {files.display_path(PLACE)}; its brands are in {brands}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
