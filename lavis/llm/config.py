"""Settings of language-model clients: section `llm` of a run file, or a field of another section.

`llm.backend` names the backend (`openai`, `transformers`, `scripted`, or one of a plug-in), whose
dataclass checks the rest. `LlmSettings` is the type to use for such a field.
"""

from __future__ import annotations

import json
import os
import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    Field,
    NonNegativeInt,
    PlainValidator,
    PositiveFloat,
    PositiveInt,
    TypeAdapter,
    ValidationError,
)
from pydantic.dataclasses import dataclass

from lavis.common import registry
from lavis.common.config.errors import explain
from lavis.common.config.fields import STRICT, Device
from lavis.common.errors import REFUSALS, ConfigError, brief
from lavis.common.storage.content import content_digest
from lavis.llm.endpoint.address import OPENAI_URL, check_url, normal_url
from lavis.llm.money.config import BatchConfig, CapsConfig, Price
from lavis.llm.money.image_tokens import ImageTokensConfig

Seconds = Annotated[float, Field(gt=0, le=1e6)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
DEFAULT_CACHE = "~/.cache/lavis/llm"
# Functions that moved: the path in older run files and in journals -> the present one.
MOVED_SCRIPTS = {
    "lavis.llm.teachers:describe_scene": "projects.quickstart.teachers:describe_scene",
    "scripts/quickstart_teacher.py:write_items": "projects.quickstart.loop_teacher:write_items",
}
# Of a request's body, set from a request or from options of their own.
OWN_FIELDS = frozenset(
    {"model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed"}
    | {"response_format", "n", "stream"}
)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LlmConfig:
    """What every backend has.

    Attributes:
        model: name at the server, or a folder.
        cache_dir: where replies are stored, by content; runs and processes may share it.
        caps: hard limits.
        prices: model name -> money for a million tokens; needed for `caps.max_cost`.
        chars_per_token: for estimates without a tokenizer.
        tokenizer: folder or name of a transformers tokenizer, for better estimates.
        image_tokens: estimate for one image in a prompt if no rule is known.
        image_token_rule: the provider's rule for images in a prompt.
        max_alike_failures: consecutive requests that fail for one reason before the run stops.
    """

    is_paid: ClassVar[bool] = True  # where no price says otherwise

    backend: str
    model: str = ""
    cache_dir: str = DEFAULT_CACHE
    caps: CapsConfig = CapsConfig()
    prices: dict[str, Price] | None = None
    chars_per_token: PositiveFloat = 4.0
    tokenizer: str | None = None
    image_tokens: NonNegativeInt = 1105
    image_token_rule: ImageTokensConfig = ImageTokensConfig()
    max_alike_failures: PositiveInt = 10

    def __post_init__(self) -> None:
        if self.caps.max_cost is not None and self.price is None:
            raise ConfigError(
                f"caps.max_cost needs the price of {self.model!r}: set "
                f'prices={{"{self.model}": {{input: ..., output: ...}}}} for a million tokens'
            )

    @property
    def failure_limit(self) -> int:
        """Return how many failures alike stop a run."""
        return self.max_alike_failures

    @property
    def price(self) -> Price | None:
        """Return the price of the model, if it is known."""
        return (self.prices or {}).get(self.model)

    @property
    def price_factor(self) -> float:
        """Return the price of a token relative to the table."""
        return 1.0

    @property
    def identity(self) -> dict[str, Any]:
        """Return what replies depend on beside the request, without secrets.

        Stored replies, journals and stages are looked up by it.
        """
        return {"backend": self.backend, "model": self.model}

    @property
    def endpoint_identity(self) -> dict[str, Any]:
        """Return what acceptance of a request depends on, without secrets.

        A request that was rejected under another one is sent again.
        """
        return self.identity


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OpenAIConfig(LlmConfig):
    """Any server that speaks OpenAI's chat completions: OpenAI, vLLM, llama.cpp, Ollama.

    Attributes:
        base_url: such as `http://localhost:8000/v1`; None for OpenAI's own.
        server: name of the server in the keys of stored replies, in place of `base_url`: they stay
            valid when it moves to another address or port.
        extra_query: query of every request, such as `{api-version: 2024-10-21}` for Azure, where
            the key is then also sent as the header `api-key`.
        extra_body: further fields of a request's body for this server, such as
            `{chat_template_kwargs: {enable_thinking: false}}`.
        api_key_env: NAME of the environment variable that holds the key, which itself never stands
            in a file; optional for servers that are not OpenAI's.
        concurrency: requests on their way at once.
        rpm: requests a minute, spread evenly; None for no limit.
        tpm: tokens a minute, prompts and replies.
        timeout: seconds for one attempt, from its first byte to its last.
        max_attempts: times a request is sent before it is given up until the next start.
        min_retry_wait: seconds before the second attempt; doubled for each further one.
        max_retry_wait: most seconds between attempts, unless the server asks for more.
        max_server_wait: most seconds that a server may ask to wait; for longer ones the run stops
            and says when to go on.
        mode: `sync`, or `batch` for the Batch API.
        structured: `auto` requests a JSON schema, then plain JSON, then nothing, as the server
            accepts it; `off` never does.
        token_field: name of the limit in a request; OpenAI's newer models want
            `max_completion_tokens`.
        send_seed: false for servers that refuse a seed.
    """

    backend: Literal["openai"] = "openai"
    base_url: str | None = None
    server: str | None = None
    extra_query: dict[str, str] | None = None
    extra_body: dict[str, Any] | None = None
    api_key_env: str = "OPENAI_API_KEY"
    concurrency: Count = 8
    rpm: PositiveFloat | None = None
    tpm: PositiveFloat | None = None
    timeout: Seconds = 120.0
    max_attempts: Count = 6
    min_retry_wait: Seconds = 0.5
    max_retry_wait: Seconds = 60.0
    max_server_wait: Seconds = 600.0
    mode: Literal["sync", "batch"] = "sync"
    batch: BatchConfig = BatchConfig()
    structured: Literal["auto", "off"] = "auto"
    token_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    send_seed: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.model:
            raise ConfigError("model: missing; name the model as the server knows it")
        if re.fullmatch(r"[A-Z][A-Z0-9_]*", self.api_key_env) is None:
            # The value is not shown: it may be a key.
            raise ConfigError(
                "api_key_env: write the NAME of an environment variable, such as OPENAI_API_KEY, "
                "never the key"
            )
        if self.base_url is not None:
            check_url(self.base_url)
        self._check_extras()

    @property
    def failure_limit(self) -> int:
        """Return how many failures alike stop a run: concurrent requests fail together."""
        return max(self.max_alike_failures, self.concurrency)

    def _check_extras(self) -> None:
        if self.server is not None and not self.server.strip():
            raise ConfigError("server: empty; write a name of your own for the server, or null")
        own = sorted(OWN_FIELDS & set(self.extra_body or {}))
        if own:
            raise ConfigError(
                f"extra_body: {', '.join(own)} is set by this program; use the option of that name"
            )
        try:
            json.dumps(self.extra_body, allow_nan=False)
        except REFUSALS as error:
            raise ConfigError(f"extra_body: cannot be written as JSON: {brief(error)}") from None
        for name in self.extra_query or {}:
            if re.search(r"key|token|secret|passw|sig|auth", name, re.IGNORECASE):
                raise ConfigError(  # the value is not shown: it may be the key
                    f"extra_query: {name!r} looks like a secret; put the key into the environment "
                    "variable that api_key_env names"
                )

    @property
    def address(self) -> str:
        """Return the base URL in normal form."""
        return normal_url(self.base_url or OPENAI_URL)

    @property
    def identity(self) -> dict[str, Any]:
        """Return the server, its model and extra fields; servers may share a model's name."""
        return {
            "backend": "openai",
            "model": self.model,
            "server": self.server or self.address,
            "query": dict(self.extra_query or {}),
            "extra_body": dict(self.extra_body or {}),
            "send_seed": self.send_seed,
            "structured": self.structured,
        }

    @property
    def endpoint_identity(self) -> dict[str, Any]:
        """Return the identity of replies, and what a server may reject a request for."""
        return self.identity | {
            "address": self.address,
            "token_field": self.token_field,
            "api_key_env": self.api_key_env,
            "mode": self.mode,
            "max_bytes": self.batch.max_bytes if self.mode == "batch" else None,
        }

    @property
    def price_factor(self) -> float:
        """Return the price of a token relative to the table: batched ones cost less."""
        return self.batch.price_factor if self.mode == "batch" else 1.0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TransformersConfig(LlmConfig):
    """A language model of transformers on this machine; one of images reads those of a prompt, too.

    Attributes:
        revision: of the model at the hub.
        gguf_file: file in the model's folder, for GGUF weights.
        batch_size: prompts per generation.
        template: `chat` uses the tokenizer's, `plain` joins the messages' texts, `auto` takes
            `chat` if there is one.
        dtype: of the weights.
        device: `auto` is CUDA if there is one.
    """

    is_paid: ClassVar[bool] = False

    backend: Literal["transformers"] = "transformers"
    revision: str | None = None
    gguf_file: str | None = None
    batch_size: PositiveInt = 4
    template: Literal["auto", "chat", "plain"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: Device = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.model:
            raise ConfigError("model: missing; a folder or hub name of a language model")

    @property
    def identity(self) -> dict[str, Any]:
        """Return the model's name and revision; for a folder, a digest of its files."""
        identity: dict[str, Any] = {"backend": "transformers", "model": self.model}
        identity |= {
            "revision": self.revision,
            "gguf_file": self.gguf_file,
            "template": self.template,
            "dtype": self.dtype,
        }
        if os.path.isdir(self.model):
            del identity["model"]  # the same files elsewhere are the same model
            names = {entry.name for entry in os.scandir(self.model) if entry.is_file()}
            names |= {self.gguf_file} if self.gguf_file else set()  # may lie deeper
            paths = [(name, os.path.join(self.model, name)) for name in sorted(names)]
            identity["files"] = [
                [name, content_digest(path)] for name, path in paths if os.path.isfile(path)
            ]
        return identity


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ScriptedConfig(LlmConfig):
    """A function in place of a model, for runs without a network and for tests.

    Attributes:
        script: `package.module:function` or `file.py:function`. It is called as
            `function(messages, request, **options)` and returns the reply's text.
        options: passed to it.
    """

    is_paid: ClassVar[bool] = False

    backend: Literal["scripted"] = "scripted"
    script: str = "projects.quickstart.teachers:describe_scene"
    options: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not re.fullmatch(r".+:[A-Za-z_]\w*", self.script):
            raise ConfigError(f"script is {self.script!r}; write package.module:function")

    @property
    def identity(self) -> dict[str, Any]:
        """Return the function's name, the first one that it had, and options."""
        first = {new: old for old, new in MOVED_SCRIPTS.items()}.get(self.script, self.script)
        return {"backend": "scripted", "script": first, "options": dict(self.options or {})}


def read_llm(node: Any) -> LlmConfig:
    """Return a backend's settings; raises `ConfigError` with a line for each problem."""
    if isinstance(node, LlmConfig):
        return node
    if not isinstance(node, dict):
        raise ConfigError("a mapping was expected, with the key 'backend'")
    name = node.get("backend")
    if name is None:
        raise ConfigError(f"backend: missing; one of {', '.join(registry.llms.list())}")
    registry.llms.check(str(name), "backend")
    cls = registry.llms.config_class(str(name))
    try:
        return TypeAdapter(cls).validate_python(node)
    except ValidationError as error:
        lines = explain(error, cls, node, "llm", source=lambda _: "")
        raise ConfigError(
            "\n".join(line.removeprefix(", llm.").removeprefix(", ") for line in lines.split("\n"))
        ) from None


LlmSettings = Annotated[Any, PlainValidator(read_llm)]
"""Type of a field or section that holds the settings of any backend."""
