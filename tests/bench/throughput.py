"""How near scoring comes to the encoder alone. Random weights of the true shapes; every ratio within one run.

    python -m tests.bench.throughput [vit-l-14] [vit-b-32] [miniature] [duplicates]    about 10 minutes on two cores

raw: open_clip's encode_image of uint8 tensors in memory, same model, dtype, threads and batch; windows of raw and of
the whole way take turns, medians count. The whole way is what `stylegate score` does for new pictures: read, hash,
decode, pixel checks, resize, encode, store. Exit 1 if a ratio is missed.
"""

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

os.environ["STYLEGATE_HOME"] = tempfile.mkdtemp()  # a cache of its own, before stylegate asks where it lies

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file

from eval.lot.lot import sha256_by_name
from eval.measuring import encoder as encoding
from eval.measuring import features
from eval.measuring.encoder import LoadedEncoder
from eval.scorers import duplicates
from stylegate import brandset, files, similarity
from stylegate.config import Config

CPU, BATCH, TURNS = torch.device("cpu"), Config().score.batch_size, 3
RAW_SHARE, SLOWER, PRODUCTS, MEMORY = 0.9, 1.3, 3.0, 4.0  # of raw; times raw; times a product; GiB
SIDE = 1024  # pixels of the large pictures


def random_encoder(architecture: str, folder: Path) -> LoadedEncoder:
    """An open_clip model of its true shape and random weights, as a folder."""
    config = open_clip.get_model_config(architecture)
    torch.manual_seed(0)
    model = open_clip.create_model(architecture)
    folder.mkdir(parents=True)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    return encoding.load_encoder(str(folder), CPU)


def large(number: int) -> Image.Image:
    """A brand's picture, 1024 pixels a side, with grain, so that its PNG is as hard to decode as a painting's."""
    sources = sorted((brandset.brand_folder("riso") / "train").glob("*.png"))
    image = Image.open(sources[number % len(sources)]).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    grain = np.random.default_rng(number).normal(0, 2, (SIDE, SIDE, 3))
    return Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype(np.uint8))


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


class Pictures:
    """Files of one kind, and what the whole way and the encoder alone take for them."""

    def __init__(self, encoder: LoadedEncoder, images: list[Image.Image], folder: Path) -> None:
        folder.mkdir(parents=True)
        self.encoder, self.images = encoder, images
        for i, image in enumerate(images):
            image.save(folder / f"{i:05d}.png")
        self.named = [(path.name, path) for path in sorted(folder.glob("*.png"))]
        shown = np.stack([encoder.preprocessing.resized_and_cropped_pixels(image) for image in images])
        self.shown = torch.from_numpy(shown).permute(0, 3, 1, 2).contiguous()

    def raw(self) -> None:
        mean, std = (
            torch.tensor(v).view(3, 1, 1) for v in (self.encoder.preprocessing.mean, self.encoder.preprocessing.std)
        )
        with torch.no_grad():
            for some in self.shown.split(BATCH):
                self.encoder.model.encode_image(some.float().div_(255).sub_(mean).div_(std), normalize=True)

    def new(self) -> Callable[[], None]:
        """From files that were never seen."""
        self.forget()
        return self.scored

    def kept(self) -> Callable[[], None]:
        """From what `generate` took of the pictures; the taking itself is part of drawing them."""
        self.forget()
        digests = sha256_by_name(self.named)
        drawn = {digests[name]: image for (name, _), image in zip(self.named, self.images, strict=True)}
        features.store_features_of_drawn(drawn, self.encoder.preprocessing, "#ffffff")
        return self.scored

    def scored(self) -> None:
        found, broken = features.cached_features_of_files(
            self.named, sha256_by_name(self.named), self.encoder, "#ffffff", BATCH, ""
        )
        assert len(found.names) == len(self.named) and not broken

    def forget(self) -> None:
        (files.CACHE / "features.sqlite").unlink(missing_ok=True)

    def decoding(self) -> float:
        """Core-seconds a picture of what no scorer can do without: decode and resize."""

        def work() -> None:
            for _, path in self.named[:16]:
                self.encoder.preprocessing.resized_and_cropped_pixels(Image.open(path).convert("RGB"))

        before = torch.get_num_threads()
        torch.set_num_threads(1)
        taken = min(seconds(work) for _ in range(2)) / min(16, len(self.named))
        torch.set_num_threads(before)
        return taken


def turns(several: dict[str, Callable[[], Callable[[], object]]]) -> dict[str, float]:
    """Median seconds of each; `several` make ready what is then timed, turn by turn."""
    taken: dict[str, list[float]] = {name: [] for name in several}
    for _ in range(TURNS):
        for name, ready in several.items():
            taken[name].append(seconds(ready()))
    return {name: median(values) for name, values in taken.items()}


def told(title: str, ratio: float, wanted: float, atleast: bool, stages: str) -> list[str]:
    holds = ratio >= wanted if atleast else ratio <= wanted
    print(f"{title}: {ratio:.2f} (wanted {'>=' if atleast else '<='} {wanted:g})   {stages}", flush=True)
    return [] if holds else [f"{title}: {ratio:.2f}"]


