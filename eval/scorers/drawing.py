"""Drawing: how much of what the encoder sees, place by place, can be put together from the references.

A picture's patches (eval/measuring/encoder.py) are approximated by a combination of the references' patches, with a
ridge penalty; the score is minus what is left over, in lengths of a reference about the mean. Range about [-2, 0],
higher is better. It sees crops, covered and missing parts, blur, and drawing that is muddled; it is blind to anything
that one of the references could lend, such as another trait. Fails for brands whose pictures share no template: then
every picture is far from what the others could lend, and the line says little.
"""

import numpy as np
from numpy.typing import NDArray

PENALTY = 0.1  # of the references' mean square
MOST = 256  # references that are combined; of more, an even spread


def score(patches: NDArray, references: NDArray) -> NDArray[np.float32]:
    """[n] of unit rows [n, p] against those of the references [r, p]."""
    lent = references[np.linspace(0, len(references) - 1, MOST).astype(int)] if len(references) > MOST else references
    lent, mean = lent.astype(np.float32), lent.mean(0, dtype=np.float32)
    centred = lent - mean
    gram = centred @ centred.T
    unit = max(float(np.trace(gram)) / len(gram), 1e-6)  # references that are all the same lend nothing
    out = np.empty(len(patches), np.float32)
    for start in range(0, len(patches), 1024):
        rows = patches[start : start + 1024].astype(np.float32) - mean
        shared = rows @ centred.T  # [n, r]
        weights = np.linalg.solve(gram + PENALTY * unit * np.eye(len(gram), dtype=np.float32), shared.T).T
        left = np.square(rows).sum(1) - 2 * (weights * shared).sum(1) + ((weights @ gram) * weights).sum(1)
        out[start : start + 1024] = -np.sqrt(np.maximum(left, 0) / unit)
    return out


def leave_one_out(references: NDArray) -> NDArray[np.float32]:
    """[r] each reference against the others."""
    rest = (np.delete(references, i, axis=0) for i in range(len(references)))
    return np.concatenate([score(references[i : i + 1], others) for i, others in enumerate(rest)])
