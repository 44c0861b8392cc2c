"""Questions about images to verdicts, through a client: what the modes have in common.

A verdict is a score, or a reason why there is none. Reasons that may pass (a busy server) are
marked, so that the question is asked again at the next start; what was answered comes from the
store then.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lavis.llm.base import ChatReply, ChatRequest, Part, Request
from lavis.llm.client import ChatClient
from lavis.llm.verdicts.config import VerdictConfig


@dataclass(frozen=True, slots=True)
class ImageQuestion:
    """What is asked about an image.

    Attributes:
        image: number of the image; questions of one number may share a request.
        views: message parts that show it.
        text: the prompt, or the text that is ranked.
    """

    image: int
    views: Sequence[Part]
    text: str


@dataclass(frozen=True, slots=True)
class TextVerdict:
    """A score, or why there is none.

    Attributes:
        score: from 0 to 1; None with `reject`.
        mass: the probability that `score` is a part of.
        columns: JSON-able, what there is to tell of the score.
        reject: why there is no score: a fixed phrase, a colon, details.
        again: the next start may have another answer.
    """

    score: float | None = None
    mass: float = 1.0
    columns: Mapping[str, Any] = field(default_factory=dict)
    reject: str = ""
    again: bool = False

    def note(self) -> dict[str, Any]:
        """Return the columns of a row, or its `reject`; with `again` where that may change."""
        again = {"again": True} if self.again else {}
        return {"reject": self.reject, **again} if self.reject else {**self.columns, **again}


class Asker(ABC):
    """Asks for verdicts in one mode.

    Requests of one call are on their way together. Until the server has answered once, each goes
    alone: a server that cannot do what is needed is paid for one answer.

    Args:
        client: to whom; closed by its owner.
        config: how.
    """

    def __init__(self, client: ChatClient, config: VerdictConfig) -> None:
        self.client, self.config = client, config
        self._has_answered = False
        extra = getattr(config.llm, "extra_body", None) or {}
        switch = {} if config.thinking else {"enable_thinking": False}
        kwargs = {**switch, **(extra.get("chat_template_kwargs") or {})}
        self._extra: dict[str, Any] = {"chat_template_kwargs": kwargs} if kwargs else {}

    @abstractmethod
    def verdicts(self, questions: Sequence[ImageQuestion]) -> list[TextVerdict]:
        """Return a verdict for each question.

        Raises:
            BudgetReached, EndpointStopped: nothing more can be asked now.
            ConfigError: or not until a setting is mended, such as this mode for this server.
        """

    def check_first(self, reply: ChatReply) -> None:
        """Raise `ConfigError` if a server's first answer shows that it lacks what is needed."""
        return

    def replies(self, requests: Sequence[Request]) -> dict[str, ChatReply]:
        """Return replies by key."""
        known: dict[str, ChatReply] = {}
        rest = list(requests)
        while rest:
            together = rest if self._has_answered else rest[:1]
            rest = rest[len(together) :]
            for reply in self.client.complete(together):
                known[reply.key] = reply
                if reply.ok and not self._has_answered:
                    self.check_first(reply)
                    self._has_answered = True
        return known

    def chat(self, key: str, question: ImageQuestion, **options: Any) -> ChatRequest:
        """Return the request of a question: the views, then the text."""
        content = [*question.views, {"type": "text", "text": question.text}]
        request = ChatRequest(
            key,
            [{"role": "user", "content": content if question.views else question.text}],
            max_tokens=self.config.reply_tokens,
            temperature=0.0,
            top_p=None,
            extra=self._extra or None,
        )
        return replace(request, **options)

    def failed(self, reply: ChatReply) -> TextVerdict:
        """Return the verdict of a reply that is none.

        While the server has answered nothing, a refusal may tell of the server.
        """
        again = reply.failure != "refused" or not self._has_answered
        return TextVerdict(reject=reply.error, again=again)


def by_image(questions: Sequence[ImageQuestion], most: int) -> Iterator[list[int]]:
    """Yield places of questions about one image, at most `most` at a time."""
    groups: dict[int, list[int]] = {}
    for place, question in enumerate(questions):
        groups.setdefault(question.image, []).append(place)
    for places in groups.values():
        for start in range(0, len(places), most):
            yield places[start : start + most]
