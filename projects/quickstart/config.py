"""Settings of what the quickstart registers; imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt
from pydantic.dataclasses import dataclass

from lavis.common.config.fields import STRICT, PositiveFraction
from lavis.common.errors import ConfigError
from lavis.models.blip2.config import CriticConfig, Stage1Config


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OpenmojiConfig:
    """Options of `openmoji`.

    Attributes:
        image_size: edge of the square images, pixels.
        max_pictograms: at most so many things are drawn, the first ones that the prompt names.
        min_scale, max_scale: edge of a pictogram as a share of its place.
        max_rotation: degrees to either side.
        backgrounds: `varied` draws one of a few light colours; `white` is always white.
    """

    image_size: PositiveInt = 128
    max_pictograms: PositiveInt = 4
    min_scale: PositiveFraction = 0.6
    max_scale: PositiveFraction = 0.95
    max_rotation: Annotated[float, Field(ge=0, le=180)] = 20.0
    backgrounds: Literal["varied", "white"] = "varied"
    batch_size: PositiveInt = 64

    def __post_init__(self) -> None:
        if self.min_scale > self.max_scale:
            raise ConfigError(
                f"min_scale: {self.min_scale} is above max_scale, {self.max_scale}; swap them"
            )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GroundingConfig:
    """`model.grounding`: tells a small Q-Former where the image shows the words of a text.

    Attributes:
        regions: words are compared with the regions numbered 0 to `regions` - 1.
        loss_weight: of the alignment of words and boxes, where samples carry `word_boxes`.
        alignment_only: train nothing but that alignment: the first phase.
        freeze: keep what words point at, and the image norm before it: for records without
            `word_boxes`, which would wear it off. Freeze the word table with it, and set
            `run.save_frozen`, so that the checkpoint holds them.
    """

    regions: PositiveInt = 5
    loss_weight: NonNegativeFloat = 0.1
    alignment_only: bool = False
    freeze: bool = False


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GroundedCriticConfig(CriticConfig):
    """Section `model` of a run with `arch: blip2_critic`, where `projects.quickstart` is imported.

    Attributes:
        grounding: help for Q-Formers too small to learn by themselves where words point.
    """

    grounding: GroundingConfig | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_maps(self)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GroundedStage1Config(Stage1Config):
    """Section `model` of a run with `arch: blip2`, where `projects.quickstart` is imported.

    Attributes:
        grounding: as the critic's, whose weights it starts from.
    """

    grounding: GroundingConfig | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_maps(self)
        if self.grounding and self.grounding.alignment_only:
            raise ConfigError(
                "model.grounding.alignment_only: stage 1 does not align; train blip2_critic with "
                "it first, and load those weights"
            )


def _check_maps(config: GroundedCriticConfig | GroundedStage1Config) -> None:
    if config.grounding and config.vit.out_indices is None:
        raise ConfigError(
            "model.grounding needs a tower of feature maps; name them in model.vit.out_indices"
        )
