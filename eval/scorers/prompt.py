"""Prompt and trait match: what the encoder reads in a picture against what was asked for.

The prompt score is the plain cosine (the quantity under CLIPScore, arXiv 2104.08718, without its factor 2.5); absolute
values do not carry over between styles, so the default policy shows it only.

The trait score asks, for each trait, whether the planned value's phrase is nearer than those of the other values. A
style pulls all pictures towards some values (everything of a neon brand is a bit "dark"): what each value scores on
average over the references is taken off first. And an encoder may not see a trait at all in a style: only traits that
it reads right on the references, whose truth is known, are asked.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

READABLE = 0.85  # share of references on which a trait must be read right to be asked at all


class Reading(NamedTuple):
    """How one trait is read in this brand's pictures."""

    values: list[str]
    texts: NDArray[np.float32]  # [values, d] unit rows
    usual: NDArray[np.float32]  # [values] mean similarity over the references

    def nearest(self, embeddings: NDArray) -> list[str]:
        return [self.values[int(i)] for i in (embeddings @ self.texts.T - self.usual).argmax(1)]


def prompt(embeddings: NDArray, texts: NDArray) -> NDArray[np.float32]:
    """[n] cosine of picture i and its prompt i, both [n, d] unit rows."""
    return (embeddings * texts).sum(1).astype(np.float32)


def readings(
    references: NDArray,
    truth: Sequence[Mapping[str, str]],
    values: Mapping[str, list[str]],
    encode: Callable[[list[str]], NDArray],
) -> tuple[dict[str, Reading], dict[str, float]]:
    """The traits that can be read in pictures like the references, and for each trait the share that was read right.

    `references` are [r, d] unit rows, `truth` holds the traits of each, `values` the values to tell apart, `encode`
    gives unit rows of texts. The mean that is taken off comes from the same references: with few, shares flatter.
    """
    found, shares = {}, {}
    for trait, options in values.items():
        known = [i for i, row in enumerate(truth) if row.get(trait) in options]
        if len(options) < 2 or not known:
            continue
        texts = encode([phrase(trait, value) for value in options])
        reading = Reading(options, texts, (references[known] @ texts.T).mean(0))
        read = reading.nearest(references[known])
        shares[trait] = float(np.mean([value == truth[i][trait] for value, i in zip(read, known, strict=True)]))
        if shares[trait] >= READABLE:
            found[trait] = reading
    return found, shares


def traits(
    embeddings: NDArray, planned: Sequence[Mapping[str, str]], readable: Mapping[str, Reading]
) -> NDArray[np.float32]:
    """[n] share of the readable traits whose planned value is the nearest, in [0, 1]; NaN where none is planned."""
    right, asked = np.zeros(len(embeddings)), np.zeros(len(embeddings))
    for trait, reading in readable.items():
        for i, (value, row) in enumerate(zip(reading.nearest(embeddings), planned, strict=True)):
            if trait in row:
                asked[i] += 1
                right[i] += value == row[trait]
    return np.divide(right, asked, out=np.full(len(embeddings), np.nan), where=asked > 0).astype(np.float32)


def phrase(trait: str, value: str) -> str:
    return f"no {trait}" if value == "none" else f"{value} {trait}"
