"""Rows of a unit arranged so that nothing is computed twice: shared beginnings, even reads.

A unit's texts begin alike: prompts of one question, options of one context, candidates behind one
prompt. Pure functions of token ids, so that any process arranges a unit the same way.

Shapes: T texts, G distinct beginnings, L tokens, R reads of a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

Tokens = tuple[int, ...]
LONGEST_REST = (1, 2, 4, 8, 16, 32, 64, 128)  # tried for what follows a beginning, tokens
WORTH = 0.85  # of the plain rows' tokens: two passes that save less are not worth it
ROW_COST = 8  # what a row costs on top of its reads, in reads


@dataclass(frozen=True)
class Beginnings:
    """Beginnings that texts share.

    Attributes:
        lengths: `(G,)` tokens of each.
        first: `(G,)` a text that has it.
        of: `(T,)` of each text, its beginning; at least one token follows it.
    """

    lengths: tuple[int, ...]
    first: tuple[int, ...]
    of: tuple[int, ...]


def shared_beginnings(texts: Sequence[Tokens]) -> Beginnings | None:
    """Return the beginnings with which a unit takes the fewest tokens, padding counted.

    Args:
        texts: distinct token rows.

    Returns:
        None where sharing saves little, or a text has one token only.
    """
    if len(texts) < 2 or min(map(len, texts)) < 2:
        return None
    order = sorted(range(len(texts)), key=lambda n: texts[n])
    alike = [_common(texts[a], texts[b]) for a, b in pairwise(order)]
    least = WORTH * len(texts) * max(map(len, texts))
    chosen = None
    for rest in LONGEST_REST:
        found = _grouped(texts, order, alike, rest)
        longest = max(len(text) - found.lengths[n] for text, n in zip(texts, found.of, strict=True))
        tokens = len(found.lengths) * max(found.lengths) + len(texts) * longest
        if tokens < least:
            least, chosen = tokens, found
    return chosen


def _common(one: Tokens, other: Tokens) -> int:
    for place, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return place
    return min(len(one), len(other))


def _grouped(
    texts: Sequence[Tokens], order: Sequence[int], alike: Sequence[int], rest: int
) -> Beginnings:
    """Group neighbours in sorted order; no text of a shared beginning goes on for over `rest`."""
    lengths: list[int] = []
    first: list[int] = []
    of = [0] * len(texts)
    longest = 0
    for place, text in enumerate(order):
        length = len(texts[text])
        if lengths:
            common = min(lengths[-1], alike[place - 1], length - 1)
            if common and max(longest, length) - common <= rest:
                lengths[-1], longest = common, max(longest, length)
                of[text] = len(lengths) - 1
                continue
        lengths.append(length - 1)
        first.append(text)
        of[text] = len(lengths) - 1
        longest = length
    return Beginnings(tuple(lengths), tuple(first), tuple(of))


def reads_of_a_row(counts: Sequence[int]) -> int:
    """Return R, at which rows with so many reads, cut into rows of R, take the least work.

    Args:
        counts: reads of each row, as they are now; every row is padded to R.
    """
    wanted = [count for count in counts if count]
    if not wanted:
        return 1

    def work(reads: int) -> int:
        return sum(-(-count // reads) for count in wanted) * (reads + ROW_COST)

    return min(sorted(set(wanted)), key=work)
