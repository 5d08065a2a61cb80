"""Prompt and trait match: what the encoder reads in a picture against what was asked for.

The prompt score is the plain cosine (the quantity under CLIPScore, arXiv 2104.08718, without its factor 2.5). The
trait score asks, for each trait, whether the planned value's phrase is nearer than those of the other values. Absolute
values do not carry over between styles, and a small encoder misreads traits of a style it has not seen: the default
policy shows both and gates on neither.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray


def prompt(embeddings: NDArray, texts: NDArray) -> NDArray[np.float32]:
    """[n] cosine of picture i and its prompt i, both [n, d] unit rows."""
    return (embeddings * texts).sum(1).astype(np.float32)


def traits(
    embeddings: NDArray,
    planned: Sequence[dict[str, str]],
    values: dict[str, list[str]],
    encode: Callable[[list[str]], NDArray],
) -> NDArray[np.float32]:
    """[n] share of traits whose planned value is the nearest, in [0, 1]; NaN for a picture without traits."""
    right, asked = np.zeros(len(embeddings)), np.zeros(len(embeddings))
    for trait, options in values.items():
        if len(options) < 2:
            continue
        nearest = (embeddings @ encode([phrase(trait, value) for value in options]).T).argmax(1)
        for i, row in enumerate(planned):
            if trait in row:
                asked[i] += 1
                right[i] += options[nearest[i]] == row[trait]
    return np.divide(right, asked, out=np.full(len(embeddings), np.nan), where=asked > 0).astype(np.float32)


def phrase(trait: str, value: str) -> str:
    return f"no {trait}" if value == "none" else f"{value} {trait}"
