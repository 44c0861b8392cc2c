"""Loading of tokenizers, which data sets and tasks share."""

from __future__ import annotations

from typing import Any

from lavis.common.pretrained import load_pretrained


def load_tokenizer(name: str, key: str) -> Any:
    """Load a tokenizer by Hugging Face id or folder.

    Raises:
        ConfigError: it is not there; `key` stands in the message.
    """
    from transformers import AutoTokenizer

    return load_pretrained(AutoTokenizer, name, refusal=f"{key}: cannot load '{name}'")
