"""Joins `model.grounding` to `blip2_critic` and `blip2`; imports no torch.

Name this module in `run.import_modules`. It also brings the model type `quickstart`.
"""

from __future__ import annotations

from pydantic import NonNegativeFloat, PositiveInt
from pydantic.dataclasses import dataclass

from lavis.common.config.fields import STRICT
from lavis.common.errors import ConfigError
from lavis.common.registry import Target, models
from lavis.models.blip2.config import CriticConfig, Stage1Config

TYPES = {"quickstart": "models/blip2/blip2_quickstart.yaml"}


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
    """Section `model` of a run with `arch: blip2_critic`, where this module is imported.

    Attributes:
        grounding: help for Q-Formers too small to learn by themselves where words point.
    """

    grounding: GroundingConfig | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_maps(self)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GroundedStage1Config(Stage1Config):
    """Section `model` of a run with `arch: blip2`, where this module is imported.

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


for _name, _class in (("blip2_critic", "GroundedCritic"), ("blip2", "GroundedStage1")):
    models.extend(
        _name,
        Target(f"lavis.models.blip2.grounded:{_class}", f"{__name__}:{_class}Config", TYPES),
    )
