"""Requests to a chat server, and what comes back: for tests of clients."""

from lavis.common.errors import ConfigError
from lavis.llm.base import ChatRequest
from lavis.llm.client import build_client
from lavis.llm.config import read_llm
from lavis.llm.endpoint.failures import EndpointStopped


def ask(text, **more):
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": text}]
    return ChatRequest(key=text, messages=messages, **more)


def complete(config, folder, requests):
    """Return replies by key, and what ended the run."""
    replies = {}
    with build_client(read_llm(config), folder) as client:
        try:
            for reply in client.complete(requests):
                replies[reply.key] = reply
        except (ConfigError, EndpointStopped) as error:
            return replies, error
    return replies, None


def replies_by_key(config, folder, requests):
    """Return replies by key; nothing may end the run early."""
    with build_client(read_llm(config), folder) as client:
        return {reply.key: reply for reply in client.complete(requests)}
