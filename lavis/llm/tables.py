"""Tables of facts about servers and models: files of `lavis/configs/llm`, checked on reading."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BeforeValidator, TypeAdapter

from lavis.common.config.fields import CONFIG_ROOT
from lavis.common.errors import DECODE_REFUSALS, ConfigError

T = TypeVar("T")


def any_of(patterns: Any) -> str:
    """Return one pattern for a list of alternatives, each a text or a list of its parts."""
    if not isinstance(patterns, list):
        raise ValueError("a list of patterns was expected")
    return "|".join(part if isinstance(part, str) else "".join(part) for part in patterns)


def _words(text: Any) -> frozenset[str]:
    if not isinstance(text, str):
        raise ValueError("words with blanks between them were expected")
    return frozenset(text.split())


Pattern = Annotated[re.Pattern[str], BeforeValidator(any_of)]
"""Type of a row's field that lists alternatives of a regular expression."""
Alternatives = Annotated[str, BeforeValidator(any_of)]
"""The same, not yet compiled: it has placeholders for fragments."""
Words = Annotated[frozenset[str], BeforeValidator(_words)]
"""Type of a row's field that holds words with blanks between them."""


@functools.cache
def load_table(name: str, table_type: type[T]) -> T:
    """Return the content of `lavis/configs/llm/NAME.yaml` as a dataclass or mapping type.

    Raises:
        ConfigError: the file is missing, malformed, or against the type.
    """
    path = CONFIG_ROOT / "llm" / f"{name}.yaml"
    try:
        return TypeAdapter(table_type).validate_python(yaml.safe_load(path.read_text("utf-8")))
    except (*DECODE_REFUSALS, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {error}") from None


def expand(pattern: str, fragments: Mapping[str, str]) -> str:
    """Return a pattern with `%(name)s` replaced by fragments; those of alternatives are grouped."""
    return pattern % {k: f"(?:{v})" if "|" in v else v for k, v in fragments.items()}
