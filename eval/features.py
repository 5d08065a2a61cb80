"""What is taken of a picture, once: embedding, patches, likeness signature, technical measures. Cached by content.

A picture is decoded once: signature, measures and what the encoder is shown are all taken of the one decoded frame.
`generate` takes them of what it drew (`keep`), so that our own pictures are never decoded to be scored.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eval.encoder import Encoder, Preprocessing, encode_pictures
from eval.scorers import technical
from stylegate import files, pictures, progress
from stylegate.cache import Cache

VERSION = "features-5"  # raise it when anything below changes its numbers
AHEAD = 2  # batches that are decoded while an accelerator encodes

Row = dict[str, NDArray]
Begun = list[Row | Future[Row | None]]  # of a batch: what is known, and what is being decoded


class Features(NamedTuple):
    """Of n decodable pictures, in order."""

    names: list[str]
    sha256: list[str]
    sizes: NDArray[np.int64]  # [n, 2] width, height in pixels, upright
    embeddings: NDArray[np.float32]  # [n, d], unit
    patches: NDArray[np.float16]  # [n, p], unit: what the encoder sees at 8 x 8 places
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
    seen = [seen_key(encoder.preprocessing, background, sha256[name]) for name in names]
    keys = [files.digest([key, encoder.sha256]) for key in seen]
    rows = [cache.get(key) for key in keys]
    missing = [i for i, row in enumerate(rows) if row is None]
    batches = [missing[start : start + batch_size] for start in range(0, len(missing), batch_size)]

    def look(i: int) -> Row | None:
        """None if the bytes are not the ones that are meant."""
        try:
            content = pictures.read(paths[names[i]])
            if hashlib.sha256(content).hexdigest() != sha256[names[i]]:
                return None
            return seen_of(pictures.decode(content, background).image, encoder.preprocessing)
        except OSError:  # it could be read when it was hashed; nothing of this is kept
            return None
        except pictures.PictureError as error:
            return {"broken": np.frombuffer(str(error).encode(), np.uint8)}

    if at_hand := set(range(len(names))) - set(missing):  # what `keep` took of pictures that were known already
        cache.put({}, instead_of=[seen[i] for i in at_hand])
    visible, done = bool(title), len(at_hand)
    with ThreadPoolExecutor(threads()) as pool, progress.bar(title, len(names), done, visible) as tick:

        def begin(batch: list[int]) -> Begun:
            kept = [cache.get(seen[i]) for i in batch]
            return [row or pool.submit(look, i) for i, row in zip(batch, kept, strict=True)]

        # A CPU that encodes has no core to spare: there, decoding beside it only makes its threads wait for each other.
        for batch, begun in in_advance(batches, begin, AHEAD if encoder.device.type != "cpu" else 0):
            found = [part.result() if isinstance(part, Future) else part for part in begun]
            made = encode_pictures(encoder, [row["pixels"] for row in found if row and "pixels" in row])
            encoded = zip(*made, strict=True)
            for i, row in zip(batch, found, strict=True):
                if row and "pixels" in row:
                    row = {key: value for key, value in row.items() if key != "pixels"}
                    row["embedding"], row["patches"] = next(encoded)
                rows[i] = row
            cache.put({keys[i]: row for i in batch if (row := rows[i])}, instead_of=[seen[i] for i in batch])
            tick(len(batch))

    good: dict[str, Row] = {}
    for name, row in zip(names, rows, strict=True):
        if row is None:
            broken.append(Broken(name, sha256[name], "changed while it was read"))
        elif "broken" in row:
            broken.append(Broken(name, sha256[name], bytes(row["broken"]).decode()))
        else:
            good[name] = row
    return stacked(list(good), sha256, list(good.values())), broken


def threads() -> int:
    """As many as the encoder uses on a CPU (hardware.threads)."""
    import torch

    return torch.get_num_threads()


def in_advance(
    batches: list[list[int]], begin: Callable[[list[int]], Begun], ahead: int
) -> Iterator[tuple[list[int], Begun]]:
    """Each batch and what beginning it returned, the next `ahead` batches having been begun too."""
    waiting: deque[tuple[list[int], Begun]] = deque()
    for batch in batches:
        waiting.append((batch, begin(batch)))
        if len(waiting) > ahead:
            yield waiting.popleft()
    yield from waiting


def seen_of(image: Image.Image, preprocessing: Preprocessing) -> Row:
    """All that is taken of a decoded picture before it is let go; `pixels` is what the encoder is shown."""
    return {
        "size": np.array(image.size),
        "signature": pictures.signature(image),
        "technical": technical.measure(image),
        "pixels": preprocessing.pixels(image),
    }


def seen_key(preprocessing: Preprocessing, background: str, sha256: str) -> str:
    return files.digest([VERSION, preprocessing.name, background, sha256])


def keep(drawn: Mapping[str, Image.Image], preprocessing: Preprocessing, background: str) -> None:
    """Take of drawn RGB pictures, by the sha256 of their files, what scoring them will want; it goes once they are."""
    rows = {seen_key(preprocessing, background, sha): seen_of(image, preprocessing) for sha, image in drawn.items()}
    Cache().put(rows)


def stacked(names: list[str], sha256: Mapping[str, str], rows: list[Row]) -> Features:
    """Rows of the cache as arrays; with no rows the arrays are empty, and still of the right number of axes."""

    def array(key: str, *shape: int) -> NDArray:
        return np.stack([row[key] for row in rows]) if rows else np.zeros((0, *shape))

    return Features(
        names=names,
        sha256=[sha256[name] for name in names],
        sizes=array("size", 2).astype(np.int64),
        embeddings=array("embedding", 0).astype(np.float32),
        patches=array("patches", 0).astype(np.float16),
        signatures=array("signature", pictures.SIDE, pictures.SIDE, 3).astype(np.uint8),
        technical=array("technical", len(technical.MEASURES)).astype(np.float32),
    )
