"""The table of conventions: how each family of models writes regions and resizes images."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import yaml
from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from lavis.common.config.fields import CONFIG_ROOT, STRICT
from lavis.common.errors import DECODE_REFUSALS, ConfigError, nearest
from lavis.common.regions import frames, tiles
from lavis.common.regions.frames import Frame
from lavis.common.regions.shapes import Size

_TABLE = CONFIG_ROOT / "vlm" / "conventions.yaml"
Style = Literal[
    "json", "list", "qwen_tags", "ref_box", "loc4", "loc_bins", "patches", "points", "point_percent"
]
Written = Literal["box", "point"]
_RULES: dict[str, Callable[[Size, Mapping[str, Any]], Frame]] = {
    "smart_resize": frames.smart_resize,
    "glm": frames.glm_resize,
    "squash": frames.squash,
    "crop_centre": frames.crop_centre,
    "gemma4": frames.gemma4_resize,
    "nearest_grid": tiles.nearest_grid,
    "overlapping_crops": tiles.overlapping_crops,
    "longest_edge_tiles": tiles.longest_edge_tiles,
    "padded_pinpoints": tiles.padded_pinpoints,
    "padded_canvas": tiles.padded_canvas,
    "fitting_canvas": tiles.fitting_canvas,
    "padded_grid": tiles.padded_grid,
    "refined_slices": tiles.refined_slices,
}
_OPTIONAL = ("smart_resize", "glm", "squash", "gemma4")  # rules that `do_resize: false` ends


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Convention:
    """How a model writes regions, and how its image processor resizes.

    Attributes:
        name: in the table; of a family without a documented form `none`.
        family: the `model_type`, where it was asked for by that.
        style: the text around the numbers; None: the model writes no regions.
        steps: a side is divided into so many; `pixels`: those of the picture that the model sees.
        decimals: of a number.
        rounding: `floor` writes the bin, which is read back at its middle.
        order: of a box's corners.
        writes: what there is text for.
        box_key, point_key, label_key: of JSON items.
        nothing: whole replies that say that there is no region.
        detect, point_at: prompts, with `{label}` or `{labels}`; empty where there is none.
        resize: the rule and its settings; None: the image is taken as it is.

    Example:
        >>> convention_of("qwen3_vl", {}).frame((1280, 853)).model
        (1280, 864)
    """

    name: str
    family: str | None = None
    style: Style | None = None
    steps: int | Literal["pixels"] = 1000
    decimals: int = 0
    rounding: Literal["nearest", "floor"] = "nearest"
    order: Literal["xyxy", "yxyx"] = "xyxy"
    writes: tuple[Written, ...] = ()
    box_key: str = "bbox"
    point_key: str = "point"
    label_key: str = "label"
    nothing: tuple[str, ...] = ()
    detect: str = ""
    point_at: str = ""
    resize: Mapping[str, Any] | None = None

    def frame(self, size: Size) -> Frame:
        """Return what becomes of an image of a size (width, height).

        Raises:
            RecordError: the family refuses such an image.
            ConfigError: the image processor's config lacks what its rule needs.
        """
        if self.resize is None:
            return Frame(size, size)
        rule = self.resize["rule"]
        if self.resize.get("do_resize") is False and rule in _OPTIONAL:  # tiles are always made
            return Frame(size, size)
        try:
            return _RULES[rule](size, self.resize)
        except (KeyError, TypeError) as error:
            raise ConfigError(
                f"image processor of {self.family}: {error} is missing or odd in its config"
            ) from None

    def detection_prompt(self, labels: Sequence[str]) -> str:
        """Return what to ask for boxes; raises `ConfigError` where no question is documented."""
        return self._prompt(self.detect, labels, "boxes")

    def pointing_prompt(self, labels: Sequence[str]) -> str:
        """Return what to ask for points; raises `ConfigError` where no question is documented."""
        return self._prompt(self.point_at, labels, "points")

    def describe(self) -> dict[str, Any]:
        """Return all fields, JSON-able: equal descriptions write and read alike."""
        return dataclasses.asdict(self)

    def _prompt(self, form: str, labels: Sequence[str], what: str) -> str:
        if not form:
            raise ConfigError(f"convention {self.name}: no question for {what} is known")
        if "{label}" in form and len(labels) > 1 and self.style == "loc4":
            return form.replace("{label}", " ; ".join(labels))
        if "{label}" in form and len(labels) != 1:
            raise ConfigError(f"convention {self.name}: ask for one thing at a time")
        listed = ", ".join(f"'{label}'" for label in labels)
        return form.replace("{label}", labels[0] if labels else "").replace("{labels}", listed)


@dataclass(frozen=True, config=STRICT)
class _Family:
    convention: str | None
    resize: dict[str, Any] | None


@dataclass(frozen=True, config=STRICT)
class _Table:
    conventions: dict[str, dict[str, Any]]
    families: dict[str, _Family]


@functools.cache
def _table() -> _Table:
    try:
        return TypeAdapter(_Table).validate_python(yaml.safe_load(_TABLE.read_text("utf-8")))
    except (*DECODE_REFUSALS, yaml.YAMLError) as error:
        raise ConfigError(f"{_TABLE}: {error}") from None


def convention(name: str) -> Convention:
    """Return a convention of the table, for images that are not resized.

    Raises:
        ConfigError: an unknown name.
    """
    table = _table().conventions
    if name not in table:
        raise ConfigError(f"unknown convention '{name}'{nearest(name, table)}")
    return Convention(name=name, **table[name])


def convention_of(model_type: str, image_processor_config: Mapping[str, Any]) -> Convention:
    """Return the convention of a family, with its way of resizing.

    Args:
        model_type: of the model's config.
        image_processor_config: what `preprocessor_config.json` holds, or the processor's
            `to_dict()`; what it lacks is as in the family's class.

    Raises:
        ConfigError: a family that the table does not know.
    """
    families = _table().families
    if model_type not in families:
        raise ConfigError(
            f"no convention for regions of model type '{model_type}' is known"
            f"{nearest(model_type, families)}; name one by hand: {', '.join(_table().conventions)}"
        )
    family = families[model_type]
    resize = family.resize
    if resize is not None:
        known = {key: _plain(image_processor_config.get(key)) for key in (*resize, *_SWITCHES)}
        kept = {key: value for key, value in known.items() if value is not None}
        kept.pop("rule", None)
        resize = {**resize, **kept}
    if family.convention is None:
        return Convention(name="none", family=model_type, resize=resize)
    found = convention(family.convention)
    return dataclasses.replace(found, family=model_type, resize=resize)


_SWITCHES = ("do_resize", "min_pixels", "max_pixels", "use_square_size")


def _plain(value: Any) -> Any:
    """Return a processor's `SizeDict` as a mapping of the sides it has."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {key: side for key, side in dataclasses.asdict(value).items() if side is not None}
    return value
