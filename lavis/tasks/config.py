"""A task's own keys in section `run` of a config; imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass

from lavis.common.config.fields import STRICT
from lavis.common.errors import ConfigError


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ClassificationConfig:
    """Keys of `task: multimodal_classification`, the critic's scoring and filtering.

    Attributes:
        report_metric: compute metrics where rows carry a label; false writes scores only.
        keep_above: a filtered corpus is written for each of these scores, kept at or above.
        report_examples: rows shown in `report.html`.
        report_traces: rows, spread over the scores, of which the page shows the prompt, the images
            as the model sees them, and its likeliest next tokens, where the model can tell
            (vision-language models).
        calibrate: fit scores to labels on the split `calibrate_on`, then threshold the fitted
            scores; the raw ones stay in the result files.
        calibrate_on: the labelled split that is fitted; evaluate it before the others.
    """

    report_metric: bool = True
    keep_above: list[float] = Field(default_factory=lambda: [0.5, 0.7, 0.8])
    report_examples: int = 60
    report_traces: NonNegativeInt = 6
    calibrate: Literal["temperature", "isotonic"] | None = None
    calibrate_on: str = "val"

    def __post_init__(self) -> None:
        for value in self.keep_above:
            if not 0 <= value <= 1:
                raise ConfigError(f"keep_above holds {value}; scores lie between 0 and 1")
        if len(set(self.keep_above)) < len(self.keep_above):
            raise ConfigError(f"keep_above is {self.keep_above}; name each threshold once")
        if self.report_examples < 0:
            raise ConfigError(f"report_examples is {self.report_examples}; use 0 for none")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ComparisonConfig:
    """Keys of `task: comparison`, the ranking of candidate texts for one image.

    Attributes:
        score: what ranks. `itm` is the matching head's class-1 logit (log P(yes) of a model that is
            asked), `itc` the cosine of the text and the image's best query, `both` their sum,
            `likelihood` a generative model's mean log-probability of the candidate's tokens,
            `letters` the log-probability of the candidate's letter among lettered options, for
            vision-language models.
        circular: with `letters`, ask again with the options rotated, as often as there are options;
            scores are means, and the metric `circular` counts records that are right every time.
        report_metric: compute accuracy, agreement or recall if records have labels or ratings.
        report_examples: records shown in `report.html`.
        resamples: of the bootstrap.
        tie_seed: of the order of equal scores, and of the bootstrap.
    """

    score: Literal["itm", "itc", "both", "likelihood", "letters"] = "itm"
    circular: bool = False
    report_metric: bool = True
    report_examples: NonNegativeInt = 30
    resamples: PositiveInt = 1000
    tie_seed: int = 0

    def __post_init__(self) -> None:
        if self.circular and self.score != "letters":
            raise ConfigError(
                f"circular: candidates have no order where score is {self.score}; use "
                "run.score=letters, or leave it out"
            )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PretrainConfig:
    """Keys of `task: image_text_pretrain`, validated by the loss of the target text.

    Attributes:
        report_metric: compute the loss over all rows.
    """

    report_metric: bool = True


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AnsweringConfig(PretrainConfig):
    """Keys of `task: visual_answering`: the same, and answers are generated and compared.

    Attributes:
        num_beams: of the search; 1 takes the likeliest token each time.
        max_len, min_len: of an answer, in the language model's tokens.
    """

    num_beams: PositiveInt = 1
    max_len: PositiveInt = 64
    min_len: NonNegativeInt = 1
