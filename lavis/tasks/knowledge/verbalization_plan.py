"""Which chunks of which stages are left to be made, and why."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from lavis.common.errors import ConfigError
from lavis.common.storage.inputs import Changed, changed_units
from lavis.common.storage.journal import Finished, finished
from lavis.datasets.files.records import JsonLinesFile
from lavis.tasks.knowledge.verbalization_stages import Left, Note, Stage, hash_said, read_note

logger = logging.getLogger(__name__)


class _Before(NamedTuple):
    """What earlier starts finished of a stage: what of it has other images now, and its notes."""

    finished: Finished
    changed: list[Changed]
    notes: dict[int, Note]


class Plan:
    """Stages of a run, their chunks and their files.

    Args:
        stages: by name, in their order.
        source: the images, a line each.
        root: folder of the images.
        beat: called with what is being done.
        retry_rejects: ask anew for texts that clients could not be had from.
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
        """Compare what is there with what is given, and keep that for `left`.

        Raises:
            ConfigError: what is there was made of other images in another folder.
        """
        self._before = {stage.name: self._compare(stage) for stage in self.stages.values()}

    def left(self, stage: Stage) -> Left | None:
        """Return the chunks to make, or None where all is done."""
        known = stage.name in self._before  # once; a stage that it reads may be made again now
        before = self._before.pop(stage.name) if known else self._compare(stage)
        changed = {one.unit for one in before.changed}
        changed |= {u for u, note in before.notes.items() if note.read != self.read(stage, u)}
        anew = {u for u, n in before.notes.items() if n.is_done_again(stage, self._retry)}
        again = set(before.finished.again())
        _say_why(stage, changed, again | anew, before.changed)
        redone = changed | again | anew
        units = [u for u in self.units(stage) if u not in before.finished.units or u in redone]
        if not units and stage.descriptors.exists():
            return None
        more = self._retry and bool(stage.endpoint)
        tries = {u: note.tries + (more and u in anew) for u, note in before.notes.items()}
        return Left(units, before.finished.next_start, {u: n for u, n in tries.items() if n})

    def counts(self) -> dict[str, tuple[int, int]]:
        """Return stage name -> images in units that are not done, and all images."""
        counts = {}
        for name, stage in self.stages.items():
            ready = all(self.stages[other].descriptors.exists() for other in stage.reads)
            left = self.left(stage) if ready else None
            units = left.units if left else () if ready else list(self.units(stage))
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
        """Return a hash of what the stages that a chunk reads say of its images."""
        rows = self.rows(stage, unit)
        return hash_said(file.read_line(row) for file in self.files_of(stage) for row in rows)

    def descriptors(self, name: str) -> JsonLinesFile:
        """Return the descriptors of a stage that is done."""
        if name not in self._files:
            self._files[name] = JsonLinesFile(str(self.stages[name].descriptors))
        return self._files[name]

    def files_of(self, stage: Stage) -> list[JsonLinesFile]:
        """Return the descriptors that a stage reads, the images' first."""
        return [self.descriptors(name) for name in stage.reads]

    def _compare(self, stage: Stage) -> _Before:
        before = finished(stage.folder / "journal", stage.fingerprint)
        notes: dict[int, Note] = {}

        def files() -> Iterator[tuple[int, list[Any], Sequence[str]]]:
            for unit, inputs, places in before.noted(also_again=True):
                notes[unit] = read_note(inputs.pop())
                if not before.units[unit][-1]:
                    yield unit, inputs, places

        where = f"{stage.name}: inputs of finished chunks"
        changed = changed_units(files(), [self._root], tick=lambda _: self._beat(where))
        if any(one.moved for one in changed):
            raise ConfigError(
                f"pictures.root: {stage.folder} was made of images in another folder, and in "
                f"{os.path.realpath(self._root)} those of {len(changed)} chunks are others (first: "
                f"{changed[0].name}); choose another run.output_dir or delete {stage.folder}"
            )
        return _Before(before, changed, notes)


def _say_why(stage: Stage, changed: set[int], again: set[int], files: list[Changed]) -> None:
    if changed:
        logger.warning(
            "%s: %d chunks of images are made again: what they are made from changed%s",
            *(stage.name, len(changed), f" (first: {files[0].name})" if files else ""),
        )
    if again - changed:
        logger.info("%s: %d chunks have something left", stage.name, len(again - changed))
