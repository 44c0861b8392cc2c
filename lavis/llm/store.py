"""Replies that were paid for, by the content of their request: asked again, they cost nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lavis.common.cache import Cache
from lavis.llm.base import ChatReply, ChatRequest, without_images

_KEPT = ("text", "finish_reason", "prompt_tokens", "completion_tokens")


class ReplyStore:
    """Replies by content key in a folder that threads, processes and runs may share.

    An entry is JSON: the reply, and the request with pictures replaced by their hashes.
    """

    def __init__(self, root: str | Path) -> None:
        self._cache = Cache(Path(root).expanduser())

    def get(self, key: str) -> ChatReply | None:
        """Return a stored reply, its `key` the content key; None where there is none."""
        content = self._cache.get(key)
        if content is None:
            return None
        reply = json.loads(content)["reply"]
        return ChatReply(key=key, cached=True, **{name: reply[name] for name in _KEPT})

    def put(self, key: str, reply: ChatReply, request: ChatRequest | None) -> None:
        """Write a reply; on return it survives a SIGKILL of this process."""
        entry: dict[str, Any] = {"reply": {name: getattr(reply, name) for name in _KEPT}}
        if request is not None:
            entry["request"] = {
                "messages": without_images(request.messages),
                "max_tokens": request.max_tokens,
                "temperature": request.temperature,
                "top_p": request.top_p,
                "seed": request.seed,
                "response_format": request.response_format,
            }
        # Replies may hold halves of surrogate pairs, which UTF-8 cannot: ASCII escapes keep them.
        self._cache.put(key, json.dumps(entry).encode("ascii"))

    def has(self, key: str) -> bool:
        """Return whether a reply is there, without reading it."""
        return key in self._cache
