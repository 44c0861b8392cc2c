"""A Python function in place of a language model: for runs without a network, and for tests."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from lavis.common.errors import ConfigError
from lavis.common.registry import import_module, llms
from lavis.llm.base import ChatReply, PendingRequest
from lavis.llm.config import MOVED_SCRIPTS, ScriptedConfig
from lavis.llm.replies.completion import no_answer
from lavis.llm.replies.reasoning import answer_text
from lavis.llm.store import BackendContext

logger = logging.getLogger(__name__)


@llms.register("scripted")
class ScriptedBackend:
    """Calls `function(messages, request, **options) -> str` with a model's input."""

    keeps_replies: ClassVar[bool] = False
    config_class: ClassVar[type[ScriptedConfig]] = ScriptedConfig

    def __init__(self, config: ScriptedConfig, context: BackendContext) -> None:
        self._config, self._context = config, context
        self._function = load_function(config.script)
        self._pending: list[PendingRequest] = []
        self.window = 1

    @classmethod
    def build(cls, config: ScriptedConfig, context: BackendContext) -> ScriptedBackend:
        """Return the backend."""
        return cls(config, context)

    def submit(self, each: PendingRequest) -> None:
        """Take one request."""
        self._pending.append(each)

    def collect(self) -> list[ChatReply]:
        """Answer the submitted requests. Nothing is paid, so no cap applies."""
        pending, self._pending = self._pending, []
        return [self._answer(each) for each in pending]

    def close(self) -> None:
        """Nothing is held."""

    def _answer(self, each: PendingRequest) -> ChatReply:
        request = each.request
        text = self._function(list(request.messages), request, **(self._config.options or {}))
        counts = self._context.counter.estimate(request), -(-len(text) // 4)
        answer, thought = answer_text(text)
        if not answer.strip():  # asked again it would say the same
            reason = no_answer(thought, "stop").reason
            return ChatReply(each.content_key, "", "stop", *counts, error=reason, failure="refused")
        return ChatReply(each.content_key, answer, "stop", *counts, reasoning=thought)


def load_function(path: str) -> Callable[..., str]:
    """Return `package.module:function` or `file.py:function`; raises `ConfigError` if missing."""
    if path in MOVED_SCRIPTS:
        logger.warning("llm.script: %s is now %s; write that", path, MOVED_SCRIPTS[path])
        path = MOVED_SCRIPTS[path]
    place, _, name = path.rpartition(":")
    try:
        if place.endswith(".py"):
            spec = importlib.util.spec_from_file_location(Path(place).stem, place)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules.setdefault(spec.name, module)  # dataclasses look their module up there
            spec.loader.exec_module(module)
        else:
            module = import_module(place, "llm.script")
    except (ImportError, OSError) as error:
        raise ConfigError(f"llm.script: cannot load {place}: {error}") from None
    function = getattr(module, name, None)
    if not callable(function):
        raise ConfigError(f"llm.script: {place} has no function {name}")
    return function
