"""Which texts are drawn for a question: its sentences, an anchor, and the seeds of the images.

The order is that of the published evaluation code: variant i of K - 1 is
sentence number -i modulo the number of sentences, then the anchor.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from lavis.common.text import EMPTY_PROMPT, split_sentences

ANCHOR_WORDS = 70


def image_prompts(
    text: str,
    k: int,
    *,
    anchor_words: int = ANCHOR_WORDS,
    sentences: Sequence[str] | None = None,
    verbatim: bool = False,
) -> list[str]:
    """Return the K prompts of a text: sentences from the last one back, around again, then it.

    Args:
        text: what the question says.
        k: number of images; 0 gives none.
        anchor_words: the last prompt is the text's last so many words, one blank between them.
        sentences: of the text, where they are known.
        verbatim: the whole text K times, as published for ImageNetVC.

    Raises:
        ValueError: `k` is negative.
    """
    if k < 0:
        raise ValueError(f"{k} images asked for; use 0 or more")
    words = text.split()
    if not words:
        return [EMPTY_PROMPT] * k
    if verbatim or k == 0:
        return [text] * k
    parts = split_sentences(text) if sentences is None else list(sentences)
    parts = parts or [text]
    return [parts[-i % len(parts)] for i in range(1, k)] + [" ".join(words[-anchor_words:])]


def prompt_seed(prompt: str, index: int, seed: int) -> int:
    """Return the seed of one image, 0 to 2**63 - 1: SHA-256 of prompt, index and seed only."""
    text = json.dumps([prompt, index, seed], ensure_ascii=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
