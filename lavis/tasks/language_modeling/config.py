"""Keys of `task: visual_language_modeling` in section `run`; imports no torch."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass

from lavis.common.config.fields import STRICT
from lavis.common.errors import ConfigError
from lavis.generators.config import ImagesConfig


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LanguageModelingConfig:
    """Late fusion trained on captions: each token from those before it and the text's image.

    Attributes:
        tokenizer: Hugging Face id or folder; run files say `${model.llm}`.
        max_length: longer texts are cut at their end (null: at the model's last position).
        loss_vocabulary: softmax over `all` tokens, or over those `seen` in the training texts,
            which suits small worlds of captions and is much cheaper; or a list of words: these are
            told apart from each other, and no other word of a text counts.
        mlm_probability: share of tokens that a model which fills masks predicts (released: 0.2).
        blank_images: zeros in place of every image: the control that learns without them.
        images: source of images for texts without any (`wiki`).
        export_vlmig: the whole model is written after each epoch as `<this>_<epoch>.bin`, the file
            of the released code; needs `model.fusion.init: random`.
    """

    tokenizer: str
    max_length: PositiveInt | None = None
    loss_vocabulary: Literal["all", "seen"] | list[str] = "all"
    mlm_probability: Annotated[float, Field(gt=0, lt=1)] = 0.2
    blank_images: bool = False
    images: ImagesConfig = field(default_factory=lambda: ImagesConfig(num_images=1, scorer=None))
    export_vlmig: str | None = None

    def __post_init__(self) -> None:
        if self.max_length is not None and self.max_length < 2:
            raise ConfigError(f"max_length is {self.max_length}; use 2 or more")
        if isinstance(self.loss_vocabulary, list) and len(self.loss_vocabulary) < 2:
            raise ConfigError(
                f"loss_vocabulary is {self.loss_vocabulary}; name two words or more, all or seen"
            )
