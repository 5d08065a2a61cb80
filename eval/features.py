"""What is taken of a picture, once: embedding, likeness signature, technical measures. Cached by content."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eval.encoder import Encoder, encode_pictures
from eval.scorers import technical
from stylegate import files, pictures, progress
from stylegate.cache import Cache

VERSION = "features-2"  # raise it when anything below changes its numbers


class Features(NamedTuple):
    """Of n decodable pictures, in order."""

    names: list[str]
    sha256: list[str]
    sizes: NDArray[np.int64]  # [n, 2] width, height in pixels, upright
    embeddings: NDArray[np.float32]  # [n, d], unit
    signatures: NDArray[np.uint8]  # [n, 64, 64, 3]
    technical: NDArray[np.float32]  # [n, len(technical.MEASURES)]


class Broken(NamedTuple):
    name: str
    sha256: str
    reason: str


def extract(
    named: Sequence[tuple[str, Path]],
    sha256: Mapping[str, str],
    encoder: Encoder,
    background: str,
    batch_size: int,
    title: str,
) -> tuple[Features, list[Broken]]:
    """Features of each picture, and the files that are none. Each picture is encoded at most once, ever.

    `sha256` by name ("" for a file that cannot be read) says which bytes are meant; a file that holds others by the
    time it is read is broken, and nothing of it is kept. An empty title shows no progress.
    """
    cache, paths = Cache(), dict(named)
    broken = [Broken(name, "", "cannot be read") for name in paths if not sha256[name]]
    names = [name for name in paths if sha256[name]]
    keys = [files.digest([VERSION, encoder.sha256, background, sha256[name]]) for name in names]

    def compute(indices: list[int]) -> list[dict[str, NDArray] | None]:
        taken: dict[int, dict[str, NDArray] | None] = {}
        waiting: dict[int, Any] = {}
        for i in indices:
            content = paths[names[i]].read_bytes()
            if hashlib.sha256(content).hexdigest() != sha256[names[i]]:
                taken[i] = None  # not stored: these are not the bytes that the key names
                continue
            try:
                image = pictures.decode(content, background).image
            except pictures.PictureError as error:
                taken[i] = {"broken": np.frombuffer(str(error).encode(), np.uint8)}
                continue
            waiting[i] = encoder.preprocess(image)  # small; the picture itself is let go
            taken[i] = {
                "size": np.array(image.size),
                "signature": pictures.signature(image),
                "technical": technical.measure(image),
            }
        for i, embedding in zip(waiting, encode_pictures(encoder, list(waiting.values())), strict=True):
            taken[i] = (taken[i] or {}) | {"embedding": embedding}
        return [taken[i] for i in indices]

    with progress.bar(title, len(names), visible=bool(title)) as tick:
        rows = cache.fill(keys, batch_size, compute, tick)
    good: dict[str, dict[str, NDArray]] = {}
    for name, row in zip(names, rows, strict=True):
        if row is None:
            broken.append(Broken(name, sha256[name], "changed while it was read"))
        elif "broken" in row:
            broken.append(Broken(name, sha256[name], bytes(row["broken"]).decode()))
        else:
            good[name] = row
    return stacked(list(good), sha256, list(good.values())), broken


def stacked(names: list[str], sha256: Mapping[str, str], rows: list[dict[str, NDArray]]) -> Features:
    """Rows of the cache as arrays; with no rows the arrays are empty, and still of the right number of axes."""

    def array(key: str, *shape: int) -> NDArray:
        return np.stack([row[key] for row in rows]) if rows else np.zeros((0, *shape))

    return Features(
        names=names,
        sha256=[sha256[name] for name in names],
        sizes=array("size", 2).astype(np.int64),
        embeddings=array("embedding", 0).astype(np.float32),
        signatures=array("signature", pictures.SIDE, pictures.SIDE, 3).astype(np.uint8),
        technical=array("technical", len(technical.MEASURES)).astype(np.float32),
    )
