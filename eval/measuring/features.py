"""The features of pictures: embedding, patches, signature, technical measures. Computed once, cached by content.

A picture is decoded once: signature, measures and the encoder's input are all computed from one decoded frame.
`generate` stores them for what it drew (`store_features_of_drawn`), so that our own pictures are never decoded again.
"""

import hashlib
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eval.measuring.encoder import LoadedEncoder, encode_pictures
from eval.measuring.encodername import EncoderPreprocessing
from eval.measuring.measured import PictureSignaturesOfFiles
from eval.measuring.picturefeatures import PictureFeatures
from eval.scorers import technical
from stylegate import files, pictures, progress, similarity
from stylegate.cache import ArrayCache

VERSION = "features-11"  # raise it when anything below changes its numbers
LARGE = 2**26  # bytes: arrays from here on lie on disk
TOGETHER = 4096  # rows that are moved at once
AHEAD = 2  # batches that are begun while one is encoded or stored

Row = dict[str, NDArray]
Rows = dict[int, Row]  # by a picture's index


class BrokenFile(NamedTuple):
    """A file that is no picture, or could not be read."""

    name: str
    sha256: str  # hex; "" if it could not be read
    reason: str  # for people


def array_in_memory_or_on_disk(shape: tuple[int, ...], dtype: type) -> NDArray:
    """An array to be filled; of LARGE bytes or more it is a mapped file in the cache's folder that nobody else sees.

    The system writes it out and drops it where memory is short. The disk's space is taken at once, but on macOS, which
    has no call for that: a full disk is an OSError here, and no death later.
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if size < LARGE:
        return np.empty(shape, dtype)
    files.CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=files.CACHE) as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
        return np.asarray(np.memmap(file, dtype, "r+", shape=shape))


class FeatureArrays:
    """Features of n pictures in arrays of their final size, filled row by row: memory never holds a second copy."""

    def __init__(self, count: int) -> None:
        self.filled = np.zeros(count, bool)
        self.errors: dict[int, str] = {}  # of files that are no picture
        self.columns = {
            "size": np.zeros((count, 2), np.int64),
            "signature": array_in_memory_or_on_disk((count, similarity.SIDE, similarity.SIDE, 3), np.uint8),
            "technical": np.empty((count, len(technical.MEASURES)), np.float32),
            "transparent": np.zeros(count, bool),
            "embedding": np.empty((count, 0), np.float32),  # as wide as the encoder makes them
            "patches": np.empty((count, 0), np.float16),
        }

    def copy_features_into_row(self, i: int, row: Row) -> None:
        """Copy the features of one picture into row `i`; of a file that is no picture keep the reason."""
        if "broken" in row:
            self.errors[i] = bytes(row["broken"]).decode()
            return
        for name in ("embedding", "patches"):
            if not self.columns[name].shape[1]:
                self.columns[name] = array_in_memory_or_on_disk(
                    (len(self.filled), len(row[name])), self.columns[name].dtype.type
                )
        for name, column in self.columns.items():
            column[i] = row[name]
        self.filled[i] = True

    def move_filled_rows_to_front(self, column: NDArray) -> NDArray:
        """The rows of a column that are filled; they are moved up in it, so that memory never holds a second copy."""
        places = np.flatnonzero(self.filled)
        for start in range(0, len(places), TOGETHER):
            some = places[start : start + TOGETHER]
            column[start : start + len(some)] = column[some]
        return column[: len(places)]

    def features_of_filled_rows(self, names: list[str], sha256: Mapping[str, str]) -> PictureFeatures:
        """What was measured of the pictures whose rows are filled: sizes, embeddings, patches, signatures, technical
        scores, transparency. `names` are those of all rows.
        """
        good = [name for name, filled in zip(names, self.filled, strict=True) if filled]
        whole = (
            self.columns
            if self.filled.all()
            else {k: self.move_filled_rows_to_front(c) for k, c in self.columns.items()}
        )
        return PictureFeatures(
            names=good,
            sha256=[sha256[name] for name in good],
            sizes=whole["size"],
            embeddings=whole["embedding"],
            patches=whole["patches"],
            signatures=whole["signature"],
            technical=whole["technical"],
            transparent=whole["transparent"],
        )


def cached_features_of_files(
    named: Sequence[tuple[str, Path]],
    sha256: Mapping[str, str],
    encoder: LoadedEncoder,
    background: str,
    batch_size: int,
    title: str,
) -> tuple[PictureFeatures, list[BrokenFile]]:
    """The features of each picture, from the cache or else computed now and kept there; and the files that are no
    pictures.

    `sha256` by name ("" for a file that cannot be read) says which bytes are meant; a file that holds others by the
    time it is read is broken, and nothing of it is kept. An empty title shows no progress.
    """
    cache, paths = ArrayCache(), dict(named)
    broken = [BrokenFile(name, "", "cannot be read") for name in paths if not sha256[name]]
    names = [name for name in paths if sha256[name]]
    before = pixel_features_key(encoder.preprocessing, background)
    seen = [f"{before}:{sha256[name]}" for name in names]  # keys of what `generate` stored; removed once encoded
    after = files.canonical_sha256([before, encoder.sha256])
    keys = [f"{after}:{sha256[name]}" for name in names]
    table, missing = FeatureArrays(len(names)), []
    for i, row in enumerate(cache.read_arrays_of_keys(keys)):
        if row:
            table.copy_features_into_row(i, row)
        else:
            missing.append(i)
    batches = [missing[start : start + batch_size] for start in range(0, len(missing), batch_size)]

    if at_hand := set(range(len(names))) - set(missing):  # what `generate` stored of known pictures
        cache.store_arrays_by_key({}, instead_of=[seen[i] for i in at_hand])

    # On a CPU each core takes its part of a batch all the way: cores that share one encoding wait for each other, and
    # tests.bench.throughput finds this faster than encoding alone is. An accelerator encodes batches whole.
    alone = encoder.device.type == "cpu"

    def feature_rows_of_part(part: list[int], kept: Rows) -> Rows:
        new = [i for i in part if i not in kept]
        shown = [(paths[names[i]], sha256[names[i]]) for i in new]
        made = pixel_feature_rows_of_files(shown, encoder.preprocessing, background)
        found = kept | {new[k]: row for k, row in made.items()}
        return replace_pixels_by_embeddings(found, encoder) if alone else found

    # One more than there are cores: while one waits for Python's lock, the others compute.
    with one_torch_thread_each(alone) as cores, ThreadPoolExecutor(cores + 1) as pool:

        def submit_batch_parts(batch: list[int]) -> list[Future[Rows]]:
            kept = dict(zip(batch, cache.read_arrays_of_keys([seen[i] for i in batch]), strict=True))
            parts = [batch[k::cores] for k in range(min(cores, len(batch)))]
            return [
                pool.submit(feature_rows_of_part, part, {i: row for i in part if (row := kept[i])}) for part in parts
            ]

        with progress.progress_bar(title, len(names), len(at_hand), bool(title)) as tick:
            for batch, parts in submit_ahead(batches, submit_batch_parts, AHEAD):
                found = {i: row for part in parts for i, row in part.result().items()}
                found = found if alone else replace_pixels_by_embeddings(found, encoder)
                cache.store_arrays_by_key(
                    {keys[i]: row for i, row in found.items()}, instead_of=[seen[i] for i in batch]
                )
                for i, row in found.items():
                    table.copy_features_into_row(i, row)
                tick(len(batch))

    for i, name in enumerate(names):
        if not table.filled[i]:
            broken.append(BrokenFile(name, sha256[name], table.errors.get(i, "changed while it was read")))
    return table.features_of_filled_rows(names, sha256), broken


def cached_picture_signatures_of_files(
    named: Sequence[tuple[str, Path]], sha256: Mapping[str, str], background: str, batch_size: int, title: str
) -> tuple[PictureSignaturesOfFiles, list[BrokenFile]]:
    """What `cached_features_of_files` returns, but of each picture its signature alone: no encoder is needed."""
    cache, names = ArrayCache(), [name for name, _ in named if sha256[name]]
    paths, prefix = dict(named), files.canonical_sha256([VERSION, "signature", background])
    keys = [f"{prefix}:{sha256[name]}" for name in names]

    def picture_signature_row_of_file(i: int) -> Row | None:
        try:
            content = pictures.read_picture_file_bytes(paths[names[i]])
            if hashlib.sha256(content).hexdigest() != sha256[names[i]]:
                return None
            image = pictures.decode_picture(content, background).image
            return {"signature": similarity.signature_of_picture(image)}
        except OSError:
            return None
        except pictures.PictureError as error:
            return {"broken": np.frombuffer(str(error).encode(), np.uint8)}

    with (
        ThreadPoolExecutor(torch_threads_in_use()) as pool,
        progress.progress_bar(title, len(keys), 0, bool(title)) as tick,
    ):
        cache.compute_missing(
            keys, batch_size, lambda those: list(pool.map(picture_signature_row_of_file, those)), tick
        )
    signatures = np.empty((len(names), similarity.SIDE, similarity.SIDE, 3), np.uint8)
    good, broken = [], [BrokenFile(name, "", "cannot be read") for name, _ in named if not sha256[name]]
    for name, row in zip(names, cache.read_arrays_of_keys(keys), strict=True):
        if row and "signature" in row:
            signatures[len(good)] = row["signature"]
            good.append(name)
        else:
            reason = bytes(row["broken"]).decode() if row else "changed while it was read"
            broken.append(BrokenFile(name, sha256[name], reason))
    return PictureSignaturesOfFiles(good, signatures[: len(good)]), broken


def pixel_feature_rows_of_files(
    files_and_sha256: Sequence[tuple[Path, str]], preprocessing: EncoderPreprocessing, background: str
) -> Rows:
    """A row for each picture, by its index in `files_and_sha256`: all features but the encoder's or, of a picture that
    is refused, the reason alone, as `broken`. A file that cannot be read, or holds other bytes than its sha256 says,
    has no row.
    """
    refused, opened = {}, []

    def decode_readable_pictures() -> Iterator[pictures.DecodedPicture]:
        for i, (path, sha256) in enumerate(files_and_sha256):
            try:
                content = pictures.read_picture_file_bytes(path)
                if hashlib.sha256(content).hexdigest() == sha256:
                    picture = pictures.decode_picture(content, background)
                    opened.append(i)
                    yield picture
            except OSError:  # it could be read when it was hashed; nothing of this is kept
                continue
            except pictures.PictureError as error:
                refused[i] = {"broken": np.frombuffer(str(error).encode(), np.uint8)}

    return dict(zip(opened, features_without_encoder(decode_readable_pictures(), preprocessing), strict=True)) | refused


def torch_threads_in_use() -> int:
    """The number of CPU threads that torch uses for one operation now: of `hardware.threads`, else torch's own choice;
    1 inside `one_torch_thread_each`.
    """
    import torch

    return torch.get_num_threads()


@contextmanager
def one_torch_thread_each(wanted: bool) -> Iterator[int]:
    """Inside, if `wanted`, torch computes with one thread in each Python thread. Yields `torch_threads_in_use` from
    before: how many Python threads then keep all cores busy.
    """
    import torch

    before = torch_threads_in_use()
    torch.set_num_threads(1 if wanted else before)
    try:
        yield before
    finally:
        torch.set_num_threads(before)


def submit_ahead(
    batches: list[list[int]], begin: Callable[[list[int]], list[Future[Rows]]], ahead: int
) -> Iterator[tuple[list[int], list[Future[Rows]]]]:
    """Yield each batch of indices with what `begin(batch)` returned; the next `ahead` batches have then begun as
    well.
    """
    waiting: deque[tuple[list[int], list[Future[Rows]]]] = deque()
    for batch in batches:
        waiting.append((batch, begin(batch)))
        if len(waiting) > ahead:
            yield waiting.popleft()
    yield from waiting


def features_without_encoder(
    decoded: Iterable[pictures.DecodedPicture], preprocessing: EncoderPreprocessing
) -> list[Row]:
    """A row for each decoded picture: all features but the encoder's; `pixels` is what the encoder is shown."""
    rows, views = [], []
    for image, notes in decoded:
        shown = {
            "signature": similarity.signature_of_picture(image),
            "pixels": preprocessing.resized_and_cropped_pixels(image),
        }
        rows.append(shown | {"size": np.array(image.size), "transparent": np.array("alpha" in notes)})
        views.append(technical.reduced_and_middle_pixels(image))
    for row, measures in zip(rows, technical.technical_scores(views), strict=True):
        row["technical"] = measures
    return rows


