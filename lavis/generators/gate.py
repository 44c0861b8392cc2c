"""Which questions need no pictures, because the text-only answer is certain."""

from __future__ import annotations

import numpy as np


def skip_when_certain(probabilities: np.ndarray, threshold: float | None) -> np.ndarray:
    """Return which questions to answer without pictures.

    Args:
        probabilities: `(N,)`, the text-only probability of each question's best answer; or `(N, C)`
            of its candidates, whose largest counts.
        threshold: pictures are skipped from this probability on; None skips none.

    Returns:
        `(N,)` booleans.

    Raises:
        ValueError: the threshold or a probability lies outside [0, 1].
    """
    best = np.asarray(probabilities, dtype=np.float64)
    best = best.max(axis=1) if best.ndim == 2 else best
    if threshold is None:
        return np.zeros(len(best), dtype=bool)
    if not 0 <= threshold <= 1 or (len(best) and not (best.min() >= 0 and best.max() <= 1 + 1e-6)):
        raise ValueError("probabilities and the threshold of skip_when_certain lie in [0, 1]")
    return best >= threshold
