"""What goes beside the stand-in encoder: the domain that it knows.

    python -m train.miniature.standin       about 3 minutes on two cores

The stand-in base draws 64 pictures in each of its 8 styles; their embeddings are the encoder's known pictures, and
the largest distance of one of them to its nearest neighbour bounds the domain. Writes domain.json and
known.safetensors into checkpoints/miniature/clip/.
"""

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import save

from eval import encoder as encoding
from eval.batch.plan import from_traits, read_traits
from stylegate import files, progress, sample
from stylegate.brandset import Brand
from stylegate.config import GenerateConfig, PlanConfig
from stylegate.families import FAMILIES

STYLES = ["flat", "outlined", "shaded 3d", "sticker", "pastel", "night", "woodcut", "mosaic"]
PER_STYLE, TOGETHER, SIDE, SEED = 64, 16, 64, 1


def main() -> None:
    """Draw, encode, write."""
    torch.manual_seed(SEED)
    base = FAMILIES["sd"].load("miniature", torch.device("cpu"), torch.float32)
    traits = read_traits(files.ROOT / "data" / "traits" / "collectible.yaml")
    drawn: list[Image.Image] = []
    with progress.bar("draw", len(STYLES) * PER_STYLE) as tick:
        for number, style in enumerate(STYLES):
            brand = Brand(name=style, trigger=f"{style} style")
            slots = from_traits(traits, brand, PlanConfig(num_images=PER_STYLE, seed=SEED * 100 + number), set())
            for start in range(0, PER_STYLE, TOGETHER):
                part = slots[start : start + TOGETHER]
                with torch.autocast("cpu", torch.bfloat16):
                    prompts, seeds = [s.prompt for s in part], [s.attempt_seed(0) for s in part]
                    drawn += sample.draw(base, prompts, seeds, GenerateConfig(), SIDE)
                tick(len(part))

    encoder = encoding.load("miniature", torch.device("cpu"))
    known = encoding.encode_pictures(encoder, [encoder.preprocess(image) for image in drawn]).astype(np.float16)

    likeness = known.astype(np.float32) @ known.astype(np.float32).T
    np.fill_diagonal(likeness, -1)
    furthest = float(1 - likeness.max(1).min())  # the known picture that is furthest from all others

    place = files.MODELS / "miniature" / "clip"
    files.write_json(place / "domain.json", {"side": SIDE, "max_distance": round(furthest, 4)})
    files.write(place / "known.safetensors", save({"known": known}))
    print(f"known pictures {len(known)}, max_distance {furthest:.3f}: {files.shown(place)}")


if __name__ == "__main__":
    main()
