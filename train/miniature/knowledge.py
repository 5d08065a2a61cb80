"""What lies beside the encoder's weights: the pictures it knows, how embeddings vary within a style, what is clean.

known.safetensors       embeddings of pictures it was trained on, in every style
domain.json             how far from the nearest of them a picture may lie
whitening.safetensors   the covariance within a style and the mean, over all styles
aesthetic.safetensors   a linear head: the log-odds that a render is clean and not degraded
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save
from sklearn.covariance import ledoit_wolf
from sklearn.linear_model import LogisticRegression

from stylegate import files
from train.miniature.captions import QUALITY
from train.miniature.corpus import Corpus
from train.miniature.degrade import DEGRADE

NUM_KNOWN, NUM_WITHIN, NUM_JUDGED = 2048, 16_384, 8_192
MARGIN = 1.3  # the domain reaches so much further than pictures of known styles lie from each other: brands are new


@torch.no_grad()
def unit_embeddings_of_pictures(clip: Any, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The unit embeddings [n, width] of pictures [n, 64, 64, 3]."""
    parts = []
    for start in range(0, len(pixels), 256):
        x = torch.from_numpy(pixels[start : start + 256]).permute(0, 3, 1, 2).float() / 127.5 - 1
        parts.append(clip.encode_image(x.to(next(clip.parameters()).device), normalize=True).cpu().numpy())
    return np.concatenate(parts)


def write_encoder_statistics_and_aesthetic_head(folder: Path, clip: Any, corpus: Corpus) -> None:
    """Compute the four files above from pictures of `corpus`, as `clip` embeds them, and write them beside the encoder
    in `folder`.
    """
    random = np.random.default_rng(43)
    chosen = random.permutation(len(corpus.pixels))[:NUM_WITHIN]
    embeddings = unit_embeddings_of_pictures(clip, corpus.pixels[chosen])
    styles = np.array(corpus.styles)[chosen]

    known = embeddings[:NUM_KNOWN].astype(np.float16)
    files.write_atomically(folder / "known.safetensors", save({"known": known}))
    likeness = embeddings[NUM_KNOWN:] @ known.astype(np.float32).T
    furthest = MARGIN * float(1 - likeness.max(1).min())
    files.write_json(folder / "domain.json", {"side": corpus.pixels.shape[1], "max_distance": round(furthest, 4)})

    means = {style: embeddings[styles == style].mean(0) for style in set(styles)}
    within = embeddings - np.stack([means[style] for style in styles])
    statistics = {"within": ledoit_wolf(within)[0], "mean": embeddings.mean(0)}
    files.write_atomically(
        folder / "whitening.safetensors", save({k: v.astype(np.float32) for k, v in statistics.items()})
    )

    weight, bias = fit_miniature_aesthetic_head(
        clip, corpus.pixels[random.permutation(len(corpus.pixels))[:NUM_JUDGED]], random
    )
    files.write_atomically(folder / "aesthetic.safetensors", save({"weight": weight.astype(np.float32), "bias": bias}))


def fit_miniature_aesthetic_head(
    clip: Any, pixels: NDArray[np.uint8], random: np.random.Generator
) -> tuple[NDArray, NDArray]:
    """A logistic regression that tells clean pictures from degraded ones: weight [1, width] and bias [1].

    Half of `pixels` [n, 64, 64, 3] are degraded here before they are encoded. A higher value means clean.
    """
    spoilt = pixels.copy()
    labels = np.arange(len(pixels)) % 2
    kinds = QUALITY[1:]
    for i in np.flatnonzero(labels == 0):
        spoilt[i] = DEGRADE[kinds[(i // 2) % len(kinds)]](pixels[i], random)
    model = LogisticRegression(C=100.0, max_iter=2000).fit(unit_embeddings_of_pictures(clip, spoilt), labels)
    return model.coef_.astype(np.float32), model.intercept_.astype(np.float32)
