"""A model's reply to its items, and why each other element is none.

The answer is the last whole object of the form `{"items": [...]}` with a usable item in it; if
there is none, the last list of items, or the last run of consecutive items, as a cut or a broken
list leaves them. An invalid item is dropped by itself. Only a reply without any item raises
`ReplyError`, which may be worth one more turn. Every reason starts with a fixed phrase, by which
they are counted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict

from lavis.common.errors import REFUSALS
from lavis.llm.replies.completion import end_of
from lavis.llm.replies.json_reading import Broken, JsonList, JsonObject, Scalar, Scan, scan_json
from lavis.llm.replies.reasoning import answer_text
from lavis.llm.replies.refusal import is_refusal

_MAX_SHOWN = 200  # characters of a refusal
_BETWEEN = re.compile(r"(?:[\s,;\[\]`*•.)-]|\d|json)*")  # items of one list, or one a line
_ITEM_KEY = re.compile(r"\b(?:question|answer|rationale)\b.{0,3}:", re.IGNORECASE | re.DOTALL)
_MAX_GAP = 80  # characters between them
_CUT = "cut off: the reply reached max_tokens; write fewer or shorter items"


class QarItem(BaseModel):
    """One item of a reply."""

    model_config = ConfigDict(extra="forbid", strict=True)

    question: str
    answer: str
    rationale: str


FIELDS = tuple(QarItem.model_fields)


class QarReply(BaseModel):
    """A whole reply, as the schema requests it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    items: list[QarItem]


class ReplyError(ValueError):
    """A reply that holds no item.

    Attributes:
        reason: fixed phrase, a colon, what is wrong.
        repairable: whether it is worth asking the model for a better one.
    """

    def __init__(self, reason: str, *, repairable: bool = True) -> None:
        super().__init__(reason)
        self.reason, self.repairable = reason, repairable


@dataclass(frozen=True)
class ReplyItems:
    """Items and dropped elements (with reason) of a reply; places count both together, from 0."""

    items: list[tuple[int, QarItem]] = field(default_factory=list)
    dropped: list[tuple[int, str]] = field(default_factory=list)


def response_format() -> dict[str, Any]:
    """Return the response format that requests replies of this form."""
    schema = {"name": "qar", "strict": True, "schema": QarReply.model_json_schema()}
    return {"type": "json_schema", "json_schema": schema}


def read_reply(text: str, finish_reason: str) -> ReplyItems:
    """Return the items of a reply, which may stand between other words.

    Args:
        text: reasoning in it is removed, whoever wrote it.
        finish_reason: `length` if it was cut.

    Raises:
        ReplyError: there is none.
    """
    end = end_of(finish_reason)
    if end == "content_filter":
        raise ReplyError("content filter: the server withheld the reply", repairable=False)
    if end == "refusal":
        raise ReplyError(f"refusal: {text[:_MAX_SHOWN]}", repairable=False)
    cut = end == "length"
    answer, thought = answer_text(text)
    if not answer.strip():
        if cut:
            raise ReplyError(_CUT)
        raise ReplyError(f"empty reply: the model {'only thought' if thought else 'wrote nothing'}")
    answer = _unpacked(answer)
    scan = scan_json(answer)
    candidate = _choose(scan, answer)
    result = _read(candidate, cut=cut)
    if result.items:
        return result
    raise _no_items(answer, scan, candidate, result, cut=cut)


def _no_items(
    text: str, scan: Scan, candidate: _Candidate | None, result: ReplyItems, *, cut: bool
) -> ReplyError:
    """Return why a reply holds no item."""
    if candidate is not None and not candidate.elements:
        return ReplyError("no items: the list is empty")
    if candidate is not None and not all(isinstance(part, Broken) for part in candidate.elements):
        problems = [f"item {place}: {reason}" for place, reason in result.dropped[:3]]
        return ReplyError(f"against the schema: {'; '.join(problems)}")
    if cut:
        return ReplyError(_CUT)
    if scan.cut_at is not None:
        return ReplyError("malformed reply: it ends inside its JSON, before its first whole item")
    if candidate is not None:
        return ReplyError("malformed reply: the JSON of its items is broken")
    if is_refusal(text[:_MAX_SHOWN]):
        return ReplyError(f"refusal: {text[:_MAX_SHOWN]}", repairable=False)
    if any(isinstance(root, JsonObject) for root in scan.roots):
        return ReplyError("against the schema: no object in it holds items")
    return ReplyError("malformed reply: no JSON object was found in it")


@dataclass
class _Candidate:
    """A possible answer.

    Attributes:
        rank: 2 for the requested form, 1 for a list of items, 0 for single ones.
        source, start, end: the text that holds it, and where.
        elements: objects, and what stands in their place.
        ends_early: more was to come.
    """

    rank: int
    source: str
    start: int
    end: int
    elements: list[Any]
    ends_early: bool = False

    @property
    def breaks_off(self) -> bool:
        """Return whether the text ends inside the last element."""
        last = self.elements[-1] if self.elements else None
        return isinstance(last, Broken) and last.cut

    @property
    def holds_item(self) -> bool:
        """Return whether it is usable."""
        return any(isinstance(_item(element), QarItem) for element in self.elements)


