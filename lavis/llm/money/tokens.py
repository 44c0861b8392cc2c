"""Tokens of a request: an estimate, a bound that caps can rely on, and a server's count."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from lavis.common.errors import finite
from lavis.common.pretrained import load_tokenizer
from lavis.llm.base import Request, image_parts, message_texts
from lavis.llm.config import LlmConfig
from lavis.llm.money.billing import Bills, PromptBound
from lavis.llm.money.image_tokens import ImageTokens

_PROMPT = ("prompt_tokens", "input_tokens")
_REPLY = ("completion_tokens", "output_tokens")
MESSAGE_OVERHEAD = 16  # tokens of a chat template around one message, at most


class TokenCounter:
    """Estimates by a ratio of characters, or by a tokenizer.

    Args:
        exact: load `config.tokenizer` if there is one; costs seconds once and time a request.
        corrected: estimate of a bound from the ledger's bills; None uses the rules alone.

    Attributes:
        method: how texts are counted, in words.
        image_rule: how images are, with the rule's numbers.
    """

    def __init__(
        self,
        config: LlmConfig,
        *,
        exact: bool = False,
        corrected: Callable[[PromptBound], int] | None = None,
    ) -> None:
        self._ratio = config.chars_per_token
        self._images = ImageTokens(config.image_token_rule, config.model, config.image_tokens)
        self.image_rule = self._images.label
        self._corrected = corrected or Bills().estimate
        self._tokenizer: Any = None
        self.method = f"{config.chars_per_token:g} characters a token"
        if exact and config.tokenizer is not None:
            self._tokenizer = load_tokenizer(config.tokenizer, "tokenizer")
            self.method = f"tokenizer {config.tokenizer}"

    def estimate(self, request: Request) -> int:
        """Return about how many tokens the prompt will be billed, schema included."""
        return self._corrected(self.bound(request))

    def bound(self, request: Request) -> PromptBound:
        """Return the size of a prompt: bounds, whatever the tokenizer, and estimates.

        A token stands for one byte or more; each message adds its template. Images count by the
        rule of `llm.image_token_rule`, from their sizes.
        """
        texts = message_texts(request.messages)
        if request.response_format is not None:
            texts.append(json.dumps(request.response_format))
        size = sum(len(text.encode("utf-8", "replace")) for text in texts)
        if self._tokenizer is not None:
            guess = sum(len(self._tokenizer.encode(text)) for text in texts)
        else:
            guess = math.ceil(size / self._ratio)
        return PromptBound(
            text=size + MESSAGE_OVERHEAD * (len(request.messages) + 1),
            guess=guess + 4 * len(request.messages),
            images=sum(map(self._images.of_part, image_parts(request.messages))),
            documented=self._images.documented,
        )


def read_usage(usage: Any, reply_guess: int = 0) -> tuple[int, int] | None:
    """Return (prompt tokens, completion tokens), 0 for a missing one; None if both are.

    Never less than was spent: `total_tokens` above the sum of its parts counts as tokens of the
    reply (reasoning that some servers leave out of `completion_tokens`), and the reply has at least
    the reasoning tokens of its details. Cached prompt tokens are part of the prompt, here at full
    price. Numbers below 0 and non-numbers count as missing.

    Args:
        usage: the object of that name in a completion, of any form.
        reply_guess: tokens of the reply by its length, which split a total without parts.
    """
    if not isinstance(usage, Mapping):
        return None
    prompt, reply = _first(usage, _PROMPT), _first(usage, _REPLY)
    total = _number(usage.get("total_tokens"))
    details = usage.get("completion_tokens_details")
    thought = _number(details.get("reasoning_tokens")) if isinstance(details, Mapping) else 0
    reply = max(reply, thought)
    if total > prompt + reply:
        if not prompt:
            reply = reply or min(reply_guess, total - 1)
            prompt = total - reply
        else:
            reply = total - prompt
    return (prompt, reply) if prompt or reply else None


def rough_tokens(text: str) -> int:
    """Return about how many tokens a reply has, rather too many than too few."""
    return -(-len(text.encode("utf-8", "replace")) // 3)


def _first(usage: Mapping[str, Any], names: tuple[str, ...]) -> int:
    return next((value for name in names if (value := _number(usage.get(name)))), 0)


def _number(value: Any) -> int:
    """Return a count of tokens, 0 where it is none."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return 0
    number = finite(value)
    return int(number) if number is not None and number > 0 else 0
