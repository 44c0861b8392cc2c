"""Prompts of vision-language models: jinja2 files, and what a preset of ours asks to be read."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BeforeValidator, Field, StringConstraints, TypeAdapter
from pydantic.dataclasses import dataclass

from lavis.common.config.fields import CONFIG_ROOT, STRICT
from lavis.common.errors import ConfigError, nearest

FOLDER = CONFIG_ROOT / "prompts" / "vlm"
# A row of every variable, with which a template is tried before the run.
_SAMPLE = {
    "question": "q",
    "answer": "a",
    "rationale": "r",
    "text": "t",
    "regions": [{"number": 0, "words": "[0]"}],
    "options": [{"letter": "A", "text": "a"}],
}


def _as_word(value: Any) -> Any:
    """YAML reads a bare Yes as true; the words are written in all spellings anyway."""
    return {True: "Yes", False: "No"}[value] if isinstance(value, bool) else value


Word = Annotated[str, BeforeValidator(_as_word), StringConstraints(pattern=r"\S")]
Words = Annotated[tuple[Word, ...], Field(min_length=1)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Verdict:
    """How a prompt's reply is read; a row of `presets.yaml`.

    Attributes:
        yes_words, no_words: for the two verdicts.
        spellings: `all` adds lower case, capitals and a blank in front.
        over: what P(yes) is normalised over.
    """

    yes_words: Words = ("Yes",)
    no_words: Words = ("No",)
    spellings: Literal["all", "exact"] = "all"
    over: Literal["sets", "vocabulary"] = "sets"


class Prompt:
    """A template of the user's message.

    Args:
        name: a preset, a file of `lavis/configs/prompts/vlm`, or a path.

    Example:
        >>> Prompt("vqascore").render({"text": "a dog on grass"})
        'Does this figure show "a dog on grass"? Please answer Yes or No.'
    """

    def __init__(self, name: str) -> None:
        self.name, self.source = name, _file(name).read_text(encoding="utf-8")
        self.verdict = presets().get(name, Verdict())
        environment = ImmutableSandboxedEnvironment(
            undefined=StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True
        )
        self._template = environment.from_string(self.source)

    def render(self, values: Mapping[str, Any]) -> str:
        """Return the text, without blanks at its ends."""
        return self._template.render(**values).strip()


def check_prompt(name: str, key: str) -> None:
    """Raise `ConfigError` for a template that is not there, malformed, or knows other variables."""
    path = _file(name)
    if not path.is_file():
        hint = nearest(name, [file.stem for file in FOLDER.glob("*.jinja")])
        raise ConfigError(f"{key}: '{name}' is neither a preset nor a jinja2 file{hint}")
    try:
        Prompt(name).render(_SAMPLE)
    except (TemplateError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{key}: {path}: {error}; a template may use {', '.join(_SAMPLE)}"
        ) from None


@functools.lru_cache(maxsize=1)
def presets() -> dict[str, Verdict]:
    """Return preset -> how its reply is read."""
    rows = yaml.safe_load((FOLDER / "presets.yaml").read_text(encoding="utf-8"))
    return TypeAdapter(dict[str, Verdict]).validate_python(rows)


def _file(name: str) -> Path:
    ours = FOLDER / f"{name}.jinja"
    return ours if os.sep not in name and ours.is_file() else Path(name).expanduser()
