"""The OpenAI wire format: request bodies, what an error means, and keeping the key."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lavis.common.errors import ConfigError, brief
from lavis.llm.base import ChatReply, ChatRequest, RankRequest, Request
from lavis.llm.config import OpenAIConfig
from lavis.llm.endpoint.failures import Problem, classify
from lavis.llm.endpoint.network_errors import CONNECT_SECONDS, is_network_error, network_problem
from lavis.llm.endpoint.transport import Transport
from lavis.llm.replies.completion import read_completion
from lavis.llm.replies.ranking import read_ranking

logger = logging.getLogger(__name__)

FORMAT_LEVELS = ("json_schema", "json_object", "none")
LIMIT_FIELDS = ("max_tokens", "max_completion_tokens")


class Connection:
    """One server: the SDK's client, the key that only it holds, and what the server supports.

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
        check_key(key, config.api_key_env)
        self.config = config
        self._secret = key
        self._lock = threading.Lock()
        self._level = 0 if config.structured == "auto" else len(FORMAT_LEVELS) - 1
        self._limit_field: str = config.token_field
        self._left_out: set[str] = set()
        self._options: dict[str, Any] = {
            "api_key": key or "none",
            "base_url": config.address,
            "default_query": config.extra_query or {},
            "timeout": openai.Timeout(
                config.timeout, connect=min(CONNECT_SECONDS, 0.9 * config.timeout)
            ),
            "max_retries": 0,  # every attempt is counted against the caps here
        }
        if key and "api-version" in (config.extra_query or {}):  # Azure's own name of the header
            self._options["default_headers"] = {"api-key": key}
        try:
            self.sdk = openai.OpenAI(**self._options)
        except Exception as error:  # a proxy of another kind, or no address
            known = isinstance(error, ImportError | ValueError | TypeError)
            if not (known or is_network_error(error)):
                raise
            raise ConfigError(
                f"HTTP_PROXY, HTTPS_PROXY, ALL_PROXY: a proxy that these environment variables "
                f"name cannot be used ({brief(error)})"
            ) from None

    def hide(self, text: str) -> str:
        """Return text without the key."""
        return text.replace(self._secret, "***") if len(self._secret) >= 4 else text

    def key_hash(self, name: str) -> str:
        """Return four bytes of a hash, salted by a name: enough to tell two keys apart."""
        salt = hashlib.blake2b(name.encode(), digest_size=16).digest()
        return hashlib.blake2b(self._secret.encode(), digest_size=4, salt=salt).hexdigest()

    def transport(self) -> Transport:
        """Return a new way to send requests."""
        import openai

        return Transport(openai.AsyncOpenAI(**self._options), self.config.timeout)

    def body(self, request: Request) -> dict[str, Any]:
        """Return the JSON body of a request, without fields that the server is known to reject."""
        with self._lock:
            left_out = frozenset(self._left_out)
        fields = (
            self._rank_fields(request)
            if isinstance(request, RankRequest)
            else self._chat_fields(request, without_roles="system" in left_out)
        )
        extra = dict(self.config.extra_body or {})  # null there is what the user wants to be sent
        if "logprobs" in left_out:
            left_out |= {"top_logprobs"}  # alone it is an error
        return {
            name: value
            for name, value in {**fields, **extra, **_own_fields(request)}.items()
            if name not in left_out and (value is not None or name in extra)
        }

    def url(self, request: Request) -> str:
        """Return where a request goes; empty for chat completions, where the SDK knows the way."""
        if not isinstance(request, RankRequest):
            return ""
        address = self.config.address
        if request.path == "score":  # which servers of OpenAI's interface have beside it
            address = address.removesuffix("/v1")
        return f"{address}/{request.path}"

    def _rank_fields(self, request: RankRequest) -> dict[str, Any]:
        query, documents = {"content": list(request.query)}, list(request.documents)
        if request.path == "score":
            return {"model": self.config.model, "queries": query, "documents": documents}
        return {
            "model": self.config.model,
            "query": query,
            "documents": documents,
            "top_n": len(documents),
        }

    def _chat_fields(self, request: ChatRequest, *, without_roles: bool) -> dict[str, Any]:
        with self._lock:
            level, limit = FORMAT_LEVELS[self._level], self._limit_field
        messages = [dict(message) for message in request.messages]
        fields: dict[str, Any] = {
            "model": self.config.model,
            "messages": without_system(messages) if without_roles else messages,
            limit: request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": request.seed if self.config.send_seed else None,
        }
        if request.response_format is not None and level != "none":
            plain = {"type": "json_object"}
            whole = dict(request.response_format)
            fields["response_format"] = whole if level == "json_schema" else plain
        if request.logprobs is not None:
            fields |= {"logprobs": True, "top_logprobs": request.logprobs}
        return fields

    def simplify(self, body: Mapping[str, Any], problem: Problem) -> bool:
        """Drop a problem's field from all later requests; return whether that changes this body."""
        field = problem.field
        if field in LIMIT_FIELDS:
            changed = self._rename(field)
        elif field == "response_format":
            changed = self._loosen(body)
        elif field == "system":
            changed = any(message["role"] == "system" for message in body.get("messages", ()))
            self._leave_out(field, "the system text joins the first turn", problem)
        else:
            changed = field in body
            self._leave_out(field, f"{field} is left out from now on", problem)
        return changed

    def _leave_out(self, field: str, how: str, problem: Problem) -> None:
        with self._lock:
            is_new = field not in self._left_out
            self._left_out.add(field)
        if is_new:
            logger.warning("%s; %s", problem.reason, how)

    def _rename(self, field: str) -> bool:
        """Send the limit of tokens under its other name; never without it."""
        other = LIMIT_FIELDS[1 - LIMIT_FIELDS.index(field)]
        with self._lock:
            if field in self._left_out:  # found out by another thread
                return self._limit_field != field
            if other in self._left_out:
                return False  # the server takes neither
            self._left_out.add(field)
            self._limit_field = other
        logger.warning("the server does not take %s: %s is sent from now on", field, other)
        return True

    def _loosen(self, body: Mapping[str, Any]) -> bool:
        """Request less structure from now on; False if the body requested none."""
        used = body.get("response_format")
        if used is None:
            return False
        level = FORMAT_LEVELS.index(
            "json_object" if used["type"] == "json_object" else "json_schema"
        )
        with self._lock:
            is_new = self._level < level + 1  # other threads may have found out already
            self._level = max(self._level, level + 1)
        if is_new:
            logger.warning(
                "the server does not take response_format %s: %s is asked for from now on",
                *(FORMAT_LEVELS[level], FORMAT_LEVELS[level + 1]),
            )
        return True

    def read(self, key: str, text: str, request: Request | None = None) -> ChatReply | Problem:
        """Return the reply in the body of an answer with status 200, see `completion`.

        Args:
            key: content key.
            text: the body.
            request: None where it is not at hand; then the answer is that of a chat completion.
        """

        def judge(status: int, body: Any) -> Problem:
            return self.status_problem(status, body, {})

        if isinstance(request, RankRequest):
            return read_ranking(key, text, len(request.documents), self.hide, judge)
        outcome = read_completion(key, text, self.hide, judge)
        if isinstance(outcome, ChatReply) and (request is None or request.logprobs is None):
            return replace(outcome, logprobs=None)
        return outcome

    def problem_of(self, error: Exception, sent: Mapping[str, Any] | None = None) -> Problem:
        """Return the meaning of an exception of the SDK or of its HTTP library."""
        import openai

        if isinstance(error, openai.APIStatusError):
            body = error.response.text or error.body  # the SDK's is a part of it
            headers = dict(error.response.headers)
            url = str(error.request.url).split("?")[0]
            return self.status_problem(error.status_code, body, headers, sent=sent, url=url)
        problem = network_problem(error, self.config.address, self.config.timeout)
        return replace(problem, reason=self.hide(problem.reason))

    def status_problem(
        self,
        status: int,
        body: Any,
        headers: Mapping[str, str],
        *,
        sent: Mapping[str, Any] | None = None,
        url: str = "",
    ) -> Problem:
        """Return the meaning of an HTTP status other than 200, or of an error inside an answer."""
        address = url or f"{self.config.address}/chat/completions"
        problem = classify(status, body, headers, sent=sent, address=address)
        return replace(problem, reason=self.hide(problem.reason))


