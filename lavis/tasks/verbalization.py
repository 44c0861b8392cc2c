"""Pictures to a verbalized region mapping: stages of units, each done once by one process.

A stage's descriptors depend on its settings, on the pictures and on the stages it reads; a hash of
these names its folder, so that a change makes again what depends on it and nothing else:

    stages/<name>/<hash>/journal/           finished chunks of pictures
    stages/<name>/<hash>/descriptors.jsonl  when it is done: a line a picture, in their order

A chunk notes what its pictures were, and what the stages that it reads said of them. Where one of
these is another at the next start, the chunk is made again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lavis.common import registry
from lavis.common.dist import World
from lavis.common.errors import ConfigError, RecordError
from lavis.common.inputs import Changed, Input, Watch, changed_units
from lavis.common.journal import Finished, Journal, JournalReader, finished
from lavis.common.logger import Progress
from lavis.common.storage import AtomicFile
from lavis.datasets.picture_sources import line_bytes, picture_lines
from lavis.datasets.pictures import PictureRoot
from lavis.datasets.records import JsonLinesFile
from lavis.datasets.scenes import Scene, open_scene
from lavis.datasets.scenes_config import ScenesConfig
from lavis.tasks.verbalization_config import VerbalizeRunConfig
from lavis.tasks.verbalization_results import tell, write_results
from lavis.tasks.verbalization_stages import Chunk, Stage, rejected, stage_identity
from lavis.tasks.verbalization_writers import build_writer
from lavis.verbalizers.base import RetryLater, Tools

logger = logging.getLogger(__name__)

VERSION = 2  # of what stages write
PICTURES = "pictures"  # the stage that opens every picture and checks its boxes
PICTURES_CHUNK = 256

Load = Callable[[Sequence[int]], Chunk]
Describe = Callable[[Any], list[dict[str, Any]]]


class Verbalization:
    """A run; every process calls it with the same settings."""

    def __init__(
        self,
        pictures: ScenesConfig,
        stages: Mapping[str, Any],
        run: VerbalizeRunConfig,
        world: World,
    ) -> None:
        self.pictures, self.run_config, self.world = pictures, run, world
        self.folder = Path(run.output_dir)
        self.root = PictureRoot(pictures.root, follow_symlinks=pictures.follow_symlinks)
        self._names = PictureRoot(pictures.root, must_exist=False)
        self.source, digest = self._open_source()
        self.stages = self._plan(stages, digest)
        self._files: dict[str, JsonLinesFile] = {}
        self._compared: dict[str, tuple[Finished, list[Changed], dict[int, str]]] = {}

    def run(self) -> dict[str, Any] | None:
        """Do what is left; returns the summary, or None where texts have to be asked for again."""
        for stage in self.stages.values():
            if not self._run(stage):
                return None
        summary = None
        if self.world.is_main:
            names = list(self.stages)
            files = [self._descriptors(name) for name in names]
            summary = write_results(self.folder, names, files)
        return self.world.broadcast(summary, "summary")

    def left(self) -> dict[str, tuple[int, int]]:
        """Return stage name -> pictures in units that are not done, and all pictures."""
        found = {}
        for name, stage in self.stages.items():
            ready = all(self.stages[other].descriptors.exists() for other in stage.reads)
            left = self._left(stage) if ready else (list(self._units(stage)), 1)
            rows = sum(len(self._rows(stage, unit)) for unit in (left[0] if left else ()))
            found[name] = (rows, len(self.source))
        return found

    def _open_source(self) -> tuple[JsonLinesFile, str]:
        """Write the pictures and their boxes as lines of one form, under a name of their hash."""
        named: tuple[str, str] | None = None
        if self.world.is_main:
            digest = hashlib.blake2b(digest_size=16)
            folder = self.folder / "stages" / PICTURES
            writer = AtomicFile(folder / "source.jsonl")
            with writer as file:
                for line in picture_lines(self.pictures):
                    data = line_bytes(line)
                    digest.update(data)
                    file.write(data)
                writer.path = folder / f"source-{digest.hexdigest()[:12]}.jsonl"
            named = (str(writer.path), digest.hexdigest())
        path_text, content = self.world.broadcast(named, "pictures listed")
        return JsonLinesFile(path_text), content

    def _plan(self, configs: Mapping[str, Any], digest: str) -> dict[str, Stage]:
        options = dataclasses.asdict(self.pictures)
        kept = ("max_regions", "order", "min_edge", "check", "max_pixels", "follow_symlinks")
        identity = {"source": digest, **{key: options[key] for key in kept}}
        stages = {PICTURES: self._stage(PICTURES, (), identity, PICTURES_CHUNK)}
        classes: dict[str, Any] = {}
        for name, config in configs.items():
            cls = registry.verbalizers.get(config.type)
            try:
                reads = (PICTURES, *cls.reads(config, classes))
                identity = {
                    "config": stage_identity(dataclasses.asdict(config)),
                    "files": cls.identity(config),
                    "seed": self.run_config.seed,
                    "reads": {other: stages[other].folder.name for other in reads},
                }
            except ConfigError as error:
                raise ConfigError(f"stages.{name}.{error}") from None
            # Every process must see the same files under the same names.
            identity = self.world.broadcast(identity, f"{name}: identity")
            stages[name] = self._stage(name, reads, identity, config.chunk, cls, config)
            classes[name] = cls
        return stages

    def _stage(
        self,
        name: str,
        reads: tuple[str, ...],
        identity: dict[str, Any],
        chunk: int,
        cls: Any = None,
        config: Any = None,
    ) -> Stage:
        fingerprint = {"stage": name, "version": VERSION, "chunk": chunk, **identity}
        text = json.dumps(fingerprint, sort_keys=True).encode()
        folder = hashlib.blake2b(text, digest_size=6).hexdigest()
        place = self.folder / "stages" / name / folder
        return Stage(name, reads, fingerprint, place, chunk, cls, config)

    def _descriptors(self, name: str) -> JsonLinesFile:
        if name not in self._files:
            self._files[name] = JsonLinesFile(str(self.stages[name].descriptors))
        return self._files[name]

    def _run(self, stage: Stage) -> bool:
        """Do one stage; returns whether it is done."""
        world = self.world
        left = world.on_main(lambda: self._left(stage), f"{stage.name}: what is left")
        if left is None:
            logger.info("%s: done before, %s", stage.name, stage.folder.name)
            return True
        units, start = left
        journal = Journal(
            stage.folder / "journal",
            stage.fingerprint,
            world.rank,
            start=start,
            places=[os.path.realpath(self.root.root)],
        )
        mine = units[world.rank :: world.size]
        reason = ""
        with ExitStack() as stack:
            stack.callback(journal.close)
            if mine:
                load, describe = self._work(stage, stack)
                reason = self._do(stage, journal, mine, load, describe)
        reasons = world.gather(reason, f"{stage.name}: every unit done")
        if any(reasons):
            told = next(reason for reason in reasons if reason)
            logger.error("%s: unfinished, start the command again later: %s", stage.name, told)
            return False
        world.on_main(lambda: self._commit(stage), f"{stage.name}: written")
        return True

    def accept(self) -> None:
        """Refuse what `run` would refuse, before it writes anything; every process calls this.

        Raises:
            ConfigError: what is there was made of other pictures in another folder.
        """

        def compare() -> None:
            self._compared = {stage.name: self._compare(stage) for stage in self.stages.values()}

        self.world.on_main(compare, "whose descriptors")

    def _compare(self, stage: Stage) -> tuple[Finished, list[Changed], dict[int, str]]:
        """Return what is finished, what of it has other pictures, and what each chunk has read."""
        before = finished(stage.folder / "journal", stage.fingerprint)
        reads: dict[int, str] = {}

        def files() -> Iterator[tuple[int, list[Any], list[str]]]:
            for unit, notes, places in before.noted():
                reads[unit] = notes.pop()
                yield unit, notes, places

        where = f"{stage.name}: inputs of finished chunks"
        root = self.root.root
        changed = changed_units(files(), [root], tick=lambda _: self.world.beat(where))
        if any(one.moved for one in changed):
            raise ConfigError(
                f"pictures.root: {stage.folder} was made of pictures in another folder, and in "
                f"{os.path.realpath(root)} those of {len(changed)} chunks are others (first: "
                f"{changed[0].name}); choose another run.output_dir or delete {stage.folder}"
            )
        return before, changed, reads

    def _left(self, stage: Stage) -> tuple[list[int], int] | None:
        """Return the chunks to make and the number of this start, or None where all is done."""
        known = stage.name in self._compared  # once; a stage that it reads may be made again now
        before, changed, reads = self._compared.pop(stage.name) if known else self._compare(stage)
        redone = {one.unit for one in changed} | set(before.again())
        redone |= {unit for unit, read in reads.items() if read != self._read(stage, unit)}
        if redone:
            logger.warning(
                "%s: %d chunks of pictures are made again: what they are made from changed%s",
                *(stage.name, len(redone), f" (first: {changed[0].name})" if changed else ""),
            )
        units = [unit for unit in self._units(stage) if unit not in before.units or unit in redone]
        if not units and stage.descriptors.exists():
            return None
        return units, before.next_start

    def _units(self, stage: Stage) -> range:
        return range(-(-len(self.source) // stage.chunk))

    def _rows(self, stage: Stage, unit: int) -> range:
        return range(unit * stage.chunk, min(len(self.source), (unit + 1) * stage.chunk))

    def _read(self, stage: Stage, unit: int) -> str:
        """Return a hash of what the stages that a chunk reads say of its pictures."""
        state = hashlib.blake2b(digest_size=16)
        for file in self.files_of(stage):
            for row in self._rows(stage, unit):
                state.update(file.read_line(row) + b"\n")
        return state.hexdigest()

    def _do(
        self, stage: Stage, journal: Journal, units: list[int], load: Load, describe: Describe
    ) -> str:
        """Do units and journal each; returns why some are left, or ''."""
        world, total = self.world, len(self.source)
        done = max(0, total - world.size * len(units) * stage.chunk)
        progress = Progress(total, stage.name, unit="pictures", done=done, shown=world.is_main)
        reason = ""
        for unit, rows, chunk in self._ahead(stage, units, load):
            try:
                payloads = describe(chunk.loaded)
            except RetryLater as later:
                reason = str(later)
                if later.stop:
                    break
                continue
            inputs = [*chunk.notes, self._read(stage, unit)]
            journal.append(unit, list(zip(rows, payloads, strict=True)), inputs, chunk.again)
            world.beat(f"{stage.name}: unit {unit}")
            progress.add(min(len(rows) * world.size, total - progress.done))
        progress.close()
        return reason

    def _ahead(
        self, stage: Stage, units: Sequence[int], load: Load
    ) -> Iterator[tuple[int, Sequence[int], Chunk]]:
        """Yield units with what they need, the next ones loaded by threads meanwhile."""
        waiting = deque[tuple[int, Sequence[int], Future[Chunk]]]()
        workers = self.run_config.num_workers
        with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
            for unit in units:
                rows = self._rows(stage, unit)
                waiting.append((unit, rows, pool.submit(load, rows)))
                if len(waiting) > workers:
                    first, its_rows, future = waiting.popleft()
                    yield first, its_rows, future.result()
            while waiting:
                first, its_rows, future = waiting.popleft()
                yield first, its_rows, future.result()

    def _work(self, stage: Stage, stack: ExitStack) -> tuple[Load, Describe]:
        """Return how the units of a stage are loaded, and how they are done."""
        if stage.cls is None:
            return (lambda rows: self._chunk(rows, self._opened)), list
        self.files_of(stage)  # opened before threads ask for them
        verbalizer = stage.cls(stage.config, self._tools(stage, stack))

        def scene(row: int) -> Scene | dict[str, Any]:
            return self._scene(stage, verbalizer, row)

        return (lambda rows: self._chunk(rows, scene)), lambda loaded: _describe(verbalizer, loaded)

    def _chunk(self, rows: Sequence[int], load: Callable[[int], Any]) -> Chunk:
        """Load rows, with notes on their pictures."""
        watch = Watch([self.root.root])
        loaded, again = [], False
        for row in rows:
            with contextlib.suppress(RecordError):  # a name that can be no picture's
                path = self._names.find(self.source.read(row).get("image")).path
                watch.add(Input(os.path.abspath(path)))
            found = load(row)
            again = again or (isinstance(found, dict) and bool(found.get("again")))
            loaded.append(found)
        return Chunk(loaded, watch.notes(), again)

    def files_of(self, stage: Stage) -> list[JsonLinesFile]:
        """Return the descriptors that a stage reads, the pictures' first."""
        return [self._descriptors(name) for name in stage.reads]

    def _tools(self, stage: Stage, stack: ExitStack) -> Tools:
        world = self.world
        clients = iter(range(1000))

        def writer(config: Any) -> Any:
            place = self.folder / "clients" / stage.name / f"rank{world.rank}-{next(clients)}"
            device = str(world.device)
            made = build_writer(config, place, device=device, world_size=world.size)
            if hasattr(made, "close"):
                stack.callback(made.close)
            return made

        return Tools(stage.name, self.run_config.seed, str(world.device), writer)

    def _opened(self, row: int) -> dict[str, Any]:
        source = self.source.read(row)
        name = source.get("image")
        try:
            record, bad = open_scene(source, self.root, self.pictures)
        except RecordError as error:
            return rejected(name, error)
        return {"image": name, "record": record, **({"failed": bad} if bad else {})}

    def _scene(self, stage: Stage, verbalizer: Any, row: int) -> Scene | dict[str, Any]:
        """Return a row's scene with its picture decoded, or the row's payload where it has none."""
        first, *others = (file.read(row) for file in self.files_of(stage))
        if "record" not in first:
            return {"image": first["image"]}
        record = first["record"]
        for descriptors in others:
            tell(record, descriptors)
        scene = Scene(record, self.root, self.pictures.max_pixels)
        try:
            if verbalizer.needs_picture(scene):
                scene.picture()
        except RecordError as error:
            return rejected(scene.image, error)
        return scene

    def _commit(self, stage: Stage) -> None:
        """Write a finished stage's descriptors in the order of the pictures."""
        journal = stage.folder / "journal"
        with JournalReader(journal, stage.fingerprint) as reader:
            assert len(reader) == len(self.source)
            with AtomicFile(stage.descriptors) as file:
                for _, raw in reader.iterate_raw():
                    file.write(raw + b"\n")


def _describe(verbalizer: Any, loaded: Sequence[Any]) -> list[dict[str, Any]]:
    scenes = [scene for scene in loaded if isinstance(scene, Scene)]
    found = iter(verbalizer.describe(scenes) if scenes else [])
    return [
        {"image": each.image, **next(found)} if isinstance(each, Scene) else each for each in loaded
    ]
