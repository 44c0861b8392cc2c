"""Keys of `task: visual_questions` in section `run`; imports no torch."""

from __future__ import annotations

from dataclasses import field
from typing import Literal

from pydantic import NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass

from lavis.common.config.fields import STRICT
from lavis.common.errors import ConfigError
from lavis.generators.config import ImagesConfig

Column = Literal["text", "single", "images", "best_of_n", "shuffled"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VisualQuestionsConfig:
    """Benchmark questions answered from the text alone and with images.

    Attributes:
        tokenizer: Hugging Face id or folder; run files say `${model.llm}`.
        images: source of images; `num_images` says `${model.num_images}`. With
            `skip_when_certain` all questions are first answered from the text alone, and those it
            is certain of get no images: their answer is the text's in every column.
        images_per: who shares images: all prompts and options of a `question`; or each `prompt`
            has its own (each option, if options are the prompts), as released.
        columns: what is compared. `text` sees no image, `single` one, `images` all K,
            `shuffled` those of another question (a control). `best_of_n` spends K predictions on
            the text alone and keeps the likeliest: of K answers drawn from the text-only
            probabilities of candidates or options; of K beams of a written answer.
        protocols: rules that answers are scored by: `released`, `corrected`. The second reads more
            if candidates are several tokens long.
        best_of: N of `best_of_n` (null: K, or 10 without images).
        max_tokens: longest text, images not counted (null: no limit of our own).
        long_texts: longer ones are rejected, or lose tokens at their beginning.
        max_new_tokens: of a written answer.
        keep_features: outputs of the frozen tower stay in the cache beside the images; false
            encodes a unit's images each time.
        main_rule: its accuracy is the run's figure (null: the benchmark's released rule).
        resamples: of the bootstrap.
        report_examples: questions shown in `report.html`.
        seed: of `best_of_n` and the bootstrap.
    """

    tokenizer: str
    images: ImagesConfig = field(default_factory=ImagesConfig)
    images_per: Literal["question", "prompt"] = "question"
    columns: list[Column] = field(default_factory=lambda: ["text", "single", "images", "best_of_n"])
    protocols: list[Literal["released", "corrected"]] = field(
        default_factory=lambda: ["released", "corrected"]
    )
    best_of: PositiveInt | None = None
    max_tokens: PositiveInt | None = None
    long_texts: Literal["reject", "cut"] = "reject"
    max_new_tokens: PositiveInt = 50
    keep_features: bool = True
    main_rule: str | None = None
    resamples: PositiveInt = 1000
    report_examples: NonNegativeInt = 24
    seed: int = 0

    def __post_init__(self) -> None:
        if "text" not in self.columns:
            raise ConfigError(f"columns is {self.columns}; 'text' must be among them")
        if not self.protocols:
            raise ConfigError("protocols is empty; name released, corrected or both")
        if len(set(self.columns)) < len(self.columns):
            raise ConfigError(f"columns is {self.columns}; name each once")

    @property
    def shown(self) -> list[str]:
        """Columns of this run as result files name them; without images only those of the text."""
        if self.images.num_images:
            return ["pictures" if column == "images" else column for column in self.columns]
        return [column for column in self.columns if column in ("text", "best_of_n")]

    @property
    def samples(self) -> int:
        """N of `best_of_n`."""
        return self.best_of or self.images.num_images or 10
