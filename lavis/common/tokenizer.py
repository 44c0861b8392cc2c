"""Loading of tokenizers, which data sets and tasks share, and what they put around a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lavis.common.errors import ConfigError
from lavis.common.pretrained import load_pretrained

_USED = ("pad", "bos", "eos", "cls", "sep", "mask")
_PROBE = ("a b", "1 2", "A", ".")  # short texts; one that has tokens shows what is put around it


def load_tokenizer(name: str, key: str) -> Any:
    """Load a tokenizer by Hugging Face id or folder.

    Raises:
        ConfigError: it is not there, or has no vocabulary: of a folder with a model's config and no
            tokenizer files transformers makes one that knows its special tokens only. `key` stands
            in the message.
    """
    from transformers import AutoTokenizer

    tokenizer = load_pretrained(AutoTokenizer, name, refusal=f"{key}: cannot load '{name}'")
    words = set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens)
    if len(words) < 2:
        raise ConfigError(
            f"{key}: '{name}' has no tokenizer files (a vocabulary of {len(tokenizer)} special "
            "tokens); name the tokenizer, or put its files there"
        )
    return tokenizer


@dataclass(frozen=True)
class Specials:
    """Tokens that a tokenizer puts in front of a text and behind it.

    A text that something is read after, or that goes on, must not be closed: an end token behind it
    would be what the model reads.
    """

    opening: tuple[int, ...]
    closing: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: Any) -> Specials:
        """Find out by a short text.

        Raises:
            ConfigError: specials stand inside a text.
        """
        for text in _PROBE:
            bare = list(tokenizer(text, add_special_tokens=False).input_ids)
            whole = list(tokenizer(text, add_special_tokens=True).input_ids)
            for start in range(len(whole) - len(bare) + 1 if bare else 0):
                end = start + len(bare)
                if whole[start:end] == bare:
                    return cls(tuple(whole[:start]), tuple(whole[end:]))
            if bare:
                break
        raise ConfigError(
            f"run.tokenizer: '{tokenizer.name_or_path}' does not put its special tokens around a "
            "text, so it cannot be said where a text ends"
        )


def padding_token(tokenizer: Any) -> int:
    """Return a token that may stand where none is."""
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    return 0


def check_vocabulary(tokenizer: Any, model: Any, key: str = "run.tokenizer") -> None:
    """Raise `ConfigError` where a tokenizer has tokens that a language model does not know.

    Tokens that were added to a tokenizer and stand for something else than text (Gemma 3 has one of
    an image) may be beyond the model's table: the text that holds one is refused, not all others.

    Args:
        model: has `vocabulary`, how many tokens it has vectors for, and `fills_masks`.
    """
    known = model.vocabulary
    used = {name: getattr(tokenizer, f"{name}_token_id", None) for name in _USED}
    beyond = {name: token for name, token in used.items() if token is not None and token >= known}
    own = set(tokenizer.get_vocab().values()) - set(tokenizer.get_added_vocab().values())
    largest = max(own, default=-1)
    if beyond or largest >= known:
        what = next((f"its {name} token is {token}" for name, token in beyond.items()), "")
        what = what or f"its largest is {largest}"
        raise ConfigError(
            f"{key}: '{tokenizer.name_or_path}' has tokens beyond the {known} that the language "
            f"model has vectors for ({what}); name the model's own tokenizer"
        )
    if model.fills_masks and tokenizer.mask_token_id is None:
        raise ConfigError(
            f"{key}: '{tokenizer.name_or_path}' has no mask token, and the language model fills "
            "masks; name the model's own tokenizer"
        )
