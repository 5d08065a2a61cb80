"""Embeddings of texts, each computed once, ever."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from eval.measuring.encoder import Encoder, encode_texts
from stylegate import files
from stylegate.cache import Cache


def cached_text_encoder(encoder: Encoder) -> Callable[[list[str]], NDArray[np.float32]]:
    """A function from n texts to unit embeddings [n, d] that encodes each text once, ever."""
    cache = Cache()

    def texts(wanted: list[str]) -> NDArray[np.float32]:
        keys = [files.canonical_sha256(["text-1", encoder.sha256, text]) for text in wanted]

        def encode(missing: list[int]) -> list[dict[str, NDArray]]:
            return [{"e": row} for row in encode_texts(encoder, [wanted[i] for i in missing])]

        return np.stack([row["e"] for row in cache.get_or_compute(keys, 256, encode) if row])

    return texts
