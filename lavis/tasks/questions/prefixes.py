"""A unit's texts arranged so that nothing is computed twice: shared prefixes, even rows of targets.

Prompts of one question begin alike, and so do options of one context. Pure functions of token ids,
so that any process arranges a unit the same way.

Shapes: T texts, G distinct prefixes, L tokens, R target positions of a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

Tokens = tuple[int, ...]
LONGEST_SUFFIX = (1, 2, 4, 8, 16, 32, 64, 128)  # tried for what follows a prefix, tokens
WORTH = 0.85  # of the plain rows' tokens: two passes that save less are not worth it
ROW_COST = 8  # what a row costs on top of its target positions, in positions


@dataclass(frozen=True)
class SharedPrefixes:
    """Prefixes that texts share.

    Attributes:
        lengths: `(G,)` tokens of each.
        first: `(G,)` a text that has it.
        of: `(T,)` prefix of each text; at least one token follows it.
    """

    lengths: tuple[int, ...]
    first: tuple[int, ...]
    of: tuple[int, ...]


def shared_prefixes(texts: Sequence[Tokens]) -> SharedPrefixes | None:
    """Return the prefixes with which a unit takes the fewest tokens, padding counted.

    Args:
        texts: distinct token rows.

    Returns:
        None where sharing saves little, or a text has one token only.
    """
    if len(texts) < 2 or min(map(len, texts)) < 2:
        return None
    order = sorted(range(len(texts)), key=lambda n: texts[n])
    common = [_common(texts[a], texts[b]) for a, b in pairwise(order)]
    least = WORTH * len(texts) * max(map(len, texts))
    chosen = None
    for suffix in LONGEST_SUFFIX:
        shared = _grouped(texts, order, common, suffix)
        longest = max(len(t) - shared.lengths[n] for t, n in zip(texts, shared.of, strict=True))
        tokens = len(shared.lengths) * max(shared.lengths) + len(texts) * longest
        if tokens < least:
            least, chosen = tokens, shared
    return chosen


def _common(one: Tokens, other: Tokens) -> int:
    for place, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return place
    return min(len(one), len(other))


def _grouped(
    texts: Sequence[Tokens], order: Sequence[int], common: Sequence[int], suffix: int
) -> SharedPrefixes:
    """Group neighbours in sorted order; no text goes on behind its prefix for over `suffix`."""
    lengths: list[int] = []
    first: list[int] = []
    of = [0] * len(texts)
    longest = 0
    for place, text in enumerate(order):
        length = len(texts[text])
        if lengths:
            shared = min(lengths[-1], common[place - 1], length - 1)
            if shared and max(longest, length) - shared <= suffix:
                lengths[-1], longest = shared, max(longest, length)
                of[text] = len(lengths) - 1
                continue
        lengths.append(length - 1)
        first.append(text)
        of[text] = len(lengths) - 1
        longest = length
    return SharedPrefixes(tuple(lengths), tuple(first), tuple(of))


def targets_per_row(counts: Sequence[int]) -> int:
    """Return R, for the least work with rows of `counts` targets cut into parts padded to R."""
    positive = [count for count in counts if count]
    if not positive:
        return 1

    def work(size: int) -> int:
        return sum(-(-count // size) for count in positive) * (size + ROW_COST)

    return min(sorted(set(positive)), key=work)
