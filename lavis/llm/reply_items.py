"""A model's reply to the items that it holds, or the reason why there are none.

A whole reply that cannot be read raises `ReplyError`, which may be worth one more turn. Every
reason starts with a fixed phrase, by which they are counted.
"""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from lavis.common.refusals import REFUSALS
from lavis.llm.refusal import is_refusal


class QarItem(BaseModel):
    """One item of a reply."""

    model_config = ConfigDict(extra="forbid", strict=True)

    question: str
    answer: str
    rationale: str


class QarReply(BaseModel):
    """A whole reply."""

    model_config = ConfigDict(extra="forbid", strict=True)

    items: list[QarItem]


class ReplyError(ValueError):
    """A reply that cannot be read.

    Attributes:
        reason: fixed phrase, a colon, what is wrong.
        repairable: whether it is worth asking the model for a better one.
    """

    def __init__(self, reason: str, *, repairable: bool = True) -> None:
        super().__init__(reason)
        self.reason, self.repairable = reason, repairable


def response_format() -> dict[str, Any]:
    """Return what asks a server for replies of this form."""
    schema = {"name": "qar", "strict": True, "schema": QarReply.model_json_schema()}
    return {"type": "json_schema", "json_schema": schema}


def read_reply(text: str, finish_reason: str) -> list[QarItem]:
    """Return the items of a reply: JSON, which may stand in a code fence or between other words.

    Raises:
        ReplyError: there is no such JSON.
    """
    if finish_reason == "content_filter":
        raise ReplyError("content filter: the server withheld the reply", repairable=False)
    if finish_reason == "refusal":
        raise ReplyError(f"refusal: {text[:200]}", repairable=False)
    if not text.strip():
        raise ReplyError("empty reply: the model wrote nothing")
    cut = finish_reason == "length"
    try:
        value = json.loads(text)
    except REFUSALS:
        value = _first_object(text)
    if value is None:
        if cut:
            raise ReplyError("cut off: the reply reached max_tokens; write fewer or shorter items")
        if is_refusal(text[:200]):
            raise ReplyError(f"refusal: {text[:200]}", repairable=False)
        raise ReplyError("malformed reply: no JSON object was found in it")
    try:
        items = QarReply.model_validate(value).items
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, problem['loc'])) or 'reply'}: {problem['msg']}"
            for problem in error.errors()[:3]
        ]
        raise ReplyError(f"against the schema: {'; '.join(problems)}") from None
    if not items:
        raise ReplyError("no items: the list is empty")
    return items


def _first_object(text: str) -> Any:
    """Return the first JSON object with `items` that stands in a text, or None."""
    decoder = json.JSONDecoder()
    found = None
    for match in list(re.finditer(r"\{", text))[:20]:
        try:
            value, _ = decoder.raw_decode(text, match.start())
        except REFUSALS:
            continue
        if isinstance(value, dict) and "items" in value:
            return value
        found = value if found is None else found
    return found
