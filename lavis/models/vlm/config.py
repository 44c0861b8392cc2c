"""Sections `model` of vision-language models; imports no torch."""

from __future__ import annotations

import os
from typing import ClassVar, Literal

from pydantic import PositiveInt
from pydantic.dataclasses import dataclass

from lavis.common.config.fields import STRICT
from lavis.common.errors import ConfigError
from lavis.models.lora import LoraOptions
from lavis.models.vlm.prompts import Words, check_prompt


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VlmConfig:
    """What every vision-language model has.

    Attributes:
        name: Hugging Face id, or a folder.
        revision: branch, tag or commit of the id.
        dtype: what it computes in, whatever `run.amp_eval` says; `auto` is float32 on a CPU, else
            what the files are in (bf16 for float32).
        quantization: of the language model's matrices, by bitsandbytes, on a GPU.
        share_prefix: an image and the beginning of its prompts run once, where the family can.
        max_texts_per_pass: texts that branch from one image at once.
        max_tokens_per_pass: and their tokens, the shared beginning counted for each: what bounds
            the memory of keys and values.
        min_pixels, max_pixels: bounds on an image's area as the model sees it, in families whose
            processors have such bounds (None: the processor's own).
        lora: adapters on the language model, all that is trained; None leaves it as it is.
        use_grad_checkpoint: compute the language model's activations again in the backward pass:
            less memory, more time, the same gradients.
        own_processors: data sets use the processors of the model's default YAML.
    """

    own_processors: ClassVar[bool] = True

    arch: str
    model_type: str = "default"
    name: str
    revision: str | None = None
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    quantization: Literal["int8", "nf4"] | None = None
    share_prefix: bool = True
    max_texts_per_pass: PositiveInt = 16
    max_tokens_per_pass: PositiveInt = 32768
    min_pixels: PositiveInt | None = None
    max_pixels: PositiveInt | None = None
    lora: LoraOptions | None = None
    use_grad_checkpoint: bool = False

    def __post_init__(self) -> None:
        if self.min_pixels and self.max_pixels and self.min_pixels > self.max_pixels:
            raise ConfigError(
                f"model.min_pixels is {self.min_pixels}, above model.max_pixels={self.max_pixels}"
            )
        place = os.path.expanduser(self.name)
        if os.path.isabs(place) and not os.path.exists(place):
            raise ConfigError(f"model.name: no such folder: {self.name}")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VlmCriticConfig(VlmConfig):
    """Section `model` of a run with `arch: vlm_critic`.

    Attributes:
        prompt: `lskd_accept`, `vqascore`, `rationale_supports_answer`, or a jinja2 file that is
            rendered with `question`, `answer`, `rationale`, `text` and `regions` (each `number`,
            `words`).
        yes_words, no_words: words for the two verdicts (None: the prompt's; Yes and No of a file).
        spellings: `all` adds lower case, capitals and a blank in front; `exact` takes the words as
            they are (None: the prompt's; all of a file).
        over: P(yes) is yes / (yes + no), `sets`, or yes over the whole `vocabulary` (None: the
            prompt's; sets of a file).
        answer_prompt: preset or file that asks for an answer, whose likelihood `answer_losses` is.
        letter_prompt: preset or file that shows lettered options, also rendered with `options`
            (each `letter`, `text`).
    """

    arch: str = "vlm_critic"
    prompt: str = "lskd_accept"
    yes_words: Words | None = None
    no_words: Words | None = None
    spellings: Literal["all", "exact"] | None = None
    over: Literal["sets", "vocabulary"] | None = None
    answer_prompt: str = "answer"
    letter_prompt: str = "letters"

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("prompt", "answer_prompt", "letter_prompt"):
            check_prompt(getattr(self, key), f"model.{key}")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VlmStudentConfig(VlmCriticConfig):
    """Section `model` of a run with `arch: vlm_student`: trained to answer, asks as a critic too.

    Attributes:
        max_output_txt_len: longer answers are cut, in tokens with the end token.
    """

    arch: str = "vlm_student"
    lora: LoraOptions | None = LoraOptions()
    max_output_txt_len: PositiveInt = 256
