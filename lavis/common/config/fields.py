"""What the dataclasses of configuration are made with: strictness, and types of their fields."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field

from lavis.common.errors import ConfigError

# The `config=` of every configuration dataclass; no option may be NaN or infinite.
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)

# Beside pydantic's `PositiveInt`, `NonNegativeFloat` ...
Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveFraction = Annotated[float, Field(gt=0, le=1)]
FractionBelowOne = Annotated[float, Field(ge=0, lt=1)]
Device = Literal["auto", "cpu", "cuda"]  # auto: CUDA where there is any

CONFIG_ROOT = Path(__file__).resolve().parents[2] / "configs"


def _can_be_folder(path: str) -> str:
    place = Path(path).expanduser().absolute()
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    if place.is_symlink() and not place.exists():
        raise ConfigError(f"{place} is a link to nothing, to {os.readlink(place)}; mend the link")
    if not place.is_dir():
        raise ConfigError(f"{place} is a file, where a folder is needed; name another folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ConfigError(f"{place} may not be written to; name another folder")
    return path


OutputFolder = Annotated[str, AfterValidator(_can_be_folder)]
"""Type of a field that names a folder to write to, which may have to be made."""


def _must_exist(path: str) -> str:
    if not os.path.exists(os.path.expanduser(path)):
        raise ConfigError(f"no such file or folder: {path}")
    return path


ExistingPath = Annotated[str, AfterValidator(_must_exist)]
"""Type of a field that names a file or folder which must be there before the run starts."""
