"""Paid replies by the content of their request; and the context that a backend works with."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lavis.common.errors import REFUSALS
from lavis.common.storage.cache import Cache
from lavis.llm.base import ChatReply, RankRequest, Request
from lavis.llm.endpoint.breaker import Breaker
from lavis.llm.endpoint.failures import Problem
from lavis.llm.money.budget import Account
from lavis.llm.money.tokens import TokenCounter, rough_tokens
from lavis.llm.replies.completion import NO_ANSWERS, end_of
from lavis.llm.replies.json_reading import scan_json
from lavis.llm.replies.logprobs import from_json, to_json
from lavis.llm.replies.reasoning import answer_text

_KEPT = ("text", "finish_reason", "prompt_tokens", "completion_tokens", "reasoning")


class ReplyStore:
    """Replies by content key in a folder that threads, processes and runs may share.

    An entry is JSON: the reply, and the request with images replaced by their hashes. Only whole
    answers are kept: a cut one is returned to its caller once, and requested again by the next. So
    is free text without the logprobs that were requested: they may come from another server.
    """

    def __init__(self, root: str | Path) -> None:
        self._cache = Cache(Path(root).expanduser())

    def get(self, key: str) -> ChatReply | None:
        """Return a stored reply, its `key` the content key; None if there is none.

        An entry that is damaged, foreign, or no answer counts as none.
        """
        content = self._cache.get(key)
        if content is None:
            return None
        try:
            return _read(key, json.loads(content)["reply"])
        except REFUSALS:
            return None

    def put(self, key: str, reply: ChatReply, request: Request | None) -> None:
        """Write a whole answer; on return it survives a SIGKILL of this process."""
        if not _is_whole(reply):
            return
        entry: dict[str, Any] = {"reply": {name: getattr(reply, name) for name in _KEPT}}
        if reply.logprobs is not None:
            entry["reply"]["logprobs"] = to_json(reply.logprobs)
        if request is not None:
            entry["request"] = request.stored()
        # Replies may hold halves of surrogate pairs, which UTF-8 cannot: ASCII escapes keep them.
        self._cache.put(key, json.dumps(entry).encode("ascii"))

    def has(self, key: str) -> bool:
        """Return whether `get` returns a reply."""
        return self.get(key) is not None


@dataclass(frozen=True)
class BackendContext:
    """Handed to a backend when it is built.

    Attributes:
        folder: of this run's own state.
        account: what this client may spend; caps and totals of the whole output folder.
        store: paid replies.
        counter: token estimates.
        breaker: tells when to stop.
    """

    folder: Path
    account: Account
    store: ReplyStore
    counter: TokenCounter
    breaker: Breaker

    def finish(
        self, key: str, reply: ChatReply, request: Request | None, reservation: str
    ) -> ChatReply:
        """Store a reply, then settle its cost; in this order, so that a kill counts too much.

        Args:
            key: content key.
            reply: as received; token counts that the server left out, or that no model can have,
                are estimated.
            request: where it is still at hand.
            reservation: name in the ledger.
        """
        text = "" if isinstance(request, RankRequest) else reply.reasoning + reply.text
        written = reply.completion_tokens or rough_tokens(text)
        counts = reply.prompt_tokens, written
        prompt, completion = self.account.counted(reservation, *counts)
        if not prompt and request is not None:
            prompt = self.counter.estimate(request)
        reply = replace(reply, prompt_tokens=prompt, completion_tokens=completion)
        if not _lacks_logprobs(reply, request):
            self.store.put(key, reply, request)
        self.account.settle(reservation, *counts)
        return reply

    def failed(self, reservation: str, problem: Problem) -> None:
        """Settle the reservation of an attempt without a reply, by what that can have cost."""
        if problem.usage is not None:
            self.account.settle(reservation, *problem.usage)
        elif problem.cost == "none":
            self.account.free(reservation)
        elif problem.cost == "unknown":
            self.account.forfeit(reservation)
        else:
            self.account.cancel(reservation)


def _is_whole(reply: ChatReply) -> bool:
    """Return whether a reply is a whole answer; servers do not always report a cut.

    Of an answer with logprobs its first tokens are of use, so that a cut takes nothing away.
    """
    end = end_of(reply.finish_reason)
    if not reply.ok or not reply.text.strip():
        return False
    if end in NO_ANSWERS and not (end == "length" and reply.logprobs):
        return False
    is_json = reply.text.lstrip("\ufeff \t\r\n")[:1] in ("{", "[", "`")
    return not (is_json and scan_json(reply.text).is_cut)


def _lacks_logprobs(reply: ChatReply, request: Request | None) -> bool:
    """Return whether a reply lacks logprobs that it is of no use without."""
    if request is None or request.logprobs is None or request.response_format is not None:
        return False
    return reply.logprobs is None


def _read(key: str, entry: dict[str, Any]) -> ChatReply | None:
    """Return the answer of an entry; earlier versions stored any reply."""
    text, thought = answer_text(entry["text"])
    reply = ChatReply(
        key=key,
        text=text,
        finish_reason=str(entry["finish_reason"]),
        prompt_tokens=max(0, int(entry["prompt_tokens"])),
        completion_tokens=max(0, int(entry["completion_tokens"])),
        cached=True,
        reasoning=thought or str(entry.get("reasoning") or ""),
        logprobs=from_json(entry.get("logprobs")),
    )
    return reply if _is_whole(reply) else None
