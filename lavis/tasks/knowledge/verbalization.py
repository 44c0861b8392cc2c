"""Images to a verbalized region mapping: stages of units, each done once by one process.

A stage's descriptors depend on its settings, on the images and on the stages it reads; a hash of
these names its folder, so that a change repeats only what depends on it:

    stages/<name>/<hash>/journal/           finished chunks of images
    stages/<name>/<hash>/descriptors.jsonl  when it is done: a line an image, in their order

A chunk notes its images and their descriptors from the stages that it reads. If one of these
differs at the next start, the chunk is made again. So is a chunk with texts that were left or
refused; the client has stored the other replies, so that those alone are requested.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from lavis.common import registry
from lavis.common.dist import World
from lavis.common.errors import ConfigError, RecordError, RunError
from lavis.common.storage.atomic import AtomicFile
from lavis.common.storage.inputs import Input, Watch
from lavis.common.storage.journal import Journal, JournalReader
from lavis.common.units import UnitResult, run_units
from lavis.datasets.files.images import ImageRoot
from lavis.datasets.files.records import JsonLinesFile
from lavis.datasets.lck.scene_sources import image_lines, line_bytes
from lavis.datasets.lck.scenes import Scene, ScenesConfig, open_scene
from lavis.llm.endpoint.failures import EndpointStopped
from lavis.tasks.knowledge.config import VerbalizeRunConfig
from lavis.tasks.knowledge.reasons import STOPS, how_to_go_on
from lavis.tasks.knowledge.stages import (
    Stage,
    StagePlan,
    UnitNote,
    endpoint_digest,
    stage_identity,
)
from lavis.tasks.knowledge.verbalization_results import (
    add_descriptors,
    says_something,
    write_results,
    write_stopped,
)
from lavis.tasks.knowledge.writers import ChatWriter, WriterFactory
from lavis.verbalizers.base import Verbalizer

logger = logging.getLogger(__name__)

VERSION = 3  # of what stages write
IMAGES = "pictures"  # the stage that opens every image and checks its boxes
IMAGES_CHUNK = 256
_Line = dict[str, Any]  # of an image, in the descriptors of a stage


class _LoadedUnit(NamedTuple):
    """Images of one unit.

    Attributes:
        images: a scene, or the line of an image without one.
        notes: of `lavis.common.storage.inputs`, on the images' files.
        again: an image could not be read for a temporary cause.
    """

    images: list[Scene | _Line]
    notes: list[Any]
    again: bool


class Verbalization:
    """A run; every process calls it with the same settings.

    Args:
        images: which, and where.
        stages: settings by name, in their order.
        run: where results go.
        world: of the processes.
        retry_rejects: request texts again that clients failed to write.

    Example:
        >>> world = dist.start(run.device)
        >>> summary = Verbalization(images, stages, run, world).run()
    """

    def __init__(
        self,
        images: ScenesConfig,
        stages: Mapping[str, Any],
        run: VerbalizeRunConfig,
        world: World,
        *,
        retry_rejects: bool = False,
    ) -> None:
        self.images, self.run_config, self.world = images, run, world
        self.folder = Path(run.output_dir)
        self.root = ImageRoot(images.root, follow_symlinks=images.follow_symlinks)
        self._names = ImageRoot(images.root, must_exist=False)
        self.source, digest = self._open_source()
        self.stages = self._stages(stages, digest)
        self.writers = WriterFactory(self.folder, stages.values(), world)
        self.plan = StagePlan(
            self.stages, self.source, self.root.root, beat=world.beat, retry_rejects=retry_rejects
        )

    def accept(self) -> None:
        """Raise the errors of `run` that show before it writes anything; every process calls this.

        Raises:
            ConfigError: the existing files were made of other images in another folder.
        """
        self.world.on_main(self.plan.accept, "whose descriptors")

    def run(self) -> dict[str, Any]:
        """Do what is left, write the results, and return their summary.

        Raises:
            ConfigError: no text can be had until the run file or a key is mended.
            RunError: likewise, until a cap, an account or a server is; or nothing was made.
        """
        try:
            for stage in self.stages.values():
                stop = self._run(stage)
                if stop is not None:
                    stopped = functools.partial(self._write_stopped, stage, stop)
                    self.world.on_main(stopped, f"{stage.name}: stopped")
                    raise stop
        finally:
            self.writers.close()
        files = {name: self.plan.descriptors(name) for name in self.stages}
        write = functools.partial(
            write_results, self.folder, files, self.root, self.run_config.report_examples
        )
        return self.world.on_main(write, "results written")

    def _open_source(self) -> tuple[JsonLinesFile, str]:
        """Write the images and their boxes as lines of one form, under a name of their hash."""
        named: tuple[str, str] | None = None
        if self.world.is_main:
            digest = hashlib.blake2b(digest_size=16)
            folder = self.folder / "stages" / IMAGES
            writer = AtomicFile(folder / "source.jsonl")
            with writer as file:
                for line in image_lines(self.images):
                    data = line_bytes(line)
                    digest.update(data)
                    file.write(data)
                writer.path = folder / f"source-{digest.hexdigest()[:12]}.jsonl"
            named = (str(writer.path), digest.hexdigest())
        path_text, content = self.world.broadcast(named, "images listed")
        return JsonLinesFile(path_text), content

    def _stages(self, configs: Mapping[str, Any], digest: str) -> dict[str, Stage]:
        options = dataclasses.asdict(self.images)
        kept = ("max_regions", "order", "min_edge", "check", "max_pixels", "follow_symlinks")
        identity = {"source": digest, **{key: options[key] for key in kept}}
        stages = {IMAGES: self._stage(IMAGES, (), identity, IMAGES_CHUNK)}
        classes: dict[str, type[Verbalizer]] = {}
        for name, config in configs.items():
            cls = registry.verbalizers.get(config.type)
            try:
                reads = (IMAGES, *cls.reads(config, classes))
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
            stage = self._stage(name, reads, identity, config.chunk, cls, config)
            endpoint = endpoint_digest(config)
            stages[name] = dataclasses.replace(stage, endpoint=endpoint)
            classes[name] = cls
        return stages

    def _stage(
        self,
        name: str,
        reads: tuple[str, ...],
        identity: dict[str, Any],
        chunk: int,
        cls: type[Verbalizer] | None = None,
        config: Any = None,
    ) -> Stage:
        fingerprint = {"stage": name, "version": VERSION, "chunk": chunk, **identity}
        text = json.dumps(fingerprint, sort_keys=True).encode()
        folder = hashlib.blake2b(text, digest_size=6).hexdigest()
        place = self.folder / "stages" / name / folder
        return Stage(name, reads, fingerprint, place, chunk, cls, config)

    def _run(self, stage: Stage) -> Exception | None:
        """Do one stage; returns what ended it early."""
        world = self.world
        left = world.on_main(lambda: self.plan.left(stage), f"{stage.name}: what is left")
        if left is None:
            logger.info("%s: done before, %s", stage.name, stage.folder.name)
            return None
        units, tries = left
        mine = units.of_rank(world)
        places = [os.path.realpath(self.root.root)]
        stop = None
        with ExitStack() as stack:
            journal = Journal(
                stage.folder / "journal",
                stage.fingerprint,
                world.rank,
                start=units.start,
                places=places,
            )
            stack.callback(journal.close)
            if mine:
                stop = run_units(
                    self._results(stage, mine, tries, stack),
                    journal,
                    world,
                    name=stage.name,
                    units=len(mine),
                    left=sum(len(self.plan.rows(stage, unit)) for unit in mine),
                    total=len(self.source),
                    noun="images",
                    stops=STOPS,
                )
        stop = None if stop is None else _named(stage, stop)
        stops = world.gather(stop, f"{stage.name}: every unit done")
        if any(stops):
            return next(stop for stop in stops if stop)
        world.on_main(lambda: self._commit(stage), f"{stage.name}: written")
        return None

    def _results(
        self, stage: Stage, units: Sequence[int], tries: Mapping[int, int], stack: ExitStack
    ) -> Iterator[UnitResult]:
        """Build a stage's tools, and return the results of units, computed lazily."""
        if stage.cls is None:
            loaded = self._load_ahead(stage, units, self._opened)
            return self._describe(stage, loaded, lambda unit: unit.images, [], tries)
        self.plan.files_of(stage)  # opened before threads ask for them
        writers: list[ChatWriter] = []
        tools = self.writers.tools(stage.name, self.run_config.seed, stack, writers)
        verbalizer = stage.cls(stage.config, tools)
        loaded = self._load_ahead(stage, units, functools.partial(self._scene, stage, verbalizer))
        describe = functools.partial(_describe, verbalizer)
        return self._describe(stage, loaded, describe, writers, tries)

    def _describe(
        self,
        stage: Stage,
        loaded: Iterable[tuple[int, _LoadedUnit]],
        describe: Callable[[_LoadedUnit], list[Any]],
        writers: Sequence[ChatWriter],
        tries: Mapping[int, int],
    ) -> Iterator[UnitResult]:
        refused: list[UnitResult] = []  # since the last text
        for unit, images in loaded:
            for writer in writers:
                writer.tries = tries.get(unit, 0)
            try:
                lines = describe(images)
            except EndpointStopped:  # for once, refusals tell of the server
                yield from (result._replace(again=True) for result in refused)
                raise
            texts = [
                line
                for one, line in zip(images.images, lines, strict=True)
                if isinstance(one, Scene)
            ]
            is_refused = any("refused" in line for line in texts)
            note = UnitNote(
                read=self.plan.read(stage, unit),
                has_rejects=bool(stage.endpoint)
                and (is_refused or any("failed" in line for line in texts)),
                endpoint=stage.endpoint if is_refused else "",
                tries=tries.get(unit, 0),
            )
            rows = list(zip(self.plan.rows(stage, unit), lines, strict=True))
            again = images.again or any("left" in line for line in texts)
            result = UnitResult(unit, rows, [*images.notes, note.line()], again)
            yield result
            if any(map(says_something, lines)):
                refused.clear()
            elif note.endpoint:
                refused.append(result)

    def _load_ahead(
        self, stage: Stage, units: Sequence[int], load: Callable[[int], Scene | _Line]
    ) -> Iterator[tuple[int, _LoadedUnit]]:
        """Yield units with their images, the next ones loaded by threads meanwhile."""
        waiting = deque[tuple[int, Future[_LoadedUnit]]]()
        workers = self.run_config.num_workers
        with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
            for unit in units:
                rows = self.plan.rows(stage, unit)
                waiting.append((unit, pool.submit(self._load, rows, load)))
                if len(waiting) > workers:
                    first, future = waiting.popleft()
                    yield first, future.result()
            for unit, future in waiting:
                yield unit, future.result()

    def _load(self, rows: Sequence[int], load: Callable[[int], Scene | _Line]) -> _LoadedUnit:
        """Load rows, with notes on their images."""
        watch = Watch([self.root.root])
        for row in rows:
            with contextlib.suppress(RecordError):  # a name that can be no image's
                path = self._names.find(self.source.read(row).get("image")).path
                watch.add(Input(os.path.abspath(path)))
        images = [load(row) for row in rows]
        again = any(isinstance(one, dict) and one.get("again") for one in images)
        return _LoadedUnit(images, watch.notes(), again)

    def _opened(self, row: int) -> _Line:
        source = self.source.read(row)
        name = source.get("image")
        try:
            record, bad = open_scene(source, self.root, self.images)
        except RecordError as error:
            return _rejected(name, error)
        return {"image": name, "record": record, **({"failed": bad} if bad else {})}

    def _scene(self, stage: Stage, verbalizer: Verbalizer, row: int) -> Scene | _Line:
        """Return a row's scene with its image decoded, or the row's line if it has none."""
        first, *others = (file.read(row) for file in self.plan.files_of(stage))
        if "record" not in first:
            return {"image": first["image"]}
        waits = [n for n, line in zip(stage.reads[1:], others, strict=True) if line.get("left")]
        if waits:  # requests would differ once they are there
            return {"image": first["image"], "left": [f"waits for: {', '.join(waits)}"]}
        record = first["record"]
        for descriptors in others:
            add_descriptors(record, descriptors)
        scene = Scene(record, self.root, self.images.max_pixels)
        try:
            if verbalizer.needs_image(scene):
                scene.read_image()
        except RecordError as error:
            return _rejected(scene.image, error)
        return scene

    def _write_stopped(self, stage: Stage, stop: Exception) -> None:
        left = {stage.name: self.plan.undone(stage)}
        write_stopped(self.folder, len(self.source), str(stop), left)

    def _commit(self, stage: Stage) -> None:
        """Write a finished stage's descriptors in the order of the images."""
        with JournalReader(stage.folder / "journal", stage.fingerprint) as reader:
            assert len(reader) == len(self.source)
            with AtomicFile(stage.descriptors) as file:
                for _, raw in reader.iterate_raw():
                    file.write(raw + b"\n")


def _describe(verbalizer: Verbalizer, unit: _LoadedUnit) -> list[_Line]:
    scenes = [one for one in unit.images if isinstance(one, Scene)]
    descriptors = iter(verbalizer.describe(scenes) if scenes else [])
    return [
        {"image": one.image, **next(descriptors)} if isinstance(one, Scene) else one
        for one in unit.images
    ]


def _rejected(image: Any, error: RecordError) -> _Line:
    """Return the line of an unusable image; `again` if the cause is temporary."""
    again = {"again": True} if error.may_pass else {}
    return {"image": image, "reject": error.reason, **again}


def _named(stage: Stage, error: Exception) -> Exception:
    """Return the error that ends a run, with its stage."""
    text = f"stages.{stage.name}: {error}"
    if isinstance(error, ConfigError):
        return ConfigError(text)
    return RunError(f"not complete: {text}{how_to_go_on(error)}")
