"""Verbalized images to question / answer / rationale records, by a language model.

The plan is a list of units, `row * prompts + prompt`: one request each, made from the data and the
config alone. A unit is finished when its items are in the journal; see `generation_outcomes` for
those that have none. Images are read when their turn comes; the numbers of finished units are all
that grows with the data in memory.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lavis.common.errors import ConfigError, RecordError
from lavis.datasets.files.records import RecordStore
from lavis.llm.base import ChatReply, ChatRequest, content_key
from lavis.llm.client import ChatClient
from lavis.llm.config import LlmConfig
from lavis.llm.endpoint.failures import EndpointStopped
from lavis.llm.money.budget import BudgetReached
from lavis.llm.money.tokens import TokenCounter
from lavis.llm.prompts import Prompts
from lavis.llm.replies.items import ReplyError, ReplyItems, read_reply, response_format
from lavis.llm.replies.parse import Requirements, make_record
from lavis.llm.replies.scene import SceneLimits, SceneNotes, read_scene
from lavis.llm.store import ReplyStore
from lavis.tasks.knowledge.generation_config import GenerateConfig, PromptConfig
from lavis.tasks.knowledge.generation_outcomes import Kind, Outcomes

logger = logging.getLogger(__name__)

SHOWN = 500  # characters of a reply in the list of rejects


@dataclass(frozen=True)
class _Broken:
    """A first reply that could not be read, while a better one is asked for."""

    text: str
    reason: str
    tokens: tuple[int, int]


class Generation:
    """What is asked about each image, and what is made of the replies.

    Args:
        config: section `generate`.
        store: rows of the verbalized mappings.
    """

    def __init__(self, config: GenerateConfig, store: RecordStore) -> None:
        self.config, self.store = config, store
        self.prompts = Prompts(config.prompt_dir)
        self.units = len(store) * len(config.prompts)
        self.stop: Exception | None = None  # what ended the run early
        self._format = response_format() if config.structured else None
        self._broken: dict[int, _Broken] = {}
        self._repairs: deque[ChatRequest] = deque()
        self._refused: dict[int, dict[str, Any]] = {}  # since the last answer
        self._instructions = {p.style: self.prompts.instructions(p.style) for p in config.prompts}

    def identity(self) -> dict[str, Any]:
        """Return the identity of everything a unit depends on beside the model."""
        from dataclasses import asdict

        node = asdict(self.config)
        for name in ("records", "prompt_dir", "dry_run_sample"):
            del node[name]
        return {
            "generate": node,
            "records": self.store.whole_identity(),
            "templates": self.prompts.identity(),
        }

    def place(self, unit: int) -> tuple[int, PromptConfig]:
        """Return the row and the prompt of a unit."""
        row, prompt = divmod(unit, len(self.config.prompts))
        return row, self.config.prompts[prompt]

    def scene(self, unit: int) -> SceneNotes:
        """Return the scene a unit is about.

        Raises:
            RecordError: the record cannot be used, or has nothing to ask about.
        """
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
        if not (scene.regions or scene.captions or scene.narratives or scene.objects):
            raise RecordError("not asked: nothing is known of the image")
        return scene

    def request(self, unit: int, scene: SceneNotes, tries: int = 0) -> ChatRequest:
        """Return the request of a unit; its key is the unit's number.

        Args:
            tries: how often it was answered with nothing of use; moves the seed, so that the
                reply is another.
        """
        _, prompt = self.place(unit)
        values = {
            "scene": scene,
            "regions": prompt.regions,
            "people": prompt.people,
            "num_items": prompt.num_items,
        }
        return self._ask(f"{unit}", self.prompts.messages(prompt.style, values), tries)

    def run(self, client: ChatClient, outcomes: Outcomes, progress: Any) -> None:
        """Ask for every unit that is left, and write what comes back.

        A cap that is reached, a server that is gone and a wrong key end the run: see `stop`.
        """
        rest = (unit for unit in range(self.units) if not outcomes.done(unit))
        try:
            while True:
                for reply in client.complete(self._requests(rest, outcomes, progress)):
                    if self._receive(int(reply.key.rstrip("r")), reply, outcomes):
                        progress.add(note=_note(client))
                if not self._repairs:
                    return
        except (BudgetReached, EndpointStopped, ConfigError) as stop:
            self.stop = stop
            if isinstance(stop, EndpointStopped):  # for once, refusals tell of the server
                for unit, row in self._refused.items():
                    outcomes.set_aside(unit, "left", row)

    def _requests(
        self, rest: Iterator[int], outcomes: Outcomes, progress: Any
    ) -> Iterator[ChatRequest]:
        """Yield repairs as they come up, then units that are left."""
        while True:
            if self._repairs:
                yield self._repairs.popleft()
                continue
            unit = next(rest, None)
            if unit is None:
                return
            try:
                request = self.request(unit, self.scene(unit), outcomes.tries(unit))
            except RecordError as error:
                kind: Kind = "left" if error.may_pass else "data"
                outcomes.set_aside(unit, kind, {"rejects": [{"reason": error.reason}]})
                progress.add()
                continue
            yield request

    def _receive(self, unit: int, reply: ChatReply, outcomes: Outcomes) -> bool:
        """Note what a reply says of a unit; False where a better reply is asked for."""
        broken = self._broken.pop(unit, None)
        tokens = [reply.prompt_tokens, reply.completion_tokens]
        if broken is not None:
            tokens = [sum(both) for both in zip(tokens, broken.tokens, strict=True)]
        row: dict[str, Any] = {"tokens": tokens}
        first = {"first_reason": broken.reason} if broken is not None else {}
        if not reply.ok:
            kind: Kind = "endpoint" if reply.failure == "refused" else "left"
            row["rejects"] = [{"reason": reply.error, **first}]
            outcomes.set_aside(unit, kind, row)
            if kind == "endpoint":
                self._refused[unit] = row
            return True
        self._refused.clear()
        try:
            read = read_reply(reply.text, reply.finish_reason)
        except ReplyError as error:
            if error.repairable and broken is None and self.config.repair:
                self._broken[unit] = _Broken(reply.text, error.reason, (tokens[0], tokens[1]))
                tries = outcomes.tries(unit)
                self._repairs.append(self._repair(unit, reply.text, error.reason, tries))
                return False
            reject = {"reason": error.reason, "reply": reply.text[:SHOWN], **first}
            outcomes.set_aside(unit, "reply", {**row, "rejects": [reject]})
            return True
        if broken is not None:
            row["repaired"] = broken.reason
        row |= self._judge(unit, read)
        if row["records"]:
            outcomes.keep(unit, row)
        else:
            outcomes.set_aside(unit, "reply", row)
        return True

    def _judge(self, unit: int, read: ReplyItems) -> dict[str, Any]:
        """Return the records and rejects of a reply's items, each with its place in the reply.

        `number` counts the items that could be read: below `num_items`, so that it can be part of
        a record's index.
        """
        _, prompt = self.place(unit)
        scene = self.scene(unit)
        wanted = Requirements(prompt.style, prompt.regions, prompt.people, prompt.num_items)
        records = []
        rejects: list[dict[str, Any]] = [
            {"reason": reason, "position": position} for position, reason in read.dropped
        ]
        for count, (position, item) in enumerate(read.items):
            if count >= wanted.num_items:
                made: dict[str, Any] | str = "more items than asked for"
            else:
                made = make_record(item, scene, wanted, self._instructions[prompt.style])
            if isinstance(made, str):
                rejects.append({"reason": made, "position": position, "item": item.model_dump()})
            else:
                records.append({"position": position, "number": count, **made})
        return {"records": records, "rejects": rejects}

    def _repair(self, unit: int, text: str, problem: str, tries: int) -> ChatRequest:
        """Return the request that shows a reply beside what is wrong with it."""
        first = self.request(unit, self.scene(unit))
        said = {"role": "assistant", "content": text[: 4 * self.config.max_tokens] or "(nothing)"}
        messages = [*first.messages, said, self.prompts.repair(problem)]
        return self._ask(f"{unit}r", messages, tries)

    def _ask(self, key: str, messages: list[dict[str, Any]], tries: int) -> ChatRequest:
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
    """Return what is spent and, apart from it, what is set aside for requests on their way."""
    spent, reserved = client.spent(), client.reserved()
    if not spent.requests and not reserved.requests:
        return ""
    text = f"spent {spent.tokens} tokens"
    text += f", {spent.cost:.4g}" if spent.cost or reserved.cost else ""
    if reserved.requests:
        text += f"; reserved {reserved.tokens} tokens"
        text += f", {reserved.cost:.4g}" if reserved.cost else ""
    return text


def estimate(generation: Generation, llm: LlmConfig) -> dict[str, Any]:
    """Return what a run would ask and cost, without touching the network.

    At most `dry_run_sample` images, evenly spaced, are read; the rest is taken to be like them.
    Replies that are stored already are not counted as cost. Repairs and retries are not foreseen.
    """
    rows = len(generation.store)
    step = max(1, -(-rows // generation.config.dry_run_sample))
    sample = range(0, rows, step)
    counter = TokenCounter(llm, exact=True)
    store, identity = ReplyStore(llm.cache_dir), llm.identity
    asked = stored = tokens = 0
    reasons: dict[str, int] = {}
    kinds = len(generation.config.prompts)
    for unit in (row * kinds + kind for row in sample for kind in range(kinds)):
        try:
            request = generation.request(unit, generation.scene(unit))
        except RecordError as error:
            reason = error.reason.split(":")[0]
            reasons[reason] = reasons.get(reason, 0) + 1
            continue
        asked += 1
        if store.has(content_key(identity, request)):
            stored += 1
        else:
            tokens += counter.estimate(request)
    scale = rows / max(1, len(sample))
    to_send = round((asked - stored) * scale)
    prompt_tokens, most = round(tokens * scale), to_send * generation.config.max_tokens
    report: dict[str, Any] = {
        "pictures": rows,
        "requests": round(asked * scale),
        "stored_replies": round(stored * scale),
        "requests_to_send": to_send,
        "not_asked": {reason: round(count * scale) for reason, count in reasons.items()},
        "prompt_tokens": prompt_tokens,
        "completion_tokens_at_most": most,
        "token_estimate": counter.method,
        "pictures_read": len(sample),
    }
    if llm.price is not None:
        cost = prompt_tokens * llm.price.input + most * llm.price.output
        report["cost_at_most"] = round(cost * llm.price_factor / 1e6, 4)
    return report
