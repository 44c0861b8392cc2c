"""How many tokens a request will take: a quick estimate, and a bound that caps can rely on."""

from __future__ import annotations

import json
import math
from typing import Any

from lavis.common.pretrained import load_pretrained
from lavis.llm.base import ChatRequest, count_images, message_texts
from lavis.llm.config import LlmConfig

MESSAGE_OVERHEAD = 16  # tokens of a chat template around one message, at most


class TokenCounter:
    """Estimates by a ratio of characters, or by a tokenizer.

    Args:
        config: says which.
        exact: load `config.tokenizer` where there is one; costs seconds once and time a request.
    """

    def __init__(self, config: LlmConfig, *, exact: bool = False) -> None:
        self._ratio = config.chars_per_token
        self._image_tokens = config.image_tokens
        self._tokenizer: Any = None
        self.method = f"{config.chars_per_token:g} characters a token"
        if exact and config.tokenizer is not None:
            from transformers import AutoTokenizer

            self._tokenizer = load_pretrained(
                AutoTokenizer,
                config.tokenizer,
                refusal=f"tokenizer: cannot load '{config.tokenizer}'",
            )
            self.method = f"tokenizer {config.tokenizer}"

    def estimate(self, request: ChatRequest) -> int:
        """Return about how many tokens the prompt has; a schema counts as part of it."""
        texts = [*message_texts(request.messages), *_schema(request)]
        if self._tokenizer is not None:
            tokens = sum(len(self._tokenizer.encode(text)) for text in texts)
        else:
            tokens = math.ceil(sum(map(len, texts)) / self._ratio)
        return tokens + 4 * len(request.messages) + self._images(request)

    def bound(self, request: ChatRequest) -> int:
        """Return a number of tokens the prompt does not exceed, whatever the tokenizer.

        A token stands for one byte or more; each message adds its template. Pictures are counted
        by the configured estimate, twice.
        """
        texts = [*message_texts(request.messages), *_schema(request)]
        size = sum(len(text.encode("utf-8", "replace")) for text in texts)
        return size + MESSAGE_OVERHEAD * (len(request.messages) + 1) + 2 * self._images(request)

    def _images(self, request: ChatRequest) -> int:
        return self._image_tokens * count_images(request.messages)


def _schema(request: ChatRequest) -> list[str]:
    return [] if request.response_format is None else [json.dumps(request.response_format)]
