"""The OpenAI wire format: request bodies, what an error means, and keeping the key."""

from __future__ import annotations

import email.utils
import json
import os
import threading
import time
from typing import Any, Literal

from lavis.common.errors import ConfigError
from lavis.common.refusals import REFUSALS
from lavis.llm.base import ChatReply, ChatRequest
from lavis.llm.completion import read_completion
from lavis.llm.config import OpenAIConfig
from lavis.llm.failures import Problem

RETRIED = frozenset({408, 409, 425, 429})
FATAL = frozenset({401, 402, 403, 404})
FILTERED = ("content_filter", "content_policy", "content management policy")
FORMAT_LEVELS = ("json_schema", "json_object", "none")
_SHOWN = 300  # characters of a server's message


class Connection:
    """One server: the SDK's client, the key that only it holds, and what the server can do.

    Raises:
        ConfigError: the SDK is not installed, or the server needs a key and there is none.
    """

    def __init__(self, config: OpenAIConfig) -> None:
        try:
            import openai
        except ImportError:
            raise ConfigError("llm.backend openai needs the SDK: pip install '.[llm]'") from None
        key = os.environ.get(config.api_key_env, "")
        if not key and config.base_url is None:
            raise ConfigError(
                f"llm.api_key_env: the environment variable {config.api_key_env} is not set; "
                "set it to the key, or set llm.base_url to a server that needs none"
            )
        self.config = config
        self._secret = key
        self._lock = threading.Lock()
        self._level = 0 if config.structured == "auto" else len(FORMAT_LEVELS) - 1
        self.sdk = openai.OpenAI(
            api_key=key or "none",
            base_url=config.address,
            default_query=config.extra_query or {},
            timeout=config.timeout,
            max_retries=0,  # every attempt is counted against the caps here
        )

    def hide(self, text: str) -> str:
        """Return text without the key, whoever put it there."""
        return text.replace(self._secret, "***") if len(self._secret) >= 4 else text

    def body(self, request: ChatRequest) -> dict[str, Any]:
        """Return the JSON body of a request, as far as the server is known to take it."""
        body: dict[str, Any] = {
            "model": self.config.model,
            "messages": list(request.messages),
            self.config.token_field: request.max_tokens,
        }
        for name in ("temperature", "top_p"):
            if getattr(request, name) is not None:
                body[name] = getattr(request, name)
        if request.seed is not None and self.config.send_seed:
            body["seed"] = request.seed
        body.update(self.config.extra_body or {})
        level = FORMAT_LEVELS[self._level]
        if request.response_format is not None and level != "none":
            plain = {"type": "json_object"}
            body["response_format"] = (
                dict(request.response_format) if level == "json_schema" else plain
            )
        return body

    def simplify(self, body: dict[str, Any]) -> bool:
        """Ask for less structure from now on; False where the body asked for none."""
        used = body.get("response_format")
        if used is None:
            return False
        with self._lock:
            level = FORMAT_LEVELS.index("json_object" if used["type"] == "json_object" else
                                        "json_schema")  # fmt: skip
            self._level = max(self._level, level + 1)  # other threads may have found out already
        return True

    def read(self, key: str, text: str) -> ChatReply | Problem:
        """Return the reply that the body of an answer with status 200 holds, see `completion`."""
        return read_completion(
            key, text, self.hide, lambda status, body: self.status_problem(status, body, {})
        )

    def failed(self, error: Exception) -> bool:
        """Return whether an exception is the SDK's or its HTTP library's, and no bug of ours."""
        import openai

        return isinstance(error, openai.OpenAIError | OSError) or type(error).__module__.startswith(
            ("httpx", "httpcore")
        )

    def problem_of(self, error: Exception) -> Problem:
        """Return what an exception of the SDK or of its HTTP library means."""
        import openai

        if isinstance(error, openai.APIStatusError):
            return self.status_problem(
                error.status_code, error.body, dict(error.response.headers), error.message
            )
        cause = error.__cause__ if error.__cause__ is not None else error
        name = type(cause).__name__
        unsent = name in ("ConnectError", "ConnectTimeout", "PoolTimeout")
        if isinstance(error, openai.APITimeoutError):
            what = f"no answer within {self.config.timeout:g} s"
        else:
            what = "cannot connect" if unsent else "the connection was cut"
        cost: Literal["unsent", "unknown"] = "unsent" if unsent else "unknown"
        return Problem("transient", f"{what} ({name})", cost=cost)

    def status_problem(
        self, status: int, body: Any, headers: dict[str, str], fallback: str = ""
    ) -> Problem:
        """Return what an HTTP status other than 200 means."""
        reason = f"HTTP {status}: {self._message(body) or self.hide(fallback)[:_SHOWN]}"
        low = json.dumps(body, default=str).lower() + fallback.lower()
        if status == 429 and "insufficient_quota" in low:
            return Problem("fatal", reason)
        if status in RETRIED or (status >= 500 and status != 501):
            return Problem("transient", reason, retry_after(headers))
        if status in FATAL:
            return Problem("fatal", reason)
        if any(word in low for word in FILTERED):
            return Problem("refused", f"content filter: {reason}")
        if any(word in low for word in ("response_format", "json_schema", "schema", "grammar")):
            return Problem("simplify", reason)
        return Problem("refused", f"the server refused the request: {reason}")

    def _message(self, body: Any) -> str:
        if isinstance(body, dict):
            inner = body.get("error", body)
            body = inner.get("message", inner) if isinstance(inner, dict) else inner
        text = body if isinstance(body, str) else json.dumps(body, default=str) if body else ""
        return self.hide(" ".join(text.split()))[:_SHOWN]


def retry_after(headers: dict[str, str]) -> float | None:
    """Return the seconds that `Retry-After` (a number or a date) or `retry-after-ms` asks for."""
    lower = {name.lower(): value for name, value in headers.items()}
    try:
        if "retry-after-ms" in lower:
            return max(0.0, float(lower["retry-after-ms"]) / 1000)
        return max(0.0, float(lower["retry-after"]))
    except KeyError:
        return None
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(lower["retry-after"]).timestamp()
                   - time.time())  # fmt: skip
    except REFUSALS:
        return None
