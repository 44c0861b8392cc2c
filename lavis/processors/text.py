"""Text processors of the BLIP family: lower case, some punctuation removed, cut, prompt in front.

They reproduce the released results character by character, quirks included (noted where so).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from lavis.common.errors import ConfigError
from lavis.common.registry import processors
from lavis.processors.base import BaseProcessor, check_count

_PUNCTUATION = re.compile(r'[.!"()*#:;~]')
_BLANKS = re.compile(r"\s{2,}")
# Released quirk: meant as a set of characters, it works as one literal sequence of six (any
# character, then these five), so punctuation stays. The released critic was trained with it.
_LITERAL = re.compile(r'.!"#;~')


class _TextProcessor(BaseProcessor):
    """Checks the options the text processors share."""

    def __init__(self, prompt: str, max_words: int) -> None:
        if not isinstance(prompt, str):
            raise ConfigError(f"{self.name}.prompt is {prompt!r}; use a string")
        check_count(self.name, "max_words", max_words)
        self.prompt = prompt
        self.max_words = max_words

    def _cut(self, text: str) -> str:
        """Keep the first `max_words` pieces between single blanks; empty pieces count."""
        return " ".join(text.split(" ")[: self.max_words])


@processors.register("blip_caption")
class BlipCaption(_TextProcessor):
    """Lower case, punctuation to blanks, blanks collapsed, cut, prompt in front."""

    name: ClassVar[str] = "blip_caption"

    def __init__(self, prompt: str = "", max_words: int = 50) -> None:
        super().__init__(prompt, max_words)

    def __call__(self, text: str) -> str:
        text = _BLANKS.sub(" ", _PUNCTUATION.sub(" ", text.lower()))
        return self.prompt + self._cut(text.rstrip("\n").strip(" "))


@processors.register("blip_question")
class BlipQuestion(_TextProcessor):
    """Lower case, punctuation deleted, cut; no prompt."""

    name: ClassVar[str] = "blip_question"

    def __init__(self, max_words: int = 50) -> None:
        super().__init__("", max_words)

    def __call__(self, text: str) -> str:
        return self._cut(_PUNCTUATION.sub("", text.lower()).rstrip(" "))


@processors.register("blip_unified_vqa")
class BlipUnifiedVqa(_TextProcessor):
    """The critic's and the student's processor: lower case, cut, prompt in front.

    Punctuation stays (see `_LITERAL`). The word limit is 50 for the constructor and 70 through
    `from_config`, as released.
    """

    name: ClassVar[str] = "blip_unified_vqa"
    config_defaults: ClassVar[Mapping[str, Any]] = {"max_words": 70}

    def __init__(self, prompt: str = "", max_words: int = 50) -> None:
        super().__init__(prompt, max_words)

    def __call__(self, text: str, add_prompt: bool = True) -> str:
        text = self._cut(_LITERAL.sub("", text.lower()).rstrip(" "))
        return self.prompt + text if add_prompt else text
