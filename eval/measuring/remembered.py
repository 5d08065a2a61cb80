"""Results that a process remembers: what is learned of a brand is learned once, however often the process judges.

A training judges each of its checkpoints by the same references, an early stop each of its previews, a watch each new
picture, a run each round of drawing. A result is remembered under a digest of all that it is computed from.
"""

import hashlib
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

import numpy as np

Result = TypeVar("Result")


class RememberedResults(Generic[Result]):
    """The results of one function that were asked for last, at most `most` of them. They are shared: nobody writes into
    them.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.by_digest: dict[bytes, Result] = {}  # the one that was asked for last at the end

    def result_for(self, computed_from: Iterable[Any], compute: Callable[[], Result]) -> Result:
        """The result that is computed from these values, by `compute` if it is not remembered.

        A value is an array, text, a number, a bool, None, or a tuple or list of values.
        """
        digest = hashlib.sha256()
        feed_value_into_digest(digest, tuple(computed_from))
        key = digest.digest()
        found = self.by_digest.pop(key, None)
        found = self.by_digest[key] = compute() if found is None else found
        for oldest in list(self.by_digest)[: -self.most]:
            self.by_digest.pop(oldest, None)
        return found


def feed_value_into_digest(digest: Any, value: Any) -> None:
    """Feed a value and its type into a digest of hashlib, so that two values that differ never feed the same bytes.
    Raises TypeError for a value of another kind.
    """
    if isinstance(value, np.ndarray):
        digest.update(f"array {value.dtype.str} {value.shape};".encode())
        digest.update(np.ascontiguousarray(value).data)
    elif isinstance(value, tuple | list):
        digest.update(f"sequence {len(value)};".encode())
        for one in value:
            feed_value_into_digest(digest, one)
    elif value is None or isinstance(value, str | bool | int | float):
        text = repr(value).encode()
        digest.update(f"{type(value).__name__} {len(text)};".encode() + text)
    else:
        raise TypeError(f"a {type(value).__name__} cannot be part of what a result is remembered under")
