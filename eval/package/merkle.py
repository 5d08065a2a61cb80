"""The Merkle tree over the items of a package, as RFC 6962 builds it. Hashes are bytes; the maths has no files."""

import hashlib
from collections.abc import Sequence

Tree = tuple[bytes, list[list[bytes]]]


def merkle_root_and_paths(leaves: Sequence[bytes]) -> Tree:
    """The root of one leaf hash or more, and for each leaf the hashes beside its path to the root, nearest first."""
    if len(leaves) == 1:
        return leaves[0], [[]]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)  # the largest power of two below the number of leaves
    (left, left_paths), (right, right_paths) = (
        merkle_root_and_paths(leaves[:split]),
        merkle_root_and_paths(leaves[split:]),
    )
    paths = [[*path, right] for path in left_paths] + [[*path, left] for path in right_paths]
    return hashlib.sha256(b"\x01" + left + right).digest(), paths