def vit_l_14(place: Path) -> list[str]:
    """From 1024-pixel PNG, at least .9 of raw."""
    them = Pictures(random_encoder("ViT-L-14-quickgelu", place / "l"), [large(i) for i in range(32)], place / "large")
    found = turns({"raw": lambda: them.raw, "whole": them.new})
    each = {name: value / len(them.named) * 1000 for name, value in found.items()}
    stages = (
        f"raw {each['raw']:.0f} ms, whole {each['whole']:.0f} ms, decode {them.decoding() * 1000:.0f} core-ms a picture"
    )
    return told("ViT-L/14 from 1024-px PNG, of raw", found["raw"] / found["whole"], RAW_SHARE, True, stages)


def vit_b_32(place: Path) -> list[str]:
    """From what generate kept at least .9 of raw; from PNG at least .9 of what the cores can do at all."""
    them = Pictures(random_encoder("ViT-B-32-quickgelu", place / "b"), [large(i) for i in range(128)], place / "many")
    found = turns({"raw": lambda: them.raw, "kept": them.kept, "whole": them.new})
    each = {name: value / len(them.named) for name, value in found.items()}
    decode, cores = them.decoding(), torch.get_num_threads()
    possible = each["raw"] + decode / cores
    stages = f"raw {each['raw'] * 1000:.0f} ms, kept {each['kept'] * 1000:.0f} ms a picture"
    missed = told("ViT-B/32 from what generate kept, of raw", each["raw"] / each["kept"], RAW_SHARE, True, stages)
    stages = f"whole {each['whole'] * 1000:.0f} ms, decode {decode * 1000:.0f} core-ms, {cores} cores"
    return missed + told("ViT-B/32 from 1024-px PNG, of possible", possible / each["whole"], RAW_SHARE, True, stages)


def miniature(place: Path) -> list[str]:
    """Ten thousand small pictures in at most 1.3 times the raw encode time."""
    source = [Image.open(p).convert("RGB") for p in sorted((brandset.brand_folder("neon") / "train").glob("*.png"))]
    images = [source[i % len(source)].rotate(i // len(source)) for i in range(10_000)]
    them = Pictures(encoding.load_encoder("miniature", CPU), images, place / "small")
    found = turns({"raw": lambda: them.raw, "whole": them.new})
    stages = f"raw {found['raw']:.1f} s, whole {found['whole']:.1f} s"
    return told("10,000 miniature pictures, times raw", found["whole"] / found["raw"], SLOWER, False, stages)


def signatures(count: int) -> np.ndarray:
    """Pictures of a template: brand pictures, each mixed with another one, moved and recoloured."""
    random = np.random.default_rng(0)
    source = [
        similarity.signature_of_picture(Image.open(p).convert("RGB"))
        for p in (brandset.brand_folder("riso") / "train").glob("*.png")
    ]
    out = np.empty((count, 64, 64, 3), np.uint8)
    for i in range(count):
        a, b, share = *random.integers(0, len(source), 2), random.uniform(0.3, 0.7)
        mixed = share * source[a] + (1 - share) * np.roll(source[b], random.integers(-20, 20, 2), (0, 1))
        out[i] = mixed * random.uniform(0.7, 1, 3)
    return out


def compare(count: int) -> list[str]:
    """Ten thousand in at most three times a bare blocked product of the same vectors; a hundred thousand in 4 GiB."""
    them = signatures(count)
    rank, none = np.arange(count), them[:0]
    thumbnails = similarity.centred_thumbnails(them[:10_000])

    def product() -> None:
        for start in range(0, count, similarity.BLOCK):
            np.matmul(thumbnails[start : start + similarity.BLOCK], thumbnails.T)

    if count > 10_000:
        duplicates.nearest_of_smaller_rank(them, rank, None, none)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        return told(f"{count:,} compared, GiB at most", peak, MEMORY, False, "peak of this process, pictures included")
    found = turns(
        {"product": lambda: product, "ours": lambda: lambda: duplicates.nearest_of_smaller_rank(them, rank, None, none)}
    )
    stages = f"product {found['product']:.1f} s, ours {found['ours']:.1f} s"
    return told(f"{count:,} compared, times a product", found["ours"] / found["product"], PRODUCTS, False, stages)


def main() -> int:
    asked = sys.argv[1:] or ["duplicates", "miniature", "vit-b-32", "vit-l-14"]
    missed = []
    with tempfile.TemporaryDirectory() as place:
        if "duplicates" in asked:  # first: the peak is of the whole process
            missed += compare(10_000) + compare(100_000)
        for name, work in (("miniature", miniature), ("vit-b-32", vit_b_32), ("vit-l-14", vit_l_14)):
            missed += work(Path(place)) if name in asked else []
    print("\n".join(["missed:", *missed]) if missed else "every ratio holds")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
