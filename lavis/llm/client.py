"""The client that callers use: requests in, replies out, nothing paid twice, no cap passed."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lavis.common.errors import ConfigError
from lavis.common.registry import llms
from lavis.llm.base import Backend, ChatReply, PendingRequest, Request, content_key
from lavis.llm.config import LlmConfig
from lavis.llm.endpoint.breaker import Breaker
from lavis.llm.endpoint.failures import EndpointStopped
from lavis.llm.money.budget import Account, BudgetReached
from lavis.llm.money.ledger import Ledger
from lavis.llm.money.ledger_file import Totals
from lavis.llm.money.tokens import TokenCounter
from lavis.llm.store import BackendContext, ReplyStore

logger = logging.getLogger(__name__)

_ENDS: dict[str, type[Exception]] = {"fatal": ConfigError, "stopped": EndpointStopped}


class ChatClient:
    """Answers requests from the store, or has the backend answer them.

    Use it as a context manager, from one thread.

    Example:
        >>> requests = [ChatRequest("a", [{"role": "user", "content": "What is a cat?"}])]
        >>> with build_client(read_llm({"backend": "openai", "model": "m"}), "out/llm") as client:
        ...     for reply in client.complete(requests):
        ...         print(reply.key, reply.text if reply.ok else reply.error)

    Attributes:
        identity: what replies depend on beside the request.
        cached: replies of this process that were taken from the store.
    """

    def __init__(
        self, backend: Backend, context: BackendContext, identity: Mapping[str, Any]
    ) -> None:
        self._backend, self._context = backend, context
        self.identity = dict(identity)
        self.cached = 0

    def complete(self, requests: Iterable[Request]) -> Iterator[ChatReply]:
        """Yield a reply for each request, as they come, with the request's own `key`.

        Requests are read from the iterable only as fast as the backend takes them; the iterable
        may grow while replies are read, until it first ends. Check `reply.ok`: a reply with
        `failure` `transient` may be requested again later, `refused` will fail again.

        Raises:
            BudgetReached: the next request would pass a cap; pending replies were yielded before.
            ConfigError: no request can succeed (a wrong key, no such model); likewise.
            EndpointStopped: none can for now (a quota, a dead server); likewise.
        """
        source = iter(requests)
        waiting: dict[str, list[str]] = {}  # content key -> keys of callers
        stop: Exception | None = None
        more = True
        while more or waiting:
            while more and len(waiting) < self._backend.window:
                request = next(source, None)
                if request is None:
                    more = False
                    break
                yield from self._start(request, waiting)
            if not waiting:
                continue
            replies = self._backend.collect()
            reason = self._context.breaker.judge(replies)
            if reason and stop is None:
                stop, more = EndpointStopped(f"llm: {reason}"), False
                if hasattr(self._backend, "halt"):  # that of a plug-in may have none
                    self._backend.halt()
            for reply in replies:
                names = waiting.pop(reply.key, [])
                if reply.failure == "budget":
                    stop, more = stop or BudgetReached(reply.error), False
                elif reply.failure in _ENDS:
                    stop, more = stop or _ENDS[reply.failure](f"llm: {reply.error}"), False
                else:
                    yield from (reply.named(name) for name in names)
        if stop is not None:
            raise stop

    def spent(self) -> Totals:
        """Return what the output folder spent over all starts, without reservations."""
        return self._context.account.ledger.spent()

    def reserved(self) -> Totals:
        """Return what is reserved for requests on their way."""
        return self._context.account.ledger.reserved()

    def close(self) -> None:
        """Drop pending requests, which are charged at their bound, and release the rest."""
        try:
            self._backend.close()
        finally:
            self._context.account.close()

    def __enter__(self) -> ChatClient:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _start(self, request: Request, waiting: dict[str, list[str]]) -> Iterator[ChatReply]:
        """Pass a request to the backend, unless its reply is stored or on its way."""
        key = content_key(self.identity, request)
        if key in waiting:
            waiting[key].append(request.key)
            return
        if self._backend.keeps_replies:
            stored = self._context.store.get(key)
            if stored is not None:
                self.cached += 1
                yield stored.named(request.key)
                return
        waiting[key] = [request.key]
        self._backend.submit(PendingRequest(key, request))


def build_client(config: LlmConfig, folder: str | Path, ledger: Ledger | None = None) -> ChatClient:
    """Return a client of settings that `LlmSettings` checked.

    Args:
        folder: of this client's state, such as batch jobs; the same at every start.
        ledger: of the output folder, shared by the clients of a run (see `open_ledger`). None
            opens one in `folder`, for this client alone.

    Raises:
        ConfigError: no key, no SDK, another process in the folder.
    """
    folder = Path(folder)
    shared = ledger or Ledger(folder)
    try:
        place = os.path.relpath(folder, shared.folder)
        account = Account(shared, config, scope="" if place == "." else place, owned=ledger is None)
        counter = TokenCounter(config, corrected=account.estimate)
        breaker = Breaker(
            config.failure_limit, folder / "given_up.txt", has_worked=account.was_billed()
        )
        context = BackendContext(folder, account, ReplyStore(config.cache_dir), counter, breaker)
        backend: Any = llms.get(config.backend).build(config, context)
    except BaseException:
        if ledger is None:
            shared.close()
        raise
    return ChatClient(backend, context, config.identity)
