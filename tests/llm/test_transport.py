"""Attempts on the loop's thread: what is on its way when the transport closes ends as dropped."""

import asyncio
import threading
from types import SimpleNamespace

import pytest

from lavis.llm.transport import Dropped, Transport


class Client:
    """Stands for `AsyncOpenAI`: `create` never ends, and may take no notice of being cancelled."""

    def __init__(self, stubborn):
        self.stubborn, self.started = stubborn, threading.Event()
        completions = SimpleNamespace(with_raw_response=SimpleNamespace(create=self.create))
        self.chat = SimpleNamespace(completions=completions)

    async def create(self, **body):
        self.started.set()
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if not self.stubborn:
                    raise

    async def close(self):
        """Nothing is open."""


@pytest.mark.parametrize("stubborn", [False, True])
def test_what_is_on_its_way_ends_as_dropped_when_the_transport_closes(stubborn):
    client, ends = Client(stubborn), []
    transport = Transport(client, 60)

    def send():
        try:
            transport.send({"model": "m", "messages": []})
        except Dropped:
            ends.append("dropped")

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    assert client.started.wait(10)
    transport.close()
    thread.join(10)
    assert ends == ["dropped"]
    with pytest.raises(Dropped):
        transport.send({"model": "m", "messages": []})
