"""Requests to a language model, its replies, and the protocol that every backend follows.

A request's identity has two halves: `ChatRequest.key` is the caller's name for it, and
`content_key` is a hash of everything its reply depends on, under which the reply is stored.
"""

from __future__ import annotations

import base64
import hashlib
import io
import mimetypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from lavis.common.pixels import IMAGE_REFUSALS, to_rgb
from lavis.common.storage.cache import make_key

_ORIENTATION = 0x0112  # tag of EXIF
VERSION = 1  # of the content of a stored reply

Message = dict[str, Any]  # {"role", "content"} of the OpenAI chat format
Part = dict[str, Any]  # of a message's content: a text or an image
Failure = Literal["", "transient", "refused", "fatal", "stopped", "budget"]


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One request.

    Attributes:
        key: the caller's name for it, returned with the reply.
        messages: OpenAI chat format; images as parts with data URLs (see `image_part`).
        max_tokens: upper limit of the reply's length.
        temperature: 0 takes the likeliest token; None leaves it to the server or the model.
        top_p: share of probability that tokens are sampled from; None likewise.
        seed: also distinguishes repeated requests with the same messages.
        response_format: OpenAI's, such as a JSON schema; None for free text.
        logprobs: likeliest tokens to report at each position of the answer; None for no report.
        extra: further fields of the body of this request, such as a server's own.
    """

    key: str
    messages: Sequence[Message]
    max_tokens: int = 512
    temperature: float | None = 1.0
    top_p: float | None = 1.0
    seed: int | None = None
    response_format: Mapping[str, Any] | None = None
    logprobs: int | None = None
    extra: Mapping[str, Any] | None = None

    def content(self) -> dict[str, Any]:
        """Return all fields that the reply depends on."""
        names = ("max_tokens", "temperature", "top_p", "seed", "response_format")
        later = {"logprobs": self.logprobs, "extra": self.extra}  # not in keys of earlier versions
        content = {"messages": list(self.messages)} | {name: getattr(self, name) for name in names}
        return content | {name: value for name, value in later.items() if value is not None}

    def stored(self) -> dict[str, Any]:
        """Return the content with images replaced by their hashes, fit to be stored."""
        return self.content() | {"messages": without_images(self.messages)}


@dataclass(frozen=True, slots=True)
class RankRequest:
    """A request to score documents by how well they go with a query, all in one.

    Its reply's `text` is a JSON list of scores in the order of the documents, whatever the order of
    the server's answer.

    Attributes:
        key: the caller's name for it, returned with the reply.
        query: parts of a message: texts, and images as data URLs.
        documents: texts, one or more.
        path: which of the two interfaces is called.
    """

    key: str
    query: Sequence[Part]
    documents: Sequence[str]
    path: Literal["rerank", "score"] = "rerank"

    max_tokens: ClassVar[int] = 1  # a score is no text, yet servers may count it as a token
    response_format: ClassVar[None] = None
    logprobs: ClassVar[None] = None

    @property
    def messages(self) -> list[Message]:
        """Return what the model reads: a prompt for each document, the query in each of them."""
        return [
            {"role": "user", "content": [*self.query, {"type": "text", "text": document}]}
            for document in self.documents
        ]

    def content(self) -> dict[str, Any]:
        """Return all fields that the reply depends on."""
        query, documents = list(self.query), list(self.documents)
        return {"path": self.path, "query": query, "documents": documents}

    def stored(self) -> dict[str, Any]:
        """Return the content with images replaced by their hashes, fit to be stored."""
        (query,) = without_images([{"content": list(self.query)}])
        return self.content() | {"query": query["content"]}


Request = ChatRequest | RankRequest


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """What a model could have written in one place of an answer.

    Attributes:
        token: that it wrote, as text.
        logprob: of that token, natural logarithm.
        top: text and logprob of the likeliest tokens, in the server's order.
    """

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class ChatReply:
    """One reply, or the reason why there is none.

    Without `failure` it is an answer as far as the backend can tell: not empty, not withheld, no
    reasoning, no error. The caller decides what of a cut one (`is_cut`) is of use.

    Attributes:
        key: the request's.
        text: the answer; empty on failure.
        finish_reason: `stop`, `length`, or the server's own word for a normal end.
        prompt_tokens: as the server counted, else estimated.
        completion_tokens: likewise.
        error: why there is no text, free of secrets.
        failure: kind of error: `transient` may succeed later; `refused` is this request's own
            fault; `fatal` (a wrong key, no such model) and `stopped` (an account without money, a
            dead server) would meet every request; `budget` is a cap.
        cached: read from the store, not paid for now.
        reasoning: the text before the answer, where the server or its marks separate them.
        logprobs: of the answer's tokens, reasoning left out; empty where the report does not show
            which tokens those are, None where there is no report.
    """

    key: str
    text: str = ""
    finish_reason: str = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    error: str = ""
    failure: Failure = ""
    cached: bool = False
    reasoning: str = ""
    logprobs: tuple[TokenLogprobs, ...] | None = None

    @property
    def ok(self) -> bool:
        """Return whether the reply can be read."""
        return not self.failure

    @property
    def is_cut(self) -> bool:
        """Return whether the text was cut at `max_tokens`."""
        return self.finish_reason == "length"

    def named(self, key: str) -> ChatReply:
        """Return the reply under another key."""
        return replace(self, key=key)


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """A request sent `attempt` times before; `content_key` names its reply in the store."""

    content_key: str
    request: Any  # a `Request`; backends other than servers' take a `ChatRequest` only
    attempt: int = field(default=0, compare=False)


class Backend(Protocol):
    """Sends requests, several at a time. One thread calls it.

    Attributes:
        keeps_replies: whether replies are worth storing (a script's are not).
    """

    keeps_replies: ClassVar[bool]

    @property
    def window(self) -> int:
        """Return how many requests may be inside at once; it may change."""
        ...

    def submit(self, pending: PendingRequest) -> None:
        """Take one request; returns soon."""
        ...

    def collect(self) -> list[ChatReply]:
        """Wait for at least one reply; `key` is the content key. Every good one has been stored."""
        ...

    def close(self) -> None:
        """Release threads and connections; requests that were not sent are dropped."""
        ...


def content_key(identity: Mapping[str, Any], request: Request) -> str:
    """Return the name of a request's reply in the store: a hash of all that it depends on."""
    return make_key("llm_reply", VERSION, model=dict(identity), **request.content())


def image_part(image: bytes | str | Path) -> dict[str, Any]:
    """Return a message part that shows an image, in the frame in which it is stored.

    Args:
        image: bytes of an image file, or its path.

    Example:
        >>> content = [{"type": "text", "text": "What is this?"}, image_part("cat.jpg")]
        >>> request = ChatRequest("cat", [{"role": "user", "content": content}])
    """
    if isinstance(image, bytes):
        content = image
        mime = "image/png" if image.startswith(b"\x89PNG") else "image/jpeg"
    else:
        content = Path(image).read_bytes()
        mime = mimetypes.guess_type(str(image))[0] or "image/jpeg"
    content, mime = _as_stored(content, mime)
    url = f"data:{mime};base64,{base64.b64encode(content).decode('ascii')}"
    return {"type": "image_url", "image_url": {"url": url}}


def _as_stored(content: bytes, mime: str) -> tuple[bytes, str]:
    """Return an image without orientation tag: boxes count pixels of the stored frame."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.getexif().get(_ORIENTATION, 1) == 1:
                return content, mime
            buffer = io.BytesIO()
            to_rgb(image).save(buffer, "PNG")
    except IMAGE_REFUSALS:  # no image that we know; the server says what it is
        return content, mime
    return buffer.getvalue(), "image/png"


def message_texts(messages: Sequence[Message]) -> list[str]:
    """Return every text of messages, in order."""
    texts: list[str] = []
    for message in messages:
        content = message.get("content") or ""
        if isinstance(content, str):
            texts.append(content)
        else:
            texts += [part["text"] for part in content if part.get("type") == "text"]
    return texts


def image_parts(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return the parts of messages that show images, in order."""
    contents = [message.get("content") for message in messages]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    return [part for part in parts if part.get("type") == "image_url"]


def without_images(messages: Sequence[Message]) -> list[Message]:
    """Return messages with each data URL replaced by its hash, fit to be stored."""

    def small(part: dict[str, Any]) -> dict[str, Any]:
        url = part.get("image_url", {}).get("url", "")
        if not url.startswith("data:"):
            return part
        digest = hashlib.blake2b(url.encode(), digest_size=16).hexdigest()
        return {"type": "image_url", "image_url": {"url": f"blake2b:{digest}"}}

    return [
        {**m, "content": [small(part) for part in m["content"]]}
        if isinstance(m.get("content"), list)
        else dict(m)
        for m in messages
    ]
