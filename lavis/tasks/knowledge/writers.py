"""Writers of verbalization stages: a local model, or a language-model client."""

from __future__ import annotations

import dataclasses
import io
import itertools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from lavis.common.dist import World
from lavis.common.errors import ConfigError
from lavis.llm.base import ChatReply, ChatRequest, image_part
from lavis.llm.client import ChatClient, build_client
from lavis.llm.config import CapsConfig, read_llm
from lavis.llm.money.ledger import Ledger, open_ledger
from lavis.llm.replies.reasoning import answer_text
from lavis.llm.replies.refusal import is_refusal
from lavis.verbalizers.base import TextWriter, Tools, WriteError, WriteRequest
from lavis.verbalizers.config import WriterConfig

JPEG_QUALITY = 92
_SHOWN = 200  # characters of a refusal


class ChatWriter:
    """Sends each request as one user message: the image, then the prompt.

    A reply is accepted as it is or not at all, see `accepted`; a text that is not is requested once
    more under another seed, unless nothing is drawn (temperature 0).

    Attributes:
        tries: further requests of a text, at a start that repeats rejects.
    """

    def __init__(self, client: ChatClient, config: WriterConfig) -> None:
        self.client, self.config = client, config
        self.tries = 0

    def write(self, requests: Iterable[WriteRequest]) -> list[str | WriteError]:
        """Return texts in the order of the requests; the client stores replies.

        A cap that is reached, a server that is gone and a wrong key are raised.
        """
        texts: dict[str, WriteRequest] = {}  # without their images
        results: dict[str, str | WriteError] = {}
        chats: Iterable[ChatRequest] = self._chats(requests, texts)
        most = self.tries + (self.config.temperature != 0)
        for tries in range(most + 1):
            waiting: dict[str, ChatRequest] = {}  # kept until their texts are there
            anew: list[ChatRequest] = []
            for reply in self.client.complete(_noted(chats, waiting)):
                request = waiting.pop(reply.key)
                text = results[reply.key] = _text(reply, texts[reply.key])
                if tries < most and isinstance(text, WriteError) and text.kind == "failed":
                    anew.append(replace(request, seed=((request.seed or 0) + 1) % 2**31))
            chats = anew
        return [results[key] for key in texts]

    def close(self) -> None:
        """Let go of the connection."""
        self.client.close()

    def _chats(
        self, requests: Iterable[WriteRequest], texts: dict[str, WriteRequest]
    ) -> Iterator[ChatRequest]:
        config = self.config
        last: tuple[Image.Image, dict[str, Any]] | None = None  # samples share their image
        for request in requests:
            texts[request.key] = replace(request, image=None)
            content: list[dict[str, Any]] = []
            if request.image is not None:
                if last is None or last[0] is not request.image:
                    last = (request.image, image_part(_encode(request.image, config)))
                content.append(last[1])
            if request.prompt:
                content.append({"type": "text", "text": request.prompt})
            message = content if request.image is not None else request.prompt
            yield ChatRequest(
                request.key,
                [{"role": "user", "content": message}],
                max_tokens=config.max_tokens,
                temperature=config.temperature,
                top_p=config.top_p,
                seed=request.seed % 2**31,  # what every server takes
            )


def build_writer(
    config: WriterConfig,
    folder: Path,
    *,
    device: str,
    world_size: int,
    ledger: Ledger | None = None,
) -> TextWriter:
    """Return the writer of one stage.

    Args:
        folder: of a client's state, such as batch jobs; of this process alone.
        device: of a local model.
        world_size: a client's caps hold for one process, so that more are refused with caps.
        ledger: of the run, which a client spends from.

    Raises:
        ConfigError: the model cannot be loaded, or the client not be built.
    """
    if config.type == "local":
        from lavis.verbalizers.writing import LocalWriter

        return AcceptedTexts(LocalWriter(config, device))
    llm = read_llm(config.client)
    if world_size > 1 and llm.caps != CapsConfig():
        raise ConfigError(
            f"client.caps hold for one process, and there are {world_size}; start one (a client "
            "sends many requests at once), or leave the caps out"
        )
    return ChatWriter(build_client(llm, folder, ledger), config)


