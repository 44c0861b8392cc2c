"""Stages of a verbalization, the chunks they are made in, and what a finished chunk notes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lavis.common.errors import RecordError
from lavis.common.storage.cache import make_key
from lavis.llm.config import read_llm

# Settings that change how a stage is computed and not what it says.
_NOT_IDENTITY = {"batch_size"}
FAILURES = ("failed", "refused", "left")  # keys of descriptors: see `lavis.verbalizers.base`


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Attributes:
        name: in the run file.
        reads: names of the stages whose descriptors it sees.
        fingerprint: everything its descriptors depend on.
        folder: of its journal and descriptors.
        chunk: images of one unit.
        endpoint: digest of what it depends on whether its clients' servers take a request; ''
            without clients.
    """

    name: str
    reads: tuple[str, ...]
    fingerprint: dict[str, Any]
    folder: Path
    chunk: int
    cls: Any = None
    config: Any = None
    endpoint: str = ""

    @property
    def descriptors(self) -> Path:
        """The file with a line an image, there when the stage is done."""
        return self.folder / "descriptors.jsonl"


@dataclass(frozen=True)
class Chunk:
    """Images of one unit.

    Attributes:
        loaded: a scene, or the line of an image without one.
        notes: of `lavis.common.storage.inputs`, on the images' files.
        again: an image could not be read for a reason that may pass.
    """

    loaded: list[Any]
    notes: list[Any]
    again: bool


@dataclass(frozen=True)
class Note:
    """What a finished unit depends on beside its images; stands last among its inputs.

    Attributes:
        read: hash of what the stages that it reads say of its images.
        has_rejects: a client wrote nothing of use for one of its requests, or was refused one.
        endpoint: `Stage.endpoint` where a server refused one of its requests, else ''.
        tries: how often its rejects were asked anew.
    """

    read: str
    has_rejects: bool = False
    endpoint: str = ""
    tries: int = 0

    def line(self) -> dict[str, Any]:
        """Return the note as it is journaled."""
        return {"note": asdict(self)}

    def is_done_again(self, stage: Stage, retry_rejects: bool) -> bool:
        """Return whether rejects of the unit are asked anew."""
        mended = self.endpoint not in ("", stage.endpoint)
        return mended or (retry_rejects and self.has_rejects)


def read_note(line: Any) -> Note:
    """Return a note as it was journaled."""
    return Note(**line["note"])


@dataclass(frozen=True)
class Left:
    """What is left of a stage.

    Attributes:
        units: to be done, or done again.
        start: number of this start.
        tries: unit -> how often its rejects are asked anew, where that is ever.
    """

    units: list[int]
    start: int
    tries: dict[int, int]


@dataclass(frozen=True)
class Work:
    """How the units of a stage are done.

    Attributes:
        load: rows -> what is described of them.
        describe: that -> descriptors.
        writers: clients that `describe` has texts written by.
    """

    load: Callable[[Sequence[int]], Chunk]
    describe: Callable[[Any], list[dict[str, Any]]]
    writers: list[Any]


def hash_said(lines: Iterator[bytes]) -> str:
    """Return a hash of descriptors, whatever the words of their failures."""
    state = hashlib.blake2b(digest_size=16)
    for line in lines:
        if any(f'"{key}"'.encode() in line for key in FAILURES):
            said = json.loads(line)
            is_left = bool(said.get("left"))  # what waits for it must be made once it is there
            kept = {key: value for key, value in said.items() if key not in FAILURES}
            line = json.dumps([kept, is_left]).encode()
        state.update(line + b"\n")
    return state.hexdigest()


def rejected(image: Any, error: RecordError) -> dict[str, Any]:
    """Return the line of an image that cannot be used; `again` where it may be later."""
    again = {"again": True} if error.may_pass else {}
    return {"image": image, "reject": error.reason, **again}


def stage_identity(node: Any) -> Any:
    """Return settings without those that do not change what is said."""
    if isinstance(node, dict):
        kept = {
            key: stage_identity(value) for key, value in node.items() if key not in _NOT_IDENTITY
        }
        if _is_client(node.get("client")):
            kept["client"] = read_llm(node["client"]).identity
        return kept
    return [stage_identity(item) for item in node] if isinstance(node, list) else node


def endpoint_digest(node: Mapping[str, Any]) -> str:
    """Return a digest of all clients' `endpoint_identity` in settings, '' where there is none."""
    found = [read_llm(client).endpoint_identity for client in _clients(node)]
    return make_key("endpoint", 1, clients=found) if found else ""


def _clients(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if _is_client(node.get("client")):
            yield node["client"]
        for value in node.values():
            yield from _clients(value)
    elif isinstance(node, list):
        for item in node:
            yield from _clients(item)


def _is_client(node: Any) -> bool:
    return isinstance(node, dict) and "backend" in node
