"""Settings of language-model clients: section `llm` of a run file, or a field of another section.

`llm.backend` names the backend (`openai`, `transformers`, `scripted`, or one of a plug-in), whose
dataclass checks the rest. `LlmSettings` is the type to use for such a field.
"""

from __future__ import annotations

import os
import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import PlainValidator, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from lavis.common import registry
from lavis.common.config import STRICT
from lavis.common.config_errors import explain
from lavis.common.errors import ConfigError

DEFAULT_CACHE = "~/.cache/lavis/llm"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CapsConfig:
    """Hard limits of one output folder, over all of its starts; None for no limit.

    Attributes:
        max_requests: requests sent, attempts that failed included.
        max_tokens: of prompts and replies.
        max_cost: money, in the currency of `prices`.
    """

    max_requests: int | None = None
    max_tokens: int | None = None
    max_cost: float | None = None

    def __post_init__(self) -> None:
        for name in ("max_requests", "max_tokens", "max_cost"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"{name} is {value}; use a number from 0, or null for no limit")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Price:
    """Money for a million tokens.

    Attributes:
        input: of the prompt.
        output: of the reply.
    """

    input: float
    output: float

    def __post_init__(self) -> None:
        if self.input < 0 or self.output < 0:
            raise ConfigError("input and output prices cannot be negative")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BatchConfig:
    """How the Batch API is used.

    Attributes:
        max_requests: of one file; servers take 50,000 at most.
        max_bytes: of one file.
        max_jobs: files at the server at once.
        poll_seconds: between looks at a job.
        completion_window: what the server is asked for.
        price_factor: price of a batched token against a plain one.
    """

    max_requests: int = 50_000
    max_bytes: int = 100_000_000
    max_jobs: int = 4
    poll_seconds: float = 30.0
    completion_window: str = "24h"
    price_factor: float = 0.5

    def __post_init__(self) -> None:
        if not 1 <= self.max_requests <= 50_000:
            raise ConfigError(f"max_requests is {self.max_requests}; a batch file takes 1 to 50000")
        if self.max_bytes < 1 or self.max_jobs < 1 or self.poll_seconds <= 0:
            raise ConfigError("max_bytes, max_jobs and poll_seconds must be positive")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LlmConfig:
    """What every backend has.

    Attributes:
        model: name at the server, or a folder.
        cache_dir: where replies are kept, by content; runs and processes may share it.
        caps: hard limits.
        prices: model name -> money for a million tokens; needed for `caps.max_cost`.
        chars_per_token: for estimates where no tokenizer is given.
        tokenizer: folder or name of a transformers tokenizer, for better estimates.
        image_tokens: estimate for one picture in a prompt.
    """

    backend: str
    model: str = ""
    cache_dir: str = DEFAULT_CACHE
    caps: CapsConfig = CapsConfig()
    prices: dict[str, Price] | None = None
    chars_per_token: float = 4.0
    tokenizer: str | None = None
    image_tokens: int = 1105

    def __post_init__(self) -> None:
        if self.chars_per_token <= 0:
            raise ConfigError(f"chars_per_token is {self.chars_per_token}; 4 suits English")
        if self.caps.max_cost is not None and self.price is None:
            raise ConfigError(
                f"caps.max_cost needs the price of {self.model!r}: set "
                f'prices={{"{self.model}": {{input: ..., output: ...}}}} for a million tokens'
            )

    @property
    def price(self) -> Price | None:
        """Return the price of the model, where it is known."""
        return (self.prices or {}).get(self.model)

    @property
    def price_factor(self) -> float:
        """Return what a token costs against the table."""
        return 1.0

    @property
    def identity(self) -> dict[str, Any]:
        """Return what replies depend on beside the request; no secrets."""
        return {"backend": self.backend, "model": self.model}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OpenAIConfig(LlmConfig):
    """Any server that speaks OpenAI's chat completions: OpenAI, vLLM, llama.cpp, Ollama.

    Attributes:
        base_url: such as `http://localhost:8000/v1`; None for OpenAI's own.
        api_key_env: NAME of the environment variable that holds the key. The key itself never
            stands in a file. A server that is not OpenAI's may do without.
        concurrency: requests on their way at once.
        rpm: requests a minute, spread evenly; None for no limit.
        tpm: tokens a minute, prompts and replies.
        timeout: seconds for one attempt.
        max_attempts: times a request is sent before it is given up until the next start.
        min_retry_wait: seconds before the second attempt; doubled for each further one.
        max_retry_wait: most seconds between attempts, unless the server asks for more.
        mode: `sync`, or `batch` for the Batch API.
        structured: `auto` asks for a JSON schema, then plain JSON, then nothing, as the server
            takes it; `off` never asks.
        token_field: name of the limit in a request; OpenAI's newer models want
            `max_completion_tokens`.
        send_seed: leave the seed out for servers that refuse it.
    """

    backend: Literal["openai"] = "openai"
    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    concurrency: int = 8
    rpm: float | None = None
    tpm: float | None = None
    timeout: float = 120.0
    max_attempts: int = 6
    min_retry_wait: float = 0.5
    max_retry_wait: float = 60.0
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
            parts = urlsplit(self.base_url)
            if parts.username or parts.password or parts.query:
                raise ConfigError(
                    "base_url: no user, password or query; put the key into the environment "
                    "variable that api_key_env names"
                )
            if parts.scheme not in ("http", "https"):
                raise ConfigError(
                    "base_url: write http:// or https://, such as http://host:8000/v1"
                )
        for name in ("concurrency", "max_attempts", "timeout", "min_retry_wait", "max_retry_wait"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be positive")
        for name in ("rpm", "tpm"):
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; null for no limit")

    @property
    def identity(self) -> dict[str, Any]:
        """Return the model's name: the same model of another server gives the stored reply."""
        return {"backend": "openai", "model": self.model}

    @property
    def price_factor(self) -> float:
        """Return what a token costs against the table: batched ones cost less."""
        return self.batch.price_factor if self.mode == "batch" else 1.0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TransformersConfig(LlmConfig):
    """A causal language model of transformers on this machine.

    Attributes:
        revision: of the model at the hub.
        gguf_file: file in the model's folder, for GGUF weights.
        batch_size: prompts generated for at once.
        template: `chat` uses the tokenizer's, `plain` joins the messages' texts, `auto` takes
            `chat` where there is one.
        dtype: of the weights.
        device: `auto` is CUDA where there is one.
    """

    backend: Literal["transformers"] = "transformers"
    revision: str | None = None
    gguf_file: str | None = None
    batch_size: int = 4
    template: Literal["auto", "chat", "plain"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.model:
            raise ConfigError("model: missing; a folder or hub name of a causal language model")
        if self.batch_size < 1:
            raise ConfigError(f"batch_size is {self.batch_size}; it must be positive")

    @property
    def identity(self) -> dict[str, Any]:
        """Return the model's name and revision; of a folder, also its files' sizes and times."""
        known: dict[str, Any] = {"backend": "transformers", "model": self.model}
        known |= {
            "revision": self.revision,
            "gguf_file": self.gguf_file,
            "template": self.template,
            "dtype": self.dtype,
        }
        if os.path.isdir(self.model):
            files = sorted((e for e in os.scandir(self.model) if e.is_file()), key=lambda e: e.name)
            known["files"] = [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files]
        return known


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ScriptedConfig(LlmConfig):
    """A function in place of a model, for runs without a network and for tests.

    Attributes:
        script: `package.module:function` or `file.py:function`. It is called as
            `function(messages, request, **options)` and returns the reply's text.
        options: passed to it.
    """

    backend: Literal["scripted"] = "scripted"
    script: str = "lavis.llm.teachers:describe_scene"
    options: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not re.fullmatch(r".+:[A-Za-z_]\w*", self.script):
            raise ConfigError(f"script is {self.script!r}; write package.module:function")

    @property
    def identity(self) -> dict[str, Any]:
        """Return the function's name and options."""
        return {"backend": "scripted", "script": self.script, "options": dict(self.options or {})}


def read_llm(node: Any) -> LlmConfig:
    """Return the settings of a backend, checked by its own dataclass.

    Raises:
        ConfigError: a line for each problem.
    """
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
