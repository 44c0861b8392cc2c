"""Attempts on one event loop in its own thread: each ends within its time limit, or when dropped.

A timeout of the HTTP library counts from one byte to the next, so a slow server can hold a request
for ever, and a blocked read cannot be ended from outside. A task of a loop can.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import AsyncIterator, Mapping
from typing import Any

MAX_BYTES = 16 * 2**20  # of an answer, unpacked
CLOSE_SECONDS = 0.3  # for what is dropped to end, and for connections to close


class Dropped(Exception):
    """The transport was closed while the attempt was on its way."""


class TooLong(Exception):
    """The answer is longer than any that a model writes."""


class Transport:
    """Sends bodies of chat requests, any number at a time, from any thread.

    Args:
        client: `AsyncOpenAI`, of which this is the only user.
        seconds: of a whole attempt, from its first byte to its last.
    """

    def __init__(self, client: Any, seconds: float) -> None:
        self._client, self._seconds = client, seconds
        self._loop = asyncio.new_event_loop()
        self._lock = threading.Lock()  # so that `close` drops all that was handed to the loop
        self._closed = False
        self._sending: set[concurrent.futures.Future[str]] = set()
        self._thread = threading.Thread(target=self._run, name="llm-transport", daemon=True)
        self._thread.start()

    def send(self, body: Mapping[str, Any], url: str = "") -> str:
        """Wait for a good answer and return its text.

        Args:
            body: of the request.
            url: where to, if not to chat completions; whole, or below the client's base URL.

        Raises:
            Dropped: `close` was called.
            TooLong: it has more than `MAX_BYTES`; the rest was not read.
            asyncio.TimeoutError: the whole of it took too long.
            openai.OpenAIError: as the SDK raises them.
        """
        with self._lock:
            if self._closed:
                raise Dropped
            future = asyncio.run_coroutine_threadsafe(self._send(body, url), self._loop)
            self._sending.add(future)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise Dropped from None
        finally:
            self._sending.discard(future)

    def close(self) -> None:
        """Drop pending attempts and connections; takes a second at most."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._loop.call_soon_threadsafe(self._loop.create_task, self._end())
        self._thread.join(4 * CLOSE_SECONDS)

    async def _send(self, body: Mapping[str, Any], url: str) -> str:
        if url:
            return await asyncio.wait_for(self._post(url, body), self._seconds)
        rest = {name: value for name, value in body.items() if name not in ("model", "messages")}
        request = self._client.chat.completions.with_streaming_response.create(
            model=body["model"], messages=body["messages"], extra_body=rest
        )
        return await asyncio.wait_for(_read(request), self._seconds)

    async def _post(self, url: str, body: Mapping[str, Any]) -> str:
        """Call an interface that the SDK has no method for."""
        import openai

        stream = await self._client.post(
            url, cast_to=object, body=dict(body), stream=True, stream_cls=openai.AsyncStream[Any]
        )
        try:
            return await _text(stream.response, stream.response.aiter_bytes())
        finally:
            await stream.response.aclose()

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_SECONDS)
        with contextlib.suppress(Exception):  # one that does not close ends with the process
            await asyncio.wait_for(self._client.close(), CLOSE_SECONDS)
        self._loop.stop()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            for future in list(self._sending):  # of a task that was cancelled and did not end
                future.cancel()
            self._loop.close()


async def _read(request: Any) -> str:
    async with request as answer:
        return await _text(answer.http_response, answer.iter_bytes())


async def _text(response: Any, pieces: AsyncIterator[bytes]) -> str:
    """Return the text of an answer, without holding more than the length limit."""
    data = bytearray()
    async for piece in pieces:
        data += piece
        if len(data) > MAX_BYTES:
            raise TooLong
    charset = response.charset_encoding or "utf-8"
    try:
        return data.decode(charset, "replace")
    except LookupError:  # no known charset
        return data.decode("utf-8", "replace")
