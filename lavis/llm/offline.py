"""A client without a network: replies from the store alone, and what the others would cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lavis.llm.base import ChatReply, Request, content_key
from lavis.llm.config import LlmConfig
from lavis.llm.money.tokens import TokenCounter
from lavis.llm.store import ReplyStore

NOT_STORED = "no reply is stored"


class OfflineClient:
    """Takes the place of a `ChatClient`; sends, pays and writes nothing.

    A request without a stored reply is answered by a refusal. What would follow from its reply,
    such as a second request, is not foreseen.

    Args:
        config: of the client that it stands for.

    Attributes:
        counts: `requests`, of which `stored_replies`; of the others `requests_to_send`,
            `prompt_tokens` (estimated) and `completion_tokens_at_most`.
        asked: requests with their replies, in order, where `keep` says so.
    """

    def __init__(self, config: LlmConfig, *, keep: bool = False) -> None:
        self._config, self._keep = config, keep
        self._store = ReplyStore(config.cache_dir)
        self._counter = TokenCounter(config, exact=not keep)
        self.counts: Counter[str] = Counter()
        self.asked: list[tuple[Request, ChatReply]] = []

    def complete(self, requests: Iterable[Request]) -> Iterator[ChatReply]:
        """Yield a reply for each request, under the request's own `key`."""
        for request in requests:
            stored = self._store.get(content_key(self._config.identity, request))
            if stored is None:
                reply = ChatReply(request.key, error=NOT_STORED, failure="refused")
            else:
                reply = stored.named(request.key)
            if self._keep:
                self.asked.append((request, reply))
            else:
                self._count(request, is_stored=stored is not None)
            yield reply

    def cost_at_most(self, counts: Mapping[str, int]) -> float | None:
        """Return the money for counts by the price table; None without a price."""
        price = self._config.price
        if price is None:
            return None
        prompt, reply = counts.get("prompt_tokens", 0), counts.get("completion_tokens_at_most", 0)
        return round(
            (prompt * price.input + reply * price.output) * self._config.price_factor / 1e6, 4
        )

    @property
    def method(self) -> str:
        """Return how tokens are estimated."""
        return self._counter.method

    def _count(self, request: Request, *, is_stored: bool) -> None:
        self.counts["requests"] += 1
        if is_stored:
            self.counts["stored_replies"] += 1
            return
        self.counts["requests_to_send"] += 1
        self.counts["prompt_tokens"] += self._counter.estimate(request)
        self.counts["completion_tokens_at_most"] += request.max_tokens


def message_text(request: Request) -> str:
    """Return the text of a request's messages; an image is `<image>`."""
    texts: list[str] = []
    for message in request.messages:
        content: Any = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        texts += [part.get("text", "<image>") for part in parts]
    return "\n".join(texts)
