"""Whose clients the settings of a stage name, and which texts of a model are accepted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from lavis.tasks.knowledge.writers import accepted, clients_of
from lavis.verbalizers.base import WriteError
from lavis.verbalizers.config import DynamicConfig, WriterConfig

CLIENT = WriterConfig(type="client", client={"backend": "openai", "model": "one"})
OTHER = WriterConfig(type="client", client={"backend": "openai", "model": "two"})
LOCAL = WriterConfig(type="local", model="here")


@dataclass
class PluginConfig:
    """Settings of a stage of a plug-in."""

    writers: list[WriterConfig] = field(default_factory=list)
    by_kind: dict[str, Any] = field(default_factory=dict)


def test_clients_are_found_wherever_settings_hold_them():
    assert list(clients_of(DynamicConfig(type="dynamic", asker=CLIENT, answerer=LOCAL))) == [CLIENT]
    nested = PluginConfig(writers=[LOCAL, OTHER], by_kind={"asks": CLIENT, "notes": "none"})
    assert list(clients_of(nested)) == [OTHER, CLIENT]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<think>hm</think>", "empty reply: the model only thought"),
        (" ", "empty reply: the model wrote nothing"),
        ("I'm sorry, but I cannot help with that.", "refusal: I'm sorry"),
    ],
)
def test_what_is_no_text_is_not_accepted(text, reason):
    refused = accepted(text)
    assert isinstance(refused, WriteError) and str(refused).startswith(reason)
    assert accepted("<think>hm</think> A dog. ") == "A dog."