def clients_of(settings: Any) -> Iterator[WriterConfig]:
    """Yield the writers of a stage's settings that are clients of a language model."""
    if isinstance(settings, WriterConfig):
        if settings.type == "client":
            yield settings
    elif dataclasses.is_dataclass(settings):
        for each in dataclasses.fields(settings):
            yield from clients_of(getattr(settings, each.name))
    elif isinstance(settings, Mapping | list | tuple):  # of a stage of a plug-in
        for inner in settings.values() if isinstance(settings, Mapping) else settings:
            yield from clients_of(inner)


def _encode(image: Image.Image, config: WriterConfig) -> bytes:
    """Return a JPEG whose longest edge is at most `image_size`."""
    longest = max(image.size)
    if longest > config.image_size:
        width, height = (max(1, round(e * config.image_size / longest)) for e in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def _noted(
    requests: Iterable[ChatRequest], waiting: dict[str, ChatRequest]
) -> Iterator[ChatRequest]:
    for request in requests:
        waiting[request.key] = request
        yield request


def _text(reply: ChatReply, request: WriteRequest) -> str | WriteError:
    if reply.failure == "refused":
        return WriteError(reply.error, "refused")
    if not reply.ok:
        return WriteError(reply.error, "left")
    text = reply.text
    if reply.is_cut and request.by_line:
        text = text[: max(text.rfind("\n"), text.rfind("?")) + 1]  # what is whole of it
    if reply.is_cut and not (request.by_line and text.strip()):
        return WriteError(f"cut off: the text reached max_tokens ({_end(reply.text)}); raise it")
    answer = accepted(text)
    problem = request.problem_of(answer) if request.problem_of and isinstance(answer, str) else ""
    return WriteError(problem) if problem else answer


def _end(text: str) -> str:
    return f"...{' '.join(text[-40:].split())}"


def accepted(text: str) -> str | WriteError:
    """Return a model's text without its reasoning, or why it is of no use."""
    answer, reasoning = answer_text(text)
    answer = answer.strip()
    if not answer:
        what = "the model only thought" if reasoning else "the model wrote nothing"
        return WriteError(f"empty reply: {what}")
    if is_refusal(answer):
        return WriteError(f"refusal: {' '.join(answer.split())[:_SHOWN]}")
    return answer


class AcceptedTexts:
    """Texts of a local model, accepted by the same rules as an endpoint's."""

    def __init__(self, writer: TextWriter) -> None:
        self.writer = writer

    def write(self, requests: Iterable[WriteRequest]) -> list[str | WriteError]:
        """Return texts in the order of the requests."""
        texts = self.writer.write(requests)
        return [text if isinstance(text, WriteError) else accepted(text) for text in texts]


class WriterFactory:
    """Makes the writers of a run, whose clients spend from one ledger.

    Args:
        folder: of the run.
        configs: settings of all stages; the caps of each hold from the first request.
        world: of the processes.
    """

    def __init__(self, folder: Path, configs: Iterable[Any], world: World) -> None:
        self._folder, self._configs, self._world = folder, list(configs), world
        self._ledger: Ledger | None = None

    def tools(self, stage: str, seed: int, stack: ExitStack, made: list[ChatWriter]) -> Tools:
        """Return the tools of a stage, whose clients go into `made` and are closed by `stack`."""
        device, size = str(self._world.device), self._world.size
        numbers = itertools.count()

        def writer(config: WriterConfig) -> TextWriter:
            folder = self._folder / "clients" / stage / f"rank{self._world.rank}-{next(numbers)}"
            ledger = self._open_ledger() if config.type == "client" else None
            new = build_writer(config, folder, device=device, world_size=size, ledger=ledger)
            if isinstance(new, ChatWriter):
                stack.callback(new.close)
                made.append(new)
            return new

        return Tools(stage, seed, device, writer)

    def close(self) -> None:
        """Close the ledger."""
        if self._ledger is not None:
            self._ledger.close()

    def _open_ledger(self) -> Ledger:
        if self._ledger is None:
            self._ledger = open_ledger(self._folder, rank=self._world.rank)
            for config in self._configs:
                for writer in clients_of(config):
                    self._ledger.limit(read_llm(writer.client).caps)
        return self._ledger
