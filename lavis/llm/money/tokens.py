"""How many tokens a request will take: a quick estimate, and a bound that caps can rely on."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

from lavis.common.pretrained import load_pretrained
from lavis.llm.base import ChatRequest, image_parts, message_texts
from lavis.llm.config import LlmConfig
from lavis.llm.money.billing import Bills, PromptBound
from lavis.llm.money.image_tokens import ImageTokens

MESSAGE_OVERHEAD = 16  # tokens of a chat template around one message, at most


class TokenCounter:
    """Estimates by a ratio of characters, or by a tokenizer.

    Args:
        config: says which.
        exact: load `config.tokenizer` where there is one; costs seconds once and time a request.
        corrected: estimate of a bound as the ledger knows the bills; by the rules alone where None.
    """

    def __init__(
        self,
        config: LlmConfig,
        *,
        exact: bool = False,
        corrected: Callable[[PromptBound], int] | None = None,
    ) -> None:
        self._ratio = config.chars_per_token
        self._images = ImageTokens(config.picture_tokens, config.model, config.image_tokens)
        self._corrected = corrected or Bills().estimate
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
        """Return about how many tokens the prompt will be billed; a schema is part of it."""
        return self._corrected(self.bound(request))

    def bound(self, request: ChatRequest) -> PromptBound:
        """Return the size of a prompt: bounds, whatever the tokenizer, and estimates.

        A token stands for one byte or more; each message adds its template. Images count by the
        rule of `llm.picture_tokens`, from their sizes.
        """
        texts = [*message_texts(request.messages), *_schema(request)]
        size = sum(len(text.encode("utf-8", "replace")) for text in texts)
        if self._tokenizer is not None:
            guess = sum(len(self._tokenizer.encode(text)) for text in texts)
        else:
            guess = math.ceil(size / self._ratio)
        return PromptBound(
            text=size + MESSAGE_OVERHEAD * (len(request.messages) + 1),
            guess=guess + 4 * len(request.messages),
            pictures=sum(map(self._images.of_part, image_parts(request.messages))),
            documented=self._images.documented,
        )


def _schema(request: ChatRequest) -> list[str]:
    return [] if request.response_format is None else [json.dumps(request.response_format)]
