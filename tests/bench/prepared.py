"""Are planted faults of a brand set found? 200 drawn pictures with 30 faults, for each demo brand.

    python -m tests.bench.prepared        about two minutes of one core

Five near-duplicates (moved by a pixel), five words in nearly all captions, three captions that the base's text encoder
cuts, four frames, five captions that changed places, four tiny files and four signatures are planted in pictures of 256
pixels (drawn at 64, enlarged by whole blocks); `stylegate brand` makes the set and what `stylegate check` says is
counted. At least 28 are to be found, with at most 3 false alarms.
"""

import re
import tempfile
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from eval.check import add_caption_and_split_remarks
from stylegate import brandcheck, brandset, files
from stylegate.brand import make_brand_set
from stylegate.captionfaults import words_in_most_captions
from stylegate.config import Config
from train.miniature.captions import PHRASES
from train.miniature.drawing import render_collectible
from train.miniature.styles import BRANDS
from train.miniature.world import random_traits

PICTURES, WANTED, FALSE_ALARMS, TIMES = 200, 28, 3, 4
PLANTED = {
    "near-duplicates": 5,
    "words in nearly all captions": 5,
    "cut captions": 3,
    "frames": 4,
    "captions of other pictures": 5,
    "tiny files": 4,
    "signatures": 4,
}
SIGNATURES = ("Anna Meyer 2024", "www.artshop.com", "(c) Studio Nine", "@pixelfox_art")
FUSED = ("cute", "lovely", "shiny", "little", "sweet")
LONG = ", standing there as if somebody had asked it to wait for a very long time" * 6


def caption(traits: dict[str, str], draw: Random) -> str:
    """What a person might write of a collectible."""
    seen = [draw.choice(PHRASES[t][v]) for t, v in traits.items() if t in PHRASES and v != "none"]
    return f"{traits['body']} {traits['species']}, {', '.join(seen[:3])}, {traits['background']} background"


def write_messy_folder(folder: Path, brand: str) -> dict[str, set[str]]:
    """Write the pictures and captions with faults; returns the file names, or words, of each kind of fault."""
    number = list(BRANDS).index(brand)
    draw, traits = Random(number), np.random.default_rng([77, number])
    names = [f"{n:03d}.png" for n in range(PICTURES)]
    images, texts = {}, {}
    for n, name in enumerate(names):
        row = random_traits(traits)
        image = render_collectible(row, BRANDS[brand], 5_000_000 + n)
        images[name] = image.resize((TIMES * image.width, TIMES * image.height), Image.Resampling.NEAREST)
        texts[name] = caption(row, draw)
    kinds = [kind for kind in PLANTED if kind != "words in nearly all captions"]
    counts = [PLANTED[kind] for kind in kinds] + [PLANTED["near-duplicates"]]
    chosen = iter(draw.sample(names, sum(counts)))
    twins, cut, framed, swapped, tiny, signed, originals = ({next(chosen) for _ in range(n)} for n in counts)
    for twin, original in zip(sorted(twins), sorted(originals), strict=True):
        images[twin] = Image.fromarray(np.roll(np.asarray(images[original]), TIMES, 0))
        texts[twin] = texts[original]
    for name in framed:
        images[name] = ImageOps.expand(images[name], border=5 * TIMES, fill=(120, 20, 160))
    for name in tiny:
        images[name] = images[name].resize((24 * TIMES, 24 * TIMES), Image.Resampling.BOX)
    for name, words in zip(sorted(signed), SIGNATURES, strict=True):
        sign(images[name], words)
    order = sorted(swapped)
    moved = [texts[name] for name in order]
    texts |= dict(zip(order, moved[1:] + moved[:1], strict=True))
    fused = {name: [word for word in FUSED if draw.random() < 0.96] for name in names}
    for name in names:
        text = f"{' '.join(fused[name])} {texts[name]}" + (LONG if name in cut else "")
        (folder / name).with_suffix(".txt").write_text(text)
        images[name].save(folder / name)
    return {
        "near-duplicates": twins,
        "words in nearly all captions": set(FUSED),
        "cut captions": cut,
        "frames": framed,
        "captions of other pictures": swapped,
        "tiny files": tiny,
        "signatures": signed,
    }


def sign(image: Image.Image, words: str) -> None:
    """Write words into the lower right corner, light or dark as the ground there asks for."""
    font = ImageFont.load_default(image.height // 18)
    left, top, right, bottom = font.getbbox(words)
    at = (image.width - right - 6, image.height - bottom - 6)
    ground = image.crop((int(at[0] + left), int(at[1] + top), image.width - 6, image.height - 6)).convert("L")
    light = np.asarray(ground).mean() < 110
    ImageDraw.Draw(image).text(at, words, font=font, fill=(235, 235, 225) if light else (20, 20, 30))


def found_faults(folder: Path) -> dict[str, set[str]]:
    """What is said of the brand set, by kind of fault, with the names that files had in the messy folder."""
    brand_set = brandset.read_brand_set(folder)
    originals = {
        f"{part}/{row['file_name']}": row["original"]
        for part in brandset.SPLITS
        for row in files.read_jsonl(folder / part / "metadata.jsonl")
    }
    captions = [item.all_captions_of_picture() for part in brandset.SPLITS for item in brand_set.splits[part]]
    findings = brandcheck.check_brand_set_files(folder)
    groups = [line.split(":")[0].split(", ") for line in findings.remarks if line.endswith("near-duplicates")]
    add_caption_and_split_remarks(Config(brand=str(folder)), brand_set, findings)
    remarks = "\n".join(findings.remarks)
    cut = re.search(r"tokens, their end is cut: (\d+) picture", remarks)
    trigger = brand_set.brand.trigger
    return {
        "near-duplicates": {originals[name] for group in groups for name in group},
        "words in nearly all captions": set(words_in_most_captions(captions, trigger)),
        "cut captions": {f"{n}" for n in range(int(cut[1]))} if cut else set(),
        "frames": {originals[name] for name in findings.noted[brandset.FRAMED]},
        "captions of other pictures": {
            originals[name] for name in re.findall(r"(\S+): .* may be the caption of another picture", remarks)
        },
        "tiny files": {originals[name] for name in findings.noted[brandset.SMALL]},
        "signatures": {originals[name] for name in findings.noted[brandset.TEXT]},
    }


def main() -> int:
    failed = False
    print("| brand | " + " | ".join(["found of 30", "false alarms", "passed over"]) + " |\n|---|---|---|---|")
    for brand in BRANDS:
        with tempfile.TemporaryDirectory() as place:
            messy, made = Path(place) / "messy", Path(place) / "made"
            messy.mkdir()
            planted = write_messy_folder(messy, brand)
            make_brand_set(Config(name=f"prepared-{brand}", images=str(messy), out=str(made)))
            said = found_faults(made)
        found = {kind: len(planted[kind] & said[kind]) for kind in planted}
        false = sum(
            len(said[kind] - planted[kind]) for kind in planted if kind not in ("near-duplicates", "cut captions")
        )
        # Their number is said, and not all names.
        found["cut captions"] = min(PLANTED["cut captions"], len(said["cut captions"]))
        missed = [f"{PLANTED[kind] - count} of {kind}" for kind, count in found.items() if count < PLANTED[kind]]
        print(f"| {brand} | {sum(found.values())} | {false} | {', '.join(missed) or 'none'} |")
        failed |= sum(found.values()) < WANTED or false > FALSE_ALARMS
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
