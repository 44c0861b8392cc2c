"""Attempts on the loop's thread: what is on its way when the transport closes ends as dropped."""

import asyncio
import threading

import pytest

from lavis.llm.endpoint.transport import Dropped, Transport


class Client:
    """Stands for `AsyncOpenAI`."""

    async def close(self):
        """Nothing is open."""


class EndlessTransport(Transport):
    """Its attempts never end by themselves, and may take no notice of being cancelled."""

    def __init__(self, stubborn):
        self.stubborn, self.started = stubborn, threading.Event()
        super().__init__(Client(), 60)

    async def _send(self, body):
        self.started.set()
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if not self.stubborn:
                    raise


@pytest.mark.parametrize("stubborn", [False, True])
def test_what_is_on_its_way_ends_as_dropped_when_the_transport_closes(stubborn):
    transport, ends = EndlessTransport(stubborn), []

    def send():
        try:
            transport.send({})
        except Dropped:
            ends.append("dropped")

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    assert transport.started.wait(10)
    transport.close()
    thread.join(10)
    assert ends == ["dropped"]
    with pytest.raises(Dropped):
        transport.send({})
