"""Loading of tokenizers, which data sets and tasks share."""

from __future__ import annotations

import os
from typing import Any

from lavis.common.errors import ConfigError


def load_tokenizer(name: str, key: str) -> Any:
    """Load a tokenizer by Hugging Face id or folder.

    Raises:
        ConfigError: it is not there; `key` stands in the message.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(os.path.expanduser(name))
    except (OSError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise ConfigError(f"{key}: cannot load '{name}': {reason}") from None
