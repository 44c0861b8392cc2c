"""What requests may cost, what they do cost, and in which portions the Batch API takes them."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from lavis.common.config.fields import STRICT
from lavis.common.errors import ConfigError


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CapsConfig:
    """Hard limits of one output folder; None for no limit.

    They hold for all requests of a run together, over all of its starts, whichever stage or client
    sends them; where clients of a run name different ones, the strictest holds for all.

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
        max_bytes: of one file, and so of one request; OpenAI, Azure and Groq take 200 MB, Together
            100 MB.
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
        if self.max_bytes > 200_000_000:
            raise ConfigError(f"max_bytes is {self.max_bytes}; a batch file takes up to 200000000")
        if self.price_factor < 0:
            raise ConfigError(f"price_factor is {self.price_factor}; half the price is 0.5")
        if self.max_bytes < 1 or self.max_jobs < 1 or self.poll_seconds <= 0:
            raise ConfigError("max_bytes, max_jobs and poll_seconds must be positive")
