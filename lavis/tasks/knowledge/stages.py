"""Stages of a verbalization: what they depend on, and which of their units are left."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lavis.common.storage.cache import make_key
from lavis.common.storage.inputs import Changed
from lavis.common.storage.journal import Finished, finished
from lavis.common.units import UnitsLeft, changed_inputs, units_left
from lavis.datasets.files.records import JsonLinesFile
from lavis.llm.config import read_llm
from lavis.tasks.knowledge.writers import clients_of
from lavis.verbalizers.base import Verbalizer

logger = logging.getLogger(__name__)

# Settings that change how a stage is computed and not what it says.
_NOT_IDENTITY = {"batch_size"}
FAILURES = ("failed", "refused", "left")  # keys of descriptors: see `lavis.verbalizers.base`


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Attributes:
        name: in the run file.
        reads: names of the stages whose descriptors it reads.
        fingerprint: everything its descriptors depend on.
        folder: of its journal and descriptors.
        chunk: images of one unit.
        endpoint: digest of what acceptance by its clients' servers depends on; '' without clients.
    """

    name: str
    reads: tuple[str, ...]
    fingerprint: dict[str, Any]
    folder: Path
    chunk: int
    cls: type[Verbalizer] | None = None  # None: the stage that opens the images
    config: Any = None
    endpoint: str = ""

    @property
    def descriptors(self) -> Path:
        """The file with a line an image, which exists when the stage is done."""
        return self.folder / "descriptors.jsonl"


@dataclass(frozen=True)
class UnitNote:
    """What a finished unit depends on beside its images; stands last among its inputs.

    Attributes:
        read: hash of its images' descriptors from the stages that it reads.
        has_rejects: one of its requests got no usable text or was refused.
        endpoint: `Stage.endpoint` if a server refused one of its requests, else ''.
        tries: how often its rejects were requested again.
    """

    read: str
    has_rejects: bool = False
    endpoint: str = ""
    tries: int = 0

    def line(self) -> dict[str, Any]:
        """Return the note as it is journaled."""
        return {"note": asdict(self)}

    def is_done_again(self, stage: Stage, retry_rejects: bool) -> bool:
        """Return whether rejects of the unit are requested again."""
        mended = self.endpoint not in ("", stage.endpoint)
        return mended or (retry_rejects and self.has_rejects)


def hash_descriptors(lines: Iterator[bytes]) -> str:
    """Return a hash of descriptors, whatever the wording of their failures."""
    state = hashlib.blake2b(digest_size=16)
    for line in lines:
        if any(f'"{key}"'.encode() in line for key in FAILURES):
            descriptors = json.loads(line)
            is_left = bool(descriptors.get("left"))  # what waits must be made once it is there
            kept = {key: value for key, value in descriptors.items() if key not in FAILURES}
            line = json.dumps([kept, is_left]).encode()
        state.update(line + b"\n")
    return state.hexdigest()


def stage_identity(node: Any) -> Any:
    """Return settings without those that do not change descriptors."""
    if isinstance(node, dict):
        kept = {
            key: stage_identity(value) for key, value in node.items() if key not in _NOT_IDENTITY
        }
        client = node.get("client")
        if isinstance(client, dict) and "backend" in client:
            kept["client"] = read_llm(client).identity
        return kept
    return [stage_identity(item) for item in node] if isinstance(node, list) else node


def endpoint_digest(config: Any) -> str:
    """Return a digest of the `endpoint_identity` of all clients of a stage, '' without any."""
    clients = [read_llm(writer.client).endpoint_identity for writer in clients_of(config)]
    return make_key("endpoint", 1, clients=clients) if clients else ""


class _Before(NamedTuple):
    """What earlier starts finished of a stage: which units have other images now, and its notes."""

    finished: Finished
    changed: list[Changed]
    notes: dict[int, UnitNote]


