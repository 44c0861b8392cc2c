"""A record's text, its id, and the choice of its regions."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from lavis.common.errors import RecordError
from lavis.datasets.lck.tokens import Tokens, read_region_ids, read_tokens


def choose_regions(
    record: Mapping[str, Any],
    region_prob: float,
    rng: random.Random | None,
    *,
    shuffle: bool = True,
) -> list[int]:
    """Return the region ids a student sees: those of `region` in order, or, in training, a choice.

    Args:
        region_prob: in training, probability of `region`; else of `region_all`.
        rng: None outside training.
        shuffle: in training, in any order.
    """
    ids = read_region_ids(record, "region")
    if rng is None:
        return ids
    if rng.random() >= region_prob:
        ids = read_region_ids(record, "region_all") or ids
    return rng.sample(ids, len(ids)) if shuffle else ids


def instance_of(record: Mapping[str, Any], index: int) -> str:
    """Return the record's own `index` (else `instance_id`, else the row number) as text."""
    for key in ("index", "instance_id"):
        value = record.get(key)
        if value is not None and not isinstance(value, (dict, list)):
            return str(value)
    return str(index)


def qar_text(
    record: Mapping[str, Any], *, include_rationale: bool, write: Callable[[Tokens], str]
) -> str:
    """Return a record's whole text, its regions named, before the text processor.

    Records with `question` give `question Answer: answer`, and `Rationale: rationale` where the
    record has the key. A rationale that says nothing leaves the word `Rationale:` at the end, as in
    the released code, which scores such records. Others give `full_text_input`, or `text_input` and
    `text_output`.

    Args:
        record: the record.
        include_rationale: take the rationale where there is one.
        write: token list -> text.

    Raises:
        RecordError: a part is missing, is no token list, or, but for the rationale, says nothing.
    """
    return qar_parts(record, include_rationale=include_rationale, write=write)[0]


def qar_parts(
    record: Mapping[str, Any], *, include_rationale: bool, write: Callable[[Tokens], str]
) -> tuple[str, dict[str, str]]:
    """Return `qar_text`, and of `question`, `answer`, `rationale` what the record has apart."""

    def part(key: str) -> str:
        text = write(read_tokens(record, key))
        if not text.strip():
            raise RecordError(f"empty text: {key}")
        return text

    if "question" in record or not ("full_text_input" in record or "text_input" in record):
        parts = {"question": part("question"), "answer": part("answer")}
        text = f"{parts['question']} Answer: {parts['answer']}"
        if include_rationale and record.get("rationale") is not None:
            rationale = write(read_tokens(record, "rationale"))
            text += f" Rationale: {rationale}" if rationale.strip() else " Rationale:"
            parts["rationale"] = rationale
        return text, parts
    if "full_text_input" in record:
        return part("full_text_input"), {}
    parts = {"question": part("text_input"), "answer": part("text_output")}
    return f"{parts['question']} {parts['answer']}", parts
