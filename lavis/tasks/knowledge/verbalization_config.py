"""Sections of a verbalization run: its stages, by name and in order, and the run itself."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import (
    Field,
    NonNegativeInt,
    PlainValidator,
    PositiveFloat,
    PositiveInt,
    TypeAdapter,
    ValidationError,
)
from pydantic.dataclasses import dataclass

from lavis.common import registry
from lavis.common.config.errors import explain
from lavis.common.config.fields import STRICT, Device, OutputFolder
from lavis.common.errors import ConfigError


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VerbalizeRunConfig:
    """Section `run`.

    Attributes:
        output_dir: folder of everything the run writes.
        timeout_minutes: a rank that makes no progress for so long is reported.
    """

    output_dir: OutputFolder
    seed: int = 42
    device: Device = "auto"
    num_workers: PositiveInt = 2  # threads that decode images ahead
    timeout_minutes: PositiveFloat = 30.0
    report_examples: NonNegativeInt = 24  # images shown in `report.html`
    import_modules: list[str] = Field(default_factory=list)  # modules that register verbalizers


def read_stages(node: Any) -> dict[str, Any]:
    """Return stage name -> its settings, checked by the dataclass of its `type`.

    A stage without `type` is of the type it is named after; one that is null is left out.

    Raises:
        ConfigError: a line for each problem.
    """
    if not isinstance(node, dict):
        raise ConfigError("a mapping of stage names to settings was expected")
    stages: dict[str, Any] = {}
    problems: list[str] = []
    for name, settings in node.items():
        if settings is None:
            continue
        try:
            stages[name] = _read_stage(str(name), settings)
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    if not stages:
        raise ConfigError("no stages; name one, such as concepts")
    return stages


def _read_stage(name: str, settings: Any) -> Any:
    if not re.fullmatch(r"[A-Za-z]\w*", name) or name == "pictures":
        raise ConfigError(f"{name}: a stage's name is letters, digits and '_', not 'images'")
    if not isinstance(settings, dict):
        raise ConfigError(f"{name}: a mapping was expected")
    node = {"type": name, **settings}
    registry.verbalizers.check(str(node["type"]), f"{name}.type")
    cls = registry.verbalizers.config_class(str(node["type"]))
    try:
        return TypeAdapter(cls).validate_python(node)
    except ValidationError as error:
        lines = explain(error, cls, node, name, source=lambda _: "")
        raise ConfigError("\n".join(ln.removeprefix(", ") for ln in lines.split("\n"))) from None


Stages = Annotated[dict[str, Any], PlainValidator(read_stages)]
"""Type of section `stages`."""