class StagePlan:
    """Stages of a run, by name in order, their units and their files.

    Args:
        source: the images, a line each.
        beat: called with the current activity.
        retry_rejects: request missing texts again.
    """

    def __init__(
        self,
        stages: Mapping[str, Stage],
        source: JsonLinesFile,
        root: str,
        *,
        beat: Callable[[str], None],
        retry_rejects: bool,
    ) -> None:
        self.stages, self._source, self._root = stages, source, root
        self._beat, self._retry = beat, retry_rejects
        self._files: dict[str, JsonLinesFile] = {}
        self._before: dict[str, _Before] = {}

    def accept(self) -> None:
        """Compare the existing files with the settings, and keep the result for `left`.

        Raises:
            ConfigError: the existing files were made of other images in another folder.
        """
        self._before = {stage.name: self._compare(stage) for stage in self.stages.values()}

    def left(self, stage: Stage) -> tuple[UnitsLeft, dict[int, int]] | None:
        """Return the units to make and how often each was tried before, or None if all is done."""
        known = stage.name in self._before  # once; a stage that it reads may be made again now
        before = self._before.pop(stage.name) if known else self._compare(stage)
        changed = {one.unit for one in before.changed}
        changed |= {u for u, note in before.notes.items() if note.read != self.read(stage, u)}
        anew = {u for u, n in before.notes.items() if n.is_done_again(stage, self._retry)}
        again = anew | set(before.finished.again())
        _log_why(stage, changed, again, before.changed)
        left = units_left(len(self.units(stage)), before.finished, changed | again)
        if not len(left.units) and stage.descriptors.exists():
            return None
        more = self._retry and bool(stage.endpoint)
        return left, {u: note.tries + (more and u in anew) for u, note in before.notes.items()}

    def counts(self) -> dict[str, tuple[int, int]]:
        """Return stage name -> images in units that are not done, and all images."""
        counts = {}
        for name, stage in self.stages.items():
            ready = all(self.stages[other].descriptors.exists() for other in stage.reads)
            left = self.left(stage) if ready else None
            units = left[0].units.tolist() if left else () if ready else self.units(stage)
            counts[name] = (sum(len(self.rows(stage, unit)) for unit in units), len(self._source))
        return counts

    def undone(self, stage: Stage) -> int:
        """Return the images in units of a stage that no start has finished."""
        units = finished(stage.folder / "journal", stage.fingerprint).units
        return sum(len(self.rows(stage, u)) for u in self.units(stage) if u not in units)

    def units(self, stage: Stage) -> range:
        """Return the numbers of a stage's units."""
        return range(-(-len(self._source) // stage.chunk))

    def rows(self, stage: Stage, unit: int) -> range:
        """Return the images of a unit."""
        return range(unit * stage.chunk, min(len(self._source), (unit + 1) * stage.chunk))

    def read(self, stage: Stage, unit: int) -> str:
        """Return a hash of the descriptors that a unit reads."""
        rows = self.rows(stage, unit)
        return hash_descriptors(
            file.read_line(row) for file in self.files_of(stage) for row in rows
        )

    def descriptors(self, name: str) -> JsonLinesFile:
        """Return the descriptors of a finished stage."""
        if name not in self._files:
            self._files[name] = JsonLinesFile(str(self.stages[name].descriptors))
        return self._files[name]

    def files_of(self, stage: Stage) -> list[JsonLinesFile]:
        """Return the descriptors that a stage reads, the images' first."""
        return [self.descriptors(name) for name in stage.reads]

    def _compare(self, stage: Stage) -> _Before:
        before = finished(stage.folder / "journal", stage.fingerprint)
        notes: dict[int, UnitNote] = {}

        def noted() -> Iterator[tuple[int, list[Any], Sequence[str]]]:
            for unit, inputs, places in before.noted(also_again=True):
                notes[unit] = UnitNote(**inputs.pop()["note"])
                if not before.units[unit][-1]:
                    yield unit, inputs, places

        changed = changed_inputs(
            before,
            [self._root],
            folder=stage.folder,
            what="descriptors",
            beat=lambda: self._beat(f"{stage.name}: inputs of finished units"),
            noted=noted(),
        )
        return _Before(before, changed, notes)


def _log_why(stage: Stage, changed: set[int], again: set[int], files: list[Changed]) -> None:
    if changed:
        logger.warning(
            "%s: %d chunks of images are made again: what they are made from changed%s",
            *(stage.name, len(changed), f" (first: {files[0].name})" if files else ""),
        )
    if again - changed:
        logger.info("%s: %d chunks have something left", stage.name, len(again - changed))
