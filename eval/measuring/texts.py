"""Embeddings of texts, each computed once, ever."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from eval.measuring.encoder import LoadedEncoder, encode_texts
from stylegate import files
from stylegate.cache import ArrayCache


def text_encoding_function_with_cache(encoder: LoadedEncoder) -> Callable[[list[str]], NDArray[np.float32]]:
    """A function from n texts to unit embeddings [n, d]. It keeps each embedding in the cache, across runs."""
    cache = ArrayCache()

    def embeddings_of_texts(wanted: list[str]) -> NDArray[np.float32]:
        keys = [files.canonical_sha256(["text-1", encoder.sha256, text]) for text in wanted]

        def encode_missing_texts(missing: list[int]) -> list[dict[str, NDArray]]:
            return [{"e": row} for row in encode_texts(encoder, [wanted[i] for i in missing])]

        return np.stack([row["e"] for row in cache.get_or_compute(keys, 256, encode_missing_texts) if row])

    return embeddings_of_texts
