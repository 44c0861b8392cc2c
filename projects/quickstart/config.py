"""Settings of what the quickstart registers; imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from lavis.common.config.fields import STRICT
from lavis.common.errors import ConfigError

PositiveInt = Annotated[int, Field(gt=0)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OpenmojiConfig:
    """Options of `openmoji`.

    Attributes:
        image_size: edge of the square images, pixels.
        max_pictograms: at most so many things are drawn, the first ones that the prompt names.
        min_scale: least edge of a pictogram as a share of its place; the most is `max_scale`.
        max_rotation: degrees to either side.
        backgrounds: `varied` draws one of a few light colours; `white` is always white.
    """

    image_size: PositiveInt = 128
    max_pictograms: PositiveInt = 4
    min_scale: Annotated[float, Field(gt=0, le=1)] = 0.6
    max_scale: Annotated[float, Field(gt=0, le=1)] = 0.95
    max_rotation: Annotated[float, Field(ge=0, le=180)] = 20.0
    backgrounds: Literal["varied", "white"] = "varied"
    batch_size: PositiveInt = 64

    def __post_init__(self) -> None:
        if self.min_scale > self.max_scale:
            raise ConfigError(
                f"min_scale: {self.min_scale} is above max_scale, {self.max_scale}; swap them"
            )
