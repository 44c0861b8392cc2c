"""Settings of verdicts from an endpoint."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass

from lavis.common.config.fields import STRICT, Fraction
from lavis.common.errors import ConfigError
from lavis.llm.config import LlmSettings

Mode = Literal["logprobs", "judge", "rerank", "score"]
NEEDS_SERVER = ("logprobs", "rerank", "score")
MAX_TOKENS = {"logprobs": 8, "judge": 400}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VerdictConfig:
    """How a model behind an endpoint is asked for verdicts, and how they are read.

    Attributes:
        llm: the server, its prices and caps; as section `llm` of other run files.
        mode: `logprobs` takes P(yes) from the likeliest tokens of a chat completion, with bounds;
            `judge` asks for a reason and a grade from 1 to 5, which is another scale: its score is
            (grade - 1) / 4 and no probability; `rerank` and `score` send an image with all of its
            texts to these interfaces of vLLM and others.
        max_tokens: of a reply (null: 8, and 400 for a judge); more where a model insists on
            thinking first.
        top_logprobs: likeliest tokens to list for each token; OpenAI and vLLM list 20 at most,
            unless vLLM is started with --max-logprobs.
        retry: what is done where the bounds are wider than `max_width` or yes and no have less than
            `min_mass`: `prefill` begins the answer with the text `prefill`; `token_ids` requests
            the tokens of yes and no by their ids, which `llm.tokenizer` gives; both are vLLM's.
        prefill: beginning of an answer.
        max_width: of the bounds on P(yes), above which `retry` is of use.
        min_mass: probability of yes and no together, below which it is, too.
        thinking: false sends the switch `chat_template_kwargs: {enable_thinking: false}`.
        query: what stands beside the image in the query of `rerank` and `score`.
        sigmoid: scores of `rerank` and `score` are logits.
        max_documents: texts about one image in one request of `rerank` and `score`.
    """

    llm: LlmSettings
    mode: Mode = "logprobs"
    max_tokens: PositiveInt | None = None
    top_logprobs: Annotated[int, Field(ge=2, le=10_000)] = 20
    retry: Literal["prefill", "token_ids"] | None = None
    prefill: Annotated[str, Field(pattern=r"\S")] = "Answer:"
    max_width: Fraction = 0.1
    min_mass: Fraction = 0.5
    thinking: bool = False
    query: str = "Which text is true of this image, with all that it says of its regions?"
    sigmoid: bool = False
    max_documents: PositiveInt = 64

    def __post_init__(self) -> None:
        backend = self.llm.backend
        if backend == "transformers" or (backend == "scripted" and self.mode in NEEDS_SERVER):
            raise ConfigError(
                f"llm.backend is {backend}, which has no mode '{self.mode}' of verdicts on images; "
                "use openai, the backend of every server (arch vlm_critic runs a local model)"
            )
        if getattr(self.llm, "mode", "sync") == "batch":
            raise ConfigError(
                "llm.mode is batch, and verdicts are needed unit by unit; use sync, with "
                "llm.concurrency"
            )
        if self.retry == "token_ids" and self.llm.tokenizer is None:
            raise ConfigError(
                "retry is token_ids, which needs llm.tokenizer: name or folder of the tokenizer of "
                "the server's model"
            )

    @property
    def reply_tokens(self) -> int:
        """Return the limit of a chat completion."""
        return self.max_tokens or MAX_TOKENS.get(self.mode, 1)