def replace_pixels_by_embeddings(found: Rows, encoder: LoadedEncoder) -> Rows:
    """Encode the pictures of the rows that have `pixels`: they are replaced, in place, by embedding and patches.
    Returns the rows.
    """
    shown = [row for row in found.values() if "pixels" in row]
    made = encode_pictures(encoder, [row.pop("pixels") for row in shown])
    for row, embedding, patches in zip(shown, *made, strict=True):
        row |= {"embedding": embedding, "patches": patches}
    return found


def pixel_features_key(preprocessing: EncoderPreprocessing, background: str) -> str:
    """The first part of the cache key of a picture's features without the encoder's; a colon and its sha256 follow."""
    return files.canonical_sha256([VERSION, preprocessing.name, background])


def store_features_of_drawn(
    drawn: Mapping[str, Image.Image], preprocessing: EncoderPreprocessing, background: str
) -> None:
    """Store in the cache all features but the encoder's of pictures in memory (RGB or RGBA), which `drawn` has by the
    sha256 of their files: scoring need not decode those files.
    """
    key = pixel_features_key(preprocessing, background)
    keys = [f"{key}:{sha256}" for sha256 in drawn]
    decoded = (pictures.drawn_picture_as_decoded(image, background) for image in drawn.values())
    ArrayCache().store_arrays_by_key(dict(zip(keys, features_without_encoder(decoded, preprocessing), strict=True)))
