"""From `--model_args` and generation options of lm-evaluation-harness to our settings."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from omegaconf import OmegaConf
from pydantic import TypeAdapter, ValidationError

from lavis.common.config.errors import explain
from lavis.common.config.loading import load_model_config
from lavis.common.errors import ConfigError, nearest
from lavis.common.registry import generators, models
from lavis.generators.config import ImagesConfig
from lavis.models.late_fusion.config import LateFusionConfig
from lavis.processors import load_processor

logger = logging.getLogger(__name__)

ARCH = "late_fusion"
_AUTO_BATCH = 16
_OWN = ("llm", "pretrained", "num_images", "arch", "model_type", "generator")  # other arguments
_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_GREEDY = ("do_sample", "temperature", "top_p", "top_k")  # the likeliest token is always taken


@dataclass(frozen=True)
class Options:
    """Settings of a model and of its images.

    Attributes:
        model: section `model`.
        folder: a folder of `save_pretrained` that the model is read from, or None.
        images: section `run.images`; None for text only.
        processor: turns an image into the tower's input.
    """

    model: LateFusionConfig
    folder: str | None
    images: ImagesConfig | None
    processor: Any

    @classmethod
    def of(
        cls,
        llm: str | None,
        pretrained: str | None,
        generator: str | None,
        k: int | None,
        image_size: int | None,
        options: Mapping[str, Any],
    ) -> Options:
        """Sort keys into the two sections and check them.

        Raises:
            ConfigError: an unknown key, a wrong value, or images without a generator.
        """
        if k is not None and (not isinstance(k, int) or k < 0):
            raise ConfigError(f"k is {k!r}; use 0 for text only, or 1 or more with a generator")
        if k and generator is None:
            raise ConfigError(f"k is {k}, but no generator is given; add generator=diffusion")
        count = 0 if generator is None else k
        of_model, of_images = _sorted(options)
        if count is not None:
            of_model["num_images"] = count
        folder = pretrained if llm is None and pretrained is not None else None
        if folder is None and llm is None:
            raise ConfigError("llm: missing; name the language model, e.g. llm=gpt2")
        if folder is None:
            of_model |= {"llm": llm, "pretrained": pretrained}
        if count == 0 and pretrained is None and "vision" not in of_model:
            of_model["vision"] = {"name": None, "width": 1}  # no tower for text only
        model, preprocess = _model_section(folder, of_model)
        node = dict(preprocess["vis_processor"]["eval"])
        if image_size is not None:
            node["image_size"] = image_size
        images = None
        if generator is not None and model.num_images:
            of_images |= {"generator": generator, "num_images": model.num_images}
            if generator in generators.list():
                of_images.setdefault("scorer", generators.get(generator).suited_scorer)
            images = _checked(ImagesConfig, of_images)
        return cls(model, folder, images, load_processor(node["name"], node))

    def build(self) -> Any:
        """Return the model with its weights."""
        return models.get(ARCH).from_config(self.model)


def whole_number(name: str, value: Any, least: int = 1) -> int:
    """Return an argument's whole number; `ConfigError` if it is none, or less than `least`."""
    refusal = ConfigError(f"{name} is {value!r:.60}; use a whole number of {least} or more")
    if isinstance(value, bool):
        raise refusal
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        raise refusal from None
    if number < least or number != (float(value) if isinstance(value, float) else number):
        raise refusal
    return number


def is_usable(device: str | None) -> bool:
    """Return whether a device is named and usable; the harness asks for cuda:0 on any machine.

    Raises:
        ConfigError: there is no such kind of device.
    """
    if device is None or str(device) == "cuda":
        return False
    try:
        kind = torch.device(str(device)).type
    except RuntimeError:
        raise ConfigError(f"device is '{device}'; use cpu, cuda or cuda:N") from None
    return kind == "cpu" or getattr(torch, kind).is_available()


def batch_rows(size: int | str, most: int | None) -> int:
    """Return the rows of a batch; `auto` is `most`, or 16. `ConfigError` unless 1 or more."""
    largest = _AUTO_BATCH if most is None else whole_number("max_batch_size", most)
    if str(size).startswith("auto"):
        return largest
    try:
        return whole_number("batch_size", size)
    except ConfigError as error:
        raise ConfigError(f"{error}, or auto") from None


def _sorted(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return keys of `model` and of `run.images`, nested at their dots."""
    sections: list[Any] = [OmegaConf.create({}), OmegaConf.create({})]
    names = [
        {field.name for field in fields(cls) if field.name not in _OWN}  # type: ignore[arg-type]
        for cls in (LateFusionConfig, ImagesConfig)
    ]
    for key, value in options.items():
        first = key.partition(".")[0]
        owner = next((n for n in (0, 1) if first in names[n]), None)
        if owner is None:
            hint = nearest(first, sorted(names[0] | names[1]))
            raise ConfigError(f"--model_args: unknown key '{key}'{hint}")
        OmegaConf.update(sections[owner], key, value, force_add=True)
    model, images = (OmegaConf.to_container(section) for section in sections)
    return dict(model), dict(images)  # type: ignore[arg-type]


def _model_section(
    folder: str | None, overrides: dict[str, Any]
) -> tuple[LateFusionConfig, dict[str, Any]]:
    if folder is None:
        return load_model_config(ARCH, "default", overrides)
    from lavis.models.late_fusion.checkpoints import read_config

    _, preprocess = load_model_config(ARCH, "default", {"llm": "any"})
    try:
        return read_config(os.path.expanduser(folder), overrides), preprocess
    except ValidationError as error:
        where = f"pretrained={folder}"
        raise ConfigError(
            explain(error, LateFusionConfig, overrides, "model", source=lambda _: where)
        ) from None


def _checked(cls: Any, node: dict[str, Any]) -> Any:
    try:
        return TypeAdapter(cls).validate_python(node)
    except ValidationError as error:
        where = "--model_args"
        message = explain(error, cls, node, "images", source=lambda _: where)
        # What a run file lists is an argument here.
        message = re.sub(r"run\.import_modules: \[([\w.]+)\]", r"import_modules=\1", message)
        raise ConfigError(message) from None


@dataclass(frozen=True)
class GenerationOptions:
    """A task's options: the texts that end an answer, and the most tokens of one."""

    until: tuple[str, ...]
    max_gen_toks: int
    num_beams: int = 1
    length_penalty: float = 1.0

    @classmethod
    def of(cls, options: Mapping[str, Any], max_gen_toks: int) -> GenerationOptions:
        """Read a request's options.

        Args:
            max_gen_toks: where the task names none.

        Raises:
            ConfigError: the task wants random answers, or a value is no number.
        """
        node = dict(options)
        if node.get("do_sample"):
            raise ConfigError(
                "do_sample: late_fusion takes the likeliest token, or beams; use "
                "--gen_kwargs do_sample=False"
            )
        until = node.pop("until", None) or ()
        lengths = {name: node.pop(name, None) for name in _LENGTHS}
        named = {name: length for name, length in lengths.items() if length is not None}
        length = next((whole_number(k, v, 0) for k, v in named.items()), max_gen_toks)
        beams = whole_number("num_beams", node.pop("num_beams", 1))
        penalty = node.pop("length_penalty", 1.0)
        try:
            penalty = float(penalty)
        except (TypeError, ValueError):
            raise ConfigError(f"length_penalty is {penalty!r:.60}; use a number") from None
        unread = sorted(key for key in node if key not in _GREEDY)
        if unread:
            logger.warning("generation options that late_fusion does not read: %s", unread)
        stops = (until,) if isinstance(until, str) else tuple(until)
        return cls(stops, length, beams, penalty)
