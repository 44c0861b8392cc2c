"""Verbalized images to question / answer / rationale records, by a language model.

The plan is a list of units, `row * prompts + prompt`: one request each, made from the data and the
config alone. A unit is finished when its items are in the journal; see `outcomes` for those without
any. Images are read one by one; only the numbers of finished units grow in memory with the data.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lavis.common.errors import RecordError
from lavis.common.storage.inputs import Watch
from lavis.common.units import UnitResult, run_units
from lavis.datasets.files.records import RecordStore
from lavis.datasets.scene_views import SceneView
from lavis.llm.base import ChatReply, ChatRequest
from lavis.llm.client import ChatClient
from lavis.llm.endpoint.failures import EndpointStopped
from lavis.llm.prompts import Prompts
from lavis.llm.replies.items import ReplyError, ReplyItems, read_reply, response_format
from lavis.llm.replies.parse import Requirements, make_record
from lavis.llm.replies.scene import SceneLimits, SceneNotes, read_scene
from lavis.tasks.knowledge.config import GenerateConfig, PromptConfig
from lavis.tasks.knowledge.outcomes import Kind, Outcomes, without_records
from lavis.tasks.knowledge.reasons import STOPS
from lavis.tasks.knowledge.teacher_images import TeacherImages

SHOWN = 500  # characters of a reply in the list of rejects
_OF_IMAGES = ("sees", "shows", "convention", "max_pixels", "image_format")
MOST_WAITING = 10_000  # units without a request that wait to be journaled


@dataclass(frozen=True)
class _Broken:
    """An unreadable first reply, while a better one is requested."""

    text: str
    reason: str
    tokens: tuple[int, int]


class KnowledgeGeneration:
    """Requests about each image, and the records made of the replies.

    Args:
        config: section `generate`.
        store: rows of the verbalized mappings.
        image_root: folder that image names are relative to, where the model sees images.

    Raises:
        ConfigError: it sees images, and `image_root` is None.

    Example:
        >>> generation = KnowledgeGeneration(config, open_records(config.records))
        >>> request = generation.request(0, generation.scene(0))
    """

    def __init__(
        self, config: GenerateConfig, store: RecordStore, image_root: str | None = None
    ) -> None:
        self.config, self.store = config, store
        self.images = TeacherImages(config, image_root) if config.sees_images else None
        self.prompts = Prompts(config.prompt_dir, images=config.sees_images)
        self.units = len(store) * len(config.prompts)
        self.stop: Exception | None = None  # what ended the run early
        self._format = response_format() if config.structured else None
        self._broken: dict[int, _Broken] = {}
        self._repairs: deque[ChatRequest] = deque()
        self._skipped: deque[UnitResult] = deque()  # nothing can be asked about them
        self._inputs: dict[int, list[Any]] = {}  # unit -> notes on its image, until its result
        self._instructions = {p.style: self.prompts.instructions(p.style) for p in config.prompts}

    def identity(self) -> dict[str, Any]:
        """Return the identity of everything a unit depends on beside the model."""
        node = asdict(self.config)
        for name in ("records", "prompt_dir", "dry_run_sample"):
            del node[name]
        seen = {"images": self.images.describe()} if self.images is not None else {}
        if self.images is None:
            for name in _OF_IMAGES:
                del node[name]
        return {
            "generate": node,
            "records": self.store.whole_identity(),
            "templates": self.prompts.identity(),
            **seen,
        }

    @property
    def places(self) -> list[str]:
        """Return the folders of files that single units depend on."""
        return [] if self.images is None else [self.images.root.root]

    def place(self, unit: int) -> tuple[int, PromptConfig]:
        """Return the row and the prompt of a unit."""
        row, prompt = divmod(unit, len(self.config.prompts))
        return row, self.config.prompts[prompt]

    def scene(self, unit: int) -> SceneNotes:
        """Return a unit's scene; raises `RecordError` if unusable or with nothing to ask about."""
        row, prompt = self.place(unit)
        config = self.config
        limits = SceneLimits(
            max_regions=config.max_regions,
            max_captions=config.max_captions,
            max_narratives=config.max_narratives,
            max_concepts=config.max_concepts,
            max_dialogue=config.max_dialogue,
            people_first=prompt.people,
        )
        scene = read_scene(self.store.read(row), limits)
        if prompt.regions == "any" and not scene.regions:
            raise RecordError("not asked: the image has no regions")
        somebody = any(region.is_person for region in scene.regions)
        if prompt.regions == "any" and prompt.people and not somebody:
            raise RecordError("not asked: no region is a person")
        is_known = scene.regions or scene.captions or scene.narratives or scene.objects
        if self.images is None and not is_known:
            raise RecordError("not asked: nothing is known of the image")
        return scene

    def request(self, unit: int, scene: SceneNotes, tries: int = 0) -> ChatRequest:
        """Return a unit's request, keyed by its number; `tries` useless replies move the seed.

        Raises:
            RecordError: its image cannot be shown.
        """
        row, prompt = self.place(unit)
        values = {
            "scene": scene,
            "regions": prompt.regions,
            "people": prompt.people,
            "num_items": prompt.num_items,
        }
        parts: list[dict[str, Any]] = []
        if self.images is not None:
            shown = self.images.show(self.store.read(row), scene, prompt)
            parts = shown.parts
            values |= shown.values
        return self._chat(f"{unit}", self.prompts.messages(prompt.style, values, parts), tries)

    def view(self, row: int) -> SceneView | None:
        """Return what the prompt that shows most of an image shows of it; None where none does.

        Raises:
            RecordError: it cannot be shown.
        """
        if self.images is None:
            return None
        kinds, record = len(self.config.prompts), self.store.read(row)
        scenes: list[tuple[bool, int, int, SceneNotes]] = []
        for unit in range(row * kinds, (row + 1) * kinds):
            with contextlib.suppress(RecordError):
                scene = self.scene(unit)
                about_regions = self.place(unit)[1].regions == "any"
                scenes.append((about_regions, len(scene.regions), -unit, scene))
        if not scenes:
            return None
        *_, unit, scene = max(scenes, key=lambda one: one[:3])
        return self.images.view(record, scene, self.place(-unit)[1])

    def run(self, client: ChatClient, outcomes: Outcomes) -> None:
        """Request every unit that is left, and write the results.

        A cap that is reached, a server that is gone and a wrong key end the run: see `stop`.
        """
        import torch

        from lavis.common.dist import World

        left = self.units - outcomes.done_before
        self.stop = run_units(
            self._results(client, outcomes),
            outcomes,
            World(0, 1, torch.device("cpu")),
            name="generating",
            units=left,
            left=left,
            total=self.units,
            noun="requests",
            note=lambda: _note(client),
            stops=STOPS,
        )

    def _results(self, client: ChatClient, outcomes: Outcomes) -> Iterator[UnitResult]:
        """Yield the results of units, as replies come."""
        rest = (unit for unit in range(self.units) if not outcomes.done(unit))
        refused: list[tuple[int, Mapping[str, Any]]] = []  # since the last answer
        try:
            more = True
            while more:
                for reply in client.complete(self._requests(rest, outcomes)):
                    yield from self._without_request()
                    if reply.ok:
                        refused.clear()
                    result = self._receive(reply, outcomes)
                    if result is not None:
                        yield self._noted(result)
                    if result is not None and reply.failure == "refused":
                        refused.append(result.rows[0])
                more = bool(self._repairs) or len(self._skipped) >= MOST_WAITING
                yield from self._without_request()
        except STOPS as stop:
            yield from self._without_request()
            if isinstance(stop, EndpointStopped):  # for once, refusals tell of the server
                for unit, payload in refused:
                    yield without_records(unit, "left", payload)
            raise

    def _without_request(self) -> Iterator[UnitResult]:
        while self._skipped:
            yield self._noted(self._skipped.popleft())

    def _noted(self, result: UnitResult) -> UnitResult:
        """Return a result with the notes on its unit's image."""
        return result._replace(inputs=self._inputs.pop(result.unit, ()))

    def _watch(self, unit: int) -> Watch:
        """Return a watch over a unit's image, of nothing where none is seen."""
        if self.images is None:
            return Watch([])
        try:
            return self.images.watch(self.store.read(self.place(unit)[0]))
        except RecordError:
            return Watch([])

    def _requests(self, rest: Iterator[int], outcomes: Outcomes) -> Iterator[ChatRequest]:
        """Yield repairs as they come up, then units that are left."""
        while len(self._skipped) < MOST_WAITING:
            if self._repairs:
                yield self._repairs.popleft()
                continue
            unit = next(rest, None)
            if unit is None:
                return
            watch = self._watch(unit)
            request: ChatRequest | None = None
            try:
                request = self.request(unit, self.scene(unit), outcomes.tries(unit))
            except RecordError as error:
                kind: Kind = "left" if error.may_pass else "data"
                rejects = {"rejects": [{"reason": error.reason}]}
                self._skipped.append(without_records(unit, kind, rejects))
            self._inputs[unit] = watch.notes()
            if request is not None:
                yield request

    def _receive(self, reply: ChatReply, outcomes: Outcomes) -> UnitResult | None:
        """Return the result of a unit from its reply; None if a better reply is requested."""
        unit = int(reply.key.rstrip("r"))
        broken = self._broken.pop(unit, None)
        tokens = [reply.prompt_tokens, reply.completion_tokens]
        if broken is not None:
            tokens = [sum(both) for both in zip(tokens, broken.tokens, strict=True)]
        row: dict[str, Any] = {"tokens": tokens}
        first = {"first_reason": broken.reason} if broken is not None else {}
        if not reply.ok:
            kind: Kind = "endpoint" if reply.failure == "refused" else "left"
            rejects = [{"reason": reply.error, **first}]
            return without_records(unit, kind, {**row, "rejects": rejects})
        try:
            read = read_reply(reply.text, reply.finish_reason)
        except ReplyError as error:
            if error.repairable and broken is None and self.config.repair:
                tries = outcomes.tries(unit)
                try:
                    self._repairs.append(self._repair(unit, reply.text, error.reason, tries))
                except RecordError as gone:  # the image, since it was shown
                    rejects = [{"reason": gone.reason, "first_reason": error.reason}]
                    return without_records(unit, "left", {**row, "rejects": rejects})
                self._broken[unit] = _Broken(reply.text, error.reason, (tokens[0], tokens[1]))
                return None
            reject = {"reason": error.reason, "reply": reply.text[:SHOWN], **first}
            return without_records(unit, "reply", {**row, "rejects": [reject]})
        if broken is not None:
            row["repaired"] = broken.reason
        row |= self._judge(unit, read)
        if row["records"]:
            return UnitResult(unit, [(unit, row)])
        return without_records(unit, "reply", row)

    def _judge(self, unit: int, read: ReplyItems) -> dict[str, Any]:
        """Return the records and rejects of a reply's items, each with its place in the reply.

        `number` counts the readable items: below `num_items`, so that it can be part of a
        record's index.
        """
        _, prompt = self.place(unit)
        scene = self.scene(unit)
        requirements = Requirements(prompt.style, prompt.regions, prompt.people, prompt.num_items)
        records = []
        rejects: list[dict[str, Any]] = [
            {"reason": reason, "position": position} for position, reason in read.dropped
        ]
        for count, (position, item) in enumerate(read.items):
            if count >= requirements.num_items:
                record: dict[str, Any] | str = "more items than asked for"
            else:
                instructions = self._instructions[prompt.style]
                record = make_record(item, scene, requirements, instructions)
            if isinstance(record, str):
                rejects.append({"reason": record, "position": position, "item": item.model_dump()})
            else:
                records.append({"position": position, "number": count, **record})
        return {"records": records, "rejects": rejects}

    def _repair(self, unit: int, text: str, problem: str, tries: int) -> ChatRequest:
        """Return the request that shows a reply beside its fault."""
        first = self.request(unit, self.scene(unit))
        content = text[: 4 * self.config.max_tokens] or "(nothing)"
        reply = {"role": "assistant", "content": content}
        messages = [*first.messages, reply, self.prompts.repair(problem)]
        return self._chat(f"{unit}r", messages, tries)

    def _chat(self, key: str, messages: list[dict[str, Any]], tries: int) -> ChatRequest:
        config = self.config
        return ChatRequest(
            key=key,
            messages=messages,
            max_tokens=config.max_tokens,
            temperature=config.temperature,
            top_p=config.top_p,
            seed=(config.seed or 0) + tries if tries else config.seed,
            response_format=self._format,
        )


def _note(client: ChatClient) -> str:
    """Return what is spent and, apart from it, what is reserved for requests on their way."""
    spent, reserved = client.spent(), client.reserved()
    if not spent.requests and not reserved.requests:
        return ""
    text = f"spent {spent.tokens} tokens"
    text += f", {spent.cost:.4g}" if spent.cost or reserved.cost else ""
    if reserved.requests:
        text += f"; reserved {reserved.tokens} tokens"
        text += f", {reserved.cost:.4g}" if reserved.cost else ""
    return text
