"""Caps and prices of requests, and the portions in which the Batch API takes them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from lavis.common.config.fields import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CapsConfig:
    """Hard limits of one output folder; None for no limit.

    They hold for all requests of a run, over all of its starts, stages and clients; if clients of a
    run name different ones, the strictest holds for all.

    Attributes:
        max_requests: requests sent, including failed attempts.
        max_tokens: of prompts and replies.
        max_cost: money, in the currency of `prices`.
    """

    max_requests: NonNegativeInt | None = None
    max_tokens: NonNegativeInt | None = None
    max_cost: NonNegativeFloat | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Price:
    """Money for a million tokens.

    Attributes:
        input: of the prompt.
        output: of the reply.
    """

    input: NonNegativeFloat
    output: NonNegativeFloat


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BatchConfig:
    """How the Batch API is used.

    Attributes:
        max_requests: of one file; servers take 50,000 at most.
        max_bytes: of one file, and so of one request; OpenAI, Azure and Groq take 200 MB, Together
            100 MB.
        max_jobs: files at the server at once.
        poll_seconds: between looks at a job.
        completion_window: time limit of the server, in its own words.
        price_factor: price of a batched token relative to a plain one.
    """

    max_requests: Annotated[int, Field(ge=1, le=50_000)] = 50_000
    max_bytes: Annotated[int, Field(ge=1, le=200_000_000)] = 100_000_000
    max_jobs: PositiveInt = 4
    poll_seconds: PositiveFloat = 30.0
    completion_window: str = "24h"
    price_factor: NonNegativeFloat = 0.5
