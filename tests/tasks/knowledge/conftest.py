"""Fixtures of tests against a chat server on loopback."""

from chat_server import serve, settings, unknown_names  # noqa: F401 - fixtures
