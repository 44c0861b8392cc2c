"""What the body of an error says, in whichever of the servers' forms: codes, parameters, words.

Bodies are a string, a list, `error` as text or mapping, `detail`, `message` (which may be a mapping
or JSON written as a string), `error.metadata.raw`, pydantic's list of `loc` and `msg`, or a page of
HTML. Only fields that speak of the error are read: what repeats the request (`input`,
`failed_generation`) would lend its words to the error.
"""

from __future__ import annotations

import email.utils
import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lavis.common.errors import REFUSALS, finite

_CODES = ("code", "type", "status", "reason", "error_code", "errorcode")
_PARAMS = ("param", "field", "loc")
_NESTED = frozenset(
    "message msg detail details error errors description title raw quotaid metadata innererror "
    "inner_error fieldviolations violations data".split()
)
_MAX_SHOWN = 300  # characters of a server's message
_MAX_READ = 4000  # characters of a page or of all texts in which words are looked for
_MAX_DEPTH = 12  # levels, those of gateways around the error of another server included
_YEAR = 366 * 86_400.0
_URL = re.compile(r"https?://\S+")
_REPEATED = re.compile(r"""['"]input['"]: .*""", re.DOTALL)  # pydantic's, as Python writes it
_WAIT = re.compile(
    r"(?:(?:retry|try again) (?:in|after)|please wait) ((?:[\d.]+ ?(?:ms|h|m|s)[a-z]* ?)+)",
    re.IGNORECASE,
)
_PART = re.compile(r"([\d.]+) ?(ms|h|m|s)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """The facts in an error's body.

    Attributes:
        codes: of `code`, `type`, `status` and the like, in lower case.
        params: names of parameters that it points at.
        words: its full text, in lower case, without addresses.
        message: for people; may hold secrets.
        page: whether it is a page of HTML and no API's answer.
        wait: seconds after which to try again.
    """

    codes: frozenset[str]
    params: tuple[str, ...]
    words: str
    message: str
    page: bool = False
    wait: float | None = None


def read_error(body: Any) -> ErrorBody:
    """Return the facts in an error's body, a text or parsed JSON."""
    body = _opened(body)
    if isinstance(body, str) and re.match(
        r"\s*(<!doctype|<html|<\?xml|<head)", body, re.IGNORECASE
    ):
        head = body[:_MAX_READ]
        title = re.search(r"<title[^>]*>(.*?)</title>", head, re.IGNORECASE | re.DOTALL)
        text = " ".join((title[1] if title else re.sub(r"<[^>]+>", " ", head)).split())[:_MAX_SHOWN]
        return ErrorBody(frozenset(), (), text.lower(), text or "a web page", True)
    facts = list(_facts(body, 0))
    texts = list(dict.fromkeys(text for kind, text in facts if kind == "words" and text.strip()))
    codes = frozenset(text.strip().lower() for kind, text in facts if kind == "codes")
    joined = " | ".join(texts)
    message = " ".join((texts[0] if texts else ", ".join(sorted(codes))).split())
    if len(texts) > 1 and len(message) < 40:  # "Provider returned error" says little
        message = " ".join("; ".join(texts).split())
    words = " ".join(_REPEATED.sub("", _URL.sub(" ", joined)).split())[:_MAX_READ].lower()
    params = tuple(text for kind, text in facts if kind == "params" and text)
    return ErrorBody(codes, params, words, message[:_MAX_SHOWN], False, _wait_of(body, joined))


def _opened(body: Any) -> Any:
    """Return the JSON inside a text, parsed, or the text."""
    if isinstance(body, bytes):
        body = body.decode("utf-8", "replace")
    if isinstance(body, str) and body.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(body)
        except REFUSALS:
            return body
    return body


def _facts(node: Any, depth: int) -> Iterator[tuple[str, str]]:
    node = _opened(node)
    if depth > _MAX_DEPTH or node is None or isinstance(node, bool):
        return
    if isinstance(node, str):
        yield from _facts_of_text(node, depth)
    elif isinstance(node, int | float):
        yield "words", str(node)
    elif isinstance(node, list):
        for item in node[:20]:
            yield from _facts(item, depth + 1)
    elif isinstance(node, dict):
        for name, value in node.items():
            low = str(name).lower()
            if low in _CODES and isinstance(value, str | int):
                yield "codes", str(value)
            elif low in _PARAMS:
                yield "params", _param(value)
            elif low in _NESTED:
                yield from _facts(value, depth + 1)


def _facts_of_text(text: str, depth: int) -> Iterator[tuple[str, str]]:
    """Yield the facts of a text, which may end with the JSON of another server."""
    start = text.find('{"')
    if start > 0:
        try:
            inner, end = json.JSONDecoder().raw_decode(text[start:])
        except REFUSALS:
            pass
        else:
            yield "words", text[:start] + text[start + end :]
            yield from _facts(inner, depth + 1)
            return
    yield "words", text


def _param(value: Any) -> str:
    if isinstance(value, list | tuple):  # pydantic: ["body", "seed"]
        value = ".".join(str(part) for part in value if part not in ("body", "query"))
    return value if isinstance(value, str) else ""


def _wait_of(body: Any, text: str) -> float | None:
    """Return seconds from "Please try again in 6m0s" or Google's `retryDelay: "20s"`."""
    delay = re.search(r'"retryDelay": "([\d.]+)s"', json.dumps(body, default=str))
    if delay:
        return _seconds(delay[1])
    match = _WAIT.search(text)
    if match is None:
        return None
    parts = [(_seconds(number), _SECONDS[unit]) for number, unit in _PART.findall(match[1])]
    return sum((number or 0.0) * scale for number, scale in parts)


def _seconds(text: str) -> float | None:
    """Return a number of seconds from 0 to a year, else None."""
    try:
        number = finite(float(text))
    except REFUSALS:
        return None
    return None if number is None or not 0 <= number <= _YEAR else number


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of `Retry-After` (number, date) or `retry-after-ms`; None above a year."""
    lower = {name.lower(): value for name, value in headers.items()}
    seconds = _seconds(lower.get("retry-after-ms", ""))
    if seconds is not None:
        return seconds / 1000
    text = lower.get("retry-after", "").strip()
    seconds = _seconds(text)
    if seconds is not None:
        return seconds
    try:
        ahead = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
    except REFUSALS:
        return None
    return max(0.0, ahead) if ahead <= _YEAR else None