def _unpacked(text: str) -> str:
    """Return the JSON inside a text that is one JSON string."""
    if text.strip()[:1] == '"':
        try:
            inner = json.loads(text, strict=False)
        except REFUSALS:
            return text
        return inner if isinstance(inner, str) else text
    return text


def _choose(scan: Scan, text: str) -> _Candidate | None:
    """Return the answer of a reply: the last one of the best kind that holds an item."""
    candidates: list[_Candidate] = []
    for one in _candidates(scan, text):
        if one.rank == 0 and candidates and _together(candidates[-1], one):
            candidates[-1].elements += one.elements
            candidates[-1].end = one.end
        else:
            candidates.append(one)
    if not candidates:
        return None
    last = candidates[-1]
    if scan.cut_at is not None and last.rank == 0 and last.source is text:
        last.ends_early = last.end > scan.cut_at and not last.breaks_off
    usable = [one for one in candidates if one.holds_item]
    best = max((one.rank for one in usable), default=0)
    return next((one for one in reversed(usable) if one.rank == best), last)


def _candidates(scan: Scan, text: str) -> Iterator[_Candidate]:
    """Yield possible answers, in order; strings may hold JSON of their own."""
    waiting: list[tuple[Any, str]] = [(root, text) for root in reversed(scan.roots)]
    while waiting:
        node, source = waiting.pop()
        inner: list[Any] = []
        if isinstance(node, str):
            source, inner = node, scan_json(node).roots if _ITEM_KEY.search(node) else []
        elif isinstance(node, Broken):
            if node.keys & set(FIELDS):
                yield _Candidate(0, source, node.start, node.end, [node])
        elif (lists := _lists(node)) is not None:
            elements = [value for part in lists for value in part]
            rank = 2 if isinstance(node, JsonObject) else 1
            yield _Candidate(rank, source, node.start, node.end, elements)
        elif _looks_like_item(node):
            yield _Candidate(0, source, node.start, node.end, [node])
        elif not _is_ambiguous(node):
            inner = node.contained(JsonObject | JsonList | str)
        waiting += [(part, source) for part in reversed(inner)]


def _is_ambiguous(node: Any) -> bool:
    """Return whether an object has lists of items under two names, none of them `items`."""
    if isinstance(node, JsonList):
        return False
    return sum(isinstance(p, JsonList) and _lists(p) is not None for p in node.contained()) > 1


def _lists(node: Any) -> list[list[Any]] | None:
    """Return the lists of items that an object of the form, or a bare list, stands for."""
    if isinstance(node, JsonObject):
        lists = [value.values for value in node.all("items") if isinstance(value, JsonList)]
    else:
        lists = [node.values]
    values = [value for part in lists for value in part]
    if any(map(_looks_like_item, values)):
        return lists
    # a list without items is an answer where nothing inside it can be one
    opaque = not any(isinstance(v, JsonObject | JsonList) and v.contained() for v in values)
    return lists if lists and opaque and isinstance(node, JsonObject) else None


def _looks_like_item(value: Any) -> bool:
    if not isinstance(value, JsonObject):
        return False
    return any(name.strip().lower() in FIELDS for name, _ in value.pairs)


def _together(last: _Candidate, one: _Candidate) -> bool:
    """Return whether single items are of one list, or one a line."""
    if last.rank or last.source is not one.source:
        return False
    if isinstance(last.elements[-1], Broken):
        return True  # what is between them is the rest of it
    between = one.source[last.end : one.start]
    return len(between) <= _MAX_GAP and _BETWEEN.fullmatch(between) is not None


def _read(candidate: _Candidate | None, *, cut: bool) -> ReplyItems:
    """Return the items of an answer, and why its other elements are none."""
    result = ReplyItems()
    if candidate is None:
        return result
    place = 0
    for place, element in enumerate(candidate.elements, 1):
        item = _item(element)
        if isinstance(item, QarItem):
            result.items.append((place - 1, item))
        else:
            result.dropped.append((place - 1, item))
    if candidate.ends_early or (cut and candidate.rank == 0 and not candidate.breaks_off):
        result.dropped.append((place, "cut off: the reply ends where more items were to come"))
    return result


def _item(element: Any) -> QarItem | str:
    """Return the item that an element of a list is, or why it is none."""
    if isinstance(element, Broken):
        if element.cut:
            return "cut off: the reply ends inside this item"
        return "malformed item: its JSON is broken"
    if not isinstance(element, JsonObject):
        return f"wrong type: an object was expected, not {_kind(element)}"
    texts: dict[str, str] = {}
    for name in FIELDS:
        values = element.all(name)
        if not values:
            return f"missing field: {name}"
        if not isinstance(values[0], str):
            return f"wrong type: {name} is {_kind(values[0])}, not a text"
        if any(value != values[0] for value in values):
            return f"two values: {name}"
        if answer_text(values[0])[0] != values[0]:
            return f"reasoning mark: {name} holds one"
        texts[name] = values[0]
    if all(not text.strip(" .…") for text in texts.values()):
        return "prompt echo: the form without words"
    return QarItem(**texts)


def _kind(value: Any) -> str:
    if isinstance(value, Scalar):
        return value.text[:20]
    return {JsonObject: "an object", JsonList: "a list"}.get(type(value), "a text")
