"""What is taken of a picture, once: embedding, likeness signature, technical measures. Cached by content."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eval.encoder import Encoder, encode_pictures
from eval.scorers import technical
from stylegate import files, pictures, progress
from stylegate.cache import Cache

VERSION = "features-1"  # raise it when anything below changes its numbers


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
    named: Sequence[tuple[str, Path]], encoder: Encoder, background: str, batch_size: int, title: str
) -> tuple[Features, list[Broken]]:
    """Features of each picture, and the files that are none. Each picture is encoded at most once, ever."""
    cache, contents, broken = Cache(), {}, []
    for name, path in named:
        try:
            contents[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            broken.append(Broken(name, "", f"cannot be read: {error.strerror}"))
    paths = dict(named)
    names = list(contents)
    keys = [files.digest([VERSION, encoder.sha256, background, contents[name]]) for name in names]

    def compute(indices: list[int]) -> list[dict[str, NDArray]]:
        decoded = {}
        for i in indices:
            try:
                decoded[i] = pictures.decode(paths[names[i]].read_bytes(), background).image
            except pictures.PictureError as error:
                decoded[i] = str(error)
        images = [image for image in decoded.values() if not isinstance(image, str)]
        embeddings = iter(encode_pictures(encoder, images) if images else [])
        return [failure(d) if isinstance(d, str) else taken(d, next(embeddings)) for d in decoded.values()]

    with progress.bar(title, len(names)) as tick:
        rows = cache.fill(keys, batch_size, compute, tick)
    good = [(name, row) for name, row in zip(names, rows, strict=True) if "broken" not in row]
    for name, row in zip(names, rows, strict=True):
        if "broken" in row:
            broken.append(Broken(name, contents[name], bytes(row["broken"]).decode()))
    return stacked([name for name, _ in good], contents, [row for _, row in good]), broken


def stacked(names: list[str], sha256: dict[str, str], rows: list[dict[str, NDArray]]) -> Features:
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


def taken(image, embedding: NDArray) -> dict[str, NDArray]:
    return {
        "size": np.array(image.size),
        "embedding": embedding,
        "signature": pictures.signature(image),
        "technical": technical.measure(image),
    }


def failure(reason: str) -> dict[str, NDArray]:
    return {"broken": np.frombuffer(reason.encode(), np.uint8)}