def _own_fields(request: Request) -> dict[str, Any]:
    return dict(request.extra or {}) if isinstance(request, ChatRequest) else {}


def check_key(key: str, name: str) -> None:
    """Raise `ConfigError` for a key that no header can hold; only the variable's name is shown."""
    where = f"llm.api_key_env: the key in the environment variable {name}"
    for pattern, fault in (
        (r"[\r\n]", "a line break in it"),
        (r"^\s|\s$", "a blank before or after it"),
        (r"[\s\x00-\x1f\x7f]", "a blank in it"),
        (r"""^['"]|['"]$""", "quotation marks around it"),
    ):
        if re.search(pattern, key):
            raise ConfigError(f"{where} has {fault}; set it to the key alone")
    if not key.isascii():
        raise ConfigError(
            f"{where} has a character that is no ASCII, such as a curly quote or a dash of a text "
            "program; copy the key again"
        )


def without_system(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return messages with the system text moved to the start of the first user turn."""
    texts = [m["content"] for m in messages if m["role"] == "system"]
    rest = [m for m in messages if m["role"] != "system"]
    if not texts or not rest:
        return messages
    head, content = "\n\n".join(texts), rest[0]["content"]
    joined = (
        f"{head}\n\n{content}"
        if isinstance(content, str)
        else [{"type": "text", "text": head}, *content]
    )
    return [{**rest[0], "content": joined}, *rest[1:]]
