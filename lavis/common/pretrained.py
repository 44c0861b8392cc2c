"""Loading of models, tokenizers, processors, pipelines and tables by name or folder.

Code of a model folder or a repository is never run. Everything that this package loads by name is
loaded here, so that the libraries neither ask on the terminal nor run it.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavis.common.errors import ConfigError

logger = logging.getLogger(__name__)

_ADVICE = (
    "which is never run here; use a model of a family that the installed transformers knows, or a "
    "copy that was converted to it"
)
_PIPELINE_ADVICE = "which is never run here; use a pipeline of the installed diffusers"


def load_pretrained(cls: Any, name: str, *, refusal: str, **options: Any) -> Any:
    """Return `cls.from_pretrained(name)` of a class of transformers, without code of the folder.

    A folder with code of its own (`auto_map`) loads where transformers has the class itself, as for
    most models whose code moved into the library; the folder's code is not looked at then.

    Args:
        cls: `AutoConfig`, `AutoModel...`, `AutoTokenizer`, `AutoProcessor`, or one class.
        name: Hugging Face id, or a folder.
        refusal: beginning of the message, such as `model.llm: cannot load 'x'`.

    Raises:
        ConfigError: it cannot be loaded, or only with code of its own.
    """
    name = os.path.expanduser(name)
    own = _foreign_model(name, cls.__name__, options)
    if own:
        raise ConfigError(f"{refusal}: it needs code of its own ({own}), {_ADVICE}")
    return _without_code(cls, name, refusal, _ADVICE, options)


def _without_code(
    cls: Any, name: str, refusal: str, advice: str, options: Mapping[str, Any]
) -> Any:
    """Call `from_pretrained`; `ConfigError` where that fails or asks to run foreign code."""
    try:
        return cls.from_pretrained(name, trust_remote_code=False, **options)
    except Exception as error:  # damaged files raise whatever their parsers raise
        if isinstance(error, ValueError) and "trust_remote_code" in str(error):
            raise ConfigError(f"{refusal}: it needs code of its own, {advice}") from None
        raise ConfigError(f"{refusal}: {_reason(error)}") from None


def load_with_processor(
    cls: Any, name: str, *, refusal: str, revision: str | None, dtype: Any
) -> tuple[Any, Any]:
    """Load a model and the processor of its images and texts, by the rules of `load_pretrained`."""
    from transformers import AutoProcessor

    model = load_pretrained(cls, name, refusal=refusal, revision=revision, dtype=dtype)
    return model, load_pretrained(AutoProcessor, name, refusal=refusal, revision=revision)


def load_whole_model(cls: Any, name: str, *, refusal: str, **options: Any) -> Any:
    """Return a model as `load_pretrained` does, each of whose weights is in its files.

    The library fills a weight that is not there at random, and only logs it.

    Raises:
        ConfigError: as `load_pretrained`; or a weight is missing.
    """
    options["output_loading_info"] = True
    model, info = load_pretrained(cls, name, refusal=refusal, **options)
    missing = sorted(info["missing_keys"])
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ConfigError(
            f"{refusal}: its files lack weights that its config asks for: "
            f"{', '.join(missing[:3])}{more}"
        )
    return model


def build_from_config(cls: Any, config: Any, **options: Any) -> Any:
    """Call an Auto class's `from_config` without foreign code; `ValueError` for unknown configs."""
    return cls.from_config(config, trust_remote_code=False, **options)


def load_pipeline(cls: Any, name: str, *, refusal: str, **options: Any) -> Any:
    """Load a diffusers pipeline without foreign code; `ConfigError` if it cannot be loaded so."""
    name = os.path.expanduser(name)
    own = _pipeline_code(Path(name))
    if own:
        raise ConfigError(f"{refusal}: it needs code of its own ({own}), {_PIPELINE_ADVICE}")
    return _without_code(cls, name, refusal, _PIPELINE_ADVICE, options)


def load_table(name: str, config: str | None, split: str) -> Any:
    """Return a split of a table through the package `datasets`; loading scripts are never run.

    Raises:
        ImportError: the package is missing.
        Exception: network, hub and format errors, of several unrelated types.
    """
    from datasets import load_dataset  # type: ignore[import-not-found,unused-ignore]

    return load_dataset(name, config, split=split, trust_remote_code=False)


def _foreign_model(name: str, auto: str, options: Mapping[str, Any]) -> str:
    """Return what code a model needs that transformers lacks though its config is known, or ''.

    Such a folder calls itself, say, `bert`, and its code computes something else (ALiBi in place of
    positions); the library's class would load it silently.
    """
    if not auto.startswith(("AutoConfig", "AutoModel")) and not auto.endswith("Model"):
        return ""
    import transformers

    where = {k: v for k, v in options.items() if k == "revision" and v is not None}
    try:
        config, _ = transformers.PretrainedConfig.get_config_dict(name, **where)
    except Exception:  # loading reports why
        return ""
    references = config.get("auto_map")
    if not isinstance(references, Mapping):
        return ""
    classes = config.get("architectures") or [
        str(reference).rpartition(".")[2]
        for kind, reference in references.items()
        if kind.startswith("AutoModel")
    ]
    known = {known.lower() for known in dir(transformers)}
    if classes and not any(str(cls).lower() in known for cls in classes):
        return f"auto_map: {', '.join(map(str, classes))}"
    logger.info("%s brings code of its own, which is not run: transformers has its class", name)
    return ""


def _pipeline_code(folder: Path) -> str:
    """Return the code that a local pipeline folder's index names, or ''."""
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""  # on the hub, or broken: loading reports it
    if not isinstance(index, dict):
        return ""
    if isinstance(index.get("_class_name"), list):
        return ".".join(map(str, index["_class_name"]))
    for part, place in index.items():
        module = place[0] if isinstance(place, list) and place else None
        if isinstance(module, str) and (folder / part / f"{module}.py").is_file():
            return f"{part}/{module}.py"
    return ""


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = lines[0] if lines else "no reason was given"
    plain = isinstance(error, OSError | ValueError) and not isinstance(error, UnicodeError)
    return first if plain else f"{type(error).__name__}: {first}"


_USED = ("pad", "bos", "eos", "cls", "sep", "mask")
_PROBE = ("a b", "1 2", "A", ".")  # short texts; one that has tokens shows what is put around it


def load_tokenizer(name: str, key: str, **options: Any) -> Any:
    """Load a tokenizer by Hugging Face id or folder.

    Raises:
        ConfigError: it is not there, or has no vocabulary: of a folder with a model's config and no
            tokenizer files transformers makes one that knows its special tokens only. `key` stands
            in the message.
    """
    from transformers import AutoTokenizer

    tokenizer = load_pretrained(
        AutoTokenizer, name, refusal=f"{key}: cannot load '{name}'", **options
    )
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

    A text that is read or continued at its end must not be closed: the model would read the end
    token instead.
    """

    opening: tuple[int, ...]
    closing: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: Any) -> Specials:
        """Derive them from a short text; `ConfigError` if specials stand inside a text."""
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
