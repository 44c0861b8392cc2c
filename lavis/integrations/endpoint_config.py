"""Section `model` of a run whose critic is behind an endpoint; imports no torch."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from lavis.common.config.fields import STRICT
from lavis.llm.verdicts.config import VerdictConfig
from lavis.models.vlm.prompts import Prompt, Words, check_prompt

_PROMPTS = {"logprobs": "lskd_accept", "judge": "judge"}
_OTHERWISE = frozenset({"model_type", "llm", "prompt"})  # in the identity in another form
VERSION = 1  # of what is sent and read beside the template, such as a judge's format


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EndpointCriticConfig(VerdictConfig):
    """Section `model` of a run with `arch: endpoint_critic`.

    Attributes:
        prompt: a preset or a jinja2 file, as of `vlm_critic`; `rerank` and `score` rank what it
            makes of each text (null: `lskd_accept`, `judge` or `statement`, by the mode).
        yes_words, no_words: words for the two verdicts (null: the prompt's).
        spellings: `all` adds lower case, capitals and a blank in front; `exact` takes the words as
            they are (null: the prompt's).
        over: P(yes) is yes / (yes + no), `sets`, or yes over the whole `vocabulary` (null: the
            prompt's).
        image_format: how images are sent; `png` sends every pixel as it is shown.
        jpeg_quality: of `image_format: jpeg`, without subsampled colours.
    """

    own_processors: ClassVar[bool] = True

    arch: str = "endpoint_critic"
    model_type: str = "default"
    prompt: str | None = None
    yes_words: Words | None = None
    no_words: Words | None = None
    spellings: Literal["all", "exact"] | None = None
    over: Literal["sets", "vocabulary"] | None = None
    image_format: Literal["png", "jpeg"] = "png"
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] = 92

    def __post_init__(self) -> None:
        super().__post_init__()
        check_prompt(self.prompt_name, "prompt")

    @property
    def prompt_name(self) -> str:
        """Return the preset or file that is rendered."""
        return self.prompt or _PROMPTS.get(self.mode, "statement")

    def identity(self) -> dict[str, Any]:
        """Return what scores depend on, JSON-able, without secrets: not money, not concurrency."""
        names = [field.name for field in fields(self) if field.name not in _OTHERWISE]
        template = Prompt(self.prompt_name)
        return {
            "version": VERSION,
            **{name: getattr(self, name) for name in names},
            "max_tokens": self.reply_tokens,
            "prompt": [template.source, vars(template.verdict)],
            "tokenizer": self.llm.tokenizer if self.retry == "token_ids" else None,
            "llm": self.llm.identity,
        }
